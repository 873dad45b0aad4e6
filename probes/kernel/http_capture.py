"""What the sockets of model servers receive and send, piece by piece (`http_capture.bpf.c`).

This is a source of segments and no sensor: `http.routes` makes facts of them. What a killed reader took along
is not told as lost: to its successor the connection begins in the middle of the stream, and it says so.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from probes.http.segment import Segment
from probes.kernel.handed import HandedProgram
from probes.kernel.handover import Handover, Layout, ManifestInvalid
from probes.kernel.programs import Capability, CgroupAttachment, Direction, KernelProgram
from probes.observation import BlindReason, Gap, Instant, Seeing, SensorName
from probes.sensor import SensorBlind

NAME = SensorName("http.routes")
PROGRAM = KernelProgram(
    sensor=NAME,
    stem="http_capture",
    attachments=(
        CgroupAttachment("http_capture_ingress", Direction.INGRESS),
        CgroupAttachment("http_capture_egress", Direction.EGRESS),
    ),
    maps=("http_capture_events", "http_capture_ledger"),
    capabilities=frozenset({Capability.NET_ADMIN}),
    ports="HTTP_CAPTURE_PORTS",
)
_FIELDS = (
    "time_ns",
    "connection",
    "cgroup_id",
    "seq",
    "captured",
    "skipped",
    "port",
    "to_server",
    "flags",
)
_RECORDS_AT_ONCE = 64  # at most a ring full of the longest
_RECORDS_A_READ = 20_000
_Unpack = Callable[[bytes], tuple[Any, ...]]


class HttpCapture:
    """The handed-over ring as segments."""

    def __init__(self, *, handover: Handover | None) -> None:
        self._program = HandedProgram(sensor=NAME, stem=PROGRAM.stem, handover=handover, settles=False)
        self._decoder: RecordDecoder | None = None

    def __repr__(self) -> str:
        return f"HttpCapture({self._program})"

    def open(self) -> None:
        """Map the ring; raise SensorBlind with the manifest's reason when the programs are not attached."""
        self._program.open()
        try:
            self._decoder = RecordDecoder(layout=self._program.event_layout())
        except ManifestInvalid as error:
            raise SensorBlind(BlindReason.READ_FAILED, f"records of another version: {error}") from error

    def segments(self) -> Iterator[Segment]:
        """Yield what waits in the ring, oldest first; raise SensorBlind when it cannot be read.

        A ring full is in memory at most; what comes meanwhile is read too, up to a bound.
        """
        if self._decoder is None:
            raise SensorBlind(BlindReason.READ_FAILED, "the capture is not open")
        for _ in range(_RECORDS_A_READ // _RECORDS_AT_ONCE):
            records = self._program.raw_records(_RECORDS_AT_ONCE)
            yield from self._decoder.segments(records)
            if len(records) < _RECORDS_AT_ONCE:
                return

    def losses(self, now: Instant) -> list[Gap]:
        """Return a Gap with how many records did not fit the ring or could not be read, since the last."""
        found = self._program.losses(now)
        unreadable = self._decoder.take_unreadable() if self._decoder is not None else 0
        if not unreadable:
            return found
        lost = unreadable + sum(gap.lost for gap in found)
        return [Gap(sensor=NAME, at=now, coverage=Seeing(), lost=lost)]

    def waiting(self) -> bool:
        """Whether there is something to read, at the price of a few memory reads."""
        return self._program.waiting()

    def settle(self) -> None:
        """Note which losses are told."""
        self._program.settle()

    def wakeup_fd(self) -> int | None:
        """The descriptor that becomes readable when a quarter of the ring is full."""
        return self._program.wakeup_fd()

    def close(self) -> None:
        """Unmap the ring."""
        self._program.close()
        self._decoder = None


class RecordDecoder:
    """Makes segments of the ring's records; what is too short to be one is counted."""

    def __init__(self, *, layout: Layout) -> None:
        """Raises ManifestInvalid when the loader's records are not laid out as this reader knows them."""
        self._unpack: _Unpack = layout.unpacker(*_FIELDS)
        self._head = layout.size
        self._unreadable = 0

    def __repr__(self) -> str:
        return f"RecordDecoder(head={self._head}, unreadable={self._unreadable})"

    def segments(self, records: Iterable[bytes]) -> Iterator[Segment]:
        """Yield one segment a record, in their order."""
        unpack, head = self._unpack, self._head
        for record in records:
            try:
                at_ns, connection, cgroup, seq, captured, skipped, port, to_server, flags = unpack(record)
            except struct.error:
                self._unreadable += 1
                continue
            data = record[head : head + captured]
            if len(data) != captured:
                self._unreadable += 1
                continue
            yield Segment(connection, at_ns, port, to_server == 1, seq, data, skipped, flags, cgroup)

    def take_unreadable(self) -> int:
        """Return how many records could not be read since the last time."""
        count, self._unreadable = self._unreadable, 0
        return count
