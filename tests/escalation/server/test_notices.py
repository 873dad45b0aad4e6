"""What is told: which changes, to whom, once, and in words that nothing can act on."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
import zoneinfo
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, strategies as st

from escalation.model import (
    AgentId,
    CasePhase,
    FaultClass,
    Incident,
    IncidentId,
    Severity,
    State,
    Subject,
    SubjectKind,
)
from escalation.server.notify import notices
from escalation.server.notify.notice_routes import Route, Router
from escalation.server.notify.notices import Event, Happening, Notice, NoticeState
from escalation.server.notify.notifiers.registry import NotifySettings
from escalation.server.storage.notice_ledger import NoticeLedger
from escalation.server.testing import START_NS, FakeDesk, case_report
from escalation.server.testing_notices import MemoryNotices
from tests.escalation.server.databases import Database

URL = "https://desk.example.net"
UTC = zoneinfo.ZoneInfo("UTC")


def routing(*routes: Route, events: frozenset[Event] = frozenset(Event)) -> Router:
    routes = routes or (Route(receivers=("pager",)),)
    names = {name for route in routes for name in route.receivers}
    return Router(routes=routes, events=dict.fromkeys(names, events), zone=UTC)


def told(desk: FakeDesk) -> list[Event]:
    return [each.event for each in desk.store.ledger.notices.kept.values()]


BASE = asyncio.run(FakeDesk().opened()).incident


def incident(**fields: object) -> Incident:
    return replace(BASE, **fields)  # type: ignore[arg-type]


def notice(event: Event = Event.OPENED, *, receiver: str = "pager", **fields: object) -> Notice:
    return notices.of(
        Happening(event, incident(**fields)), receiver=receiver, now_ns=START_NS, due_ns=START_NS
    )


async def test_a_life_is_told_from_its_opening_to_its_clearing() -> None:
    """Opened, approved and cleared are told; what only repeats itself is not."""
    desk = FakeDesk(routing=routing())
    entry = await desk.opened()
    await desk.report(case_report(CasePhase.UPDATED, count=7))
    await desk.approve(
        entry.recommendation.id, person="ada", reason="now", digest=entry.recommendation.digest
    )
    await desk.cleared()
    assert told(desk) == [Event.OPENED, Event.APPROVED, Event.CLEARED]


async def test_what_nobody_decided_or_did_in_time_is_told() -> None:
    """Expired after four hours; lapsed one hour after an approval."""
    desk = FakeDesk(routing=routing())
    await desk.opened()
    await desk.advance(4 * 3600 + 61)
    assert Event.EXPIRED in told(desk)
    other = FakeDesk(routing=routing())
    entry = await other.opened()
    await other.approve(
        entry.recommendation.id, person="ada", reason="now", digest=entry.recommendation.digest
    )
    await other.advance(3600 + 61)
    assert Event.LAPSED in told(other)


async def test_a_remedy_that_did_not_help_is_told() -> None:
    """The fault is still there when its verification is over."""
    desk = FakeDesk(routing=routing())
    entry = await desk.opened()
    await desk.approve(
        entry.recommendation.id, person="ada", reason="now", digest=entry.recommendation.digest
    )
    await desk.done(entry.recommendation.id, person="ada")
    await desk.advance(entry.recommendation.advice.verification.within_s + 61)
    assert Event.NOT_CURED in told(desk)


async def test_a_silent_host_is_told_as_that() -> None:
    """And when it is heard again, that it is over."""
    desk = FakeDesk(routing=routing())
    await desk.report(case_report(severity=Severity.NOTE))
    await desk.advance(1000)
    await desk.advance(1000)
    assert told(desk).count(Event.HOST_SILENT) == 1
    await desk.report(case_report(CasePhase.UPDATED, severity=Severity.NOTE))
    assert Event.CLEARED in told(desk)


async def test_what_was_undone_is_not_told() -> None:
    """The notice is in the transaction of its change: neither is kept without the other."""
    desk = FakeDesk(routing=routing())
    desk.store.writable = False
    with pytest.raises(Exception, match="full"):
        await desk.report(case_report())
    assert told(desk) == []


async def test_an_end_is_told_to_those_who_heard_the_beginning() -> None:
    """Also when it ends below the severity of their route; and to nobody else."""
    desk = FakeDesk(routing=routing(Route(receivers=("pager",), severity=Severity.CRITICAL)))
    await desk.opened()
    await desk.cleared(severity=Severity.NOTE)
    unit = Subject(SubjectKind.UNIT, "vllm.service")
    await desk.opened(case_id="case-2", severity=Severity.NOTE, subject=unit)
    await desk.cleared(case_id="case-2", severity=Severity.NOTE, subject=unit)
    assert told(desk) == [Event.OPENED, Event.CLEARED]


def test_getting_worse_is_told_once_for_each_severity() -> None:
    """Better, or the same, is not told."""
    before = incident(severity=Severity.MEDIUM)
    after = replace(before, severity=Severity.CRITICAL)
    assert notices.of_incident(before, after) == Happening(Event.WORSENED, after, Severity.CRITICAL)
    assert notices.of_incident(after, before) is None
    assert notices.of_incident(after, after) is None


def test_what_turns_out_to_be_no_drill_is_told_anew() -> None:
    """Those who are not told of drills hear of it now; the others hear that it is real."""
    drill, real = incident(drill=True), incident()
    assert notices.of_incident(drill, real) == Happening(Event.OPENED, real, "no drill")
    first = notices.of(Happening(Event.OPENED, drill), receiver="pager", now_ns=1, due_ns=1)
    again = notices.of(Happening(Event.OPENED, real, "no drill"), receiver="pager", now_ns=1, due_ns=1)
    assert first.id != again.id


def test_a_consequence_is_told_when_it_comes_to_stand_alone() -> None:
    """While something else explains it, that is told."""
    alone = incident()
    explained = replace(alone, explained_by=IncidentId("cause"))
    assert notices.of_incident(None, explained) is None
    assert notices.of_incident(alone, explained) is None
    assert notices.of_incident(explained, alone) == Happening(Event.OPENED, alone)


def test_states_that_ask_nothing_of_anybody_are_not_told() -> None:
    """Proposed comes with its incident; a verified cure comes with the clearing."""
    desk = FakeDesk()
    recommendation = asyncio.run(desk.opened()).recommendation
    events = {
        state: notices.of_recommendation(
            replace(recommendation, state=State.WITHDRAWN if state is State.PROPOSED else State.PROPOSED),
            replace(recommendation, state=state),
        )
        for state in State
    }
    assert {state: event for state, event in events.items() if event is not None} == {
        State.APPROVED: Event.APPROVED,
        State.EXPIRED: Event.EXPIRED,
        State.LAPSED: Event.LAPSED,
        State.NOT_CURED: Event.NOT_CURED,
    }


@pytest.mark.parametrize("quiet", ["22-7", "25:00-07:00", "22:00", "22:00-07:00 "])
def test_quiet_hours_that_are_none_are_refused(quiet: str) -> None:
    """With what they should look like."""
    with pytest.raises(ValueError, match="22:00-07:00"):
        Route(receivers=("pager",), quiet=quiet)


@pytest.mark.parametrize(
    ("at", "due"),
    [
        ("2026-01-01T21:59:59", "2026-01-01T21:59:59"),
        ("2026-01-01T22:00:00", "2026-01-02T07:00:00"),
        ("2026-01-02T06:59:00", "2026-01-02T07:00:00"),
        ("2026-01-02T07:00:00", "2026-01-02T07:00:00"),
    ],
)
def test_a_quiet_route_waits_for_the_morning(at: str, due: str) -> None:
    """Hours may pass midnight, and are told in the zone of the settings."""
    zone = zoneinfo.ZoneInfo("Europe/Berlin")
    now_ns, due_ns = (
        int(dt.datetime.fromisoformat(each).replace(tzinfo=zone).timestamp()) * 10**9 for each in (at, due)
    )
    assert Route(receivers=("pager",), quiet="22:00-07:00").due_ns(now_ns, zone) == due_ns


def test_routes_go_by_severity_class_and_host() -> None:
    """Each route that fits adds its receivers; what fits none is told to nobody."""
    router = routing(
        Route(receivers=("gpu",), fault_class="gpu.*", severity=Severity.MEDIUM),
        Route(receivers=("spark", "gpu"), host="spark-*"),
        Route(receivers=("real",), drills=False),
    )
    drill = Happening(Event.OPENED, incident(drill=True))
    assert [name for name, _ in router.receivers(drill, now_ns=START_NS)] == ["gpu", "spark"]
    other = Happening(
        Event.OPENED, incident(agent_id=AgentId("forge"), fault_class=FaultClass.PROCESS_KILLED_BY_SIGNAL)
    )
    assert [name for name, _ in router.receivers(other, now_ns=START_NS)] == ["real"]
    note = Happening(Event.OPENED, incident(severity=Severity.NOTE))
    assert router.receivers(note, now_ns=START_NS) == []


@given(st.text(), st.text(), st.sampled_from(Event), st.booleans())
def test_no_text_from_outside_can_act(host: str, name: str, event: Event, drill: bool) -> None:
    """Line breaks, escapes, bidirectional controls, markup: none of it is in what goes out."""
    hostile = replace(
        BASE,
        agent_id=AgentId(host),
        id=IncidentId(name),
        subject=Subject(SubjectKind.PROCESS, name),
        drill=drill,
    )
    made = notices.of(Happening(event, hostile), receiver="pager", now_ns=START_NS, due_ns=START_NS)
    message = notices.message(made, url=URL, more=3)
    for text in (message.title, message.host, message.headline, message.incident_id):
        assert re.fullmatch(r"[A-Za-z0-9 .,:;%/'()+?-]*", text)
    assert re.fullmatch(rf"{URL}/[A-Za-z0-9/%._~-]*", message.url)
    assert message.text.count("\n") == 1
    if drill and event is not Event.TEST:
        assert "DRILL" in message.title


def test_a_message_holds_a_link_and_no_evidence() -> None:
    """Neither the subject's name, nor a reason, nor a command is in it."""
    made = notices.message(notice(), url=f"{URL}/")
    assert made.title == ("CRITICAL on spark-1: GPU access was taken away from something that had it (new)")
    assert made.url == f"{URL}/q/{BASE.id}"
    assert BASE.subject.name not in msgspec.json.encode(made).decode()


