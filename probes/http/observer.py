"""The route observer: segments of all connections go in, facts about exchanges come out.

It keeps no clock and does no I/O. Memory is bounded: so many connections, and of each a few KiB that wait for
the rest of a head, an event or a block of text. Text is measured and dropped, see `text`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from probes.http.connection import Connection
from probes.http.exchange import Exchange
from probes.http.facts import (
    ExchangeFacts,
    FlightFacts,
    RouteName,
    UnobservedFacts,
    UnobservedReason,
)
from probes.http.head import REQUEST_LINE
from probes.http.segment import SYN, Segment

_LOOK_NS = 250_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserverSettings:
    """How much is held, and for how long."""

    connections_max: int = 2048
    gap_s: float = 1.0  # bytes that others wait for are given up after this
    idle_s: float = 900.0  # an exchange on which nothing moves is ended after this
    keep_s: float = 120.0  # a connection without an exchange is forgotten after this
    linger_s: float = 5.0  # a closed connection is remembered for what comes late
    half_closed_s: float = 5.0  # a client that has closed, and hears nothing, has cancelled after this
    parked_bytes_max: int = 16 * 1024 * 1024  # bytes that overtook others, on all connections together

    def __post_init__(self) -> None:
        for name in ("connections_max", "gap_s", "idle_s", "keep_s", "linger_s", "parked_bytes_max"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be more than 0")


_DEFAULTS = ObserverSettings()


class Observer:
    """Takes segments in the order of capture.

    Each round: `feed` what was captured, tell `lost` if the capture dropped records, let time pass with
    `advance`, then `take` what is over. What ended by a close is only certain when nothing was lost before
    it, so `lost` takes back such facts that have not been taken yet.
    """

    def __init__(self, *, settings: ObserverSettings = _DEFAULTS) -> None:
        self._settings = settings
        self._connections: dict[int, Connection] = {}
        self._finished: list[tuple[ExchangeFacts, bool]] = []  # and whether a loss cannot explain it
        self._unobserved: Counter[tuple[int, UnobservedReason, int]] = Counter()
        self._now_ns = 0
        self._looked_ns = 0
        self._lost = 0

    def __repr__(self) -> str:
        return f"Observer(held={self.held}, finished={len(self._finished)}, records_lost={self._lost})"

    @property
    def held(self) -> int:
        """How many connections are held."""
        return len(self._connections)

    @property
    def held_bytes(self) -> int:
        """How many bytes of the wire wait for others."""
        return sum(connection.held_bytes for connection in self._connections.values())

    def feed(self, segment: Segment) -> None:
        """Take one piece of a segment."""
        connection = self._connections.get(segment.connection)
        if connection is None:
            connection = self._open(segment)
            if connection is None:
                return
        connection.feed(segment)

    def lost(self, count: int, now_ns: int) -> None:
        """Hear that so many records of the capture were lost, nobody knows of which connections."""
        if count <= 0:
            return
        self._now_ns = max(self._now_ns, now_ns)
        self._lost += count
        for connection in self._connections.values():
            connection.suspect()
        for facts, sure in self._finished:
            if not sure:
                self._unobserved[facts.name.port, UnobservedReason.LOST, facts.cgroup_id] += 1
        self._finished = [one for one in self._finished if one[1]]

    def advance(self, now_ns: int) -> None:
        """Let time pass."""
        self._now_ns = max(self._now_ns, now_ns)
        if now_ns - self._looked_ns < _LOOK_NS:
            return
        self._looked_ns = now_ns
        patience_ns = _nanoseconds(self._settings.half_closed_s)
        idle_ns, keep_ns, linger_ns = (
            _nanoseconds(one)
            for one in (self._settings.idle_s, self._settings.keep_s, self._settings.linger_s)
        )
        gone = []
        for key, connection in self._connections.items():
            connection.advance(now_ns, patience_ns=patience_ns)
            silent_ns = now_ns - connection.last_ns
            if connection.over:
                limit_ns = linger_ns
            else:
                limit_ns = idle_ns if connection.pending or connection.blind else keep_ns
            if silent_ns >= limit_ns:
                connection.expire(now_ns)
                gone.append(key)
        for key in gone:
            del self._connections[key]
        if sum(one.parked_bytes for one in self._connections.values()) > self._settings.parked_bytes_max:
            self._make_room(now_ns)

    def take(self) -> list[ExchangeFacts | UnobservedFacts]:
        """Return what has finished since the last call, and forget it."""
        taken: list[ExchangeFacts | UnobservedFacts] = [facts for facts, _ in self._finished]
        for (port, reason, cgroup_id), count in self._unobserved.items():
            taken.append(
                UnobservedFacts(
                    port=port, reason=reason, count=count, at_ns=self._now_ns, cgroup_id=cgroup_id
                )
            )
        self._finished = []
        self._unobserved = Counter()
        return taken

    def in_flight(self, now_ns: int) -> list[FlightFacts]:
        """Return the requests not answered in full, by route; none of connections that lost bytes."""
        by_name: dict[RouteName, list[Exchange]] = {}
        for connection in self._connections.values():
            if connection.pending and connection.certain:
                for exchange in connection.pending:
                    by_name.setdefault(exchange.name, []).append(exchange)
        return [_flight(name, exchanges, now_ns) for name, exchanges in by_name.items()]

    def exchange(self, facts: ExchangeFacts, *, sure: bool) -> None:
        """See Ledger."""
        self._finished.append((facts, sure))
        self._now_ns = max(self._now_ns, facts.at_ns)

    def unobserved(self, connection: Connection, reason: UnobservedReason, at_ns: int) -> None:
        """See Ledger."""
        self._unobserved[connection.port, reason, connection.cgroup_id] += 1
        self._now_ns = max(self._now_ns, at_ns)

    def _open(self, segment: Segment) -> Connection | None:
        """Begin to hold a connection, if there is something to be read and room."""
        if not (segment.data or segment.skipped or segment.flags & SYN):
            return None
        if len(self._connections) >= self._settings.connections_max:
            self._make_room(segment.at_ns)
        if len(self._connections) >= self._settings.connections_max:
            if segment.to_server and REQUEST_LINE.match(segment.data):
                self._unobserved[segment.port, UnobservedReason.TOO_MANY, segment.cgroup_id] += 1
            return None
        connection = Connection(
            port=segment.port,
            cgroup_id=segment.cgroup_id,
            ledger=self,
            gap_ns=_nanoseconds(self._settings.gap_s),
        )
        self._connections[segment.connection] = connection
        return connection

    def _make_room(self, now_ns: int) -> None:
        """Forget an eighth of the connections: closed ones, then the longest silent; never busy ones."""
        order = sorted(
            self._connections.items(),
            key=lambda item: (not item[1].over, bool(item[1].pending), item[1].last_ns),
        )
        busy_ns = now_ns - _LOOK_NS
        for key, connection in order[: max(1, len(order) // 8)]:
            if connection.pending and connection.last_ns > busy_ns:
                break
            connection.give_up(now_ns, UnobservedReason.EVICTED)
            del self._connections[key]


def _flight(name: RouteName, exchanges: Iterable[Exchange], now_ns: int) -> FlightFacts:
    held = list(exchanges)
    heard = [one.heard_ns for one in held if one.heard_ns is not None]
    moved = max(heard) if heard else min(one.begun_ns for one in held)
    return FlightFacts(
        name=name,
        at_ns=now_ns,
        cgroup_id=held[0].cgroup_id,
        requests=len(held),
        waiting=sum(one.answer is None for one in held),
        oldest_s=max(0, now_ns - min(one.begun_ns for one in held)) / 1e9,
        silent_s=max(0, now_ns - moved) / 1e9,
        largest_request_bytes=max(one.request.body_bytes for one in held),
    )


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
