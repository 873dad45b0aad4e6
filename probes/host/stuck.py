"""Tasks in uninterruptible sleep that do not get on, and what only looks like it.

A task that waits for a disk is in that state for moments, and its scheduler account (/proc/PID/schedstat)
moves between two looks. Two kinds wait for long without a fault: the parent of a vfork, until its child
executes something (until then both have one memory, so both have the same size), and the tasks of a frozen
control group.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Final

from probes.host.cgroups import CgroupMounts
from probes.host.process_stats import is_asleep, progress_of, stat_of
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
        found: dict[int, StuckTask] = {}
        for pid, tid, folder in self._tasks(servers):
            stat = stat_of(folder) if tid not in found and is_asleep(folder) else None
            if stat is None or stat.state != "D" or stat.is_kernel_thread or len(found) >= _TASKS:
                continue
            progress = progress_of(f"{self._proc}/{pid}/task/{tid}")
            found[tid] = StuckTask(pid, tid, stat.start_ticks, progress, stat.used_s)
        waiting = self._parents_of_vforks({task.pid for task in found.values()})
        return {tid: task for tid, task in found.items() if task.pid not in waiting}

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

    def _tasks(self, servers: Iterable[int]) -> Iterator[tuple[int, int, str]]:
        for pid in _numbers(self._proc):
            yield pid, pid, f"{self._proc}/{pid}"
        left = _THREADS
        for pid in servers:
            for tid in _numbers(f"{self._proc}/{pid}/task")[:left]:
                left -= 1
                yield pid, tid, f"{self._proc}/{pid}/task/{tid}"

    def _parents_of_vforks(self, pids: Set[int]) -> Set[int]:
        """Return which of `pids` have a child with the same memory; nobody else is looked at for that."""
        if not pids:
            return frozenset()
        stats = [(pid, stat_of(f"{self._proc}/{pid}")) for pid in _numbers(self._proc)]
        sizes = {pid: stat.size for pid, stat in stats if stat is not None and pid in pids}
        return {stat.parent for _, stat in stats if stat is not None and sizes.get(stat.parent) == stat.size}


def _numbers(folder: str) -> list[int]:
    try:
        names = os.listdir(folder)  # noqa: PTH208 -- hot path, no Path objects
    except OSError:
        return []
    return [int(name) for name in names if name.isdecimal()]
