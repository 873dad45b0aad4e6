"""Taking notices to their receivers: at least once, not too often, and not for ever."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from escalation.model import IncidentId, Severity
from escalation.server.decision.approvals import Policy
from escalation.server.desk import NotFound, Refused
from escalation.server.metrics import ServerMetrics
from escalation.server.notify.notice_routes import Route
from escalation.server.notify.notices import Event, NoticeState
from escalation.server.notify.notifier import Notifier, parcels_of
from escalation.server.notify.notifiers.receiver import Receiver, Rejected, Unreachable
from escalation.server.notify.notifiers.registry import NotifySettings
from escalation.server.service import Service
from escalation.server.testing import FakeDesk, ManualClock, case_report
from escalation.wire import codec
from tests.escalation.server.databases import Database
from tests.escalation.server.deliveries import delivery_of
from tests.escalation.server.notifiers.told import Listening, Mailbox, listening
from tests.escalation.server.own_process import serving
from tests.escalation.server.site import Site, escalate, wired
from tests.escalation.server.test_notices import notice, routing

SETTINGS = NotifySettings(url="https://desk.example.net", per_minute=3)


class Post:
    """A desk whose notices are delivered to receivers in memory; waiting moves the clock."""

    def __init__(self, *receivers: Receiver, settings: NotifySettings = SETTINGS) -> None:
        self.desk = FakeDesk(routing=routing())
        self.metrics = ServerMetrics()
        self.slept: list[float] = []
        self.notifier = Notifier(
            store=self.desk.store,
            clock=self.desk.clock,
            settings=settings,
            receivers=receivers,
            metrics=self.metrics,
            routing=routing(),
            sleep=self.sleep,
        )

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.desk.clock.advance(seconds)

    def counted(self, outcome: str) -> float | None:
        return self.metrics.registry.get_sample_value(
            "nanobot_orchestrator_notifications_total", {"receiver": "pager", "outcome": outcome}
        )

    def states(self) -> set[NoticeState]:
        return {each.state for each in self.desk.store.ledger.notices.kept.values()}


async def test_what_is_due_is_sent_once() -> None:
    """Delivered, marked, counted; a second pass has nothing to do."""
    box = Mailbox()
    post = Post(box)
    await post.desk.opened()
    assert await post.notifier.deliver("pager") == 1
    assert await post.notifier.deliver("pager") == 0
    assert [each.event for each in box.sent] == [Event.OPENED]
    assert post.states() == {NoticeState.SENT}
    assert (post.counted("sent"), post.counted("failed")) == (1, 0)


async def test_a_receiver_that_fails_is_asked_again_later_and_later() -> None:
    """The pauses grow, with jitter; a defect of the receiver counts as a failure like any other."""
    box = Mailbox(failures=[Unreachable("it answers 503"), KeyError("token=secret"), Unreachable("again")])
    post = Post(box)
    await post.desk.opened()
    await post.notifier.deliver("pager")
    assert len(box.sent) == 1
    assert len(post.slept) == 3
    assert post.slept[0] >= 1
    assert post.slept[2] >= 4
    assert (post.counted("sent"), post.counted("failed")) == (1, 3)


async def test_it_is_given_up_after_the_declared_time() -> None:
    """Not before; and the audit log says so, with the reason and without the answer's text."""
    box = Mailbox(failures=[Unreachable("it answers 503")] * 10_000)
    post = Post(box)
    await post.desk.opened()
    began_ns = post.desk.clock.wall_ns()
    await post.notifier.deliver("pager")
    waited_s = (post.desk.clock.wall_ns() - began_ns) / 1e9
    assert 86_400 <= waited_s <= 86_400 + 302
    assert post.states() == {NoticeState.GIVEN_UP}
    assert box.sent == []
    entry = (await post.desk.audit(after=0, limit=100))[-1]
    assert (entry.verb, entry.object_id) == ("notice.given_up", "pager")
    assert entry.detail.endswith(": it answers 503")
    assert post.counted("given_up") == 1
    (status,) = await post.notifier.receivers()
    assert (status.error, status.given_up, status.waiting) == ("it answers 503", 1, 0)


async def test_what_a_receiver_rejects_is_not_sent_again() -> None:
    """It is given up at once; of several that went together, only the one that is the reason."""
    box = Mailbox(failures=[Rejected("it answers 400")])
    post = Post(box)
    await post.desk.opened()
    await post.notifier.deliver("pager")
    assert (post.slept, post.states()) == ([], {NoticeState.GIVEN_UP})
    together = Mailbox(batch=8, failures=[Rejected("it answers 400"), Rejected("it answers 400")])
    other = Post(together)
    await other.desk.opened()
    await other.desk.opened(case_id="case-2", subject=case_report().subject, drill=True)
    await other.notifier.deliver("pager")
    assert len(together.sent) == 1
    assert other.states() == {NoticeState.GIVEN_UP, NoticeState.SENT}


