"""Programs that are loaded and sleep: their reader wakes them while they are worth what they cost.

A program at every switch of every processor costs whether anybody asks or not. Switching its perf event off
(PERF_EVENT_IOC_DISABLE) does not help: the kernel runs a tracepoint's programs whatever the state of the
event that brought them (trace_call_bpf, kernel/trace/bpf_trace.c). What helps is a BPF link between the
loaded program and an event that is open and disabled: the program runs from its making to its closing. Making
one takes both descriptors and no capability (BPF_LINK_CREATE, since Linux 5.19 not refused to the
unprivileged), and it ends with the process that made it.
"""

from __future__ import annotations

import ctypes
import os

from probes.kernel.handover import Handover, MapEntry
from probes.kernel.libbpf import Libbpf
from probes.kernel.programs import Attachment, KernelProgram

_PERF_EVENT = 41  # BPF_PERF_EVENT, linux/bpf.h


def program_entry(attachment: Attachment) -> MapEntry:
    """Return how the manifest names a sleeping program."""
    return MapEntry(f"{attachment.function}_program", "program", -1, 0, 0, 0)


def event_entry(attachment: Attachment) -> MapEntry:
    """Return how the manifest names the event that a sleeping program belongs to."""
    return MapEntry(f"{attachment.function}_event", "perf_event", -1, 0, 0, 0)


class Sleepers:
    """The sleeping programs of one sensor, woken and put to sleep together."""

    def __init__(self, *, program: KernelProgram, handover: Handover, libbpf: Libbpf) -> None:
        handed = handover.maps(program.sensor)
        self._library = libbpf.functions
        self._pairs = [
            (handed[program_entry(each).name].fd, handed[event_entry(each).name].fd)
            for each in program.tracepoints
            if each.asleep and program_entry(each).name in handed
        ]
        self._links: list[int] = []

    def __repr__(self) -> str:
        return f"Sleepers({len(self._pairs)} programs, {'awake' if self._links else 'asleep'})"

    @property
    def awake(self) -> bool:
        """Whether the programs run."""
        return bool(self._links)

    def wake(self) -> None:
        """Let every program run; raise OSError, with none of them running, when the kernel refuses one."""
        if self._links:
            return
        for program_fd, event_fd in self._pairs:
            ctypes.set_errno(0)
            link = self._library.bpf_link_create(program_fd, event_fd, _PERF_EVENT, None)
            if link < 0:
                code = -link if link < -1 else ctypes.get_errno()
                self.sleep()
                raise OSError(code, f"run a sleeping program: {os.strerror(code)}")
            self._links.append(link)

    def sleep(self) -> None:
        """Let none run; calling it again does nothing. It waits for processors that are just in one."""
        while self._links:
            os.close(self._links.pop())
