"""F27 process.uninterruptible: a process waits in the kernel for something that does not come.

It cannot be ended, not even by SIGKILL, so nothing is proposed but a look by a person. Two layers: the state
at every look with the same account of the scheduler, and either the kernel's own watchdog (after its
time-out, two minutes as a rule) or that the host's tasks stall for their disks. Without the second it is a
note.

Look-alikes stay quiet: the brief waits of every disk, the parent of a vfork, a frozen control group; the
sensor leaves them out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final, Self

from msgspec import Meta

from agent.bounded import entry, keep
from agent.detector import DetectorConfig, FaultNote, Surroundings, Tick, sight_after
from agent.finding import Finding, Hysteresis, Verdict, absent, unknown
from agent.subjects import incarnation_of, place_of, process_name, subject_of, target_of
from escalation.model import (
    Evidence,
    FaultClass,
    PressureEvidence,
    ProcessEvidence,
    ProcessState,
    Reason,
    ReasonCode,
    Resource,
    Severity,
    Subject,
)
from probes.observation import (
    Condition,
    Gap,
    Instant,
    Observation,
    PressureState,
    ProcessCondition,
    SensorName,
    TaskHung,
)

SENSOR: Final = SensorName("host.processes")
WATCHDOG: Final = SensorName("kernel.task_hang")
PRESSURE: Final = SensorName("host.pressure")
_FAULT: Final = FaultClass.PROCESS_UNINTERRUPTIBLE
_SUBJECTS_MAX: Final = 128
_PIDS_MAX: Final = 64
_HANGS_MAX: Final = 256
_STALE_S: Final = 90.0


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """For how long a process has to be stuck, and what counts as a second sign."""

    stuck_s: Annotated[float, Meta(gt=0)] = 30.0
    io_percent: Annotated[float, Meta(gt=0, le=100)] = 10.0
    hang_window_s: Annotated[float, Meta(gt=0)] = 600.0
    quiet_s: Annotated[float, Meta(gt=0)] = 60.0
    clear_hold_s: Annotated[float, Meta(ge=0)] = 0.0


@dataclass(slots=True)
class _Subject:
    """Which processes of a subject are stuck, and whether that was told."""

    pids: set[int] = field(default_factory=set)
    told: bool = False


class ProcessStuck:
    """Says which process waits in the kernel and does not come back."""

    NAME: ClassVar[str] = "process_stuck"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_FAULT,
            severity=(Severity.NOTE, Severity.HIGH),
            sensors=(SENSOR, WATCHDOG, PRESSURE),
            opens="A process has been in uninterruptible sleep for `stuck_s` without running once, and the "
            "kernel's watchdog found it hung within `hang_window_s` or all tasks of the host stall for disks "
            "`io_percent` of the time (high); without that second sign a note.",
            quiet="Waits of moments; the parent of a vfork; a frozen control group; kernel threads.",
            clears="Every process of the subject that was stuck runs again or is gone, or has not been found "
            "stuck for `quiet_s` while it would have been seen.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._around = surroundings
        self._subjects: OrderedDict[Subject, _Subject] = OrderedDict()
        self._hangs: OrderedDict[int, Instant] = OrderedDict()
        self._pressure: PressureState | None = None
        self._seeing_since: Instant | None = None

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """Open at once, because what had to last was waited for by the sensor."""
        return {_FAULT: Hysteresis(clear_hold_s=self._config.clear_hold_s)}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Judge how a process stands; keep in mind what the kernel and the disks say."""
        match observation:
            case Gap(sensor=sensor) if sensor == SENSOR:
                self._seeing_since = sight_after(self._seeing_since, observation)
            case TaskHung(origin=origin, at=at) if origin.pid is not None:
                keep(self._hangs, origin.pid, at, limit=_HANGS_MAX)
            case PressureState():
                self._pressure = observation
            case ProcessCondition():
                return self._judged(observation)
            case _:
                pass
        return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Clear what has not been found stuck for long enough; say unknown while nobody looks."""
        found = []
        for case in tick.open_cases:
            if self._seeing_since is None:
                found.append(unknown(_FAULT, tick.now, case.subject))
                continue
            quiet_s = min(tick.now.since_s(self._seeing_since), tick.now.since_s(case.last_seen))
            if quiet_s >= self._config.quiet_s:
                self._subjects.pop(case.subject, None)
                reason = Reason(ReasonCode.PROCESS_RUNS_AGAIN, window_s=round(quiet_s, 3))
                found.append(absent(_FAULT, case.subject, tick.now, reason))
        return found

    def _judged(self, told: ProcessCondition) -> Sequence[Finding]:
        subject = subject_of(told.origin)
        pid = told.origin.pid or 0
        if told.condition in {Condition.RUNS, Condition.GONE}:
            return self._freed(subject, pid, told)
        if told.condition is not Condition.STUCK or told.lasted_s < self._config.stuck_s:
            return ()
        known = entry(self._subjects, subject, _Subject, limit=_SUBJECTS_MAX)
        if len(known.pids) < _PIDS_MAX:
            known.pids.add(pid)
        return (self._present(subject, known, told),)

    def _freed(self, subject: Subject, pid: int, told: ProcessCondition) -> Sequence[Finding]:
        known = self._subjects.get(subject)
        if known is None or pid not in known.pids:
            return ()
        known.pids.discard(pid)
        if known.pids:
            return ()
        del self._subjects[subject]
        gone = told.condition is Condition.GONE
        code = ReasonCode.PROCESS_GONE if gone else ReasonCode.PROCESS_RUNS_AGAIN
        return (absent(_FAULT, subject, told.at, Reason(code)),)

    def _present(self, subject: Subject, known: _Subject, told: ProcessCondition) -> Finding:
        lasted_s = round(told.lasted_s, 3)
        reasons = [
            Reason(ReasonCode.STUCK_IN_KERNEL, threshold=self._config.stuck_s, window_s=lasted_s),
            Reason(ReasonCode.NO_CPU_PROGRESS, window_s=lasted_s),
        ]
        evidence: list[Evidence] = [
            ProcessEvidence(
                process_name=process_name(told.origin),
                pid=told.origin.pid,
                state=ProcessState.UNINTERRUPTIBLE,
                lasted_s=lasted_s,
                used_cpu_s=told.used_cpu_s,
            )
        ]
        hung = self._hangs.get(told.origin.pid or 0)
        sure = False
        if hung is not None and told.at.since_s(hung) <= self._config.hang_window_s:
            sure = True
            reasons.append(Reason(ReasonCode.KERNEL_REPORTS_HANG))
        io = self._stalls(told.at)
        if io is not None:
            sure = True
            reasons.append(Reason(ReasonCode.TASKS_STALL_FOR_IO, threshold=self._config.io_percent))
            evidence.append(io)
        if not sure:
            reasons.append(Reason(ReasonCode.SECOND_LAYER_UNKNOWN))
        before, known.told = known.told, True
        return Finding(
            verdict=Verdict.PRESENT,
            fault_class=_FAULT,
            subject=subject,
            target=target_of(told.origin, subject),
            at=told.at,
            severity=Severity.HIGH if sure else Severity.NOTE,
            incarnation=incarnation_of(told.origin, self._around.kernel_boot_id),
            place=place_of(told.origin),
            lifebound=True,
            count=int(not before),
            reasons=tuple(reasons),
            evidence=tuple(evidence),
        )

    def _stalls(self, now: Instant) -> PressureEvidence | None:
        state = self._pressure
        if state is None or state.io_full_avg10 is None or now.since_s(state.at) > _STALE_S:
            return None
        if state.io_full_avg10 < self._config.io_percent:
            return None
        return PressureEvidence(
            resource=Resource.IO, window_s=10.0, some_percent=None, full_percent=state.io_full_avg10
        )
