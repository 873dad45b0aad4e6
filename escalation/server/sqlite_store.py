"""The embedded store: one SQLite file, one writing thread with group commit, one reading thread.

Work that arrives while a commit is under way is committed together in the next one, so a single report waits
for one fsync and a thousand streams share it (ADR 0006). Nothing is acknowledged before COMMIT has returned
with synchronous=FULL. What waits is bounded in bytes: who comes when it is full waits in line, which slows
its stream and, behind it, the agent, whose spool is the right place to wait in.

When one piece of a group raises, the whole transaction is undone and the pieces are run again one by one:
they are plain functions over the ledger, so running them twice is the simple way, and it happens at the pace
of people's mistakes.
"""

from __future__ import annotations

import asyncio
import collections
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from escalation import failpoints
from escalation.server import sqlite_file
from escalation.server.sqlite_ledger import SqliteLedger
from escalation.server.store import Ledger, StoreUnavailable

T = TypeVar("T")

_QUEUE_BYTES: Final = 1536 * 1024
_GROUP_BYTES: Final = 1024 * 1024
_PIECE_BYTES: Final = 512
"""What a waiting piece of work costs beyond what it says it holds."""

_LINGER_S: Final = 0.002
"""How long the next group gathers after one of several pieces: it halves the commits of a busy stream."""

_STOP_S: Final = 10.0


@dataclass(slots=True)
class _Piece:
    work: Callable[[Ledger], Any]
    cost_bytes: int
    answer: asyncio.Future[Any]


@dataclass(slots=True)
class _Outcome:
    piece: _Piece
    result: Any = None
    error: BaseException | None = None


