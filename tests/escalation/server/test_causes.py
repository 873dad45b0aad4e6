"""Incidents with one cause: a stall that two hosts agree on, and what a router only passes on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from escalation.model import (
    ActionKind,
    AgentId,
    BootId,
    CasePhase,
    CaseReport,
    FaultClass,
    FlightEvidence,
    Incident,
    PromptSizeEvidence,
    Reason,
    ReasonCode,
    Recommendation,
    Report,
    RouteEvidence,
    RouteId,
    RouteKind,
    ServerKind,
    Severity,
    State,
    Subject,
    SubjectKind,
)
from escalation.server import audit, triage
from escalation.server.causality import causes
from escalation.server.decision.approvals import Approve, Policy
from escalation.server.storage import rows
from escalation.server.storage.sqlite_store import SqliteStore
from escalation.server.storage.store import Delivery, Ledger, StoreCorrupt
from escalation.server.testing import START_NS, MemoryLedger, case_report

_MINUTE_NS = 60 * 10**9
_VLLM = RouteId(8000, RouteKind.CHAT_COMPLETIONS, "qwen3-32b", ServerKind.VLLM)
_ROUTER = replace(_VLLM, port=4000, server=ServerKind.LITELLM)
_STALLED = FaultClass.ROUTE_ENGINE_STALLED
_FAILS = FaultClass.ROUTE_FAILS_REAL_TRAFFIC
_COOLING = FaultClass.ROUTE_ROUTER_COOLDOWN
_EMPTY = FaultClass.ROUTE_EMPTY_COMPLETION
_RANKS = FaultClass.DISTRIBUTED_RANK_STALL


def _evidence(fault: FaultClass, route: RouteId) -> RouteEvidence | FlightEvidence | PromptSizeEvidence:
    match fault:
        case FaultClass.ROUTE_ENGINE_STALLED:
            return FlightEvidence(
                id=route,
                requests=2,
                waiting=1,
                oldest_s=300.0,
                silent_s=200.0,
                patience_s=120.0,
                largest_request_bytes=9000,
            )
        case FaultClass.ROUTE_FAILS_REAL_TRAFFIC:
            return PromptSizeEvidence(
                id=route, window_s=900.0, split_bytes=65_536, small=9, small_failed=0, large=9, large_failed=9
            )
        case _:
            return RouteEvidence(
                id=route, window_s=600.0, exchanges=20, affected=9, affected_streamed=4, unobserved=0
            )


def _reason(*, clears: bool, certain: bool) -> ReasonCode:
    if clears:
        return ReasonCode.ENGINE_ANSWERS_AGAIN
    return ReasonCode.NO_BYTES_WHILE_IN_FLIGHT if certain else ReasonCode.SECOND_LAYER_UNKNOWN


@dataclass
class _Fleet:
    """A ledger and hosts that report to it; time is what the test says."""

    ledger: Ledger = field(default_factory=MemoryLedger)
    now_ns: int = START_NS
    _sequence: int = 0

    def report(
        self,
        host: str,
        fault: FaultClass,
        route: RouteId = _VLLM,
        *,
        phase: CasePhase = CasePhase.OPENED,
        case_id: str | None = None,
        seen_ns: int | None = None,
        certain: bool = True,
    ) -> None:
        """Let `host` say that it sees `fault` on `route`, or that it is over."""
        clears = phase is CasePhase.CLEARED
        body: CaseReport = case_report(
            phase,
            case_id=case_id or f"{host} {fault} {route.port}",
            seen_ns=self.now_ns if seen_ns is None else seen_ns,
            fault_class=fault,
            subject=Subject(SubjectKind.ROUTE, f"{route.port}/{route.route} {route.model}"),
            target=Subject(SubjectKind.UNIT, "serving.service"),
            reasons=(Reason(_reason(clears=clears, certain=certain)),),
            evidence=() if clears else (_evidence(fault, route),),
        )
        self.report_body(host, body)

    def report_body(self, host: str, body: CaseReport) -> None:
        """Let `host` report `body`."""
        self._sequence += 1
        report = Report(
            agent_id=AgentId(host),
            boot_id=BootId(f"boot-{host}"),
            sequence=self._sequence,
            created_ns=self.now_ns,
            body=body,
        )
        row = (report.sequence, report.created_ns, b"")
        delivery = Delivery(report.agent_id, report.boot_id, (row,), (report,))
        triage.receive(self.ledger, delivery, policy=Policy(), now_ns=self.now_ns)

    def clear(self, host: str, fault: FaultClass, route: RouteId = _VLLM) -> None:
        """Let `host` say that `fault` is over."""
        self.report(host, fault, route, phase=CasePhase.CLEARED)

    def open(self) -> dict[tuple[str, FaultClass], Incident]:
        """Return the open incidents by host and fault class."""
        found = (each for each in self.ledger.incidents(limit=1000) if each.open)
        return {(each.agent_id, each.fault_class): each for each in found}

    def incidents(self) -> list[Incident]:
        """Return the open incidents."""
        return [each for each in self.ledger.incidents(limit=1000) if each.open]

    def waiting(self) -> dict[tuple[str, FaultClass], Recommendation]:
        """Return what waits for a decision, by host and fault class."""
        by_incident = {each.incident_id: each for each in self.proposals()}
        return {key: by_incident[each.id] for key, each in self.open().items() if each.id in by_incident}

    def proposals(self) -> list[Recommendation]:
        """Return every recommendation that is proposed."""
        return list(self.ledger.in_states(frozenset({State.PROPOSED}), limit=None))


def test_two_hosts_that_stall_together_are_one_stall_over_both() -> None:
    """An incident of its own, on the host that was first, with the evidence of both, and one decision."""
    fleet = _Fleet()
    fleet.report("spark-a", _STALLED)
    fleet.now_ns += 9 * _MINUTE_NS
    fleet.report("spark-b", _FAILS)
    found = fleet.open()
    ranks = found["spark-a", _RANKS]
    assert set(fleet.waiting()) == {("spark-a", _RANKS)}
    assert ranks.subject == Subject(SubjectKind.MODEL, "qwen3-32b")
    assert ranks.target == Subject(SubjectKind.UNIT, "serving.service")
    assert [reason.code for reason in ranks.reasons] == [ReasonCode.TWO_HOSTS_AGREE]
    assert [type(each) for each in ranks.evidence] == [FlightEvidence, PromptSizeEvidence]
    assert {found["spark-a", _STALLED].explained_by, found["spark-b", _FAILS].explained_by} == {ranks.id}
    recommendation = fleet.waiting()["spark-a", _RANKS]
    assert recommendation.advice.action.kind is ActionKind.RESTART_UNIT
    entry = triage.entry_of(fleet.ledger, recommendation)
    assert [(each.agent_id, each.fault_class) for each in entry.explains] == [
        ("spark-a", _STALLED),
        ("spark-b", _FAILS),
    ]


def test_it_is_over_when_one_of_the_two_is_over() -> None:
    """What is left stands alone again, and is to be decided by itself."""
    fleet = _Fleet()
    fleet.report("spark-a", _STALLED)
    fleet.report("spark-b", _STALLED)
    fleet.clear("spark-a", _STALLED)
    assert set(fleet.open()) == {("spark-b", _STALLED)}
    assert fleet.open()["spark-b", _STALLED].explained_by is None
    assert set(fleet.waiting()) == {("spark-b", _STALLED)}


def test_of_three_hosts_two_can_go_on_agreeing() -> None:
    """When the leader recovers, the others go on; who came back soon is as old as it was."""
    fleet = _Fleet()
    for host in ("spark-a", "spark-b", "spark-c"):
        fleet.report(host, _STALLED)
    fleet.clear("spark-b", _STALLED)
    assert set(fleet.waiting()) == {("spark-a", _RANKS)}
    fleet.now_ns += _MINUTE_NS
    fleet.report("spark-b", _STALLED)
    fleet.clear("spark-a", _STALLED)
    assert set(fleet.waiting()) == {("spark-b", _RANKS)}


@pytest.mark.parametrize(
    ("host", "fault", "route", "minutes"),
    [
        ("spark-a", _FAILS, _VLLM, 0),
        ("spark-b", _STALLED, replace(_VLLM, model="llama-70b"), 0),
        ("spark-b", _STALLED, replace(_VLLM, model=""), 0),
        ("spark-b", _STALLED, replace(_VLLM, server=ServerKind.UNKNOWN), 0),
        ("spark-b", _STALLED, replace(_VLLM, server=ServerKind.OTHER), 0),
        ("spark-b", _STALLED, _VLLM, 11),
        ("spark-b", FaultClass.ROUTE_LATENCY_RISING, _VLLM, 0),
        ("spark-b", _EMPTY, _VLLM, 0),
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
    fleet = _Fleet()
    fleet.report("spark-a", _STALLED)
    fleet.now_ns += minutes * _MINUTE_NS
    fleet.report(host, fault, route)
    assert not any(fault_class is _RANKS for _, fault_class in fleet.open())
    assert len(fleet.waiting()) == len(fleet.open()) == 2


@pytest.mark.parametrize("engine_first", [True, False])
def test_a_router_that_passes_a_stall_on_is_no_second_host(engine_first: bool) -> None:
    """Router and engine see one cause from two places: the engine's incident explains the router's."""
    fleet = _Fleet()
    steps = [("spark-a", _STALLED, _VLLM), ("apps", _STALLED, _ROUTER)]
    for host, fault, route in steps if engine_first else reversed(steps):
        fleet.report(host, fault, route)
    fleet.report("apps", _COOLING, _ROUTER)
    found = fleet.open()
    assert set(found) == {("spark-a", _STALLED), ("apps", _STALLED), ("apps", _COOLING)}
    assert set(fleet.waiting()) == {("spark-a", _STALLED)}
    engine = found["spark-a", _STALLED]
    assert found["apps", _STALLED].explained_by == found["apps", _COOLING].explained_by == engine.id
    fleet.clear("spark-a", _STALLED)
    assert set(fleet.waiting()) == {("apps", _STALLED), ("apps", _COOLING)}


def test_a_router_on_the_engines_own_host_is_explained_as_well() -> None:
    """What joins them is the model's name, not the host."""
    fleet = _Fleet()
    fleet.report("spark-a", _COOLING, _ROUTER)
    fleet.report("spark-a", _STALLED, _VLLM)
    assert set(fleet.waiting()) == {("spark-a", _STALLED)}


