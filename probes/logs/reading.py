"""The thread that reads one source of lines, so that a slow disk holds up nothing but itself.

It sleeps until its source has something, reads a bounded amount, and rests before it looks again: what a
noisy host may cost is bounded by that. A timer of its own would cost an idle host more than all the rest, so
a source that can tell at the price of a system call whether it has changed is asked now and then by the
agent's loop, which is awake anyway. What it found waits, counted, until the agent takes it. A thread that
waits for a disk that never answers cannot be freed; it is given up, as a daemon, and nothing waits for it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from probes.logs.pattern import Matcher
from probes.logs.tally import Harvest, Tally
from probes.observation import BlindReason
from probes.sensor import SeesPart, SensorBlind

REST_S: Final = 0.5
ASKS_PER_GLANCE: Final = 4
"""A system call on cold caches costs thirty microseconds, so the source is asked each fourth time."""

START_S: Final = 0.5
STUCK_S: Final = 30.0
STOP_S: Final = 1.0


class Source(Protocol):
    """Where lines come from; used by one thread."""

    def open(self) -> None:
        """Begin at the end; raise SensorBlind."""

    @property
    def changed(self) -> bool:
        """Whether there is something to read, told without reading; asked on the agent's own thread."""

    def wait(self, wake: int) -> None:
        """Return when there may be something to read, or when the descriptor `wake` is readable."""

    def read(self, tally: Tally, now_unix_ns: int) -> bool:
        """Count a bounded number of lines; return whether there is more. Raise SensorBlind."""

    def close(self) -> None:
        """Let go of everything."""


class Reading:
    """One thread on one source. Made for one opening; it cannot be started twice.

    The thread puts what it found where the agent takes it only when that place is empty, so neither ever
    waits for the other.
    """

    def __init__(
        self,
        *,
        source: Source,
        matcher: Matcher,
        name: str,
        rest_s: float = REST_S,
        unix_ns: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._tally = Tally(matcher)
        self._rest_s = rest_s
        self._unix_ns = unix_ns
        self._monotonic = monotonic
        self._ready: Harvest | None = None
        self._busy_since: float | None = None
        self._begun = threading.Event()
        self._stopping = threading.Event()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        self._woken = False
        self._asked = 0
        self._failure: SensorBlind | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __repr__(self) -> str:
        return f"Reading({self._source!r}, {self._tally!r})"

    def start(self) -> None:
        """Begin; raise SensorBlind when the source cannot be opened. One that takes long is taken to open."""
        self._busy_since = self._monotonic()
        self._thread.start()
        self._begun.wait(START_S)
        self.check()

    def check(self) -> None:
        """Raise SensorBlind when the thread has ended for that reason, or does not come back from a read."""
        if self._failure is not None:
            raise SensorBlind(self._failure.blind.reason, self._failure.blind.detail)
        busy_since = self._busy_since
        if busy_since is not None and self._monotonic() - busy_since > STUCK_S:
            raise SensorBlind(BlindReason.NOT_ANSWERING, f"read {self._source!r}: no answer in {STUCK_S:g} s")

    @property
    def has_something(self) -> bool:
        """Whether `take` would return anything, or the thread has ended; wakes the thread for new lines."""
        self._asked = (self._asked + 1) % ASKS_PER_GLANCE
        if not self._asked and not self._woken and self._source.changed:
            self._wake()
        return self._ready is not None or self._failure is not None

    @property
    def left_out(self) -> str:
        """What the source cannot see of what it was asked to."""
        return self._source.left_out if isinstance(self._source, SeesPart) else ""

    def take(self) -> Harvest:
        """Return what was found since the last time."""
        harvest = self._ready
        if harvest is None:
            return Harvest()
        self._ready = None
        return harvest

    def stop(self) -> None:
        """End the thread, or give it up when it does not end in time."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._wake()
        if self._thread.ident is not None:
            self._thread.join(STOP_S)
        if not self._thread.is_alive():
            os.close(self._wake_read)
        os.close(self._wake_write)

    def _wake(self) -> None:
        self._woken = True
        os.write(self._wake_write, b".")

    def _run(self) -> None:
        try:
            self._source.open()
            self._busy_since = None
            self._begun.set()
            while not self._stopping.is_set():
                self._source.wait(self._wake_read)
                with contextlib.suppress(BlockingIOError):  # its own timer may have ended the wait
                    os.read(self._wake_read, 16)
                self._round()
                self._woken = False
        except SensorBlind as error:
            self._failure = error
        except Exception as error:  # noqa: BLE001  # it must not end in silence
            self._failure = SensorBlind(BlindReason.READ_FAILED, f"{type(error).__name__}: {error}")
        finally:
            self._hand_over()
            self._begun.set()
            self._source.close()

    def _round(self) -> None:
        more = True
        while (more or self._tally) and not self._stopping.is_set():
            if more:
                self._busy_since = self._monotonic()
                more = self._source.read(self._tally, self._unix_ns())
                self._busy_since = None
            self._hand_over()
            if more or self._tally:
                self._stopping.wait(self._rest_s)

    def _hand_over(self) -> None:
        if self._tally and self._ready is None:
            self._ready = self._tally.harvest()
