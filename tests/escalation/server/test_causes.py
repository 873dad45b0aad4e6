"""Incidents with one cause: a stall that two hosts agree on, and what a router only passes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from escalation.model import (
    ActionKind,
    CasePhase,
    FaultClass,
    FlightEvidence,
    PromptSizeEvidence,
    ReasonCode,
    RouteId,
    ServerKind,
    State,
    Subject,
    SubjectKind,
)
from escalation.server import audit, queue_rows, triage
from escalation.server.causality import causes
from escalation.server.decision.approvals import Approve, Policy
from escalation.server.storage import rows
from escalation.server.storage.sqlite_store import SqliteStore
from escalation.server.storage.store import Ledger, StoreCorrupt
from escalation.server.testing import START_NS, MemoryLedger
from tests.escalation.server.stalling_fleet import (
    COOLING,
    EMPTY,
    FAILS,
    MINUTE_NS,
    RANKS,
    ROUTER,
    STALLED,
    VLLM,
    Fleet,
    route_evidence,
)


def test_two_hosts_that_stall_together_are_one_stall_over_both() -> None:
    """An incident of its own, on the host that was first, with the evidence of both, and one decision."""
    fleet = Fleet()
    fleet.report("spark-a", STALLED)
    fleet.now_ns += 9 * MINUTE_NS
    fleet.report("spark-b", FAILS)
    found = fleet.open()
    ranks = found["spark-a", RANKS]
    assert set(fleet.waiting()) == {("spark-a", RANKS)}
    assert ranks.subject == Subject(SubjectKind.MODEL, "qwen3-32b")
    assert ranks.target == Subject(SubjectKind.UNIT, "serving.service")
    assert [reason.code for reason in ranks.reasons] == [ReasonCode.TWO_HOSTS_AGREE]
    assert [type(each) for each in ranks.evidence] == [FlightEvidence, PromptSizeEvidence]
    assert {found["spark-a", STALLED].explained_by, found["spark-b", FAILS].explained_by} == {ranks.id}
    recommendation = fleet.waiting()["spark-a", RANKS]
    assert recommendation.advice.action.kind is ActionKind.RESTART_UNIT
    entry = queue_rows.entry_of(fleet.ledger, recommendation)
    assert [(each.agent_id, each.fault_class) for each in entry.explains] == [
        ("spark-a", STALLED),
        ("spark-b", FAILS),
    ]


def test_it_is_over_when_one_of_the_two_is_over() -> None:
    """What is left stands alone again, and is to be decided by itself."""
    fleet = Fleet()
    fleet.report("spark-a", STALLED)
    fleet.report("spark-b", STALLED)
    fleet.clear("spark-a", STALLED)
    assert set(fleet.open()) == {("spark-b", STALLED)}
    assert fleet.open()["spark-b", STALLED].explained_by is None
    assert set(fleet.waiting()) == {("spark-b", STALLED)}


def test_of_three_hosts_two_can_go_on_agreeing() -> None:
    """When the leader recovers, the others go on; who came back soon is as old as it was."""
    fleet = Fleet()
    for host in ("spark-a", "spark-b", "spark-c"):
        fleet.report(host, STALLED)
    fleet.clear("spark-b", STALLED)
    assert set(fleet.waiting()) == {("spark-a", RANKS)}
    fleet.now_ns += MINUTE_NS
    fleet.report("spark-b", STALLED)
    fleet.clear("spark-a", STALLED)
    assert set(fleet.waiting()) == {("spark-b", RANKS)}


@pytest.mark.parametrize(
    ("host", "fault", "route", "minutes"),
    [
        ("spark-a", FAILS, VLLM, 0),
        ("spark-b", STALLED, replace(VLLM, model="llama-70b"), 0),
        ("spark-b", STALLED, replace(VLLM, model=""), 0),
        ("spark-b", STALLED, replace(VLLM, server=ServerKind.UNKNOWN), 0),
        ("spark-b", STALLED, replace(VLLM, server=ServerKind.OTHER), 0),
        ("spark-b", STALLED, VLLM, 11),
        ("spark-b", FaultClass.ROUTE_LATENCY_RISING, VLLM, 0),
        ("spark-b", EMPTY, VLLM, 0),
    ],
    ids=[
        "same host",
        "another model",
        "no model",
        "unknown server",
        "another server",
        "long after",
        "slow only",
        "empty only",
    ],
)
def test_two_stalls_that_do_not_agree_stay_two(
    host: str, fault: FaultClass, route: RouteId, minutes: int
) -> None:
    """One host, another model, another time, another fault: nobody agrees with anybody."""
    fleet = Fleet()
    fleet.report("spark-a", STALLED)
    fleet.now_ns += minutes * MINUTE_NS
    fleet.report(host, fault, route)
    assert not any(fault_class is RANKS for _, fault_class in fleet.open())
    assert len(fleet.waiting()) == len(fleet.open()) == 2


@pytest.mark.parametrize("engine_first", [True, False])
def test_a_router_that_passes_a_stall_on_is_no_second_host(engine_first: bool) -> None:
    """Router and engine see one cause from two places: the engine's incident explains the router's."""
    fleet = Fleet()
    steps = [("spark-a", STALLED, VLLM), ("apps", STALLED, ROUTER)]
    for host, fault, route in steps if engine_first else reversed(steps):
        fleet.report(host, fault, route)
    fleet.report("apps", COOLING, ROUTER)
    found = fleet.open()
    assert set(found) == {("spark-a", STALLED), ("apps", STALLED), ("apps", COOLING)}
    assert set(fleet.waiting()) == {("spark-a", STALLED)}
    engine = found["spark-a", STALLED]
    assert found["apps", STALLED].explained_by == found["apps", COOLING].explained_by == engine.id
    fleet.clear("spark-a", STALLED)
    assert set(fleet.waiting()) == {("apps", STALLED), ("apps", COOLING)}


def test_a_router_on_the_engines_own_host_is_explained_as_well() -> None:
    """What joins them is the model's name, not the host."""
    fleet = Fleet()
    fleet.report("spark-a", COOLING, ROUTER)
    fleet.report("spark-a", STALLED, VLLM)
    assert set(fleet.waiting()) == {("spark-a", STALLED)}


