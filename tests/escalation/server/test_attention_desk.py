"""Owning entries, putting them off and asking about them, over the real service."""

from __future__ import annotations

import pytest

from escalation.model import CasePhase, FaultClass, IncidentId, Severity, State
from escalation.server.attention.attention_desk import StoredAttention, Until
from escalation.server.attention.shelves import shown, states_of
from escalation.server.attention.values import SNOOZES, AttentionSettings
from escalation.server.decision.approvals import Policy
from escalation.server.desk import DeskError, NotFound, Refused, Unavailable
from escalation.server.incident.timeline import MomentKind
from escalation.server.notify.notices import Event
from escalation.server.service import Service
from escalation.server.testing import START_NS, FakeDesk, ManualClock, case_report
from tests.escalation.server.attended import HOUR, desk_with, detail_of, moments, other, part, told, verbs
from tests.escalation.server.databases import Database
from tests.escalation.server.deliveries import delivery_of

# Acknowledge ---------------------------------------------------------------------------------------------


async def test_acknowledged_entry_has_an_owner_and_stands_below_what_nobody_has() -> None:
    """What nobody has in hand comes first, however bad the other is."""
    desk = desk_with()
    first = await desk.opened()
    second = await other(desk, severity=Severity.NOTE)
    owned = await desk.attention.acknowledge(first.recommendation.id, person="ada", until=Until())
    assert owned.attention.acknowledged is not None
    assert owned.attention.acknowledged.person == "ada"
    assert owned.attention.acknowledged.until_ns == desk.clock.wall_ns() + 1800 * 10**9
    order = [each.recommendation.id for each in await part(desk, "")]
    assert order == [second.recommendation.id, first.recommendation.id]
    assert [each.recommendation.id for each in await part(desk, "acknowledged")] == [first.recommendation.id]
    assert (await verbs(desk))[-1] == "incident.acknowledged"
    assert moments(desk, first)[-1] is MomentKind.ACKNOWLEDGED


async def test_acknowledgement_that_ran_out_reopens_the_entry_and_tells_of_it() -> None:
    """Half an hour later nobody has decided: it waits again, and people hear so once."""
    desk = desk_with()
    entry = await desk.opened()
    await desk.attention.acknowledge(entry.recommendation.id, person="ada", until=Until())
    await desk.advance(1799)
    assert Event.REOPENED not in told(desk)
    await desk.advance(2)
    await desk.advance(2)
    assert (await desk.entry(entry.incident.id)).attention.acknowledged is None
    assert told(desk).count(Event.REOPENED) == 1
    assert (await verbs(desk)).count("incident.reopened") == 1
    assert await detail_of(desk, "incident.reopened") == "acknowledgement of=ada why=its time is over"
    assert moments(desk, entry)[-1] is MomentKind.RELEASED


async def test_acknowledgement_of_what_was_decided_ends_without_a_word() -> None:
    """Who decided has nothing to be reminded of."""
    desk = desk_with()
    entry = await desk.opened()
    await desk.attention.acknowledge(entry.recommendation.id, person="ada", until=Until())
    await desk.reject(entry.recommendation.id, person="ada", reason="known")
    await desk.advance(1801)
    assert Event.REOPENED not in told(desk)
    assert "incident.reopened" not in await verbs(desk)


async def test_higher_severity_breaks_an_acknowledgement_and_is_told_as_that() -> None:
    """It got worse: one notice says so, and it is nobody's again."""
    desk = desk_with()
    entry = await desk.opened(severity=Severity.MEDIUM)
    await desk.attention.acknowledge(entry.recommendation.id, person="ada", until=HOUR)
    await desk.report(case_report(CasePhase.UPDATED, severity=Severity.CRITICAL, count=2))
    assert (await desk.entry(entry.incident.id)).attention.acknowledged is None
    await desk.advance(1)
    assert told(desk) == [Event.OPENED, Event.WORSENED]
    assert "why=it got worse" in await detail_of(desk, "incident.reopened")


