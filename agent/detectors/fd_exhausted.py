"""F26 process.fd_exhausted: a process gets no descriptor: its limit of open files is reached, or the host's.

The kernel's answer to the call is the evidence, with the limit that the process was given beside it. A server
that cannot accept answers nobody, so one that accepts in vain is high; opens and sockets that fail are
medium.

Look-alikes stay quiet: a program that tries out how many files it may open and goes on (fewer refusals than
`refusals`), and calls that fail for another reason.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final, Self

from msgspec import Meta

from agent.bounded import entry
from agent.detector import (
    DetectorConfig,
    FaultNote,
    ProcessKey,
    Surroundings,
    Tick,
    quiet_for_s,
    sight_after,
)
from agent.finding import Finding, Hysteresis, Verdict, absent, unknown
from agent.subjects import incarnation_of, place_of, process_name, subject_of, target_of
from escalation.model import (
    DescriptorCall,
    DescriptorEvidence,
    FaultClass,
    Reason,
    ReasonCode,
    Severity,
    Subject,
    SubjectKind,
)
from probes.observation import DescriptorsRefused, DescriptorUser, Gap, Instant, Observation, SensorName

SENSOR: Final = SensorName("kernel.descriptors")
_FAULT: Final = FaultClass.PROCESS_FD_EXHAUSTED
_SUBJECTS_MAX: Final = 256
_CALLS: Final = {
    DescriptorUser.OPEN: DescriptorCall.OPEN,
    DescriptorUser.ACCEPT: DescriptorCall.ACCEPT,
    DescriptorUser.SOCKET: DescriptorCall.SOCKET,
}


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How many refusals, how close together, and for how long there must be none."""

    refusals: Annotated[int, Meta(ge=1)] = 5
    window_s: Annotated[float, Meta(gt=0)] = 60.0
    clear_after_s: Annotated[float, Meta(gt=0)] = 3600.0


@dataclass(slots=True)
class _Subject:
    """What was refused lately, which process it was last, and whether that was told."""

    refused: deque[tuple[Instant, int]] = field(default_factory=lambda: deque(maxlen=256))
    process: ProcessKey | None = None
    told: bool = False


class FdExhausted:
    """Says which process has run out of descriptors."""

    NAME: ClassVar[str] = "fd_exhausted"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_FAULT,
            severity=(Severity.MEDIUM, Severity.HIGH),
            sensors=(SENSOR,),
            opens="Calls of a container, unit or process were refused a descriptor `refusals` times in "
            "`window_s` (EMFILE): medium, high where it could not accept a connection. The host's own limit "
            "(ENFILE) is a case of the host.",
            quiet="Fewer refusals, as of a program that tries its limit; calls that fail otherwise.",
            clears="The process is gone, or nothing was refused for `clear_after_s` while it would have been "
            "seen.",
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
        """Open at once and clear at once: what had to be counted and waited for was, here."""
        return {_FAULT: Hysteresis(clear_hold_s=0.0)}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Judge what was refused."""
        match observation:
            case Gap(sensor=sensor) if sensor == SENSOR:
                self._seeing_since = sight_after(self._seeing_since, observation)
                return ()
            case DescriptorsRefused():
                return self._refused(observation)
            case _:
                return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Clear what is gone, or has been quiet, and seen to be, for long enough."""
        found = []
        for case in tick.open_cases:
            known = self._subjects.get(case.subject)
            process = None if known is None else known.process
            if process is not None and tick.world.processes.get(process) is False:
                found.append(self._over(case.subject, tick.now, Reason(ReasonCode.PROCESS_GONE)))
                continue
            if self._seeing_since is None:
                found.append(unknown(_FAULT, tick.now, case.subject))
                continue
            quiet_s = quiet_for_s(self._seeing_since, case.last_seen, tick.now)
            if quiet_s >= self._config.clear_after_s:
                reason = Reason(
                    ReasonCode.DESCRIPTORS_SUFFICE_AGAIN,
                    threshold=self._config.clear_after_s,
                    window_s=round(quiet_s, 3),
                )
                found.append(self._over(case.subject, tick.now, reason))
        return found

    def watching(self) -> Sequence[ProcessKey]:
        """Ask whether the processes of open cases live."""
        return [known.process for known in self._subjects.values() if known.told and known.process]

    def _refused(self, seen: DescriptorsRefused) -> Sequence[Finding]:
        subject = Subject(SubjectKind.HOST, self._around.host) if seen.host_wide else subject_of(seen.origin)
        known = entry(self._subjects, subject, _Subject, limit=_SUBJECTS_MAX)
        known.refused.append((seen.at, seen.count))
        while known.refused and seen.at.since_s(known.refused[0][0]) > self._config.window_s:
            known.refused.popleft()
        count = sum(number for _, number in known.refused)
        if count < self._config.refusals and not known.told:
            return ()
        known.process = _process_of(seen, known.process)
        return (self._present(subject, known, seen, count),)

    def _present(self, subject: Subject, known: _Subject, seen: DescriptorsRefused, count: int) -> Finding:
        told, known.told = known.told, True
        accepts = seen.call is DescriptorUser.ACCEPT
        reasons = [
            Reason(
                ReasonCode.DESCRIPTORS_REFUSED,
                count=count,
                threshold=float(self._config.refusals),
                window_s=self._config.window_s,
            )
        ]
        if seen.limit is not None and not seen.host_wide:
            reasons.append(Reason(ReasonCode.DESCRIPTOR_LIMIT_REACHED, threshold=float(seen.limit)))
        return Finding(
            verdict=Verdict.PRESENT,
            fault_class=_FAULT,
            subject=subject,
            target=target_of(seen.origin, subject),
            at=seen.at,
            severity=Severity.HIGH if accepts or seen.host_wide else Severity.MEDIUM,
            incarnation=incarnation_of(seen.origin, self._around.kernel_boot_id),
            place=place_of(seen.origin),
            lifebound=True,
            count=0 if told else 1,
            reasons=tuple(reasons),
            evidence=(
                DescriptorEvidence(
                    process_name=process_name(seen.origin),
                    pid=seen.origin.pid,
                    call=_CALLS[seen.call],
                    failures=count,
                    limit=seen.limit,
                    host_wide=seen.host_wide,
                ),
            ),
        )

    def _over(self, subject: Subject, at: Instant, reason: Reason) -> Finding:
        self._subjects.pop(subject, None)
        return absent(_FAULT, subject, at, reason)


def _process_of(seen: DescriptorsRefused, known: ProcessKey | None) -> ProcessKey | None:
    """Return whose life to ask for. Its last refusals may be told after its end, with no start any more."""
    pid = seen.origin.pid
    if seen.host_wide or pid is None:
        return None
    if known is not None and known.pid == pid and seen.origin.start_ticks is None:
        return known
    return ProcessKey(pid, seen.origin.start_ticks)
