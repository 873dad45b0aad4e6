"""The embedded store: all or nothing, in order, on disk, and honest about what it cannot do."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest

from escalation.model import AgentId, BootId
from escalation.server import steps
from escalation.server.storage.sqlite_store import SqliteStore
from escalation.server.storage.store import (
    Added,
    Delivery,
    Ledger,
    StoreCorrupt,
    StoreTooNew,
    StoreUnavailable,
)
from escalation.server.testing import START_NS

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


async def test_the_audit_log_cannot_be_changed_through_the_database(tmp_path: Path) -> None:
    """Updates and deletions are refused by the schema itself."""
    path = tmp_path / "orchestrator.db"
    store = SqliteStore(path=path)
    await store.write(
        lambda ledger: steps.note(ledger, actor="ada", verb="x", object_id="y", detail="z", now_ns=1)
    )
    await store.close()
    database = sqlite3.connect(path)
    for statement in ("UPDATE audit SET actor = 'eve'", "DELETE FROM audit"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            database.execute(statement)
    database.close()


def test_refuses_a_newer_database(tmp_path: Path) -> None:
    """The message says which version it is, which is known, and what to do."""
    path = tmp_path / "orchestrator.db"
    asyncio.run(_open_and_close(path))
    assert path.stat().st_mode & 0o777 == 0o600
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 700")
    database.close()
    with pytest.raises(StoreTooNew, match=r"version 700, and this program knows [0-9]+ at most"):
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


def _add(delivery: Delivery, ledger: Ledger) -> Added:
    return ledger.add_reports(delivery, received_ns=1)


async def _open_and_close(path: Path) -> None:
    await SqliteStore(path=path).close()
