"""F38 cpu.contention: a server's threads are ready to run and wait, because somebody else has the processors.

Two layers: the host's own account says that tasks have waited for a processor for a minute, and the kernel's
histogram says that it is this server's threads that wait, longer than is usual for them. Usual is the median
of what its windows were while nobody waited; it survives a restart. Who has the processors is the control
group that has grown most; when none stands out, the server's own threads may be waiting for each other, and
it is a note.

Look-alikes stay quiet: a busy host whose servers do not wait, a burst that is over within the minute, a
server that always waits a little.
"""

from __future__ import annotations

import statistics
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final, Self

import msgspec
from msgspec import Meta

from agent.bounded import entry
from agent.detector import DetectorConfig, FaultNote, Surroundings, Tick
from agent.finding import Finding, Hysteresis, Verdict, absent, unknown
from agent.host.heard import Heard
from agent.subjects import cut, incarnation_of, place_of, subject_of, target_of
from escalation.model import (
    FaultClass,
    PressureEvidence,
    Reason,
    ReasonCode,
    Resource,
    RunDelayEvidence,
    Severity,
    Subject,
    SubjectKind,
)
from probes.observation import (
    Blind,
    Gap,
    Instant,
    Neighbour,
    Observation,
    PressureState,
    RunDelay,
    SensorName,
)

PRESSURE: Final = SensorName("host.pressure")
DELAYS: Final = SensorName("kernel.run_delay")
_FAULT: Final = FaultClass.CPU_CONTENTION
_SERVERS_MAX: Final = 64
_WINDOWS: Final = 32
_STALE_S: Final = 30.0

