"""What is weighed when somebody decides: conditions, what is set aside, budget, price, history."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, strategies as st

from escalation.cli.text import entry_text
from escalation.inert import harmless
from escalation.model import (
    Action,
    ActionKind,
    AgentId,
    BootId,
    CasePhase,
    CaseReport,
    Condition,
    FaultClass,
    FlightEvidence,
    Incident,
    Override,
    Reason,
    ReasonCode,
    Report,
    Result,
    RouteId,
    RouteKind,
    ServerKind,
    State,
    Step,
    Subject,
    SubjectKind,
    Tally,
)
from escalation.server import coverage, queue_rows
from escalation.server.attention.values import REMARKS, Remark
from escalation.server.causality.topology import DECLARED, THE_MAP, Declared, Engine, Host, Route
from escalation.server.decision import approvals
from escalation.server.decision.approvals import Policy
from escalation.server.decision.policies import ApprovalPolicy
from escalation.server.decision.scene import Weigher
from escalation.server.decision.track_record import RestartBudget, TrackRecord
from escalation.server.desk import Entry, Refused
from escalation.server.incident import incidents
from escalation.server.playbook.registry import advise
from escalation.server.service import Service
from escalation.server.testing import (
    CONTAINER,
    START_NS,
    FakeDesk,
    ManualClock,
    MemoryLedger,
    case_report,
    heartbeat,
)
from escalation.view.entry import entry_view
from escalation.wire import strategies
from tests.escalation.server.databases import Database
from tests.security.properties import security_property

_ROUTE = RouteId(port=8000, route=RouteKind.CHAT_COMPLETIONS, model="qwen3", server=ServerKind.VLLM)
_FLIGHT = FlightEvidence(
    id=_ROUTE,
    requests=3,
    waiting=2,
    oldest_s=400.0,
    silent_s=300.0,
    patience_s=180.0,
    largest_request_bytes=9,
)
_STALL = {
    "fault_class": FaultClass.ROUTE_ENGINE_STALLED,
    "subject": Subject(SubjectKind.ROUTE, "8000/chat_completions qwen3"),
    "target": Subject(SubjectKind.CONTAINER, CONTAINER),
    "reasons": (Reason(ReasonCode.NO_BYTES_WHILE_IN_FLIGHT, count=3, threshold=180.0, window_s=300.0),),
    "evidence": (_FLIGHT,),
}
_QUIET_S = 5.0
_BUSY = replace(_FLIGHT, silent_s=1.0)


async def _stalled(desk: FakeDesk, case_id: str = "stall-1") -> Entry:
    await desk.report(heartbeat())
    return await desk.opened(case_id=case_id, seen_ns=desk.clock.wall_ns(), **_STALL)


async def _approve(desk: FakeDesk, entry: Entry, *overrides: Override, person: str = "ada") -> Entry:
    rec = entry.recommendation
    return await desk.approve(rec.id, person=person, reason="now", digest=rec.digest, overrides=overrides)


async def _grow_busy(desk: FakeDesk) -> None:
    """Let the host tell, by another case of the same server, that it answers."""
    await desk.report(
        case_report(
            CasePhase.OPENED,
            case_id="slow-1",
            seen_ns=desk.clock.wall_ns() + 1,
            **_STALL | {"fault_class": FaultClass.ROUTE_SATURATED, "evidence": (_BUSY,)},
        )
    )


@security_property(
    "B14",
    "What held when it was proposed is judged again by what was reported since.",
)
async def test_a_condition_that_fails_at_the_approval_refuses_it() -> None:
    """What held when it was proposed is judged again by what was reported since."""
    desk = FakeDesk()
    entry = await _stalled(desk)
    assert {each.result for each in entry.preconditions if each.in_the_way} == set()
    await _grow_busy(desk)
    with pytest.raises(Refused, match="not_busy fails: busy is not dead"):
        await _approve(desk, entry)
    assert (await desk.entry(entry.recommendation.id)).recommendation.state is State.PROPOSED


async def test_what_changed_since_the_proposal_is_said() -> None:
    """How each condition stood then is kept, and shown where it is another now; a new one begins anew."""
    desk = FakeDesk()
    entry = await _stalled(desk)
    shown = entry_view(await desk.entry(entry.recommendation.id))
    assert {each.at_proposal == each.result for each in shown.preconditions} == {True}
    assert "changed:" not in entry_text(shown)
    await _grow_busy(desk)
    grown = entry_view(await desk.entry(entry.recommendation.id))
    (busy,) = [each for each in grown.preconditions if each.condition == "not_busy"]
    assert (busy.at_proposal, busy.result) == ("holds", "fails")
    assert "(changed: it held when this was proposed)" in entry_text(grown)
    await desk.advance(Policy().approve_within_s + 1)
    again = await desk.entry(entry.incident.id)
    assert again.recommendation.id != entry.recommendation.id
    found = {each.condition: each.result for each in again.at_proposal}
    assert found[Condition.NOT_BUSY] is Result.FAILS


async def test_every_database_remembers_how_a_proposal_began(database: Database) -> None:
    """It is there after a restart of the orchestrator."""
    store = database.open()
    desk = FakeDesk()
    desk.service = Service(store=store, clock=desk.clock, policy=Policy())
    try:
        before = await desk.entry((await _stalled(desk)).recommendation.id)
    finally:
        await store.close()
    store = database.open()
    service = Service(store=store, clock=desk.clock, policy=Policy())
    try:
        assert (await service.entry(before.recommendation.id)).at_proposal == before.at_proposal != ()
    finally:
        await store.close()


async def test_what_is_set_aside_by_name_is_kept_with_its_reason() -> None:
    """Who knows better says so: the record, the view and the audit log name the condition and why."""
    desk = FakeDesk()
    entry = await _stalled(desk)
    await _grow_busy(desk)
    approved = await _approve(desk, entry, Override(Condition.NOT_BUSY, "it answers health checks only"))
    assert approved.recommendation.state is State.APPROVED
    (found,) = approved.weighed
    assert (found.step, found.person) == (Step.APPROVED, "ada")
    assert {each.condition: each.result for each in found.checks}[Condition.NOT_BUSY] is Result.FAILS
    (aside,) = entry_view(approved).set_aside
    assert (aside.condition, aside.reason) == ("not_busy", "it answers health checks only")
    log = await desk.audit(after=0, limit=100)
    assert [each.detail for each in log if each.verb == "recommendation.condition_set_aside"] == [
        "not_busy: it answers health checks only"
    ]


async def test_the_second_person_sees_what_the_first_set_aside() -> None:
    """And has to set it aside too: each approval is judged by itself."""
    desk = FakeDesk(policy=Policy(two_person=frozenset({ActionKind.RESTART_CONTAINER})))
    entry = await _stalled(desk)
    await _grow_busy(desk)
    override = Override(Condition.NOT_BUSY, "health checks")
    await _approve(desk, entry, override)
    waiting = await desk.entry(entry.recommendation.id)
    assert waiting.recommendation.state is State.PROPOSED
    assert [each.person for each in entry_view(waiting).set_aside] == ["ada"]
    with pytest.raises(Refused, match="not_busy fails"):
        await _approve(desk, entry, person="grace")
    approved = await _approve(desk, entry, override, person="grace")
    assert [each.person for each in entry_view(approved).set_aside] == ["ada", "grace"]


async def test_policy_says_what_nobody_may_set_aside() -> None:
    """A condition that is not on the list stays in the way, with whatever reason."""
    desk = FakeDesk(policy=Policy(may_override=frozenset()))
    entry = await _stalled(desk)
    await _grow_busy(desk)
    with pytest.raises(Refused, match="policy lets nobody set it aside"):
        await _approve(desk, entry, Override(Condition.NOT_BUSY, "I know"))


async def test_what_is_not_known_refuses_the_kinds_that_policy_names() -> None:
    """By default the unknown is only said; where policy wants to know, it is in the way."""
    kinds = frozenset({ActionKind.RESTART_CONTAINER})
    desk = FakeDesk(policy=Policy(refuse_unknown=kinds))
    entry = await desk.opened()
    with pytest.raises(Refused, match="is not known"):
        await _approve(desk, entry)
    lenient = FakeDesk()
    assert (await _approve(lenient, await lenient.opened())).recommendation.state is State.APPROVED


async def test_what_was_found_when_it_was_done_is_kept_and_refuses_nothing() -> None:
    """What was carried out is recorded, whatever had changed by then."""
    desk = FakeDesk()
    entry = await _approve(desk, await _stalled(desk))
    await _grow_busy(desk)
    done = await desk.done(entry.recommendation.id, person="ada")
    assert done.recommendation.state is State.DONE
    shown = await desk.entry(entry.recommendation.id)
    assert [each.step for each in shown.weighed] == [Step.APPROVED, Step.DONE]


async def _cure(desk: FakeDesk, number: int) -> None:
    """Let a restart be approved and carried out; after 90 seconds the host says that it helped."""
    entry = await _stalled(desk, f"stall-{number}")
    await _approve(desk, entry)
    await desk.done(entry.recommendation.id, person="ada")
    await desk.advance(90)
    await desk.cleared(case_id=f"stall-{number}", seen_ns=desk.clock.wall_ns(), **_STALL)
    await desk.advance(_QUIET_S + 1)


async def test_history_says_how_often_it_cured_here_and_how_long_it_took() -> None:
    """A cure is counted for the host and the fleet, with who approved it; the restart's time is measured."""
    desk = FakeDesk(policy=Policy(quiet_at_most_s=_QUIET_S))
    await _cure(desk, 1)
    entry = await _stalled(desk, "stall-2")
    assert entry.history is not None
    assert (entry.history.here, entry.history.fleet) == (Tally(1, 1), Tally(1, 1))
    assert [(each.cured, each.approved_by) for each in entry.history.last] == [(True, ("ada",))]
    assert entry.price is not None
    assert entry.price.reload is not None
    assert (entry.price.reload.median_s, entry.price.reload.count) == (90.0, 1)
    assert (entry.price.requests, entry.price.waiting) == (3, 2)
    view = entry_view(entry)
    assert view.history is not None
    assert view.history.words == "cured 1 of 1 here, 1 of 1 in the fleet"
    await desk.cleared(case_id="stall-2", seen_ns=desk.clock.wall_ns(), **_STALL)
    elsewhere = await desk.opened(host="spark-2", case_id="stall-9", **_STALL)
    assert elsewhere.history is not None
    assert (elsewhere.history.here, elsewhere.history.fleet) == (Tally(0, 0), Tally(1, 1))


