"""Packets become segments; whatever is none, or tells less than the truth about itself, does no harm."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from probes.http.segment import FIN, RST, SYN, Segment
from probes.kernel.packet_capture import PacketCapture, read_packet
from probes.kernel.packet_socket import filter_for, in_a_network_of_its_own
from probes.observation import BlindReason
from probes.sensor import SensorBlind

_PORTS = frozenset({8000, 4000})


def tcp(source: int, target: int, seq: int, flags: int, data: bytes = b"", *, options: bytes = b"") -> bytes:
    """Return a TCP segment."""
    offset = (20 + len(options)) // 4 << 4
    return struct.pack("!HHIIBBHHH", source, target, seq, 0, offset, flags, 0, 0, 0) + options + data


def ipv4(
    payload: bytes, *, protocol: int = 6, fragment: int = 0, options: bytes = b"", told: int = -1
) -> bytes:
    """Return an IPv4 packet from 10.0.0.1 to 10.0.0.2."""
    length = 20 + len(options) + len(payload) if told < 0 else told
    first = 0x40 | (20 + len(options)) // 4
    head = struct.pack("!BBHHHBBH", first, 0, length, 1, fragment, 64, protocol, 0)
    return head + bytes([10, 0, 0, 1, 10, 0, 0, 2]) + options + payload


def ipv6(payload: bytes, *, following: int = 6, told: int = -1) -> bytes:
    """Return an IPv6 packet."""
    head = struct.pack("!IHBB", 6 << 28, len(payload) if told < 0 else told, following, 64)
    return head + bytes(15) + b"\1" + bytes(15) + b"\2" + payload


def read(packet: bytes, *, length: int | None = None) -> list[Segment]:
    """Read one packet."""
    whole = len(packet) if length is None else length
    return list(read_packet(memoryview(packet), whole, _PORTS, 77))


def test_both_directions_are_of_one_connection() -> None:
    """A request and its answer: the same connection, the server's port, what went where."""
    (asked,) = read(ipv4(tcp(50_000, 8000, 5, 0x18, b"GET", options=b"\1" * 8), options=b"\0" * 4))
    (answered,) = read(
        ipv4(tcp(8000, 50_000, 9, 0x18 | FIN, b"HTTP"))[:12]
        + bytes([10, 0, 0, 2, 10, 0, 0, 1])
        + tcp(8000, 50_000, 9, 0x18 | FIN, b"HTTP")
    )
    assert asked == Segment(asked.connection, 77, 8000, True, 5, b"GET", 0, 0, 0)
    assert answered == Segment(asked.connection, 77, 8000, False, 9, b"HTTP", 0, FIN, 0)
    (other,) = read(ipv4(tcp(50_001, 8000, 5, 0x18, b"GET")))
    assert other.connection != asked.connection


def test_ipv6_with_and_without_the_option_of_long_segments() -> None:
    """A hop-by-hop header before TCP is stepped over; any other is not followed."""
    segment = tcp(50_000, 4000, 5, 0x18, b"data")
    (plain,) = read(ipv6(segment))
    (jumbo,) = read(ipv6(b"\6\0\xc2\4" + bytes(4) + segment, following=0, told=0))
    assert plain.data == jumbo.data == b"data"
    assert plain.connection == jumbo.connection
    assert read(ipv6(b"\6\0" + bytes(6) + segment, following=60)) == []
    assert read(ipv6(b"\x11\0" + bytes(6) + segment, following=0)) == []


def test_the_padding_of_a_short_frame_is_no_data() -> None:
    """A frame is at least 60 bytes; what the packet does not count is left out."""
    assert read(ipv4(tcp(1, 8000, 5, 0x10)) + bytes(6)) == []
    (one,) = read(ipv4(tcp(1, 8000, 5, 0x18, b"x")) + bytes(5))
    assert one.data == b"x"


def test_a_segment_that_the_kernel_has_not_cut_yet_has_no_length_of_its_own() -> None:
    """Its IP header says 0, and all of it is data."""
    (long,) = read(ipv4(tcp(8000, 1, 5, 0x18, b"y" * 90_000), told=0))
    assert len(long.data) == 90_000


def test_what_did_not_fit_the_buffer_is_skipped() -> None:
    """The bytes that are missing at the end are told."""
    (cut,) = read(ipv4(tcp(8000, 1, 5, 0x18, b"y" * 100), told=0), length=1140)
    assert (len(cut.data), cut.skipped) == (100, 1000)


