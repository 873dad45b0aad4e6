"""The servers of this host as `host.servers` found them last, for the sensors that look more closely.

A search of all processes is what costs, so it is done once; who wants to know reads the result here. Written
and read on the one thread of the sensors that take their time. Without `host.servers` nobody is known.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from probes.origin import Origin


@dataclass(frozen=True, slots=True)
class KnownServer:
    """A server: its main process, the port that it seems to serve on, and all its processes, smallest first.

    `companion` is what runs no model itself: a gateway, a database; of it the main process alone is known.
    """

    origin: Origin
    port: int
    pids: tuple[int, ...]
    companion: bool = False


class KnownServers:
    """Who serves here, as of the last search."""

    def __init__(self) -> None:
        self._servers: tuple[KnownServer, ...] = ()

    def __repr__(self) -> str:
        return f"KnownServers({len(self._servers)})"

    def __call__(self) -> tuple[KnownServer, ...]:
        """Return the servers."""
        return self._servers

    def post(self, servers: Iterable[KnownServer]) -> None:
        """Take what was found in place of what was known."""
        self._servers = tuple(servers)
