"""How rare a number is among its own past: minus the log10 of the share of the past that was as large.

The past is a histogram of the number's logarithm whose weights halve every `_HALF_LIFE` numbers, so a
measure that is often large earns little by being large again. Numbers beyond everything seen so far count as
rarer by `_BEYOND` for every bin between. So very different measures become comparable, and one threshold
serves them all.

Instead of shrinking every bin at each step, each number enters with a greater weight than the one before,
and all is scaled down now and then.
"""

from __future__ import annotations

import struct
from array import array
from math import isfinite, log2, log10
from typing import Final

_BINS: Final = 48
_PER_OCTAVE: Final = 1.5
_LOWEST_OCTAVE: Final = -6.0
_HALF_LIFE: Final = 4000.0
_BEYOND: Final = 0.2
_GROWTH: Final = 2.0 ** (1.0 / _HALF_LIFE)
_RESCALE_AT: Final = 1e6
_NEGLIGIBLE: Final = 1e-6
_LAYOUT: Final = struct.Struct(f"<{_BINS}fddB")

SAVED_BYTES: Final = _LAYOUT.size


class Rarity:
    """The past of one measure. `of` judges a number and remembers it."""

    __slots__ = ("_bins", "_highest", "_total", "_weight")

    def __init__(self) -> None:
        self._bins = array("f", bytes(4 * _BINS))
        self._total = 0.0
        self._weight = 1.0
        self._highest = 0

    def __repr__(self) -> str:
        return f"Rarity(past={self._total / self._weight:.0f})"

    def of(self, number: float) -> float:
        """Return how rare `number` (at least 0) is, and remember it."""
        place = 0
        if number > 0.0:
            place = int((log2(number) - _LOWEST_OCTAVE) * _PER_OCTAVE)
            if place < 0:
                place = 0
            elif place >= _BINS:
                place = _BINS - 1
        bins, weight = self._bins, self._weight
        rarity = log10((self._total + weight) / (sum(bins[place:]) + weight))
        if place > self._highest:
            rarity += _BEYOND * (place - self._highest)
            self._highest = place
        bins[place] += weight
        self._total += weight
        self._weight = weight * _GROWTH
        if weight > _RESCALE_AT:
            self._rescale()
        return rarity

    def copy(self) -> Rarity:
        """Return an independent one with the same past."""
        other = Rarity()
        other._bins = self._bins[:]
        other._total, other._weight, other._highest = self._total, self._weight, self._highest
        return other

    def to_bytes(self) -> bytes:
        """Return `SAVED_BYTES` bytes that `from_bytes` makes the same of."""
        return _LAYOUT.pack(*self._bins, self._total, self._weight, self._highest)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Rarity:
        """Return what `to_bytes` wrote; raise ValueError where it cannot have been that."""
        *bins, total, weight, highest = _LAYOUT.unpack(raw)
        if not all(isfinite(number) and number >= 0.0 for number in (*bins, total)):
            raise ValueError("a weight of the past is no finite number from 0 on")
        if not 1.0 <= weight <= 2 * _RESCALE_AT or highest >= _BINS:
            raise ValueError("the scale of the past is out of range")
        if abs(sum(bins) - total) > 1e-3 * total:
            raise ValueError("the past does not add up")
        made = cls()
        made._bins = array("f", bins)
        made._total, made._weight, made._highest = total, weight, highest
        return made

    def _rescale(self) -> None:
        """Bring the weights down again; what has become negligible is forgotten for good."""
        weight = self._weight
        self._bins = array("f", (number / weight for number in self._bins))
        for place, number in enumerate(self._bins):
            if number < _NEGLIGIBLE:
                self._bins[place] = 0.0
        self._total = sum(self._bins)
        self._weight = 1.0
        self._highest = max((place for place, number in enumerate(self._bins) if number), default=0)
