"""Stalls of ranks: what one host finds by itself and what two hosts agree on is one decision."""

from __future__ import annotations

from dataclasses import replace

import pytest

from escalation.model import CasePhase, FaultClass, Reason, ReasonCode, Severity, Subject, SubjectKind
from escalation.server.causality import causes
from escalation.server.testing import case_report
from tests.escalation.server.stalling_fleet import (
    COOLING,
    MINUTE_NS,
    RANKS,
    ROUTER,
    STALLED,
    VLLM,
    Fleet,
    route_evidence,
)


def _rank_stall(fleet: Fleet, host: str, *, evidence: bool, clears: bool = False) -> None:
    """Let `host` find by itself, in logs and counters, that ranks wait for each other."""
    fleet.report_body(
        host,
        case_report(
            CasePhase.CLEARED if clears else CasePhase.OPENED,
            case_id=f"{host} ranks",
            seen_ns=fleet.now_ns,
            fault_class=RANKS,
            subject=Subject(SubjectKind.UNIT, "serving.service"),
            reasons=(Reason(ReasonCode.BROADCAST_BLOCKED, 2), Reason(ReasonCode.TOKEN_COUNTERS_FLAT)),
            evidence=(route_evidence(STALLED, VLLM),) if evidence else (),
        ),
    )


@pytest.mark.parametrize("evidence", [True, False], ids=["model known", "log only"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_what_a_host_finds_by_itself_and_what_two_agree_on_is_one_decision(
    order: tuple[int, ...], *, evidence: bool
) -> None:
    """The stall over both explains the stall of ranks on either host, and the engines', in any order."""
    fleet = Fleet()
    tell = (
        lambda: _rank_stall(fleet, "spark-a", evidence=evidence),
        lambda: fleet.report("spark-a", STALLED),
        lambda: fleet.report("spark-b", STALLED),
    )
    for number in order:
        tell[number]()
        fleet.now_ns += MINUTE_NS
    (agreed,) = [each for each in fleet.incidents() if causes.is_agreement(each)]
    others = [each for each in fleet.incidents() if not causes.is_agreement(each)]
    assert {each.explained_by for each in others} == {agreed.id}
    assert [each.incident_id for each in fleet.proposals()] == [agreed.id]

    fleet.clear("spark-b", STALLED)
    (alone,) = [each for each in fleet.incidents() if each.fault_class is RANKS]
    assert not causes.is_agreement(alone)
    assert alone.explained_by is None
    assert fleet.open()["spark-a", STALLED].explained_by == alone.id


def test_two_hosts_that_each_find_it_by_themselves_agree() -> None:
    """Nothing else is needed: each of them is a witness."""
    fleet = Fleet()
    _rank_stall(fleet, "spark-a", evidence=True)
    assert not [each for each in fleet.incidents() if causes.is_agreement(each)]
    _rank_stall(fleet, "spark-b", evidence=True)
    (agreed,) = [each for each in fleet.incidents() if causes.is_agreement(each)]
    assert [each.incident_id for each in fleet.proposals()] == [agreed.id]
    _rank_stall(fleet, "spark-b", evidence=True, clears=True)
    (left,) = fleet.incidents()
    assert (left.agent_id, left.explained_by) == ("spark-a", None)


def test_a_host_that_calls_its_stall_as_the_agreement_is_called_changes_nothing_for_long() -> None:
    """The same host, class and model: one incident, whoever speaks of it, and none is left behind."""
    fleet = Fleet()
    body = case_report(
        case_id="own",
        seen_ns=fleet.now_ns,
        fault_class=RANKS,
        subject=Subject(SubjectKind.MODEL, "qwen3-32b"),
        reasons=(Reason(ReasonCode.BROADCAST_BLOCKED),),
        evidence=(route_evidence(STALLED, VLLM),),
    )
    for _ in range(3):
        fleet.report("spark-a", STALLED)
        fleet.report("spark-b", STALLED)
        fleet.report_body("spark-a", replace(body, phase=CasePhase.UPDATED, count=body.count + 1))
        fleet.now_ns += MINUTE_NS
    assert len([each for each in fleet.incidents() if each.fault_class is RANKS]) == 1
    for host in ("spark-a", "spark-b"):
        fleet.clear(host, STALLED)
    fleet.report_body("spark-a", replace(body, phase=CasePhase.CLEARED))
    assert fleet.incidents() == []


@pytest.mark.parametrize("host", ["spark-a", "spark-b"])
@pytest.mark.parametrize("fault", [FaultClass.NETWORK_RDMA_FAULT, FaultClass.DISTRIBUTED_WORKER_LOST])
@pytest.mark.parametrize("first", [True, False])
def test_what_one_host_is_at_fault_with_explains_the_stall_over_both(
    fault: FaultClass, host: str, *, first: bool
) -> None:
    """The link, or the worker, of either host: one decision, and the stall stands alone when it is over."""
    fleet = Fleet()
    cause = case_report(
        case_id="cause",
        seen_ns=fleet.now_ns,
        fault_class=fault,
        subject=Subject(SubjectKind.INTERFACE, "rocep1s0f0"),
        severity=Severity.CRITICAL,
        evidence=(),
    )
    if first:
        fleet.report_body(host, cause)
    fleet.report("spark-a", STALLED)
    fleet.report("spark-b", STALLED)
    if not first:
        fleet.report_body(host, cause)
    fleet.report("spark-c", COOLING, ROUTER)
    found = {each.fault_class: each for each in fleet.incidents()}
    others = [each for each in fleet.incidents() if each.fault_class is not fault]
    assert {each.explained_by for each in others} == {found[fault].id}
    assert [each.incident_id for each in fleet.proposals()] == [found[fault].id]

    fleet.report_body(host, replace(cause, phase=CasePhase.CLEARED))
    (agreed,) = [each for each in fleet.incidents() if causes.is_agreement(each)]
    assert agreed.explained_by is None
    assert {each.explained_by for each in fleet.incidents() if each is not agreed} == {agreed.id}
