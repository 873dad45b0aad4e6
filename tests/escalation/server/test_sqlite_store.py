"""The embedded store: all or nothing, in order, on disk, and honest about what it cannot do."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest

from escalation.model import AgentId, BootId, CasePhase, Report, State
from escalation.server import audit, triage
from escalation.server.approvals import Policy
from escalation.server.desk import Expired, NotFound
from escalation.server.service import Service
from escalation.server.sqlite_store import SqliteStore
from escalation.server.store import (
    Added,
    Delivery,
    Ledger,
    StoreCorrupt,
    StoreError,
    StoreTooNew,
    StoreUnavailable,
)
from escalation.server.testing import START_NS, ManualClock, case_report, heartbeat

_BOOT = BootId("boot-1")
_HOST = AgentId("spark-1")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """An empty store."""
    opened = SqliteStore(path=tmp_path / "orchestrator.db")
    yield opened
    await opened.close()


def _delivery(*sequences: int, payload: bytes = b"payload") -> Delivery:
    rows = tuple((sequence, START_NS, payload) for sequence in sequences)
    return Delivery(_HOST, _BOOT, rows, ())


async def test_tells_new_reports_from_old_ones(store: SqliteStore) -> None:
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


async def test_what_one_piece_raises_undoes_only_that_piece(store: SqliteStore) -> None:
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


async def test_what_the_schema_refuses_of_one_piece_hits_no_other(store: SqliteStore) -> None:
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
    with pytest.raises(StoreError, match="UNIQUE"):
        await broken
    assert (await whole).count == 1
    assert store.ready()


async def test_nobody_else_can_read_the_files(tmp_path: Path) -> None:
    """The database, its log and its index are the owner's alone, whatever the mask says."""
    before = os.umask(0)
    try:
        store = SqliteStore(path=tmp_path / "state" / "orchestrator.db")
    finally:
        os.umask(before)
    await store.write(partial(_add, _delivery(1)))
    modes = {each.name: each.stat().st_mode & 0o777 for each in (tmp_path / "state").iterdir()}
    await store.close()
    assert modes == dict.fromkeys(
        ("orchestrator.db", "orchestrator.db-shm", "orchestrator.db-wal", "orchestrator.db.lock"), 0o600
    )


async def test_whoever_comes_when_it_is_full_waits_in_line(tmp_path: Path) -> None:
    """Submissions wait for room, keep their order, and one that is cancelled leaves the line."""
    store = SqliteStore(path=tmp_path / "small.db", queue_bytes=10_000)
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


async def test_closing_commits_what_was_accepted(tmp_path: Path) -> None:
    """A piece whose submission returned is on disk after close; one that comes later is refused."""
    path = tmp_path / "orchestrator.db"
    store = SqliteStore(path=path)
    answers = [
        await store.submit(lambda ledger, n=n: ledger.add_reports(_delivery(n), received_ns=1))
        for n in range(1, 51)
    ]
    await store.close()
    await asyncio.gather(*answers)
    with pytest.raises(StoreUnavailable):
        await store.write(lambda ledger: ledger.last_audit())
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*) FROM reports").fetchone() == (50,)
    database.close()


async def test_keeps_everything_across_a_restart(tmp_path: Path) -> None:
    """Incident, recommendation, decision, host and audit chain read back as they were."""
    path = tmp_path / "orchestrator.db"
    store = SqliteStore(path=path)
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

    reopened = SqliteStore(path=path)
    service = Service(store=reopened, clock=ManualClock(), policy=Policy())
    after = (await service.queue(None), await service.hosts(), await service.audit(after=0, limit=100))
    await reopened.close()
    assert after == before
    assert after[0][0].recommendation.state is State.APPROVED
    assert audit.verify(after[2]) is None