def test_the_agreement_of_two_hosts_explains_the_router_too() -> None:
    """An explanation is never itself explained."""
    fleet = _Fleet()
    fleet.report("apps", _COOLING, _ROUTER)
    fleet.report("spark-a", _STALLED)
    fleet.report("spark-b", _STALLED)
    found = fleet.open()
    ranks = found["spark-a", _RANKS]
    assert found["apps", _COOLING].explained_by == ranks.id
    assert set(fleet.waiting()) == {("spark-a", _RANKS)}


def test_one_sign_alone_neither_agrees_nor_explains() -> None:
    """One request that hangs on two hosts may be the same bad request; a second sign makes it count."""
    fleet = _Fleet()
    fleet.report("apps", _STALLED, _ROUTER)
    fleet.report("spark-a", _STALLED)
    fleet.report("spark-b", _STALLED, certain=False)
    assert set(fleet.waiting()) == {("spark-a", _STALLED), ("spark-b", _STALLED)}
    fleet.now_ns += _MINUTE_NS
    fleet.report("spark-b", _STALLED, phase=CasePhase.UPDATED)
    assert set(fleet.waiting()) == {("spark-a", _RANKS)}
    fleet.now_ns += _MINUTE_NS
    fleet.report("spark-a", _STALLED, phase=CasePhase.UPDATED, certain=False)
    fleet.report("spark-b", _STALLED, phase=CasePhase.UPDATED, certain=False)
    assert set(fleet.waiting()) == {("apps", _STALLED), ("spark-a", _STALLED), ("spark-b", _STALLED)}
    fleet.now_ns += _MINUTE_NS
    for host in ("spark-a", "spark-b"):
        fleet.report(host, _STALLED, phase=CasePhase.UPDATED)
    assert set(fleet.waiting()) == {("spark-a", _RANKS)}


