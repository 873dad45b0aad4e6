"""Strict TOML settings: a frozen msgspec Struct per part, and errors that name the key and its line.

Each part's Struct sits in that part's own file with its defaults and checks (`frozen=True,
forbid_unknown_fields=True, kw_only=True`); this module only reads. tomllib keeps no positions, so the line
of a key is looked up in the text afterwards, when there is an error to report.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_PATH_IN_ERROR = re.compile(r" - at `\$(?P<path>[^`]*)`$")
_UNKNOWN_FIELD = re.compile(r"unknown field `(?P<field>[^`]*)`")


class SettingsError(Exception):
    """A settings file that cannot be used; the message names the file, the line and the key."""


def load(path: Path, kind: type[T]) -> T:
    """Read `path` as TOML into `kind`; raise SettingsError naming file, line and key."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{path}:{line}: is not UTF-8 text") from error
    return parse(text, kind, name=str(path))


def parse(text: str, kind: type[T], *, name: str) -> T:
    """Convert TOML `text` into `kind`; `name` stands for the file in errors."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{name}: is not valid TOML: {error}") from error
    try:
        return msgspec.convert(document, kind, dec_hook=_convert)
    except msgspec.ValidationError as error:
        raise SettingsError(_explain(str(error), text, name)) from error


def _convert(kind: type[Any], value: Any) -> Any:
    """Read what msgspec does not know by itself: a path, written as text."""
    if issubclass(kind, Path) and isinstance(value, str) and value and "\0" not in value:
        return kind(value)
    raise ValueError(f"expected a path, got {value!r}" if issubclass(kind, Path) else f"no {kind.__name__}")


def _explain(message: str, text: str, name: str) -> str:
    found = _PATH_IN_ERROR.search(message)
    keys = re.findall(r"[^.\[\]]+", found["path"]) if found else []
    what = message[: found.start()] if found else message
    if unknown := _UNKNOWN_FIELD.search(message):
        keys.append(unknown["field"])
        what = "unknown key"
    dotted = ".".join(key for key in keys if key != "...")
    where = f"{name}:{_line_of(keys, text)}"
    return f"{where}: {dotted}: {what}" if dotted else f"{where}: {what}"


def _line_of(keys: list[str], text: str) -> int:
    """Return the line of the deepest of `keys` that can be found, 1 when none can."""
    indices = [int(key) for key in keys if key.isdigit()]
    names = [key for key in keys if not key.isdigit() and key != "..."]
    table: list[str] = []
    seen: dict[str, int] = {}
    best, best_depth = 1, 0
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if header := re.match(r"(\[\[?)\s*([^\]]+?)\s*\]\]?", stripped):
            table = [part.strip().strip("\"'") for part in header[2].split(".")]
            if header[1] == "[[":
                seen[header[2]] = seen.get(header[2], -1) + 1
                if indices and names[: len(table)] == table and seen[header[2]] != indices[0]:
                    table = ["\0"]  # another element of the same array: its keys are not the one we look for
            path = table
        elif assignment := re.match(r"([A-Za-z0-9_.\"'-]+)\s*=", stripped):
            path = table + [part.strip("\"'") for part in assignment[1].split(".")]
        else:
            continue
        depth = len(path)
        if depth > best_depth and names[:depth] == path:
            best, best_depth = number, depth
    return best
