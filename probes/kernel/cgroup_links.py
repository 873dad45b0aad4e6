"""Run a loaded program at the packets or calls of every socket of the host: a link on the cgroup v2 root.

By BPF_LINK_CREATE and not by bcc, which knows only the older BPF_PROG_ATTACH: that outlives every process and
has no descriptor to hand over. A link ends with its last descriptor.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from pathlib import Path

from probes.host.cgroups import find_mounts
from probes.kernel.programs import Direction, SocketCall

_SYSCALL_BPF = {"x86_64": 321, "aarch64": 280}  # asm/unistd_64.h, asm-generic/unistd.h
_BPF_LINK_CREATE = 28  # linux/bpf.h


class NoUnifiedHierarchy(Exception):
    """No cgroup v2 hierarchy is mounted; the message says what to do."""


def root_of_cgroups(root: Path | None = None) -> int:
    """Open the root of the cgroup v2 hierarchy; raise NoUnifiedHierarchy where there is none."""
    place = root or find_mounts().unified
    if place is None:
        raise NoUnifiedHierarchy(
            "no cgroup v2 hierarchy is mounted: mount -t cgroup2 cgroup2 /sys/fs/cgroup, "
            'or set http.capture = "packet"'
        )
    try:
        return os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise NoUnifiedHierarchy(f"open the cgroup v2 hierarchy at {place}: {error.strerror}") from error


def attach_to_cgroup(program_fd: int, root_fd: int, what: Direction | SocketCall) -> int:
    """Return the descriptor of the link; raise OSError with the kernel's errno."""
    number = _SYSCALL_BPF.get(platform.machine())
    if number is None:
        raise OSError(38, f"attach to cgroups: no bpf number for {platform.machine()}")
    # union bpf_attr, link_create: prog_fd, target_fd, attach_type, flags
    attributes = struct.pack("=IIII", program_fd, root_fd, what, 0)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    fd = libc.syscall(
        ctypes.c_long(number), ctypes.c_int(_BPF_LINK_CREATE), buffer, ctypes.c_uint(len(attributes))
    )
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"link to the cgroup root, {what.name.lower()}: {os.strerror(code)}")
    return int(fd)
