"""How many segments went out of each TCP connection of the host, and how many of them again, from sock_diag.

Every socket keeps its own account (struct tcp_info, linux/tcp.h), readable without privilege. A dump costs
as much as there are connections, so it is asked only for reason, and bounded: what does not fit is left out.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from probes.host.sockets import SocketsUnreadable, attributes, canonical, dump

CONNECTIONS_MAX: Final = 8192

_NETLINK_SOCK_DIAG: Final = 4  # linux/netlink.h
_SOCK_DIAG_BY_FAMILY: Final = 20
_TCP: Final = 6
_STATES: Final = 1 << 1 | 1 << 4 | 1 << 8  # ESTABLISHED, FIN_WAIT1, CLOSE_WAIT: those that still send
_INFO: Final = 2  # INET_DIAG_INFO
_DIAG: Final = struct.Struct("=BBBB2s2s16s16sI8sIIIII")  # struct inet_diag_msg
_TOTAL_RETRANSMITTED: Final = 100  # tcpi_total_retrans, and below tcpi_segs_out, in struct tcp_info
_SEGMENTS_OUT: Final = 136
_U32: Final = struct.Struct("=I")


@dataclass(frozen=True, slots=True)
class Connection:
    """One life of one connection: the remote address, both ports, the kernel's cookie of the socket."""

    address: str
    ports: bytes
    cookie: bytes


@dataclass(frozen=True, slots=True)
class Account:
    """What a connection has sent since it was made."""

    segments: int
    retransmitted: int


_NOTHING: Final = Account(0, 0)


def accounts() -> Mapping[Connection, Account]:
    """Return the account of every sending connection of this network namespace; raise SocketsUnreadable."""
    if sys.platform != "linux":
        raise SocketsUnreadable(f"the socket table of {sys.platform} is not read")
    found: dict[Connection, Account] = {}
    try:
        for family in (socket.AF_INET, socket.AF_INET6):
            # struct inet_diag_req_v2: family, protocol, extensions, padding, states, then an empty socket id
            request = struct.pack("=BBBBI48s", family, _TCP, 1 << (_INFO - 1), 0, _STATES, b"")
            for kind, body in dump(_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, request):
                found.update(parse(kind, body))
                if len(found) >= CONNECTIONS_MAX:
                    return found
    except OSError as error:
        raise SocketsUnreadable(f"sock_diag: {error}") from error
    return found


def parse(kind: int, body: bytes) -> Iterator[tuple[Connection, Account]]:
    """Read one answer of sock_diag; anything else, and what is cut off or too short, yields nothing."""
    if kind != _SOCK_DIAG_BY_FAMILY or len(body) < _DIAG.size:
        return
    family, _, _, _, source_port, port, _, address, _, cookie, *_ = _DIAG.unpack_from(body)
    width = {int(socket.AF_INET): 4, int(socket.AF_INET6): 16}.get(family)
    if width is None:
        return
    for number, value in attributes(body[_DIAG.size :]):
        if number == _INFO and len(value) >= _SEGMENTS_OUT + _U32.size:
            connection = Connection(canonical(address[:width]), source_port + port, cookie)
            segments: int = _U32.unpack_from(value, _SEGMENTS_OUT)[0]
            again: int = _U32.unpack_from(value, _TOTAL_RETRANSMITTED)[0]
            yield connection, Account(segments, again)


def sent_between(
    before: Mapping[Connection, Account],
    after: Mapping[Connection, Account],
    *,
    limit: int = CONNECTIONS_MAX,
) -> dict[str, Account]:
    """Return what went to each address between two dumps, over connections that the later one shows.

    One that ended in between is left out on both sides of the fraction, so the ratio stays true. Where the
    earlier dump was cut off, so is one that it does not show: it may be old.
    """
    found: dict[str, Account] = {}
    whole = len(before) < limit
    for connection, now in after.items():
        then = before.get(connection, _NOTHING if whole else None)
        if then is None:
            continue
        sum_ = found.get(connection.address, _NOTHING)
        found[connection.address] = Account(
            sum_.segments + (now.segments - then.segments & 0xFFFFFFFF),
            sum_.retransmitted + (now.retransmitted - then.retransmitted & 0xFFFFFFFF),
        )
    return found