async def test_taking_over_is_recorded_with_whom_it_was_taken_from() -> None:
    """The log says from whom; the owner may prolong it without a word of that."""
    desk = desk_with()
    entry = await desk.opened()
    for person in ("ada", "ada", "grace"):
        await desk.attention.acknowledge(entry.recommendation.id, person=person, until=HOUR)
    assert (await verbs(desk))[-3:] == [
        "incident.acknowledged", "incident.acknowledged", "incident.taken_over"
    ]  # fmt: skip
    assert (await detail_of(desk, "incident.taken_over")).endswith("from=ada")


async def test_acknowledgement_is_of_the_incident_and_survives_a_proposal_made_anew() -> None:
    """The proposal expires and comes again; its owner stays until the time that was said."""
    desk = FakeDesk(settings=AttentionSettings(acknowledge_at_most_s=86_400.0))
    entry = await desk.opened()
    await desk.attention.acknowledge(entry.incident.id, person="ada", until=Until(for_s=6 * 3600.0))
    await desk.advance(4 * 3600 + 61)
    again = await desk.entry(entry.incident.id)
    assert again.recommendation.id != entry.recommendation.id
    assert again.attention.acknowledged is not None


async def test_release_gives_it_back_and_nothing_can_be_released_twice() -> None:
    """Anybody may give it back; the log says whose it was."""
    desk = desk_with()
    entry = await desk.opened()
    await desk.attention.acknowledge(entry.recommendation.id, person="ada", until=HOUR)
    back = await desk.attention.release(entry.recommendation.id, person="grace")
    assert back.attention.acknowledged is None
    assert await detail_of(desk, "incident.released") == "of=ada"
    with pytest.raises(Refused):
        await desk.attention.release(entry.recommendation.id, person="grace")


@pytest.mark.parametrize("until", [Until(for_s=8 * 3600 + 1), Until(for_s=30.0), Until(until_ns=0)])
async def test_end_that_is_over_or_too_far_is_refused(until: Until) -> None:
    """An owner who is asleep is none; nothing was kept."""
    desk = desk_with()
    entry = await desk.opened()
    before = await verbs(desk)
    with pytest.raises(Refused):
        await desk.attention.acknowledge(entry.recommendation.id, person="ada", until=until)
    assert await verbs(desk) == before


async def test_what_is_over_cannot_be_owned_or_put_off() -> None:
    """There is nothing left to do about it."""
    desk = desk_with()
    entry = await desk.opened()
    await desk.reject(entry.recommendation.id, person="ada", reason="known")
    for asked in (
        desk.attention.acknowledge(entry.recommendation.id, person="ada", until=HOUR),
        desk.attention.snooze(entry.recommendation.id, person="ada", until=HOUR),
        desk.attention.ask(entry.recommendation.id, person="ada", text="why?", to=()),
    ):
        with pytest.raises(Refused):
            await asked
    with pytest.raises(NotFound):
        await desk.attention.acknowledge("none", person="ada", until=HOUR)


async def test_clock_that_went_back_gives_everything_back() -> None:
    """Neither an acknowledgement nor a snooze nor a silence outlives a clock that is set back."""
    desk = desk_with()
    first, second = await desk.opened(), await other(desk)
    await desk.attention.acknowledge(first.recommendation.id, person="ada", until=HOUR)
    await desk.attention.snooze(second.recommendation.id, person="ada", until=HOUR)
    slow = ManualClock(wall_ns=START_NS - 7200 * 10**9)
    late = Service(store=desk.store, clock=slow, policy=Policy())  # another process, whose clock is wrong
    for each in await late.queue(None):
        assert each.attention.acknowledged is None
        assert each.attention.snoozed is None


# Snooze --------------------------------------------------------------------------------------------------


async def test_snoozed_entry_is_left_out_and_counted_until_its_time() -> None:
    """The queue says that one is snoozed; when its time comes it is back, and told."""
    desk = desk_with()
    entry = await desk.opened()
    await desk.attention.snooze(entry.recommendation.id, person="ada", until=HOUR)
    queue = shown(await desk.queue(states_of("")), "")
    assert (queue.entries, queue.snoozed) == ((), 1)
    assert len(await part(desk, "snoozed")) == 1
    assert len(await part(desk, "all")) == 1
    await desk.advance(3601)
    assert entry.recommendation.id in {each.recommendation.id for each in await part(desk, "")}
    assert told(desk)[-1] is Event.REOPENED


