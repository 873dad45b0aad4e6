"""The queue between sensors and judgement: bounded, counts what it drops by sensor, and never blocks a read.

When it is full the newest observation is dropped: what waits is older and may be the cause of what comes. A
Gap is never dropped, because it is the word that something was lost or that a sensor went blind, and neither
is the word of a drill: without its end a real fault could be taken for one. There are only as many of them
as sensors and drills change, so room for them is not bounded by the capacity.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

from probes.observation import DrillBegan, DrillEnded, Gap, Observation, SensorName

_KEPT = (Gap, DrillBegan, DrillEnded)


class Pipeline:
    """Holds observations until they are judged."""

    def __init__(self, *, capacity: int) -> None:
        self._capacity = capacity
        self._queue: deque[Observation] = deque()
        self._dropped: Counter[SensorName] = Counter()
        self.taken: Counter[SensorName] = Counter()
        self.dropped_total: Counter[SensorName] = Counter()

    def __repr__(self) -> str:
        return f"Pipeline({len(self._queue)}/{self._capacity}, dropped={self.dropped_total.total()})"

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, observations: Iterable[Observation]) -> None:
        """Take what fits; count the rest as dropped."""
        for observation in observations:
            self.taken[observation.sensor] += 1
            if len(self._queue) >= self._capacity and not isinstance(observation, _KEPT):
                self._dropped[observation.sensor] += 1
                self.dropped_total[observation.sensor] += 1
                continue
            self._queue.append(observation)

    def take(self, limit: int) -> list[Observation]:
        """Return up to `limit` observations, oldest first."""
        return [self._queue.popleft() for _ in range(min(limit, len(self._queue)))]

    def take_drops(self) -> dict[SensorName, int]:
        """Return what was dropped since the last call, by sensor."""
        dropped, self._dropped = self._dropped, Counter()
        return dict(dropped)
