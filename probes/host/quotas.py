"""Quotas of processor time: which group above a process has the smallest, and how often it held back.

cgroup v2: cpu.max and cpu.stat (Documentation/admin-guide/cgroup-v2.rst). cgroup v1: cpu.cfs_quota_us,
cpu.cfs_period_us and cpu.stat (Documentation/scheduler/sched-bwc.rst). A quota of a group above holds its
children back as well, so they are looked at too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from probes.host.cgroups import CgroupMounts
from probes.host.stalls import small_file

_LEVELS: Final = 6


@dataclass(frozen=True, slots=True)
class Held:
    """A quota in cores, and the account of its periods since the group was made."""

    cores: float
    periods: int
    throttled_periods: int
    throttled_s: float


class Quotas:
    """Reads quotas on a host with these hierarchies."""

    def __init__(self, *, mounts: CgroupMounts) -> None:
        self._unified = None if mounts.unified is None else str(mounts.unified)
        cpu = mounts.controller("cpu")
        self._v1 = None if cpu is None else str(cpu)

    def __repr__(self) -> str:
        return f"Quotas(unified={self._unified}, v1={self._v1})"

    def folder(self, paths: Mapping[str, str]) -> str | None:
        """Return the folder of the smallest quota that a process is under, None without one.

        `paths` are its cgroup paths by v1 controller, that of v2 by the empty name.
        """
        found = [(cores, folder) for folder in self._folders(paths) if (cores := _cores(folder)) is not None]
        return min(found)[1] if found else None

    def held(self, folder: str) -> Held | None:
        """Return the account of a quota, None when there is none any more."""
        cores = _cores(folder)
        if cores is None:
            return None
        counts = dict(_counts(small_file(f"{folder}/cpu.stat")))
        throttled_s = counts.get(b"throttled_usec", 0) / 1e6 + counts.get(b"throttled_time", 0) / 1e9
        return Held(cores, counts.get(b"nr_periods", 0), counts.get(b"nr_throttled", 0), throttled_s)

    def _folders(self, paths: Mapping[str, str]) -> Iterator[str]:
        for root, path in ((self._unified, paths.get("")), (self._v1, paths.get("cpu"))):
            if root is None or path is None or "\0" in path:
                continue
            parts = path.strip("/").split("/")
            for depth in range(len(parts), max(0, len(parts) - _LEVELS), -1):
                if parts[0]:
                    yield "/".join((root, *parts[:depth]))


def _cores(folder: str) -> float | None:
    words = small_file(f"{folder}/cpu.max").split()
    if not words:
        words = [*small_file(f"{folder}/cpu.cfs_quota_us").split(), *_period(folder)]
    if len(words) != 2 or not all(word.isdigit() for word in words) or int(words[1]) == 0:
        return None  # "max", or v1's -1
    return int(words[0]) / int(words[1])


def _period(folder: str) -> list[bytes]:
    return small_file(f"{folder}/cpu.cfs_period_us").split()


def _counts(text: bytes) -> Iterator[tuple[bytes, int]]:
    for line in text.splitlines():
        name, _, number = line.partition(b" ")
        if number.isdigit():
            yield name, int(number)
