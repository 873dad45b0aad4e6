"""Silences and maintenance over the real service: who is told of what they cover, and when again."""

from __future__ import annotations

import pytest

from escalation.model import FaultClass, Severity
from escalation.server.attention import quiet
from escalation.server.attention.attention_desk import Until
from escalation.server.attention.maintenance import AUTHOR, Window
from escalation.server.attention.shelves import shown, states_of
from escalation.server.attention.silences import Phase, parse
from escalation.server.desk import Expired, NotFound, Refused
from escalation.server.incident.timeline import MomentKind
from escalation.server.notify.notices import Event, NoticeState
from escalation.server.testing import FakeDesk, case_report
from tests.escalation.server.attended import (
    HOUR,
    desk_with,
    detail_of,
    moments,
    other,
    part,
    told,
    told_of_faults,
    verbs,
)

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
