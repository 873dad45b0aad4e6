"""Calls that found no descriptor, by process (`descriptors.bpf.c`; opens are counted by `device_open.bpf.c`).

Nobody may count the descriptors of another user's process (proc(5), /proc/PID/fd), so that they run out is
seen where it happens: the system call returns EMFILE. The limit is read beside it, from /proc/PID/limits.
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from probes.host.clock import at_boot_ns
from probes.host.identity import Identifier
from probes.kernel import device_open
from probes.kernel.handover import Handover
from probes.kernel.programs import Attachment, KernelProgram
from probes.kernel.tables import CountedTable
from probes.observation import (
    CgroupId,
    DescriptorsRefused,
    DescriptorUser,
    Instant,
    Observation,
    SensorName,
)
from probes.sensor import SensorBlind

NAME: Final = SensorName("kernel.descriptors")
PROGRAM: Final = KernelProgram(
    sensor=NAME,
    stem="descriptors",
    attachments=(
        Attachment("descriptors_accept4", "syscalls:sys_exit_accept4"),
        Attachment("descriptors_accept", "syscalls:sys_exit_accept", required=False),
        Attachment("descriptors_socket", "syscalls:sys_exit_socket", required=False),
    ),
    maps=("descriptors_counts", "descriptors_ledger"),
)
_CALLS: Final = {1: DescriptorUser.ACCEPT, 2: DescriptorUser.SOCKET}  # enum descriptors_call
_OPEN: Final = 0
_LIMIT: Final = re.compile(rb"^Max open files +(\d{1,19}) ", re.MULTILINE)

_Key = tuple[int, int, int]


class DescriptorsSensor:
    """Says which process got no descriptor, how often, and what its limit is."""

    name = NAME
    period_s = 0.5

    def __init__(
        self, *, handover: Handover | None, identifier: Identifier, proc: Path = Path("/proc")
    ) -> None:
        self._own = CountedTable(sensor=NAME, stem=PROGRAM.stem, table="counts", handover=handover)
        self._opens = CountedTable(
            sensor=NAME,
            stem=device_open.PROGRAM.stem,
            table="starved",
            ledger="starved_ledger",
            owner=device_open.NAME,
            handover=handover,
        )
        self._identifier = identifier
        self._proc = proc
        self._counted: dict[_Key, int] = {}

    def __repr__(self) -> str:
        return f"DescriptorsSensor({self._own}, {self._opens})"

    def open(self) -> None:
        """Take hold of the tables and note how they stand; opens may be out of sight, accepts may not."""
        self._own.open()
        with contextlib.suppress(SensorBlind):
            self._opens.open()
        self._counted = {key: value["count"] for key, value in self._rows(lambda _: True)}

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return one observation for each process and call that was refused since the last read."""
        if not self.waiting():
            return []
        self._identifier.keep_warm()
        found: list[Observation] = []
        moved: dict[_Key, int] = {}
        for key, value in self._rows(CountedTable.moved):
            before = self._counted.get(key, 0)
            moved[key] = value["count"]
            count = value["count"] - (before if before <= value["count"] else 0)
            if count:
                found.append(self._observation(key, value, count, now))
        self._counted |= moved
        while len(self._counted) > 4096:  # twice what the tables hold
            del self._counted[next(iter(self._counted))]
        return [*found, *self._own.losses(now), *self._opens.losses(now)]

    def waiting(self) -> bool:
        """Whether anything was refused, at the price of two reads of memory."""
        return self._own.moved() or self._opens.moved()

    def settle(self) -> None:
        """Nothing to note: a successor begins with the tables as they stand."""

    def wakeup_fd(self) -> int | None:
        """A process without descriptors waits for its turn."""
        return None

    def close(self) -> None:
        """Let go of the tables."""
        self._own.close()
        self._opens.close()

    def _rows(self, wanted: Callable[[CountedTable], bool]) -> list[tuple[_Key, dict[str, Any]]]:
        rows: list[tuple[_Key, dict[str, Any]]] = []
        if wanted(self._own):
            rows += [((key["pid"], key["call"], key["error"]), value) for key, value in self._own.rows()]
        if self._opens.is_open and wanted(self._opens):
            rows += [((key["pid"], _OPEN, key["error"]), value) for key, value in self._opens.rows()]
        return rows

    def _observation(self, key: _Key, value: dict[str, Any], count: int, now: Instant) -> DescriptorsRefused:
        pid, call, code = key
        return DescriptorsRefused(
            sensor=NAME,
            at=at_boot_ns(value["last_ns"], now),
            origin=self._identifier.origin(
                pid=pid,
                cgroup_id=CgroupId(value["cgroup_id"]),
                process_name=value["process"],
                at_boot_ns=value["last_ns"],
            ),
            call=_CALLS.get(call, DescriptorUser.OPEN),
            host_wide=code == errno.ENFILE,
            count=count,
            limit=self._limit(pid),
        )

    def _limit(self, pid: int) -> int | None:
        try:
            found = _LIMIT.search((self._proc / str(pid) / "limits").read_bytes())
        except OSError:
            return None
        return int(found[1]) if found else None
