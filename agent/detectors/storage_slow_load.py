"""F36 storage.slow_load: a model server reads its model for longer than it should, because its disk is slow.

Two layers: the server (it started, it does not listen yet, and its patience is over) and the disk (all tasks
wait for it, by the kernel's pressure accounting, or its reads take several times what is usual for it, while
reads go on). Never more than a note: it answers once it is loaded, and a restart begins the load anew.

Look-alikes stay quiet: the first start after the host's own, when nothing is cached, has a patience of its
own; a server that starts slowly without reading (it compiles, it downloads); a busy disk under servers that
listen; a server whose port is not known, as long as it answers requests. What is usual for a disk is learnt
from the time of its reads while it is seen that nobody loads and tasks do not wait, on a logarithmic scale,
and survives a restart. Ollama and llama.cpp listen before they load, so their loads are not seen here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import log2
from typing import Annotated, ClassVar, Final, Self

from msgspec import Meta

from agent.baselines.baseline import Baseline, UnreadableBaseline
from agent.bounded import entry, keep
from agent.detector import DetectorConfig, FaultNote, ProcessKey, Surroundings, Tick
from agent.finding import Finding, Hysteresis, Verdict, absent, unknown
from agent.host.filesystems import block_evidence
from agent.host.heard import Heard
from agent.subjects import incarnation_of, place_of, subject_of, target_of
from escalation.model import (
    Evidence,
    FaultClass,
    PressureEvidence,
    Reason,
    ReasonCode,
    Resource,
    Severity,
    Subject,
)
from probes.observation import (
    Blind,
    BlockActivity,
    Exchange,
    Filesystems,
    Gap,
    Instant,
    Observation,
    SensorName,
    ServerReadiness,
)

SERVERS: Final = SensorName("host.readiness")
LOOKS: Final = SensorName("host.storage")
BLOCK: Final = SensorName("kernel.block")
_FAULT: Final = FaultClass.STORAGE_SLOW_LOAD
_DISKS_MAX: Final = 16
_SERVERS_MAX: Final = 64
_FRESH_S: Final = 120.0
_WINDOW_S: Final = 60.0
_LONGEST_S: Final = 43200.0
"""A server that does not listen for half a day never will where we look: its port is another."""

_LOG2_MOST: Final = 64.0
"""No read takes 2 to the power of this, or of its negative, in seconds."""


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long a load may take, after the host's start too, and what of a disk is slow."""

    patience_s: Annotated[float, Meta(gt=0)] = 600.0
    first_patience_s: Annotated[float, Meta(gt=0)] = 1800.0
    boot_s: Annotated[float, Meta(ge=0)] = 900.0
    stalled_percent: Annotated[float, Meta(gt=0, le=100)] = 20.0
    slower_factor: Annotated[float, Meta(gt=1)] = 5.0
    slower_s: Annotated[float, Meta(gt=0)] = 0.02
    reads_min: Annotated[int, Meta(ge=1)] = 10
    warm_up: Annotated[int, Meta(ge=1)] = 40
    clear_hold_s: Annotated[float, Meta(ge=0)] = 0.0
    gone_clear_after_s: Annotated[float, Meta(gt=0)] = 86400.0


@dataclass(slots=True)
class _Disk:
    """What is usual for a disk, and what it did last."""

    usual: Baseline = field(default_factory=Baseline)
    last: BlockActivity | None = None


