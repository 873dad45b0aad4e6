"""Observations as lines of JSON: what a sensor saw once, kept to be judged again.

One object a line, `{"type": "OomKill", ...}` with the fields of the dataclass. Reading is strict: a line that
is no observation is refused with its number, since a recording that silently lost half its lines proves
nothing.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any, Final, NewType, TextIO, Union, get_args, get_origin, get_type_hints

from probes import observation
from probes.observation import Observation

LINE_MAX: Final = 8 << 20
"""Characters; the longest that there are list every listener or command line of a host."""

_TYPES: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(Observation)}
_COVERAGES: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(observation.Coverage)}


class RecordingInvalid(Exception):
    """A line is no observation; the message names the line and the field."""


def to_line(seen: Observation) -> str:
    """Return one observation as a line of JSON, without the line's end."""
    return json.dumps(_plain(seen), separators=(",", ":"))


def from_line(line: str) -> Observation:
    """Return the observation of one line; raise RecordingInvalid."""
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecordingInvalid(f"not JSON: {error}") from error
    kind = _named(raw, _TYPES)
    if kind is None:
        raise RecordingInvalid("no observation: an object with a known `type` is expected")
    built: Observation = _build(kind, raw, kind.__name__)
    return built


def read(lines: Iterable[str]) -> Iterator[Observation]:
    """Yield the observations of a recording; raise RecordingInvalid with the number of the line."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield from_line(line)
        except RecordingInvalid as error:
            raise RecordingInvalid(f"line {number}: {error}") from error


def lines_of(file: TextIO) -> Iterator[str]:
    """Yield the lines of a file, which may come from anywhere; raise RecordingInvalid at one without end."""
    number = 0
    while line := file.readline(LINE_MAX):
        number += 1
        if len(line) == LINE_MAX:
            raise RecordingInvalid(f"line {number}: longer than any observation")
        yield line


def _named(raw: Any, kinds: dict[str, type[Any]]) -> type[Any] | None:
    name = raw.get("type") if isinstance(raw, dict) else None
    return kinds.get(name) if isinstance(name, str) else None


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _build(kind: type[Any], raw: dict[str, Any], where: str) -> Any:
    hints = get_type_hints(kind)
    known = {f.name for f in dataclasses.fields(kind)}
    unknown = sorted(set(raw) - known - {"type"})
    if unknown:
        raise RecordingInvalid(f"{where}.{unknown[0]}: no such field")
    values = {}
    for field in dataclasses.fields(kind):
        if field.name not in raw:
            raise RecordingInvalid(f"{where}.{field.name}: missing")
        values[field.name] = _value(hints[field.name], raw[field.name], f"{where}.{field.name}")
    return kind(**values)


def _value(hint: Any, raw: Any, where: str) -> Any:
    if isinstance(hint, NewType):
        hint = hint.__supertype__
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _one_of(get_args(hint), raw, where)
    if origin is tuple:
        return _items(get_args(hint), raw, where)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        try:
            return hint(raw)
        except ValueError as error:
            raise RecordingInvalid(f"{where}: {error}") from error
    if dataclasses.is_dataclass(hint):
        if not isinstance(raw, dict):
            raise RecordingInvalid(f"{where}: no object")
        return _build(typing.cast("type[Any]", hint), raw, where)
    if type(raw) is not hint:
        raise RecordingInvalid(f"{where}: expected {hint.__name__}, got {type(raw).__name__}")
    return raw


def _one_of(options: tuple[Any, ...], raw: Any, where: str) -> Any:
    if raw is None and type(None) in options:
        return None
    coverage = _named(raw, _COVERAGES)
    if coverage is not None and coverage in options:
        return _build(coverage, raw, where)
    plain = [option for option in options if option is not type(None)]
    if len(plain) != 1:
        raise RecordingInvalid(f"{where}: none of the kinds that may stand here")
    return _value(plain[0], raw, where)


def _items(kinds: tuple[Any, ...], raw: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(raw, list):
        raise RecordingInvalid(f"{where}: no list")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(_value(kinds[0], item, f"{where}[{i}]") for i, item in enumerate(raw))
    if len(raw) != len(kinds):
        raise RecordingInvalid(f"{where}: expected {len(kinds)} items, got {len(raw)}")
    return tuple(
        _value(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, raw, strict=True))
    )
