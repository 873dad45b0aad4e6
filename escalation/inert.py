"""Hostile text made inert: what came from a host is shown so that it can neither act nor mislead.

Everything outside a small set of visible, left-to-right characters is written as an escape (`\\x1b`,
`\\u202e`): control characters, line breaks, bidirectional controls and right-to-left letters (they reorder
what stands beside them), zero-width and other invisible characters, combining marks (they overprint their
neighbour), surrogates, and code points that no version of Unicode known here has assigned. A backslash is
doubled, so an escape can be told from the same characters in the original. Allow-listing was chosen over
a list of known attacks: a new invisible character is escaped before anybody has heard of it.
"""

from __future__ import annotations

import unicodedata
from typing import Final

_INVISIBLE_THOUGH_PRINTABLE: Final = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Hangul fillers and the blank Braille pattern: letters and symbols to Unicode, nothing to the eye."""

_REORDERING: Final = frozenset({"R", "AL", "AN"})
_OVERPRINTING: Final = frozenset({"Mn", "Me", "Mc"})


def shown(text: str, *, limit: int | None = None) -> str:
    """Return `text` with everything invisible or active escaped, and backslashes doubled.

    `limit` is for labels only and counts characters of the original; what was cut is said. Without it the
    original can be recovered from the result exactly.
    """
    if limit is not None and len(text) > limit:
        return f"{shown(text[:limit])}… ({len(text) - limit} more)"
    if text.isascii() and text.isprintable():
        return text.replace("\\", "\\\\")
    return "".join("\\\\" if char == "\\" else char if _harmless(char) else escape(char) for char in text)


def guarded(text: str) -> str:
    """Return `text` with everything invisible or active escaped; backslashes stay as they are.

    For text that was made inert before and may have passed through other hands since: applying it twice
    changes nothing.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if _harmless(char) else escape(char) for char in text)


def harmless(text: str) -> bool:
    """Return whether every character of `text` can be shown as it is."""
    return (text.isascii() and text.isprintable()) or all(map(_harmless, text))


def escape(char: str) -> str:
    """Return the escape of one character: `\\xNN`, `\\uNNNN` or `\\UNNNNNNNN`."""
    number = ord(char)
    if number <= 0xFF:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"


def _harmless(char: str) -> bool:
    if char.isascii():
        return char.isprintable()
    return (
        char.isprintable()
        and char not in _INVISIBLE_THOUGH_PRINTABLE
        and unicodedata.bidirectional(char) not in _REORDERING
        and unicodedata.category(char) not in _OVERPRINTING
    )
