"""Owning, putting off, asking about and silencing entries, over the real service."""

from __future__ import annotations

import zoneinfo
from collections.abc import Sequence

import pytest

from escalation.model import (
    AgentId,
    BootId,
    CasePhase,
    FaultClass,
    IncidentId,
    Report,
    Severity,
    State,
    Subject,
    SubjectKind,
)
from escalation.server import audit
from escalation.server.attention import quiet
from escalation.server.attention.attention_desk import StoredAttention, Until
from escalation.server.attention.maintenance import AUTHOR, Window
from escalation.server.attention.shelves import shown, states_of
from escalation.server.attention.silences import Phase, parse
from escalation.server.attention.values import SNOOZES, AttentionSettings
from escalation.server.decision.approvals import Policy
from escalation.server.desk import DeskError, Entry, Expired, NotFound, Refused, Unavailable
from escalation.server.incident import timeline
from escalation.server.incident.timeline import MomentKind
from escalation.server.notify.notice_routes import Route, Router
from escalation.server.notify.notices import Event, NoticeState
from escalation.server.service import Service
from escalation.server.storage.store import Delivery
from escalation.server.testing import START_NS, FakeDesk, ManualClock, case_report
from tests.escalation.server.databases import Database

HOUR = Until(for_s=3600.0)
ROUTING = Router(
    routes=[Route(receivers=("pager",), severity=Severity.NOTE)],
    events={"pager": frozenset(Event)},
    zone=zoneinfo.ZoneInfo("UTC"),
)


def desk_with(*windows: Window) -> FakeDesk:
    return FakeDesk(routing=ROUTING, windows=windows)


def told(desk: FakeDesk) -> list[Event]:
    return [each.event for each in desk.store.ledger.notices.kept.values()]


def told_of_faults(desk: FakeDesk) -> list[Event]:
    return [each for each in told(desk) if each is not Event.HOST_SILENT]


async def verbs(desk: FakeDesk) -> list[str]:
    chain = await desk.audit(after=0, limit=1000)
    assert audit.verify(chain) is None
    return [each.verb for each in chain]


async def detail_of(desk: FakeDesk, verb: str) -> str:
    return next(each.detail for each in await desk.audit(after=0, limit=1000) if each.verb == verb)


def moments(desk: FakeDesk, entry: Entry) -> list[MomentKind]:
    return [each.kind for each in timeline.of(desk.store.ledger, entry.incident.id)]


async def part(desk: FakeDesk, name: str) -> Sequence[Entry]:
    return shown(await desk.queue(states_of(name)), name).entries


async def other(desk: FakeDesk, number: int = 2, severity: Severity = Severity.CRITICAL) -> Entry:
    return await desk.opened(
        case_id=f"case-{number}",
        fault_class=FaultClass.UNIT_RESTART_LOOP,
        subject=Subject(SubjectKind.UNIT, f"u{number}.service"),
        severity=severity,
    )


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


# Silences ------------------------------------------------------------------------------------------------


async def silenced(desk: FakeDesk, *matchers: str, until: Until = HOUR) -> str:
    begun = await desk.attention.silence(
        [parse(each) for each in matchers], person="ada", comment="a fan", starts_ns=None, until=until
    )
    return begun.id


async def test_silenced_incident_is_kept_shown_apart_and_told_to_nobody() -> None:
    """It is in the books and on its shelf, counted in the queue and by the silence."""
    desk = desk_with()
    await silenced(desk, "host=spark-1")
    entry = await desk.opened()
    await desk.advance(1)
    queue = shown(await desk.queue(states_of("")), "")
    assert (queue.entries, queue.silenced) == ((), 1)
    assert len(await part(desk, "silenced")) == 1
    assert len(await desk.incidents()) == 1
    assert told(desk) == []
    (silence,) = await desk.attention.silences()
    assert (silence.incidents, silence.notices) == (1, 1)
    assert MomentKind.SILENCED in moments(desk, entry)


async def test_silence_that_ends_tells_what_is_still_there() -> None:
    """Not what cleared meanwhile, and not what was told before it began."""
    desk = desk_with()
    known = await other(desk, 1)
    await silenced(desk, "host=spark-1")
    await other(desk, 2)
    gone = await other(desk, 3)
    await desk.cleared(
        case_id="case-3", fault_class=FaultClass.UNIT_RESTART_LOOP, subject=gone.incident.subject
    )
    assert told(desk) == [Event.OPENED]
    await desk.advance(3601)
    await desk.advance(1)
    assert told_of_faults(desk) == [Event.OPENED, Event.OPENED]
    (over,) = await desk.attention.silences()
    assert over.phase(desk.clock.wall_ns()) is Phase.OVER
    assert over.incidents == 3
    assert (await verbs(desk))[-1] == "silence.expired"
    assert moments(desk, known)[-1] is MomentKind.UNSILENCED
    assert await part(desk, "silenced") == ()


