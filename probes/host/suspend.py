"""`host.suspend`: the host slept, told by the two clocks that differ in nothing else.

CLOCK_BOOTTIME counts the time in suspend and CLOCK_MONOTONIC does not (clock_gettime(2)), so their difference
grows only while the host sleeps. The clocks are asked in each glance of the work loop: two calls without a
switch into the kernel.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from probes.observation import BlindReason, Instant, Observation, SensorName, Suspended
from probes.sensor import SensorBlind

NAME: Final = SensorName("host.suspend")
_LEAST_NS: Final = 500_000_000
"""A shorter difference is the two clocks being read one after the other by a thread that lost its core."""


def slept_ns() -> int:
    """Return for how long this host has slept since it booted; raise SensorBlind where no clock tells."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    if boot is None or sys.platform != "linux":
        raise SensorBlind(BlindReason.UNSUPPORTED_PLATFORM, "this system has no clock that counts suspend")
    return time.clock_gettime_ns(boot) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)


class SuspendSensor:
    """Tells of each sleep once, after it."""

    name = NAME
    period_s = 0.5

    def __init__(self, *, slept_ns: Callable[[], int] = slept_ns) -> None:
        self._slept_ns = slept_ns
        self._known_ns: int | None = None

    def __repr__(self) -> str:
        return f"SuspendSensor({NAME}, slept_ns={self._known_ns})"

    def open(self) -> None:
        """Take what was slept before as known: when that was, no clock can tell."""
        self._known_ns = self._slept_ns()

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return the sleep since the last read, if there was one."""
        if self._known_ns is None:
            raise SensorBlind(BlindReason.READ_FAILED, "read before it was opened")
        total_ns = self._slept_ns()
        slept_for_ns = total_ns - self._known_ns
        if slept_for_ns < _LEAST_NS:
            return ()
        self._known_ns = total_ns
        return (Suspended(NAME, now, slept_for_ns / 1e9),)

    def waiting(self) -> bool:
        """Whether the host has slept since the last read."""
        return self._known_ns is not None and self._slept_ns() - self._known_ns >= _LEAST_NS

    def settle(self) -> None:
        """Nothing to note: a successor takes all earlier sleep as known."""

    def wakeup_fd(self) -> int | None:
        """A sleep waits for its turn."""
        return None

    def close(self) -> None:
        """Hold nothing, let go of nothing."""
        self._known_ns = None
