"""Judges a recording again: which cases would have been raised, and when, under a given configuration.

Time is the recording's own: each observation is judged at its moment, and the detectors get their ticks in
between. Two things of the real host are not in a recording, and the story says so: whether a cgroup or a
process still existed (a case that such a look would have cleared stays open), and what the detectors had
learnt in the weeks before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from agent.cases import CaseBook, Changes
from agent.detector import Detector, World
from agent.judge import Judge, hysteresis_of
from escalation.model import AgentId, CaseReport
from probes.observation import Instant, Observation

_TICK_NS: Final = 1_000_000_000
_TICKS_MAX: Final = 7 * 86_400
"""Ticks in a row without an observation: a longer silence is passed over in one step."""

BOOT_ID: Final = "recorded"


@dataclass(frozen=True, slots=True)
class Told:
    """What a case would have reported, `after_s` seconds into the recording."""

    after_s: float
    report: CaseReport


class Replay:
    """One judgement of one recording. `errors` counts what detectors raised, by their names."""

    def __init__(self, *, detectors: Sequence[Detector], agent_id: AgentId) -> None:
        self._judge = Judge(
            detectors=detectors,
            book=CaseBook(agent_id=agent_id, kernel_boot_id=BOOT_ID, hysteresis=hysteresis_of(detectors)),
            failed=lambda _, __: None,
        )
        self.observations = 0
        self.lasted_s = 0.0

    def __repr__(self) -> str:
        return f"Replay({self.observations} observations over {self.lasted_s:.0f} s, {self._judge!r})"

    @property
    def errors(self) -> dict[str, int]:
        """How often each detector failed."""
        return dict(self._judge.errors)

    def run(self, observations: Iterable[Observation], *, further_s: float = 0.0) -> Iterator[Told]:
        """Yield what is told, in order; go on for `further_s` after the last observation."""
        first: Instant | None = None
        now: Instant | None = None
        for seen in observations:
            self.observations += 1
            if first is None or now is None:
                first = now = seen.at
            if seen.at.boot_ns > now.boot_ns:
                for moment in _ticks(now, seen.at):
                    yield from _told(self._judge.tick(moment, World()), first, moment)
                now = seen.at
            yield from _told(self._judge.observe((seen,), now), first, now)
        if first is None or now is None:
            return
        self.lasted_s = now.since_s(first)
        end = Instant(now.boot_ns + int(further_s * 1e9), now.unix_ns + int(further_s * 1e9))
        for moment in _ticks(now, end):
            yield from _told(self._judge.tick(moment, World()), first, moment)

    def still_open(self) -> int:
        """Return how many cases stand open at the end."""
        return sum(self._judge.book.count_open().values())


def _ticks(after: Instant, until: Instant) -> Iterator[Instant]:
    """Yield each full second after `after`, up to `until`."""
    begin, end = after.boot_ns // _TICK_NS + 1, until.boot_ns // _TICK_NS
    for second in range(max(begin, end - _TICKS_MAX), end + 1):
        boot_ns = second * _TICK_NS
        yield Instant(boot_ns, after.unix_ns + boot_ns - after.boot_ns)


def _told(changes: Changes, first: Instant, now: Instant) -> Iterator[Told]:
    return (Told(now.since_s(first), body) for body in changes.bodies)
