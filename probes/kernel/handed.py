"""What a kernel sensor does with its handed-over descriptors: its ring, its maps, its count of losses.

A record leaves the ring when it is read, and reaches the disk a moment later. A process that is killed in
between takes it along, so the reader notes in the kernel how far everything is settled; its successor
compares that with the ring's own position and tells the difference as lost.

Composed by every kernel sensor rather than inherited: opening, the lost-events account and the translation of
errors into SensorBlind are the same for all, what a record means is not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from probes.kernel.handover import HandedMap, Handover, Layout, SensorEntry
from probes.kernel.libbpf import Ledger, Libbpf, LibraryMissing, Map, Ring
from probes.observation import BlindReason, Gap, Instant, Seeing, SensorName
from probes.sensor import SensorBlind

_LOST = 0  # ring.bpf.h
_TOLD = 2
_SETTLED = 3
_TAKEN = 4
_HEADER_BYTES = 8  # of a record in the ring, linux/bpf.h
_BACKLOG = 100_000
_GATHER_EVERY = 1000


def attached_entry(handover: Handover | None, sensor: SensorName) -> SensorEntry:
    """Return what the manifest says of an attached sensor; raise SensorBlind when it is not attached."""
    if handover is None:
        raise SensorBlind(BlindReason.NOT_HANDED_OVER, "the loader has handed nothing over yet")
    entry = handover.entry(sensor)
    if entry is None:
        raise SensorBlind(BlindReason.NOT_HANDED_OVER, "the loader's manifest does not name this sensor")
    if entry.blind is not None:
        raise SensorBlind(entry.blind.reason, entry.blind.detail)
    return entry


class HandedProgram:
    """One attached program's descriptors, opened for reading."""

    def __init__(
        self, *, sensor: SensorName, stem: str, handover: Handover | None, settles: bool = True
    ) -> None:
        """`settles` is False where a record that a killed reader took along is no loss: another tells it."""
        self._sensor = sensor
        self._stem = stem
        self._handover = handover
        self._settles = settles
        self._libbpf: Libbpf | None = None
        self._ring: Ring | None = None
        self._ledger: Ledger | None = None
        self._told = 0
        self._unsettled = 0
        self._record_bytes = _HEADER_BYTES
        self._read_record: Callable[[bytes], dict[str, Any]] | None = None
        self._unreadable = 0
        self._backlog: deque[bytes] = deque()

    def __repr__(self) -> str:
        return f"HandedProgram({self._sensor}, {'open' if self._ring else 'closed'}, lost={self._told})"

    def open(self) -> None:
        """Map the ring; raise SensorBlind with the manifest's reason when the program is not attached."""
        if self._ring is not None:
            return
        attached_entry(self._handover, self._sensor)
        try:
            self._libbpf = Libbpf()
            events, layout = self._handed("events"), self.event_layout()
            self._read_record = layout.reader()
            self._ledger = Ledger(fd=self._handed("ledger").fd)
            self._told = self._ledger.count(_TOLD)
            self._ring = Ring(libbpf=self._libbpf, fd=events.fd)
            self._record_bytes = _HEADER_BYTES + (layout.size + 7) // 8 * 8
            if self._settles:
                taken = self._ring.position() - self._ledger.count(_SETTLED)
                self._unsettled = max(0, taken) // self._record_bytes
        except LibraryMissing as error:
            raise SensorBlind(BlindReason.NO_LIBRARY, str(error)) from error
        except OSError as error:
            raise SensorBlind(BlindReason.READ_FAILED, str(error.strerror)) from error

    def gather(self) -> int:
        """Empty the ring into memory, as far as there is room; return how many records wait to be read."""
        if self._ring is None:
            raise SensorBlind(BlindReason.READ_FAILED, "the sensor is not open")
        room = _BACKLOG - len(self._backlog)
        if room > 0:
            try:
                self._backlog.extend(self._ring.drain(room))
            except OSError as error:
                raise SensorBlind(BlindReason.READ_FAILED, str(error.strerror)) from error
        return len(self._backlog)

    def raw_records(self, limit: int) -> list[bytes]:
        """Take at most `limit` records out of the ring as they are, for a reader that decodes them itself.

        What is taken is noted in the kernel's sight, so that the program can tell how much waits. Not to be
        mixed with `records`.
        """
        if self._ring is None or self._ledger is None:
            raise SensorBlind(BlindReason.READ_FAILED, "the sensor is not open")
        try:
            records = self._ring.drain(limit)
        except OSError as error:
            raise SensorBlind(BlindReason.READ_FAILED, str(error.strerror)) from error
        self._ledger.note(_TAKEN, self._ring.position())
        return records

    def event_layout(self) -> Layout:
        """Return how a record of the ring begins."""
        layout = self._handed("events").entry.value
        if layout is None:
            raise SensorBlind(BlindReason.READ_FAILED, f"the manifest has no layout for {self._stem}_events")
        return layout

    def records(self, count: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield `count` waiting records, decoded, or all; raise SensorBlind when the ring cannot be read.

        The caller's work on a record takes longer than the kernel's, so the ring is emptied now and then
        meanwhile: what comes then waits for the next read instead of not finding room.
        """
        if count is None:
            count = self.gather()
        assert self._read_record is not None, "open() comes first"
        for number in range(1, min(count, len(self._backlog)) + 1):
            data = self._backlog.popleft()
            if number % _GATHER_EVERY == 0:
                self.gather()
            try:
                yield self._read_record(data)
            except ValueError:
                self._unreadable += 1

    def losses(self, now: Instant) -> list[Gap]:
        """Return a Gap when events were lost that no reader has told of, be it an earlier process."""
        if self._ledger is None:
            return []
        lost = self._ledger.count(_LOST)
        missed = max(0, lost - self._told) + self._unreadable + self._unsettled
        if not missed:
            return []
        self._told, self._unreadable, self._unsettled = max(lost, self._told), 0, 0
        return [Gap(sensor=self._sensor, at=now, coverage=Seeing(), lost=missed)]

    def waiting(self) -> bool:
        """Whether there are records or losses to tell, at the price of a few memory reads."""
        if self._ring is None or self._ledger is None:
            return False
        return bool(
            self._backlog or self._unsettled or self._ring.waiting() or self._ledger.count(_LOST) > self._told
        )

    def settle(self) -> None:
        """Note with the ring how far it is judged and on disk."""
        if self._ring is None or self._ledger is None:
            return
        position = self._ring.position() - len(self._backlog) * self._record_bytes
        self._ledger.note(_SETTLED, position)
        self._ledger.note(_TOLD, self._told)

    def map(self, suffix: str) -> Map:
        """Return the sensor's map whose name ends so."""
        assert self._libbpf is not None, "open() comes first"
        handed = self._handed(suffix)
        return Map(
            libbpf=self._libbpf,
            fd=handed.fd,
            key_size=handed.entry.key_size,
            value_size=handed.entry.value_size,
        )

    def descriptor(self, suffix: str) -> int:
        """Return the descriptor of the sensor's map whose name ends so, for mapping it into memory."""
        return self._handed(suffix).fd

    def layout_of(
        self, suffix: str
    ) -> tuple[Callable[[bytes], dict[str, Any]], Callable[[bytes], dict[str, Any]]]:
        """Return readers for a map's keys and values."""
        entry = self._handed(suffix).entry
        if entry.key is None or entry.value is None:
            raise SensorBlind(BlindReason.READ_FAILED, f"the manifest has no layout for {entry.name}")
        return entry.key.reader(), entry.value.reader()

    def wakeup_fd(self) -> int | None:
        """The descriptor that becomes readable when the program forces a wakeup."""
        return self._ring.wakeup_fd if self._ring is not None else None

    def close(self) -> None:
        """Unmap the ring. The descriptors stay open: they belong to the handover.

        Whatever was taken out and not settled is told as lost by the next to open the ring.
        """
        if self._ring is not None:
            self._backlog.clear()
            self._ring.close()
        if self._ledger is not None:
            self._ledger.close()
        self._ring = self._ledger = self._libbpf = None

    def _handed(self, suffix: str) -> HandedMap:
        assert self._handover is not None, "open() comes first"
        name = f"{self._stem}_{suffix}"
        handed = self._handover.maps(self._sensor).get(name)
        if handed is None:
            raise SensorBlind(BlindReason.READ_FAILED, f"the manifest has no map {name}")
        return handed
