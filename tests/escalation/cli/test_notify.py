"""nanobotctl notify: how receivers are, and a test of one."""

from __future__ import annotations

from tests.escalation.cli.conftest import Ctl


def test_a_test_is_queued_and_shown(ctl: Ctl) -> None:
    """The operator asks, and the status counts it."""
    assert ctl("notify", "status", "--json").json[0]["waiting"] == 0
    tested = ctl("notify", "test", "pager")
    assert (tested.code, tested.out) == (
        0,
        "a test is on its way; nanobotctl notify status shows what became of it\n",
    )
    shown = ctl("notify", "status")
    assert shown.out.splitlines() == [
        "RECEIVER  KIND     NOW      WAITING  SENT  FOLDED  GIVEN UP",
        "pager     mailbox  ✓ works  1        0     0       0",
    ]


def test_what_is_refused_has_its_exit_code(ctl: Ctl) -> None:
    """Too soon is refused, a receiver that is not there is not found, and a viewer may only look."""
    assert ctl("notify", "test", "nobody").code == 3
    assert ctl("notify", "test", "../queue").code == 3
    assert ctl("notify", "test", "pager", as_="viewer").code == 5
    assert ctl("notify", "status", as_="viewer").code == 0
    assert set(ctl("notify", "test", "pager", "--json").json) == {"id"}
    again = ctl("notify", "test", "pager")
    assert again.code == 5
    assert "less than 60 seconds ago" in again.err