async def test_the_audit_log_cannot_be_changed_through_the_database(tmp_path: Path) -> None:
    """Updates and deletions are refused by the schema itself."""
    path = tmp_path / "orchestrator.db"
    store = SqliteStore(path=path)
    await store.write(
        lambda ledger: triage.note(ledger, actor="ada", verb="x", object_id="y", detail="z", now_ns=1)
    )
    await store.close()
    database = sqlite3.connect(path)
    for statement in ("UPDATE audit SET actor = 'eve'", "DELETE FROM audit"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            database.execute(statement)
    database.close()


async def test_forgets_old_reports(store: SqliteStore) -> None:
    """Only what is old enough goes, oldest first, and so many at once."""
    await store.write(lambda ledger: ledger.add_reports(_delivery(1, 2, 3), received_ns=100))
    await store.write(lambda ledger: ledger.add_reports(_delivery(4), received_ns=200))
    forget = [
        await store.write(lambda ledger: ledger.forget_reports(received_before_ns=150, limit=2))
        for _ in range(3)
    ]
    assert forget == [2, 1, 0]


def test_refuses_a_newer_database(tmp_path: Path) -> None:
    """The message says which version it is, which is known, and what to do."""
    path = tmp_path / "orchestrator.db"
    asyncio.run(_open_and_close(path))
    assert path.stat().st_mode & 0o777 == 0o600
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 7")
    database.close()
    with pytest.raises(StoreTooNew, match="version 7, and this program knows 2 at most"):
        SqliteStore(path=path)


def test_refuses_a_database_of_somebody_else(tmp_path: Path) -> None:
    """A file with other tables, and a file that is no database, are named and left as they are."""
    path = tmp_path / "orchestrator.db"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE theirs (x)")
    database.commit()
    database.close()
    with pytest.raises(StoreCorrupt, match="not an orchestrator's database"):
        SqliteStore(path=path)
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreCorrupt, match=r"garbage\.db"):
        SqliteStore(path=garbage)
    assert garbage.read_bytes().startswith(b"no database")


def test_refuses_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """The message names what is in the way."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match=r"/file: "):
        SqliteStore(path=tmp_path / "file" / "orchestrator.db")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four mebibytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.root
async def test_a_full_disk_refuses_and_recovers_by_itself(small_disk: Path) -> None:
    """What does not fit is refused whole; once there is room, the same store writes again."""
    store = SqliteStore(path=small_disk / "orchestrator.db")
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 1024 * 1024)
    kept = 0

    async def fill() -> None:
        nonlocal kept
        while True:
            rows = tuple((kept + n, START_NS, b"x" * 1000) for n in range(1, 51))
            delivery = Delivery(_HOST, _BOOT, rows, ())
            await store.write(partial(_add, delivery))
            kept = rows[-1][0]

    with pytest.raises(StoreUnavailable, match="full"):
        await fill()
    assert kept > 0
    assert not store.ready()
    with pytest.raises(StoreUnavailable):
        await store.write(
            lambda ledger: ledger.add_reports(_delivery(10**6, payload=b"x" * 10**6), received_ns=1)
        )
    assert await store.read(lambda ledger: ledger.hosts()) == [], "reading goes on"
    ballast.unlink()
    added = await store.write(lambda ledger: ledger.add_reports(_delivery(kept + 1), received_ns=1))
    assert (added.count, added.missing) == (1, 0), "nothing of what was refused was kept"
    assert store.ready()
    await store.close()


@pytest.mark.root
def test_a_read_only_file_system_refuses_and_recovers(small_disk: Path) -> None:
    """Remounted read-only, it says so; remounted again, it goes on."""
    asyncio.run(_open_and_close(small_disk / "orchestrator.db"))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    try:
        with pytest.raises(StoreUnavailable, match=r"orchestrator\.db"):
            SqliteStore(path=small_disk / "orchestrator.db")
    finally:
        subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    asyncio.run(_open_and_close(small_disk / "orchestrator.db"))


async def test_a_decision_that_is_refused_leaves_no_trace(store: SqliteStore) -> None:
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


def _add(delivery: Delivery, ledger: Ledger) -> Added:
    return ledger.add_reports(delivery, received_ns=1)


async def _open_and_close(path: Path) -> None:
    await SqliteStore(path=path).close()