async def test_what_was_never_measured_is_said_so() -> None:
    """No number is made up for a target that was never restarted."""
    entry = await _stalled(FakeDesk())
    price = entry_view(entry).price
    assert price is not None
    assert "how long it takes to serve again is not measured" in price.words


async def test_a_restart_that_does_not_last_becomes_a_search_for_the_cause() -> None:
    """When the budget is spent the advice is work for a person; when its time has passed, a restart again."""
    budget = RestartBudget(approvals=2, within_s=3600.0)
    desk = FakeDesk(policy=Policy(restart_budget=budget, quiet_at_most_s=_QUIET_S))
    await _cure(desk, 1)
    await _cure(desk, 2)
    entry = await _stalled(desk, "stall-3")
    action = entry.recommendation.advice.action
    assert action.kind is ActionKind.HUMAN
    assert "Find the cause first: 2 restarts" in entry.recommendation.advice.summary
    desk.clock.advance(3600)
    await desk.report(case_report(CasePhase.CLEARED, case_id="stall-3", **_STALL))
    again = await _stalled(desk, "stall-4")
    assert again.recommendation.advice.action.kind is ActionKind.RESTART_CONTAINER


async def test_the_last_restart_of_a_budget_stays_approved() -> None:
    """An approval that spends the budget is not voided by it, however often the fault is reported."""
    desk = FakeDesk(policy=Policy(restart_budget=RestartBudget(approvals=1)))
    entry = await _approve(desk, await _stalled(desk))
    await desk.report(
        case_report(CasePhase.UPDATED, case_id="stall-1", seen_ns=desk.clock.wall_ns(), count=5, **_STALL)
    )
    assert (await desk.entry(entry.recommendation.id)).recommendation.state is State.APPROVED


