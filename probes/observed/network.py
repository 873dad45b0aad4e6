"""What the host's own TCP connections, links and RDMA ports said: counts, no content."""

from __future__ import annotations

from dataclasses import dataclass

from probes.origin import Instant, Origin, SensorName


@dataclass(frozen=True, slots=True)
class Peer:
    """The remote end of a connection: its address in canonical text form and its port, 0 for all ports."""

    address: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectFailures:
    """`count` attempts to connect to `peer` failed with `errno` in the `window_s` seconds before.

    ETIMEDOUT also stands for attempts that their own program gave up while the peer did not answer. `origin`
    is who tried, unknown for the first failure of a peer. `reached_before` says that a connection to the peer
    had been seen; as successes are noted by sample, False only says that none was. `by_route` is True where
    the host's own routes refused before anything was sent.
    """

    sensor: SensorName
    at: Instant
    peer: Peer
    errno: int
    count: int
    origin: Origin
    reached_before: bool
    by_route: bool
    window_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectSuccesses:
    """`count` attempts to connect to `peer` succeeded; told only of a peer that had failed before."""

    sensor: SensorName
    at: Instant
    peer: Peer
    count: int
    origin: Origin
    window_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerTraffic:
    """What went to one address in the `window_s` seconds before, over established connections.

    `counted` and `resets` are the kernel's events, of every network namespace. `segments` and
    `retransmitted` are the accounts of the sockets themselves (tcp_info), of the host's own namespace; None
    where there was no earlier account to compare with.
    """

    sensor: SensorName
    at: Instant
    address: str
    counted: int
    resets: int
    segments: int | None
    retransmitted: int | None
    window_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceLink:
    """One network interface: whether it has a carrier, and how often that changed.

    `changes` is how much the kernel's count rose in the `window_s` seconds before; `up` is None where the
    interface does not say, and `enabled` False where an operator switched it off.
    """

    sensor: SensorName
    at: Instant
    interface: str
    up: bool | None
    enabled: bool
    changes: int
    window_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RdmaPort:
    """One port of an RDMA device and by how much its error counters rose in the `window_s` seconds before.

    `rises` are (counter's name in sysfs, rise), those that stood still left out; `interface` is the network
    interface that stands on the same device, None where it is not told.
    """

    sensor: SensorName
    at: Instant
    device: str
    port: int
    active: bool | None
    interface: str | None
    rises: tuple[tuple[str, int], ...]
    window_s: float
