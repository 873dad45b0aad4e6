"""`host.manager`: the service manager read its units again, seen without asking it.

A reload makes systemd apply device lists anew, which is how containers that were given a GPU behind its back
lose it. Its D-Bus signal would need a connection for something that leaves a mark in the file system anyway:
since version 250 systemd touches /run/systemd/systemd-units-load whenever it has loaded its units, and every
version makes /run/systemd/generator anew at a reload. One stat(2) in each glance of the work loop.

A host without systemd has no such manager, so there is nothing to be blind to.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from probes.observation import Instant, ManagerReloaded, Observation, SensorName

NAME: Final = SensorName("host.manager")
MARKS: Final = ("systemd-units-load", "generator")
_FRESH_NS: Final = 60_000_000_000

_Mark = tuple[int, int]


class ManagerSensor:
    """Tells of each reload of the service manager once, with the moment at which it was over."""

    name = NAME
    period_s = 0.25

    def __init__(self, *, folder: Path = Path("/run/systemd"), marks: Sequence[str] = MARKS) -> None:
        self._paths = tuple(str(folder / mark) for mark in marks)
        self._known: _Mark | None = None
        self._path = self._paths[0]

    def __repr__(self) -> str:
        return f"ManagerSensor({NAME}, {self._path}, mark={self._known})"

    def open(self) -> None:
        """Choose the mark that this systemd leaves, and take it as it stands as known."""
        self._path = next((path for path in self._paths if _mark(path) is not None), self._paths[0])
        self._known = _mark(self._path)

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return the reload since the last read, if there was one."""
        mark = _mark(self._path)
        if mark is None or mark == self._known:
            return ()
        self._known = mark
        age_ns = now.unix_ns - mark[1]
        if not 0 <= age_ns < _FRESH_NS:
            return (ManagerReloaded(NAME, now),)  # the wall clock was set meanwhile
        return (ManagerReloaded(NAME, Instant(now.boot_ns - age_ns, mark[1])),)

    def waiting(self) -> bool:
        """Whether the mark has changed since the last read."""
        mark = _mark(self._path)
        return mark is not None and mark != self._known

    def settle(self) -> None:
        """Nothing to note: a successor takes the mark as it finds it."""

    def wakeup_fd(self) -> int | None:
        """A reload waits for its turn."""
        return None

    def close(self) -> None:
        """Hold nothing, let go of nothing."""


def _mark(path: str) -> _Mark | None:
    """Return inode and time of change; None while there is no such file, as in the middle of a reload."""
    try:
        found = os.stat(path)  # noqa: PTH116 -- hot path, no Path objects
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns
