"""`host.peers`: what the remote ends of TCP connections had: attempts that failed, segments that got lost.

The kernel counts (`probes/kernel/peer_tables.py`) in every network namespace; this sensor reads the counts
now and then and says whose they were. Of how many segments the retransmitted ones are part is asked of the
sockets themselves (`probes/host/traffic.py`), which shows the host's own namespace, and only while an
address is of interest: from `_INTERESTING` retransmissions in one window until `_CALM_SEGMENTS` went there
without one, for `_OFTEN_S` at the least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from probes.host.attempts import failed, succeeded
from probes.host.clock import at_boot_ns
from probes.host.identity import Identifier
from probes.host.sockets import SocketsUnreadable
from probes.host.traffic import Account, Connection, accounts, sent_between
from probes.kernel.peer_tables import ClientRise, PeerRise
from probes.observation import (
    ConnectFailures,
    ConnectSuccesses,
    Instant,
    Observation,
    Origin,
    Peer,
    PeerTraffic,
    SensorName,
)

NAME: Final = SensorName("host.peers")

_PEERS_MAX: Final = 256
_UNANSWERED_S: Final = 60.0
_INTERESTING: Final = 3
_CALM_SEGMENTS: Final = 4000
_ADDRESSES_MAX: Final = 64
_OFTEN_S: Final = 120.0
_SELDOM_S: Final = 60.0


@dataclass(slots=True)
class _Interest:
    """An address whose segments are counted: when one was last sent again, and how many went since."""

    last: Instant
    segments: int = 0


class Tables(Protocol):
    """The kernel's counts, as `PeerTables` reads them."""

    def open(self) -> None:
        """Take hold of them; raise SensorBlind where they are missing."""

    def moved(self) -> bool:
        """Whether anything was counted since the last look."""

    def rises(self, now_ns: int) -> tuple[tuple[PeerRise, ...], tuple[ClientRise, ...]]:
        """Return what rose since the last look."""

    def lossy(self, least: int) -> tuple[str, ...]:
        """Return the addresses to which at least so many segments were sent again before the first look."""

    def close(self) -> None:
        """Let go."""