Inside = Callable[[Callable[[NoticeLedger], None]], Awaitable[None]]


@pytest.fixture
async def inside(database: Database) -> AsyncIterator[Inside]:
    """Run something on an outbox in memory, then on one in a transaction of a real database."""
    store = database.open()

    async def run(work: Callable[[NoticeLedger], None]) -> None:
        work(MemoryNotices())
        await store.write(lambda ledger: work(ledger.notices))

    yield run
    await store.close()


async def test_the_same_is_kept_once(inside: Inside) -> None:
    """Whatever has become of it, it is not told again; another receiver is told too."""

    def work(outbox: NoticeLedger) -> None:
        assert outbox.add(notice())
        outbox.settle(notice(), NoticeState.SENT)
        assert not outbox.add(notice())
        assert outbox.due("pager", now_ns=START_NS, limit=9) == []
        assert outbox.add(notice(receiver="mail"))
        assert outbox.counts() == {("pager", NoticeState.SENT): 1, ("mail", NoticeState.WAITING): 1}

    await inside(work)


async def test_what_is_due_comes_in_order_and_not_before_its_time(inside: Inside) -> None:
    """Oldest first, for one receiver, at most as many as are asked for."""

    def work(outbox: NoticeLedger) -> None:
        ids = [IncidentId(f"i{number}") for number in range(4)]
        for each in ids:
            outbox.add(notice(id=each))
        late = replace(notice(id=IncidentId("late")), due_ns=START_NS + 5)
        outbox.add(late)
        found = outbox.due("pager", now_ns=START_NS, limit=3)
        assert [each.incident_id for each in found] == ids[:3]
        assert late in outbox.due("pager", now_ns=START_NS + 5, limit=9)

    await inside(work)


