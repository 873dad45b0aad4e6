"""How much disks do and how long it takes them (`block.bpf.c`): differences of the kernel's histograms.

Nothing of it is an event: the table is read every `period_s`, and what happened before the first read of this
process is not told. Disks of which nobody asked anything are left out.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

from probes.host.storage_disks import Disks
from probes.kernel.handed import attached_entry
from probes.kernel.handover import Handover
from probes.kernel.libbpf import Libbpf, LibraryMissing, Map
from probes.kernel.programs import Attachment, KernelProgram
from probes.observation import BlindReason, BlockActivity, Instant, Observation, SensorName
from probes.sensor import SensorBlind

NAME: Final = SensorName("kernel.block")
PROGRAM: Final = KernelProgram(
    sensor=NAME,
    stem="block",
    attachments=(
        Attachment("block_issued", "block:block_rq_issue"),
        Attachment("block_completed", "block:block_rq_complete"),
    ),
    maps=("block_latency",),
)
_P99: Final = 0.99

Account = tuple[int, int, tuple[int, ...]]
"""Bytes, nanoseconds, and the counts of the histogram's classes."""

_NOTHING: Final[Account] = (0, 0, ())


class BlockSensor:
    """Tells what each disk did since the last read."""

    name = NAME
    period_s = 15.0

    def __init__(self, *, handover: Handover | None, disks: Disks | None = None) -> None:
        self._handover = handover
        self._disks = disks or Disks()
        self._table: Map | None = None
        self._before: dict[tuple[int, int], Account] = {}
        self._read_at: Instant | None = None

    def __repr__(self) -> str:
        return f"BlockSensor({NAME}, {'open' if self._table else 'closed'}, disks={len(self._before)})"

    def open(self) -> None:
        """Take hold of the table; what it holds already is taken as read."""
        self.close()
        entry = attached_entry(self._handover, NAME)
        assert self._handover is not None, "an entry comes with a handover"
        handed = self._handover.maps(NAME).get("block_latency")
        key, value = (handed.entry.key, handed.entry.value) if handed else (None, None)
        if handed is None or key is None or value is None:
            raise SensorBlind(BlindReason.READ_FAILED, f"the manifest of {entry.sensor} has no histograms")
        try:
            library = Libbpf()
        except LibraryMissing as error:
            raise SensorBlind(BlindReason.NO_LIBRARY, str(error)) from error
        self._read_key, self._read_value = key.reader(), value.reader()
        self._table = Map(
            libbpf=library,
            fd=handed.fd,
            key_size=handed.entry.key_size,
            value_size=handed.entry.value_size,
        )
        self._before = self._accounts()

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return what each disk did since the last read."""
        window_s = now.since_s(self._read_at) if self._read_at is not None else 0.0
        self._read_at = now
        before, self._before = self._before, self._accounts()
        moved = sorted({device for device, _ in self._before})
        told: list[Observation] = []
        for device in moved:
            reads, writes = (
                _since(before.get((device, way), _NOTHING), self._before.get((device, way), _NOTHING))
                for way in (0, 1)
            )
            if sum(reads[2]) or sum(writes[2]):
                told.append(self._activity(device, reads, writes, window_s, now))
        return told

    def waiting(self) -> bool:
        """There is always something to read."""
        return True

    def settle(self) -> None:
        """Nothing to note: a window is told or gone."""

    def wakeup_fd(self) -> int | None:
        """A histogram waits for its turn."""
        return None

    def close(self) -> None:
        """Let go of the table. Its descriptor belongs to the handover."""
        self._table = self._read_at = None
        self._before = {}

    def _accounts(self) -> dict[tuple[int, int], Account]:
        if self._table is None:
            raise SensorBlind(BlindReason.READ_FAILED, "the sensor is not open")
        found = {}
        try:
            for raw_key in list(self._table.keys()):
                raw = self._table.lookup(raw_key)
                if raw is not None:
                    key = self._read_key(raw_key)
                    found[key["device"], key["writes"]] = _account(self._read_value(raw))
        except OSError as error:
            raise SensorBlind(BlindReason.READ_FAILED, str(error.strerror)) from error
        return found

    def _activity(
        self, device: int, reads: Account, writes: Account, window_s: float, now: Instant
    ) -> BlockActivity:
        numbers = f"{device >> 20}:{device & 0xFFFFF}"  # linux/kdev_t.h
        return BlockActivity(
            sensor=NAME,
            at=now,
            device=self._disks.name(numbers) or numbers,
            window_s=window_s,
            reads=sum(reads[2]),
            writes=sum(writes[2]),
            read_bytes=reads[0],
            written_bytes=writes[0],
            read_mean_s=_mean_s(reads),
            write_mean_s=_mean_s(writes),
            read_p99_s=_p99_s(reads[2]),
            write_p99_s=_p99_s(writes[2]),
        )


def _account(value: dict[str, Any]) -> Account:
    classes: bytes = value["classes"]
    return value["bytes"], value["time_ns"], struct.unpack(f"={len(classes) // 8}Q", classes)


def _since(before: Account, now: Account) -> Account:
    """Return the difference; a table that began anew (counts fell) is a beginning."""
    if not before[2] or sum(now[2]) < sum(before[2]):
        return now
    classes = tuple(max(0, late - early) for early, late in zip(before[2], now[2], strict=True))
    return max(0, now[0] - before[0]), max(0, now[1] - before[1]), classes


def _mean_s(account: Account) -> float | None:
    count = sum(account[2])
    return account[1] / count / 1e9 if count else None


def _p99_s(classes: tuple[int, ...]) -> float | None:
    """Return the upper bound of the class that the 99th of a hundred lies in; class 0 is below 1 us."""
    total, seen = sum(classes), 0
    for number, count in enumerate(classes):
        seen += count
        if count and seen >= total * _P99:
            return float(2**number) / 1e6
    return None
