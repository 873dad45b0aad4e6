"""Tasks that the kernel's watchdog found stuck (`task_hang.bpf.c`), the second witness of a stuck process.

The watchdog looks for tasks in uninterruptible sleep without a single switch for
`kernel.hung_task_timeout_secs` (120 as a rule, 0 switches it off;
Documentation/admin-guide/sysctl/kernel.rst). The record names a thread; its process is found in /proc.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from probes.host.clock import at_boot_ns
from probes.host.identity import Identifier
from probes.kernel.handed import HandedProgram
from probes.kernel.handover import Handover
from probes.kernel.programs import Attachment, KernelProgram
from probes.observation import Instant, Observation, SensorName, TaskHung

NAME: Final = SensorName("kernel.task_hang")
PROGRAM: Final = KernelProgram(
    sensor=NAME,
    stem="task_hang",
    attachments=(Attachment("task_hang_found", "sched:sched_process_hang"),),
    maps=("task_hang_events", "task_hang_ledger"),
)
_PROCESS: Final = re.compile(rb"^Tgid:\t(\d{1,10})$", re.MULTILINE)


class TaskHangSensor:
    """Says which process the kernel found stuck."""

    name = NAME
    period_s = 0.25

    def __init__(
        self, *, handover: Handover | None, identifier: Identifier, proc: Path = Path("/proc")
    ) -> None:
        self._program = HandedProgram(sensor=NAME, stem=PROGRAM.stem, handover=handover)
        self._identifier = identifier
        self._proc = proc

    def __repr__(self) -> str:
        return f"TaskHangSensor({self._program})"

    def open(self) -> None:
        """Take hold of the ring."""
        self._program.open()

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return the hung tasks since the last read."""
        found: list[Observation] = [
            TaskHung(
                sensor=NAME,
                at=at_boot_ns(event["time_ns"], now),
                origin=self._identifier.origin(
                    pid=self._process(event["pid"]), at_boot_ns=event["time_ns"], stuck=True
                ),
            )
            for event in self._program.records()
        ]
        return found + list(self._program.losses(now))

    def waiting(self) -> bool:
        """Whether there are events."""
        return self._program.waiting()

    def settle(self) -> None:
        """Note how far the ring is judged and on disk."""
        self._program.settle()

    def wakeup_fd(self) -> int | None:
        """Every hung task is told at once."""
        return self._program.wakeup_fd()

    def close(self) -> None:
        """Let go of the ring."""
        self._program.close()

    def _process(self, tid: int) -> int:
        try:
            found = _PROCESS.search((self._proc / str(tid) / "status").read_bytes())
        except OSError:
            return tid
        return int(found[1]) if found else tid