class StorageSlowLoad:
    """Says which server has been loading for too long from a slow disk."""

    NAME: ClassVar[str] = "storage_slow_load"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_FAULT,
            severity=(Severity.NOTE,),
            sensors=(SERVERS, BLOCK, LOOKS),
            opens="A model server has not listened for `patience_s` after its start (`first_patience_s` "
            "within `boot_s` of the host's), a disk is read from meanwhile, and all tasks wait for disks "
            "`stalled_percent` of the time or reads take `slower_factor` times what is usual for it.",
            quiet="The first start after the host's, for longer; a start without reads; a busy disk while "
            "the servers listen; a server that answers requests.",
            clears="The server listens or answers; or its process, or its cgroup, is gone; or it has not "
            "been there for `gone_clear_after_s`.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._heard = Heard(SERVERS)
        self._around = surroundings
        self._disks: OrderedDict[str, _Disk] = OrderedDict()
        self._loading: OrderedDict[Subject, ServerReadiness] = OrderedDict()
        self._told: set[Subject] = set()
        self._up: OrderedDict[Subject, Instant] = OrderedDict()
        self._pressure: tuple[Instant, float] | None = None
        self._sees = False

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """Open at once: patience was had here."""
        return {_FAULT: Hysteresis(clear_hold_s=self._config.clear_hold_s)}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Judge a server that does not listen; keep in mind what disks do."""
        match observation:
            case Gap(sensor=sensor, coverage=coverage) if sensor == SERVERS:
                self._heard.sight(observation)
                self._sees = not isinstance(coverage, Blind)
                return () if self._sees else (unknown(_FAULT, observation.at),)
            case Filesystems(at=at, io_full_avg60=full):
                self._pressure = None if full is None else (at, full)
            case BlockActivity():
                self._worked(observation)
            case Exchange(origin=origin, at=at):
                subject = subject_of(origin)
                server = self._loading.get(subject)
                if server is not None:
                    self._answered(subject, server)
                    return (self._over(subject, at),)
            case ServerReadiness():
                self._heard.take(subject_of(observation.origin), observation.at)
                return self._judged(observation)
            case _:
                pass
        return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Clear what is gone; say unknown of the rest while servers cannot be seen."""
        if not tick.open_cases:
            return ()
        found: list[Finding] = []
        for case in tick.open_cases:
            code = self._gone(tick, case.subject)
            look = tick.world.cgroups.get(case.place) if case.place else None
            if look is not None and not look.exists:
                code = ReasonCode.CGROUP_GONE
            if code is not None:
                self._forget(case.subject)
                found.append(absent(_FAULT, case.subject, tick.now, Reason(code, count=1)))
            elif (gone := self._heard.gone(case, tick, self._config.gone_clear_after_s)) is not None:
                found.append(gone)
        return found or (() if self._sees else (unknown(_FAULT, tick.now),))

    def watching(self) -> Sequence[ProcessKey]:
        """Ask whether the servers that load still live."""
        return [key for server in self._loading.values() if (key := _key(server)) is not None]

    def memory(self) -> dict[str, bytes]:
        """Return what is usual for each disk, to be kept across a restart."""
        return {name: disk.usual.to_bytes() for name, disk in self._disks.items() if disk.usual.count}

    def recall(self, memory: Mapping[str, bytes]) -> int:
        """Take up what `memory` returned before; return how many entries could not be read."""
        unreadable = 0
        for name, raw in memory.items():
            try:
                self._disk(name).usual = _usual(raw)
            except UnreadableBaseline:
                unreadable += 1
        return unreadable

    def _gone(self, tick: Tick, subject: Subject) -> ReasonCode | None:
        server = self._loading.get(subject)
        key = None if server is None else _key(server)
        lives = None if key is None else tick.world.processes.get(key)
        return ReasonCode.PROCESS_GONE if lives is False else None

    def _worked(self, activity: BlockActivity) -> None:
        disk = self._disk(activity.device)
        disk.last = activity
        mean_s = activity.read_mean_s
        # What is read while somebody loads is what is judged: it is not learnt as usual. Nor is what nobody
        # can tell (who loads is not seen), or what all tasks wait for.
        calm = self._sees and not self._loading and self._stalled(activity.at) is None
        if mean_s and activity.reads >= self._config.reads_min and calm:
            disk.usual.observe(activity.at.unix_ns / 1e9, log2(mean_s))

    def _disk(self, name: str) -> _Disk:
        return entry(self._disks, name, _Disk, limit=_DISKS_MAX)

    def _judged(self, server: ServerReadiness) -> Sequence[Finding]:
        subject = subject_of(server.origin)
        if server.listens:
            return (self._over(subject, server.at),)
        lasted_s = server.at.since_s(server.started)
        if server.listens is None or self._up.get(subject) == server.started or lasted_s > _LONGEST_S:
            self._forget(subject)
            return ()
        self._loading[subject] = server
        self._loading.move_to_end(subject)
        while len(self._loading) > _SERVERS_MAX:
            self._forget(next(iter(self._loading)))
        patience_s = self._patience_s(server)
        if lasted_s < patience_s:
            return ()
        reading = self._slowest(server.at)
        if reading is None:
            return ()
        device, disk, slower = reading
        stalled = self._stalled(server.at)
        if not slower and stalled is None:
            return ()
        reasons = [
            Reason(ReasonCode.LOADING_FOR_LONG, threshold=patience_s, window_s=round(lasted_s, 3)),
        ]
        if slower and disk.last is not None:
            usual_s = 2**disk.usual.level
            reasons.append(Reason(ReasonCode.READS_SLOW, count=disk.last.reads, threshold=round(usual_s, 6)))
        evidence: list[Evidence] = [self._block(device, disk)]
        if stalled is not None:
            reasons.append(Reason(ReasonCode.TASKS_STALL_FOR_IO, threshold=self._config.stalled_percent))
            evidence.append(
                PressureEvidence(
                    resource=Resource.IO, window_s=_WINDOW_S, some_percent=None, full_percent=stalled
                )
            )
        return (self._present(server, subject, reasons, evidence),)

    def _answered(self, subject: Subject, server: ServerReadiness) -> None:
        """Keep in mind that this life of the server is up, whatever its port seems to be."""
        keep(self._up, subject, server.started, limit=_SERVERS_MAX)

    def _patience_s(self, server: ServerReadiness) -> float:
        first = server.started.boot_ns / 1e9 <= self._config.boot_s
        return self._config.first_patience_s if first else self._config.patience_s

    def _slowest(self, now: Instant) -> tuple[str, _Disk, bool] | None:
        """Return the disk that is read from now, the slowest for itself first, and whether it is too slow."""
        found: list[tuple[float, str, _Disk]] = []
        for device, disk in self._disks.items():
            last = disk.last
            if last is None or not last.read_mean_s or now.since_s(last.at) > _FRESH_S:
                continue
            if last.reads >= self._config.reads_min:
                found.append((self._times_usual(disk, last.read_mean_s), device, disk))
        if not found:
            return None
        times, device, disk = max(found, key=lambda each: each[:2])
        return device, disk, times >= self._config.slower_factor

    def _times_usual(self, disk: _Disk, mean_s: float) -> float:
        """Return how many times its usual time a read takes; 0 while that is not known, or is no time."""
        if disk.usual.count < self._config.warm_up or mean_s < self._config.slower_s:
            return 0.0
        return float(mean_s / 2**disk.usual.level)

    def _stalled(self, now: Instant) -> float | None:
        if self._pressure is None:
            return None
        at, full = self._pressure
        fresh = now.since_s(at) <= _FRESH_S
        return full if fresh and full >= self._config.stalled_percent else None

    def _block(self, device: str, disk: _Disk) -> Evidence:
        known = disk.usual.count >= self._config.warm_up
        return block_evidence(
            device,
            disk.last,
            window_s=disk.last.window_s if disk.last else 0.0,
            baseline_s=round(2**disk.usual.level, 6) if known else None,
        )

    def _present(
        self,
        server: ServerReadiness,
        subject: Subject,
        reasons: Sequence[Reason],
        evidence: Sequence[Evidence],
    ) -> Finding:
        fresh = subject not in self._told
        self._told.add(subject)
        return Finding(
            verdict=Verdict.PRESENT,
            fault_class=_FAULT,
            subject=subject,
            target=target_of(server.origin, subject),
            at=server.at,
            severity=Severity.NOTE,
            incarnation=incarnation_of(server.origin, self._around.kernel_boot_id),
            place=place_of(server.origin),
            lifebound=True,
            count=int(fresh),
            reasons=tuple(reasons),
            evidence=tuple(evidence),
        )

    def _over(self, subject: Subject, at: Instant) -> Finding:
        self._forget(subject)
        return absent(_FAULT, subject, at, Reason(ReasonCode.SERVER_LISTENS))

    def _forget(self, subject: Subject) -> None:
        self._loading.pop(subject, None)
        self._told.discard(subject)


def _usual(raw: bytes) -> Baseline:
    """Return the baseline in `raw`; raise UnreadableBaseline where it is none of the times of reads."""
    usual = Baseline.from_bytes(raw)
    if abs(usual.level) > _LOG2_MOST:
        raise UnreadableBaseline("no read takes so long, or so short")
    return usual


def _key(server: ServerReadiness) -> ProcessKey | None:
    pid = server.origin.pid
    return None if pid is None else ProcessKey(pid, server.origin.start_ticks)