def test_the_agreement_of_two_hosts_explains_the_router_too() -> None:
    """An explanation is never itself explained."""
    fleet = Fleet()
    fleet.report("apps", COOLING, ROUTER)
    fleet.report("spark-a", STALLED)
    fleet.report("spark-b", STALLED)
    found = fleet.open()
    ranks = found["spark-a", RANKS]
    assert found["apps", COOLING].explained_by == ranks.id
    assert set(fleet.waiting()) == {("spark-a", RANKS)}


def test_one_sign_alone_neither_agrees_nor_explains() -> None:
    """One request that hangs on two hosts may be the same bad request; a second sign makes it count."""
    fleet = Fleet()
    fleet.report("apps", STALLED, ROUTER)
    fleet.report("spark-a", STALLED)
    fleet.report("spark-b", STALLED, certain=False)
    assert set(fleet.waiting()) == {("spark-a", STALLED), ("spark-b", STALLED)}
    fleet.now_ns += MINUTE_NS
    fleet.report("spark-b", STALLED, phase=CasePhase.UPDATED)
    assert set(fleet.waiting()) == {("spark-a", RANKS)}
    fleet.now_ns += MINUTE_NS
    fleet.report("spark-a", STALLED, phase=CasePhase.UPDATED, certain=False)
    fleet.report("spark-b", STALLED, phase=CasePhase.UPDATED, certain=False)
    assert set(fleet.waiting()) == {("apps", STALLED), ("spark-a", STALLED), ("spark-b", STALLED)}
    fleet.now_ns += MINUTE_NS
    for host in ("spark-a", "spark-b"):
        fleet.report(host, STALLED, phase=CasePhase.UPDATED)
    assert set(fleet.waiting()) == {("spark-a", RANKS)}


def test_what_takes_a_route_out_is_never_explained_away() -> None:
    """Empty answers are dealt with at the router, whatever the engine does."""
    fleet = Fleet()
    fleet.report("spark-a", STALLED)
    fleet.report("spark-a", EMPTY)
    fleet.report("apps", EMPTY, ROUTER)
    assert set(fleet.waiting()) == set(fleet.open())


def test_what_a_person_rejects_explains_nothing_any_more() -> None:
    """No to a restart of all ranks brings back what was folded into it: nothing open leaves the queue."""
    fleet = Fleet()
    fleet.report("spark-a", STALLED)
    fleet.report("spark-b", STALLED)
    (proposed,) = fleet.proposals()
    decided = triage.reject(
        fleet.ledger, proposed.id, person="ada", reason="two copies", policy=Policy(), now_ns=fleet.now_ns
    )
    assert set(fleet.waiting()) == {("spark-a", STALLED), ("spark-b", STALLED)}
    assert {each.id for each in fleet.proposals()} < decided.changed
    fleet.now_ns += MINUTE_NS
    fleet.report("spark-b", STALLED, phase=CasePhase.UPDATED)
    assert set(fleet.waiting()) == {("spark-a", STALLED), ("spark-b", STALLED)}


def test_an_approval_is_not_taken_back_by_an_explanation() -> None:
    """What a person has approved stays approved; only what nobody decided is withdrawn."""
    fleet = Fleet()
    fleet.report("spark-a", STALLED)
    (proposed,) = fleet.proposals()
    triage.approve(
        fleet.ledger,
        proposed.id,
        event=Approve("ada", "go", proposed.digest),
        policy=Policy(),
        now_ns=fleet.now_ns,
    )
    fleet.report("spark-b", STALLED)
    approved = fleet.ledger.recommendation(proposed.id)
    assert approved is not None
    assert approved.state is State.APPROVED


def test_a_case_that_an_agent_calls_a_rank_stall_is_its_own() -> None:
    """Only what the orchestrator made of two hosts is opened and cleared by it."""
    fleet = Fleet()
    fleet.report("spark-a", RANKS)
    fleet.report("spark-b", STALLED)
    fleet.clear("spark-b", STALLED)
    assert set(fleet.waiting()) == {("spark-a", RANKS)}


