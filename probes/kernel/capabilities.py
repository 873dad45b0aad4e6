"""The loader's own capabilities: what it holds, and letting go of what the enabled sensors do not take.

By the system calls themselves: the standard library has nothing for it, and the privileged side no package.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
from collections.abc import Iterable
from pathlib import Path

from probes.kernel.programs import Capability

_SYSCALLS = {"x86_64": (125, 126), "aarch64": (90, 91)}  # capget, capset
_VERSION_3 = 0x20080522  # linux/capability.h: 64 bits in two halves
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _CLEAR_ALL = 24, 38, 47, 4
_LAST = Path("/proc/sys/kernel/cap_last_cap")


def holds(capability: Capability) -> bool:
    """Whether this process has it in effect."""
    effective, _, _ = _get()
    return bool(effective >> capability & 1)


def keep_only(wanted: Iterable[Capability]) -> None:
    """Let go of every other capability, for good, and of gaining any by executing a program.

    What this process may not take from its bounding set stays there, and is of no use: without new privileges
    nothing that is executed gains what is not permitted already. Raises OSError when the kernel refuses.
    """
    mask = sum(1 << capability for capability in frozenset(wanted))
    _, permitted, _ = _get()
    left = permitted & mask
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "set no_new_privs")
    libc.prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    with contextlib.suppress(OSError, ValueError):
        for number in range(int(_LAST.read_text()) + 1):
            if not mask >> number & 1:
                libc.prctl(
                    _PR_CAPBSET_DROP, number, 0, 0, 0
                )  # takes CAP_SETPCAP, which the unit does not have
    _set(left)


def _get() -> tuple[int, int, int]:
    data = ctypes.create_string_buffer(24)
    _call(0, data, "read capabilities")
    low_e, low_p, low_i, high_e, high_p, high_i = struct.unpack("=6I", data.raw)
    return low_e | high_e << 32, low_p | high_p << 32, low_i | high_i << 32


def _set(mask: int) -> None:
    low, high = mask & 0xFFFFFFFF, mask >> 32
    _call(
        1, ctypes.create_string_buffer(struct.pack("=6I", low, low, 0, high, high, 0), 24), "set capabilities"
    )


def _call(which: int, data: ctypes.Array[ctypes.c_char], doing: str) -> None:
    numbers = _SYSCALLS.get(platform.machine())
    if numbers is None:
        raise OSError(38, f"{doing}: no number for {platform.machine()}")
    libc = ctypes.CDLL(None, use_errno=True)
    header = ctypes.create_string_buffer(struct.pack("=Ii", _VERSION_3, 0), 8)
    if libc.syscall(ctypes.c_long(numbers[which]), header, data):
        code = ctypes.get_errno()
        raise OSError(code, f"{doing}: {os.strerror(code)}")
