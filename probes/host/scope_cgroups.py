"""Which cgroup each declared scope is now: a unit that restarts is another cgroup of the same path.

A path that is known is asked for with one stat. A unit whose path is not known is first looked for where
services are by default, and then in the whole hierarchy, seldom and in small steps: one of the callers is the
agent's event loop.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from probes.origin import CgroupId
from probes.scopes import ScopeRule

_SEARCH_S = 15.0
_STEP = 48
_FOLDERS_MAX = 4096


class ScopeCgroups:
    """Follows the cgroups of declared scopes through restarts."""

    def __init__(
        self, *, rules: Iterable[ScopeRule], root: Path | None, monotonic: Callable[[], float]
    ) -> None:
        """`root` is where the cgroup v2 hierarchy is mounted."""
        self._rules = tuple(rules)
        self._root = None if root is None else str(root)
        self._monotonic = monotonic
        self._paths: dict[str, str] = {}
        self._searched_s: float | None = None
        self._ahead: list[str] = []
        self._searched = 0

    def __repr__(self) -> str:
        return f"ScopeCgroups({len(self._paths)} of {len(self._rules)} found)"

    def now(self) -> dict[str, CgroupId]:
        """Return the cgroup of each scope that has one, by the scope's name."""
        if self._root is None:
            return {}
        found: dict[str, CgroupId] = {}
        missing: list[ScopeRule] = []
        for rule in self._rules:
            inode = self._looked_up(rule)
            if inode is not None:
                found[rule.name] = CgroupId(inode)
            elif rule.unit:
                missing.append(rule)
        if missing:
            units = self._search({rule.unit for rule in missing})
            for rule in missing:
                if rule.unit in units:
                    path, inode = units[rule.unit]
                    self._paths[rule.name] = path
                    found[rule.name] = CgroupId(inode)
        return found

    def folder(self, name: str) -> str | None:
        """Return the folder in which the scope's cgroup was last found."""
        path = self._paths.get(name)
        return None if path is None or self._root is None else f"{self._root}{path}"

    def _looked_up(self, rule: ScopeRule) -> int | None:
        known = self._paths.get(rule.name)
        path = known or rule.cgroup or f"/system.slice/{rule.unit}"
        try:
            inode = os.stat(f"{self._root}{path}").st_ino  # noqa: PTH116 -- hot path, no Path objects
        except OSError:
            return None
        self._paths[rule.name] = path
        return inode

    def _search(self, units: set[str]) -> dict[str, tuple[str, int]]:
        """Go on with a walk of the hierarchy, or begin one if the last began long enough ago."""
        root, at_s = self._root or "", self._monotonic()
        if not self._ahead:
            if self._searched_s is not None and at_s - self._searched_s < _SEARCH_S:
                return {}
            self._searched_s, self._ahead, self._searched = at_s, [root], 0
        found: dict[str, tuple[str, int]] = {}
        for _ in range(_STEP):
            if not self._ahead:
                break
            try:
                with os.scandir(self._ahead.pop()) as entries:
                    folders = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
            except OSError:
                continue  # removed while we looked
            for entry in folders:
                self._searched += 1
                if self._searched <= _FOLDERS_MAX:
                    self._ahead.append(entry.path)
                if entry.name in units:
                    found.setdefault(entry.name, (entry.path[len(root) :], entry.inode()))
        return found
