"""Sightings that are not enough for a case yet: counted, bounded, the grave ones last to go."""

from __future__ import annotations

import pytest

from agent.candidates import MAX_CANDIDATES, Candidates
from agent.cases import CaseBook
from agent.finding import Finding, Hysteresis, Verdict
from agent.testing import HOST, KERNEL_BOOT, at
from escalation.model import CasePhase, FaultClass, Severity, Subject, SubjectKind

FAULT = FaultClass.PROCESS_KILLED_BY_SIGNAL
TWICE = Hysteresis(open_after=2, open_window_s=600)


def seen(name: str, severity: Severity, *, second: float = 0) -> Finding:
    """Return one sighting of a process."""
    return Finding(
        verdict=Verdict.PRESENT,
        fault_class=FAULT,
        subject=Subject(SubjectKind.PROCESS, name),
        at=at(second),
        severity=severity,
    )


@pytest.mark.parametrize(
    ("flood", "opens"),
    [
        (Severity.UNKNOWN, True),
        (Severity.NOTE, True),
        (Severity.MEDIUM, True),
        (Severity.HIGH, True),
        (Severity.CRITICAL, False),
    ],
)
def test_a_flood_of_smaller_sightings_keeps_no_grave_fault_from_its_case(
    flood: Severity, opens: bool
) -> None:
    """Seen first and once more after the flood: of equals the oldest is forgotten."""
    book = CaseBook(agent_id=HOST, kernel_boot_id=KERNEL_BOOT, hysteresis={FAULT: TWICE})
    book.judge([seen("grave", Severity.CRITICAL)], at(0))
    book.judge([seen(f"p{number}", flood) for number in range(MAX_CANDIDATES + 1)], at(1))
    changes = book.judge([seen("grave", Severity.CRITICAL, second=2)], at(2))
    assert [body.phase for body in changes.bodies] == [CasePhase.OPENED] * opens


def test_a_candidate_is_as_grave_as_its_gravest_sighting_within_the_window() -> None:
    """One of them was high, so small ones go before it; when that lies too far back it counts anew."""
    candidates = Candidates()
    rule = Hysteresis(open_after=3, open_window_s=600)
    one = (FAULT, Subject(SubjectKind.PROCESS, "one"))

    def flood() -> None:
        for number in range(MAX_CANDIDATES):
            small = seen(f"p{number}", Severity.MEDIUM)
            assert small.subject is not None
            candidates.seen((FAULT, small.subject), small, rule)

    candidates.seen(one, seen("one", Severity.HIGH), rule)
    assert candidates.seen(one, seen("one", Severity.NOTE, second=1), rule) is None
    flood()
    assert len(candidates) == MAX_CANDIDATES
    assert candidates.seen(one, seen("one", Severity.NOTE, second=2), rule) == (at(0), 3)
    candidates.seen(one, seen("one", Severity.HIGH), rule)
    candidates.seen(one, seen("one", Severity.NOTE, second=9999), rule)
    flood()
    assert candidates.forget(one) is None
