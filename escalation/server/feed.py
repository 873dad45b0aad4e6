"""Hands each change of the queue to everyone who watches it, and lets go of those who do not keep up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from typing import Final

from escalation.server.desk import Entry, FellBehind

_CAPACITY: Final = 256
"""How many changes wait for one watcher before it is dropped."""

_WATCHERS: Final = 64
"""How many may watch at once; each holds a queue."""


class Feed:
    """One bounded queue per watcher."""

    def __init__(self, *, capacity: int = _CAPACITY, watchers: int = _WATCHERS) -> None:
        """Hold at most `capacity` changes for each of at most `watchers`."""
        self._capacity = capacity
        self._limit = watchers
        self._queues: set[asyncio.Queue[Entry | None]] = set()
        self.dropped = 0

    def __repr__(self) -> str:
        return f"Feed(watchers={len(self._queues)}, dropped={self.dropped})"

    @property
    def watched(self) -> bool:
        """Whether anybody watches."""
        return bool(self._queues)

    def publish(self, entries: Iterable[Entry]) -> None:
        """Queue `entries` for every watcher; one whose queue is full is told so and dropped."""
        for entry in entries:
            for queue in tuple(self._queues):
                if queue.full():
                    self._queues.discard(queue)
                    self.dropped += 1
                    queue.get_nowait()
                    queue.put_nowait(None)
                else:
                    queue.put_nowait(entry)

    def watch(self) -> AsyncGenerator[Entry, None]:
        """Yield each entry published from this call on; raise FellBehind when dropped."""
        if len(self._queues) >= self._limit:
            raise FellBehind(f"{self._limit} watchers are connected already")
        queue: asyncio.Queue[Entry | None] = asyncio.Queue(self._capacity)
        self._queues.add(queue)
        return self._drain(queue)

    async def _drain(self, queue: asyncio.Queue[Entry | None]) -> AsyncGenerator[Entry, None]:
        try:
            while (entry := await queue.get()) is not None:
                yield entry
        finally:
            self._queues.discard(queue)
        raise FellBehind("this watcher did not keep up with the changes; read the queue again")
