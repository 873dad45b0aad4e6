"""The packet socket: another way to see model servers' traffic, for hosts without a cgroup v2 hierarchy.

The socket is opened and given its filter here, with CAP_NET_RAW, and handed over like a ring. The filter lets
TCP of the watched ports pass that carries data or begins or ends a connection; the agent can read through it
and cannot change it (SO_LOCK_FILTER). On loopback every packet passes twice, and the copy that leaves is left
out. A classic filter rather than a program of bcc: it takes neither a compiler nor CAP_BPF.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

_SO_RCVBUFFORCE, _SO_TIMESTAMPNS, _SO_ATTACH_FILTER, _SO_LOCK_FILTER = 33, 35, 26, 44  # asm-generic/socket.h
_ETH_P_ALL = 3
_RECEIVE_BYTES = 8 << 20
_WHOLE = 0x40000
# Classic BPF, linux/filter.h and linux/bpf_common.h.
_LOAD_BYTE, _LOAD_HALF, _LOAD_WORD, _LOAD_LENGTH = 0x30, 0x28, 0x20, 0x80
_LOAD_BYTE_AT_X, _LOAD_HALF_AT_X, _X_FROM_IHL, _X_IS = 0x50, 0x48, 0xB1, 0x01
_ADD_X, _SHIFT_RIGHT, _AND, _TO_X = 0x0C, 0x74, 0x54, 0x07
_EQUAL, _ABOVE_X, _ANY_BIT, _JUMP, _RETURN = 0x15, 0x2D, 0x45, 0x05, 0x06
_PACKET_TYPE, _INTERFACE = 0xFFFFF004, 0xFFFFF008  # SKF_AD_OFF + SKF_AD_PKTTYPE, SKF_AD_IFINDEX
_PACKET_OUTGOING, _LOOPBACK, _TCP, _HOP_BY_HOP = 4, 1, 6, 0
DROP_IN = "which the drop-in packet-capture.conf gives to the loader's unit (explanation/privileges.md)"
_Step = tuple[str, int, int, str, str]


def open_packet_socket(ports: Sequence[int]) -> socket.socket:
    """Open the socket on all interfaces; raise OSError with the kernel's errno."""
    steps = filter_for(ports)
    buffer = ctypes.create_string_buffer(steps, len(steps))
    program = struct.pack("@HP", len(steps) // 8, ctypes.addressof(buffer))
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
    try:
        # It hears nothing before it is bound, so nothing passes before the filter stands.
        opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        opened.setsockopt(socket.SOL_SOCKET, _SO_LOCK_FILTER, 1)
        opened.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        try:
            opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BYTES)
        except PermissionError:  # without CAP_NET_ADMIN: up to net.core.rmem_max
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        _bind_to_all(opened)
    except BaseException:
        opened.close()
        raise
    return opened


def in_a_network_of_its_own(
    init: Path = Path("/proc/1/ns/net"), devices: Path = Path("/proc/self/net/dev")
) -> bool:
    """Whether this process sees another network than the host's, as far as can be told.

    The namespace of the first process is compared where it may be read; else, as in a unit with
    `PrivateNetwork=`, a network of loopback alone is none of a host's.
    """
    with contextlib.suppress(OSError):
        return init.readlink() != Path("/proc/self/ns/net").readlink()
    try:  # a file, because the unit as it is shipped may open no socket to ask for names
        lines = devices.read_text().splitlines()
    except OSError:
        return False
    return [line.partition(":")[0].strip() for line in lines if ":" in line] == ["lo"]


def filter_for(ports: Sequence[int]) -> bytes:
    """Return the filter as an array of struct sock_filter; the packet begins with its IP header."""
    any_port = [("", _EQUAL, port, "matched", "") for port in ports]
    steps: list[_Step] = [
        ("", _LOAD_WORD, _PACKET_TYPE, "", ""),
        ("", _EQUAL, _PACKET_OUTGOING, "", "version"),
        ("", _LOAD_WORD, _INTERFACE, "", ""),
        ("", _EQUAL, _LOOPBACK, "drop", ""),
        ("version", _LOAD_BYTE, 0, "", ""),
        ("", _SHIFT_RIGHT, 4, "", ""),
        ("", _EQUAL, 6, "ipv6", ""),
        ("", _EQUAL, 4, "", "drop"),
        ("", _LOAD_BYTE, 9, "", ""),
        ("", _EQUAL, _TCP, "", "drop"),
        ("", _LOAD_HALF, 6, "", ""),
        ("", _ANY_BIT, 0x3FFF, "drop", ""),  # a fragment
        ("", _X_FROM_IHL, 0, "", ""),
        ("", _JUMP, 0, "tcp", ""),
        ("ipv6", _X_IS, 40, "", ""),
        ("", _LOAD_BYTE, 6, "", ""),
        ("", _EQUAL, _TCP, "tcp", ""),
        ("", _EQUAL, _HOP_BY_HOP, "", "drop"),
        ("", _LOAD_HALF, 40, "", ""),
        ("", _EQUAL, _TCP << 8, "", "drop"),  # the next is TCP, and the option is of eight bytes
        ("", _X_IS, 48, "", ""),
        ("tcp", _LOAD_HALF_AT_X, 0, "", ""),
        *any_port,
        ("", _LOAD_HALF_AT_X, 2, "", ""),
        *any_port,
        ("drop", _RETURN, 0, "", ""),
        ("matched", _LOAD_BYTE_AT_X, 13, "", ""),
        ("", _ANY_BIT, 0x07, "pass", ""),  # FIN, SYN, RST
        ("", _LOAD_BYTE_AT_X, 12, "", ""),
        ("", _SHIFT_RIGHT, 2, "", ""),
        ("", _AND, 0x3C, "", ""),
        ("", _ADD_X, 0, "", ""),
        ("", _TO_X, 0, "", ""),
        ("", _LOAD_LENGTH, 0, "", ""),
        ("", _ABOVE_X, 0, "pass", ""),
        ("", _RETURN, 0, "", ""),
        ("pass", _RETURN, _WHOLE, "", ""),
    ]
    places = {step[0]: number for number, step in enumerate(steps) if step[0]}

    def packed(number: int, step: _Step) -> bytes:
        _, code, value, then, otherwise = step
        far = [places[label] - number - 1 if label else 0 for label in (then, otherwise)]
        if code == _JUMP:
            return struct.pack("=HBBI", code, 0, 0, far[0])
        return struct.pack("=HBBI", code, far[0], far[1], value)

    return b"".join(packed(number, step) for number, step in enumerate(steps))


def explanation(error: OSError) -> str:
    """Say what it takes where the kernel refused."""
    told = f"open a packet socket: {error.strerror}"
    if error.errno in (errno.EPERM, errno.EACCES, errno.EAFNOSUPPORT):
        return f"{told}: it takes CAP_NET_RAW and AF_PACKET, {DROP_IN}"
    return told


def _bind_to_all(opened: socket.socket) -> None:
    """Python's own bind takes no packet address without an interface."""
    address = struct.pack("=HHi12x", socket.AF_PACKET, socket.htons(_ETH_P_ALL), 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.bind(opened.fileno(), address, len(address)):
        code = ctypes.get_errno()
        raise OSError(code, f"bind to all interfaces: {os.strerror(code)}")
