"""What has to hold for an action: busy is not dead, the last replica is spared, what is not known is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from escalation.model import (
    AgentId,
    Check,
    Condition,
    FaultClass,
    FlightEvidence,
    Gauge,
    Incarnation,
    MetricEvidence,
    Override,
    Result,
    ServerKind,
)
from escalation.server import coverage
from escalation.server.decision.preconditions import Rank, Replica, Scene, evaluate, insist
from escalation.server.decision.track_record import RestartBudget
from escalation.server.desk import HostState, Refused
from escalation.testing import an_entry

_ENTRY = an_entry(FaultClass.ROUTE_ENGINE_STALLED)
_NOW = _ENTRY.incident.last_seen_ns + 60 * 10**9
_FLIGHT = next(each for each in _ENTRY.incident.evidence if isinstance(each, FlightEvidence))


def _host(**fields: Any) -> HostState:
    host = coverage.first_heard(_ENTRY.incident.agent_id, _NOW)
    return replace(host, kernel_boot_id=_ENTRY.incident.incarnation.kernel_boot_id, **fields)


def _scene(**fields: Any) -> Scene:
    scene = Scene(
        incident=_ENTRY.incident,
        action=_ENTRY.recommendation.advice.action,
        host=_host(),
        would_be_seen=True,
        beside=(),
        replicas=None,
        ranks=(),
        spent=0,
        budget=RestartBudget(),
        maintenance=(),
        evidence_max_age_s=1800.0,
        now_ns=_NOW,
    )
    return replace(scene, **fields)


def _result(condition: Condition, **fields: Any) -> Result:
    found = {each.condition: each.result for each in evaluate(_scene(**fields))}
    return found[condition]


def _incident(**fields: Any) -> Any:
    return replace(_ENTRY.incident, **fields)


def test_a_stalled_engine_is_dead_as_long_as_nothing_comes_back() -> None:
    """The silence is longer than what the largest request explains."""
    assert _result(Condition.NOT_BUSY) is Result.HOLDS


@pytest.mark.parametrize(
    "sign",
    [
        replace(_FLIGHT, silent_s=1.0),
        MetricEvidence(
            server=ServerKind.VLLM, port=8000, gauge=Gauge.GENERATED_TOKENS, value=9, rise=120, window_s=60
        ),
    ],
    ids=["bytes", "tokens"],
)
@pytest.mark.parametrize("where", ["own", "newer incident of the same port"])
def test_busy_is_not_dead(sign: FlightEvidence | MetricEvidence, where: str) -> None:
    """Bytes or tokens that move, by the newest evidence, stand in the way of a restart."""
    if where == "own":
        assert _result(Condition.NOT_BUSY, incident=_incident(evidence=(sign,))) is Result.FAILS
    else:
        newer = _incident(
            id="inc-2", fault_class=FaultClass.ROUTE_SATURATED, evidence=(sign,), last_seen_ns=_NOW
        )
        assert _result(Condition.NOT_BUSY, beside=(newer,)) is Result.FAILS


def test_what_nothing_tells_busy_from_dead_is_not_known() -> None:
    """Without a sign of life or death the condition neither holds nor fails."""
    assert _result(Condition.NOT_BUSY, incident=_incident(evidence=())) is Result.UNKNOWN


@pytest.mark.parametrize(
    ("fields", "result"),
    [
        ({}, Result.HOLDS),
        ({"host": None}, Result.UNKNOWN),
        ({"incident": _incident(open=False)}, Result.FAILS),
        ({"incident": _incident(incarnation=Incarnation("an-older-boot"))}, Result.FAILS),
        (
            {
                "beside": (
                    _incident(
                        id="inc-2",
                        last_seen_ns=_NOW,
                        incarnation=replace(_ENTRY.incident.incarnation, container_id="5a" * 32),
                    ),
                ),
                "incident": _incident(
                    incarnation=replace(_ENTRY.incident.incarnation, container_id="4f" * 32)
                ),
            },
            Result.FAILS,
        ),
    ],
    ids=["same", "host-unknown", "over", "rebooted", "recreated"],
)
def test_the_target_has_to_be_the_same_one(fields: dict[str, Any], result: Result) -> None:
    """Another start of the host or another life of the target voids what was seen."""
    assert _result(Condition.SAME_LIFE, **fields) is result


@pytest.mark.parametrize(
    ("age_s", "host", "sees", "result"),
    [
        (60, {}, True, Result.HOLDS),
        (7200, {}, True, Result.HOLDS),
        (7200, {}, False, Result.UNKNOWN),
        (7200, {"silent": True}, True, Result.FAILS),
    ],
    ids=["new", "old-but-held-open", "old-and-blind", "old-and-silent"],
)
def test_old_evidence_stands_only_while_the_host_would_say_that_it_is_over(
    age_s: int, host: dict[str, Any], sees: bool, result: Result
) -> None:
    """A case is held open by a host that is heard and sees; silence proves nothing."""
    now_ns = _ENTRY.incident.last_seen_ns + age_s * 10**9
    scene = _scene(now_ns=now_ns, host=replace(_host(**host), last_heard_ns=now_ns), would_be_seen=sees)
    found = {each.condition: each.result for each in evaluate(scene)}
    assert found[Condition.EVIDENCE_FRESH] is result


_SLOW = an_entry(FaultClass.GPU_CPU_FALLBACK)


@pytest.mark.parametrize(
    ("replicas", "last", "load"),
    [
        (None, Result.UNKNOWN, Result.UNKNOWN),
        ((), Result.FAILS, Result.FAILS),
        ((Replica("b", frozenset()),), Result.HOLDS, Result.HOLDS),
        ((Replica("b", frozenset({FaultClass.ROUTE_SATURATED})),), Result.HOLDS, Result.FAILS),
        ((Replica("b", frozenset({FaultClass.ROUTE_ENGINE_STALLED})),), Result.FAILS, Result.FAILS),
        ((Replica("b", frozenset(), silent=True),), Result.FAILS, Result.FAILS),
    ],
    ids=["undeclared", "alone", "healthy", "full", "at-fault", "silent"],
)
def test_the_last_healthy_replica_is_not_restarted_unseen(
    replicas: tuple[Replica, ...] | None, last: Result, load: Result
) -> None:
    """What still serves, if slowly, is spared while no other serves or could take more."""
    fields = {"incident": _SLOW.incident, "action": _SLOW.recommendation.advice.action, "replicas": replicas}
    assert _result(Condition.OTHER_REPLICA, **fields) is last
    assert _result(Condition.OTHERS_TAKE_LOAD, **fields) is load


def test_what_serves_nobody_is_no_healthy_replica() -> None:
    """Nothing is lost with the restart of the only one, when it answers nobody."""
    assert _result(Condition.OTHER_REPLICA, replicas=()) is Result.HOLDS


def test_every_rank_has_to_be_heard_of() -> None:
    """One rank that is silent is enough to stand in the way."""
    stall = an_entry(FaultClass.DISTRIBUTED_RANK_STALL)
    fresh = Rank(AgentId("a"), _NOW, _NOW, silent=False)
    fields: dict[str, Any] = {
        "incident": stall.incident,
        "action": stall.recommendation.advice.action,
        "beside": (),
    }
    assert _result(Condition.RANKS_FRESH, ranks=(fresh, fresh), **fields) is Result.HOLDS
    assert (
        _result(Condition.RANKS_FRESH, ranks=(fresh, replace(fresh, silent=True)), **fields) is Result.FAILS
    )
    assert _result(Condition.RANKS_FRESH, **fields) is Result.UNKNOWN


def test_old_evidence_of_a_rank_that_is_blind_is_not_known() -> None:
    """A host that is heard and cannot see the stall proves nothing of it, once what it saw is old."""
    stall = an_entry(FaultClass.DISTRIBUTED_RANK_STALL)
    blind = Rank(AgentId("b"), _NOW - 7200 * 10**9, _NOW, silent=False, sees=False)
    fields: dict[str, Any] = {"incident": stall.incident, "action": stall.recommendation.advice.action}
    assert _result(Condition.RANKS_FRESH, ranks=(blind,), **fields) is Result.UNKNOWN
    assert _result(Condition.RANKS_FRESH, ranks=(replace(blind, sees=True),), **fields) is Result.HOLDS
    assert (
        _result(Condition.RANKS_FRESH, ranks=(replace(blind, last_seen_ns=_NOW),), **fields) is Result.HOLDS
    )


def test_what_only_reads_has_no_conditions() -> None:
    """Looking is never in anybody's way."""
    entry = an_entry(FaultClass.ROUTE_SATURATED)
    assert evaluate(_scene(incident=entry.incident, action=entry.recommendation.advice.action)) == ()