def test_what_takes_a_route_out_is_never_explained_away() -> None:
    """Empty answers are dealt with at the router, whatever the engine does."""
    fleet = _Fleet()
    fleet.report("spark-a", _STALLED)
    fleet.report("spark-a", _EMPTY)
    fleet.report("apps", _EMPTY, _ROUTER)
    assert set(fleet.waiting()) == set(fleet.open())


def test_what_a_person_rejects_explains_nothing_any_more() -> None:
    """No to a restart of all ranks brings back what was folded into it: nothing open leaves the queue."""
    fleet = _Fleet()
    fleet.report("spark-a", _STALLED)
    fleet.report("spark-b", _STALLED)
    (proposed,) = fleet.proposals()
    decided = triage.reject(
        fleet.ledger, proposed.id, person="ada", reason="two copies", policy=Policy(), now_ns=fleet.now_ns
    )
    assert set(fleet.waiting()) == {("spark-a", _STALLED), ("spark-b", _STALLED)}
    assert {each.id for each in fleet.proposals()} < decided.changed
    fleet.now_ns += _MINUTE_NS
    fleet.report("spark-b", _STALLED, phase=CasePhase.UPDATED)
    assert set(fleet.waiting()) == {("spark-a", _STALLED), ("spark-b", _STALLED)}


