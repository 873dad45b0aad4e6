"""F18 gpu.cpu_fallback, F46 transcription.cpu_fallback: what belongs on a GPU computes on the CPU.

No label is believed. Five signs count, each from a sensor of its own, and two of them make a case: the
server's processes keep many cores busy while it has requests; the driver lists none of them on a GPU; answers
come several times more slowly than they did while it was listed; its opens of GPU nodes fail; the server says
itself that nothing of its models lies on a GPU (that it says the contrary proves nothing). One of the two has
to be the work itself (cores or pace): a server that does nothing falls back to nothing.

What looks alike stays quiet: a server that is declared to be on the CPU or split between both; one that is
not declared and never was on a GPU; a burst of cores for a prompt, for decoding audio or for loading a model;
work that overlaps with requests for a model that belongs on the CPU; slow answers while the driver lists the
server (that is another fault); and anybody at all while the driver's list is not whole, except where the
other signs agree. A case ends when the driver lists the server again and its cores are quiet at work: an HTTP
status proves nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final, Self

import msgspec
from msgspec import Meta

from agent.bounded import keep
from agent.detector import DetectorConfig, FaultNote, Surroundings, Tick
from agent.finding import Finding, Hysteresis, Verdict, absent, unknown
from agent.gpus.lists import GpuLists
from agent.gpus.placement import Placement
from agent.host.heard import Heard
from agent.host.server_numbers import ServerNumbers
from agent.host.server_work import Burn, LearntPace, Pace, ServerWork
from agent.routes.names import MODEL_ROUTES
from agent.subjects import incarnation_of, place_of, process_name, subject_of, target_of
from escalation.model import (
    FaultClass,
    PlacementEvidence,
    Reason,
    ReasonCode,
    ServerKind as WireServer,
    Severity,
    Subject,
    SubjectKind,
)
from probes.http.facts import Route, RouteName
from probes.observation import (
    Blind,
    DeviceOpens,
    Exchange,
    Gap,
    GpuAbsent,
    GpuState,
    Instant,
    NvidiaDevice,
    Observation,
    Origin,
    RequestsInFlight,
    SensorName,
    ServerGauge,
    ServerKind,
    ServerMetrics,
    ServerUsage,
)

DEVICES: Final = SensorName("kernel.device_open")
GPUS: Final = SensorName("gpu.nvml")
ROUTES: Final = SensorName("http.routes")
SERVERS: Final = SensorName("host.servers")
METRICS: Final = SensorName("host.server_metrics")
_NEEDED: Final = frozenset({NvidiaDevice.CONTROL, NvidiaDevice.UVM})
"""Without these nothing computes; a single GPU may be excluded on purpose."""

_SERVERS_MAX: Final = 128
_FORGOTTEN_S: Final = 3600.0
_UNHEARD_S: Final = 86400.0
"""What runs no server for so long, though its cgroup stands, has none any more."""


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How many cores are too many, for how long, and how slow is slow."""

    cores: Annotated[float, Meta(gt=0)] = 4.0
    transcription_cores: Annotated[float, Meta(gt=0)] = 2.0
    window_s: Annotated[float, Meta(ge=10)] = 60.0
    lasting_s: Annotated[float, Meta(ge=5)] = 15.0
    absent_s: Annotated[float, Meta(ge=0)] = 15.0
    slow_fraction: Annotated[float, Meta(gt=0, lt=1)] = 0.33
    opens_s: Annotated[float, Meta(gt=0)] = 900.0
    clear_hold_s: Annotated[float, Meta(ge=0)] = 30.0
    gone_after_s: Annotated[float, Meta(gt=0)] = 3600.0


@dataclass(slots=True)
class _Server:
    """One server: its last measurement, its work, and what else is known of it and GPUs."""

    work: ServerWork = field(default_factory=ServerWork)
    usage: ServerUsage | None = None
    touched: Instant | None = None
    was_on_gpu: bool = False
    missing_since: Instant | None = None
    failed_opens: int = 0
    failed_at: Instant | None = None
    heard_at: Instant | None = None
    spoke_at: Instant | None = None