_Waits = tuple[Annotated[float, Meta(ge=0, le=86400)], ...]


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How much the host waits, how much the server does, against what is usual for it."""

    contended_percent: Annotated[float, Meta(gt=0, le=100)] = 20.0
    waited_share: Annotated[float, Meta(gt=0)] = 0.05
    wait_s: Annotated[float, Meta(gt=0)] = 0.004
    above_usual: Annotated[float, Meta(gt=1)] = 3.0
    grown_cores: Annotated[float, Meta(gt=0)] = 0.2
    lasting_s: Annotated[float, Meta(ge=0)] = 15.0
    calm_percent: Annotated[float, Meta(gt=0, le=100)] = 5.0
    clear_hold_s: Annotated[float, Meta(ge=0)] = 60.0
    gone_clear_after_s: Annotated[float, Meta(gt=0)] = 86400.0


@dataclass(slots=True)
class _Server:
    """What a wait of a server is while nobody waits, and since when it waits longer."""

    usual: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOWS))
    since: Instant | None = None
    seen: Instant | None = None
    told: bool = False

    @property
    def usual_s(self) -> float | None:
        return statistics.median(self.usual) if self.usual else None


class CpuContention:
    """Says which server waits for the processor, and who has it."""

    NAME: ClassVar[str] = "cpu_contention"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_FAULT,
            severity=(Severity.NOTE, Severity.MEDIUM),
            sensors=(PRESSURE, DELAYS),
            opens="Tasks of the host have waited for a processor `contended_percent` of a minute, and for "
            "`lasting_s` a server's threads have waited `waited_share` of the time, one wait in a hundred "
            "longer than `wait_s` and `above_usual` times what is usual for it; another group has grown by "
            "`grown_cores` (medium) or none stands out (note).",
            quiet="A busy host whose servers do not wait; a burst within the minute; a server that always "
            "waits like this.",
            clears="The server's waits are usual again, or hardly any task of the host waits, for "
            "`clear_hold_s`; or its cgroup is gone, or it has not been there for `gone_clear_after_s`.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._heard = Heard(DELAYS)
        self._around = surroundings
        self._servers: OrderedDict[Subject, _Server] = OrderedDict()
        self._pressure: PressureState | None = None
        self._blind: set[SensorName] = {PRESSURE, DELAYS}

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """Open at once, because what had to last was waited for here."""
        return {_FAULT: Hysteresis(clear_hold_s=self._config.clear_hold_s)}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Judge one window of a server's waits; keep in mind how the host waits."""
        match observation:
            case Gap(sensor=sensor, coverage=coverage) if sensor in {PRESSURE, DELAYS}:
                self._heard.sight(observation)
                if isinstance(coverage, Blind):
                    self._blind.add(sensor)
                else:
                    self._blind.discard(sensor)
            case PressureState():
                self._pressure = observation
            case RunDelay():
                if observation.threads:
                    self._heard.take(subject_of(observation.origin), observation.at)
                return self._judged(observation)
            case _:
                pass
        return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Clear what is gone, and everything when nobody waits; say unknown while that cannot be seen."""
        found = []
        calm = self._calm(tick.now)
        for case in tick.open_cases:
            look = None if case.place is None else tick.world.cgroups.get(case.place)
            if look is not None and (not look.exists or look.same is False):
                found.append(absent(_FAULT, case.subject, tick.now, Reason(ReasonCode.CGROUP_GONE)))
            elif calm is not None:
                found.append(absent(_FAULT, case.subject, calm.at, self._free_again()))
            elif self._blind:
                found.append(unknown(_FAULT, tick.now, case.subject))
            elif (gone := self._heard.gone(case, tick, self._config.gone_clear_after_s)) is not None:
                found.append(gone)
        return found

    def memory(self) -> dict[str, bytes]:
        """Return what is usual for each server, to be kept across a restart."""
        return {
            f"{subject.kind.value}/{subject.name}": msgspec.json.encode(tuple(server.usual))
            for subject, server in self._servers.items()
            if server.usual
        }

    def recall(self, memory: Mapping[str, bytes]) -> int:
        """Take up what `memory` returned before; return how many entries could not be read."""
        unreadable = 0
        for key, raw in memory.items():
            kind, _, name = key.partition("/")
            try:
                waits = msgspec.json.decode(raw, type=_Waits)
                self._server(Subject(SubjectKind(kind), name)).usual.extend(waits)
            except ValueError:
                unreadable += 1
        return unreadable

    def _judged(self, delay: RunDelay) -> Sequence[Finding]:
        subject = subject_of(delay.origin)
        server = self._server(subject)
        if delay.window_s <= 0 or not delay.threads:  # it is gone, which is no end of its waiting
            return ()
        calm = delay.cpu_some_avg10 is not None and delay.cpu_some_avg10 < self._config.calm_percent
        if calm and delay.p99_s is not None:
            server.usual.append(delay.p99_s)
        share = delay.waited_s / delay.window_s
        long_s = max(self._config.wait_s, (server.usual_s or 0.0) * self._config.above_usual)
        if share < self._config.waited_share or delay.p99_s is None or delay.p99_s <= long_s:
            server.since = None
            server.told = False
            return (absent(_FAULT, subject, delay.at, self._free_again()),)
        pressure = self._contended(delay.at)
        if pressure is None:
            return ()
        if server.since is None or server.seen is None or delay.at.since_s(server.seen) > _STALE_S:
            server.since = delay.at
        server.seen = delay.at
        if delay.at.since_s(server.since) + delay.window_s < self._config.lasting_s:
            return ()
        return (self._present(subject, delay, server, pressure),)

    def _present(
        self, subject: Subject, delay: RunDelay, server: _Server, pressure: PressureState
    ) -> Finding:
        neighbour = next(
            (one for one in delay.neighbours if one.grown_cores >= self._config.grown_cores), None
        )
        told, server.told = server.told, True
        reasons = [
            Reason(ReasonCode.TASKS_WAIT_FOR_CPU, threshold=self._config.contended_percent, window_s=60.0),
            Reason(
                ReasonCode.SERVER_THREADS_WAIT,
                count=delay.waits,
                threshold=max(self._config.wait_s, (server.usual_s or 0.0) * self._config.above_usual),
                window_s=round(delay.window_s, 3),
            ),
        ]
        if neighbour is not None:
            reasons.append(Reason(ReasonCode.NEIGHBOUR_GROWS, threshold=self._config.grown_cores))
        return Finding(
            verdict=Verdict.PRESENT,
            fault_class=_FAULT,
            subject=subject,
            target=target_of(delay.origin, subject),
            at=delay.at,
            severity=Severity.NOTE if neighbour is None else Severity.MEDIUM,
            incarnation=incarnation_of(delay.origin, self._around.kernel_boot_id),
            place=place_of(delay.origin),
            lifebound=subject.kind in {SubjectKind.CGROUP, SubjectKind.PROCESS},
            count=int(not told),
            reasons=tuple(reasons),
            evidence=(
                _delay_evidence(delay, server.usual_s, neighbour),
                PressureEvidence(
                    resource=Resource.CPU,
                    window_s=60.0,
                    some_percent=pressure.cpu_some_avg60,
                    full_percent=None,
                ),
            ),
        )

    def _contended(self, now: Instant) -> PressureState | None:
        """Return how the host waits, when that is fresh and much."""
        state = self._pressure
        if state is None or now.since_s(state.at) > _STALE_S or state.cpu_some_avg60 is None:
            return None
        return state if state.cpu_some_avg60 >= self._config.contended_percent else None

    def _calm(self, now: Instant) -> PressureState | None:
        """Return how the host waits, when that is fresh and hardly at all."""
        state = self._pressure
        if PRESSURE in self._blind or state is None or state.cpu_some_avg60 is None:
            return None
        if now.since_s(state.at) > 3 * _STALE_S or state.cpu_some_avg10 is None:
            return None
        least = self._config.calm_percent
        return state if max(state.cpu_some_avg60, state.cpu_some_avg10) < least else None

    def _free_again(self) -> Reason:
        return Reason(ReasonCode.CPU_FREE_AGAIN, threshold=self._config.calm_percent)

    def _server(self, subject: Subject) -> _Server:
        return entry(self._servers, subject, _Server, limit=_SERVERS_MAX)


def _delay_evidence(delay: RunDelay, usual_s: float | None, neighbour: Neighbour | None) -> RunDelayEvidence:
    return RunDelayEvidence(
        window_s=round(delay.window_s, 3),
        waits=delay.waits,
        waited_s=round(delay.waited_s, 3),
        p99_s=delay.p99_s,
        baseline_s=usual_s,
        neighbour="" if neighbour is None else cut(neighbour.cgroup_path),
        neighbour_cores=0.0 if neighbour is None else neighbour.cores,
    )