def test_an_approval_is_not_taken_back_by_an_explanation() -> None:
    """What a person has approved stays approved; only what nobody decided is withdrawn."""
    fleet = _Fleet()
    fleet.report("spark-a", _STALLED)
    (proposed,) = fleet.proposals()
    triage.approve(
        fleet.ledger,
        proposed.id,
        event=Approve("ada", "go", proposed.digest),
        policy=Policy(),
        now_ns=fleet.now_ns,
    )
    fleet.report("spark-b", _STALLED)
    approved = fleet.ledger.recommendation(proposed.id)
    assert approved is not None
    assert approved.state is State.APPROVED


def test_a_case_that_an_agent_calls_a_rank_stall_is_its_own() -> None:
    """Only what the orchestrator made of two hosts is opened and cleared by it."""
    fleet = _Fleet()
    fleet.report("spark-a", _RANKS)
    fleet.report("spark-b", _STALLED)
    fleet.clear("spark-b", _STALLED)
    assert set(fleet.waiting()) == {("spark-a", _RANKS)}


async def test_the_store_on_disk_finds_the_same(tmp_path: Path) -> None:
    """The embedded store answers as the one in memory, before and after it is opened anew."""

    def story(ledger: Ledger) -> None:
        fleet = _Fleet(ledger)
        fleet.report("apps", _COOLING, _ROUTER)
        fleet.report("spark-a", _STALLED)
        fleet.report("spark-b", _STALLED)

    def outcome(ledger: Ledger) -> tuple[set[tuple[str, FaultClass]], set[str]]:
        fleet = _Fleet(ledger)
        newest = ledger.open_of(causes.RELATED, limit=2)
        assert [each.last_seen_ns for each in newest] == [START_NS, START_NS]
        assert ledger.open_of(frozenset({_EMPTY}), limit=9) == []
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
    fleet = _Fleet()
    fleet.report("spark-a", _STALLED)
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
        ("spark-a", (_STALLED, _FAILS, FaultClass.ROUTE_SATURATED), _VLLM),
        ("spark-b", (_STALLED, FaultClass.ROUTE_BROKEN_STREAM), _VLLM),
        ("spark-c", (_FAILS,), _VLLM),
        ("spark-c", (_STALLED,), replace(_VLLM, model="llama-70b")),
        ("apps", (_STALLED, _COOLING, _EMPTY), _ROUTER),
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
    fleet = _Fleet()
    for (host, fault, route), what in steps:
        fleet.now_ns += _MINUTE_NS
        match what:
            case "see":
                fleet.report(host, fault, route)
            case "doubt":
                fleet.report(host, fault, route, certain=False)
            case "clear":
                fleet.clear(host, fault, route)
            case "wait":
                fleet.now_ns += 8 * _MINUTE_NS
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


def _check(fleet: _Fleet) -> None:
    found = fleet.open()
    by_id = {each.id: each for each in found.values()}
    for model in ("qwen3-32b", "llama-70b"):
        engines = [
            each
            for (_, fault), each in found.items()
            if fault in {_STALLED, _FAILS}
            and each.evidence == (_evidence(fault, replace(_VLLM, model=model)),)
            and each.reasons[0].code is not ReasonCode.SECOND_LAYER_UNKNOWN
        ]
        agreed = any(
            one.agent_id != other.agent_id
            and max(one.first_seen_ns, other.first_seen_ns) - min(one.last_seen_ns, other.last_seen_ns)
            <= 10 * _MINUTE_NS
            for one in engines
            for other in engines
        )
        ranks = [each for each in found.values() if each.fault_class is _RANKS and each.subject.name == model]
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


