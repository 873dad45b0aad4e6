"""When each thing was heard of last, so that one which is not there any more ends its case.

A process, a peer or an interface that went while the agent was away leaves no event behind. Its sensor tells
of it again and again as long as it is there; what a sensor that sees has not told of for so long (a day) is
gone, or nobody has to do with it. A sensor that was blind begins anew. A thing that was forgotten for want of
room counts from then.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from agent.detector import Tick, quiet_for_s, sight_after
from agent.finding import Finding, OpenCase, absent
from escalation.model import Reason, ReasonCode, Subject
from probes.observation import Gap, Instant, SensorName

THINGS_MAX: Final = 512


class Heard:
    """Follows one sensor's sight, and what it tells of."""

    def __init__(self, sensor: SensorName) -> None:
        self._sensor = sensor
        self._since: Instant | None = None
        self._forgot: Instant | None = None
        self._last: OrderedDict[Subject, Instant] = OrderedDict()

    def __repr__(self) -> str:
        return f"Heard({self._sensor}, things={len(self._last)}, since={self._since})"

    def sight(self, gap: Gap) -> None:
        """Take note of what the sensor says of its own sight."""
        if gap.sensor == self._sensor:
            self._since = sight_after(self._since, gap)

    def blur(self, at: Instant) -> None:
        """Take note that not everything could be told of at that time."""
        self._since = at

    def take(self, thing: Subject, at: Instant) -> None:
        """Take note that the sensor told of `thing`."""
        self._last[thing] = at
        self._last.move_to_end(thing)
        while len(self._last) > THINGS_MAX:
            self._last.popitem(last=False)
            self._forgot = at

    def gone(self, case: OpenCase, tick: Tick, after_s: float) -> Finding | None:
        """Return that a case is over where nothing was told of its subject for `after_s`."""
        told = self._last.get(case.subject, self._forgot)
        last = case.last_seen if told is None or told.boot_ns < case.last_seen.boot_ns else told
        quiet_s = quiet_for_s(self._since, last, tick.now)
        if quiet_s < after_s:
            return None
        reason = Reason(ReasonCode.NOT_SEEN_SINCE, threshold=after_s, window_s=round(quiet_s, 3))
        return absent(case.fault_class, case.subject, tick.now, reason)
