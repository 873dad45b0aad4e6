"""Names, counts, durations and sizes as people read them.

Errnos and signals are Linux's, whatever this runs on: they come from a watched host.
"""

from __future__ import annotations

import errno
from typing import Final

from escalation.inert import shown

LABEL_LIMIT: Final = 120
"""Characters of a host's name that a sentence or a table shows; an action is never cut."""

_LONGEST_S: Final = 1e11
"""Three thousand years: what is longer came from no clock."""

_SIGNALS: Final = {
    1: "SIGHUP",
    2: "SIGINT",
    3: "SIGQUIT",
    4: "SIGILL (illegal instruction)",
    5: "SIGTRAP (breakpoint)",
    6: "SIGABRT (the process gave up)",
    7: "SIGBUS (bus error)",
    8: "SIGFPE (arithmetic error)",
    9: "SIGKILL",
    11: "SIGSEGV (bad memory access)",
    13: "SIGPIPE",
    15: "SIGTERM",
    24: "SIGXCPU",
    25: "SIGXFSZ",
    31: "SIGSYS (forbidden system call)",
}
_ERRNOS: Final = {number: name for number, name in errno.errorcode.items() if number < 35} | {
    11: "EAGAIN",
    36: "ENAMETOOLONG",
    38: "ENOSYS",
    40: "ELOOP",
    95: "EOPNOTSUPP",
    98: "EADDRINUSE",
    99: "EADDRNOTAVAIL",
    101: "ENETUNREACH",
    104: "ECONNRESET",
    105: "ENOBUFS",
    110: "ETIMEDOUT",
    111: "ECONNREFUSED",
    113: "EHOSTUNREACH",
    122: "EDQUOT",
}


def process(name: str, pid: int | None) -> str:
    """Return a process's name, made inert, with its pid where it is known."""
    label = shown(name, limit=LABEL_LIMIT) or "a process without a name"
    return label if pid is None else f"{label} (pid {pid})"


def error_name(number: int) -> str:
    """Return an errno's name."""
    return _ERRNOS.get(number, f"errno {number}")


def signal_name(number: int) -> str:
    """Return a signal's name, and what it means where it names a defect."""
    return _SIGNALS.get(number, f"signal {number}")


def times(count: int) -> str:
    """Return a count as a number of times."""
    return "once" if count == 1 else f"{count} times"


def counted(count: int, thing: str) -> str:
    """Return how many of a thing there are."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def duration(seconds: float) -> str:
    """Return a duration in its two largest units; what is no duration is said to be unknown."""
    if not 0 <= seconds < _LONGEST_S:
        return "an unknown time"
    whole = round(seconds)
    if whole < 1:
        return f"{seconds * 1000:.0f} ms"
    parts = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        if whole >= length:
            parts.append(f"{whole // length} {unit}")
            whole %= length
    return " ".join(parts[:2])


def size(count_bytes: int) -> str:
    """Return a size in binary units."""
    unit, bits = "bytes", 0
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if count_bytes < 1024 << bits:
            break
        unit, bits = larger, bits + 10
    if not bits:
        return f"{count_bytes} bytes"
    tenths = (count_bytes * 10) >> bits
    return f"{tenths // 10}.{tenths % 10} {unit}"
