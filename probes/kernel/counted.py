"""A program's table of counters that move, told exactly: by whom and how often, across the life of a reader.

The program keeps a counter for each key and says by its ring that a key moves, at most once a second. The
counts are read from the table, so they are exact however many there were; what was told and is on disk is
noted in a table beside it (`STEM_reported`), so that a successor of this process tells the rest.

`device_open` does the same for itself, with sweeps of its own; this is for tables that stay small.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from probes.kernel.handed import HandedProgram
from probes.observation import BlindReason, Instant
from probes.sensor import SensorBlind

_QUIET_NS: Final = 1_100_000_000
"""A counter that stood still this long will speak up again by the ring."""


@dataclass(frozen=True, slots=True)
class Rise:
    """One counter that rose: its decoded key and value, and by how much."""

    key: dict[str, Any]
    value: dict[str, Any]
    count: int


class CountedTable:
    """The counters of one program. `open` comes first; the program's ring belongs to this."""

    def __init__(self, program: HandedProgram) -> None:
        self._program = program
        self._moving: set[bytes] = set()
        self._told: dict[bytes, int] = {}
        self._unwritten: dict[bytes, int] = {}

    def __repr__(self) -> str:
        return f"CountedTable(moving={len(self._moving)}, told={len(self._told)})"

    def open(self) -> None:
        """Take hold of ring and tables; everything counted and never told is due at once."""
        self._program.open()
        self._counts, self._notes = self._program.map("counts"), self._program.map("reported")
        self._read_key, self._read_value = self._program.layout_of("counts")
        self._told.clear()
        self._unwritten.clear()
        self._moving = set(self._counts.keys())

    def rises(self, now: Instant) -> Iterator[Rise]:
        """Yield every counter that rose since it was last told."""
        if list(self._program.records()):
            # The events are a bell: which of the few keys it was, the table tells.
            self._moving.update(self._counts.keys())
        for key in list(self._moving):
            raw = self._counts.lookup(key)
            if raw is None:
                self._moving.discard(key)
                continue
            value = self._read_value(raw)
            rise = value["count"] - self._before(key)
            if now.boot_ns - value["last_ns"] > _QUIET_NS:
                self._moving.discard(key)
            if rise > 0:
                self._told[key] = self._unwritten[key] = value["count"]
                yield Rise(self._read_key(key), value, rise)

    def waiting(self) -> bool:
        """Whether the ring rang, or a counter moved a moment ago and may move again."""
        return bool(self._moving) or self._program.waiting()

    def settle(self) -> None:
        """Note what was told; raise SensorBlind where the table takes no note."""
        try:
            for key, count in self._unwritten.items():
                self._notes.update(key, count.to_bytes(8, sys.byteorder))
        except OSError as error:
            raise SensorBlind(BlindReason.READ_FAILED, str(error.strerror)) from error
        self._unwritten.clear()
        self._program.settle()

    def forget(self, key: dict[str, Any]) -> None:
        """Drop a counter, because what it counts for is gone."""
        for raw in [raw for raw in self._told if self._read_key(raw) == key]:
            self._counts.delete(raw)
            self._notes.delete(raw)
            self._told.pop(raw, None)
            self._unwritten.pop(raw, None)
            self._moving.discard(raw)

    def told(self) -> list[dict[str, Any]]:
        """Return the keys of all that was told."""
        return [self._read_key(raw) for raw in self._told]

    def _before(self, key: bytes) -> int:
        if key not in self._told:
            note = self._notes.lookup(key)
            self._told[key] = int.from_bytes(note, sys.byteorder) if note else 0
        return self._told[key]
