"""Run a loaded program at a kernel event: perf_event_open, and what the kernel says when it refuses."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import struct
from dataclasses import dataclass
from pathlib import Path

_SYSCALL = {"x86_64": 298, "aarch64": 241}  # asm/unistd_64.h, asm-generic/unistd.h
_FLAG_FD_CLOEXEC = 8  # linux/perf_event.h
_IOC_ENABLE = 0x2400
_IOC_SET_BPF = 0x40042408


@dataclass(frozen=True, slots=True)
class Event:
    """What struct perf_event_attr says of an event; `name` is for people."""

    name: str
    kind: int
    config: int
    config1: int = 0
    config2: int = 0


def run_at(program_fd: int, event: Event) -> int:
    """Run the program at every hit, on all CPUs; return the descriptor that holds it there.

    Raises OSError with the kernel's errno. One event on CPU 0 is enough: the kernel runs the programs of an
    event's list wherever it happens.
    """
    fd = open_event(event)
    try:
        fcntl.ioctl(fd, _IOC_SET_BPF, program_fd)
        fcntl.ioctl(fd, _IOC_ENABLE, 0)
    except OSError as error:
        os.close(fd)
        raise OSError(error.errno, f"attach to {event.name}: {error.strerror}") from error
    return fd


def open_event(event: Event, *, disabled: bool = False) -> int:
    """Open an event that runs nothing yet, and return its descriptor; raise OSError."""
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise OSError(38, f"attach to {event.name}: no perf_event_open number for {platform.machine()}")
    # struct perf_event_attr, version 1: type, size, config, sample_period, disabled (the first of the flags),
    # wakeup_events, config1, config2
    attributes = struct.pack(
        "=IIQQQQQIIQQ", event.kind, 72, event.config, 1, 0, 0, disabled, 1, 0, event.config1, event.config2
    )
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    fd = libc.syscall(
        ctypes.c_long(number),
        buffer,
        ctypes.c_int(-1),
        ctypes.c_int(0),
        ctypes.c_int(-1),
        ctypes.c_ulong(_FLAG_FD_CLOEXEC),
    )
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"open {event.name}: {os.strerror(code)}{paranoia(code)}")
    return int(fd)


def paranoia(code: int, path: Path = Path("/proc/sys/kernel/perf_event_paranoid")) -> str:
    """Return what to add to a refusal: distributions have levels that CAP_PERFMON does not pass."""
    try:
        level = int(path.read_text())
    except (OSError, ValueError):
        return ""
    if code != errno.EACCES or level <= 2:
        return ""
    return (
        f" (kernel.perf_event_paranoid is {level}: this kernel then asks for CAP_SYS_ADMIN; "
        "set it to 2, the default of the kernel itself)"
    )
