"""What logs and connection tables say: lines of known patterns, and how many clients a service holds."""

from __future__ import annotations

from dataclasses import dataclass

from probes.origin import Instant, Origin, SensorName


@dataclass(frozen=True, slots=True)
class LogCapture:
    """One typed part of a line: a number, or a word of the pattern's own closed list."""

    name: str
    number: float | None = None
    word: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """`count` lines of one pattern came from one origin since the last read; `captures` are of the last one.

    `pattern` is an id of `probes.logs.patterns`. The lines themselves are gone when this is made.
    """

    sensor: SensorName
    at: Instant
    origin: Origin
    pattern: str
    captures: tuple[LogCapture, ...] = ()
    count: int = 1

    def number(self, name: str) -> float | None:
        """Return the number captured under `name`, None where there is none."""
        return next((each.number for each in self.captures if each.name == name), None)

    def word(self, name: str) -> str:
        """Return the word captured under `name`, empty where there is none."""
        return next((each.word for each in self.captures if each.name == name), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """How many TCP connections a listening service of this host has accepted and holds; 0 is none.

    `origin` is the unit or container that listens. `peers` counts the different addresses at the other end.
    """

    sensor: SensorName
    at: Instant
    origin: Origin
    port: int
    sessions: int
    peers: int
