"""Walks one JSON text of any size in bounded memory and keeps the few members that are watched.

A text that fits into a few KiB is read by `json.loads`, which is faster. This is for the others: the walker
builds the same value pruned to what `Watch` names, with strings cut, and passes the strings that are measured
on as they come. It is lenient, as it judges nothing: what is not JSON ends in a value without members. Inside
JSON strings quotes are escaped and outside of them there is no backslash, so no text can pass for a member.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

_STRING: Final = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_STRUCTURE: Final = re.compile(rb'["\[\]{}]')
_SCALAR: Final = re.compile(rb'[^\s,\]}\[{":]*')
_KEPT_BYTES: Final = 512
_SCALAR_BYTES: Final = 64
_ELEMENTS: Final = 64
_DEPTH: Final = 32


class Passage(enum.Enum):
    """A string that is passed on while it comes, because it may be long."""

    CONTENT = "content"
    REASONING = "reasoning"
    ARGUMENTS = "arguments"


class Streamed:
    """Stands in the pruned value for a string that was passed on."""

    __slots__ = ()


STREAMED: Final = Streamed()


@dataclass(frozen=True, slots=True)
class Watch:
    """What of a value is wanted: itself if it is a scalar (or passed on), members by key, elements."""

    passage: Passage | None = None
    members: Mapping[str, Watch] = field(default_factory=dict)
    elements: Watch | None = None


class PassageTaker(Protocol):
    """Takes the strings that are passed on, as raw JSON: pieces may end inside an escape or a character."""

    def begin(self, passage: Passage, key: str, path: Sequence[Any]) -> None:
        """A passage begins under `key`; `path` are the pruned values around it, the innermost last."""

    def piece(self, raw: bytes) -> None:
        """Some of it."""

    def finish_passage(self) -> None:
        """It is over."""


class _Frame:
    __slots__ = ("key", "value", "watch")

    def __init__(self, value: dict[str, Any] | list[Any], watch: Watch) -> None:
        self.value = value
        self.watch = watch
        self.key: str | None = None


class JsonWalk:
    """One walk. `feed` it in order; `value` is the pruned result, None while there is none."""

    __slots__ = (
        "_frames",
        "_held",
        "_in_string",
        "_is_key",
        "_kept",
        "_skip",
        "_taker",
        "_watch",
        "broken",
        "value",
        "whole",
    )

    def __init__(self, watch: Watch, taker: PassageTaker | None = None) -> None:
        self.value: Any = None
        self.whole = False  # the outermost value is closed
        self.broken = False
        self._watch = watch
        self._taker = taker
        self._frames: list[_Frame] = []
        self._skip = 0  # depth inside a container that is not watched
        self._in_string = False
        self._is_key = False
        self._kept: bytearray | None = None  # of the string under way, if it is kept
        self._held = b""

    @property
    def held_bytes(self) -> int:
        """Bytes that wait for more."""
        return len(self._held) + len(self._kept or b"")

    def feed(self, data: bytes) -> None:
        """Walk on."""
        if self.whole or self.broken:
            return
        if self._held:
            data, self._held = self._held + data, b""
        position, size = 0, len(data)
        while position < size and not (self.whole or self.broken):
            if self._in_string:
                position = self._string(data, position)
            elif self._skip:
                position = self._skipping(data, position)
            else:
                position = self._token(data, position)

    def _string(self, data: bytes, position: int) -> int:
        found = _STRING.match(data, position)
        assert found is not None
        end = found.end()
        piece = data[position:end]
        if piece:
            if self._kept is not None:
                self._kept += piece[: max(0, _KEPT_BYTES - len(self._kept))]
            elif not self._skip and self._taker is not None and not self._is_key:
                self._taker.piece(piece)
        if end == len(data):
            return end
        if data[end] != 0x22:  # a backslash whose other half has not come
            self._held = data[end:]
            return len(data)
        self._in_string = False
        if not self._skip:
            self._string_ends()
        return end + 1

    def _string_ends(self) -> None:
        kept = self._kept
        self._kept = None
        if self._is_key:
            self._is_key = False
            self._frames[-1].key = _text(kept or b"")
        elif kept is not None:
            self._put(_text(kept))
        elif self._taker is not None:
            self._taker.finish_passage()
            self._put(STREAMED)

    def _skipping(self, data: bytes, position: int) -> int:
        found = _STRUCTURE.search(data, position)
        if found is None:
            return len(data)
        byte = data[found.start()]
        if byte == 0x22:
            self._in_string = True
        elif byte in b"[{":
            self._skip += 1
        else:
            self._skip -= 1
        return found.end()

    def _token(self, data: bytes, position: int) -> int:
        byte = data[position]
        if byte in b" \t\r\n:":
            return position + 1
        if byte == 0x2C:
            if self._frames:
                self._frames[-1].key = None
            return position + 1
        if byte == 0x22:
            self._string_begins()
            return position + 1
        if byte in b"[{":
            self._open(is_object=byte == 0x7B)
            return position + 1
        if byte in b"]}":
            self._close()
            return position + 1
        found = _SCALAR.match(data, position)
        assert found is not None
        end = found.end()
        if end == len(data) and end - position < _SCALAR_BYTES:
            self._held = data[position:]
            return end
        self._put(_scalar(data[position:end]))
        return max(end, position + 1)

    def _wanted(self) -> Watch | None:
        """Return what is wanted of the value that begins here."""
        if not self._frames:
            return self._watch
        frame = self._frames[-1]
        if isinstance(frame.value, dict):
            return None if frame.key is None else frame.watch.members.get(frame.key)
        return frame.watch.elements

    def _string_begins(self) -> None:
        self._in_string = True
        frame = self._frames[-1] if self._frames else None
        if frame is not None and isinstance(frame.value, dict) and frame.key is None:
            self._is_key = True
            self._kept = bytearray()
            return
        wanted = self._wanted()
        if (
            wanted is not None
            and wanted.passage is not None
            and self._taker is not None
            and frame is not None
        ):
            self._taker.begin(wanted.passage, frame.key or "", [one.value for one in self._frames])
        else:
            self._kept = bytearray()

    def _open(self, *, is_object: bool) -> None:
        wanted = self._wanted()
        if wanted is None or not (wanted.members if is_object else wanted.elements):
            self._put({} if is_object else [])
            self._skip = 1
            return
        if len(self._frames) >= _DEPTH:
            self.broken = True
            return
        value: dict[str, Any] | list[Any] = {} if is_object else []
        self._put(value)
        self._frames.append(_Frame(value, wanted))
        self.whole = False

    def _close(self) -> None:
        if not self._frames:
            self.broken = True
            return
        self._frames.pop()
        self.whole = not self._frames

    def _put(self, value: Any) -> None:
        if not self._frames:
            if self.value is None:
                self.value = value
            return
        frame = self._frames[-1]
        if isinstance(frame.value, list):
            if len(frame.value) < _ELEMENTS:
                frame.value.append(value)
        elif frame.key is not None and frame.key in frame.watch.members:
            frame.value[frame.key] = value


def _text(raw: bytes | bytearray) -> str:
    plain = raw.decode("utf-8", "replace")
    if "\\" not in plain:
        return plain
    try:
        return str(json.loads(f'"{plain}"', strict=False))
    except ValueError:  # cut inside an escape
        return plain


def _scalar(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def members_at_the_end(tail: bytes) -> dict[str, Any]:
    """Read the last members of an object whose beginning is not known, from bytes that end where it ends.

    The longest row of members that is valid JSON up to the object's own closing brace: a place inside a
    string or deeper in the object cannot begin one, because quotes in strings are escaped and braces have to
    match.
    """
    text = tail.decode("utf-8", "replace")
    for tried, found in enumerate(_MEMBER.finditer(text)):
        if tried == _TRIES:
            break
        try:
            value = json.loads("{" + text[found.start() + 1 :], strict=False)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    return {}


_MEMBER: Final = re.compile(r',(?=\s{0,64}"[^"\\]{1,64}"\s{0,64}:)')
_TRIES: Final = 128
