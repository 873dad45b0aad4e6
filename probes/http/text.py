"""Measures of a text that is never kept: it is counted in blocks as it comes, and each block is dropped.

A measure depends on the text alone, not on the pieces it came in. The first `MEASURED_CHARACTERS` are looked
at; what follows is counted. What outlives a block are counts by character, a bitmap of hashed n-grams (the
hash is keyed by a random number of this process), and the few characters that the next block continues.

The number of different n-grams is read from the bitmap by linear counting (Whang, Vander-Zanden, Taylor
1990): two KiB tell it to one percent for twenty thousand of them, where a set would take a megabyte.
"""

from __future__ import annotations

import math
import re
import secrets
import unicodedata
from collections import Counter
from typing import Final

from probes.http.facts import TextMeasure

MEASURED_CHARACTERS: Final = 20_000
_BLOCK: Final = 512
_DISTINCT_MAX: Final = 1024  # different characters counted apart; the rest is counted together
_WORD_MAX: Final = 64
_CHARACTERS_PER_WORD: Final = 24  # a block with fewer words than this is judged by its characters
_BITMAP_BYTES: Final = 2048
_BITS: Final = _BITMAP_BYTES * 8
_KEY: Final = secrets.randbits(61)
_MARK: Final = re.compile(r"</?think>|<\|(?:channel|start)\|>")
_MARK_MAX: Final = 11
_ROW: Final = re.compile(r"(.)\1+", re.DOTALL)


class TextMeter:
    """Measures one text. `add` takes the next piece; `measure` says what it looked like, once it is over."""

    __slots__ = (
        "_bitmap",
        "_blocks",
        "_counts",
        "_grams",
        "_hashes",
        "_last",
        "_other",
        "_parts",
        "_run",
        "_size",
        "_word",
        "characters",
        "longest_run",
        "marks",
    )

    def __init__(self) -> None:
        self.characters = 0
        self.longest_run = 0
        self.marks = False  # a literal <think>, </think>, <|channel|> or <|start|>
        self._parts: list[str] = []
        self._size = 0
        self._blocks = 0
        self._counts: Counter[str] = Counter()
        self._other = 0
        self._bitmap: bytearray | None = None
        self._grams = 0
        self._hashes: list[int] = []
        self._word = ""
        self._last = ""
        self._run = 0

    def __repr__(self) -> str:
        return f"TextMeter(characters={self.characters})"

    @property
    def held_bytes(self) -> int:
        """How much of the text waits to be measured."""
        return self._size + len(self._word) + len(self._last)

    def add(self, piece: str) -> None:
        """Take the next piece; it is forgotten as soon as its block is full."""
        size = len(piece)
        self.characters += size
        if self.characters - size >= MEASURED_CHARACTERS:
            return
        self._parts.append(piece)
        self._size += size
        if self._size >= _BLOCK:
            self._blocks_of("".join(self._parts))

    def measure(self) -> TextMeasure | None:
        """Say what the whole text looked like, and forget it; None for no text."""
        if self._size:
            self._blocks_of("".join(self._parts))
        if self._size:
            self._block("".join(self._parts))
        self._parts, self._size = [], 0
        if self._word:
            self._words([self._word])
        self._word = self._last = ""
        measured = sum(self._counts.values()) + self._other
        if not measured:
            return None
        whitespace, undecodable = 0, self._counts["\ufffd"]
        weighed = self._other * math.log2(self._other) if self._other else 0.0
        for one, count in self._counts.items():
            weighed += count * math.log2(count or 1)
            if one == " " or not one.isprintable():
                whitespace += count * one.isspace()
                undecodable += count * _undecodable(one)
        return TextMeasure(
            characters=self.characters,
            repeated=self._repeated(),
            longest_run=self.longest_run,
            whitespace=whitespace / measured,
            distinct=min(1.0, len(self._counts) / measured),
            entropy_bits=max(0.0, math.log2(measured) - weighed / measured),
            undecodable=undecodable / measured,
        )

    def _blocks_of(self, text: str) -> None:
        if self._blocks * _BLOCK + len(text) > MEASURED_CHARACTERS:
            text = text[: MEASURED_CHARACTERS - self._blocks * _BLOCK]
        start = 0
        while len(text) - start >= _BLOCK:
            self._block(text[start : start + _BLOCK])
            self._blocks += 1
            start += _BLOCK
        rest = text[start:]
        self._parts, self._size = ([rest] if rest else []), len(rest)

    def _block(self, text: str) -> None:
        self._look_for_marks(text)
        self._runs(text)
        self._count(text)
        words = text.split()
        if len(words) * _CHARACTERS_PER_WORD < len(text):
            self._word = ""
            eights = zip(*(text[n:] for n in range(8)), strict=False)
            self._see([hash((_KEY, *eight)) for eight in eights])
            return
        if self._word and text[0].isspace():
            self._words([self._word])
        elif self._word:
            words[0] = self._word + words[0]
        self._word = ""
        if words and not text[-1].isspace() and len(words[-1]) < _WORD_MAX:
            self._word = words.pop()
        self._words(words)

    def _look_for_marks(self, text: str) -> None:
        joined = self._last + text
        if "<" in joined and not self.marks and _MARK.search(joined) is not None:
            self.marks = True

    def _runs(self, text: str) -> None:
        """Find rows of one character, also across the end of a block."""
        last = self._last[-1:]
        lead = len(text) - len(text.lstrip(last)) if last else 0
        if lead:
            self._run += lead
            self.longest_run = max(self.longest_run, self._run)
        for row in _ROW.finditer(text):
            self.longest_run = max(self.longest_run, row.end() - row.start())
        self.longest_run = max(self.longest_run, 1)
        if lead < len(text):
            self._run = len(text) - len(text.rstrip(text[-1]))
        cut = text.rfind("<", -_MARK_MAX)
        self._last = text[cut:] if cut >= 0 else text[-1]

    def _count(self, text: str) -> None:
        counts = self._counts
        counts.update(text)
        while len(counts) > _DISTINCT_MAX:
            self._other += counts.popitem()[1]

    def _words(self, words: list[str]) -> None:
        hashes = self._hashes + [hash((_KEY, word)) for word in words]
        self._hashes = hashes[-3:]
        self._see([hash(four) for four in zip(hashes, hashes[1:], hashes[2:], hashes[3:], strict=False)])

    def _see(self, grams: list[int]) -> None:
        if not grams:
            return
        bitmap = self._bitmap
        if bitmap is None:
            bitmap = self._bitmap = bytearray(_BITMAP_BYTES)
        self._grams += len(grams)
        for gram in grams:
            bitmap[gram >> 3 & (_BITMAP_BYTES - 1)] |= 1 << (gram & 7)

    def _repeated(self) -> float:
        if self._bitmap is None:
            return 0.0
        ones = int.from_bytes(self._bitmap, "big").bit_count()
        different = _BITS * math.log(_BITS / max(1, _BITS - ones))
        return max(0.0, min(1.0, 1.0 - round(different) / self._grams))


def _undecodable(one: str) -> bool:
    return one not in "\t\n\r" and unicodedata.category(one) in ("Cc", "Cs")
