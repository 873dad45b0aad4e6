"""Pressure stall information: which share of time tasks waited for a resource.

Documentation/accounting/psi.rst. The same file for the host (/proc/pressure/RESOURCE) and for a cgroup v2
directory (RESOURCE.pressure), also where the controllers themselves are on cgroup v1. A kernel without it, or
a file that is gone, says nothing.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final

_LINE: Final = re.compile(
    rb"^(some|full) avg10=(\d{1,3}\.\d{1,2}) avg60=(\d{1,3}\.\d{1,2}) avg300=[\d.]{1,7} total=\d{1,19}$",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Stalls:
    """Shares of time (0..100) in which some, and all, tasks waited, over 10 and 60 s; None is not told."""

    some_avg10: float | None = None
    some_avg60: float | None = None
    full_avg10: float | None = None
    full_avg60: float | None = None


NOT_TOLD: Final = Stalls()


def stalls_in(text: bytes) -> Stalls:
    """Read the text of such a file; lines that are none of it count for nothing."""
    found = {kind: (float(avg10), float(avg60)) for kind, avg10, avg60 in _LINE.findall(text)}
    if not found:
        return NOT_TOLD
    unsaid = (None, None)
    return Stalls(*found.get(b"some", unsaid), *found.get(b"full", unsaid))


def stalls_of(path: str) -> Stalls:
    """Read such a file."""
    return stalls_in(small_file(path))


def small_file(path: str) -> bytes:
    """Return the first 64 KiB of a file of the kernel's, nothing where it cannot be read."""
    if "\0" in path:
        return b""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, UnicodeEncodeError):
        return b""
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
