"""The backlog: what waits while the disk takes nothing, and the account of what it gave up."""

from __future__ import annotations

from agent.testing import case_report
from agent.uplink.backlog import Backlog
from escalation.model import CasePhase, Loss, LossKind


def test_commits_in_order_and_keeps_what_came_meanwhile() -> None:
    """Only what was written is let go of."""
    backlog = Backlog()
    backlog.add([case_report("a", CasePhase.OPENED)], {"case/a": b"1"})
    bodies, notes = backlog.contents()
    backlog.add([case_report("a", CasePhase.CLEARED)], {"case/a": None})
    backlog.committed(bodies, notes)
    later, later_notes = backlog.contents()
    assert [body.phase for body in later] == [CasePhase.CLEARED]  # type: ignore[union-attr]
    assert later_notes == {"case/a": None}
    backlog.committed(later, later_notes)
    assert not backlog


def test_superfluous_updates_go_first_and_cost_nothing() -> None:
    """Counts are cumulative, so an update that a later one of its case follows is no loss."""
    backlog = Backlog(capacity=3)
    backlog.add([case_report("a", CasePhase.OPENED)], {})
    for count in range(2, 50):
        backlog.add([case_report("a", CasePhase.UPDATED, count=count)], {})
    bodies, _ = backlog.contents()
    assert len(bodies) <= 3
    assert bodies[-1].count == 49  # type: ignore[union-attr]
    assert backlog.losses() == ()


def test_what_must_go_is_counted_and_told() -> None:
    """Openings beyond the capacity are lost from the oldest on, one by one in the account."""
    backlog = Backlog(capacity=3)
    backlog.add([case_report(str(number), CasePhase.OPENED) for number in range(10)], {})
    bodies, notes = backlog.contents()
    assert [getattr(body, "case_id", None) for body in bodies] == ["7", "8", "9", None]
    assert bodies[-1] == Loss(LossKind.SPOOL_UNWRITABLE, "", 7, exact=True)
    backlog.committed(bodies, notes)
    assert not backlog


def test_full_spool_sheds_updates() -> None:
    """Where only openings and clearings fit, the updates are given up and counted."""
    backlog = Backlog()
    backlog.add(
        [case_report("a", phase) for phase in (CasePhase.OPENED, CasePhase.UPDATED, CasePhase.CLEARED)], {}
    )
    backlog.shed_updates()
    bodies, _ = backlog.contents()
    assert [getattr(body, "phase", body) for body in bodies] == [
        CasePhase.OPENED,
        CasePhase.CLEARED,
        Loss(LossKind.SPOOL_FULL, "", 1, exact=True),
    ]


def test_what_a_commit_has_in_hand_is_not_given_up() -> None:
    """However much comes meanwhile: what was written is let go of, once, and the rest is counted."""
    backlog = Backlog(capacity=3)
    backlog.add([case_report(str(number), CasePhase.OPENED) for number in range(3)], {})
    bodies, notes = backlog.contents()
    backlog.add([case_report(str(number), CasePhase.OPENED) for number in range(3, 10)], {})
    backlog.committed(bodies, notes)
    later, _ = backlog.contents()
    assert [getattr(body, "case_id", None) for body in later] == ["7", "8", "9", None]
    assert later[-1] == Loss(LossKind.SPOOL_UNWRITABLE, "", 4, exact=True)


def test_what_the_disk_refused_may_be_given_up_again() -> None:
    """Nothing is kept beyond the capacity for a commit that failed."""
    backlog = Backlog(capacity=3)
    backlog.add([case_report(str(number), CasePhase.OPENED) for number in range(3)], {})
    backlog.contents()
    backlog.refused()
    backlog.add([case_report("3", CasePhase.OPENED)], {})
    assert len(backlog) == 3
    assert backlog.losses() == (Loss(LossKind.SPOOL_UNWRITABLE, "", 1, exact=True),)