async def test_silence_ended_early_says_by_whom_and_stays_visible() -> None:
    """Over is over: it cannot be ended twice, and nobody forgets that it was there."""
    desk = desk_with()
    silence_id = await silenced(desk, "host=spark-1")
    await desk.opened()
    done = await desk.attention.end(silence_id, person="grace", maintenance=False)
    assert done.ended_by == "grace"
    assert told(desk) == [Event.OPENED]
    assert [each.id for each in await desk.attention.silences()] == [silence_id]
    with pytest.raises(Expired):
        await desk.attention.end(silence_id, person="grace", maintenance=False)
    for wrong in (("none", False), (silence_id, True)):
        with pytest.raises(NotFound):
            await desk.attention.end(wrong[0], person="grace", maintenance=wrong[1])


async def test_two_silences_have_to_end_both() -> None:
    """What the second still covers is not told when the first ends."""
    desk = desk_with()
    first = await silenced(desk, "host=spark-1")
    second = await silenced(desk, "severity=critical")
    await desk.opened()
    await desk.attention.end(first, person="ada", maintenance=False)
    assert told(desk) == []
    await desk.attention.end(second, person="ada", maintenance=False)
    assert told(desk) == [Event.OPENED]


async def test_silence_that_begins_later_covers_from_then_on() -> None:
    """Until it begins it is pending, and everything is told."""
    desk = desk_with()
    begins_ns = desk.clock.wall_ns() + 1800 * 10**9
    await desk.attention.silence(
        [parse("host=spark-1")], person="ada", comment="later", starts_ns=begins_ns, until=HOUR
    )
    (pending,) = await desk.attention.silences()
    assert pending.phase(desk.clock.wall_ns()) is Phase.PENDING
    await desk.opened()
    assert told(desk) == [Event.OPENED]
    await desk.advance(1801)
    assert len(await part(desk, "silenced")) == 1


async def test_blind_monitor_and_exposure_are_told_in_spite_of_a_silence_of_the_host() -> None:
    """A host that falls silent is told although the host is silenced."""
    desk = desk_with()
    await desk.report(case_report(severity=Severity.NOTE))
    await silenced(desk, "host=spark-1", until=Until(for_s=7200.0))
    await desk.advance(1000)
    await desk.advance(1000)
    assert Event.HOST_SILENT in told(desk)


async def test_people_are_told_what_people_do_in_spite_of_a_silence() -> None:
    """A question of a person is no noise."""
    desk = desk_with()
    await silenced(desk, "host=spark-1")
    entry = await desk.opened()
    await desk.attention.ask(entry.recommendation.id, person="ada", text="why?", to=())
    assert told(desk) == [Event.ASKED]


async def test_preview_says_what_would_be_covered_and_changes_nothing() -> None:
    """Before somebody silences, they see what."""
    desk = desk_with()
    entry = await desk.opened()
    await other(desk, severity=Severity.NOTE)
    before = await verbs(desk)
    found = await desk.attention.preview([parse("severity=critical")])
    assert [each.id for each in found.incidents] == [entry.incident.id]
    assert await desk.attention.silences() == ()
    assert await verbs(desk) == before
    with pytest.raises(Refused):
        await desk.attention.preview([parse("host~*")])


async def test_silence_without_a_reason_or_beyond_thirty_days_is_refused() -> None:
    """A silence that nobody can explain or remember is worse than the noise."""
    desk = desk_with()
    host = [parse("host=spark-1")]
    far = desk.clock.wall_ns() + 31 * 86_400 * 10**9
    for comment, starts_ns, until in (
        (" ", None, HOUR),
        ("a\0b", None, HOUR),
        ("a fan", None, Until(for_s=31 * 86_400.0)),
        ("a fan", None, Until()),
        ("a fan", far, HOUR),
    ):
        with pytest.raises(Refused):
            await desk.attention.silence(
                host, person="ada", comment=comment, starts_ns=starts_ns, until=until
            )
    assert await desk.attention.silences() == ()


async def test_silences_are_bounded() -> None:
    """Two hundred stand at once; who needs more has another problem."""
    desk = FakeDesk()
    for number in range(200):
        await silenced(desk, f"host=h{number}")
    with pytest.raises(Refused):
        await silenced(desk, "host=one-more")


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


# Maintenance ---------------------------------------------------------------------------------------------


async def test_maintenance_by_hand_quiets_a_host_and_an_approval_in_it_says_so() -> None:
    """The approval stands, with the window in its record."""
    desk = desk_with()
    entry = await desk.opened()
    begun = await desk.attention.maintain("spark-*", person="ada", comment="a new fan", until=HOUR, also=())
    seen = await desk.entry(entry.incident.id)
    assert seen.attention.in_maintenance
    approved = await desk.approve(
        entry.recommendation.id, person="grace", reason="now", digest=entry.recommendation.digest
    )
    assert approved.attention.in_maintenance
    said = await detail_of(desk, "recommendation.approved_in_maintenance")
    assert said.startswith(f"maintenance={begun.id} until=")
    await desk.attention.end(begun.id, person="ada", maintenance=True)
    assert (await verbs(desk))[-1] == "maintenance.ended"


