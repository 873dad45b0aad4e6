"""Connections that wait at listening sockets: the accept queue of each, by sock_diag.

For a listening socket the kernel gives the number of connections that are established and not accepted as its
receive queue, and the most that may wait as its send queue (net/ipv4/tcp_diag.c, tcp_diag_get_info). A socket
is told from another by its cookie, which is not used again.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from probes.host.sockets import SocketsUnreadable, attributes, canonical, dump
from probes.observation import CgroupId

_SOCK_DIAG: Final = 4  # NETLINK_SOCK_DIAG, linux/netlink.h
_BY_FAMILY: Final = 20  # SOCK_DIAG_BY_FAMILY
_TCP: Final = 6
_LISTEN: Final = 10  # TCP_LISTEN
_MESSAGE: Final = struct.Struct("=BBBB2s2s16s16sIQIIIII")  # struct inet_diag_msg
_CGROUP_ID: Final = 21  # INET_DIAG_CGROUP_ID
_WIDTHS: Final = {int(socket.AF_INET): 4, int(socket.AF_INET6): 16}


@dataclass(frozen=True, slots=True)
class Backlog:
    """One listening socket: `waiting` connections of at most `limit`, and the group that made it."""

    cookie: int
    address: str
    port: int
    waiting: int
    limit: int
    cgroup_id: CgroupId | None


def backlogs() -> tuple[Backlog, ...]:
    """Return every listening TCP socket of this network namespace; raise SocketsUnreadable."""
    if sys.platform != "linux":
        raise SocketsUnreadable(f"the socket table of {sys.platform} is not read")
    try:
        return tuple(one for family in _WIDTHS for one in _listening(family))
    except OSError as error:
        raise SocketsUnreadable(f"sock_diag: {error}") from error


def parse_backlog(kind: int, body: bytes) -> Backlog | None:
    """Read one answer of sock_diag; None for anything else, and for what is cut off."""
    if kind != _BY_FAMILY or len(body) < _MESSAGE.size:
        return None
    family, state, _, _, port, _, source, _, _, cookie, _, waiting, limit, *_ = _MESSAGE.unpack_from(body)
    width = _WIDTHS.get(family)
    if state != _LISTEN or width is None:
        return None
    found = dict(attributes(body[_MESSAGE.size :])).get(_CGROUP_ID, b"")
    cgroup_id = CgroupId(int.from_bytes(found, sys.byteorder)) if len(found) == 8 else None
    return Backlog(cookie, canonical(source[:width]), int.from_bytes(port, "big"), waiting, limit, cgroup_id)


def _listening(family: int) -> Iterator[Backlog]:
    # struct inet_diag_req_v2: family, protocol, extensions, padding, states, then an empty socket id
    request = struct.pack("=BBBBI48s", family, _TCP, 0, 0, 1 << _LISTEN, b"")
    for kind, body in dump(_SOCK_DIAG, _BY_FAMILY, request):
        found = parse_backlog(kind, body)
        if found is not None:
            yield found
