"""The sensor of peers on counts to order: whose attempts, which errors, and when sockets are asked."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from probes.host.cgroups import CgroupPaths
from probes.host.identity import Identifier
from probes.host.peers import PeerSensor
from probes.host.sockets import SocketsUnreadable
from probes.host.traffic import Account, Connection
from probes.kernel.peer_tables import ClientRise, PeerRise
from probes.observation import (
    CgroupId,
    ConnectFailures,
    ConnectSuccesses,
    Instant,
    Observation,
    Peer,
    PeerTraffic,
)

ADDRESS = "100.64.0.7"


def _at(seconds: float) -> Instant:
    return Instant(int(seconds * 1e9), 1_790_000_000_000_000_000 + int(seconds * 1e9))


@dataclass
class Counts:
    """What the kernel counted, as a test says."""

    peers: list[PeerRise] = field(default_factory=list)
    clients: list[ClientRise] = field(default_factory=list)
    before: tuple[str, ...] = ()

    def open(self) -> None:
        """There is nothing to take hold of."""

    def moved(self) -> bool:
        """Whether a test put anything in."""
        return bool(self.peers)

    def rises(self, now_ns: int) -> tuple[tuple[PeerRise, ...], tuple[ClientRise, ...]]:
        """Return what was put in, once."""
        assert now_ns >= 0
        taken = tuple(self.peers), tuple(self.clients)
        self.peers, self.clients = [], []
        return taken

    def lossy(self, least: int) -> tuple[str, ...]:
        """Return what was counted before."""
        assert least > 0
        return self.before

    def close(self) -> None:
        """Nothing was taken."""


@dataclass
class Sockets:
    """The accounts of one connection to ADDRESS, and how often they were asked for."""

    segments: int = 0
    retransmitted: int = 0
    asked: int = 0
    readable: bool = True

    def __call__(self) -> Mapping[Connection, Account]:
        """Return them."""
        self.asked += 1
        if not self.readable:
            raise SocketsUnreadable("says the test")
        return {Connection(ADDRESS, b"1234", b"12345678"): Account(self.segments, self.retransmitted)}


def _sensor(counts: Counts, sockets: Sockets | None = None) -> PeerSensor:
    identifier = Identifier(cgroups=CgroupPaths(root=None, monotonic=lambda: 0.0), proc=Path("/nonexistent"))
    sensor = PeerSensor(tables=counts, identifier=identifier, traffic=sockets or Sockets())
    sensor.open()
    sensor.read(_at(0))
    return sensor


def _rise(*, port: int = 0, reached: bool = False, **counts: int) -> PeerRise:
    return PeerRise(address=ADDRESS, port=port, last_ns=1, reached=reached, **counts)


def _traffic(found: object) -> list[PeerTraffic]:
    assert isinstance(found, list)
    return [o for o in found if isinstance(o, PeerTraffic)]


def _summary(found: object) -> list[tuple[Peer, int, int]]:
    assert isinstance(found, list)
    return [(o.peer, o.errno, o.count) for o in found if isinstance(o, ConnectFailures)]


def test_attempts_are_told_with_who_made_them() -> None:
    """The client by its process and cgroup, the rest by nobody; what succeeded after what failed."""
    client = ClientRise(
        address=ADDRESS,
        port=8000,
        cgroup_id=CgroupId(7),
        pid=42,
        process=b"litellm\0",
        last_ns=1,
        failed=4,
        succeeded=2,
    )
    counts = Counts()
    sensor = _sensor(counts)
    counts.peers = [_rise(port=8000, reached=True, refused=5, failed=5, succeeded=2)]
    counts.clients = [client]
    found: list[Observation] = list(sensor.read(_at(10)))
    refused = errno.ECONNREFUSED
    assert _summary(found) == [(Peer(ADDRESS, 8000), refused, 4), (Peer(ADDRESS, 8000), refused, 1)]
    first, second, third = found
    assert isinstance(first, ConnectFailures)
    assert isinstance(second, ConnectFailures)
    assert isinstance(third, ConnectSuccesses)
    assert (first.origin.process_name, first.origin.cgroup_id, first.reached_before) == ("litellm", 7, True)
    assert (second.origin.pid, third.count, third.window_s) == (None, 2, 10.0)


def test_a_first_segment_without_an_answer_is_remembered_for_a_minute() -> None:
    """A program that gives up in a later window has timed out all the same; much later it has not."""
    counts = Counts()
    sensor = _sensor(counts)
    counts.peers = [_rise(port=8000, syn_retransmitted=2)]
    assert _summary(sensor.read(_at(10))) == []
    counts.peers = [_rise(port=8000, failed=1)]
    assert _summary(sensor.read(_at(60))) == [(Peer(ADDRESS, 8000), errno.ETIMEDOUT, 1)]
    counts.peers = [_rise(port=8000, failed=1)]
    assert _summary(sensor.read(_at(80))) == []


def test_sockets_are_asked_only_for_a_reason() -> None:
    """One retransmission is none; some in one window are, and the share comes with the next one."""
    counts, sockets = Counts(), Sockets()
    sensor = _sensor(counts, sockets)
    counts.peers = [_rise(retransmitted=1)]
    assert [(t.counted, t.segments) for t in _traffic(sensor.read(_at(10)))] == [(1, None)]
    assert sockets.asked == 0
    counts.peers = [_rise(retransmitted=9, resets=1)]
    assert [(t.counted, t.resets, t.segments) for t in _traffic(sensor.read(_at(20)))] == [(9, 1, None)]
    sockets.segments, sockets.retransmitted = 400, 12
    counts.peers = [_rise(retransmitted=12)]
    (told,) = _traffic(sensor.read(_at(30)))
    assert (told.counted, told.segments, told.retransmitted, told.window_s) == (12, 400, 12, 10.0)
    assert sockets.asked == 2


def test_calm_is_looked_for_often_then_seldom_then_no_more() -> None:
    """Every window for two minutes, then once a minute, until enough went without a loss."""
    counts, sockets = Counts(), Sockets()
    sensor = _sensor(counts, sockets)
    counts.peers = [_rise(retransmitted=9)]
    told = []
    for second in range(10, 600, 10):
        sockets.segments += 100
        told += _traffic(sensor.read(_at(second)))
    assert sockets.asked == 13 + 5
    assert sum(t.segments or 0 for t in told) == 4200
    assert not sensor.waiting()
    assert sensor.read(_at(1000)) == []


def test_a_loss_begins_the_wait_for_calm_anew() -> None:
    """An address that loses now and then stays of interest."""
    counts, sockets = Counts(), Sockets()
    sensor = _sensor(counts, sockets)
    for second in range(10, 1200, 10):
        sockets.segments += 1000
        if second % 100 == 10:
            counts.peers = [_rise(retransmitted=3)]
        sensor.read(_at(second))
    assert sensor.waiting()


def test_a_case_of_an_earlier_process_is_looked_after() -> None:
    """What the kernel had counted when the tables were opened is of interest from the first read on."""
    sockets = Sockets()
    sensor = _sensor(Counts(before=(ADDRESS,)), sockets)
    sockets.segments = 5000
    assert [(t.segments, t.retransmitted) for t in _traffic(sensor.read(_at(10)))] == [(5000, 0)]


def test_sockets_that_cannot_be_asked_leave_the_share_unknown() -> None:
    """The kernel's count is told without it."""
    counts, sockets = Counts(), Sockets(readable=False)
    sensor = _sensor(counts, sockets)
    for second in (10, 20):
        counts.peers = [_rise(retransmitted=9)]
        assert [(t.counted, t.segments) for t in _traffic(sensor.read(_at(second)))] == [(9, None)]


def test_what_is_kept_in_mind_is_bounded() -> None:
    """A storm of addresses leaves as many of interest as there is room for, and no more silent peers."""
    counts = Counts()
    sensor = _sensor(counts)
    for number in range(1000):
        address = f"10.0.{number // 250}.{number % 250}"
        counts.peers.append(PeerRise(address=address, port=0, last_ns=1, reached=False, retransmitted=5))
        counts.peers.append(PeerRise(address=address, port=80, last_ns=1, reached=False, syn_retransmitted=1))
    sensor.read(_at(10))
    assert "of interest=64" in repr(sensor)
    assert len(sensor._unanswered) <= 256
