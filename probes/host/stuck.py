"""Tasks in uninterruptible sleep that do not get on, and what only looks like it.

A task that waits for a disk is in that state for moments, and its scheduler account (/proc/PID/schedstat)
moves between two looks. Two kinds wait for long without a fault: the parent of a vfork, until its child
executes something (until then both have one memory, so both have the same size), and the tasks of a frozen
control group.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from probes.host.cgroups import CgroupMounts
from probes.host.process_stats import ProcessStat, progress_of, stat_of
from probes.host.stalls import small_file

_THREADS: Final = 1024
_TASKS: Final = 256


@dataclass(frozen=True, slots=True)
class StuckTask:
    """A task that was stuck at a look: its process, its account, and what it had used."""

    pid: int
    tid: int
    start_ticks: int
    progress: bytes
    used_s: float


class StuckTasks:
    """Finds the tasks that are stuck at one moment."""

    def __init__(self, *, proc: str, mounts: CgroupMounts) -> None:
        self._proc = proc
        self._unified = mounts.unified
        self._freezer = mounts.controller("freezer")

    def __repr__(self) -> str:
        return f"StuckTasks({self._proc})"

    def look(self, servers: Iterable[int]) -> Mapping[int, StuckTask]:
        """Return by task number: every process whose main thread is stuck, and every thread of `servers`."""
        stats = {pid: stat for pid in self._pids() if (stat := stat_of(f"{self._proc}/{pid}")) is not None}
        found: dict[int, StuckTask] = {}
        for pid, tid, stat in self._tasks(stats, servers):
            if stat.state != "D" or stat.is_kernel_thread or tid in found or len(found) >= _TASKS:
                continue
            progress = progress_of(f"{self._proc}/{pid}/task/{tid}")
            found[tid] = StuckTask(pid, tid, stat.start_ticks, progress, stat.used_s)
        return {tid: task for tid, task in found.items() if not _waits_for_vfork(task.pid, stats)}

    def is_frozen(self, paths: Mapping[str, str]) -> bool:
        """Return whether the control group of a process is frozen, by its paths (v2 by the empty name)."""
        if self._unified is not None and b"\nfrozen 1" in b"\n" + small_file(
            f"{self._unified}{paths.get('', '')}/cgroup.events"
        ):
            return True
        if self._freezer is None or "freezer" not in paths:
            return False
        state = small_file(f"{self._freezer}{paths['freezer']}/freezer.state").strip()
        return state not in (b"", b"THAWED")

    def _tasks(
        self, stats: Mapping[int, ProcessStat], servers: Iterable[int]
    ) -> Iterator[tuple[int, int, ProcessStat]]:
        for pid, stat in stats.items():
            yield pid, pid, stat
        left = _THREADS
        for pid in servers:
            for tid in _numbers(f"{self._proc}/{pid}/task"):
                if left <= 0:
                    return
                left -= 1
                thread = stat_of(f"{self._proc}/{pid}/task/{tid}")
                if thread is not None:
                    yield pid, tid, thread

    def _pids(self) -> list[int]:
        return _numbers(self._proc)


def _waits_for_vfork(pid: int, stats: Mapping[int, ProcessStat]) -> bool:
    own = stats.get(pid)
    return own is not None and any(stat.parent == pid and stat.size == own.size for stat in stats.values())


def _numbers(folder: str) -> list[int]:
    try:
        names = os.listdir(folder)  # noqa: PTH208 -- hot path, no Path objects
    except OSError:
        return []
    return [int(name) for name in names if name.isdecimal()]
