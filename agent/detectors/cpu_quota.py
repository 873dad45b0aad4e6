"""F37 cpu.quota_throttled: a server is held back by the quota of processor time of its control group.

Two layers: the group's own account (in most periods it had used up its quota and was stopped), and that
somebody waits for it meanwhile: requests end or are in flight at its routes. Without the second it is a note:
a server that nobody asks loses nothing.

Look-alikes stay quiet: the burst at a start, when a model is loaded and compiled, and a single window in
which a quota was met.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final, Self

from msgspec import Meta

from agent.bounded import entry
from agent.detector import DetectorConfig, FaultNote, Surroundings, Tick
from agent.finding import Finding, Hysteresis, Verdict, absent, unknown
from agent.subjects import incarnation_of, place_of, subject_of, target_of
from escalation.model import FaultClass, Reason, ReasonCode, Severity, Subject, SubjectKind, ThrottleEvidence
from probes.observation import (
    Blind,
    CgroupPressure,
    Exchange,
    Gap,
    Instant,
    Observation,
    RequestsInFlight,
    SensorName,
)

SENSOR: Final = SensorName("host.pressure")
ROUTES: Final = SensorName("http.routes")
_FAULT: Final = FaultClass.CPU_QUOTA_THROTTLED
_SERVERS_MAX: Final = 64
_LOOKS_MAX: Final = 64


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which share of the periods, over how long, and how long after a start nothing is said."""

    throttled_share: Annotated[float, Meta(gt=0, le=1)] = 0.25
    window_s: Annotated[float, Meta(gt=0)] = 60.0
    periods: Annotated[int, Meta(ge=1)] = 100
    start_s: Annotated[float, Meta(ge=0)] = 120.0
    clear_share: Annotated[float, Meta(ge=0, le=1)] = 0.05
    clear_hold_s: Annotated[float, Meta(ge=0)] = 60.0


@dataclass(slots=True)
class _Server:
    """The last looks at a server's account, and when it was last seen to serve anybody."""

    looks: deque[CgroupPressure] = field(default_factory=lambda: deque(maxlen=_LOOKS_MAX))
    served: Instant | None = None
    told: bool = False


class CpuQuota:
    """Says which server its quota holds back."""

    NAME: ClassVar[str] = "cpu_quota"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_FAULT,
            severity=(Severity.NOTE, Severity.MEDIUM),
            sensors=(SENSOR, ROUTES),
            opens="A server's control group, or one above it, was throttled in `throttled_share` of at least "
            "`periods` periods over `window_s`, while requests were served (medium); a note if none were.",
            quiet="The first `start_s` of a server's life; a quota that is met now and then.",
            clears="It was throttled in less than `clear_share` of the periods of a whole window, or has no "
            "quota any more, for `clear_hold_s`.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._around = surroundings
        self._servers: OrderedDict[Subject, _Server] = OrderedDict()
        self._sees = False

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """Open at once, because a whole window was waited for here."""
        return {_FAULT: Hysteresis(clear_hold_s=self._config.clear_hold_s)}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Judge a look at a server's account; keep in mind who serves."""
        match observation:
            case Gap(sensor=sensor, coverage=coverage) if sensor == SENSOR:
                self._sees = not isinstance(coverage, Blind)
                for server in self._servers.values():
                    server.looks.clear()
            case Exchange(origin=origin, at=at) | RequestsInFlight(origin=origin, at=at):
                known = self._servers.get(subject_of(origin))
                if known is not None:
                    known.served = at
            case CgroupPressure():
                return self._judged(observation)
            case _:
                pass
        return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Clear what is gone; say unknown of open cases while the accounts cannot be read."""
        found = []
        for case in tick.open_cases:
            look = None if case.place is None else tick.world.cgroups.get(case.place)
            if look is not None and (not look.exists or look.same is False):
                reason = Reason(ReasonCode.CGROUP_GONE)
                found.append(absent(_FAULT, case.subject, tick.now, reason))
            elif not self._sees:
                found.append(unknown(_FAULT, tick.now, case.subject))
        return found

    def _judged(self, look: CgroupPressure) -> Sequence[Finding]:
        subject = subject_of(look.origin)
        server = self._server(subject)
        if look.quota_cores is None:
            server.looks.clear()
            server.told = False
            return (absent(_FAULT, subject, look.at, Reason(ReasonCode.THROTTLING_ENDED)),)
        if look.up_s is None or look.up_s < self._config.start_s:
            return ()
        server.looks.append(look)
        while look.at.since_s(server.looks[0].at) + server.looks[0].window_s > self._config.window_s:
            if len(server.looks) == 1:
                break
            server.looks.popleft()
        window_s = sum(each.window_s for each in server.looks)
        periods = sum(each.periods for each in server.looks)
        throttled = sum(each.throttled_periods for each in server.looks)
        if window_s < self._config.window_s * 0.8 or periods < self._config.periods:
            return ()
        if throttled < periods * self._config.clear_share:
            server.told = False
            reason = Reason(
                ReasonCode.THROTTLING_ENDED,
                count=throttled,
                threshold=self._config.clear_share,
                window_s=round(window_s, 3),
            )
            return (absent(_FAULT, subject, look.at, reason),)
        if throttled < periods * self._config.throttled_share:
            return ()
        return (
            self._present(subject, look, server, window_s=window_s, periods=periods, throttled=throttled),
        )

    def _present(
        self,
        subject: Subject,
        look: CgroupPressure,
        server: _Server,
        *,
        window_s: float,
        periods: int,
        throttled: int,
    ) -> Finding:
        serves = server.served is not None and look.at.since_s(server.served) <= self._config.window_s
        told, server.told = server.told, True
        reasons = [
            Reason(
                ReasonCode.QUOTA_THROTTLES,
                count=throttled,
                threshold=self._config.throttled_share,
                window_s=round(window_s, 3),
            )
        ]
        if not serves:
            reasons.append(Reason(ReasonCode.SECOND_LAYER_UNKNOWN))
        return Finding(
            verdict=Verdict.PRESENT,
            fault_class=_FAULT,
            subject=subject,
            target=target_of(look.origin, subject),
            at=look.at,
            severity=Severity.MEDIUM if serves else Severity.NOTE,
            incarnation=incarnation_of(look.origin, self._around.kernel_boot_id),
            place=place_of(look.origin),
            lifebound=subject.kind in {SubjectKind.CGROUP, SubjectKind.PROCESS},
            count=int(not told),
            reasons=tuple(reasons),
            evidence=(
                ThrottleEvidence(
                    window_s=round(window_s, 3),
                    periods=periods,
                    throttled_periods=throttled,
                    throttled_s=round(sum(each.throttled_s for each in server.looks), 3),
                    quota_cores=look.quota_cores,
                ),
            ),
        )

    def _server(self, subject: Subject) -> _Server:
        return entry(self._servers, subject, _Server, limit=_SERVERS_MAX)
