"""Both stores, by the same tests: all or nothing, in order, kept across restarts, honest about refusals."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial

import pytest

from escalation.model import ActionKind, AgentId, BootId, CasePhase, Report, State, Subject, SubjectKind
from escalation.server import audit
from escalation.server.decision.approvals import Policy
from escalation.server.desk import Expired, Holdings, NotFound, Refused
from escalation.server.service import Service
from escalation.server.storage.store import Added, Delivery, Ledger, StoreError, StoreUnavailable
from escalation.server.storage.stores import OpenStore
from escalation.server.testing import START_NS, ManualClock, case_report, heartbeat
from escalation.view.signing import approval_view
from tests.escalation.server.databases import Database

_BOOT = BootId("boot-1")
_HOST = AgentId("spark-1")


@pytest.fixture
async def store(database: Database) -> AsyncIterator[OpenStore]:
    """An empty store."""
    opened = database.open()
    yield opened
    await opened.close()


def _delivery(*sequences: int, payload: bytes = b"payload") -> Delivery:
    rows = tuple((sequence, START_NS, payload) for sequence in sequences)
    return Delivery(_HOST, _BOOT, rows, ())


async def test_tells_new_reports_from_old_ones(store: OpenStore) -> None:
    """Numbers above the highest are new; of those below, each one is looked up; gaps are counted once."""

    async def add(*sequences: int) -> tuple[int, int, set[int]]:
        delivery = _delivery(*sequences)
        added = await store.write(lambda ledger: ledger.add_reports(delivery, received_ns=1))
        return added.count, added.missing, {each for each in sequences if each in added.fresh}

    assert await add(1, 2, 5) == (3, 2, {1, 2, 5})
    assert await add(2, 5, 6) == (1, 0, {6})
    assert await add(1, 2) == (0, 0, set())
    assert await add(3) == (1, 0, {3})
    assert await add(9) == (1, 2, {9})


async def test_what_one_piece_raises_undoes_only_that_piece(store: OpenStore) -> None:
    """Pieces that share a commit do not share a failure."""
    gate = threading.Event()

    def hold(_: Ledger) -> None:
        gate.wait(5)

    def fail(ledger: Ledger) -> None:
        ledger.add_reports(_delivery(99), received_ns=1)
        raise NotFound("told to fail")

    held = await store.submit(hold)
    pieces = [
        await store.submit(lambda ledger: ledger.add_reports(_delivery(1), received_ns=1)),
        await store.submit(fail),
        await store.submit(lambda ledger: ledger.add_reports(_delivery(2), received_ns=1)),
    ]
    gate.set()
    await held
    results = await asyncio.gather(*pieces, return_exceptions=True)
    assert [isinstance(result, NotFound) for result in results] == [False, True, False]
    added = await store.write(lambda ledger: ledger.add_reports(_delivery(1, 2, 99), received_ns=1))
    assert added.count == 1, "1 and 2 were kept, 99 was not"


async def test_what_the_schema_refuses_of_one_piece_hits_no_other(store: OpenStore) -> None:
    """A broken constraint is that piece's error; the store stays ready."""
    gate = threading.Event()

    def twice(ledger: Ledger) -> None:
        first = audit.follow(None, at_ns=1, actor="a", verb="v", object_id="o", detail="d")
        ledger.add_audit(first)
        ledger.add_audit(first)

    held = await store.submit(lambda _: gate.wait(5))
    broken = await store.submit(twice)
    whole = await store.submit(partial(_add, _delivery(1)))
    gate.set()
    await held
    with pytest.raises(StoreError, match=r"(?i)unique"):
        await broken
    assert (await whole).count == 1
    assert store.ready()