def test_a_syn_with_data_is_two_segments() -> None:
    """The SYN takes a sequence number of its own."""
    begun, data = read(ipv4(tcp(1, 8000, (1 << 32) - 1, SYN, b"early")))
    assert (begun.seq, begun.flags, begun.data) == ((1 << 32) - 1, SYN, b"")
    assert (data.seq, data.flags, data.data) == (0, 0, b"early")


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        ipv4(tcp(1, 8001, 5, 0x18, b"x")),
        ipv4(tcp(1, 8000, 5, 0x10)),
        ipv4(tcp(1, 8000, 5, 0x18, b"x"), protocol=17),
        ipv4(tcp(1, 8000, 5, 0x18, b"x"), fragment=0x2000),
        ipv4(tcp(1, 8000, 5, 0x18, b"x"), fragment=7),
        ipv4(tcp(1, 8000, 5, 0x18, b"x"))[:39],
        b"\x41" + ipv4(tcp(1, 8000, 5, 0x18, b"x"))[1:],
        ipv4(tcp(1, 8000, 5, 0x18, b"x"), told=30),
        ipv6(tcp(1, 8000, 5, 0x18, b"x"))[:45],
    ],
)
def test_what_is_no_segment_of_a_watched_port_is_nothing(packet: bytes) -> None:
    """Other ports, bare acknowledgements, other protocols, fragments, cut and impossible headers."""
    assert read(packet) == []


def test_a_reset_is_told_without_data() -> None:
    """RST alone."""
    (reset,) = read(ipv4(tcp(8000, 1, 5, RST)))
    assert (reset.flags, reset.data, reset.to_server) == (RST, b"", False)


@given(
    st.one_of(st.binary(max_size=120), st.binary(max_size=100).map(lambda b: b"\x45" + b)),
    st.integers(0, 200),
)
def test_hostile_packets_never_crash(packet: bytes, missing: int) -> None:
    """Every packet is segments of watched ports, or nothing."""
    for segment in read(packet, length=len(packet) + missing):
        assert segment.port in _PORTS
        assert segment.skipped >= 0
        assert len(segment.data) <= len(packet)


@given(st.binary(max_size=60), st.binary(max_size=40))
def test_hostile_bytes_behind_good_headers_never_crash(options: bytes, data: bytes) -> None:
    """Whatever stands in and after the TCP header."""
    for packet in (ipv4(tcp(1, 8000, 5, 0x18) + options + data), ipv6(options + data, following=0)):
        assert all(len(segment.data) <= len(packet) for segment in read(packet))


def test_the_filter_fits_the_most_ports_that_can_be_watched() -> None:
    """64 ports: no jump is too far, and it ends in a return."""
    steps = filter_for(range(60_000, 60_064))
    assert len(steps) % 8 == 0
    assert struct.unpack("=HBBI", steps[-8:]) == (6, 0, 0, 0x40000)


def test_another_network_is_told_by_its_namespace(tmp_path: Path) -> None:
    """The first process's namespace is the host's, where it can be read."""
    link = tmp_path / "net"
    link.symlink_to("net:[1]")
    assert in_a_network_of_its_own(link) is True
    link.unlink()
    link.symlink_to(Path("/proc/self/ns/net").readlink())
    assert in_a_network_of_its_own(link) is False


@pytest.mark.parametrize(("others", "own"), [("", True), ("  eth0: 1 2\n", False)])
def test_a_network_of_loopback_alone_is_none_of_a_host(tmp_path: Path, others: str, own: bool) -> None:
    """Where the first process's namespace may not be read, the devices tell; else nothing does."""
    devices = tmp_path / "dev"
    devices.write_text(f"Inter-|   Receive\n face |bytes    packets\n    lo: 7 7\n{others}")
    assert in_a_network_of_its_own(tmp_path / "none", devices) is own
    assert in_a_network_of_its_own(tmp_path / "none", tmp_path / "none") is False


def test_without_a_handover_it_is_blind() -> None:
    """Nothing handed over is a reason of its own, and what is not open says so."""
    capture = PacketCapture(handover=None)
    with pytest.raises(SensorBlind) as caught:
        capture.open()
    assert caught.value.blind.reason is BlindReason.NOT_HANDED_OVER
    with pytest.raises(SensorBlind, match="not open"):
        next(capture.segments())
    assert (capture.waiting(), capture.wakeup_fd()) == (False, None)
    assert "http.routes" in repr(capture)
    capture.close()
