"""The lines in which work waits for a store: one for writing, in groups, and one for reading.

What arrives while a group is under way gathers for the next one (ADR 0006). What waits to be written is
bounded in bytes: who comes when it is full waits in line, which slows its stream and, behind it, the agent,
whose spool is the right place to wait in.

A store gives two functions, which run on threads of the queue: `commit` takes a group of pieces in their
order and returns what became of each, `answer` takes one piece that only reads.
"""

from __future__ import annotations

import asyncio
import collections
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from escalation.server.storage.store import Ledger, StoreUnavailable

T = TypeVar("T")

QUEUE_BYTES: Final = 1536 * 1024
_GROUP_BYTES: Final = 1024 * 1024
_PIECE_BYTES: Final = 512
"""What a waiting piece of work costs beyond what it says it holds."""

_LINGER_S: Final = 0.002
"""How long the next group gathers after one of several pieces: it halves the commits of a busy stream."""

_STOP_S: Final = 10.0


@dataclass(slots=True)
class Piece:
    """A piece of work, and the future that waits for what it returns."""

    work: Callable[[Ledger], Any]
    cost_bytes: int
    answer: asyncio.Future[Any]


@dataclass(slots=True)
class Outcome:
    """What became of a piece: its result, or its error."""

    piece: Piece
    result: Any = None
    error: BaseException | None = None


class WorkQueue:
    """Takes work on the event loop and hands it to the threads of a store called `name`."""

    def __init__(
        self,
        *,
        name: str,
        commit: Callable[[Sequence[Piece]], Sequence[Outcome]],
        answer: Callable[[Piece], Outcome],
        readers: int = 1,
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        """Start one writing thread and `readers` reading ones."""
        self._name = name
        self._commit = commit
        self._answer = answer
        self._queue_bytes = queue_bytes
        self._held_bytes = 0
        self._waiting: collections.deque[tuple[Piece, asyncio.Future[None]]] = collections.deque()
        self.closed = False
        self._writes = _Worker(
            name="nanobot-write", run=self._write_group, limit_bytes=_GROUP_BYTES, linger_s=_LINGER_S
        )
        self._reads = _Worker(
            name="nanobot-read", run=self._read_group, limit_bytes=0, linger_s=0.0, threads=readers
        )

    def __repr__(self) -> str:
        return f"WorkQueue(held_bytes={self._held_bytes}, waiting={len(self._waiting)})"

    async def submit(self, work: Callable[[Ledger], T], *, cost_bytes: int = 0) -> asyncio.Future[T]:
        """Return once there is room for `work`; what it returned, after the commit, is in the future."""
        if self.closed:
            raise StoreUnavailable(f"write {self._name}: the store is closed")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        piece = Piece(work, min(cost_bytes + _PIECE_BYTES, self._queue_bytes), answer)
        if not self._waiting and self._held_bytes + piece.cost_bytes <= self._queue_bytes:
            self._held_bytes += piece.cost_bytes
            self._writes.put(piece)
            return answer
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append((piece, turn))
        await turn
        return answer

    async def read(self, work: Callable[[Ledger], T]) -> T:
        """Run `work`, which writes nothing, on a reading thread."""
        if self.closed:
            raise StoreUnavailable(f"read {self._name}: the store is closed")
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._reads.put(Piece(work, 0, answer))
        return await answer

    async def close(self) -> bool:
        """Finish what was accepted and end the threads; return whether all of them ended in time."""
        self.closed = True
        for _, turn in self._waiting:
            if not turn.done():
                turn.set_exception(StoreUnavailable(f"write {self._name}: the store is closing"))
        self._waiting.clear()
        loop = asyncio.get_running_loop()
        ended = [await loop.run_in_executor(None, worker.stop) for worker in (self._writes, self._reads)]
        return all(ended)

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

    def _resolve(self, outcomes: Sequence[Outcome], *, is_write: bool) -> None:
        if is_write:
            self._release(sum(outcome.piece.cost_bytes for outcome in outcomes))
        for outcome in outcomes:
            if outcome.piece.answer.done():
                continue  # whoever asked was cancelled
            if outcome.error is not None:
                outcome.piece.answer.set_exception(outcome.error)
            else:
                outcome.piece.answer.set_result(outcome.result)

    # On the threads -----------------------------------------------------------------------------------

    def _write_group(self, group: Sequence[Piece]) -> None:
        self._tell(self._commit(group), is_write=True)

    def _read_group(self, group: Sequence[Piece]) -> None:
        self._tell([self._answer(piece) for piece in group], is_write=False)

    def _tell(self, outcomes: Sequence[Outcome], *, is_write: bool) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[Outcome]] = {}
        for outcome in outcomes:
            by_loop.setdefault(outcome.piece.answer.get_loop(), []).append(outcome)
        for loop, told in by_loop.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(partial(self._resolve, told, is_write=is_write))


class _Worker:
    """Threads that take what has gathered and run it as a group."""

    def __init__(
        self,
        *,
        name: str,
        run: Callable[[Sequence[Piece]], None],
        limit_bytes: int,
        linger_s: float,
        threads: int = 1,
    ) -> None:
        self._linger_s = linger_s
        self._run = run
        self._limit_bytes = limit_bytes
        self._pieces: collections.deque[Piece] = collections.deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._loop, name=f"{name}-{number}", daemon=True)
            for number in range(threads)
        ]
        for each in self._threads:
            each.start()

    def put(self, piece: Piece) -> None:
        with self._changed:
            self._pieces.append(piece)
            self._changed.notify()

    def stop(self) -> bool:
        """Finish what was put before, and return whether the threads ended in time."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        deadline_s = time.monotonic() + _STOP_S
        for each in self._threads:
            each.join(max(0.0, deadline_s - time.monotonic()))
        return not any(each.is_alive() for each in self._threads)

    def _loop(self) -> None:
        while group := self._gather():
            self._run(group)
            if len(group) > 1 and not self._stopping:
                # More than one came while the last was under way: give the next ones a moment to gather too.
                # Whoever sends one and waits for it never gets here.
                time.sleep(self._linger_s)

    def _gather(self) -> list[Piece]:
        with self._changed:
            while not self._pieces and not self._stopping:
                self._changed.wait()
            group: list[Piece] = []
            gathered = 0
            while self._pieces and (not group or gathered < self._limit_bytes):
                piece = self._pieces.popleft()
                gathered += piece.cost_bytes
                group.append(piece)
            return group
