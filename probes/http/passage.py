"""Decodes a JSON string that comes in raw pieces, which may end inside an escape or inside a character."""

from __future__ import annotations

import codecs
import json
import re
from typing import Final

_UNFINISHED: Final = re.compile(
    r"(?:\\u[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?|\\(?:u[0-9a-fA-F]{0,3})?)\Z"
)
_LONGEST: Final = 12
_DECODER: Final = codecs.getincrementaldecoder("utf-8")


class PassageDecoder:
    """One string. Feed it what stands between the quotes."""

    __slots__ = ("_decoder", "_held")

    def __init__(self) -> None:
        self._decoder = _DECODER("replace")
        self._held = ""

    def feed(self, raw: bytes) -> str:
        """Return the text that is certain by now."""
        text = self._held + self._decoder.decode(raw)
        self._held = ""
        if "\\" not in text:
            return text
        for found in _UNFINISHED.finditer(text, max(0, len(text) - _LONGEST)):
            start = found.start()
            before = start - len(text[:start].rstrip("\\"))
            if before % 2 == 0:
                self._held = text[start:]
                text = text[:start]
                break
        return unescape(text)

    def finish(self) -> str:
        """Return what was held back."""
        text, self._held = self._held + self._decoder.decode(b"", final=True), ""
        return unescape(text)


def unescape(text: str) -> str:
    """Undo the escapes of a JSON string; one that breaks the rules is given back as it is."""
    if "\\" not in text:
        return text
    try:
        return str(json.loads(f'"{text}"', strict=False))
    except ValueError:
        return text
