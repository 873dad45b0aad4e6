"""Cases: findings become OPENED, UPDATED and CLEARED reports, with hysteresis and reasons.

One case stands open for one (fault class, subject). It opens after `open_after` sightings within a window,
and clears only on positive evidence (ABSENT) that then holds for `clear_hold_s`. Silence changes nothing,
and a detector that lost sight (UNKNOWN) takes a clearing that was under way back. Durations are boot time,
so a wall clock that jumps moves nothing. A case that a drill caused says so in every report, and none
outlives its drill for long (`drill_log.py`).

Pure: the book returns what to commit (report bodies and notes); a note is a case as it stands, keyed by its
id, so that a crash at any moment finds exactly the cases whose reports were committed. A book whose commit
failed goes on judging; the caller keeps the bodies in order until they can be written.

Rejected: clearing by silence after a time-to-live, which closes cases because a sensor died; and a second
table of closed cases for flap counts, which the hold bounds already (one pair of reports per hold).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from agent.candidates import Candidates, Fingerprint
from agent.case_notes import KEY_PREFIX, CaseNote, decode, encode
from agent.drill_log import DrillLog, Raised
from agent.finding import Finding, Hysteresis, OpenCase, Verdict
from escalation.model import (
    SEVERITY_ORDER,
    AgentId,
    CaseId,
    CasePhase,
    CaseReport,
    Evidence,
    FaultClass,
    Incarnation,
    Reason,
    ReasonCode,
    Severity,
)
from probes.observation import Instant

MAX_OPEN: Final = 1000
"""Open cases; beyond them a host is beyond judging one by one, and what is turned away is counted."""

KEPT_FOR_GRAVE: Final = 100
"""Of these, the last places, which only a grave case may open in: a flood of small ones cannot fill them."""

_GRAVE: Final = frozenset({Severity.HIGH, Severity.CRITICAL})

KEPT_EVIDENCE: Final = 4
KEPT_REASONS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdatePolicy:
    """How often an open case may speak again: at once when it gets worse, else by count or by time."""

    least_pause_s: float = 10.0
    interval_s: float = 900.0


@dataclass(frozen=True, slots=True)
class Changes:
    """What to commit in one transaction: report bodies in order, and notes to set (None forgets one)."""

    bodies: tuple[CaseReport, ...] = ()
    notes: Mapping[str, bytes | None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.bodies or self.notes)


@dataclass(slots=True)
class _Clearing:
    since: Instant
    reasons: tuple[Reason, ...]


@dataclass(slots=True)
class _Open:
    note: CaseNote
    clearing: _Clearing | None = None


class CaseBook:
    """The cases of one host. Owned by one task; gives back what to commit."""

    def __init__(
        self,
        *,
        agent_id: AgentId,
        kernel_boot_id: str,
        hysteresis: Mapping[FaultClass, Hysteresis],
        updates: UpdatePolicy | None = None,
    ) -> None:
        self._agent_id = agent_id
        self._kernel_boot_id = kernel_boot_id
        self._hysteresis = hysteresis
        self._updates = updates or UpdatePolicy()
        self._open: dict[Fingerprint, _Open] = {}
        self._candidates = Candidates()
        self._serial = 0
        self.drills = DrillLog()
        self.turned_away = 0

    def __repr__(self) -> str:
        return f"CaseBook(open={len(self._open)}, candidates={len(self._candidates)})"

    def retune(self, hysteresis: Mapping[FaultClass, Hysteresis]) -> None:
        """Take new thresholds; open cases stay open."""
        self._hysteresis = hysteresis

    def restore(self, notes: Mapping[str, bytes], now: Instant) -> tuple[Changes, int]:
        """Take up the cases that were open; return what to commit, and how many notes could not be read.

        Boot-time stamps of an earlier boot of the kernel mean nothing now, so those cases count from `now`;
        and what hung on a process or a cgroup of that boot is over, because nothing outlives its kernel.
        """
        bodies: list[CaseReport] = []
        changed: dict[str, bytes | None] = {}
        unreadable = 0
        for key, raw in sorted(notes.items()):
            note = decode(raw)
            if note is None or (note.fault_class, note.subject) in self._open:
                unreadable += 1
                changed[key] = None
                continue
            if note.kernel_boot_id != self._kernel_boot_id:
                if note.lifebound:
                    ended = replace(note, reasons=(Reason(ReasonCode.CGROUP_GONE, count=1),))
                    bodies.append(_report(CasePhase.CLEARED, ended))
                    changed[key] = None
                    continue
                note = replace(
                    note,
                    kernel_boot_id=self._kernel_boot_id,
                    last_boot_ns=now.boot_ns,
                    reported_boot_ns=now.boot_ns,
                )
            self._open[note.fault_class, note.subject] = _Open(note)
        return Changes(tuple(bodies), changed), unreadable

    def open_cases(self, faults: Iterable[FaultClass]) -> tuple[OpenCase, ...]:
        """Return the open cases of `faults`, as detectors see them."""
        wanted = frozenset(faults)
        return tuple(_shown(case.note) for (fault, _), case in self._open.items() if fault in wanted)

    def count_open(self) -> dict[FaultClass, int]:
        """Return how many cases stand open, by fault class."""
        counts: dict[FaultClass, int] = {}
        for fault, _ in list(self._open):  # a copy: the metrics page asks from its own thread
            counts[fault] = counts.get(fault, 0) + 1
        return counts

    def notes(self) -> dict[str, bytes]:
        """Return every open case as its note."""
        return {KEY_PREFIX + case.note.case_id: encode(case.note) for case in self._open.values()}

    def judge(self, findings: Sequence[Finding], now: Instant) -> Changes:
        """Take `findings` in order, clear what has been over for long enough, tell of bursts."""
        bodies: list[CaseReport] = []
        for finding in findings:
            match finding.verdict:
                case Verdict.PRESENT:
                    bodies.extend(self._present(finding))
                case Verdict.ABSENT:
                    self._absent(finding)
                case Verdict.UNKNOWN:
                    self._unknown(finding)
        bodies.extend(self._clear(now))
        bodies.extend(self._kept_back(now))
        return Changes(tuple(bodies), self._notes_for(bodies))

    def _present(self, finding: Finding) -> Sequence[CaseReport]:
        assert finding.subject is not None
        fingerprint = (finding.fault_class, finding.subject)
        drill = self.drills.of(finding)
        if not drill and self.drills.is_remains(finding):
            return ()
        case = self._open.get(fingerprint)
        if case is None:
            return self._sighting(fingerprint, finding, drill)
        if case.note.drill and not drill:  # a real fault, where a drill was before
            return (self._end_of_drill(fingerprint, finding.at), *self._sighting(fingerprint, finding, ""))
        case.clearing = None
        before = case.note
        case.note = _merged(before, finding)
        if not self._worth_saying(before, case.note, finding.at):
            return ()
        return (_told(case, finding.at),)

    def _kept_back(self, now: Instant) -> Sequence[CaseReport]:
        """Tell of counts that doubled too soon after a report, also when no sighting follows."""
        return [
            _told(case, now)
            for case in self._open.values()
            if case.note.count >= 2 * case.note.reported_count
            and case.clearing is None
            and self._worth_saying(case.note, case.note, now)
        ]

    def _sighting(self, fingerprint: Fingerprint, finding: Finding, drill: str) -> Sequence[CaseReport]:
        rule = self._hysteresis.get(finding.fault_class, Hysteresis())
        enough = self._candidates.seen(fingerprint, finding, rule)
        if enough is None:
            return ()
        first, total = enough
        if len(self._open) >= _places(finding.severity):
            self.turned_away += 1
            return ()
        note = self._opened(finding, first, total, drill)
        self._open[fingerprint] = _Open(note)
        if drill:
            raised = Raised(note.case_id, note.fault_class, note.subject, opened=finding.at)
            self.drills.opened(drill, raised)
        return (_report(CasePhase.OPENED, note),)

    def _opened(self, finding: Finding, first: Instant, count: int, drill: str) -> CaseNote:
        assert finding.subject is not None
        self._serial += 1
        name = "\n".join(
            (
                self._agent_id,
                self._kernel_boot_id,
                finding.fault_class,
                finding.subject.kind,
                finding.subject.name,
                str(first.boot_ns),
                str(first.unix_ns),
                str(self._serial),
            )
        )
        return CaseNote(
            case_id=CaseId(str(uuid.uuid5(uuid.NAMESPACE_OID, name))),
            fault_class=finding.fault_class,
            subject=finding.subject,
            severity=finding.severity,
            incarnation=finding.incarnation or Incarnation(kernel_boot_id=self._kernel_boot_id),
            target=finding.target,
            place=finding.place,
            lifebound=finding.lifebound,
            kernel_boot_id=self._kernel_boot_id,
            first_seen_ns=first.unix_ns,
            last_seen_ns=max(first.unix_ns, finding.at.unix_ns),
            last_boot_ns=finding.at.boot_ns,
            count=count,
            reported_boot_ns=finding.at.boot_ns,
            reported_count=count,
            reasons=finding.reasons[:KEPT_REASONS],
            evidence=finding.evidence[:KEPT_EVIDENCE],
            drill=drill,
        )

    def _worth_saying(self, before: CaseNote, after: CaseNote, at: Instant) -> bool:
        pause_s = (at.boot_ns - before.reported_boot_ns) / 1e9
        if SEVERITY_ORDER.index(after.severity) > SEVERITY_ORDER.index(before.severity):
            return True
        if before.target is None and after.target is not None:
            return True
        if pause_s < self._updates.least_pause_s:
            return False
        if after.incarnation != before.incarnation or _codes(after) != _codes(before):
            return True
        if after.count >= 2 * after.reported_count:
            return True
        return after.count > after.reported_count and pause_s >= self._updates.interval_s

    def _absent(self, finding: Finding) -> None:
        assert finding.subject is not None
        fingerprint = (finding.fault_class, finding.subject)
        self._candidates.forget(fingerprint)
        case = self._open.get(fingerprint)
        if case is not None and case.clearing is None and finding.at.boot_ns >= case.note.last_boot_ns:
            case.clearing = _Clearing(finding.at, finding.reasons)

    def _unknown(self, finding: Finding) -> None:
        for (fault, subject), case in self._open.items():
            if fault is finding.fault_class and finding.subject in {None, subject}:
                case.clearing = None

    def _clear(self, now: Instant) -> Sequence[CaseReport]:
        bodies = []
        for fingerprint, case in list(self._open.items()):
            hold_s = self._hysteresis.get(fingerprint[0], Hysteresis()).clear_hold_s
            if case.clearing is None or now.since_s(case.clearing.since) < hold_s:
                if case.note.drill and self.drills.is_over(case.note.drill, now):
                    bodies.append(self._end_of_drill(fingerprint, now))
                continue
            del self._open[fingerprint]
            self.drills.cleared(case.note.case_id, now, by_itself=True)
            bodies.append(_report(CasePhase.CLEARED, replace(case.note, reasons=case.clearing.reasons)))
        return bodies

    def _end_of_drill(self, fingerprint: Fingerprint, at: Instant) -> CaseReport:
        """Close a case of a drill, because what the drill had made is removed."""
        note = self._open.pop(fingerprint).note
        self.drills.cleared(note.case_id, at, by_itself=False)
        return _report(CasePhase.CLEARED, replace(note, reasons=(Reason(ReasonCode.DRILL_ENDED),)))

    def _notes_for(self, bodies: Sequence[CaseReport]) -> dict[str, bytes | None]:
        notes: dict[str, bytes | None] = {}
        for body in bodies:
            case = self._open.get((body.fault_class, body.subject))
            standing = case is not None and case.note.case_id == body.case_id
            notes[KEY_PREFIX + body.case_id] = encode(case.note) if case and standing else None
        return notes


def _places(severity: Severity) -> int:
    """Return how many places there are for a case that would open with `severity`."""
    return MAX_OPEN if severity in _GRAVE else MAX_OPEN - KEPT_FOR_GRAVE


def _merged(note: CaseNote, finding: Finding) -> CaseNote:
    """Return the case after one more sighting. Severity only rises while a case is open.

    A state that merely goes on (it counts nothing) keeps the evidence of the event that began it, which knew
    more than an inventory does; but it may say for the first time what an action would act on, and where.
    """
    worse = SEVERITY_ORDER.index(finding.severity) > SEVERITY_ORDER.index(note.severity)
    if not finding.count and not worse:
        first = note.target is None and finding.target is not None
        return replace(
            note,
            incarnation=_lived_on(note.incarnation, finding.incarnation) if first else note.incarnation,
            target=finding.target if first else note.target,
            place=finding.place if first else note.place,
            last_seen_ns=max(note.last_seen_ns, finding.at.unix_ns),
            last_boot_ns=max(note.last_boot_ns, finding.at.boot_ns),
        )
    return replace(
        note,
        severity=finding.severity if worse else note.severity,
        incarnation=_lived_on(note.incarnation, finding.incarnation),
        target=finding.target or note.target,
        place=finding.place or note.place,
        last_seen_ns=max(note.last_seen_ns, finding.at.unix_ns),
        last_boot_ns=max(note.last_boot_ns, finding.at.boot_ns),
        count=note.count + finding.count,
        reasons=finding.reasons[:KEPT_REASONS],
        evidence=_latest(note.evidence, finding.evidence),
    )


def _lived_on(old: Incarnation, new: Incarnation | None) -> Incarnation:
    """Return the newer incarnation, but not one that is only known less well: that is no restart."""
    if new is None or (
        new.pid is None
        and new.kernel_boot_id == old.kernel_boot_id
        and new.container_id in {None, old.container_id}
    ):
        return old
    return new


def _latest(old: tuple[Evidence, ...], new: tuple[Evidence, ...]) -> tuple[Evidence, ...]:
    """Return the newest evidence first, without repeats, as much as is kept."""
    return tuple(dict.fromkeys((*new, *old)))[:KEPT_EVIDENCE]


def _codes(note: CaseNote) -> frozenset[ReasonCode]:
    return frozenset(reason.code for reason in note.reasons)


def _shown(note: CaseNote) -> OpenCase:
    return OpenCase(
        fault_class=note.fault_class,
        subject=note.subject,
        place=note.place,
        last_seen=Instant(boot_ns=note.last_boot_ns, unix_ns=note.last_seen_ns),
        evidence=note.evidence,
        target=note.target,
    )


def _told(case: _Open, at: Instant) -> CaseReport:
    case.note = replace(case.note, reported_boot_ns=at.boot_ns, reported_count=case.note.count)
    return _report(CasePhase.UPDATED, case.note)


def _report(phase: CasePhase, note: CaseNote) -> CaseReport:
    return CaseReport(
        phase=phase,
        case_id=note.case_id,
        fault_class=note.fault_class,
        severity=note.severity,
        subject=note.subject,
        incarnation=note.incarnation,
        first_seen_ns=note.first_seen_ns,
        last_seen_ns=note.last_seen_ns,
        count=note.count,
        target=note.target,
        reasons=note.reasons,
        evidence=note.evidence,
        drill=bool(note.drill),
    )