async def test_snoozed_entry_that_is_approved_is_shown_again() -> None:
    """What is approved has to be carried out: nobody can have put that off."""
    desk = desk_with()
    entry = await desk.opened()
    await desk.attention.snooze(entry.recommendation.id, person="ada", until=HOUR)
    await desk.approve(
        entry.recommendation.id, person="ada", reason="now", digest=entry.recommendation.digest
    )
    assert [each.recommendation.state for each in await part(desk, "")] == [State.APPROVED]
    with pytest.raises(Refused):
        await desk.attention.snooze(entry.recommendation.id, person="ada", until=HOUR)


async def test_tenfold_count_wakes_a_snoozed_entry() -> None:
    """Nine times more is the same; ten times is another thing."""
    desk = desk_with()
    entry = await desk.opened()
    await desk.attention.snooze(entry.recommendation.id, person="ada", until=HOUR)
    await desk.report(case_report(CasePhase.UPDATED, count=9))
    await desk.advance(1)
    assert await part(desk, "") == ()
    await desk.report(case_report(CasePhase.UPDATED, count=10))
    assert len(await part(desk, "")) == 1
    await desk.advance(1)
    assert told(desk)[-1] is Event.REOPENED
    assert "why=it was seen 10 times, after 1" in await detail_of(desk, "incident.reopened")


async def test_snooze_outlives_its_proposals_and_nobody_hears_of_them() -> None:
    """A proposal that expires while it is put off is no news."""
    desk = desk_with()
    entry = await desk.opened()
    await desk.attention.snooze(entry.recommendation.id, person="ada", until=Until(for_s=5 * 3600.0))
    await desk.advance(4 * 3600 + 61)
    assert Event.EXPIRED not in told(desk)
    assert len(await part(desk, "snoozed")) == 1
    await desk.advance(3600)
    assert told(desk)[-1] is Event.REOPENED


async def test_who_acknowledges_what_is_put_off_looks_at_it() -> None:
    """One or the other: an owner wakes it, and who puts it off owns it no longer."""
    desk = desk_with()
    entry = await desk.opened()
    await desk.attention.snooze(entry.recommendation.id, person="ada", until=HOUR)
    owned = await desk.attention.acknowledge(entry.recommendation.id, person="ada", until=HOUR)
    assert owned.attention.snoozed is None
    off = await desk.attention.snooze(entry.recommendation.id, person="ada", until=HOUR)
    assert off.attention.acknowledged is None


async def test_what_cleared_is_owned_and_put_off_no_more() -> None:
    """A fault that comes back later is another one, and nobody's."""
    desk = desk_with()
    entry = await desk.opened()
    await desk.attention.snooze(entry.recommendation.id, person="ada", until=HOUR)
    await desk.cleared()
    await desk.advance(1)
    assert Event.REOPENED not in told(desk)
    assert not desk.store.ledger.records.of(SNOOZES)
    again = await desk.entry(entry.incident.id)
    assert again.attention.snoozed is None


# Ask -----------------------------------------------------------------------------------------------------


async def test_question_marks_the_entry_until_it_is_answered() -> None:
    """The thread grows and never changes; whom it asks is shown until the answer stands there."""
    desk = desk_with()
    entry = await desk.opened()
    asked = await desk.attention.ask(
        entry.recommendation.id, person="ada", text=" Did you stop it? ", to=("grace", "grace")
    )
    assert asked.attention.asked
    assert asked.attention.thread.asked == ("grace",)
    assert [each.text for each in asked.attention.remarks] == ["Did you stop it?"]
    assert len(await part(desk, "asked")) == 1
    assert told(desk)[-1] is Event.ASKED
    answered = await desk.attention.answer(entry.recommendation.id, person="grace", text="No.", question=None)
    assert not answered.attention.asked
    assert [(each.number, each.answers) for each in answered.attention.remarks] == [(1, None), (2, 1)]
    assert (await verbs(desk))[-2:] == ["incident.asked", "incident.answered"]
    assert await detail_of(desk, "incident.answered") == "number=2 answers=1 text=No."


