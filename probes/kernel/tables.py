"""The tables of an attached program whose counts are read by a timer, without a ring of events.

A ledger stands beside them, in this process's own memory, so that whether anything was counted costs a read
of memory; the tables are walked by system call only when something was. `HandedProgram` is for programs that
tell events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from probes.kernel.handed import attached_entry
from probes.kernel.handover import HandedMap, Handover
from probes.kernel.libbpf import Ledger, Libbpf, LibraryMissing, Map
from probes.observation import BlindReason, Gap, Instant, Seeing, SensorName
from probes.sensor import SensorBlind

_LOST = 0  # ring.bpf.h
_SENT = 1


class CountedTable:
    """One hash table of a program, with its ledger, read as pairs of decoded key and value."""

    def __init__(
        self,
        *,
        sensor: SensorName,
        stem: str,
        table: str,
        handover: Handover | None,
        ledger: str = "ledger",
        owner: SensorName | None = None,
    ) -> None:
        """`owner` is the sensor whose program has the table, where that is not `sensor` itself."""
        self._sensor = sensor
        self._owner = owner or sensor
        self._stem = stem
        self._table = table
        self._ledger_name = ledger
        self._handover = handover
        self._ledger: Ledger | None = None
        self._map: Map | None = None
        self._read_key: Callable[[bytes], dict[str, Any]] | None = None
        self._read_value: Callable[[bytes], dict[str, Any]] | None = None
        self._seen = 0
        self._told_lost = 0

    def __repr__(self) -> str:
        return f"CountedTable({self._sensor}, {'open' if self._map else 'closed'}, counted={self._seen})"

    def open(self) -> None:
        """Take hold of the table; raise SensorBlind with the manifest's reason when there is none."""
        if self._map is not None:
            return
        attached_entry(self._handover, self._owner)
        table = self._handed(self._table)
        if table.entry.key is None or table.entry.value is None:
            raise SensorBlind(BlindReason.READ_FAILED, f"the manifest has no layout for {table.entry.name}")
        try:
            libbpf = Libbpf()
            self._ledger = Ledger(fd=self._handed(self._ledger_name).fd)
        except LibraryMissing as error:
            raise SensorBlind(BlindReason.NO_LIBRARY, str(error)) from error
        except OSError as error:
            raise SensorBlind(BlindReason.READ_FAILED, str(error.strerror)) from error
        self._read_key, self._read_value = table.entry.key.reader(), table.entry.value.reader()
        self._map = Map(
            libbpf=libbpf, fd=table.fd, key_size=table.entry.key_size, value_size=table.entry.value_size
        )
        self._told_lost = self._ledger.count(_LOST)

    @property
    def is_open(self) -> bool:
        """Whether the table can be read."""
        return self._map is not None

    def moved(self) -> bool:
        """Whether anything was counted since the last `rows`, at the price of a read of memory."""
        return self._ledger is not None and self._ledger.count(_SENT) != self._seen

    def rows(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield the table as it stands; raise SensorBlind when it cannot be read."""
        if self._ledger is None or self._map is None or self._read_key is None or self._read_value is None:
            raise SensorBlind(BlindReason.READ_FAILED, "the sensor is not open")
        self._seen = self._ledger.count(_SENT)
        try:
            for raw in list(self._map.keys()):
                value = self._map.lookup(raw)
                if value is not None:
                    yield self._read_key(raw), self._read_value(value)
        except OSError as error:
            raise SensorBlind(BlindReason.READ_FAILED, str(error.strerror)) from error

    def losses(self, now: Instant) -> list[Gap]:
        """Return a Gap when the table had no room for something since the last time."""
        lost = 0 if self._ledger is None else self._ledger.count(_LOST)
        if lost <= self._told_lost:
            return []
        missed, self._told_lost = lost - self._told_lost, lost
        return [Gap(sensor=self._sensor, at=now, coverage=Seeing(), lost=missed)]

    def close(self) -> None:
        """Let go of the ledger. The descriptors stay open: they belong to the handover."""
        if self._ledger is not None:
            self._ledger.close()
        self._ledger = self._map = None
        self._seen = 0

    def _handed(self, suffix: str) -> HandedMap:
        assert self._handover is not None, "the manifest was looked at before"
        name = f"{self._stem}_{suffix}"
        handed = self._handover.maps(self._owner).get(name)
        if handed is None:
            raise SensorBlind(BlindReason.READ_FAILED, f"the manifest has no map {name}")
        return handed
