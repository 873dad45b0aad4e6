"""What the service manager hears: ready, status, watchdog, stopping; and the descriptors it keeps for us.

systemd-python is optional. Without it, or outside systemd, the silent supervisor answers: nothing is told
and nothing is kept, and `doctor` says so. The watchdog is fed by the work loop alone; a loop that is stuck
starves it, and the service manager restarts us with our descriptors.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

try:
    _daemon: Any = importlib.import_module("systemd.daemon")
except ImportError:  # not on macOS, and optional on Linux
    _daemon = None


class Supervisor(Protocol):
    """The service manager, as far as the agent talks to it."""

    @property
    def present(self) -> bool:
        """Whether there is one."""

    @property
    def watchdog_s(self) -> float | None:
        """The longest silence that the watchdog bears, or None when there is no watchdog."""

    def tell(self, *lines: str) -> None:
        """Send assignments such as ``READY=1``."""

    def keep(self, name: str, descriptor: int) -> None:
        """Give a duplicate of `descriptor` into safe keeping under `name`."""

    def drop(self, name: str) -> None:
        """Take everything kept under `name` out of keeping."""

    def kept(self) -> Sequence[tuple[str, int]]:
        """Return what was kept for this process, once: the names and the open descriptors."""


class SilentSupervisor:
    """No service manager."""

    present = False
    watchdog_s: float | None = None

    def tell(self, *lines: str) -> None:
        """Tell nobody."""

    def keep(self, name: str, descriptor: int) -> None:
        """Keep nothing."""

    def drop(self, name: str) -> None:
        """There is nothing to drop."""

    def kept(self) -> Sequence[tuple[str, int]]:
        """Nothing was kept."""
        return ()


class Systemd:
    """systemd, over its notification socket."""

    present = True

    def __init__(self, *, watchdog_s: float | None) -> None:
        self.watchdog_s = watchdog_s

    def tell(self, *lines: str) -> None:
        """Send one notification; a manager that is away for a moment does not hear it, and nothing breaks."""
        with contextlib.suppress(OSError):
            _daemon.notify("\n".join(lines))

    def keep(self, name: str, descriptor: int) -> None:
        """Store a descriptor; FDPOLL=0, because a perf descriptor looks hung up when it is idle."""
        _daemon.notify(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", fds=[descriptor])

    def drop(self, name: str) -> None:
        """Remove stored descriptors: the store keeps duplicates under one name."""
        _daemon.notify(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def kept(self) -> Sequence[tuple[str, int]]:
        """Return the stored descriptors that this start was given."""
        return [(name, descriptor) for descriptor, name in _daemon.listen_fds_with_names().items()]


def supervisor(environment: Mapping[str, str]) -> Supervisor:
    """Return systemd when it runs us and can be talked to, else the silent one."""
    if _daemon is None or not environment.get("NOTIFY_SOCKET"):
        return SilentSupervisor()
    watchdog_s = None
    if environment.get("WATCHDOG_USEC", "").isdigit() and environment.get("WATCHDOG_PID") in {
        None,
        str(os.getpid()),
    }:
        watchdog_s = int(environment["WATCHDOG_USEC"]) / 1e6
    return Systemd(watchdog_s=watchdog_s)


def speaks_systemd() -> bool:
    """Return whether systemd-python is installed."""
    return _daemon is not None
