"""Run a loaded program where a function of a library is called, or where it returns, in every process."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from probes.kernel.elf import LibraryUnusable, function_offsets
from probes.kernel.perf_events import Event, run_at
from probes.kernel.programs import UprobeAttachment

_SOURCE = Path("/sys/bus/event_source/devices/uprobe")


class CallUnwatched(Exception):
    """The call cannot be watched: no such library or function, no uprobes in this kernel, or no privilege."""


def attach_to_call(program_fd: int, attachment: UprobeAttachment) -> int:
    """Return the descriptor that holds the program there; raise CallUnwatched.

    Since 6.16 (and in stable kernels of that time) the kernel asks for CAP_SYS_ADMIN: a breakpoint inside an
    instruction can do harm, and it cannot tell. Before, CAP_PERFMON was enough.
    """
    name = f"{attachment.symbol} of {attachment.object_file}"
    try:
        offsets = function_offsets(Path(attachment.object_file), [attachment.symbol])
    except LibraryUnusable as error:
        raise CallUnwatched(str(error)) from error
    if attachment.symbol not in offsets:
        raise CallUnwatched(f"{attachment.object_file} has no function {attachment.symbol}")
    try:
        kind = int((_SOURCE / "type").read_text())
        bit = int((_SOURCE / "format/retprobe").read_text().strip().removeprefix("config:"))
    except (OSError, ValueError) as error:
        raise CallUnwatched(f"this kernel has no uprobes: {error}") from error
    # config1 and config2 of such an event are the address of the path and the place in the file.
    path = ctypes.create_string_buffer(os.fsencode(attachment.object_file))
    event = Event(
        name=f"the return of {name}" if attachment.at_return else name,
        kind=kind,
        config=1 << bit if attachment.at_return else 0,
        config1=ctypes.addressof(path),
        config2=offsets[attachment.symbol],
    )
    try:
        return run_at(program_fd, event)
    except OSError as error:
        hint = ": it takes CAP_SYS_ADMIN" if error.errno in (errno.EPERM, errno.EACCES) else ""
        raise CallUnwatched(f"{attachment.object_file}: {os.strerror(error.errno or 0)}{hint}") from error
