"""Paired measurements: two sides in alternating order, the ratio pair by pair, medians to quote.

A shared machine drifts, so a figure of one side alone says little. Each pair runs both sides back to back and
flips which goes first; quoted is the median ratio of the pairs with its minimum and maximum, and an
A/A control (the off side against itself) says what the method cannot resolve.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """The smallest, median and largest of some figures."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Spread:
        """Summarise one figure or more."""
        return cls(min(figures), statistics.median(figures), max(figures))

    def __str__(self) -> str:
        return f"{self.median:.3g} [{self.low:.3g}-{self.high:.3g}]"


@dataclass(frozen=True, slots=True)
class Paired:
    """What `pairs` pairs of runs gave: each side's figure and the ratio on/off."""

    on: Spread
    off: Spread
    ratio: Spread
    pairs: int


def run_pairs(on: Callable[[], float], off: Callable[[], float], *, pairs: int) -> Paired:
    """Run `pairs` pairs in alternating order; each callable returns one figure above zero."""
    figures_on: list[float] = []
    figures_off: list[float] = []
    for number in range(pairs):
        if number % 2:
            figures_off.append(off())
            figures_on.append(on())
        else:
            figures_on.append(on())
            figures_off.append(off())
    return summarise(figures_on, figures_off)


def summarise(on: Sequence[float], off: Sequence[float]) -> Paired:
    """Pair the figures of both sides by position."""
    ratios = [a / b for a, b in zip(on, off, strict=True)]
    return Paired(Spread.of(on), Spread.of(off), Spread.of(ratios), len(ratios))


def percentile(figures: Sequence[float], share: float) -> float:
    """Return the smallest figure that at least `share` (0 to 1) of them do not exceed."""
    ordered = sorted(figures)
    return ordered[max(0, min(len(ordered) - 1, -(-int(share * 1000) * len(ordered) // 1000) - 1))]
