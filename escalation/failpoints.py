"""Named places where a crash test lets the process kill itself, exactly as a power cut would.

`NANOBOT_FAILPOINT=agent.after_commit` makes the process send itself SIGKILL the first time it gets there;
`NANOBOT_FAILPOINT=agent.after_commit:3` the third time. Without the variable a point costs one comparison.
"""

from __future__ import annotations

import os
import signal
from typing import Final

POINTS: Final = (
    "agent.after_commit",
    "agent.before_commit",
    "server.after_ack",
    "server.after_commit",
    "server.after_notice",
    "server.before_commit",
    "uplink.after_send",
    "uplink.before_forget",
)


class Failpoints:
    """Kills this process at one named point, after it was passed often enough."""

    def __init__(self, *, wanted: str) -> None:
        name, _, times = wanted.partition(":")
        if name and name not in POINTS:
            raise ValueError(f"NANOBOT_FAILPOINT: unknown point {name!r}, known are {', '.join(POINTS)}")
        self._name = name
        self._left = int(times or 1)

    def __repr__(self) -> str:
        return f"Failpoints({self._name!r}, left={self._left})"

    def reach(self, point: str) -> None:
        """Die here when this is the point, and the time."""
        if point != self._name:
            return
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


_FAILPOINTS: Final = Failpoints(wanted=os.environ.get("NANOBOT_FAILPOINT", ""))


def reach(point: str) -> None:
    """Die at `point` when the environment says so."""
    _FAILPOINTS.reach(point)