async def test_approval_outside_of_any_window_says_nothing_of_one() -> None:
    """A silence is no maintenance."""
    desk = desk_with()
    await silenced(desk, "host=spark-1")
    entry = await desk.opened()
    await desk.approve(
        entry.recommendation.id, person="grace", reason="now", digest=entry.recommendation.digest
    )
    assert "recommendation.approved_in_maintenance" not in await verbs(desk)


async def test_maintenance_names_the_guarded_classes_that_belong_to_it() -> None:
    """A host that restarts is blind for a while, and who says so is not told."""
    desk = desk_with()
    await desk.report(case_report(severity=Severity.NOTE))
    await desk.attention.maintain(
        "spark-1", person="ada", comment="reboot", until=Until(for_s=7200.0), also=(FaultClass.MONITOR_BLIND,)
    )
    await desk.advance(1000)
    await desk.advance(1000)
    assert Event.HOST_SILENT not in told(desk)


DAILY = Window(host="spark-1", comment="backup", weekly="mon,tue,wed,thu,fri,sat,sun 00:30-01:00")


async def test_declared_window_opens_and_closes_by_itself() -> None:
    """It is pending the day before, covers in its time, and is over after it; the next day's stands then."""
    desk = desk_with(DAILY)
    await desk.advance(1)
    (pending,) = await desk.attention.silences()
    assert (pending.author, pending.phase(desk.clock.wall_ns())) == (AUTHOR, Phase.PENDING)
    await desk.advance(1800)
    await desk.opened()
    assert told(desk) == []
    assert (await desk.queue(None))[0].attention.in_maintenance
    await desk.advance(1800)
    assert told_of_faults(desk) == [Event.OPENED]
    phases = [each.phase(desk.clock.wall_ns()) for each in await desk.attention.silences()]
    assert phases == [Phase.PENDING, Phase.OVER]


async def test_declared_window_that_a_person_ended_does_not_come_again_the_same_night() -> None:
    """The settings do not overrule who is there."""
    desk = desk_with(DAILY)
    await desk.advance(1801)
    (open_now,) = await desk.attention.silences()
    await desk.attention.end(open_now.id, person="ada", maintenance=True)
    for _ in range(3):
        await desk.advance(60)
    standing = [
        each for each in await desk.attention.silences() if each.phase(desk.clock.wall_ns()) is Phase.ACTIVE
    ]
    assert standing == []
    assert (await verbs(desk)).count("maintenance.began") == 1
    await desk.advance(1800)
    assert len(await desk.attention.silences()) == 2


async def test_window_that_is_declared_no_longer_ends() -> None:
    """Who takes it out of the settings and starts anew has ended it."""
    desk = desk_with(DAILY)
    await desk.advance(1801)
    desk.service._windows = ()
    await desk.advance(1)
    (over,) = await desk.attention.silences()
    assert over.ended_by == AUTHOR


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


async def test_who_is_told_again_what_stands_is_not_while_it_is_silenced() -> None:
    """An alert that is sent anew each minute is left to end by itself, and is there again afterwards."""
    desk = desk_with()
    await desk.opened()
    outbox = desk.store.ledger.notices
    for each in outbox.due("pager", now_ns=desk.clock.wall_ns(), limit=10):
        outbox.settle(each, NoticeState.SENT)
    standing = outbox.standing("pager", limit=10)
    now_ns = desk.clock.wall_ns()
    assert quiet.audible(desk.store.ledger, standing, now_ns=now_ns) == list(standing) != []
    silence_id = await silenced(desk, "host=spark-1")
    assert quiet.audible(desk.store.ledger, standing, now_ns=now_ns) == []
    await desk.attention.end(silence_id, person="ada", maintenance=False)
    assert quiet.audible(desk.store.ledger, standing, now_ns=now_ns) == list(standing)


@pytest.mark.postgres
async def test_what_one_process_notes_another_one_shows_its_watchers(shared: Database) -> None:
    """Two processes on one database: who watches at the one sees the owner named at the other."""
    stores = [shared.open(), shared.open()]
    clock = ManualClock()
    desks = [Service(store=each, clock=clock, policy=Policy()) for each in stores]
    try:
        report = Report(
            agent_id=AgentId("spark-1"),
            boot_id=BootId("boot-1"),
            sequence=1,
            created_ns=START_NS,
            body=case_report(),
        )
        row = (1, START_NS, b"")
        await desks[0].receive(Delivery(report.agent_id, report.boot_id, (row,), (report,)))
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