@security_property(
    "A9",
    "Where policy says so, who asked about an entry does not approve it.",
)
async def test_a_person_who_asked_may_not_approve_where_policy_says_so() -> None:
    """The table of the kind refuses who has asked about the entry, and nobody else."""
    table = ApprovalPolicy(name="calm", no_self_approval=True)
    policy = Policy(policies=(table,))
    desk = FakeDesk(policy=policy)
    entry = await _stalled(desk)
    remark = Remark(number=1, person="ada", at_ns=1, text="who uses it?")
    await desk.store.write(
        lambda ledger: ledger.records.put(REMARKS, "0001", remark, owner=entry.incident.id)
    )
    with pytest.raises(Refused, match="ada has asked about it"):
        await _approve(desk, entry)
    assert (await _approve(desk, entry, person="grace")).recommendation.state is State.APPROVED


async def test_every_database_remembers_endings_and_restarts(database: Database) -> None:
    """What was spent, how it ended and how long it took is there after a restart of the orchestrator."""
    store = database.open()
    desk = FakeDesk()
    desk.store = store  # type: ignore[assignment]
    desk.service = Service(store=store, clock=desk.clock, policy=Policy(quiet_at_most_s=_QUIET_S))
    try:
        await _cure(desk, 1)
    finally:
        await store.close()
    store = database.open()
    service = Service(store=store, clock=ManualClock(wall_ns=desk.clock.wall_ns()), policy=Policy())
    try:
        (entry,) = [
            each for each in await service.queue(None) if each.incident.fault_class is _STALL["fault_class"]
        ]
        assert entry.history is not None
        assert entry.history.here == Tally(1, 1)
        action = entry.recommendation.advice.action
        spent, reload = await store.read(
            lambda ledger: (
                TrackRecord(ledger).spent(action, RestartBudget(), now_ns=desk.clock.wall_ns()),
                TrackRecord(ledger).reload_of(action.host, action.target),
            )
        )
        assert spent == 1
        assert reload is not None
        assert reload.median_s == 90.0
    finally:
        await store.close()


