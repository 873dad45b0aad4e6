"""Which whole disk lies below a filesystem, by the names under /sys/dev/block (sysfs(5)).

The block layer counts by disk, filesystems know a partition or a mapped device. A mapped device (LVM, crypt,
RAID) over several disks is named itself: which of them was meant is not known.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Final

_KNOWN_MAX: Final = 128
_DEPTH: Final = 8


class Disks:
    """Names disks, and remembers a bounded number of names."""

    def __init__(self, *, sys: Path = Path("/sys")) -> None:
        self._folder = str(sys / "dev/block")
        self._class = str(sys / "class/block")
        self._ext4 = str(sys / "fs/ext4")
        self._known: OrderedDict[str, str] = OrderedDict()

    def __repr__(self) -> str:
        return f"Disks(known={len(self._known)})"

    def name(self, device: str) -> str:
        """Return the name of the whole disk that ``major:minor`` is or lies on, empty where there is none."""
        known = self._known.get(device)
        if known is None:
            known = self._found(os.path.realpath(f"{self._folder}/{device}"))
            self._known[device] = known
            while len(self._known) > _KNOWN_MAX:
                self._known.popitem(last=False)
        return known

    def of_source(self, device: str, source: str) -> str:
        """Return the disk of a filesystem, by its source where its device has no disk (btrfs)."""
        found = self.name(device)
        if found or not source.startswith("/dev/"):
            return found
        name = source.rpartition("/")[2]
        return self._found(os.path.realpath(f"{self._class}/{name}")) if name.strip(".") else ""

    def is_gone(self, device: str) -> bool | None:
        """Return whether the kernel has no such device any more; None for what never was one, or unknown."""
        if device.startswith("0:") or not os.path.isdir(self._folder):  # noqa: PTH112 -- hot path, as above
            return None
        gone = not os.path.lexists(f"{self._folder}/{device}")
        if gone:
            self._known.pop(device, None)
        return gone

    def error_count(self, device: str) -> int | None:
        """Return how many errors an ext4 on ``major:minor`` keeps account of; None for any other."""
        name = os.path.basename(os.path.realpath(f"{self._folder}/{device}"))  # noqa: PTH119 -- hot path
        try:
            descriptor = os.open(f"{self._ext4}/{name}/errors_count", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            text = os.read(descriptor, 32).strip()
        except OSError:
            return None
        finally:
            os.close(descriptor)
        return int(text) if text.isdigit() else None

    def _found(self, folder: str) -> str:
        for _ in range(_DEPTH):
            if not os.path.isdir(folder):  # noqa: PTH112 -- hot path, no Path objects
                return ""
            if os.path.exists(f"{folder}/partition"):  # noqa: PTH110 -- hot path, no Path objects
                folder = os.path.dirname(folder)  # noqa: PTH120 -- hot path, no Path objects
                continue
            below = _names(f"{folder}/slaves")
            if len(below) != 1:
                break
            folder = os.path.realpath(f"{folder}/slaves/{below[0]}")
        return os.path.basename(folder)  # noqa: PTH119 -- hot path, no Path objects


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 -- hot path, no Path objects
    except OSError:
        return []