@dataclass(frozen=True, slots=True)
class _Signs:
    """What was found of a server at one moment; None or False is a sign that is not there."""

    burn: Burn | None
    missing: bool
    slow: Pace | None
    failed_opens: int
    listed: bool | None
    admits: bool

    @property
    def enough(self) -> bool:
        """Whether two signs agree, and one of them is the work itself."""
        at_work = (self.burn is not None) + (self.slow is not None)
        return at_work > 0 and at_work + self.missing + (self.failed_opens > 0) + self.admits >= 2


class GpuPlacement:
    """Says which model server works on the CPU and should not."""

    NAME: ClassVar[str] = "gpu_placement"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=FaultClass.GPU_CPU_FALLBACK,
            severity=(Severity.HIGH,),
            sensors=(GPUS, SERVERS, ROUTES, DEVICES, METRICS),
            opens="Two of: a server's processes keep `cores` busy over `lasting_s` of its requests; no GPU "
            "lists them for `absent_s`; tokens come at less than `slow_fraction` of the pace that they had "
            "on the GPU; opening the GPU failed within `opens_s`; Ollama itself says that nothing of its "
            "models lies on a GPU. One of the two is cores or pace.",
            quiet="A placement declared `cpu` or `partial`; no declaration, and never seen on a GPU; short "
            "bursts (prompts, tokenising); work beside requests for a model that is declared `cpu`; a server "
            "that a GPU lists.",
            clears="A GPU lists the server and its cores are quiet at work, held for `clear_hold_s`; or its "
            "placement is declared `cpu` or `partial`; or it is gone for `gone_after_s`.",
        ),
        FaultNote(
            fault_class=FaultClass.TRANSCRIPTION_CPU_FALLBACK,
            severity=(Severity.MEDIUM,),
            sensors=(GPUS, SERVERS, ROUTES, DEVICES, METRICS),
            opens="The same for a server of transcriptions, from `transcription_cores`; its pace is that of "
            "the audio.",
            quiet="The same; voice activity detection and decoding of audio are short bursts.",
            clears="The same.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._heard = Heard(SERVERS)
        self._around = surroundings
        self._lists = GpuLists()
        self._numbers = ServerNumbers()
        self._servers: OrderedDict[Subject, _Server] = OrderedDict()
        self._sees = False

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """Open at once, because what had to last was waited for here."""
        rule = Hysteresis(clear_hold_s=self._config.clear_hold_s)
        return {note.fault_class: rule for note in self.FAULTS}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Take what a sensor tells; each measurement of a server's cores is judged."""
        match observation:
            case Gap():
                return self._sight(observation)
            case GpuState() | GpuAbsent():
                self._lists.take(observation)
            case DeviceOpens():
                self._opened(observation)
            case RequestsInFlight(origin=origin, facts=flight):
                self._asked(origin, flight.name, observation.at, observation.at.boot_ns, flight.oldest_s)
            case Exchange(origin=origin, facts=facts):
                server = self._asked(origin, facts.name, observation.at, facts.at_ns, facts.duration_s)
                if server is not None:
                    listed = self._listed(origin, observation.at)
                    server.work.answered(observation.at, facts, learn=listed is True)
            case ServerMetrics():
                self._numbers.take(observation)
            case ServerUsage():
                self._heard.take(subject_of(observation.origin), observation.at)
                return self._measured(observation)
            case _:
                pass
        return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """End cases of servers that are gone for good; say unknown while the servers cannot be seen."""
        if not self._sees:
            return self._unknown(tick.now) if tick.open_cases else ()
        gone = []
        for case in tick.open_cases:
            look = tick.world.cgroups.get(case.place) if case.place else None
            quiet_s = tick.now.since_s(case.last_seen)
            if look is not None and not look.exists and quiet_s >= self._config.gone_after_s:
                reason = Reason(ReasonCode.CGROUP_GONE, window_s=round(quiet_s, 3))
                gone.append(absent(case.fault_class, case.subject, tick.now, reason))
            elif (unheard := self._heard.gone(case, tick, _UNHEARD_S)) is not None:
                gone.append(unheard)
        return gone

    def memory(self) -> Mapping[str, bytes]:
        """Return which servers were on a GPU and how fast they were there, to be kept across a restart."""
        return {
            f"{subject.kind.value}/{subject.name}": msgspec.json.encode(server.work.learnt())
            for subject, server in self._servers.items()
            if server.was_on_gpu
        }

    def recall(self, memory: Mapping[str, bytes]) -> int:
        """Take up what `memory` returned before; return how many entries could not be read."""
        unreadable = 0
        for key, raw in memory.items():
            kind, _, name = key.partition("/")
            try:
                server = _Server(was_on_gpu=True)
                server.work.recall(msgspec.json.decode(raw, type=tuple[LearntPace, ...]))
                keep(self._servers, Subject(SubjectKind(kind), name), server, limit=_SERVERS_MAX)
            except (msgspec.DecodeError, ValueError):
                unreadable += 1
        return unreadable

    def _sight(self, gap: Gap) -> Sequence[Finding]:
        is_blind = isinstance(gap.coverage, Blind)
        self._heard.sight(gap)
        if gap.sensor == GPUS and is_blind:
            self._lists.forget()
            for server in self._servers.values():
                server.missing_since = None
        if gap.sensor == SERVERS:
            self._sees = not is_blind
        return self._unknown(gap.at) if is_blind and gap.sensor in {GPUS, SERVERS} else ()

    def _opened(self, opens: DeviceOpens) -> None:
        server = self._servers.get(subject_of(opens.origin))
        if server is None:
            return
        if opens.errno == 0:
            server.failed_opens, server.failed_at = 0, None
        elif opens.device in _NEEDED:
            server.failed_opens += opens.count
            server.failed_at = opens.at

    def _asked(
        self, origin: Origin, name: RouteName, at: Instant, end_ns: int, lasted_s: float
    ) -> _Server | None:
        subject = subject_of(origin)
        if name.route not in MODEL_ROUTES or subject not in self._servers:
            return None  # a gateway or a stranger: what it passes on is told of again by who serves it
        server = self._server(subject, at)
        if name.route is Route.TRANSCRIPTIONS:
            server.heard_at = at
        else:
            server.spoke_at = at
        placement = self._around.placements.of_exchange(origin, name)
        server.work.asked(end_ns, lasted_s, on_gpu=placement in {None, Placement.GPU})
        return server

    def _measured(self, usage: ServerUsage) -> Sequence[Finding]:
        subject = subject_of(usage.origin)
        server = self._server(subject, usage.at)
        server.usage = usage
        server.work.used(usage)
        listed = self._lists.lists(subject, usage.pids, usage.at)
        if listed:
            server.was_on_gpu, server.missing_since = True, None
        elif listed is None:
            server.missing_since = None
        else:
            server.missing_since = server.missing_since or usage.at
        placement = self._around.placements.of_server(usage.origin, usage.port)
        if placement in {Placement.CPU, Placement.PARTIAL}:
            return self._ended(subject, usage.at, Reason(ReasonCode.PLACEMENT_DECLARED))
        signs = self._signs(server, usage, listed=listed)
        if listed:
            quiet = signs.burn is None
            return self._ended(subject, usage.at, Reason(ReasonCode.LISTED_ON_GPU_AGAIN)) if quiet else ()
        if not signs.enough or not (placement is Placement.GPU or server.was_on_gpu):
            return ()
        return (self._present(subject, server, usage, signs),)

    def _signs(self, server: _Server, usage: ServerUsage, *, listed: bool | None) -> _Signs:
        config, now = self._config, usage.at
        burn = server.work.burn(now, config.window_s)
        least = config.transcription_cores if self._transcribes(server, usage) else config.cores
        if burn is not None and (burn.cores < least or burn.window_s < config.lasting_s):
            burn = None
        missing = server.missing_since is not None and now.since_s(server.missing_since) >= config.absent_s
        failed = server.failed_at is not None and now.since_s(server.failed_at) <= config.opens_s
        return _Signs(
            burn=burn,
            missing=missing,
            slow=server.work.slow(now, config.window_s, config.slow_fraction),
            failed_opens=server.failed_opens if failed else 0,
            listed=listed,
            admits=self._numbers.number(usage.port, ServerGauge.MODEL_ON_GPU_SHARE, now) == 0.0,
        )

    def _transcribes(self, server: _Server, usage: ServerUsage) -> bool:
        """Return whether a server makes text of audio, and was asked for nothing else lately."""
        if usage.origin.server is ServerKind.WHISPER:
            return True
        spoke = server.spoke_at
        speaks = spoke is not None and usage.at.since_s(spoke) <= self._config.window_s
        return server.heard_at is not None and not speaks

    def _present(self, subject: Subject, server: _Server, usage: ServerUsage, signs: _Signs) -> Finding:
        config = self._config
        transcribes = self._transcribes(server, usage)
        reasons = []
        if signs.burn is not None:
            least = config.transcription_cores if transcribes else config.cores
            window_s = round(signs.burn.window_s, 3)
            reasons.append(Reason(ReasonCode.CPU_BURNS_DURING_REQUESTS, signs.burn.requests, least, window_s))
        if signs.missing:
            reasons.append(Reason(ReasonCode.NOT_LISTED_ON_GPU, threshold=config.absent_s))
        if signs.slow is not None:
            code = ReasonCode.AUDIO_BELOW_BASELINE if transcribes else ReasonCode.PACE_BELOW_BASELINE
            reasons.append(Reason(code, threshold=config.slow_fraction))
        if signs.failed_opens:
            reasons.append(Reason(ReasonCode.DEVICE_OPENS_FAIL, signs.failed_opens, window_s=config.opens_s))
        if signs.admits:
            reasons.append(Reason(ReasonCode.METRICS_AGREE))
        spoken = signs.slow if not transcribes else None
        evidence = PlacementEvidence(
            server=WireServer(usage.origin.server.value),
            process_name=process_name(usage.origin),
            pid=usage.origin.pid,
            cores=round(usage.cores if signs.burn is None else signs.burn.cores, 2),
            window_s=round(usage.window_s if signs.burn is None else signs.burn.window_s, 3),
            requests=0 if signs.burn is None else signs.burn.requests,
            listed=signs.listed,
            failed_opens=signs.failed_opens,
            measured=None if spoken is None else round(spoken.measured, 2),
            baseline=None if spoken is None else round(spoken.usual, 2),
        )
        return Finding(
            verdict=Verdict.PRESENT,
            fault_class=FaultClass.TRANSCRIPTION_CPU_FALLBACK if transcribes else FaultClass.GPU_CPU_FALLBACK,
            subject=subject,
            target=target_of(usage.origin, subject),
            at=usage.at,
            severity=Severity.MEDIUM if transcribes else Severity.HIGH,
            incarnation=incarnation_of(usage.origin, self._around.kernel_boot_id),
            place=place_of(usage.origin),
            lifebound=usage.origin.container_id is None and usage.origin.unit is None,
            reasons=tuple(reasons),
            evidence=(evidence,),
        )

    def _ended(self, subject: Subject, at: Instant, reason: Reason) -> Sequence[Finding]:
        return [absent(note.fault_class, subject, at, reason) for note in self.FAULTS]

    def _unknown(self, at: Instant) -> Sequence[Finding]:
        return [unknown(note.fault_class, at) for note in self.FAULTS]

    def _listed(self, origin: Origin, at: Instant) -> bool | None:
        subject = subject_of(origin)
        server = self._servers.get(subject)
        pids = () if server is None or server.usage is None else server.usage.pids
        return self._lists.lists(subject, pids, at)

    def _server(self, subject: Subject, at: Instant) -> _Server:
        server = self._servers.get(subject)
        if server is None or (server.touched is not None and at.since_s(server.touched) > _FORGOTTEN_S):
            server = _Server()
        server.touched = at
        return keep(self._servers, subject, server, limit=_SERVERS_MAX)
