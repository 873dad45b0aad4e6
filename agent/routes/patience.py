"""How long one port may be silent while requests wait: what was learnt of it, and what is under way.

A port is what an engine is known by here: its requests queue behind each other, so a byte on any of them
shows that it works. Health and metrics pages do not: a dead engine goes on answering those. Behind a router
several engines share its port; that one of them is silent shows at the engine's own.

Patience is longer than the slowest that this port was seen to be, and grows with the largest request under
way, because nothing comes back while it is read in. Where no answer has begun, it is longer still while the
port is not known yet, after an idle time in which a model may have been unloaded, and where whole answers are
asked for, which say nothing until they are done. What was learnt survives a restart; how long the port was
idle before it does not, and counts as long.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from agent.detector import DetectorConfig
from probes.http.facts import Ending, ExchangeFacts, FlightFacts, RouteName
from probes.observation import ServerKind

_STALE_NS: Final = 15_000_000_000
"""A flight that was not told again for this long has landed; the sensor tells every 5 s."""

_ROW_NS: Final = 60_000_000_000
"""Requests that follow one another within this time are one row of attempts."""

_FLIGHTS: Final = 64
_ROUNDING_NS: Final = 1_000_000
_LEARNING: Final = 0.02
_FADING: Final = 0.999
_BELIEVED_S: Final = 60.0
_GOOD_MOST: Final = 1_000_000
_RESIDENT: Final = frozenset({ServerKind.VLLM, ServerKind.TENSORRT_LLM})
"""Servers that never unload their model."""


class PatienceConfig(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long silence may last while requests wait."""

    patience_s: Annotated[float, Meta(gt=0)] = 120.0
    patience_cold_s: Annotated[float, Meta(gt=0)] = 600.0
    patience_whole_s: Annotated[float, Meta(gt=0)] = 600.0
    patience_max_s: Annotated[float, Meta(gt=0)] = 3600.0
    prefill_bytes_per_s: Annotated[float, Meta(gt=0)] = 800.0
    times_slowest: Annotated[float, Meta(ge=1)] = 3.0
    learnt_min: Annotated[int, Meta(ge=0)] = 20
    unloaded_after_s: Annotated[float, Meta(gt=0)] = 240.0


