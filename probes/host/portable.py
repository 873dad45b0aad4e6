"""`host.portable`: what can be seen of a host that is no Linux: memory that is left, and listening sockets.

For macOS, by psutil (its documentation says what each system gives). An unprivileged user sees the sockets of
its own processes alone, so the inventory is of those: run the agent as the user whose services are to be
watched. There is no pressure accounting, no cgroup and no unit; a process is known by its name.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any, Final

from probes.observation import (
    BlindReason,
    Instant,
    Listener,
    ListenerInventory,
    MemoryState,
    Observation,
    Origin,
    SensorName,
)
from probes.sensor import SensorBlind

NAME: Final = SensorName("host.portable")
_LISTENERS_MAX: Final = 4096


class PortableSensor:
    """Asks psutil."""

    name = NAME
    period_s = 15.0

    def __init__(self) -> None:
        self._psutil: Any = None
        self._swapped_in = 0

    def __repr__(self) -> str:
        return f"PortableSensor({NAME}, {'open' if self._psutil else 'closed'})"

    def open(self) -> None:
        """Find psutil; raise SensorBlind without it."""
        try:
            import psutil  # noqa: PLC0415 -- not there, and not needed, on Linux
        except ImportError as error:
            raise SensorBlind(BlindReason.NO_LIBRARY, "psutil is not installed") from error
        self._psutil = psutil
        self._swapped_in = self._swap().sin

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return the memory and the listeners as they are."""
        if self._psutil is None:
            raise SensorBlind(BlindReason.READ_FAILED, "the sensor is not open")
        try:
            return (self._memory(now), self._inventory(now))
        except (OSError, self._psutil.Error) as error:
            raise SensorBlind(BlindReason.READ_FAILED, f"{type(error).__name__}: {error}") from error

    def waiting(self) -> bool:
        """There is always something to tell."""
        return True

    def settle(self) -> None:
        """Nothing to note: every look is whole."""

    def wakeup_fd(self) -> int | None:
        """A look waits for its turn."""
        return None

    def close(self) -> None:
        """Let go of the library."""
        self._psutil = None

    def _swap(self) -> Any:
        try:
            return self._psutil.swap_memory()
        except (OSError, self._psutil.Error) as error:
            raise SensorBlind(BlindReason.READ_FAILED, f"{type(error).__name__}: {error}") from error

    def _memory(self, now: Instant) -> MemoryState:
        memory, swap = self._psutil.virtual_memory(), self._swap()
        before, self._swapped_in = self._swapped_in, swap.sin
        return MemoryState(
            sensor=NAME,
            at=now,
            total_bytes=memory.total,
            available_bytes=memory.available,
            free_bytes=memory.free,
            cached_bytes=max(0, memory.available - memory.free),
            swap_total_bytes=swap.total,
            swap_free_bytes=swap.free,
            some_avg10=None,
            full_avg10=None,
            window_s=self.period_s,
            full_stalled_s=0.0,
            allocation_stalls=0,
            swapped_in_pages=max(0, swap.sin - before) // os.sysconf("SC_PAGE_SIZE"),
            major_faults=0,
            oom_kills=0,
        )

    def _inventory(self, now: Instant) -> ListenerInventory:
        addresses = tuple(
            (address.address.partition("%")[0], interface)
            for interface, each in sorted(self._psutil.net_if_addrs().items())
            for address in each
            if address.family in {socket.AF_INET, socket.AF_INET6}
        )
        listeners = tuple(self._listeners())[:_LISTENERS_MAX]
        return ListenerInventory(sensor=NAME, at=now, listeners=listeners, host_addresses=addresses)

    def _listeners(self) -> Iterator[Listener]:
        """Yield the listening TCP sockets of processes that this user may look into."""
        for process in self._psutil.process_iter(["pid", "name"]):
            with contextlib.suppress(OSError, self._psutil.Error):  # another user's, or gone meanwhile
                for each in process.net_connections(kind="tcp"):
                    if each.status == self._psutil.CONN_LISTEN and each.laddr:
                        origin = Origin(pid=process.info["pid"], process_name=process.info["name"])
                        yield Listener(address=each.laddr.ip, port=each.laddr.port, origin=origin)
