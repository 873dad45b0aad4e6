"""`host.sessions`: how many connections the databases and cluster heads of this host hold, from sock_diag.

Asked for by port, so the kernel passes over all other sockets, and only where somebody listens on that port.
Sockets of the host's own network namespace count: of a service whose port a container engine passes on, those
of the engine's proxy.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from probes.host.sockets import ListeningSocket, SocketsUnreadable, canonical, dump, listening_sockets
from probes.observation import BlindReason, Instant, Observation, Origin, SensorName, Sessions
from probes.sensor import SensorBlind

NAME: Final = SensorName("host.sessions")
PORTS: Final = (5432, 6379)
"""PostgreSQL, and the head of a Ray cluster."""

SESSIONS_MAX: Final = 8192

_NETLINK_SOCK_DIAG: Final = 4  # linux/netlink.h
_SOCK_DIAG_BY_FAMILY: Final = 20
_TCP: Final = 6
_ESTABLISHED: Final = 1 << 1
_DIAG: Final = struct.Struct("=BBBB2s2s16s16sI8sIIIII")  # struct inet_diag_msg


@dataclass(frozen=True, slots=True)
class Session:
    """One established connection of a service: the address at its other end."""

    peer: str


def sessions_on(port: int) -> tuple[Session, ...]:
    """Return the established connections whose own port this is; raise SocketsUnreadable."""
    if sys.platform != "linux":
        raise SocketsUnreadable(f"the socket table of {sys.platform} is not read")
    found: list[Session] = []
    try:
        for family in (socket.AF_INET, socket.AF_INET6):
            # struct inet_diag_req_v2; of the socket id only the own port is given, which makes it a filter
            request = struct.pack("=BBBBI", family, _TCP, 0, 0, _ESTABLISHED)
            request += struct.pack(">HH44x", port, 0)
            for kind, body in dump(_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, request):
                found.extend(parse(kind, body, port))
                if len(found) >= SESSIONS_MAX:
                    return tuple(found)
    except OSError as error:
        raise SocketsUnreadable(f"sock_diag: {error}") from error
    return tuple(found)


def parse(kind: int, body: bytes, port: int) -> Iterator[Session]:
    """Read one answer of sock_diag; anything else, and what is cut off, yields nothing."""
    if kind != _SOCK_DIAG_BY_FAMILY or len(body) < _DIAG.size:
        return
    family, _, _, _, own_port, _, _, address, *_ = _DIAG.unpack_from(body)
    width = {int(socket.AF_INET): 4, int(socket.AF_INET6): 16}.get(family)
    if width is not None and int.from_bytes(own_port, "big") == port:
        yield Session(canonical(address[:width]))


class SessionSensor:
    """Counts sessions by port, where somebody listens."""

    name = NAME
    period_s = 10.0

    def __init__(
        self,
        *,
        origin: Callable[[int], Origin],
        listening: Callable[[], Sequence[ListeningSocket]] = listening_sockets,
        sessions: Callable[[int], Sequence[Session]] = sessions_on,
        ports: Sequence[int] = PORTS,
    ) -> None:
        """`origin` says who serves in a cgroup (0: unknown)."""
        self._origin = origin
        self._listening = listening
        self._sessions = sessions
        self._ports = frozenset(ports)
        self._known: frozenset[int] = frozenset()

    def __repr__(self) -> str:
        return f"SessionSensor({NAME}, ports={sorted(self._known)})"

    def open(self) -> None:
        """Look whether the socket table can be read."""
        self._listeners()

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return how many sessions each service holds; a service that is gone holds none, told once."""
        listeners = self._listeners()
        found: list[Observation] = []
        for port in sorted(listeners.keys() | self._known):
            cgroup_id = listeners.get(port)
            held: Sequence[Session] = ()
            if cgroup_id is not None:
                try:
                    held = self._sessions(port)
                except SocketsUnreadable as error:
                    raise SensorBlind(BlindReason.READ_FAILED, str(error), last=found) from error
            found.append(
                Sessions(
                    sensor=NAME,
                    at=now,
                    origin=self._origin(cgroup_id or 0),
                    port=port,
                    sessions=len(held),
                    peers=len({session.peer for session in held}),
                )
            )
        self._known = frozenset(listeners)
        return found

    def waiting(self) -> bool:
        """It is read when its time comes."""
        return False

    def settle(self) -> None:
        """Nothing to note: each read is whole."""

    def wakeup_fd(self) -> int | None:
        """It waits for its turn."""
        return None

    def close(self) -> None:
        """Hold nothing, let go of nothing."""

    def _listeners(self) -> dict[int, int]:
        """Return the cgroup of whoever listens on each watched port, 0 where it is not told."""
        try:
            sockets = self._listening()
        except SocketsUnreadable as error:
            raise SensorBlind(BlindReason.READ_FAILED, str(error)) from error
        return {each.port: each.cgroup_id or 0 for each in sockets if each.port in self._ports}
