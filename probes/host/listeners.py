"""`host.listeners`: every listening TCP socket of the host, at the start and once a minute.

The kernel's events (`kernel.listener`) are quick but begin when the agent does and say nothing of the network
namespace; this is the whole truth of the host's own namespace, some seconds old.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from probes.host.identity import Identifier
from probes.host.sockets import ListeningSocket, SocketsUnreadable, host_addresses, listening_sockets
from probes.observation import BlindReason, Instant, Listener, ListenerInventory, Observation, SensorName
from probes.sensor import SensorBlind

NAME = SensorName("host.listeners")


class HostListeners:
    """Takes the inventory of listeners and of the host's own addresses."""

    name = NAME
    period_s = 60.0

    def __init__(
        self,
        *,
        identifier: Identifier,
        sockets: Callable[[], tuple[ListeningSocket, ...]] = listening_sockets,
        addresses: Callable[[], tuple[tuple[str, str], ...]] = host_addresses,
    ) -> None:
        self._identifier = identifier
        self._sockets = sockets
        self._addresses = addresses

    def __repr__(self) -> str:
        return "HostListeners()"

    def open(self) -> None:
        """Try once, so that a host whose table cannot be read is blind from the start."""
        self._table()

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return one inventory."""
        listeners = tuple(
            Listener(address=s.address, port=s.port, origin=self._identifier.origin(cgroup_id=s.cgroup_id))
            for s in self._table()
        )
        return [ListenerInventory(sensor=NAME, at=now, listeners=listeners, host_addresses=self._addresses())]

    def waiting(self) -> bool:
        """There is always an inventory."""
        return True

    def settle(self) -> None:
        """Nothing to note: every inventory is whole."""

    def wakeup_fd(self) -> int | None:
        """An inventory waits for its turn."""
        return None

    def close(self) -> None:
        """Hold nothing, let go of nothing."""

    def _table(self) -> tuple[ListeningSocket, ...]:
        try:
            return self._sockets()
        except SocketsUnreadable as error:
            raise SensorBlind(BlindReason.UNSUPPORTED_PLATFORM, str(error)) from error