async def test_whoever_comes_when_it_is_full_waits_in_line(database: Database) -> None:
    """Submissions wait for room, keep their order, and one that is cancelled leaves the line."""
    store = database.open(queue_bytes=10_000)
    gate = threading.Event()
    done: list[int] = []

    def piece(number: int) -> None:
        gate.wait(5)
        done.append(number)

    waiting = [asyncio.create_task(store.submit(lambda _, n=n: piece(n), cost_bytes=4000)) for n in range(8)]
    await asyncio.sleep(0.05)
    assert [task.done() for task in waiting] == [True, True] + [False] * 6
    waiting[3].cancel()
    gate.set()
    answers = [await task for number, task in enumerate(waiting) if number != 3]
    await asyncio.gather(*answers)
    assert done == [0, 1, 2, 4, 5, 6, 7]
    assert "held_bytes=0, waiting=0" in repr(store)
    await store.close()


async def test_closing_commits_what_was_accepted(database: Database) -> None:
    """A piece whose submission returned is on disk after close; one that comes later is refused."""
    store = database.open()
    answers = [
        await store.submit(lambda ledger, n=n: ledger.add_reports(_delivery(n), received_ns=1))
        for n in range(1, 51)
    ]
    await store.close()
    await asyncio.gather(*answers)
    with pytest.raises(StoreUnavailable):
        await store.write(lambda ledger: ledger.last_audit())
    reopened = database.open()
    again = await reopened.write(partial(_add, _delivery(*range(1, 52))))
    await reopened.close()
    assert again.count == 1, "fifty of them were kept"


async def test_keeps_everything_across_a_restart(database: Database) -> None:
    """Incident, recommendation, decision, host and audit chain read back as they were."""
    store = database.open()
    service = Service(store=store, clock=ManualClock(), policy=Policy())
    bodies = [heartbeat(), case_report(), case_report(CasePhase.UPDATED, count=2**63 - 1)]
    for number, body in enumerate(bodies, start=1):
        report = Report(agent_id=_HOST, boot_id=_BOOT, sequence=number, created_ns=START_NS, body=body)
        row = (number, START_NS, b"")
        await service.receive(Delivery(_HOST, _BOOT, (row,), (report,)))
    (entry,) = await service.queue(None)
    digest = entry.recommendation.digest
    await service.approve(entry.recommendation.id, person="ada", reason="because", digest=digest)
    before = (await service.queue(None), await service.hosts(), await service.audit(after=0, limit=100))
    await store.close()

    reopened = database.open()
    service = Service(store=reopened, clock=ManualClock(), policy=Policy())
    after = (await service.queue(None), await service.hosts(), await service.audit(after=0, limit=100))
    await reopened.close()
    assert after == before
    assert after[0][0].recommendation.state is State.APPROVED
    assert audit.verify(after[2]) is None


async def test_everything_is_told_in_the_order_of_ids(store: OpenStore) -> None:
    """Pages after an id hold each incident and each recommendation once, and the count is of all."""
    service = Service(store=store, clock=ManualClock(), policy=Policy())
    for number in range(1, 6):
        body = case_report(case_id=f"case-{number}", subject=Subject(SubjectKind.UNIT, f"u{number}"))
        report = Report(agent_id=_HOST, boot_id=_BOOT, sequence=number, created_ns=START_NS, body=body)
        await service.receive(Delivery(_HOST, _BOOT, ((number, START_NS, b""),), (report,)))
    incidents = sorted(each.id for each in await service.incidents())
    entries = sorted(each.recommendation.id for each in await service.queue(None))
    assert [each.id for each in await service.incidents_after("", limit=3)] == incidents[:3]
    assert [each.id for each in await service.incidents_after(incidents[2], limit=3)] == incidents[3:]
    found = await service.entries_after(entries[0][:8], limit=9)
    assert [each.recommendation.id for each in found] == entries
    assert [each.recommendation.id for each in await service.entries_after(entries[3], limit=9)] == entries[
        4:
    ]
    assert await service.holdings() == Holdings(entries=5, incidents=5)
    assert await store.read(lambda ledger: ledger.oldest(State.PROPOSED)) == START_NS
    assert await store.read(lambda ledger: ledger.oldest(State.DONE)) is None