async def test_what_stands_is_known_until_its_end_was_told(inside: Inside) -> None:
    """The newest word on each incident that was told as open, and not yet as over."""

    def work(outbox: NoticeLedger) -> None:
        opened, worse, over = notice(), notice(Event.WORSENED), notice(Event.CLEARED)
        for each in (opened, worse, over):
            outbox.add(each)
        assert outbox.standing("pager", limit=9) == []
        for each in (opened, worse):
            outbox.settle(each, NoticeState.SENT)
        assert [each.event for each in outbox.standing("pager", limit=9)] == [Event.WORSENED]
        assert outbox.standing("mail", limit=9) == []
        outbox.settle(over, NoticeState.SENT)
        assert outbox.standing("pager", limit=9) == []

    await inside(work)


async def test_what_is_old_is_forgotten(inside: Inside) -> None:
    """In portions, the oldest first."""

    def work(outbox: NoticeLedger) -> None:
        for number in range(3):
            outbox.add(notice(id=IncidentId(f"i{number}")))
        assert outbox.forget(created_before_ns=START_NS, limit=9) == 0
        assert outbox.forget(created_before_ns=START_NS + 1, limit=2) == 2
        assert [each.incident_id for each in outbox.due("pager", now_ns=START_NS, limit=9)] == ["i2"]
        assert len(outbox.of(IncidentId("i2"))) == 1

    await inside(work)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"route": [{"receivers": ["pager"]}]}, "no receiver pager"),
        ({"alertmanager": [{"name": "a", "url": "http://10.0.0.1:9093"}], "url": URL}, "https"),
        ({"alertmanager": [{"name": "a", "url": "https://ada:secret@am:9093"}], "url": URL}, "password"),
        ({"alertmanager": [{"name": "a", "url": "http://127.0.0.1:9093"}]}, "https://host"),
        ({"alertmanager": [{"name": "a", "url": "http://[::1]:9093"}] * 2, "url": URL}, "twice"),
        ({"zone": "Mars/Olympus"}, "Europe/Berlin"),
        ({"zone": "../../etc/passwd"}, "Europe/Berlin"),
        ({"webhok": []}, "webhok"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, object], complaint: str) -> None:
    """Before anything starts, with what is wrong."""
    with pytest.raises(msgspec.ValidationError, match=complaint):
        msgspec.convert(settings, NotifySettings)


