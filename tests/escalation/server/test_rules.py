"""Rules: what people say of them, how often they were right, and the shadow, which hides nothing for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, strategies as st

from escalation.model import (
    CasePhase,
    FaultClass,
    IncidentId,
    Reason,
    ReasonCode,
    RecommendationId,
    State,
    Subject,
    SubjectKind,
    Verdict,
)
from escalation.rule_names import RuleName, name_of, parts_of, rule_of
from escalation.server import triage
from escalation.server.decision import rules
from escalation.server.decision.approvals import Policy
from escalation.server.decision.rule_desk import StoredRules
from escalation.server.decision.rules import RuleSettings, Shadow
from escalation.server.desk import NotFound, Refused
from escalation.server.notify.notices import Event
from escalation.server.storage.store import Ledger
from escalation.server.testing import START_NS, FakeDesk, MemoryLedger, case_report, heartbeat
from escalation.server.web.access import Role
from escalation.view.entry import entry_view
from escalation.view.rule import rule_view
from tests.escalation.server.databases import Database
from tests.escalation.server.test_notices import routing, told

RULE = RuleName("gpu.access_revoked:open_refused_after_success")
_DAY_S = 86_400.0


def _rules(desk: FakeDesk, **settings: Any) -> StoredRules:
    return StoredRules(
        store=desk.store,
        clock=desk.clock,
        settings=RuleSettings(**settings),
        policy=Policy(),
        touched=desk.service.touch,
        routing=routing(),
    )


async def _shadow(found: StoredRules, rule: str = RULE, **given: Any) -> rules.RuleState:
    said: dict[str, Any] = {"person": "ada", "role": Role.OPERATOR, "reason": "noisy", "days": 3, "again": ""}
    return await found.shadow(rule, **said | given)


async def _states(desk: FakeDesk) -> list[State]:
    return [each.recommendation.state for each in await desk.queue(None)]


async def test_a_rule_is_the_class_and_the_reason_that_opened_the_case() -> None:
    """What is added to a case later does not move it to another rule."""
    desk = FakeDesk()
    entry = await desk.opened()
    assert entry_view(entry).rule == RULE
    more = (Reason(ReasonCode.DEVICE_NODE_MISSING, count=1), Reason(ReasonCode.OPEN_REFUSED_AFTER_SUCCESS))
    await desk.report(case_report(CasePhase.UPDATED, reasons=more, count=9))
    assert rule_of((await desk.entry(entry.incident.id)).incident) == RULE


@given(fault_class=st.sampled_from(FaultClass), code=st.sampled_from(ReasonCode))
def test_a_rules_name_says_what_it_is_made_of(fault_class: FaultClass, code: ReasonCode) -> None:
    """A name can be read back, whatever the class and the reason."""
    assert parts_of(name_of(fault_class, code)) == (fault_class, code)


@given(name=st.text())
def test_what_is_no_name_of_a_rule_is_none(name: str) -> None:
    """Any text is read without an error."""
    parts = parts_of(name)
    assert parts is None or name_of(*parts) == name


async def test_verdicts_are_counted_and_never_made_a_share() -> None:
    """The last word on each incident counts: "1 of 2", with every word in the audit log."""
    desk = FakeDesk()
    found = _rules(desk)
    first = await desk.opened()
    second = await desk.opened(case_id="case-2", subject=Subject(SubjectKind.UNIT, "a.service"))
    await found.judge(first.incident.id, person="ada", fault=True, reason="")
    await found.judge(second.recommendation.id, person="ada", fault=True, reason="")
    await found.judge(second.incident.id, person="grace", fault=False, reason="we removed the device")
    (state,) = await found.rules()
    assert (state.opened, state.faults, state.not_faults) == (2, 1, 1)
    assert rule_view(state).precision == "1 of 2 judged was a fault in 30 days"
    shown = entry_view(await desk.entry(second.incident.id)).verdict
    assert shown is not None
    assert (shown.fault, shown.person, shown.reason) == (False, "grace", "we removed the device")
    log = [each.detail for each in await desk.audit(after=0, limit=100) if each.verb == "incident.judged"]
    assert len(log) == 3
    assert log[-1].startswith("not_a_fault")


async def test_that_there_was_no_fault_needs_a_reason_and_a_real_incident() -> None:
    """Neither an unexplained verdict nor one of a drill teaches anything."""
    desk = FakeDesk()
    found = _rules(desk)
    entry = await desk.opened()
    with pytest.raises(Refused, match="needs a reason"):
        await found.judge(entry.incident.id, person="ada", fault=False, reason=" ")
    drill = await desk.opened(case_id="case-2", drill=True)
    with pytest.raises(Refused, match="drill"):
        await found.judge(drill.incident.id, person="ada", fault=True, reason="")
    with pytest.raises(NotFound):
        await found.judge("nobody", person="ada", fault=True, reason="")


async def test_old_verdicts_count_no_more() -> None:
    """Precision is of the last thirty days."""
    desk = FakeDesk()
    found = _rules(desk)
    entry = await desk.opened()
    await found.judge(entry.incident.id, person="ada", fault=True, reason="")
    desk.clock.advance(31 * _DAY_S)
    assert rule_view(await found.rule(RULE)).precision == "not judged in 30 days"


async def test_a_noisy_rule_is_only_suggested_for_the_shadow() -> None:
    """Three verdicts against it are a suggestion; nothing happens until a person says so."""
    desk = FakeDesk()
    found = _rules(desk)
    for number in range(3):
        entry = await desk.opened(
            case_id=f"case-{number}", subject=Subject(SubjectKind.UNIT, f"{number}.service")
        )
        await found.judge(entry.incident.id, person="ada", fault=False, reason="planned")
    state = await found.rule(RULE)
    assert state.suggestion.startswith("3 of 3 verdicts say that there was no fault")
    assert state.shadow is None
    assert set(await _states(desk)) == {State.PROPOSED}


async def test_what_a_rule_in_shadow_finds_is_kept_and_neither_proposed_nor_told() -> None:
    """It is counted and shown under its own state, with what would have been proposed."""
    desk = FakeDesk(routing=routing())
    found = _rules(desk)
    await _shadow(found)
    entry = await desk.opened()
    assert entry.recommendation.state is State.SHADOW
    assert told(desk) == []
    assert len(await desk.queue(frozenset({State.SHADOW}))) == 1
    with pytest.raises(Refused):
        await desk.approve(
            entry.recommendation.id, person="ada", reason="now", digest=entry.recommendation.digest
        )
    state = await found.rule(RULE)
    assert (state.opened, state.in_shadow) == (1, 1)
    await desk.cleared()
    assert await _states(desk) == [State.WITHDRAWN]
    assert told(desk) == []


async def test_what_is_open_enters_and_leaves_the_shadow_with_its_rule() -> None:
    """A proposal is withdrawn; out of the shadow it is proposed anew and told, by a person or by time."""
    desk = FakeDesk(routing=routing())
    found = _rules(desk)
    entry = await desk.opened()
    await _shadow(found)
    assert set(await _states(desk)) == {State.WITHDRAWN, State.SHADOW}
    await found.unshadow(RULE, person="ada", reason="mended")
    assert set(await _states(desk)) == {State.WITHDRAWN, State.PROPOSED}
    assert told(desk) == [Event.OPENED]  # as before the shadow: nothing is told twice
    await _shadow(found, days=1)
    for _ in range(2):
        await desk.report(heartbeat())
        await desk.advance(_DAY_S / 2 + 1)
    assert (await desk.entry(entry.incident.id)).recommendation.state is State.PROPOSED
    assert (await found.rule(RULE)).shadow is None
    verbs = [each.verb for each in await desk.audit(after=0, limit=200)]
    assert verbs.count("rule.shadowed") == verbs.count("rule.unshadowed") == 2


async def test_what_began_in_shadow_is_told_when_it_leaves_it() -> None:
    """A fault that is still there is news to whoever was not told of it."""
    desk = FakeDesk(routing=routing())
    found = _rules(desk)
    await _shadow(found)
    await desk.opened()
    assert told(desk) == []
    await found.unshadow(RULE, person="ada", reason="mended")
    assert told(desk) == [Event.OPENED]


async def test_what_returns_after_the_shadow_is_proposed() -> None:
    """A fault that went in the shadow and is back after it hides no more."""
    desk = FakeDesk(routing=routing())
    found = _rules(desk)
    await _shadow(found)
    entry = await desk.opened()
    await desk.cleared()
    await found.unshadow(RULE, person="ada", reason="mended")
    desk.clock.advance(60)
    again = await desk.opened(case_id="case-2", seen_ns=desk.clock.wall_ns())
    assert again.incident.id == entry.incident.id
    assert again.recommendation.state is State.PROPOSED
    assert not again.incident.shadow
    assert told(desk) == [Event.RETURNED]


async def test_what_returns_into_the_shadow_is_not_told() -> None:
    """A rule that was put in shadow meanwhile tells nothing of what comes back."""
    desk = FakeDesk(routing=routing())
    found = _rules(desk)
    await desk.opened()
    await desk.cleared()
    await _shadow(found)
    before = told(desk)
    desk.clock.advance(60)
    again = await desk.opened(case_id="case-2", seen_ns=desk.clock.wall_ns())
    assert (again.incident.shadow, again.recommendation.state) == (True, State.SHADOW)
    assert told(desk) == before


async def test_what_was_approved_stays_approved_in_shadow() -> None:
    """A decision of a person is not undone by the shadow."""
    desk = FakeDesk()
    entry = await desk.opened()
    await desk.approve(
        entry.recommendation.id, person="ada", reason="now", digest=entry.recommendation.digest
    )
    await _shadow(_rules(desk))
    assert await _states(desk) == [State.APPROVED]


async def test_a_fault_in_shadow_explains_nothing() -> None:
    """What a doubted rule found hides no other fault."""
    desk = FakeDesk()
    found = _rules(desk)
    slow = {
        "fault_class": FaultClass.GPU_CPU_FALLBACK,
        "reasons": (Reason(ReasonCode.CPU_BURNS_DURING_REQUESTS, count=3),),
    }
    await desk.opened()
    await desk.report(case_report(CasePhase.OPENED, case_id="slow", **slow))
    explained = [each for each in await desk.incidents() if each.explained_by is not None]
    assert [each.fault_class for each in explained] == [FaultClass.GPU_CPU_FALLBACK]
    await _shadow(found)
    assert [each for each in await desk.incidents() if each.explained_by is not None] == []
    queue = await desk.queue(frozenset({State.PROPOSED, State.SHADOW}))
    states = {each.incident.fault_class: each.recommendation.state for each in queue}
    assert states == {
        FaultClass.GPU_ACCESS_REVOKED: State.SHADOW,
        FaultClass.GPU_CPU_FALLBACK: State.PROPOSED,
    }


@pytest.mark.parametrize(
    ("rule", "given", "why"),
    [
        (RULE, {"days": 15}, "at most 14 days"),
        (RULE, {"reason": " "}, "needs a reason"),
        ("exposure.off_mesh_listener:listens_off_mesh", {}, "names the rule a second time"),
        ("monitor.blind:host_silent", {"again": "monitor.blind"}, "names the rule a second time"),
    ],
    ids=["too-long", "unexplained", "exposure", "blindness"],
)
async def test_the_shadow_has_its_limits(rule: str, given: dict[str, Any], why: str) -> None:
    """It ends, it has a reason, and what guards the fleet is put in it only by who says so twice."""
    with pytest.raises(Refused, match=why):
        await _shadow(_rules(FakeDesk()), rule, **given)


async def test_who_says_so_twice_may_put_a_guarding_rule_in_shadow() -> None:
    """It is allowed, and written down; where policy wants an admin, nobody else may."""
    rule = "monitor.blind:host_silent"
    state = await _shadow(_rules(FakeDesk()), rule, again=rule)
    assert state.shadow is not None
    with pytest.raises(Refused, match="needs the role admin"):
        await _shadow(_rules(FakeDesk(), shadow_role="admin"))
    with pytest.raises(NotFound):
        await _shadow(_rules(FakeDesk()), "no.rule:at_all")


async def test_a_shadow_ends_when_the_clock_goes_back_too() -> None:
    """A clock that is set cannot keep a rule in its shadow."""
    desk = FakeDesk()
    found = _rules(desk)
    await _shadow(found)
    shadow = (await found.rule(RULE)).shadow
    assert shadow is not None
    assert shadow.is_over(shadow.since_ns - 10**12)
    assert not shadow.is_over(shadow.since_ns + 1)
    assert shadow.is_over(shadow.until_ns)


async def test_every_database_keeps_verdicts_and_shadows(database: Database) -> None:
    """What was said and put in shadow is there after a restart, the same in memory and in every database."""

    def write(ledger: Ledger) -> None:
        kept = Shadow(person="ada", reason="noisy", since_ns=START_NS, until_ns=START_NS + 10**15)
        triage.shadow(ledger, RULE, kept, policy=Policy(), now_ns=START_NS)
        ledger.records.put(
            rules.VERDICTS,
            "inc-1",
            Verdict(fault=False, person="ada", at_ns=START_NS, reason="planned"),
            owner=RULE,
        )

    store = database.open()
    await store.write(write)
    await store.close()
    memory = MemoryLedger()
    write(memory)
    store = database.open()
    try:
        known = await store.read(
            lambda ledger: rules.known_rules(ledger, RuleSettings(), now_ns=START_NS + 1)
        )
    finally:
        await store.close()
    assert list(known) == list(rules.known_rules(memory, RuleSettings(), now_ns=START_NS + 1))
    (state,) = known
    assert (state.not_faults, state.shadow is not None) == (1, True)


_STEPS = st.lists(st.sampled_from(["open", "again", "clear", "shadow", "unshadow"]), max_size=12)


@given(steps=_STEPS)
def test_in_shadow_exactly_what_the_shadow_covers(steps: list[str]) -> None:
    """Whatever happens in whatever order: what is open is in shadow when its rule is, and else proposed."""
    asyncio.run(_walk(steps))


async def _walk(steps: list[str]) -> None:
    desk, number = FakeDesk(), 0
    found = _rules(desk)
    for step in steps:
        open_now = [each for each in await desk.incidents() if each.open]
        desk.clock.advance(1)
        if step == "open" and not open_now:
            number += 1
            await desk.report(case_report(CasePhase.OPENED, case_id=f"case-{number}"))
        elif step == "again" and open_now:
            await desk.report(case_report(CasePhase.UPDATED, case_id=f"case-{number}", count=number + 5))
        elif step == "clear" and open_now:
            await desk.cleared(case_id=f"case-{number}")
        elif step == "shadow":
            await _shadow(found)
        elif step == "unshadow" and (await found.rule(RULE)).shadow is not None:
            await found.unshadow(RULE, person="ada", reason="why")
        in_shadow = (await found.rule(RULE)).shadow is not None
        ledger = desk.store.ledger
        for incident in await desk.incidents():
            newest = ledger.recommendations(IncidentId(incident.id))[-1]
            expected = State.WITHDRAWN
            if incident.open:
                expected = State.SHADOW if in_shadow else State.PROPOSED
                assert incident.shadow is in_shadow
            assert newest.state is expected
            assert ledger.recommendation(RecommendationId(newest.id)) == newest