class SqliteStore:
    """Opens, migrates and owns the file at `path` until `close`."""

    def __init__(self, *, path: Path, queue_bytes: int = _QUEUE_BYTES) -> None:
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
        self._queue_bytes = queue_bytes
        self._held_bytes = 0
        self._waiting: collections.deque[tuple[_Piece, asyncio.Future[None]]] = collections.deque()
        self._ready = True
        self._closed = False
        self.commits = 0
        self.failures = 0
        self._writes = _Worker(
            name="nanobot-write", run=self._commit, limit_bytes=_GROUP_BYTES, linger_s=_LINGER_S
        )
        self._reads = _Worker(name="nanobot-read", run=self._answer, limit_bytes=0, linger_s=0.0)
        self._write_ledger = SqliteLedger(connection=self._writer)
        self._read_ledger = SqliteLedger(connection=self._reader)

    def __repr__(self) -> str:
        return (
            f"SqliteStore({str(self._path)!r}, ready={self._ready}, held_bytes={self._held_bytes}, "
            f"waiting={len(self._waiting)}, commits={self.commits}, failures={self.failures})"
        )

    # On the event loop --------------------------------------------------------------------------------

    async def submit(self, work: Callable[[Ledger], T], *, cost_bytes: int = 0) -> asyncio.Future[T]:
        """Return once there is room for `work`; what it returned, after the commit, is in the future."""
        if self._closed:
            raise StoreUnavailable(f"write {self._path}: the store is closed")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        piece = _Piece(work, min(cost_bytes + _PIECE_BYTES, self._queue_bytes), answer)
        if not self._waiting and self._held_bytes + piece.cost_bytes <= self._queue_bytes:
            self._held_bytes += piece.cost_bytes
            self._writes.put(piece)
            return answer
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append((piece, turn))
        await turn
        return answer

    async def write(self, work: Callable[[Ledger], T]) -> T:
        """Run `work` in a transaction and return what it returned, after the commit."""
        return await (await self.submit(work))

    async def read(self, work: Callable[[Ledger], T]) -> T:
        """Run `work`, which writes nothing, on a consistent view."""
        if self._closed:
            raise StoreUnavailable(f"read {self._path}: the store is closed")
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._reads.put(_Piece(work, 0, answer))
        return await answer

    def ready(self) -> bool:
        """Return whether the last attempt to write worked."""
        return self._ready and not self._closed

    async def close(self) -> None:
        """Commit what was accepted, end the threads and close the file; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        for _, turn in self._waiting:
            if not turn.done():
                turn.set_exception(StoreUnavailable(f"write {self._path}: the store is closing"))
        self._waiting.clear()
        loop = asyncio.get_running_loop()
        ended = [await loop.run_in_executor(None, worker.stop) for worker in (self._writes, self._reads)]
        if all(ended):
            self._reader.close()
            self._writer.close()
        os.close(self._lock)

    def _release(self, cost_bytes: int) -> None:
        """Give room back, and hand it to those who wait, in their order."""
        self._held_bytes -= cost_bytes
        while self._waiting:
            piece, turn = self._waiting[0]
            if turn.done():  # whoever waited was cancelled
                self._waiting.popleft()
                continue
            if self._held_bytes + piece.cost_bytes > self._queue_bytes:
                return
            self._waiting.popleft()
            self._held_bytes += piece.cost_bytes
            self._writes.put(piece)
            turn.set_result(None)

    def _resolve(self, outcomes: Sequence[_Outcome], *, is_write: bool) -> None:
        if is_write:
            self._release(sum(outcome.piece.cost_bytes for outcome in outcomes))
        for outcome in outcomes:
            if outcome.piece.answer.done():
                continue  # whoever asked was cancelled
            if outcome.error is not None:
                outcome.piece.answer.set_exception(outcome.error)
            else:
                outcome.piece.answer.set_result(outcome.result)

    # On the writing thread ----------------------------------------------------------------------------

    def _commit(self, group: Sequence[_Piece]) -> None:
        outcomes = self._commit_together(group)
        if outcomes is None:
            outcomes = [self._commit_alone(piece) for piece in group]
        self._tell(outcomes, is_write=True)

    def _commit_together(self, group: Sequence[_Piece]) -> list[_Outcome] | None:
        """Return what became of `group`, or None when one piece raised and nothing was kept."""
        before = self._writer.total_changes
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            if not self._ready:
                self._writer.execute("UPDATE probe SET attempts = attempts + 1")
            outcomes = [_Outcome(piece, piece.work(self._write_ledger)) for piece in group]
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
            return [_Outcome(group[0], error=failure)] if len(group) == 1 else None
        except sqlite3.Error as error:
            self._undo()
            failure = sqlite_file.explained(error, "write", self._path)
            self._ready = False
            self.failures += 1
            return [_Outcome(piece, error=failure) for piece in group]
        except Exception as error:  # noqa: BLE001 - a piece of work's own error, handed to whoever asked for it
            self._undo()
            return [_Outcome(group[0], error=error)] if len(group) == 1 else None
        except BaseException:
            self._undo()
            raise
        self._ready = True
        self.commits += changed
        self._write_ledger.trim()
        return outcomes

    def _commit_alone(self, piece: _Piece) -> _Outcome:
        outcomes = self._commit_together([piece])
        if outcomes is None:
            raise AssertionError("a group of one always has its outcome")
        return outcomes[0]

    def _undo(self) -> None:
        self._write_ledger.forget()
        sqlite_file.roll_back(self._writer)

    # On the reading thread ----------------------------------------------------------------------------

    def _answer(self, group: Sequence[_Piece]) -> None:
        outcomes = []
        for piece in group:
            try:
                self._reader.execute("BEGIN")
                outcomes.append(_Outcome(piece, piece.work(self._read_ledger)))
            except sqlite3.Error as error:
                outcomes.append(_Outcome(piece, error=sqlite_file.explained(error, "read", self._path)))
            except Exception as error:  # noqa: BLE001 - handed to whoever asked
                outcomes.append(_Outcome(piece, error=error))
            finally:
                self._read_ledger.forget()
                sqlite_file.roll_back(self._reader)
        self._tell(outcomes, is_write=False)

    def _tell(self, outcomes: Sequence[_Outcome], *, is_write: bool) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[_Outcome]] = {}
        for outcome in outcomes:
            by_loop.setdefault(outcome.piece.answer.get_loop(), []).append(outcome)
        for loop, told in by_loop.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(partial(self._resolve, told, is_write=is_write))


class _Worker:
    """One thread that takes what has gathered and runs it as a group."""

    def __init__(
        self, *, name: str, run: Callable[[Sequence[_Piece]], None], limit_bytes: int, linger_s: float
    ) -> None:
        self._linger_s = linger_s
        self._run = run
        self._limit_bytes = limit_bytes
        self._pieces: collections.deque[_Piece] = collections.deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def put(self, piece: _Piece) -> None:
        with self._changed:
            self._pieces.append(piece)
            self._changed.notify()

    def stop(self) -> bool:
        """Finish what was put before, and return whether the thread ended in time."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(_STOP_S)
        return not self._thread.is_alive()

    def _loop(self) -> None:
        while group := self._gather():
            self._run(group)
            if len(group) > 1 and not self._stopping:
                # More than one came while the last was under way: give the next ones a moment to gather too.
                # Whoever sends one and waits for it never gets here.
                time.sleep(self._linger_s)

    def _gather(self) -> list[_Piece]:
        with self._changed:
            while not self._pieces and not self._stopping:
                self._changed.wait()
            group: list[_Piece] = []
            gathered = 0
            while self._pieces and (not group or gathered < self._limit_bytes):
                piece = self._pieces.popleft()
                gathered += piece.cost_bytes
                group.append(piece)
            return group
