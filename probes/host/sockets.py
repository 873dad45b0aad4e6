"""The host's own listening TCP sockets and addresses, from netlink (sock_diag, rtnetlink), else from /proc.

sock_diag names the cgroup of every socket without any privilege, and with it the container; /proc/net/tcp
stands in where a sandbox refuses netlink. Both show the reader's own network namespace, which is the host's.
Parsing is pure and bounded: what does not fit ends the walk.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from probes.observation import CgroupId

_NETLINK_ROUTE, _NETLINK_SOCK_DIAG = 0, 4  # linux/netlink.h
_AF_NETLINK = getattr(socket, "AF_NETLINK", 16)
_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_ROOT | NLM_F_MATCH
_DONE, _ERROR = 3, 2
_SOCK_DIAG_BY_FAMILY, _RTM_GETADDR, _RTM_NEWADDR = 20, 22, 20
_LISTEN = 10  # TCP_LISTEN
_TCP = 6
_HEADER = struct.Struct("=IHHII")
_DIAG = struct.Struct("=BBBB2s2s16s16sI8sIIIII")  # struct inet_diag_msg
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg
_ATTRIBUTE = struct.Struct("=HH")
_CGROUP_ID = 21  # INET_DIAG_CGROUP_ID
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_MAX_BYTES = 64 << 20
_PIECE_BYTES = 32 << 10
"""The most that the kernel puts into one piece of a dump (libmnl's MNL_SOCKET_DUMP_SIZE says so too).

What is asked for beyond it is mapped, overwritten and given back each time, for nothing: at 256 KiB that took
five sixths of reading the table of listeners.
"""
_TIMEOUT_S = 5.0


class SocketsUnreadable(Exception):
    """Neither netlink nor /proc shows the socket table."""


@dataclass(frozen=True, slots=True)
class ListeningSocket:
    """One row of the socket table. `cgroup_id` is that of who made the socket, None if unknown."""

    address: str
    port: int
    cgroup_id: CgroupId | None = None


@lru_cache(maxsize=1024)
def canonical(packed: bytes) -> str:
    """Return an address of 4 or 16 bytes in canonical text; IPv4 in IPv6 clothes as IPv4."""
    address = ipaddress.ip_address(packed)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped if mapped is not None else address)


def listening_sockets(proc: Path = Path("/proc")) -> tuple[ListeningSocket, ...]:
    """Return every listening TCP socket of this network namespace, sorted; raise SocketsUnreadable."""
    if sys.platform != "linux":
        raise SocketsUnreadable(f"the socket table of {sys.platform} is not read")
    try:
        found = [s for family in (socket.AF_INET, socket.AF_INET6) for s in _diag(family)]
    except OSError as error:
        found = list(_proc_listeners(proc, refused=error))
    return tuple(sorted(set(found), key=lambda s: (s.address, s.port, s.cgroup_id or 0)))


def host_addresses(proc: Path = Path("/proc")) -> tuple[tuple[str, str], ...]:
    """Return (address, interface name) of this network namespace, sorted; an unknown interface is `?`."""
    try:
        found = [
            pair for data in dump(_NETLINK_ROUTE, _RTM_GETADDR, b"\0" * 8) for pair in parse_address(*data)
        ]
    except OSError:
        found = list(_proc_addresses(proc))
    return tuple(sorted(set(found)))


def parse_diag(kind: int, body: bytes) -> Iterator[ListeningSocket]:
    """Read one answer of sock_diag; anything else, and what is cut off, yields nothing."""
    if kind != _SOCK_DIAG_BY_FAMILY or len(body) < _DIAG.size:
        return
    family, state, _, _, port, _, source, *_ = _DIAG.unpack_from(body)
    if state != _LISTEN:
        return
    width = {int(socket.AF_INET): 4, int(socket.AF_INET6): 16}.get(family)
    if width is None:
        return
    cgroup_id = None
    for number, value in attributes(body[_DIAG.size :]):
        if number == _CGROUP_ID and len(value) == 8:
            cgroup_id = CgroupId(int.from_bytes(value, sys.byteorder))
    yield ListeningSocket(canonical(source[:width]), int.from_bytes(port, "big"), cgroup_id)


def parse_address(
    kind: int, body: bytes, name_of: Callable[[int], str] = socket.if_indextoname
) -> Iterator[tuple[str, str]]:
    """Read one answer of RTM_GETADDR; anything else, and what is cut off, yields nothing."""
    if kind != _RTM_NEWADDR or len(body) < _ADDRESS.size:
        return
    family, _, _, _, index = _ADDRESS.unpack_from(body)
    width = {int(socket.AF_INET): 4, int(socket.AF_INET6): 16}.get(family)
    if width is None:
        return
    values = dict(attributes(body[_ADDRESS.size :]))
    # On a point-to-point link IFA_ADDRESS is the other end; IFA_LOCAL is ours.
    value = values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS) or b""
    if len(value) != width:
        return
    try:
        name = name_of(index)
    except (OSError, OverflowError):
        name = "?"
    yield canonical(value), name


def parse_proc_tcp(text: str) -> Iterator[ListeningSocket]:
    """Read /proc/net/tcp or tcp6; lines that are none of a listening socket yield nothing."""
    for line in text.splitlines()[1:]:
        parts = line.split()
        if len(parts) < 4 or parts[3].upper() != "0A":
            continue
        host, _, port = parts[1].partition(":")
        try:
            packed, number = bytes.fromhex(host), int(port, 16)
        except ValueError:
            continue
        if len(packed) not in (4, 16) or not 0 <= number < 1 << 16:
            continue
        # Each group of four bytes is printed as a number of the machine's own byte order.
        if sys.byteorder == "little":
            packed = b"".join(packed[i : i + 4][::-1] for i in range(0, len(packed), 4))
        yield ListeningSocket(canonical(packed), number)


def _diag(family: int) -> Iterator[ListeningSocket]:
    # struct inet_diag_req_v2: family, protocol, extensions, padding, states, then an empty socket id
    request = struct.pack("=BBBBI48s", family, _TCP, 0, 0, 1 << _LISTEN, b"")
    for kind, body in dump(_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, request):
        yield from parse_diag(kind, body)


def dump(protocol: int, kind: int, request: bytes) -> Iterator[tuple[int, bytes]]:
    """Ask the kernel for a table and yield (message type, body) until it says that it is done."""
    with socket.socket(_AF_NETLINK, socket.SOCK_RAW, protocol) as link:
        link.settimeout(_TIMEOUT_S)
        link.sendto(_HEADER.pack(_HEADER.size + len(request), kind, _DUMP, 1, 0) + request, (0, 0))
        taken = 0
        while taken < _MAX_BYTES:
            data = link.recv(_PIECE_BYTES)
            taken += len(data)
            for message in messages(data):
                if message[0] == _DONE:
                    return
                if message[0] == _ERROR:
                    code = int.from_bytes(message[1][:4], sys.byteorder, signed=True)
                    raise OSError(-code, "netlink refused the dump")
                yield message


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Split what one read of a netlink socket returned into (type, body)."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            return
        yield kind, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Split the end of a netlink message into (number, value)."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, number = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size or at + length > len(data):
            return
        yield number & 0x3FFF, data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3


def _proc_listeners(proc: Path, *, refused: OSError) -> Iterator[ListeningSocket]:
    read = 0
    for name in ("tcp", "tcp6"):
        try:
            text = (proc / "self/net" / name).read_text(errors="replace")
        except OSError:
            continue  # a host without IPv6 has no tcp6
        read += 1
        yield from parse_proc_tcp(text)
    if not read:
        raise SocketsUnreadable(f"sock_diag: {refused}; {proc}/self/net/tcp cannot be read") from refused


def _proc_addresses(proc: Path) -> Iterator[tuple[str, str]]:
    for line in _lines(proc / "self/net/if_inet6"):
        parts = line.split()
        if len(parts) == 6 and len(parts[0]) == 32:
            yield canonical(bytes.fromhex(parts[0])), parts[5]
    before = ""
    for line in _lines(proc / "self/net/fib_trie"):
        text = line.strip()
        if text.startswith("|-- "):
            before = text[4:]
        elif text == "/32 host LOCAL":
            yield before, "lo" if before.startswith("127.") else "?"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
