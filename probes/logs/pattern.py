"""What a pattern of a log line is, and how a line is matched: a literal first, then one expression.

A pattern names a form that a program is known to write, with its source. Out of a line come only its id and
typed captures: numbers, IPv4 addresses as numbers, and words of a closed list; text never. Expressions run in
time linear in the line: every repetition in them is bounded, none holds another one, and of two beside each
other one never gives back what it took (a test reads them); lines are cut to `LINE_MAX` characters, and most
lines are refused by their literals alone.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from probes.observed.logs import LogCapture
from probes.origin import ServerKind

LINE_MAX: Final = 4096
_NUMBER_MAX: Final = 1e15


class LineSource(enum.StrEnum):
    """Who may have written a line: the kernel alone, the service manager alone, or any program."""

    KERNEL = "kernel"
    MANAGER = "manager"
    PROGRAM = "program"


@dataclass(frozen=True, slots=True)
class Pattern:
    """One form of line. `literal` is in every such line; groups of the expression are its captures.

    Groups in `words` capture only what their list holds; those in `addresses` an IPv4 address as a number;
    all others a number. `server` is whose line it is, where only one kind of server writes it. `form` is
    where the form comes from.
    """

    id: str
    about: str
    form: str
    literal: str
    expression: str
    words: tuple[tuple[str, tuple[str, ...]], ...] = ()
    addresses: tuple[str, ...] = ()
    source: LineSource = LineSource.PROGRAM
    server: ServerKind = ServerKind.OTHER


@dataclass(frozen=True, slots=True)
class Match:
    """What a line said."""

    pattern: Pattern
    captures: tuple[LogCapture, ...]


class Matcher:
    """Finds the first pattern of a table that a line has. Expressions are compiled when first needed."""

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self._by_source: dict[LineSource, tuple[Pattern, ...]] = {
            source: tuple(pattern for pattern in patterns if pattern.source is source)
            for source in LineSource
        }
        self._compiled: dict[str, re.Pattern[str]] = {}

    def __repr__(self) -> str:
        count = sum(len(patterns) for patterns in self._by_source.values())
        return f"Matcher({count} patterns, {len(self._compiled)} in use)"

    def match(self, text: str, source: LineSource) -> Match | None:
        """Return what the line says, None for a line that is nobody's business here."""
        text = text[:LINE_MAX]
        for pattern in self._by_source[source]:
            if pattern.literal in text:
                found = self._expression(pattern).search(text)
                if found is not None:
                    return Match(pattern, _captures(pattern, found))
        return None

    def _expression(self, pattern: Pattern) -> re.Pattern[str]:
        known = self._compiled.get(pattern.id)
        if known is None:
            known = self._compiled[pattern.id] = re.compile(pattern.expression)
        return known


def _captures(pattern: Pattern, found: re.Match[str]) -> tuple[LogCapture, ...]:
    lists = dict(pattern.words)
    captures = []
    for name, text in found.groupdict().items():
        if text is None:
            continue
        if name in lists:
            captures.append(LogCapture(name, word=_word(text, lists[name])))
        elif (number := _address(text) if name in pattern.addresses else _number(text)) is not None:
            captures.append(LogCapture(name, number=number))
    return tuple(captures)


def _word(text: str, words: Sequence[str]) -> str:
    """Return the word of the list that the text is, whatever its case; `other` for anything else."""
    folded = text.casefold()
    return next((word for word in words if word.casefold() == folded), "other")


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) < _NUMBER_MAX else None  # also refuses NaN


def _address(text: str) -> float | None:
    """Return an IPv4 address as the number that its four bytes are."""
    parts = text.split(".")
    if len(parts) != 4 or not all(part.isascii() and part.isdecimal() and len(part) < 4 for part in parts):
        return None
    numbers = [int(part) for part in parts]
    return None if max(numbers) > 255 else float(int.from_bytes(bytes(numbers), "big"))