def _sent(desk: FakeDesk) -> None:
    """Let the pager take what is due."""
    for each in desk.store.ledger.notices.due("pager", now_ns=desk.clock.wall_ns(), limit=100):
        desk.store.ledger.notices.settle(each, NoticeState.SENT)


def _sent_to_pager(desk: FakeDesk) -> list[Event]:
    return [each.event for each in desk.store.ledger.notices.kept.values() if each.state is NoticeState.SENT]


async def test_what_comes_and_goes_is_told_four_times_however_often() -> None:
    """New, cleared, back; and cleared once more when it has stayed away for a quarter of an hour."""
    desk = FakeDesk(routing=routing())
    for number in range(40):
        await desk.report(case_report(case_id=f"case-{number}"))
        _sent(desk)
        await desk.cleared(case_id=f"case-{number}")
        _sent(desk)
        desk.clock.advance(30)
    assert _sent_to_pager(desk) == [Event.OPENED, Event.CLEARED, Event.RETURNED]
    assert [each.event for each in desk.store.ledger.notices.standing("pager", limit=9)] == [Event.RETURNED]
    desk.clock.advance(900)
    _sent(desk)
    assert _sent_to_pager(desk) == [Event.OPENED, Event.CLEARED, Event.RETURNED, Event.CLEARED]
    assert desk.store.ledger.notices.standing("pager", limit=9) == []
    assert [(each.returns, each.open) for each in await desk.incidents()] == [(39, False)]


async def test_end_that_was_not_told_yet_is_taken_back_when_it_was_none() -> None:
    """Who has not heard that it was over does not hear that it is back."""
    desk = FakeDesk(routing=routing())
    await desk.opened()
    _sent(desk)
    await desk.cleared()
    await desk.report(case_report(case_id="case-2"))
    _sent(desk)
    assert _sent_to_pager(desk) == [Event.OPENED]


async def test_what_came_back_stands_open_for_who_repeats_it(database: Database) -> None:
    """A receiver that is told again what stands hears of it until the newest word on it is its end."""
    _stands_open(MemoryNotices())
    store = database.open()
    try:
        await store.write(lambda ledger: _stands_open(ledger.notices))
    finally:
        await store.close()


def _stands_open(outbox: NoticeLedger) -> None:
    for number, event in enumerate((Event.OPENED, Event.CLEARED, Event.RETURNED, Event.CLEARED)):
        told_now = notices.of(
            Happening(event, BASE, str(number)), receiver="pager", now_ns=START_NS, due_ns=START_NS
        )
        outbox.add(told_now)
        outbox.settle(told_now, NoticeState.SENT)
        standing = [each.event for each in outbox.standing("pager", limit=9)]
        assert standing == ([] if event is Event.CLEARED else [event])
