"""The sensor of model routes: what was asked of the model servers of this host, and what came back.

It drains captured segments into the observer and dresses what the observer says with clocks and with who
served. Text lives in the ring and, in pieces of a few kilobytes, in the observer; it never gets further.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, assert_never

from probes.host.clock import at_boot_ns
from probes.host.model_servers import Servers
from probes.http.facts import ExchangeFacts, Facts, FlightFacts, UnobservedFacts
from probes.http.observer import Observer
from probes.kernel.capture import Capture
from probes.kernel.http_capture import NAME
from probes.observation import Exchange, Instant, Observation, RequestsInFlight, Unobserved

_TELL_FLIGHTS_NS: Final = 5_000_000_000


class RouteSensor:
    """Tells of every finished exchange, of requests that wait, and of what could not be judged."""

    name = NAME
    period_s = 0.25

    def __init__(self, *, capture: Capture, servers: Servers, observer: Observer | None = None) -> None:
        self._capture = capture
        self._servers = servers
        self._observer = observer or Observer()
        self._flights_told_ns = 0
        self._in_flight = False

    def __repr__(self) -> str:
        return f"RouteSensor({NAME}, {self._capture!r}, {self._observer!r})"

    def open(self) -> None:
        """Take hold of the capture."""
        self._capture.open()

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return what ended since the last read, and every few seconds what has not ended."""
        feed = self._observer.feed
        for segment in self._capture.segments():
            feed(segment)
        losses = self._capture.losses(now)
        if losses:
            self._observer.lost(sum(gap.lost for gap in losses), now.boot_ns)
        self._observer.advance(now.boot_ns)
        found = [self._dressed(facts, now) for facts in self._observer.take()]
        return [*found, *self._flights(now), *losses]

    def waiting(self) -> bool:
        """Whether something was captured, or requests wait whose silence has to be told."""
        return self._in_flight or self._capture.waiting()

    def settle(self) -> None:
        """Note how far the capture is judged and on disk."""
        self._capture.settle()

    def wakeup_fd(self) -> int | None:
        """The capture's own."""
        return self._capture.wakeup_fd()

    def close(self) -> None:
        """Let go of the capture. What was under way is forgotten: its successor sees it as mid-stream."""
        self._capture.close()

    def _flights(self, now: Instant) -> list[Observation]:
        if now.boot_ns - self._flights_told_ns < _TELL_FLIGHTS_NS:
            return []
        self._flights_told_ns = now.boot_ns
        flights = self._observer.in_flight(now.boot_ns)
        self._in_flight = bool(flights)
        return [self._dressed(facts, now) for facts in flights]

    def _dressed(self, facts: Facts, now: Instant) -> Observation:
        at = at_boot_ns(facts.at_ns, now)
        origin = self._servers.origin(facts.cgroup_id)
        match facts:
            case ExchangeFacts():
                return Exchange(NAME, at, origin, facts)
            case FlightFacts():
                return RequestsInFlight(NAME, at, origin, facts)
            case UnobservedFacts():
                return Unobserved(NAME, at, origin, facts)
            case _:
                assert_never(facts)
