"""Which findings are of a drill, and which cases a drill that is over leaves behind.

Everything that is found in what a drill has announced as its own (its units, control groups, mounts,
processes, ports) is the drill's, of whatever fault class: a death in a drill's unit is no incident either. A
fault of the same class anywhere else is real.

A case that a drill caused may clear by its detector's own evidence, which is part of what the drill proves.
Detectors that wait for hours to be sure (a kill, a death, a loop) do not have to: the drill removed what it
made, so `LINGER_S` after its end what is left of its cases is closed with that reason. What still is found
after that in a unit, control group or mount of the drill is its remains and is no news; a port or a process
number may be somebody else's by then, so there the finding is real.

Pure, and owned by the case book.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from agent.finding import Finding
from escalation.model import (
    CaseId,
    ControlPlaneEvidence,
    FaultClass,
    ListenerEvidence,
    ProcessEvidence,
    Subject,
    SubjectKind,
)
from probes.observation import DrillBegan, DrillEnded, Instant, SensorName

LINGER_S: Final = 20.0
REMEMBERED: Final = 8
RAISED: Final = 16
_SENSOR: Final = SensorName("host.drills")


@dataclass(slots=True)
class Raised:
    """A case that was opened for a drill; `cleared` is None while it stands open."""

    case_id: CaseId
    fault_class: FaultClass
    subject: Subject
    opened: Instant
    cleared: Instant | None = None
    by_itself: bool = False


@dataclass(slots=True)
class Drill:
    """One drill: what it announced, when it was over (None: it is on), and what it raised."""

    announced: DrillBegan
    ended: Instant | None = None
    raised: list[Raised] = field(default_factory=list)

    def lingers(self, now: Instant, linger_s: float) -> bool:
        """Return whether findings are still taken for the drill's own."""
        return self.ended is None or now.since_s(self.ended) < linger_s


class DrillLog:
    """The drills of this host, the newest last."""

    def __init__(self, *, linger_s: float = LINGER_S) -> None:
        self._drills: dict[str, Drill] = {}
        self.linger_s = linger_s

    def __repr__(self) -> str:
        return f"DrillLog({', '.join(self._drills) or 'none'})"

    @property
    def newest(self) -> Drill | None:
        """Return the drill that is on, or the last one."""
        return next(reversed(self._drills.values()), None)

    def told(self, observation: DrillBegan | DrillEnded) -> None:
        """Take note of a drill's beginning or end; a beginning that is told again changes nothing else."""
        known = self._drills.get(observation.id)
        match observation:
            case DrillBegan():
                raised = known.raised if known is not None else []
                self._drills.pop(observation.id, None)
                self._drills[observation.id] = Drill(observation, raised=raised)
                while len(self._drills) > REMEMBERED:
                    del self._drills[next(iter(self._drills))]
            case DrillEnded() if known is not None and known.ended is None:
                known.ended = observation.at
            case DrillEnded():
                pass

    def of(self, finding: Finding) -> str:
        """Return the id of the drill that `finding` is of, or nothing."""
        for name, drill in self._drills.items():
            if drill.lingers(finding.at, self.linger_s) and (
                _in_its_own(drill.announced, finding) or _by_number(drill.announced, finding)
            ):
                return name
        return ""

    def is_remains(self, finding: Finding) -> bool:
        """Return whether `finding` is only of what a drill left behind that is over for long."""
        return any(
            not drill.lingers(finding.at, self.linger_s) and _in_its_own(drill.announced, finding)
            for drill in self._drills.values()
        )

    def is_over(self, name: str, now: Instant) -> bool:
        """Return whether the cases of drill `name` are to be closed.

        One that is not known here was on before this agent started. If it still is, its mark tells so within
        a second; until `LINGER_S` have passed it is taken for that.
        """
        drill = self._drills.get(name)
        if drill is None:
            unknown = DrillBegan(sensor=_SENSOR, at=now, id=name, fault_class="")
            self._drills[name] = Drill(unknown, ended=now)
            return False
        return not drill.lingers(now, self.linger_s)

    def opened(self, name: str, case: Raised) -> None:
        """Take note of a case that was opened for the drill."""
        drill = self._drills.get(name)
        if drill is not None and len(drill.raised) < RAISED:
            drill.raised.append(case)

    def cleared(self, case_id: CaseId, at: Instant, *, by_itself: bool) -> None:
        """Take note that a case is closed, by its detector's own evidence or because the drill is over."""
        for case in self._all_raised():
            if case.case_id == case_id and case.cleared is None:
                case.cleared, case.by_itself = at, by_itself

    def _all_raised(self) -> Iterable[Raised]:
        return (case for drill in self._drills.values() for case in drill.raised)


def _in_its_own(drill: DrillBegan, finding: Finding) -> bool:
    """Return whether the finding is of a unit, control group or mount that the drill made."""
    for subject in (finding.subject, finding.target):
        if subject is None:
            continue
        if subject.kind is SubjectKind.UNIT and subject.name in drill.units:
            return True
        if subject.kind is SubjectKind.MOUNT and subject.name in drill.mounts:
            return True
        if subject.kind is SubjectKind.CGROUP and _is_in(subject.name, drill):
            return True
    path = finding.place.cgroup_path if finding.place is not None else None
    return path is not None and _is_in(path, drill)


def _is_in(path: str, drill: DrillBegan) -> bool:
    """Return whether a control group is, or lies in, one of the drill's.

    Where the agent sees more of the tree than the drill's command does (in a container) the path has more in
    front.
    """
    return any(path == own or path.endswith(own) or f"{own}/" in path for own in drill.cgroups) or any(
        f"/{unit}/" in f"{path}/" for unit in drill.units
    )


def _by_number(drill: DrillBegan, finding: Finding) -> bool:
    """Return whether the finding is of a process or a listening port that the drill announced."""
    if finding.fault_class.value != drill.fault_class:
        return False
    if finding.incarnation is not None and finding.incarnation.pid in drill.pids:
        return True
    return any(
        isinstance(each, ListenerEvidence | ProcessEvidence | ControlPlaneEvidence)
        and each.port in drill.ports
        for each in finding.evidence
    )