class PeerSensor:
    """Tells which peers cannot be reached, by whom, and where segments get lost."""

    name = NAME
    period_s = 10.0

    def __init__(
        self,
        *,
        tables: Tables,
        identifier: Identifier,
        traffic: Callable[[], Mapping[Connection, Account]] = accounts,
    ) -> None:
        self._tables = tables
        self._identifier = identifier
        self._traffic = traffic
        self._read_at: Instant | None = None
        self._unanswered: dict[tuple[str, int], Instant] = {}
        self._interests: dict[str, _Interest] = {}
        self._before: Mapping[Connection, Account] | None = None
        self._asked_at: Instant | None = None

    def __repr__(self) -> str:
        return f"PeerSensor({NAME}, {self._tables}, of interest={len(self._interests)})"

    def open(self) -> None:
        """Take hold of the tables; raise SensorBlind where they are missing."""
        self.close()
        self._tables.open()

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return what was counted since the last read."""
        if self._read_at is None:  # a case of an earlier process may wait for calm
            self._interests = {address: _Interest(now) for address in self._tables.lossy(_INTERESTING)}
        window_s = self.period_s if self._read_at is None else now.since_s(self._read_at)
        self._read_at = now
        peers: tuple[PeerRise, ...] = ()
        clients: tuple[ClientRise, ...] = ()
        if self._tables.moved():
            peers, clients = self._tables.rises(now.boot_ns)
        tried: dict[tuple[str, int], list[ClientRise]] = {}
        for client in clients:
            tried.setdefault((client.address, client.port), []).append(client)
        attempts = [
            told
            for peer in peers
            if peer.port
            for told in self._attempts(peer, tried.get((peer.address, peer.port), []), now, window_s)
        ]
        lost = {peer.address: peer for peer in peers if not peer.port}
        return [*attempts, *self._sent(lost, now, window_s)]

    def waiting(self) -> bool:
        """Whether anything was counted, or an address is of interest."""
        return bool(self._interests) or self._tables.moved()

    def settle(self) -> None:
        """Nothing to note: what a window held is told or gone."""

    def wakeup_fd(self) -> int | None:
        """Counts wait for their turn."""
        return None

    def close(self) -> None:
        """Let go of the tables and forget."""
        self._tables.close()
        self._read_at = self._before = self._asked_at = None
        self._unanswered.clear()
        self._interests.clear()

    def _attempts(
        self, peer: PeerRise, tried: Sequence[ClientRise], now: Instant, window_s: float
    ) -> Iterator[ConnectFailures | ConnectSuccesses]:
        at, whom = at_boot_ns(peer.last_ns, now), Peer(peer.address, peer.port)
        for one in failed(peer, tried, unanswered=self._is_unanswered(peer, now)):
            yield ConnectFailures(
                sensor=NAME,
                at=at,
                peer=whom,
                errno=one.errno,
                count=one.count,
                origin=self._origin(one.client),
                reached_before=peer.reached,
                by_route=one.by_route,
                window_s=window_s,
            )
        for other in succeeded(peer, tried):
            origin = self._origin(other.client)
            yield ConnectSuccesses(
                sensor=NAME, at=at, peer=whom, count=other.count, origin=origin, window_s=window_s
            )

    def _is_unanswered(self, peer: PeerRise, now: Instant) -> bool:
        """Whether a first segment to the peer was sent again in the last minute."""
        key = (peer.address, peer.port)
        if peer.syn_retransmitted:
            self._unanswered.pop(key, None)
            self._unanswered[key] = now
            while len(self._unanswered) > _PEERS_MAX:
                del self._unanswered[next(iter(self._unanswered))]
        since = self._unanswered.get(key)
        return since is not None and now.since_s(since) <= _UNANSWERED_S

    def _origin(self, client: ClientRise | None) -> Origin:
        if client is None:
            return Origin()
        return self._identifier.origin(
            pid=client.pid,
            cgroup_id=client.cgroup_id,
            process_name=client.process,
            at_boot_ns=client.last_ns,
        )

    def _sent(self, lost: Mapping[str, PeerRise], now: Instant, window_s: float) -> Iterator[PeerTraffic]:
        for address, peer in lost.items():
            if peer.retransmitted >= _INTERESTING or address in self._interests:
                self._interests.pop(address, None)
                self._interests[address] = _Interest(now)
        while len(self._interests) > _ADDRESSES_MAX:
            del self._interests[next(iter(self._interests))]
        sent, asked_s = self._ask(now)
        for address in sorted(lost.keys() | (self._interests.keys() if sent is not None else set())):
            its = lost.get(address)
            account = None if sent is None else sent.get(address, Account(0, 0))
            of_interest = address in self._interests
            yield PeerTraffic(
                sensor=NAME,
                at=now,
                address=address,
                counted=its.retransmitted if its else 0,
                resets=its.resets if its else 0,
                segments=account.segments if account and of_interest else None,
                retransmitted=account.retransmitted if account and of_interest else None,
                window_s=asked_s if account and of_interest else window_s,
            )
            if account and of_interest:
                self._count(address, account, now)

    def _count(self, address: str, account: Account, now: Instant) -> None:
        interest = self._interests[address]
        if interest.last == now:
            return
        interest.segments += account.segments
        if interest.segments >= _CALM_SEGMENTS and now.since_s(interest.last) > _OFTEN_S:
            del self._interests[address]

    def _ask(self, now: Instant) -> tuple[Mapping[str, Account] | None, float]:
        """Return what was sent since the sockets were last asked, and for how long; None where unknown.

        They are asked often while segments are being sent again, and seldom while only calm is waited for.
        """
        if not self._interests:
            self._before = self._asked_at = None
            return None, 0.0
        latest = max((one.last for one in self._interests.values()), key=lambda moment: moment.boot_ns)
        since_s = None if self._asked_at is None else now.since_s(self._asked_at)
        if since_s is not None and since_s < _SELDOM_S and now.since_s(latest) > _OFTEN_S:
            return None, 0.0
        try:
            after = self._traffic()
        except SocketsUnreadable:
            self._before = self._asked_at = None
            return None, 0.0
        before, self._before, self._asked_at = self._before, after, now
        if before is None or since_s is None:
            return None, 0.0
        return sent_between(before, after), since_s