async def test_the_store_on_disk_finds_the_same(tmp_path: Path) -> None:
    """The embedded store answers as the one in memory, before and after it is opened anew."""

    def story(ledger: Ledger) -> None:
        fleet = Fleet(ledger)
        fleet.report("apps", COOLING, ROUTER)
        fleet.report("spark-a", STALLED)
        fleet.report("spark-b", STALLED)

    def outcome(ledger: Ledger) -> tuple[set[tuple[str, FaultClass]], set[str]]:
        fleet = Fleet(ledger)
        newest = ledger.open_of(causes.RELATED, limit=2)
        assert [each.last_seen_ns for each in newest] == [START_NS, START_NS]
        assert ledger.open_of(frozenset({EMPTY}), limit=9) == []
        return set(fleet.waiting()), {each.id for each in ledger.open_of(causes.RELATED, limit=9)}

    memory = MemoryLedger()
    story(memory)
    store = SqliteStore(path=tmp_path / "orchestrator.db")
    await store.write(story)
    assert await store.read(outcome) == outcome(memory)
    await store.close()
    store = SqliteStore(path=tmp_path / "orchestrator.db")
    assert await store.read(outcome) == outcome(memory)
    await store.close()


def test_an_incident_of_an_older_version_is_read() -> None:
    """What was kept before incidents had explanations stands alone."""
    fleet = Fleet()
    fleet.report("spark-a", STALLED)
    (incident,) = fleet.open().values()
    kept = json.loads(rows.dump_incident(incident))
    del kept["explained_by"]
    assert rows.load_incident(json.dumps(kept)) == incident
    del kept["severity"]
    with pytest.raises(StoreCorrupt):
        rows.load_incident(json.dumps(kept))


_THINGS = [
    (host, fault, route)
    for host, faults, route in (
        ("spark-a", (STALLED, FAILS, FaultClass.ROUTE_SATURATED), VLLM),
        ("spark-b", (STALLED, FaultClass.ROUTE_BROKEN_STREAM), VLLM),
        ("spark-c", (FAILS,), VLLM),
        ("spark-c", (STALLED,), replace(VLLM, model="llama-70b")),
        ("apps", (STALLED, COOLING, EMPTY), ROUTER),
    )
    for fault in faults
]
_STEP = st.tuples(
    st.sampled_from(_THINGS), st.sampled_from(["see", "see", "doubt", "clear", "reject", "wait"])
)


@settings(max_examples=150)
@given(st.lists(_STEP, min_size=1, max_size=25))
def test_whatever_happens_every_open_incident_is_decided_somewhere(
    steps: list[tuple[tuple[str, FaultClass, RouteId], str]],
) -> None:
    """Random sequences: agreement exactly where hosts agree, explanations that stand, a whole audit log."""
    fleet = Fleet()
    for (host, fault, route), what in steps:
        fleet.now_ns += MINUTE_NS
        match what:
            case "see":
                fleet.report(host, fault, route)
            case "doubt":
                fleet.report(host, fault, route, certain=False)
            case "clear":
                fleet.clear(host, fault, route)
            case "wait":
                fleet.now_ns += 8 * MINUTE_NS
            case _:
                for each in fleet.proposals()[:1]:
                    triage.reject(
                        fleet.ledger, each.id, person="ada", reason="no", policy=Policy(), now_ns=fleet.now_ns
                    )
        _check(fleet)
    entries = list(fleet.ledger.audit(after=0, limit=10_000))
    assert [each.number for each in entries] == list(range(1, len(entries) + 1))
    for before, after in zip([None, *entries], entries, strict=False):
        follows = audit.follow(
            before,
            at_ns=after.at_ns,
            actor=after.actor,
            verb=after.verb,
            object_id=after.object_id,
            detail=after.detail,
        )
        assert follows == after


def _check(fleet: Fleet) -> None:
    found = fleet.open()
    by_id = {each.id: each for each in found.values()}
    for model in ("qwen3-32b", "llama-70b"):
        engines = [
            each
            for (_, fault), each in found.items()
            if fault in {STALLED, FAILS}
            and each.evidence == (route_evidence(fault, replace(VLLM, model=model)),)
            and each.reasons[0].code is not ReasonCode.SECOND_LAYER_UNKNOWN
        ]
        agreed = any(
            one.agent_id != other.agent_id
            and max(one.first_seen_ns, other.first_seen_ns) - min(one.last_seen_ns, other.last_seen_ns)
            <= 10 * MINUTE_NS
            for one in engines
            for other in engines
        )
        ranks = [each for each in found.values() if each.fault_class is RANKS and each.subject.name == model]
        assert len(ranks) == agreed
    for each in found.values():
        newest = fleet.ledger.recommendations(each.id)[-1:]
        if each.explained_by is not None:
            cause = by_id[each.explained_by]
            assert cause.explained_by is None
            assert all(step.state is not State.PROPOSED for step in newest)
            assert fleet.ledger.recommendations(cause.id)[-1].state is State.PROPOSED
        else:
            assert newest
            assert newest[0].state in {State.PROPOSED, State.REJECTED}
