"""The socket table and the addresses, from netlink messages and /proc text, friendly and hostile."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from probes.host.cgroups import CgroupPaths
from probes.host.identity import Identifier
from probes.host.listeners import HostListeners
from probes.host.sockets import (
    ListeningSocket,
    SocketsUnreadable,
    canonical,
    host_addresses,
    listening_sockets,
    messages,
    parse_address,
    parse_diag,
    parse_proc_tcp,
)
from probes.observation import BlindReason, CgroupId, ListenerInventory
from probes.sensor import SensorBlind
from probes.testing import instant


def _diag(family: int, state: int, port: int, address: bytes, attributes: bytes = b"") -> bytes:
    head = struct.pack("=BBBB", family, state, 0, 0) + struct.pack(">HH", port, 0)
    return (
        head
        + address.ljust(16, b"\0")
        + b"\0" * 16
        + struct.pack("=I8sIIIII", 0, b"", 0, 0, 0, 0, 0)
        + attributes
    )


def _attribute(number: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), number) + value + b"\0" * (-len(value) % 4)


def test_reads_a_listener_with_its_cgroup() -> None:
    """sock_diag's answer, attributes in any order."""
    attributes = _attribute(8, b"\1") + _attribute(21, (77).to_bytes(8, sys.byteorder))
    body = _diag(socket.AF_INET, 10, 11434, b"\0\0\0\0", attributes)
    assert list(parse_diag(20, body)) == [ListeningSocket("0.0.0.0", 11434, CgroupId(77))]
    assert list(parse_diag(20, _diag(socket.AF_INET6, 10, 80, b"\0" * 16))) == [ListeningSocket("::", 80)]
    assert list(parse_diag(20, _diag(socket.AF_INET, 1, 80, b"\x7f\0\0\1"))) == []
    assert list(parse_diag(20, _diag(99, 10, 80, b""))) == []


def test_an_ipv4_address_in_ipv6_clothes_is_ipv4() -> None:
    """One address has one text."""
    assert canonical(bytes.fromhex("00000000000000000000ffff7f000001")) == "127.0.0.1"
    assert canonical(bytes.fromhex("fd7a115ca1e000000000000000000001")) == "fd7a:115c:a1e0::1"


def test_reads_our_end_of_a_point_to_point_link() -> None:
    """IFA_LOCAL wins; an interface that is gone has no name."""
    body = struct.pack("=BBBBI", socket.AF_INET, 32, 0, 0, 7)
    both = body + _attribute(1, b"\x64\x64\0\2") + _attribute(2, b"\x64\x64\0\1")
    assert list(parse_address(20, both, lambda index: f"if{index}")) == [("100.100.0.1", "if7")]

    def gone(_: int) -> str:
        raise OSError(6, "gone")

    assert list(parse_address(20, both, gone)) == [("100.100.0.1", "?")]
    assert list(parse_address(20, body + _attribute(1, b"\1\2"), gone)) == []


@given(st.binary(max_size=200), st.integers(0, 40))
def test_any_bytes_of_netlink_are_read_or_left(data: bytes, kind: int) -> None:
    """A message that is cut or lies about its length ends the walk."""
    for _, body in messages(data):
        assert len(body) <= len(data)
    list(parse_diag(kind, data))
    list(parse_address(kind, data, lambda _: "x"))
    list(parse_diag(20, _diag(socket.AF_INET, 10, 1, b"\0", data)))
    list(parse_address(20, struct.pack("=BBBBI", socket.AF_INET6, 0, 0, 0, 1) + data, lambda _: "x"))


@pytest.mark.skipif(sys.byteorder != "little", reason="the sample is of a little-endian machine")
def test_reads_proc_net_tcp() -> None:
    """Only listening sockets, with the machine's byte order undone."""
    text = (
        "  sl  local_address rem_address   st tx_queue\n"
        "   0: 0100007F:2CAA 00000000:0000 0A 00000000:00000000 00:00000000\n"
        "   1: 0100007F:2CAB 0100007F:1111 01 00000000:00000000 00:00000000\n"
        "   2: 0000000000000000FFFF00000100007F:0050 0:0 0A x\n"
        "   3: zz:0050 0:0 0A x\n"
    )
    assert list(parse_proc_tcp(text)) == [
        ListeningSocket("127.0.0.1", 11434),
        ListeningSocket("127.0.0.1", 80),
    ]


@given(st.text(max_size=300))
def test_any_text_of_proc_is_read_or_left(text: str) -> None:
    """No line does more than to say nothing."""
    list(parse_proc_tcp("header\n" + text))


@pytest.mark.skipif(sys.platform != "linux", reason="reads the real socket table")
def test_a_table_of_many_pieces_is_read_whole() -> None:
    """No listener is lost where the kernel's answer takes several reads: 500 rows of 72 bytes and more."""
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(500)]
        ports = {listening.getsockname()[1] for listening in opened}
        assert ports <= {found.port for found in listening_sockets()}


def test_asking_for_a_small_table_takes_little_memory() -> None:
    """What is asked for and not filled has a price: it is mapped, and overwritten when it is given back."""
    tracemalloc.start()
    try:
        host_addresses()
        assert tracemalloc.get_traced_memory()[1] < 128 << 10
    finally:
        tracemalloc.stop()


def test_shows_a_real_listener_without_privilege() -> None:
    """The real thing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address, port = listener.getsockname()
        assert (address, port) in {(s.address, s.port) for s in listening_sockets()}


def _sensor(sockets: Callable[[], tuple[ListeningSocket, ...]]) -> HostListeners:
    identifier = Identifier(cgroups=CgroupPaths(root=None, monotonic=lambda: 0.0), proc=Path("/nowhere"))
    return HostListeners(identifier=identifier, sockets=sockets, addresses=lambda: (("127.0.0.1", "lo"),))


def test_an_inventory_is_one_observation() -> None:
    """Listeners and the host's addresses belong together."""
    sensor = _sensor(lambda: (ListeningSocket("0.0.0.0", 80, CgroupId(3)),))
    sensor.open()
    (seen,) = sensor.read(instant(5))
    assert isinstance(seen, ListenerInventory)
    assert [(li.address, li.port, li.origin.cgroup_id) for li in seen.listeners] == [("0.0.0.0", 80, 3)]
    assert seen.host_addresses == (("127.0.0.1", "lo"),)


def test_a_host_without_a_readable_table_is_blind() -> None:
    """At the start, with the reason; an empty table would say that nothing listens."""

    def refuse() -> tuple[ListeningSocket, ...]:
        raise SocketsUnreadable("sock_diag: refused")

    with pytest.raises(SensorBlind) as caught:
        _sensor(refuse).open()
    assert caught.value.blind.reason is BlindReason.UNSUPPORTED_PLATFORM
