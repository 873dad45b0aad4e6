"""Looks at the host for the detectors: which cgroups still stand, which processes still live.

Everything here is readable without privilege. What cannot be told is left out of the answer: an unreadable
/proc or an absent cgroup v2 mount makes things unknown, never gone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from agent.detector import CgroupLook, ProcessKey, World
from agent.finding import Place
from probes.observation import CgroupId


class Witness:
    """Answers questions about cgroups and processes. `cgroups` is the v2 mount, None where there is none."""

    def __init__(self, *, cgroups: Path | None, proc: Path = Path("/proc")) -> None:
        self._cgroups = cgroups
        self._proc = proc

    def look(self, places: Iterable[Place], processes: Iterable[ProcessKey]) -> World:
        """Return what can be told about `places` and `processes`."""
        looks = {place: look for place in places if (look := self._cgroup(place)) is not None}
        lives = {key: lives for key in processes if (lives := self._alive(key)) is not None}
        return World(looks, lives)

    def _cgroup(self, place: Place) -> CgroupLook | None:
        path = place.cgroup_path
        if self._cgroups is None or path is None or not path.startswith("/") or "\0" in path:
            return None
        if ".." in path.split("/"):
            return None  # a path as another cgroup namespace sees it: not ours to follow
        folder = f"{self._cgroups}{path.rstrip('/')}"
        try:
            inode = os.stat(folder).st_ino  # noqa: PTH116  # hot path, no Path objects
        except FileNotFoundError:
            return CgroupLook(exists=False) if self._cgroups.is_dir() else None
        except OSError:
            return None
        same = None if place.cgroup_id is None else inode == place.cgroup_id
        return CgroupLook(exists=True, populated=_populated(folder), same=same, cgroup_id=CgroupId(inode))

    def _alive(self, key: ProcessKey) -> bool | None:
        try:
            stat = (self._proc / str(key.pid) / "stat").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return False if (self._proc / "self").exists() else None
        except OSError:
            return None
        fields = stat.rpartition(b")")[2].split()
        if len(fields) < 20 or fields[0] in {b"Z", b"X"}:
            return False
        return key.start_ticks is None or int(fields[19]) == key.start_ticks


def _populated(folder: str) -> bool | None:
    """Return whether any process is in the cgroup or below it; the root has no such file and always is."""
    try:
        text = Path(folder, "cgroup.events").read_bytes()
    except FileNotFoundError:
        return True if not Path(folder, "cgroup.type").exists() else None
    except OSError:
        return None
    return b"populated 1" in text
