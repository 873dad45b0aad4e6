"""F41 process.not_answering: a server listens, and takes none of the connections that wait for it.

Two layers: the socket's accept queue, never empty at any look, and the process itself: stopped (state T), or
without any use of the processor all the while. A stopped server that nobody waits for is a note: somebody may
be looking into it with a debugger.

Look-alikes stay quiet: a server that computes for long and takes its connections late (it uses the
processor), a burst that is taken between two looks, a queue whose server cannot be told (a note after a
longer while).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Self

from msgspec import Meta

from agent.bounded import entry
from agent.detector import DetectorConfig, FaultNote, Surroundings, Tick, sight_after
from agent.finding import Finding, Hysteresis, Verdict, absent, unknown
from agent.subjects import cut, incarnation_of, place_of, process_name, subject_of, target_of
from escalation.model import (
    FaultClass,
    ProcessEvidence,
    ProcessState,
    Reason,
    ReasonCode,
    Severity,
    Subject,
    SubjectKind,
)
from probes.observation import (
    BacklogState,
    Condition,
    Gap,
    Instant,
    Observation,
    Origin,
    ProcessCondition,
    SensorName,
)

SENSOR: Final = SensorName("host.processes")
_FAULT: Final = FaultClass.PROCESS_NOT_ANSWERING
_SUBJECTS_MAX: Final = 128


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """For how long connections have to wait: at a stopped server, and at one that seems to hang."""

    stopped_s: Annotated[float, Meta(gt=0)] = 15.0
    hanging_s: Annotated[float, Meta(gt=0)] = 120.0
    idle_cpu_s: Annotated[float, Meta(ge=0)] = 0.05
    note_s: Annotated[float, Meta(gt=0)] = 60.0
    quiet_s: Annotated[float, Meta(gt=0)] = 60.0
    clear_hold_s: Annotated[float, Meta(ge=0)] = 0.0


@dataclass(slots=True)
class _Subject:
    """Which sockets of a subject have connections waiting, and whether its server is stopped."""

    sockets: set[tuple[str, int]]
    stopped: bool = False
    told: bool = False


class NotAnswering:
    """Says which server takes no connections."""

    NAME: ClassVar[str] = "not_answering"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_FAULT,
            severity=(Severity.NOTE, Severity.MEDIUM, Severity.HIGH),
            sensors=(SENSOR,),
            opens="Connections have waited at a listening socket for `stopped_s` and a process that should "
            "take them is stopped (high), or for `hanging_s` while its processes used less than `idle_cpu_s` "
            "of the processor (medium). A known server that is stopped for `note_s` without anybody waiting, "
            "or a queue of an unknown process, is a note.",
            quiet="A server that uses the processor and takes its connections late; a burst; a debugger's "
            "stop below `note_s`.",
            clears="The queue was empty, the socket is closed, the server goes on or is gone, or nothing "
            "of it was found for `quiet_s` while it would have been seen.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._around = surroundings
        self._subjects: OrderedDict[Subject, _Subject] = OrderedDict()
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
        """Judge a queue that is not taken, and a server that is stopped."""
        match observation:
            case Gap(sensor=sensor) if sensor == SENSOR:
                self._seeing_since = sight_after(self._seeing_since, observation)
                self._subjects.clear()  # it begins anew as well, and will not say that what it told is over
                return ()
            case BacklogState():
                return self._queue(observation)
            case ProcessCondition():
                return self._process(observation)
            case _:
                return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Clear what has not been found for long enough; say unknown while nobody looks."""
        found = []
        for case in tick.open_cases:
            if self._seeing_since is None:
                found.append(unknown(_FAULT, tick.now, case.subject))
                continue
            known = self._subjects.get(case.subject)
            if known is not None and (known.sockets or known.stopped):
                continue  # the sensor says when that is over
            quiet_s = min(tick.now.since_s(self._seeing_since), tick.now.since_s(case.last_seen))
            if quiet_s >= self._config.quiet_s:
                reason = Reason(ReasonCode.CONNECTIONS_TAKEN_AGAIN, window_s=round(quiet_s, 3))
                found.append(absent(_FAULT, case.subject, tick.now, reason))
        return found

    def _queue(self, state: BacklogState) -> Sequence[Finding]:
        subject = _subject_of(state)
        socket = (state.address, state.port)
        if state.backlog == 0:
            code = ReasonCode.LISTENER_CLOSED if state.closed else ReasonCode.CONNECTIONS_TAKEN_AGAIN
            return self._freed(subject, state.at, Reason(code), socket=socket)
        known = self._known(subject)
        known.sockets.add(socket)
        stopped = bool(state.stopped)
        idle = state.used_cpu_s is not None and state.used_cpu_s < self._config.idle_cpu_s
        waits = Reason(ReasonCode.BACKLOG_NOT_TAKEN, count=state.backlog, window_s=round(state.lasted_s, 3))
        if stopped and idle and state.lasted_s >= self._config.stopped_s:
            reasons = (waits, Reason(ReasonCode.PROCESS_STOPPED, count=state.stopped or 0))
            return (self._present(subject, known, state, Severity.HIGH, reasons),)
        if state.lasted_s < self._config.hanging_s or (state.processes is not None and not idle):
            return ()
        if state.processes is None:
            reasons = (waits, Reason(ReasonCode.SECOND_LAYER_UNKNOWN))
            return (self._present(subject, known, state, Severity.NOTE, reasons),)
        reasons = (waits, Reason(ReasonCode.NO_CPU_PROGRESS, window_s=round(state.lasted_s, 3)))
        return (self._present(subject, known, state, Severity.MEDIUM, reasons),)

    def _process(self, told: ProcessCondition) -> Sequence[Finding]:
        subject = subject_of(told.origin)
        if told.condition in {Condition.RUNS, Condition.GONE}:
            gone = told.condition is Condition.GONE
            code = ReasonCode.PROCESS_GONE if gone else ReasonCode.PROCESS_RUNS_AGAIN
            return self._freed(subject, told.at, Reason(code))
        if told.condition is not Condition.STOPPED:
            return ()
        known = self._known(subject)
        known.stopped = True
        if known.sockets or told.lasted_s < self._config.note_s:
            return ()
        reasons = (
            Reason(ReasonCode.PROCESS_STOPPED, count=1, window_s=round(told.lasted_s, 3)),
            Reason(ReasonCode.SECOND_LAYER_UNKNOWN),
        )
        evidence = ProcessEvidence(
            process_name=process_name(told.origin),
            pid=told.origin.pid,
            state=ProcessState.STOPPED,
            lasted_s=round(told.lasted_s, 3),
            used_cpu_s=told.used_cpu_s,
        )
        return (
            self._finding(
                subject,
                known,
                told.origin,
                told.at,
                severity=Severity.NOTE,
                reasons=reasons,
                evidence=evidence,
            ),
        )

    def _freed(
        self, subject: Subject, at: Instant, reason: Reason, *, socket: tuple[str, int] | None = None
    ) -> Sequence[Finding]:
        """Take note that a queue is empty, or that a server goes on; say so when nothing else is left."""
        known = self._subjects.get(subject)
        if known is None:
            return ()
        if socket is None:
            if not known.stopped:
                return ()
            known.stopped = False
        else:
            known.sockets.discard(socket)
        if known.sockets or known.stopped:
            return ()
        del self._subjects[subject]
        return (absent(_FAULT, subject, at, reason),)

    def _present(
        self,
        subject: Subject,
        known: _Subject,
        state: BacklogState,
        severity: Severity,
        reasons: tuple[Reason, ...],
    ) -> Finding:
        evidence = ProcessEvidence(
            process_name=process_name(state.origin),
            pid=state.origin.pid,
            state=_state_of(state),
            lasted_s=round(state.lasted_s, 3),
            used_cpu_s=state.used_cpu_s,
            port=state.port,
            backlog=state.backlog,
            backlog_limit=state.limit,
        )
        return self._finding(
            subject, known, state.origin, state.at, severity=severity, reasons=reasons, evidence=evidence
        )

    def _finding(
        self,
        subject: Subject,
        known: _Subject,
        origin: Origin,
        at: Instant,
        *,
        severity: Severity,
        reasons: tuple[Reason, ...],
        evidence: ProcessEvidence,
    ) -> Finding:
        told, known.told = known.told, True
        return Finding(
            verdict=Verdict.PRESENT,
            fault_class=_FAULT,
            subject=subject,
            target=target_of(origin, subject),
            at=at,
            severity=severity,
            incarnation=incarnation_of(origin, self._around.kernel_boot_id),
            place=place_of(origin),
            lifebound=True,
            count=int(not told),
            reasons=reasons,
            evidence=(evidence,),
        )

    def _known(self, subject: Subject) -> _Subject:
        return entry(self._subjects, subject, lambda: _Subject(set()), limit=_SUBJECTS_MAX)


def _subject_of(state: BacklogState) -> Subject:
    """Return whose connections wait; of a socket that nobody is known of, the socket itself."""
    origin = state.origin
    if origin.pid is None and origin.cgroup_path in (None, "/"):
        return Subject(SubjectKind.LISTENER, cut(f"{state.address} {state.port}"))
    return subject_of(origin)


def _state_of(state: BacklogState) -> ProcessState:
    if state.stopped:
        return ProcessState.STOPPED
    return ProcessState.UNKNOWN if state.processes is None else ProcessState.SLEEPING
