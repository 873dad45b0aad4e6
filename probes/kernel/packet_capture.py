"""What passes the packet socket, as segments: the same interface as `http_capture.HttpCapture`.

It sees the wires of the host's network namespace and not the sockets: no loopback inside a container, no
cgroup, and what a bridge passes on it sees on each of its ports (the observer trims what it has already).
Packets are read one by one, which costs more; the timestamp is the kernel's own.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Iterator

from probes.http.segment import FIN, RST, SYN, Segment
from probes.kernel.handed import attached_entry
from probes.kernel.handover import Handover
from probes.kernel.http_capture import NAME
from probes.observation import BlindReason, Gap, Instant, Seeing
from probes.sensor import SensorBlind

PACKETS = "http_capture_packets"
"""The name of the socket in the manifest."""

_SOL_PACKET, _PACKET_STATISTICS = 263, 6  # linux/if_packet.h
_SCM_TIMESTAMPNS = 35
_STATISTICS = struct.Struct("=II")  # struct tpacket_stats: it is set to zero when it is read
_TIME = struct.Struct("@qq")
_TCP, _HOP_BY_HOP = 6, 0
_BUFFER_BYTES = 1 << 20
_PACKETS_A_READ = 20_000
_MASK = (1 << 64) - 1


class PacketCapture:
    """The handed-over socket as segments."""

    def __init__(self, *, handover: Handover | None) -> None:
        self._handover = handover
        self._socket: socket.socket | None = None
        self._ports: frozenset[int] = frozenset()
        self._buffer = bytearray()
        self._lost = 0

    def __repr__(self) -> str:
        return f"PacketCapture({NAME}, {'open' if self._socket else 'closed'}, ports={len(self._ports)})"

    def open(self) -> None:
        """Take hold of the socket; raise SensorBlind with the manifest's reason when there is none."""
        if self._socket is not None:
            return
        entry = attached_entry(self._handover, NAME)
        assert self._handover is not None
        handed = self._handover.maps(NAME).get(PACKETS)
        if handed is None:
            raise SensorBlind(BlindReason.READ_FAILED, "the manifest has no packet socket")
        try:
            self._socket = socket.fromfd(handed.fd, socket.AF_PACKET, socket.SOCK_DGRAM)
        except OSError as error:
            raise SensorBlind(BlindReason.READ_FAILED, str(error.strerror)) from error
        self._ports = frozenset(entry.ports)
        self._buffer = bytearray(_BUFFER_BYTES)

    def segments(self) -> Iterator[Segment]:
        """Yield what waits in the socket, oldest first; raise SensorBlind when it cannot be read."""
        if self._socket is None:
            raise SensorBlind(BlindReason.READ_FAILED, "the capture is not open")
        view = memoryview(self._buffer)
        ahead = time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        flags = socket.MSG_DONTWAIT | socket.MSG_TRUNC
        for _ in range(_PACKETS_A_READ):
            try:
                length, told, _, _ = self._socket.recvmsg_into([view], 64, flags)
            except BlockingIOError:
                return
            except OSError as error:
                raise SensorBlind(BlindReason.READ_FAILED, str(error.strerror)) from error
            at_ns = next(
                (second * 1_000_000_000 + ns - ahead for second, ns in _times(told)),
                time.clock_gettime_ns(time.CLOCK_BOOTTIME),
            )
            yield from read_packet(view[: min(length, _BUFFER_BYTES)], length, self._ports, at_ns)

    def losses(self, now: Instant) -> list[Gap]:
        """Return a Gap with how many packets did not fit the socket's buffer since the last."""
        if self._socket is None:
            return []
        try:
            raw = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size)
        except OSError as error:
            raise SensorBlind(BlindReason.READ_FAILED, str(error.strerror)) from error
        _, dropped = _STATISTICS.unpack(raw)
        return [Gap(sensor=NAME, at=now, coverage=Seeing(), lost=dropped)] if dropped else []

    def waiting(self) -> bool:
        """Whether there is a packet; one system call."""
        if self._socket is None:
            return False
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        return bool(poller.poll(0))

    def settle(self) -> None:
        """Nothing is noted: the kernel forgets its count of losses as it tells it."""

    def wakeup_fd(self) -> int | None:
        """None: the socket would wake its reader for every packet, and its buffer holds a timer's worth."""
        return None

    def close(self) -> None:
        """Let go; the socket itself belongs to the handover."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._buffer = bytearray()


def read_packet(packet: memoryview, length: int, ports: frozenset[int], at_ns: int) -> Iterator[Segment]:
    """Yield the segments of one IP packet of `length` bytes, of which `packet` are here; none if no TCP.

    What stands behind the packet's own length is padding of its frame. A length of 0 is that of a segment of
    more than 64 KiB, which the kernel hands on whole.
    """
    found = _find_tcp(packet)
    if found is None:
        return
    addresses, at, told = found
    if len(packet) < at + 20:
        return
    source, target, seq, _, offset, flags = struct.unpack_from("!HHIIBB", packet, at)
    to_server = target in ports
    if not to_server and source not in ports:
        return
    begin = at + (offset >> 4) * 4
    end = min(length, told) if told else length
    if begin < at + 20 or begin > end:
        return
    half = len(addresses) // 2
    here, there = (addresses[half:], addresses[:half]) if to_server else (addresses[:half], addresses[half:])
    port, other = (target, source) if to_server else (source, target)
    connection = hash((here, there, port, other)) & _MASK
    flags &= SYN | FIN | RST
    if flags & SYN:
        yield Segment(connection, at_ns, port, to_server, seq, b"", 0, SYN, 0)
        flags &= ~SYN
        seq = (seq + 1) & 0xFFFFFFFF
    data = bytes(packet[begin:end])
    if data or flags or end > begin:
        skipped = end - begin - len(data)
        yield Segment(connection, at_ns, port, to_server, seq, data, skipped, flags, 0)


def _find_tcp(packet: memoryview) -> tuple[bytes, int, int] | None:
    """Return the two addresses, where the TCP header begins, and the length that the IP header tells."""
    if len(packet) < 20:
        return None
    version = packet[0] >> 4
    if version == 4:
        fragment = int.from_bytes(packet[6:8]) & 0x3FFF
        header = (packet[0] & 15) * 4
        if packet[9] != _TCP or fragment or header < 20:
            return None
        return bytes(packet[12:20]), header, int.from_bytes(packet[2:4])
    if version != 6 or len(packet) < 48:
        return None
    told = int.from_bytes(packet[4:6])
    told = told + 40 if told else 0
    if packet[6] == _TCP:
        return bytes(packet[8:40]), 40, told
    if packet[6] == _HOP_BY_HOP and packet[40] == _TCP:
        return bytes(packet[8:40]), 48 + packet[41] * 8, told
    return None


def _times(told: list[tuple[int, int, bytes]]) -> Iterator[tuple[int, int]]:
    for level, kind, data in told:
        if level == socket.SOL_SOCKET and kind == _SCM_TIMESTAMPNS and len(data) >= _TIME.size:
            yield _TIME.unpack_from(data)