def test_the_worst_go_alone_and_the_rest_is_counted() -> None:
    """As many messages as the rate allows; the last says how many more there are."""
    due = [notice(id=IncidentId(f"i{number}"), severity=Severity.MEDIUM) for number in range(9)]
    due.append(notice(id=IncidentId("worst"), severity=Severity.CRITICAL))
    first, second, last = parcels_of(due, allowance=3, batch=1)
    assert first.told[0].incident_id == "worst"
    assert (len(second.told), len(second.folded)) == (1, 0)
    assert (len(last.told), len(last.folded)) == (1, 7)
    assert parcels_of(due, allowance=0, batch=1) == []
    assert [len(each.told) for each in parcels_of(due, allowance=9, batch=4)] == [4, 4, 2]
    assert len(parcels_of(due, allowance=2, batch=4)) == 2


async def test_what_another_told_meanwhile_is_not_told_again() -> None:
    """Between two attempts minutes pass: what was settled by then, here or elsewhere, is left alone."""
    box = Mailbox(batch=8, failures=[Unreachable("it answers 503")])
    post = Post(box)
    await post.desk.opened()
    await post.desk.opened(case_id="case-2", subject=case_report().subject, drill=True)

    async def told_elsewhere(_seconds: float) -> None:
        ledger = post.desk.store.ledger
        ledger.notices.settle(next(iter(ledger.notices.kept.values())), NoticeState.SENT)

    post.notifier._sleep = told_elsewhere
    await post.notifier.deliver("pager")
    assert [each.drill for each in box.sent] == [True]
    assert post.states() == {NoticeState.SENT}


async def test_who_does_not_lead_any_more_tells_nothing() -> None:
    """A receiver fails, and meanwhile another process takes the lead: it is told there."""
    box = Mailbox(failures=[Unreachable("it answers 503")])
    post = Post(box)
    await post.desk.opened()

    async def another_leads(_seconds: float) -> None:
        post.desk.store.leading = False

    post.notifier._sleep = another_leads
    await post.notifier.deliver("pager")
    assert (box.sent, post.states()) == ([], {NoticeState.WAITING})
    post.desk.store.leading = True
    await post.notifier.deliver("pager")
    assert len(box.sent) == 1


async def test_a_storm_is_three_messages_a_minute() -> None:
    """Nothing is lost of it: each notice was sent, or counted in one that was."""
    box = Mailbox()
    post = Post(box)
    for number in range(40):
        await post.desk.opened(host=f"spark-{number}", case_id=f"case-{number}")
    assert await post.notifier.deliver("pager") == 3
    assert [each.more for each in box.sent] == [0, 0, 37]
    assert box.sent[2].title.endswith(", and 37 more")
    assert post.counted("folded") == 37
    await post.desk.opened(host="late")
    assert await post.notifier.deliver("pager") == 0
    post.desk.clock.advance(20)
    assert await post.notifier.deliver("pager") == 1


async def test_what_waits_for_a_decision_is_told_again_each_hour() -> None:
    """Once an hour and not more, until somebody decides."""
    box = Mailbox()
    post = Post(box)
    entry = await post.desk.opened()
    for _ in range(3):
        await post.notifier.keep()
    await post.desk.advance(3601)
    for _ in range(3):
        await post.notifier.keep()
    assert reminders(post) == [entry.incident.id]
    await post.desk.reject(entry.recommendation.id, person="ada", reason="planned")
    await post.desk.advance(3601)
    await post.notifier.keep()
    assert reminders(post).count(entry.incident.id) == 1


def reminders(post: Post) -> list[IncidentId]:
    kept = post.desk.store.ledger.notices.kept.values()
    return [each.incident_id for each in kept if each.event is Event.WAITING]


async def test_what_stands_open_is_repeated_where_that_is_needed() -> None:
    """Each minute, until its end was told."""
    box = Mailbox(batch=8, repeat_s=60.0)
    post = Post(box)
    await post.desk.opened()
    await post.notifier.deliver("pager")
    await post.notifier.deliver("pager")
    assert len(box.sent) == 1
    post.desk.clock.advance(61)
    await post.notifier.deliver("pager")
    assert len(box.sent) == 2
    await post.desk.cleared()
    post.desk.clock.advance(61)
    await post.notifier.deliver("pager")
    assert [each.event for each in box.sent[2:]] == [Event.CLEARED]


async def test_a_test_is_audited_and_not_repeated_at_will() -> None:
    """In the name of who asked; a minute has to pass; a receiver that is not there is said."""
    box = Mailbox()
    post = Post(box)
    await post.notifier.test("pager", person="ada")
    with pytest.raises(Refused, match="60 seconds"):
        await post.notifier.test("pager", person="ada")
    with pytest.raises(NotFound):
        await post.notifier.test("nobody", person="ada")
    await post.notifier.deliver("pager")
    assert box.sent[0].title == "Host Nanobot: a test, nothing happened"
    entries = await post.desk.audit(after=0, limit=100)
    assert [(each.actor, each.verb, each.object_id) for each in entries] == [
        ("ada", "notice.tested", "pager")
    ]
    post.desk.clock.advance(61)
    await post.notifier.test("pager", person="ada")


