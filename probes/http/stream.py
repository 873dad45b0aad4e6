"""Puts the segments of one direction of a connection in order: what overtook waits, what came twice goes.

A hole is either known (bytes that the capture skips) or found out: when what comes behind it has waited for
`gap_s`, or `PARKED` pieces wait. Sequence numbers wrap (RFC 9293, modulo 2**32). FIN and RST have their place
in the order like bytes do, so one that overtakes the last data waits for it; a reset that lies behind counts
at once, as it needs no place (a refused connection answers with sequence number 0).
"""

from __future__ import annotations

from typing import Final, Protocol

from probes.http.segment import FIN, RST, SYN, Segment

PARKED: Final = 64
PARKED_BYTES: Final = 128 * 1024
_MODULUS: Final = 1 << 32
_MASK: Final = _MODULUS - 1
_HALF: Final = 1 << 31


class StreamReader(Protocol):
    """Reads one direction, in order."""

    def feed(self, data: bytes, at_ns: int) -> None:
        """The next bytes."""

    def hole(self, size: int, at_ns: int) -> None:
        """So many bytes are missing here, for good."""

    def closed(self, at_ns: int, *, reset: bool) -> None:
        """This side will send no more."""


class Sequencer:
    """One direction. `feed` takes segments in the order of capture, `overdue` says that time has passed."""

    __slots__ = ("_expected", "_gap_ns", "_parked", "_reader", "_start", "suspect")

    def __init__(self, reader: StreamReader, *, gap_ns: int) -> None:
        self.suspect = False  # records were lost somewhere: the next gap is believed at once
        self._reader = reader
        self._gap_ns = gap_ns
        self._expected: int | None = None
        self._start: int | None = None  # sequence number of the SYN
        self._parked: dict[int, Segment] = {}

    @property
    def waiting(self) -> bool:
        """Whether something has overtaken bytes that have not come."""
        return bool(self._parked)

    @property
    def held_bytes(self) -> int:
        """Bytes that wait for others."""
        return sum(len(segment.data) for segment in self._parked.values()) if self._parked else 0

    def feed(self, segment: Segment) -> None:
        """Take one piece."""
        _, at_ns, _, _, seq, data, skipped, flags, _ = segment
        if seq == self._expected and not flags and not self._parked:
            self.suspect = False
            self._expected = (seq + len(data) + skipped) & _MASK
            if data:
                self._reader.feed(data, at_ns)
            if skipped:
                self._reader.hole(skipped, at_ns)
            return
        self._out_of_line(segment)

    def is_new(self, seq: int) -> bool:
        """Say whether a SYN with this number begins another connection than the one under way."""
        return self._expected is not None and seq != self._start

    def overdue(self, now_ns: int) -> None:
        """Give up bytes that others have waited for too long."""
        while self._parked and min(one.at_ns for one in self._parked.values()) + self._gap_ns <= now_ns:
            self._give_up()

    def give_up(self) -> None:
        """Give up every byte that is waited for."""
        while self._parked:
            self._give_up()

    def _out_of_line(self, segment: Segment) -> None:
        if segment.flags & SYN:
            self._start = segment.seq
            segment = segment._replace(seq=(segment.seq + 1) & _MASK, flags=segment.flags & ~SYN)
            if self._expected is None:
                self._expected = segment.seq
        if self._expected is None:
            self._expected = segment.seq
        if not (segment.data or segment.skipped or segment.flags):
            return
        ahead = (segment.seq - self._expected) & _MASK
        if ahead == 0:
            self.suspect = False
            self._deliver(segment)
        elif ahead >= _HALF:
            self._behind(segment, _MODULUS - ahead)
        else:
            self._park(segment)
            return
        self._drain()

    def _behind(self, segment: Segment, behind: int) -> None:
        """Deliver what is new of a segment that begins with bytes that were delivered."""
        length = len(segment.data) + segment.skipped
        if behind > length or (behind == length and not segment.flags):
            if segment.flags & RST:
                self._reader.closed(segment.at_ns, reset=True)
            return
        data = segment.data[behind:]
        skipped = segment.skipped - max(0, behind - len(segment.data))
        self._deliver(segment._replace(seq=(segment.seq + behind) & _MASK, data=data, skipped=skipped))

    def _deliver(self, segment: Segment) -> None:
        self._expected = (segment.seq + len(segment.data) + segment.skipped) & _MASK
        if segment.data:
            self._reader.feed(segment.data, segment.at_ns)
        if segment.skipped:
            self._reader.hole(segment.skipped, segment.at_ns)
        if segment.flags & RST:
            self._reader.closed(segment.at_ns, reset=True)
        elif segment.flags & FIN:
            self._expected = (self._expected + 1) & _MASK
            self._reader.closed(segment.at_ns, reset=False)

    def _park(self, segment: Segment) -> None:
        before = self._parked.get(segment.seq)
        if before is None or _extent(before) < _extent(segment):
            self._parked[segment.seq] = segment
        if self.suspect or len(self._parked) > PARKED or self.held_bytes > PARKED_BYTES:
            self._give_up()
        else:
            self.overdue(segment.at_ns)

    def _give_up(self) -> None:
        """Declare the bytes up to the next piece that waits a hole; they went over the wire before it did."""
        assert self._expected is not None
        expected = self._expected
        following = min(self._parked.values(), key=lambda one: (one.seq - expected) & _MASK)
        gap = (following.seq - expected) & _MASK
        self._expected = following.seq
        self._reader.hole(gap, following.at_ns)
        self._drain()

    def _drain(self) -> None:
        while self._parked:
            assert self._expected is not None
            expected = self._expected
            seq = min(self._parked, key=lambda one: (one - expected + _HALF) & _MASK)
            ahead = (seq - expected) & _MASK
            if 0 < ahead < _HALF:
                return
            segment = self._parked.pop(seq)
            if ahead == 0:
                self._deliver(segment)
            else:
                self._behind(segment, _MODULUS - ahead)


def _extent(segment: Segment) -> tuple[int, int]:
    return len(segment.data) + segment.skipped, segment.flags
