"""From a cgroup id to its path and back: a cgroup v2 directory's inode is the id that the kernel reports.

One walk of the hierarchy fills a bounded table; an unknown id walks again, at most `burst` times in a row and
then once a second, so that ids which do not exist cost little and a cgroup that is a moment old is found. A
path that was seen stays known after the cgroup is gone, which is when the dead are asked about.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from probes.observation import CgroupId

_MAX_FOLDERS = 50_000
_WARM_S = 60.0


@dataclass(frozen=True, slots=True)
class CgroupMounts:
    """Where the hierarchies are mounted: the v2 one (if any) and the v1 controllers by name."""

    unified: Path | None
    v1: tuple[tuple[str, Path], ...] = ()

    def controller(self, name: str) -> Path | None:
        """Return the v1 mount point of a controller."""
        return dict(self.v1).get(name)


def find_mounts(mounts: str | None = None) -> CgroupMounts:
    """Read where cgroup hierarchies are mounted, from /proc/self/mounts; a system without it has none."""
    try:
        text = Path("/proc/self/mounts").read_text(errors="replace") if mounts is None else mounts
    except OSError:
        text = ""
    unified: Path | None = None
    v1: dict[str, Path] = {}
    for line in text.splitlines():
        parts = line.split(" ")
        if len(parts) < 4:
            continue
        where = Path(_unescape(parts[1]))
        if parts[2] == "cgroup2" and unified is None:
            unified = where
        elif parts[2] == "cgroup":
            for option in parts[3].split(","):
                v1.setdefault(option, where)
    return CgroupMounts(unified, tuple(sorted(v1.items())))


class CgroupPaths:
    """Answers cgroup ids with paths relative to the root of the v2 hierarchy (`/` is the root)."""

    def __init__(
        self,
        *,
        root: Path | None,
        monotonic: Callable[[], float],
        capacity: int = 8192,
        burst: int = 20,
    ) -> None:
        self._root = root
        self._monotonic = monotonic
        self._capacity = capacity
        self._burst = burst
        self._walks_left = float(burst)
        self._known: OrderedDict[int, str] = OrderedDict()
        self._refilled_at = monotonic()
        self._walked_at: float | None = None

    def __repr__(self) -> str:
        return f"CgroupPaths(root={self._root}, known={len(self._known)})"

    def path(self, cgroup_id: CgroupId) -> str | None:
        """Return the path of a cgroup that exists or was seen, or None."""
        found = self._known.get(cgroup_id)
        if found is None and self._may_walk():
            self.walk()
            found = self._known.get(cgroup_id)
        if found is not None:
            self._known.move_to_end(cgroup_id)
        return found

    def exists(self, cgroup_id: CgroupId) -> bool:
        """Return whether the cgroup is there now, as far as its last known path tells."""
        path = self.path(cgroup_id)
        if path is None or self._root is None:
            return False
        try:
            return Path(f"{self._root}{path}").stat().st_ino == cgroup_id
        except OSError:
            return False

    def id_of(self, path: str) -> CgroupId | None:
        """Return the id of a cgroup by its path in the v2 hierarchy, or None when there is none."""
        if self._root is None or "\0" in path or not path.startswith("/"):
            return None
        try:
            inode = Path(f"{self._root}{path}").stat().st_ino
        except OSError:
            return None
        self._remember(inode, path)
        return CgroupId(inode)

    def keep_warm(self) -> None:
        """Look at the whole hierarchy if that was long ago.

        A service's cgroup is removed with its last process, often before the death can be read about; its
        path is known then only because it was seen in life.
        """
        if self._walked_at is None or self._monotonic() - self._walked_at >= _WARM_S:
            self.walk()

    def walk(self) -> None:
        """Look at the whole hierarchy now."""
        self._walked_at = self._monotonic()
        if self._root is None:
            return
        root = str(self._root)
        waiting = [root]
        seen = 0
        while waiting and seen < _MAX_FOLDERS:
            folder = waiting.pop()
            seen += 1
            try:
                self._remember(Path(folder).stat().st_ino, folder[len(root) :] or "/")
                with os.scandir(folder) as entries:
                    waiting.extend(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
            except OSError:
                continue  # removed while we looked

    def _remember(self, inode: int, path: str) -> None:
        self._known[inode] = path
        self._known.move_to_end(inode)
        while len(self._known) > self._capacity:
            self._known.popitem(last=False)

    def _may_walk(self) -> bool:
        now = self._monotonic()
        self._walks_left = min(float(self._burst), self._walks_left + now - self._refilled_at)
        self._refilled_at = now
        if self._walks_left < 1:
            return False
        self._walks_left -= 1
        return True


def _unescape(text: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text