async def test_a_defect_of_one_lane_stops_no_other() -> None:
    """It is counted and tried again; the desk and the other receivers go on."""

    class Broken(Mailbox):
        @property
        def batch(self) -> int:
            raise ZeroDivisionError

        @batch.setter
        def batch(self, _: int) -> None:
            pass

    broken, box = Broken(name="broken"), Mailbox()
    post = Post(broken, box)
    post.desk = FakeDesk(routing=routing(Route(receivers=("broken", "pager"))))
    post.notifier._store = post.desk.store
    await post.desk.opened()
    for name in ("broken", "pager"):
        await post.notifier.guarded_turn(name)
    assert [each.error for each in await post.notifier.receivers()] == ["ZeroDivisionError", ""]
    assert len(box.sent) == 1


@pytest.mark.postgres
async def test_of_several_orchestrators_one_tells(shared: Database) -> None:
    """Each may see what happens; the one that leads delivers, and when it is gone, the next goes on."""
    clock, boxes = ManualClock(), (Mailbox(), Mailbox())
    stores = shared.open(), shared.open()
    notifiers = [
        Notifier(store=store, clock=clock, settings=SETTINGS, receivers=(box,), metrics=ServerMetrics())
        for store, box in zip(stores, boxes, strict=True)
    ]
    services = [Service(store=store, clock=clock, policy=Policy(), routing=routing()) for store in stores]
    for number, service in enumerate(services, start=1):
        body = case_report(case_id=f"case-{number}", drill=number == 2)
        await service.receive(delivery_of(number, body, at_ns=clock.wall_ns()))
    for _ in range(2):
        await asyncio.gather(*(each.turn("pager") for each in notifiers))
    assert sorted(len(box.sent) for box in boxes) == [0, 2]
    leader = int(bool(boxes[1].sent))
    await notifiers[1 - leader].test("pager", person="ada")
    await stores[leader].close()
    async with asyncio.timeout(30):  # the server notices in its own time that a connection is gone
        while not await stores[1 - leader].leads():
            pass
    assert await notifiers[1 - leader].turn("pager") == 1
    assert [each.event for each in boxes[1 - leader].sent] == [Event.TEST]
    await stores[1 - leader].close()


# The whole orchestrator, killed ---------------------------------------------------------------------------

SECRET = "a shared secret"


@pytest.fixture
def hook() -> Iterator[Listening]:
    """A webhook that listens."""
    with listening() as held:
        yield held


def configure(site: Site, hook: Listening) -> None:
    secret = site.folder / "hook.secret"
    secret.write_text(f"{SECRET}\n")
    secret.chmod(0o600)
    with site.config_file.open("a") as file:
        file.write(
            f'[notify]\nurl = "https://desk.example.net"\n'
            f'[[notify.webhook]]\nname = "hook"\nurl = "{hook.url}"\nsecret_file = "{secret}"\n'
            f'[[notify.route]]\nreceivers = ["hook"]\n'
        )


async def test_a_kill_between_sending_and_marking_tells_twice_with_one_id(
    site: Site, hook: Listening
) -> None:
    """kill -9 after the POST: the next start sends it again, with the same id, and then no more."""
    configure(site, hook)
    async with serving(site, "server.after_notice") as process:
        async with site.channel(site.authority.agent("spark-1")) as channel:
            await escalate(channel, codec.join([wired(case_report(), 1)]))
        await process.wait()
        assert process.returncode == -signal.SIGKILL
    async with serving(site):
        both = await asyncio.to_thread(hook.wait, 2)
        await asyncio.to_thread(until_sent, site.database)
    async with serving(site), site.channel(site.authority.agent("spark-1")) as channel:
        later = case_report(case_id="case-2", drill=True)
        await escalate(channel, codec.join([wired(later, 2)]))
        third = (await asyncio.to_thread(hook.wait, 3))[2]
    assert len(hook.asked) == 3
    bodies = [json.loads(each.body) for each in (*both, third)]
    assert bodies[0] == bodies[1]
    assert bodies[2]["title"].startswith("CRITICAL on spark-1: DRILL GPU access was taken away")
    assert bodies[2]["id"] != bodies[0]["id"]
    signed = both[0].headers["X-Nanobot-Timestamp"].encode() + b"." + both[0].body
    expected = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    assert both[0].headers["X-Nanobot-Signature"] == f"sha256={expected}"


def until_sent(database: Path) -> None:
    """Wait until the notice is marked; the deadline is the test's own."""
    connection = sqlite3.connect(database, timeout=5)
    try:
        while connection.execute("SELECT state FROM notices").fetchall() != [("sent",)]:
            pass
    finally:
        connection.close()