_checks = st.lists(
    st.builds(
        Check,
        condition=st.sampled_from(Condition),
        result=st.sampled_from(Result),
        words=st.just("why"),
        in_the_way=st.booleans(),
        may_be_set_aside=st.booleans(),
    ),
    unique_by=lambda each: each.condition,
)


@given(checks=_checks, aside=st.sets(st.sampled_from(Condition)))
def test_nothing_in_the_way_is_passed_that_was_not_set_aside_by_name(
    checks: list[Check], aside: set[Condition]
) -> None:
    """An approval goes through only if each condition in the way may be set aside and is."""
    known = {each.condition for each in checks}
    right = aside <= known and all(
        each.may_be_set_aside and each.condition in aside for each in checks if each.in_the_way
    )
    overrides = [Override(each, "because") for each in sorted(aside)]
    if right:
        insist(checks, overrides)
    else:
        with pytest.raises(Refused):
            insist(checks, overrides)


@pytest.mark.parametrize("reason", ["a\0b", "x" * 2001], ids=["nul", "long"])
def test_a_reason_is_one_that_every_database_can_keep(reason: str) -> None:
    """What could not be written down is refused before anything is decided."""
    check = Check(Condition.NOT_BUSY, Result.FAILS, "busy", in_the_way=True, may_be_set_aside=True)
    with pytest.raises(Refused, match="at most 2000"):
        insist([check], [Override(Condition.NOT_BUSY, reason)])


def test_setting_a_condition_aside_needs_a_reason() -> None:
    """A name alone is no decision."""
    check = Check(Condition.NOT_BUSY, Result.FAILS, "busy", in_the_way=True, may_be_set_aside=True)
    with pytest.raises(Refused, match="needs a reason"):
        insist([check], [Override(Condition.NOT_BUSY, "  ")])
