"""Checks that a text is one JSON value while it comes in pieces; keeps nothing but the open brackets."""

from __future__ import annotations

import re
from typing import Final

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_STRING: Final = re.compile(r'[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*')
_ESCAPE_BEGUN: Final = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?\Z")
_SCALAR: Final = re.compile(r"[-+.\w]+")
_WHOLE_SCALAR: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|true|false|null")
_SCALAR_MAX: Final = 64
_DEPTH: Final = 256

_VALUE, _VALUE_OR_END, _KEY, _KEY_OR_END, _COLON, _COMMA_OR_END, _DONE, _BROKEN = range(8)


class JsonCheck:
    """One check. `valid` says whether what came so far is one whole value (or nothing at all)."""

    __slots__ = ("_expects", "_held", "_open", "_string")

    def __init__(self) -> None:
        self._expects = _VALUE
        self._open: list[str] = []
        self._string = False
        self._held = ""

    @property
    def valid(self) -> bool:
        """Whether it could be parsed as it stands; no text at all means no arguments and is valid."""
        if self._expects == _DONE:
            return True
        if self._open or self._string or self._expects != _VALUE:
            return False
        return not self._held or _WHOLE_SCALAR.fullmatch(self._held) is not None

    @property
    def held_bytes(self) -> int:
        """What waits for more, with the open brackets."""
        return len(self._held) + len(self._open)

    def feed(self, text: str) -> None:
        """Check on."""
        if self._held:
            text, self._held = self._held + text, ""
        position = 0
        while position < len(text) and self._expects != _BROKEN:
            position = self._in_string(text, position) if self._string else self._token(text, position)

    def _in_string(self, text: str, position: int) -> int:
        found = _STRING.match(text, position)
        assert found is not None
        end = found.end()
        if end == len(text):
            return end
        if text[end] == '"':
            self._string = False
            self._expects = _COLON if self._expects in (_KEY, _KEY_OR_END) else self._after_value()
            return end + 1
        if text[end] == "\\" and _ESCAPE_BEGUN.match(text, end):
            self._held = text[end:]
            return len(text)
        self._expects = _BROKEN
        return end

    def _after_value(self) -> int:
        return _COMMA_OR_END if self._open else _DONE

    def _token(self, text: str, position: int) -> int:
        space = _SPACE.match(text, position)
        assert space is not None
        position = space.end()
        if position == len(text):
            return position
        one = text[position]
        expects = self._expects
        if one == '"' and expects in (_VALUE, _VALUE_OR_END, _KEY, _KEY_OR_END):
            self._string = True
        elif one in "{[" and expects in (_VALUE, _VALUE_OR_END) and len(self._open) < _DEPTH:
            self._open.append("}" if one == "{" else "]")
            self._expects = _KEY_OR_END if one == "{" else _VALUE_OR_END
        elif one in "}]" and expects in (_VALUE_OR_END, _KEY_OR_END, _COMMA_OR_END) and self._open[-1] == one:
            self._open.pop()
            self._expects = self._after_value()
        elif one == "," and expects == _COMMA_OR_END:
            self._expects = _KEY if self._open[-1] == "}" else _VALUE
        elif one == ":" and expects == _COLON:
            self._expects = _VALUE
        elif expects in (_VALUE, _VALUE_OR_END):
            return self._scalar(text, position)
        else:
            self._expects = _BROKEN
        return position + 1

    def _scalar(self, text: str, position: int) -> int:
        found = _SCALAR.match(text, position)
        if found is None or found.end() - position > _SCALAR_MAX:
            self._expects = _BROKEN
            return position
        if found.end() == len(text):
            self._held = text[position:]
        elif _WHOLE_SCALAR.fullmatch(found[0]):
            self._expects = self._after_value()
        else:
            self._expects = _BROKEN
        return found.end()