async def test_forgets_old_reports(store: OpenStore) -> None:
    """Only what is old enough goes, oldest first, and so many at once."""
    await store.write(lambda ledger: ledger.add_reports(_delivery(1, 2, 3), received_ns=100))
    await store.write(lambda ledger: ledger.add_reports(_delivery(4), received_ns=200))
    forget = [
        await store.write(lambda ledger: ledger.forget_reports(received_before_ns=150, limit=2))
        for _ in range(3)
    ]
    assert forget == [2, 1, 0]


async def test_a_decision_that_is_refused_leaves_no_trace(store: OpenStore) -> None:
    """An approval that comes too late changes neither the entry nor the audit log."""
    clock = ManualClock()
    service = Service(store=store, clock=clock, policy=Policy())
    report = Report(agent_id=_HOST, boot_id=_BOOT, sequence=1, created_ns=START_NS, body=case_report())
    await service.receive(Delivery(_HOST, _BOOT, ((1, START_NS, b""),), (report,)))
    (entry,) = await service.queue(None)
    before = await service.audit(after=0, limit=100)
    clock.advance(5 * 3600)
    with pytest.raises(Expired):
        await service.approve(
            entry.recommendation.id, person="ada", reason="late", digest=entry.recommendation.digest
        )
    assert await service.audit(after=0, limit=100) == before
    assert (await service.entry(entry.recommendation.id)).recommendation.state is State.PROPOSED


async def test_a_start_under_other_rules_voids_the_first_of_two(store: OpenStore) -> None:
    """The entry and the audit log say so before anybody decides, and the next start changes nothing."""
    two = Policy(two_person=frozenset({ActionKind.RESTART_CONTAINER}))
    before = Service(store=store, clock=ManualClock(), policy=two)
    report = Report(agent_id=_HOST, boot_id=_BOOT, sequence=1, created_ns=START_NS, body=case_report())
    await before.receive(Delivery(_HOST, _BOOT, ((1, START_NS, b""),), (report,)))
    (shown,) = await before.queue(None)
    entry_id, digest = shown.recommendation.id, shown.recommendation.digest
    await before.approve(entry_id, person="ada", reason="why", digest=digest)
    await Service(store=store, clock=ManualClock(), policy=two).prepare()
    assert (await before.entry(entry_id)).recommendation.approvers == ("ada",)

    stricter = replace(two, require_signature=frozenset({ActionKind.RESTART_CONTAINER}))
    for _ in range(2):
        after = Service(store=store, clock=ManualClock(), policy=stricter)
        await after.prepare()
    void = (await after.entry(entry_id)).recommendation
    assert (void.approvers, void.decided_by, void.approvals[0].policy) == ((), None, two.digest)
    assert approval_view(void.approvals[0]).words.startswith("not signed; void since ")
    log = await after.audit(after=0, limit=100)
    told = [(each.actor, each.detail) for each in log if each.verb == "recommendation.approval_void"]
    assert told == [("orchestrator", f"digest={digest} of=ada policy={stricter.digest}")]


async def test_what_no_text_can_hold_is_not_found(store: OpenStore) -> None:
    """An id with a NUL in it, as a stranger may ask for, is nobody's; a reason with one is refused."""
    service = Service(store=store, clock=ManualClock(), policy=Policy())
    with pytest.raises(NotFound):
        await service.entry("a\0b")
    report = Report(agent_id=_HOST, boot_id=_BOOT, sequence=1, created_ns=START_NS, body=case_report())
    await service.receive(Delivery(_HOST, _BOOT, ((1, START_NS, b""),), (report,)))
    (entry,) = await service.queue(None)
    with pytest.raises(Refused):
        await service.reject(entry.recommendation.id, person="ada", reason="a\0b")
    await service.reject(entry.recommendation.id, person="ada", reason="zażółć 🜲")
    (entry,) = await service.queue(None)
    assert entry.recommendation.decision_reason == "zażółć 🜲"
    assert audit.verify(await service.audit(after=0, limit=100)) is None


def _add(delivery: Delivery, ledger: Ledger) -> Added:
    return ledger.add_reports(delivery, received_ns=1)
