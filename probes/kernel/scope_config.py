"""The tables `[[scope]]` as the privileged side reads them, and whether their file may ask for denial.

Denial is taken from a file alone that nobody but root can change: its owner is root, nobody else may write
it, and the same holds for every folder on the way to it, in which it could be replaced. Anything else is
heard as audit, with a note. The agent, and through it an orchestrator, has no way to write such a file.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from probes.scopes import ScopeInvalid, ScopeMode, ScopeRule, check

DEFAULT_METRICS_PORT = 9735
_LINKS_MAX = 40  # path_resolution(7)
_KEYS = frozenset(part.name for part in fields(ScopeRule))


@dataclass(frozen=True, slots=True)
class ScopeConfig:
    """The scopes as they will be kept, what was not granted, and the port of the agent's own page."""

    rules: tuple[ScopeRule, ...] = ()
    notes: tuple[str, ...] = ()
    agent_port: int = DEFAULT_METRICS_PORT


def read_scopes(tables: dict[str, Any], *, only_roots: str) -> ScopeConfig:
    """Read the tables; raise ScopeInvalid for what is not understood.

    `only_roots` is empty where the file is root's alone, else it says what is not so.
    """
    found = tables.get("scope", [])
    if not isinstance(found, list):
        raise ScopeInvalid("expected [[scope]], one table for each")
    rules = tuple(_rule(item) for item in found)
    check(rules)
    notes = []
    if only_roots:
        notes = [f"scope {r.name} is audited, not denied: {only_roots}" for r in rules if _denies(r)]
        rules = tuple(replace(rule, mode=ScopeMode.AUDIT) for rule in rules)
    metrics = tables.get("metrics", {})
    port = metrics.get("port", DEFAULT_METRICS_PORT) if isinstance(metrics, dict) else DEFAULT_METRICS_PORT
    known = type(port) is int and 1 <= port <= 65535  # else the agent, whose table this is, refuses the file
    return ScopeConfig(rules, tuple(notes), port if known else DEFAULT_METRICS_PORT)


def why_not_roots_alone(path: Path, opened: int) -> str:
    """Return what lets another than root change the file `opened` or put another in its place, or nothing.

    The descriptor is what was read, whatever the name leads to by now; of the name, each folder counts in
    which a part of it is looked up, those of symbolic links among them.
    """
    try:
        if found := _not_roots(f"the file {path}", os.fstat(opened)):
            return found
        for folder in _folders(path):
            if found := _not_roots(f"its folder {folder}", folder.stat()):
                return found
    except OSError as error:
        return f"{path} cannot be looked at: {error.strerror}"
    return ""


def _not_roots(what: str, found: os.stat_result) -> str:
    if found.st_uid != 0:
        return f"{what} belongs to uid {found.st_uid}"
    sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    return f"{what} can be written by others than root" if found.st_mode & 0o022 and not sticky else ""


def _folders(path: Path) -> Iterator[Path]:
    """Yield the folders that are gone through to find a file (path_resolution(7)); raise OSError."""
    ahead, at, links = list(reversed(path.absolute().parts[1:])), Path("/"), 0
    while ahead:
        name = ahead.pop()
        if name == "..":
            at = at.parent
            continue
        yield at
        step = at / name
        if not step.is_symlink():
            at = step
            continue
        links += 1
        if links > _LINKS_MAX:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = step.readlink()
        at = Path("/") if target.is_absolute() else at
        ahead.extend(reversed(target.parts[1:] if target.is_absolute() else target.parts))


def _denies(rule: ScopeRule) -> bool:
    return rule.mode is ScopeMode.DENY


def _rule(item: object) -> ScopeRule:
    if not isinstance(item, dict):
        raise ScopeInvalid("expected [[scope]], one table for each")
    name = item.get("name")
    if not isinstance(name, str):
        raise ScopeInvalid("a scope without a name")
    if unknown := sorted(set(item) - _KEYS):
        raise ScopeInvalid(f"scope {name}: unknown key {unknown[0]!r}")
    try:
        mode = ScopeMode(item.get("mode", ScopeMode.AUDIT))
    except ValueError as error:
        raise ScopeInvalid(f'scope {name}: mode: expected "audit" or "deny"') from error
    return ScopeRule(
        name=name,
        unit=_text(item, "unit"),
        cgroup=_text(item, "cgroup"),
        mode=mode,
        executables=_list(item, "executables", str, "paths"),
        destinations=_list(item, "destinations", str, "networks"),
        listeners=_list(item, "listeners", int, "port numbers"),
    )


def _text(item: dict[str, Any], key: str) -> str:
    value = item.get(key, "")
    if not isinstance(value, str):
        raise ScopeInvalid(f"scope {item['name']}: {key}: expected a text")
    return value


def _list(item: dict[str, Any], key: str, kind: type, what: str) -> tuple[Any, ...] | None:
    value = item.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not all(type(part) is kind for part in value):
        raise ScopeInvalid(f"scope {item['name']}: {key}: expected a list of {what}")
    return tuple(value)
