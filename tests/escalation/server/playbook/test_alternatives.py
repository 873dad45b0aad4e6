"""Other ways: every advice names doing nothing and its cost, in words of ours, and no way twice."""

from __future__ import annotations

import pytest

from escalation.inert import harmless
from escalation.model import ActionKind, FaultClass, Way
from escalation.server.playbook.alternatives import RESTARTS
from escalation.testing import an_entry


@pytest.mark.parametrize("fault_class", FaultClass)
def test_every_advice_names_doing_nothing_first_and_no_way_twice(fault_class: FaultClass) -> None:
    """Whatever the fault: what it costs to leave it is said, and each way stands there once."""
    advice = an_entry(fault_class).recommendation.advice
    ways = [each.way for each in advice.alternatives]
    assert ways[0] is Way.DO_NOTHING
    assert len(ways) == len(set(ways))
    for each in advice.alternatives:
        assert all((each.words, each.costs, each.why_not))
        assert harmless(each.words + each.costs + each.why_not)


def test_who_is_asked_to_restart_a_server_of_a_route_may_take_the_route_out_instead() -> None:
    """A restart is never the only way where callers could be sent elsewhere, nor before a look."""
    advice = an_entry(FaultClass.ROUTE_ENGINE_STALLED).recommendation.advice
    assert advice.action.kind in RESTARTS
    assert {each.way for each in advice.alternatives} >= {Way.WAIT, Way.REMOVE_ROUTE, Way.LOOK_FIRST}


def test_who_is_only_asked_to_look_is_not_told_to_look_first() -> None:
    """Reading is no step that another look has to come before."""
    advice = an_entry(FaultClass.ROUTE_SATURATED).recommendation.advice
    assert advice.action.kind is ActionKind.INSPECT
    assert Way.LOOK_FIRST not in {each.way for each in advice.alternatives}
