"""How often each Xid of each GPU came of late, and which programs met it.

A program is named by its unit or container, or else its process's name: a server that is started again is
the same program, and so are all the workers of one server. Everything is bounded, because an Xid's number
and a process's name come from outside.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from agent.subjects import process_name, service_of
from escalation.model import Subject, XidEvidence
from probes.gpu.xids import XidEvent
from probes.observation import Instant, Origin

WINDOW_S: Final = 3600.0
_KINDS: Final = 128
_TIMES: Final = 1024
_PROGRAMS: Final = 8
_UINT32: Final = 2**32 - 1


@dataclass(slots=True)
class Tally:
    """One number on one GPU in the last `WINDOW_S` seconds."""

    gpu: str
    number: int
    times: deque[Instant] = field(default_factory=lambda: deque(maxlen=_TIMES))
    programs: dict[Subject, Instant] = field(default_factory=dict)
    sources: int = 1
    origin: Origin = field(default_factory=Origin)

    @property
    def count(self) -> int:
        """How often it came; at least so often, in a storm."""
        return len(self.times)

    @property
    def last(self) -> Instant:
        """When it came last."""
        return self.times[-1]

    def blame(self, origin: Origin, at: Instant) -> None:
        """Take note of the program that met it."""
        self.origin = origin
        self.programs[service_of(origin)] = at
        while len(self.programs) > _PROGRAMS:
            del self.programs[next(iter(self.programs))]

    def evidence(self) -> XidEvidence:
        """Return it for a report."""
        return XidEvidence(
            gpu=self.gpu,
            number=min(max(self.number, 0), _UINT32),
            count=self.count,
            sources=self.sources,
            process_name=process_name(self.origin),
            pid=self.origin.pid,
        )


class XidTallies:
    """The tallies of this host, at most `_KINDS`; what was quiet longest is forgotten first."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[str, int], Tally] = {}

    def __repr__(self) -> str:
        return f"XidTallies({len(self._tallies)})"

    def count(self, gpu: str, event: XidEvent) -> Tally:
        """Count a new event of this GPU."""
        key = (gpu, event.facts.number)
        tally = self._tallies.pop(key, None) or Tally(gpu, event.facts.number)
        at = event.first.at
        while tally.times and at.since_s(tally.times[0]) > WINDOW_S:
            tally.times.popleft()
        tally.programs = {who: met for who, met in tally.programs.items() if at.since_s(met) <= WINDOW_S}
        tally.times.append(at)
        tally.sources = len(event.sources)
        self._tallies[key] = tally
        while len(self._tallies) > _KINDS:
            del self._tallies[next(iter(self._tallies))]
        return tally

    def get(self, gpu: str, number: int) -> Tally | None:
        """Return the tally of a number on a GPU."""
        return self._tallies.get((gpu, number))

    def recent(self, gpu: str, now: Instant, *, within_s: float = WINDOW_S) -> Sequence[Tally]:
        """Return what this GPU told of within the last `within_s` seconds, the newest first."""
        found = [t for t in self._tallies.values() if t.gpu == gpu and now.since_s(t.last) <= within_s]
        return sorted(found, key=lambda t: t.last.boot_ns, reverse=True)