async def test_thread_stays_when_all_is_over_and_lists_do_not_carry_it() -> None:
    """What was said is part of the history of one entry, and not of every list."""
    desk = desk_with()
    entry = await desk.opened()
    await desk.attention.ask(entry.recommendation.id, person="ada", text="why?", to=())
    assert [each.attention.remarks for each in await desk.queue(None)] == [()]
    await desk.cleared()
    await desk.advance(1)
    over = await desk.entry(entry.incident.id)
    assert len(over.attention.remarks) == 1
    answered = await desk.attention.answer(entry.incident.id, person="grace", text="a test", question=1)
    assert len(answered.attention.remarks) == 2


async def test_what_says_nothing_or_too_much_is_refused() -> None:
    """Empty, with a NUL, or longer than a page."""
    desk = desk_with()
    entry = await desk.opened()
    for text in ("  ", "a\0b", "x" * 2001):
        with pytest.raises(Refused):
            await desk.attention.ask(entry.recommendation.id, person="ada", text=text, to=())
    with pytest.raises(Refused):
        await desk.attention.answer(entry.recommendation.id, person="ada", text="yes", question=None)
    with pytest.raises(NotFound):
        await desk.attention.answer(entry.recommendation.id, person="ada", text="yes", question=3)


async def test_thread_is_bounded() -> None:
    """Two hundred remarks, and not one more."""
    desk = FakeDesk()
    entry = await desk.opened()
    for number in range(200):
        await desk.attention.ask(entry.recommendation.id, person="ada", text=f"{number}?", to=())
    with pytest.raises(Refused):
        await desk.attention.ask(entry.recommendation.id, person="ada", text="again?", to=())


# What all of them have in common -------------------------------------------------------------------------


async def test_full_disk_keeps_nothing_and_says_so() -> None:
    """Nobody is told that something is kept which is not."""
    desk = desk_with()
    entry = await desk.opened()
    desk.store.writable = False
    for asked in (
        desk.attention.acknowledge(entry.recommendation.id, person="ada", until=HOUR),
        desk.attention.maintain("spark-1", person="ada", comment="fan", until=HOUR, also=()),
        desk.attention.end("x", person="ada", maintenance=False),
    ):
        with pytest.raises(Unavailable):
            await asked


async def test_nothing_of_all_this_is_kept_when_it_is_refused() -> None:
    """A refusal leaves the log as it was."""
    desk = desk_with()
    entry = await desk.opened()
    before = await verbs(desk)
    for asked in (
        desk.attention.release(entry.recommendation.id, person="ada"),
        desk.attention.maintain("*", person="ada", comment="all of it", until=HOUR, also=()),
        desk.attention.maintain(
            "spark-1", person="ada", comment="no guarded class", until=HOUR, also=(FaultClass.GPU_UVM_LOST,)
        ),
        desk.attention.answer(entry.recommendation.id, person="ada", text="yes", question=None),
    ):
        with pytest.raises(DeskError):
            await asked
    assert await verbs(desk) == before
    assert desk.store.ledger.incident(IncidentId(entry.incident.id)) == entry.incident


@pytest.mark.postgres
async def test_what_one_process_notes_another_one_shows_its_watchers(shared: Database) -> None:
    """Two processes on one database: who watches at the one sees the owner named at the other."""
    stores = [shared.open(), shared.open()]
    clock = ManualClock()
    desks = [Service(store=each, clock=clock, policy=Policy()) for each in stores]
    try:
        await desks[0].receive(delivery_of(1))
        for each in desks:
            await each.tick()
            await each.publish()
        changes = desks[1].changes()
        attention = StoredAttention(
            store=stores[0], clock=clock, settings=AttentionSettings(), touched=desks[0].touch
        )
        (entry,) = await desks[0].queue(None)
        await attention.acknowledge(entry.recommendation.id, person="ada", until=HOUR)
        await desks[1].tick()
        await desks[1].publish()
        seen = await anext(changes)
        assert seen.attention.acknowledged is not None
        assert seen.attention.acknowledged.person == "ada"
    finally:
        for each in stores:
            await each.close()
