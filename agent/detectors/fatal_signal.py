"""F25 process.killed_by_signal: a process died of a fault, not of an order.

SIGILL, SIGABRT, SIGBUS, SIGFPE and SIGSEGV mean that something broke inside. SIGTERM, SIGINT and SIGKILL
are orders, of an operator, a supervisor or the OOM killer, and stay quiet whoever sent them. Deaths are
counted under the container or unit, because the process itself is gone.

A case clears when its container or unit has run for `quiet_s` without another death. A unit that died and
stays down has not recovered: its case stays open until the cgroup has been gone for `gone_clear_after_s`.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Self

from msgspec import Meta

from agent.detector import (
    DetectorConfig,
    FaultNote,
    Surroundings,
    Tick,
    World,
    quiet_for_s,
    sight_after,
)
from agent.finding import Finding, Hysteresis, OpenCase, Verdict, absent
from agent.subjects import MODEL_SERVERS, incarnation_of, place_of, process_name, service_of, target_of
from escalation.model import FaultClass, Reason, ReasonCode, Severity, SignalEvidence, SubjectKind
from probes.observation import FatalSignal, Gap, Instant, Observation, SensorName

SENSOR = SensorName("kernel.fatal_signal")
_FAULT = FaultClass.PROCESS_KILLED_BY_SIGNAL
FAULT_SIGNALS = frozenset({signal.SIGILL, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV})


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When deaths become a case, and when it is over."""

    open_after: Annotated[int, Meta(ge=1)] = 1
    open_window_s: Annotated[float, Meta(gt=0)] = 600.0
    quiet_s: Annotated[float, Meta(gt=0)] = 600.0
    gone_clear_after_s: Annotated[float, Meta(gt=0)] = 86400.0


class FatalSignalDetector:
    """Says whose processes die of a fault."""

    NAME: ClassVar[str] = "fatal_signal"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_FAULT,
            severity=(Severity.NOTE, Severity.HIGH),
            sensors=(SENSOR,),
            opens="A process died of SIGILL, SIGABRT, SIGBUS, SIGFPE or SIGSEGV: high for a model server, "
            "a note for anything else.",
            quiet="SIGTERM, SIGINT, SIGKILL and every other order; a thread that ends before its process.",
            clears="The container or unit ran for `quiet_s` without another death; or its cgroup has been "
            "gone for `gone_clear_after_s`.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._around = surroundings
        self._seeing_since: Instant | None = None

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """As configured; the quiet time was waited for here."""
        return {
            _FAULT: Hysteresis(
                open_after=self._config.open_after,
                open_window_s=self._config.open_window_s,
                clear_hold_s=0.0,
            )
        }

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Judge one death."""
        if isinstance(observation, Gap) and observation.sensor == SENSOR:
            self._seeing_since = sight_after(self._seeing_since, observation)
            return ()
        if not isinstance(observation, FatalSignal) or observation.signal not in FAULT_SIGNALS:
            return ()
        return (self._death(observation),)

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Clear what has run on, or has been taken away, for long enough."""
        found = []
        for case in tick.open_cases:
            quiet_s = quiet_for_s(self._seeing_since, case.last_seen, tick.now)
            reason = self._recovered(case, quiet_s, tick.world)
            if reason is not None:
                found.append(absent(_FAULT, case.subject, tick.now, reason))
        return found

    def _recovered(self, case: OpenCase, quiet_s: float, world: World) -> Reason | None:
        look = world.cgroups.get(case.place) if case.place else None
        down = look is not None and (not look.exists or look.populated is False)
        if down and case.subject.kind is not SubjectKind.PROCESS:
            needed, code = self._config.gone_clear_after_s, ReasonCode.CGROUP_GONE
        else:
            needed, code = self._config.quiet_s, ReasonCode.SUBJECT_RAN_SINCE
        if quiet_s < needed:
            return None
        return Reason(code, threshold=needed, window_s=round(quiet_s, 3))

    def _death(self, death: FatalSignal) -> Finding:
        origin = death.origin
        subject = service_of(origin)
        return Finding(
            verdict=Verdict.PRESENT,
            fault_class=_FAULT,
            subject=subject,
            target=target_of(origin, subject),
            at=death.at,
            severity=Severity.HIGH if origin.server in MODEL_SERVERS else Severity.NOTE,
            incarnation=incarnation_of(origin, self._around.kernel_boot_id),
            place=place_of(origin),
            lifebound=subject.kind is SubjectKind.PROCESS,
            reasons=(Reason(ReasonCode.DIED_BY_FAULT_SIGNAL, count=1),),
            evidence=(
                SignalEvidence(
                    signal=death.signal,
                    code=death.code,
                    process_name=process_name(origin),
                    pid=origin.pid,
                ),
            ),
        )
