"""The two clocks of the orchestrator, and which of them is believed for what.

A wall clock can be set, forward or back, at any moment. Deadlines take the later of the wall clock and of
where it should stand by the monotonic one; credit (time that a fault stayed away) takes the earlier. So a
jump can make something expire too soon, and never keep it alive or prove it cured.
"""

from __future__ import annotations

import time
from typing import Final, Protocol

SLACK_NS: Final = 60_000_000_000
"""How far a clock may be set back (time synchronisation) before what it started counts as over."""


class Clock(Protocol):
    """Where time comes from."""

    def wall_ns(self) -> int:
        """Return Unix time, UTC."""

    def steady_s(self) -> float:
        """Return seconds that only ever grow, from an arbitrary start."""


class SystemClock:
    """The machine's own clocks."""

    def wall_ns(self) -> int:
        """Return Unix time, UTC."""
        return time.time_ns()

    def steady_s(self) -> float:
        """Return seconds since the machine started, standing still while it sleeps."""
        return time.monotonic()


def is_over(*, started_ns: int, ends_ns: int, now_ns: int) -> bool:
    """Return whether what began and ends at these times is over: its end is there, or the clock went back.

    Neither a jump forward nor one back can keep anything alive.
    """
    return now_ns >= ends_ns or now_ns < started_ns - SLACK_NS


class Timekeeper:
    """Reads a clock in the two ways that the module describes."""

    def __init__(self, *, clock: Clock) -> None:
        """Take the clock's present reading as the point from which its steadiness is judged."""
        self._clock = clock
        self._wall_ns = clock.wall_ns()
        self._steady_s = clock.steady_s()

    def __repr__(self) -> str:
        return f"Timekeeper(jumped_s={(self._clock.wall_ns() - self._expected_ns()) / 1e9:.1f})"

    def steady_s(self) -> float:
        """Return the monotonic clock."""
        return self._clock.steady_s()

    def now_ns(self) -> int:
        """Return the time for records and deadlines: never earlier than the monotonic clock says."""
        return max(self._clock.wall_ns(), self._expected_ns())

    def trusted_ns(self) -> int:
        """Return the time for credit: never later than the monotonic clock says."""
        return min(self._clock.wall_ns(), self._expected_ns())

    def _expected_ns(self) -> int:
        return self._wall_ns + int((self._clock.steady_s() - self._steady_s) * 1e9)
