"""The embedded store: one SQLite file, one writing thread with group commit, one reading thread.

Work that arrives while a commit is under way is committed together in the next one, so a single report waits
for one fsync and a thousand streams share it (ADR 0006). Nothing is acknowledged before COMMIT has returned
with synchronous=FULL.

When one piece of a group raises, the whole transaction is undone and the pieces are run again one by one:
they are plain functions over the ledger, so running them twice is the simple way, and it happens at the pace
of people's mistakes.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from escalation import failpoints
from escalation.server.storage import sqlite_file
from escalation.server.storage.sql_ledger import SqlLedger
from escalation.server.storage.sqlite_file import SqliteDatabase
from escalation.server.storage.store import NOTHING_ELSEWHERE, Elsewhere, Ledger
from escalation.server.storage.work_queue import QUEUE_BYTES, Outcome, Piece, WorkQueue

T = TypeVar("T")


class SqliteStore:
    """Opens, migrates and owns the file at `path` until `close`."""

    def __init__(self, *, path: Path, queue_bytes: int = QUEUE_BYTES) -> None:
        """Open the database, bring it up to date, and start the two threads.

        Raises StoreTooNew, StoreCorrupt or StoreUnavailable, naming the file.
        """
        self._path = path
        self._lock = sqlite_file.lock(path)
        try:
            self._writer = sqlite_file.connect(path)
            try:
                sqlite_file.migrate(self._writer, path)
                self._reader = sqlite_file.connect(path)
            except BaseException:
                self._writer.close()
                raise
        except BaseException as error:
            os.close(self._lock)
            if isinstance(error, sqlite3.Error):
                raise sqlite_file.explained(error, "open", path) from error
            raise
        self._reader.execute("PRAGMA query_only = ON")
        self._ready = True
        self.commits = 0
        self.failures = 0
        self._write_ledger = SqlLedger(database=SqliteDatabase(connection=self._writer))
        self._read_ledger = SqlLedger(database=SqliteDatabase(connection=self._reader))
        self._queue = WorkQueue(
            name=str(path), commit=self._commit, answer=self._answer, queue_bytes=queue_bytes
        )

    def __repr__(self) -> str:
        return (
            f"SqliteStore({str(self._path)!r}, ready={self._ready}, {self._queue!r}, "
            f"commits={self.commits}, failures={self.failures})"
        )

    async def submit(self, work: Callable[[Ledger], T], *, cost_bytes: int = 0) -> asyncio.Future[T]:
        """Return once there is room for `work`; what it returned, after the commit, is in the future."""
        return await self._queue.submit(work, cost_bytes=cost_bytes)

    async def write(self, work: Callable[[Ledger], T]) -> T:
        """Run `work` in a transaction and return what it returned, after the commit."""
        return await (await self._queue.submit(work))

    async def read(self, work: Callable[[Ledger], T]) -> T:
        """Run `work`, which writes nothing, on a consistent view."""
        return await self._queue.read(work)

    async def leads(self) -> bool:
        """Return True: nobody else writes here."""
        return True

    async def elsewhere(self) -> Elsewhere:
        """Return nothing: nobody else writes here."""
        return NOTHING_ELSEWHERE

    def ready(self) -> bool:
        """Return whether the last attempt to write worked."""
        return self._ready and not self._queue.closed

    async def close(self) -> None:
        """Commit what was accepted, end the threads and close the file; a second call does nothing."""
        if self._queue.closed:
            return
        if await self._queue.close():
            self._reader.close()
            self._writer.close()
        os.close(self._lock)

    # On the writing thread ----------------------------------------------------------------------------

    def _commit(self, group: Sequence[Piece]) -> Sequence[Outcome]:
        outcomes = self._commit_together(group)
        return [self._commit_alone(piece) for piece in group] if outcomes is None else outcomes

    def _commit_together(self, group: Sequence[Piece]) -> list[Outcome] | None:
        """Return what became of `group`, or None when one piece raised and nothing was kept."""
        before = self._writer.total_changes
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            if not self._ready:
                self._writer.execute("UPDATE probe SET attempts = attempts + 1")
            outcomes = [Outcome(piece, piece.work(self._write_ledger)) for piece in group]
            self._write_ledger.flush()
            changed = self._writer.total_changes != before
            if changed:
                failpoints.reach("server.before_commit")
            self._writer.execute("COMMIT")
            if changed:
                failpoints.reach("server.after_commit")
        except sqlite3.IntegrityError as error:
            # One piece's values, not the disk: the others are not to suffer for it.
            self._undo()
            failure = sqlite_file.explained(error, "write", self._path)
            return [Outcome(group[0], error=failure)] if len(group) == 1 else None
        except sqlite3.Error as error:
            self._undo()
            failure = sqlite_file.explained(error, "write", self._path)
            self._ready = False
            self.failures += 1
            return [Outcome(piece, error=failure) for piece in group]
        except Exception as error:  # noqa: BLE001 - a piece of work's own error, handed to whoever asked for it
            self._undo()
            return [Outcome(group[0], error=error)] if len(group) == 1 else None
        except BaseException:
            self._undo()
            raise
        self._ready = True
        self.commits += changed
        self._write_ledger.trim()
        return outcomes

    def _commit_alone(self, piece: Piece) -> Outcome:
        outcomes = self._commit_together([piece])
        if outcomes is None:
            raise AssertionError("a group of one always has its outcome")
        return outcomes[0]

    def _undo(self) -> None:
        self._write_ledger.forget()
        sqlite_file.roll_back(self._writer)

    # On the reading thread ----------------------------------------------------------------------------

    def _answer(self, piece: Piece) -> Outcome:
        try:
            self._reader.execute("BEGIN")
            return Outcome(piece, piece.work(self._read_ledger))
        except sqlite3.Error as error:
            return Outcome(piece, error=sqlite_file.explained(error, "read", self._path))
        except Exception as error:  # noqa: BLE001 - handed to whoever asked
            return Outcome(piece, error=error)
        finally:
            self._read_ledger.forget()
            sqlite_file.roll_back(self._reader)
