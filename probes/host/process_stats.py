"""What /proc/PID/stat and its neighbours say of a process, as bytes of the kernel's: parsed with care.

proc(5). The name stands in brackets and may itself hold brackets and newlines, so fields are counted from the
last one. Whatever cannot be read is None: the process is gone, or the file is none.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from probes.host.stalls import small_file

_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """One look: the letter of its state, its parent, when it began, what it used, how large it is."""

    state: str
    parent: int
    start_ticks: int
    used_s: float
    size: tuple[int, int]  # bytes of address space and pages in memory

    @property
    def is_kernel_thread(self) -> bool:
        """Whether it has no address space of its own."""
        return self.size[0] == 0


def is_asleep(folder: str) -> bool:
    """Return whether a task is in uninterruptible sleep, for moments or for ever.

    Its command line lies in its memory, and who reads that may wait for as long as it does: a task that is
    stuck with the lock of its memory in hand is why ps(1) hangs on some hosts.
    """
    return small_file(f"{folder}/stat").rpartition(b")")[2][:3] == b" D "


def stat_of(folder: str) -> ProcessStat | None:
    """Return what `folder`/stat says; /proc/PID and /proc/PID/task/TID are such folders."""
    return stat_in(small_file(f"{folder}/stat"))


def stat_in(text: bytes) -> ProcessStat | None:
    """Read the text of a stat file."""
    fields = text.rpartition(b")")[2].split()
    try:
        numbers = [int(fields[place]) for place in (1, 11, 12, 19, 20, 21)]
        state = fields[0].decode("ascii")
    except (IndexError, ValueError):
        return None
    parent, user, system, start, size, resident = numbers
    return ProcessStat(state, parent, start, (user + system) / _TICKS, (size, resident))


def progress_of(folder: str) -> bytes:
    """Return what moves when a task runs: the scheduler's account, nothing on a kernel without one."""
    return small_file(f"{folder}/schedstat").strip()