_MAP = Declared(
    host=(Host(name="spark-1"), Host(name="spark-2")),
    route=(
        Route(name="qwen3", engine=(Engine(host="spark-1", port=8000), Engine(host="spark-2", port=8000))),
    ),
)
_SLOW = _STALL | {
    "fault_class": FaultClass.GPU_CPU_FALLBACK,
    "evidence": (replace(_FLIGHT, silent_s=1.0),),
    "reasons": (Reason(ReasonCode.CPU_BURNS_DURING_REQUESTS, count=3),),
}


@pytest.mark.parametrize(
    ("other", "result"),
    [("healthy", Result.HOLDS), ("stalled", Result.FAILS), ("never heard", Result.FAILS)],
)
async def test_the_other_engines_of_a_declared_route_are_looked_at(other: str, result: Result) -> None:
    """Whether it is the last healthy replica follows from the map and from what is open on the others."""
    desk = FakeDesk()
    await desk.store.write(lambda ledger: ledger.records.put(DECLARED, THE_MAP, _MAP))
    if other != "never heard":
        await desk.report(heartbeat(), host="spark-2")
    if other == "stalled":
        await desk.opened(host="spark-2", case_id="stall-2", **_STALL)
    await desk.report(heartbeat())
    entry = await desk.opened(case_id="slow-1", **_SLOW)
    assert entry.recommendation.advice.action.kind is ActionKind.RESTART_CONTAINER
    found = {each.condition: each.result for each in entry.preconditions}
    assert found[Condition.OTHER_REPLICA] is result


async def test_asking_about_many_targets_gives_the_same_as_asking_about_one() -> None:
    """All records of a kind are read at once after some questions, and the answers stay the same."""
    desk = FakeDesk(policy=Policy(quiet_at_most_s=_QUIET_S))
    await _cure(desk, 1)
    action = (await desk.entry((await _stalled(desk, "stall-2")).incident.id)).recommendation.advice.action
    other = replace(action, target=Subject(SubjectKind.CONTAINER, "5a" * 32))

    def ask(record: TrackRecord, each: Action) -> tuple[int, object]:
        spent = record.spent(each, RestartBudget(), now_ns=desk.clock.wall_ns())
        return spent, record.reload_of(each.host, each.target)

    record = TrackRecord(desk.store.ledger)
    answers = [ask(record, each) for each in (action, other) * 10]
    assert answers == [ask(TrackRecord(desk.store.ledger), each) for each in (action, other)] * 10
    assert [spent for spent, _ in answers[:2]] == [1, 0]


def _strings(value: object) -> list[str]:
    match value:
        case str():
            return [value]
        case dict():
            return [text for each in value.values() for text in _strings(each)]
        case list() | tuple():
            return [text for each in value for text in _strings(each)]
        case _:
            return []


def _incident_of(number: int, body: CaseReport) -> Incident:
    report = Report(
        agent_id=AgentId("spark-1"),
        boot_id=BootId("boot"),
        sequence=number,
        created_ns=START_NS,
        body=body,
    )
    folding = incidents.fold(report, body, case=None, incident=None, standing=None, now_ns=START_NS)
    assert folding is not None
    return replace(folding.incident, open=True, cleared_ns=None, drill=False)


@given(
    cases=st.lists(strategies.values(CaseReport), min_size=1, max_size=4),
    kind=st.sampled_from(ActionKind),
    now_ns=st.integers(0, 2**62),
)
def test_whatever_hosts_report_is_weighed_in_inert_words(
    cases: list[CaseReport], kind: ActionKind, now_ns: int
) -> None:
    """No evidence, however odd, breaks what is weighed, or reaches a reader active."""
    ledger = MemoryLedger()
    found = [_incident_of(number, body) for number, body in enumerate(cases, start=1)]
    for each in found:
        ledger.put_incident(each)
    ledger.put_host(coverage.first_heard(AgentId("spark-1"), START_NS))
    advice = advise(found[0])
    advice = replace(advice, action=replace(advice.action, kind=kind))
    proposed = approvals.propose(found[0], advice, ordinal=1, policy=Policy(), now_ns=START_NS)
    ledger.put_recommendation(proposed, found[0])
    weigher = Weigher(ledger, policy=Policy(), now_ns=now_ns)
    view = entry_view(queue_rows.entry_of(ledger, proposed, weigher=weigher))
    assert {each.condition for each in view.preconditions} <= set(Condition)
    weighed = (view.alternatives, view.preconditions, view.price, view.history, view.rule)
    assert all(map(harmless, _strings(msgspec.to_builtins(weighed))))