class LearntPatience(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is kept of a port: its good answers, the share of whole ones, and the slowest."""

    good: Annotated[int, Meta(ge=1, le=_GOOD_MOST)]
    whole_share: Annotated[float, Meta(ge=0, le=1)]
    slowest_s: Annotated[float, Meta(ge=0, le=86400)]


@dataclass(slots=True)
class PortMemory:
    """One port: since when it is silent, what waits there, and how slow it was when all was well."""

    alive_ns: int | None = None
    asked_since_ns: int | None = None
    asked_last_ns: int = 0
    idle_before_s: float = 0.0
    gave_up: int = 0
    good: int = 0
    good_since: int = 0  # good answers since a stall was last seen
    whole_share: float = 0.0
    slowest_s: float = 0.0
    laid_to: RouteName | None = None  # the route that the present silence is laid to
    flights: dict[RouteName, FlightFacts] = field(default_factory=dict)

    @property
    def learnt(self) -> LearntPatience | None:
        """What is worth keeping; None where no good answer was seen."""
        if not self.good:
            return None
        return LearntPatience(
            good=min(self.good, _GOOD_MOST),
            whole_share=min(1.0, max(0.0, self.whole_share)),
            slowest_s=min(86400.0, max(0.0, self.slowest_s)),
        )

    @classmethod
    def recalled(cls, learnt: LearntPatience) -> PortMemory:
        """Return what is known of a port of which an earlier one had learnt this."""
        return cls(good=learnt.good, whole_share=learnt.whole_share, slowest_s=learnt.slowest_s)

    def forget_silence(self, until_ns: int) -> None:
        """Begin anew: what happens until then is not seen, and may be a sign of life."""
        self.alive_ns = max(self.alive_ns or 0, until_ns)
        self.asked_since_ns = self.laid_to = None
        self.gave_up = 0
        self.flights.clear()

    def works(self, now_ns: int) -> None:
        """Begin the silence anew: the engine gave a sign of life elsewhere than on the wire."""
        self.alive_ns = max(self.alive_ns or 0, now_ns)
        self.laid_to = None
        self.gave_up = 0

    def ended(self, facts: ExchangeFacts) -> None:
        """Take note of an exchange's end."""
        now_ns = facts.at_ns
        self.flights.pop(facts.name, None)  # told again within 5 s where more of its kind wait
        if facts.ending in {Ending.CANCELLED, Ending.IDLE}:
            if facts.response_bytes == 0:
                self._asked(now_ns - int(facts.duration_s * 1e9), now_ns)
                self.gave_up += 1
            return
        self.alive_ns = max(self.alive_ns or 0, now_ns)
        self.asked_since_ns = self.laid_to = None
        self.gave_up = 0
        if facts.ending is Ending.COMPLETE and facts.status == 200 and not facts.error_in_answer:
            self._learn(facts)

    def waits(self, flight: FlightFacts) -> None:
        """Take note of requests that are under way."""
        now_ns = flight.at_ns
        self.flights.pop(flight.name, None)
        self.flights[flight.name] = flight
        for name, other in list(self.flights.items()):
            if now_ns - other.at_ns > _STALE_NS or len(self.flights) > _FLIGHTS:
                del self.flights[name]
        self._asked(now_ns - int(flight.oldest_s * 1e9), now_ns)
        if flight.requests > flight.waiting:
            byte_ns = now_ns - int(flight.silent_s * 1e9)
            if byte_ns > (self.alive_ns or 0) + _ROUNDING_NS:
                self.alive_ns = byte_ns
                self.laid_to = None
                self.gave_up = 0

    def silent_s(self, now_ns: int) -> float:
        """Return for how long something was asked and not one byte came."""
        if self.asked_since_ns is None:
            return 0.0
        return max(0, now_ns - max(self.alive_ns or 0, self.asked_since_ns)) / 1e9

    def lays_stall_to(self, name: RouteName) -> bool:
        """Return whether the present silence is laid to `name`: the first route that was asked about."""
        if self.laid_to is None:
            self.laid_to = name
        return self.laid_to == name

    def witnesses(self) -> int:
        """Return how many requests had no answer in this silence: those under way and those given up."""
        return sum(flight.requests for flight in self.flights.values()) + self.gave_up

    def patience_s(self, server: ServerKind, config: PatienceConfig) -> float:
        """Return how long this port may be silent with what is under way now."""
        patience_s = max(config.patience_s, config.times_slowest * self.slowest_s)
        if not any(flight.requests > flight.waiting for flight in self.flights.values()):
            unloaded = server not in _RESIDENT and self.idle_before_s >= config.unloaded_after_s
            if self.good < config.learnt_min or unloaded:
                patience_s = max(patience_s, config.patience_cold_s)
            if self.whole_share >= _LEARNING / 2:
                patience_s = max(patience_s, config.patience_whole_s)
        largest = max((flight.largest_request_bytes for flight in self.flights.values()), default=0)
        return min(config.patience_max_s, patience_s + largest / config.prefill_bytes_per_s)

    def _asked(self, since_ns: int, now_ns: int) -> None:
        if self.asked_since_ns is None or since_ns > self.asked_last_ns + _ROW_NS:
            self.asked_since_ns = since_ns
            self.laid_to = None
            idle_s = inf if self.alive_ns is None else (since_ns - self.alive_ns) / 1e9
            self.idle_before_s = max(0.0, idle_s)
            self.gave_up = 0
        else:
            self.asked_since_ns = min(self.asked_since_ns, since_ns)
        self.asked_last_ns = max(self.asked_last_ns, now_ns)

    def _learn(self, facts: ExchangeFacts) -> None:
        self.good += 1
        self.good_since += 1
        waited_s = facts.duration_s
        if facts.streamed:
            waited_s = max(facts.first_token_s or facts.first_byte_s or 0.0, facts.longest_gap_s)
        believed_s = max(_BELIEVED_S, 2 * self.slowest_s)  # one answer after a stall is no new pace
        self.slowest_s = max(min(waited_s, believed_s), self.slowest_s * _FADING)
        self.whole_share += _LEARNING * ((0.0 if facts.streamed else 1.0) - self.whole_share)
