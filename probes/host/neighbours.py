"""Who uses the processors: the cores that each control group keeps busy, and how many more than before.

Every cgroup v2 directory counts its use (`usage_usec` of cpu.stat), whatever controllers are on; where
nothing lives in that hierarchy, cpuacct's does (`cpuacct.usage`). A group counts what is below it as well, so
the one that is named is the lowest that holds most of it. Asked only while somebody waits: a look reads one
small file for each group.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from probes.host.cgroups import CgroupMounts
from probes.host.stalls import small_file
from probes.observation import Neighbour

_GROUPS: Final = 1024
_DEPTH: Final = 5
_TOLD: Final = 3
_MOST: Final = 0.8
_LEAST_CORES: Final = 0.05

_Account = Callable[[str], float | None]


@dataclass(frozen=True, slots=True)
class Use:
    """The processor time that each group had used at one moment, by its path."""

    at_s: float
    used_s: Mapping[str, float]


class CgroupUse:
    """Looks at the control groups of the host."""

    def __init__(self, *, mounts: CgroupMounts) -> None:
        self._unified = mounts.unified
        self._cpuacct = mounts.controller("cpuacct")

    def __repr__(self) -> str:
        return f"CgroupUse(unified={self._unified}, cpuacct={self._cpuacct})"

    def look(self, at_s: float) -> Use:
        """Return how the accounts stand, of at most `_GROUPS` groups."""
        used = {} if self._unified is None else _walk(str(self._unified), _unified_s)
        if not used and self._cpuacct is not None:
            used = _walk(str(self._cpuacct), _cpuacct_s)
        return Use(at_s, used)


def busiest(before: Use, after: Use, usual: Mapping[str, float], *, but: str | None) -> tuple[Neighbour, ...]:
    """Return the groups that use most more than `usual` (cores by path), without `but`'s own and those above.

    A group that is new has grown by all that it uses.
    """
    window_s = after.at_s - before.at_s
    if window_s <= 0:
        return ()
    cores = {
        path: max(0.0, used_s - before.used_s.get(path, 0.0)) / window_s
        for path, used_s in after.used_s.items()
        if not _is_or_holds(path, but)
    }
    lowest = [path for path in cores if cores[path] >= _LEAST_CORES and not _is_one_below(path, cores)]
    told = [
        Neighbour(
            cgroup_path=path,
            cores=round(cores[path], 3),
            grown_cores=round(cores[path] - usual.get(path, 0.0), 3),
        )
        for path in lowest
    ]
    return tuple(sorted(told, key=lambda one: (-one.grown_cores, one.cgroup_path))[:_TOLD])


def cores_between(before: Use, after: Use) -> dict[str, float]:
    """Return the cores that each group used on average between two looks."""
    window_s = after.at_s - before.at_s
    if window_s <= 0:
        return {}
    return {
        path: max(0.0, used_s - before.used_s[path]) / window_s
        for path, used_s in after.used_s.items()
        if path in before.used_s
    }


def _is_or_holds(path: str, other: str | None) -> bool:
    return other is not None and (
        other == path or other.startswith(f"{path}/") or path.startswith(f"{other}/")
    )


def _is_one_below(path: str, cores: Mapping[str, float]) -> bool:
    """Whether a group below uses nearly all of what this one does, and is named in its place."""
    least = cores[path] * _MOST
    return any(other.startswith(f"{path}/") and used >= least for other, used in cores.items())


def _walk(root: str, used_s: _Account) -> dict[str, float]:
    found: dict[str, float] = {}
    level = [root]
    for _ in range(_DEPTH):
        below: list[str] = []
        for folder in level:
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                below.extend(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
        for folder in below:
            if len(found) >= _GROUPS:
                return found
            spent_s = used_s(folder)
            if spent_s is not None:
                found[folder[len(root) :]] = spent_s
        level = below
    return found


def _unified_s(folder: str) -> float | None:
    for line in small_file(f"{folder}/cpu.stat").splitlines():
        name, _, number = line.partition(b" ")
        if name == b"usage_usec" and number.isdigit():
            return int(number) / 1e6
    return None


def _cpuacct_s(folder: str) -> float | None:
    text = small_file(f"{folder}/cpuacct.usage").strip()
    return int(text) / 1e9 if text.isdigit() else None