def _rank_stall(fleet: _Fleet, host: str, *, evidence: bool, clears: bool = False) -> None:
    """Let `host` find by itself, in logs and counters, that ranks wait for each other."""
    fleet.report_body(
        host,
        case_report(
            CasePhase.CLEARED if clears else CasePhase.OPENED,
            case_id=f"{host} ranks",
            seen_ns=fleet.now_ns,
            fault_class=_RANKS,
            subject=Subject(SubjectKind.UNIT, "serving.service"),
            reasons=(Reason(ReasonCode.BROADCAST_BLOCKED, 2), Reason(ReasonCode.TOKEN_COUNTERS_FLAT)),
            evidence=(_evidence(_STALLED, _VLLM),) if evidence else (),
        ),
    )


@pytest.mark.parametrize("evidence", [True, False], ids=["model known", "log only"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_what_a_host_finds_by_itself_and_what_two_agree_on_is_one_decision(
    order: tuple[int, ...], *, evidence: bool
) -> None:
    """The stall over both explains the stall of ranks on either host, and the engines', in any order."""
    fleet = _Fleet()
    tell = (
        lambda: _rank_stall(fleet, "spark-a", evidence=evidence),
        lambda: fleet.report("spark-a", _STALLED),
        lambda: fleet.report("spark-b", _STALLED),
    )
    for number in order:
        tell[number]()
        fleet.now_ns += _MINUTE_NS
    (agreed,) = [each for each in fleet.incidents() if causes.is_agreement(each)]
    others = [each for each in fleet.incidents() if not causes.is_agreement(each)]
    assert {each.explained_by for each in others} == {agreed.id}
    assert [each.incident_id for each in fleet.proposals()] == [agreed.id]

    fleet.clear("spark-b", _STALLED)
    (alone,) = [each for each in fleet.incidents() if each.fault_class is _RANKS]
    assert not causes.is_agreement(alone)
    assert alone.explained_by is None
    assert fleet.open()["spark-a", _STALLED].explained_by == alone.id


def test_two_hosts_that_each_find_it_by_themselves_agree() -> None:
    """Nothing else is needed: each of them is a witness."""
    fleet = _Fleet()
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
    fleet = _Fleet()
    body = case_report(
        case_id="own",
        seen_ns=fleet.now_ns,
        fault_class=_RANKS,
        subject=Subject(SubjectKind.MODEL, "qwen3-32b"),
        reasons=(Reason(ReasonCode.BROADCAST_BLOCKED),),
        evidence=(_evidence(_STALLED, _VLLM),),
    )
    for _ in range(3):
        fleet.report("spark-a", _STALLED)
        fleet.report("spark-b", _STALLED)
        fleet.report_body("spark-a", replace(body, phase=CasePhase.UPDATED, count=body.count + 1))
        fleet.now_ns += _MINUTE_NS
    assert len([each for each in fleet.incidents() if each.fault_class is _RANKS]) == 1
    for host in ("spark-a", "spark-b"):
        fleet.clear(host, _STALLED)
    fleet.report_body("spark-a", replace(body, phase=CasePhase.CLEARED))
    assert fleet.incidents() == []


@pytest.mark.parametrize("host", ["spark-a", "spark-b"])
@pytest.mark.parametrize("fault", [FaultClass.NETWORK_RDMA_FAULT, FaultClass.DISTRIBUTED_WORKER_LOST])
@pytest.mark.parametrize("first", [True, False])
def test_what_one_host_is_at_fault_with_explains_the_stall_over_both(
    fault: FaultClass, host: str, *, first: bool
) -> None:
    """The link, or the worker, of either host: one decision, and the stall stands alone when it is over."""
    fleet = _Fleet()
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
    fleet.report("spark-a", _STALLED)
    fleet.report("spark-b", _STALLED)
    if not first:
        fleet.report_body(host, cause)
    fleet.report("spark-c", _COOLING, _ROUTER)
    found = {each.fault_class: each for each in fleet.incidents()}
    others = [each for each in fleet.incidents() if each.fault_class is not fault]
    assert {each.explained_by for each in others} == {found[fault].id}
    assert [each.incident_id for each in fleet.proposals()] == [found[fault].id]

    fleet.report_body(host, replace(cause, phase=CasePhase.CLEARED))
    (agreed,) = [each for each in fleet.incidents() if causes.is_agreement(each)]
    assert agreed.explained_by is None
    assert {each.explained_by for each in fleet.incidents() if each is not agreed} == {agreed.id}
