"""Asks filesystems for their sizes; one that never answers, as a dead network mount does, holds up nobody.

statvfs(3) on such a mount waits for ever, and nothing can end the thread that made it. So each round of
questions runs on a thread of its own with a deadline. A thread that is late is left behind at the question
that it is stuck in, and the rest is asked by another one; that question is not asked again until the thread
has come back. At most `STUCK_MAX` are left behind: beyond them nothing new is asked, only what answered
before. A thread that lives on between two rounds was rejected: a round is short and rare, and a start costs
some 60 microseconds. So was the worker of the GPU sensor, which has a library to begin and to end.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

ROUND_S: Final = 1.0
STUCK_MAX: Final = 4
_NAME: Final = "storage-given-up"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Space:
    """What an ordinary user finds; inodes are None where the filesystem does not limit them."""

    total_bytes: int
    free_bytes: int
    total_inodes: int | None
    free_inodes: int | None


class Unanswered:
    """A question that did not come back."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A question that was answered by an error."""

    errno: int


def space(path: str) -> Space:
    """Ask for the sizes of the filesystem at `path`; may wait for ever. Raises OSError."""
    told = os.statvfs(path)
    unit = told.f_frsize or told.f_bsize
    used = told.f_blocks - told.f_bfree
    limited = told.f_files > 0
    return Space(
        # What is kept for root is no part of what an ordinary user may have.
        total_bytes=max(0, used + told.f_bavail) * unit,
        free_bytes=max(0, told.f_bavail) * unit,
        total_inodes=told.f_files if limited else None,
        free_inodes=told.f_favail if limited else None,
    )


class _Round(Generic[T]):
    """The questions of one thread, answered one after the other until it is left behind."""

    def __init__(self, paths: list[str], ask: Callable[[str], T]) -> None:
        self._paths = paths
        self._ask = ask
        self._left = threading.Event()
        self.answers: dict[str, T | Refused] = {}
        self.thread = threading.Thread(target=self._run, name="storage", daemon=True)
        self.thread.start()

    def leave(self) -> str | None:
        """Leave the thread at the question that it is in, and return that question; None if it is through."""
        self._left.set()
        waiting = [path for path in self._paths if path not in self.answers]
        if not waiting or not self.thread.is_alive():
            return None
        self.thread.name = _NAME
        return waiting[0]

    def _run(self) -> None:
        for path in self._paths:
            if self._left.is_set():
                return
            try:
                self.answers[path] = self._ask(path)
            except OSError as error:
                self.answers[path] = Refused(error.errno or 0)


class BoundedCalls(Generic[T]):
    """Asks one question of many paths within a deadline. Owned by one thread."""

    def __init__(
        self,
        *,
        ask: Callable[[str], T],
        round_s: float = ROUND_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._round_s = round_s
        self._monotonic = monotonic
        self._stuck: dict[str, threading.Thread] = {}

    def __repr__(self) -> str:
        return f"BoundedCalls(stuck={sorted(self._stuck)})"

    def answers(self, paths: Iterable[str]) -> Mapping[str, T | Refused | Unanswered]:
        """Ask all that is not stuck, for `round_s` in all; what has no answer by then is Unanswered."""
        self._stuck = {path: thread for path, thread in self._stuck.items() if thread.is_alive()}
        wanted = list(dict.fromkeys(paths))
        waiting = [path for path in wanted if path not in self._stuck]
        found: dict[str, T | Refused | Unanswered] = {}
        until_s = self._monotonic() + self._round_s
        while waiting and len(self._stuck) < STUCK_MAX:
            asked = _Round(waiting, self._ask)
            # Whoever is first gets half of what is left, so that one dead mount leaves time for the others.
            asked.thread.join(max(0.0, until_s - self._monotonic()) / 2)
            late = asked.leave()
            found.update(asked.answers)
            if late is None:
                break
            self._stuck[late] = asked.thread
            waiting = [path for path in waiting if path not in found and path != late]
        return {path: found.get(path, Unanswered()) for path in wanted}
