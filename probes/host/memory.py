"""The second witness of an OOM kill: what the victim's memory cgroup says of its limit and its kills.

Reads cgroup v2's `memory.events` and `memory.max` or v1's `memory.oom_control`, `memory.failcnt`,
`memory.max_usage_in_bytes` and `memory.limit_in_bytes`, wherever the memory controller is. A v1 host gives
the event a v2 id that need not lead there, and the victim is gone when we look; then the cgroup is the one
whose kill counter rose since the last look. The counter of kills rises for a host-wide OOM too, so the scope
is told by whether the cgroup, or one above it, has a limit and has met it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from probes.host.cgroups import CgroupMounts
from probes.observation import OomScope

_NO_LIMIT = 1 << 62  # v1 writes PAGE_COUNTER_MAX rounded to pages for "none"
_MAX_FOLDERS = 20_000


@dataclass(frozen=True, slots=True)
class MemoryWitness:
    """What the cgroup files say: whose limit it was, the limit, and the cgroup's kills so far."""

    scope: OomScope
    limit_bytes: int | None
    kills_in_cgroup: int | None


UNWITNESSED = MemoryWitness(OomScope.UNKNOWN, None, None)


class MemoryFiles:
    """Reads the memory controller's files and remembers the kill counters between two looks."""

    def __init__(self, *, mounts: CgroupMounts) -> None:
        v1 = mounts.controller("memory")
        self._root = v1 if v1 is not None else mounts.unified
        self._is_v1 = v1 is not None
        self._kills: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"MemoryFiles({self._root}, {'v1' if self._is_v1 else 'v2'}, cgroups={len(self._kills)})"

    def look(self) -> tuple[str, ...]:
        """Read every kill counter; return the cgroups whose counter rose since the last look."""
        before, self._kills = self._kills, {}
        for path, folder in self._walk():
            kills = self._own_kills(folder)
            if kills is not None:
                self._kills[path] = kills
        return tuple(path for path, kills in self._kills.items() if kills > before.get(path, 0))

    def witness(self, paths: tuple[str, ...]) -> MemoryWitness:
        """Say what the files tell of a kill in one of `paths`, else in the one cgroup whose counter rose."""
        rose = self.look()
        told = [p for p in paths if p in self._kills and p != "/"]
        chosen = next((p for p in told if p in rose), None) or (rose[0] if len(rose) == 1 else None)
        if chosen is None:
            chosen = told[0] if told else None
        return self._about(chosen) if chosen is not None else UNWITNESSED

    def _about(self, path: str) -> MemoryWitness:
        kills = self._kills.get(path)
        readable = False
        while self._root is not None:
            folder = Path(f"{self._root}{path}")
            limit, met = self._limit(folder), self._met_its_limit(folder)
            readable = readable or met is not None
            if limit is not None and met:
                return MemoryWitness(OomScope.CGROUP, limit, kills)
            if path in ("/", ""):
                break
            path = path.rpartition("/")[0] or "/"
        return MemoryWitness(OomScope.HOST if readable else OomScope.UNKNOWN, None, kills)

    def _limit(self, folder: Path) -> int | None:
        text = _read(folder / ("memory.limit_in_bytes" if self._is_v1 else "memory.max")).strip()
        return int(text) if text.isdecimal() and int(text) < _NO_LIMIT else None

    def _met_its_limit(self, folder: Path) -> bool | None:
        if self._is_v1:
            return self._met_v1(folder)
        # `.local` leaves out the limits below; it exists since 5.2.
        events = _counters(folder / "memory.events.local") or _counters(folder / "memory.events")
        return events["oom"] > 0 if "oom" in events else None

    def _met_v1(self, folder: Path) -> bool | None:
        """Return whether the limit was met, by the count of refusals or by the most that was ever used.

        Where memory and swap together have the same limit (docker run --memory-swap), that one is met first,
        and neither count of refusals says so.
        """
        refusals = _read(folder / "memory.failcnt").strip()
        if not refusals.isdecimal():
            return None
        most, limit = _read(folder / "memory.max_usage_in_bytes").strip(), self._limit(folder)
        return int(refusals) > 0 or (limit is not None and most.isdecimal() and int(most) >= limit)

    def _own_kills(self, folder: Path) -> int | None:
        if self._is_v1:
            return _counters(folder / "memory.oom_control").get("oom_kill")
        events = _counters(folder / "memory.events.local") or _counters(folder / "memory.events")
        return events.get("oom_kill")

    def _walk(self) -> Iterator[tuple[str, Path]]:
        if self._root is None:
            return
        waiting = [self._root]
        for _ in range(_MAX_FOLDERS):
            if not waiting:
                return
            folder = waiting.pop()
            yield str(folder)[len(str(self._root)) :] or "/", folder
            try:
                waiting.extend(
                    entry for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink()
                )
            except OSError:
                continue  # removed while we looked


def _counters(path: Path) -> dict[str, int]:
    found = {}
    for line in _read(path).splitlines():
        name, _, number = line.partition(" ")
        if number.isdecimal():
            found[name] = int(number)
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
