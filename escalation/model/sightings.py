"""How often a fault was seen over time, in so few numbers that every incident has room for them.

Time is cut into steps of equal length from the first sight on. When what is seen next lies beyond the last
step there is room for, two steps become one: a minute at first, hours for what goes on for days. So it says
less of what is long ago the longer it goes on, and never anything else than what was counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

STEPS_AT_MOST: Final = 24
FIRST_STEP_S: Final = 60

_NS: Final = 1_000_000_000
_COUNT_MAX: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Sightings:
    """`counts[0]` of them were within `step_s` from `start_ns` on, and so forth; empty: nothing was counted.

    The times are those of the host's clock, as every time of a fault is.
    """

    start_ns: int = 0
    step_s: int = FIRST_STEP_S
    counts: tuple[int, ...] = ()

    @property
    def end_ns(self) -> int:
        """Return where the last step ends."""
        return self.start_ns + len(self.counts) * self.step_s * _NS

    def with_more(self, count: int, *, at_ns: int) -> Sightings:
        """Return them with `count` more at this time; what comes before the first step counts to it."""
        if count < 1:
            return self
        grown = self.until(at_ns)
        place = min(max(0, at_ns - grown.start_ns) // (grown.step_s * _NS), len(grown.counts) - 1)
        counts = list(grown.counts)
        counts[place] = min(_COUNT_MAX, counts[place] + count)
        return Sightings(grown.start_ns, grown.step_s, tuple(counts))

    def until(self, at_ns: int) -> Sightings:
        """Return them with steps up to this time, in which nothing was seen."""
        step_s, counts = self.step_s, self.counts or (0,)
        while (steps := max(0, at_ns - self.start_ns) // (step_s * _NS) + 1) > STEPS_AT_MOST:
            step_s *= 2
            pairs = (counts[place : place + 2] for place in range(0, len(counts), 2))
            counts = tuple(min(_COUNT_MAX, sum(pair)) for pair in pairs)
        return Sightings(self.start_ns, step_s, counts + (0,) * (steps - len(counts)))


NOT_COUNTED: Final = Sightings()
