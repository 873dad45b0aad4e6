"""The outbox on its own thread, and what the event loop may ask of it.

One thread opens, writes and closes the spool, so that an fsync never holds up a sensor. Every call is one
function handed to that thread; calls keep their order. Whoever calls sees the outbox's own errors.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, Self, TypeVar

from escalation.failpoints import reach
from escalation.model import Body, BootId, Report
from escalation.outbox import Depth, OutboxError, OutboxUnwritable, Stored

T = TypeVar("T")


class Spool(Protocol):
    """What the thread owns: an Outbox, or a double of one."""

    @property
    def boot_id(self) -> BootId:
        """The numbering that the next report belongs to."""

    def append(
        self, bodies: Sequence[Body], *, now_ns: int, notes: Mapping[str, bytes | None] = ...
    ) -> tuple[Report, ...]:
        """Commit all or nothing."""

    def notes(self, prefix: str) -> dict[str, bytes]:
        """Return notes by prefix."""

    def pending(self, *, after_row: int, limit: int, max_bytes: int) -> tuple[Stored, ...]:
        """Return what waits."""

    def acknowledge(self, boot_id: BootId, sequence: int) -> int:
        """Forget what the other side committed."""

    def set_aside(self, row: int, *, now_ns: int) -> None:
        """Take a refused report out of the queue."""

    def depth(self) -> Depth:
        """Return how much waits."""

    def close(self) -> None:
        """Let go of the file."""


class Spooling:
    """Runs a Spool on one thread. `async with`; a spool that cannot be opened is tried again by `open`."""

    def __init__(self, *, open_spool: Callable[[], Spool]) -> None:
        self._open_spool = open_spool
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="outbox")
        self._spool: Spool | None = None
        self.depth_seen = Depth(0, 0, None)
        self.boot_id: BootId | None = None
        self.committed = 0
        self.failures = 0
        self.error: str | None = None

    def __repr__(self) -> str:
        return f"Spooling(open={self._spool is not None}, committed={self.committed}, {self.depth_seen})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._run(self._close)
        self._thread.shutdown(wait=True)

    @property
    def is_open(self) -> bool:
        """Whether the spool could be opened."""
        return self._spool is not None

    async def open(self) -> None:
        """Open the spool; raise OutboxUnwritable when it cannot be."""
        await self._run(self._open)

    async def append(
        self, bodies: Sequence[Body], *, now_ns: int, notes: Mapping[str, bytes | None]
    ) -> tuple[Report, ...]:
        """Commit `bodies` and `notes`, all or nothing."""
        return await self._run(lambda: self._append(bodies, now_ns, notes))

    async def notes(self, prefix: str) -> dict[str, bytes]:
        """Return the notes whose key starts with `prefix`."""
        return await self._run(lambda: self._opened.notes(prefix))

    async def pending(self, *, after_row: int, limit: int, max_bytes: int) -> tuple[Stored, ...]:
        """Return waiting reports in order."""
        return await self._run(
            lambda: self._opened.pending(after_row=after_row, limit=limit, max_bytes=max_bytes)
        )

    async def acknowledge(self, boot_id: BootId, sequence: int) -> int:
        """Forget reports up to `sequence`; return how many."""
        forgotten = await self._run(lambda: self._opened.acknowledge(boot_id, sequence))
        await self._run(self._measure)
        return forgotten

    async def set_aside(self, row: int, *, now_ns: int) -> None:
        """Take a refused report out of the queue, counted as lost."""
        await self._run(lambda: self._opened.set_aside(row, now_ns=now_ns))

    @property
    def _opened(self) -> Spool:
        if self._spool is None:
            raise OutboxUnwritable("the spool is not open")
        return self._spool

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _open(self) -> None:
        if self._spool is None:
            try:
                self._spool = self._open_spool()
            except OutboxError as error:
                self.error = str(error)
                raise
            self.error = None
            self.boot_id = self._spool.boot_id
            self._measure()

    def _append(
        self, bodies: Sequence[Body], now_ns: int, notes: Mapping[str, bytes | None]
    ) -> tuple[Report, ...]:
        reach("agent.before_commit")
        try:
            reports = self._opened.append(bodies, now_ns=now_ns, notes=notes)
        except Exception as error:
            self.failures += 1
            self.error = str(error)
            raise
        reach("agent.after_commit")
        self.error = None
        self.committed += len(reports)
        self._measure()
        return reports

    def _measure(self) -> None:
        # It only informs: a report that is committed is not to be written again because of it.
        with contextlib.suppress(OutboxError):
            self.depth_seen = self._opened.depth()

    def _close(self) -> None:
        if self._spool is not None:
            self._spool.close()
            self._spool = None
