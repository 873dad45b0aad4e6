"""What the service manager, the kernel's cgroups and the socket table say of services."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from probes.origin import Instant, Origin, SensorName


class UnitResult(enum.StrEnum):
    """How a unit's last run ended: the service manager's Result property, org.freedesktop.systemd1(5)."""

    SUCCESS = "success"
    EXIT_CODE = "exit-code"
    SIGNAL = "signal"
    CORE_DUMP = "core-dump"
    TIMEOUT = "timeout"
    WATCHDOG = "watchdog"
    START_LIMIT_HIT = "start-limit-hit"
    OOM_KILL = "oom-kill"
    RESOURCES = "resources"
    PROTOCOL = "protocol"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitEnded:
    """A service's main process has ended, or the manager gave the service up (START_LIMIT_HIT).

    `exit_status` is the exit status, or the number of the signal that ended it. `restarts` is how often the
    manager has restarted the service by itself since somebody last started it. `lived_s` is None where no
    process was started.
    """

    sensor: SensorName
    at: Instant
    origin: Origin
    result: UnitResult
    exit_status: int | None
    restarts: int
    lived_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitUp:
    """A service's main process has run for `up_s` seconds; told once a life, when that is long."""

    sensor: SensorName
    at: Instant
    origin: Origin
    up_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitStopped:
    """A service that its manager had restarted has been inactive for `stopped_s`: stopped, reset or removed.

    Between two lives a service is activating, and one that was given up is failed: neither is told as this.
    """

    sensor: SensorName
    at: Instant
    origin: Origin
    stopped_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitsStanding:
    """Every service that was not inactive all through the last `looked_s` seconds, sorted.

    What is not among them was stopped, reset or removed, whoever was there to see it.
    """

    sensor: SensorName
    at: Instant
    units: tuple[str, ...]
    looked_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupChanged:
    """The cgroup of a service or container was made, or removed with its last process."""

    sensor: SensorName
    at: Instant
    origin: Origin
    made: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPort:
    """A port of the host that an engine's proxy hands on to a port of a container."""

    address: str
    port: int
    container_address: str
    container_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPorts:
    """Every port that a proxy hands on; told while an engine runs, and once when it is gone.

    `known` is False where the engine hands ports on without proxies: then no socket shows what it publishes;
    and where there are more proxies than are looked at.
    """

    sensor: SensorName
    at: Instant
    known: bool
    ports: tuple[PublishedPort, ...]


class ControlService(enum.StrEnum):
    """A service that lets whoever reaches it command the host, or read all it holds."""

    RAY_DASHBOARD = "ray_dashboard"
    RAY_GCS = "ray_gcs"
    RAY_CLIENT = "ray_client"
    DOCKER_API = "docker_api"
    KUBELET = "kubelet"
    ETCD = "etcd"
    OPENCLAW = "openclaw"
    POSTGRESQL = "postgresql"
    REDIS = "redis"
    OLLAMA = "ollama"
    JUPYTER = "jupyter"


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlListener:
    """A socket that listens on a port of a control service, beyond loopback.

    `recognised` is whether a process of its cgroup was recognised as that service; None where no process can
    be looked at. `published` is whether an engine's proxy hands the port on to a container, whose own port it
    then is that counts. `peers` are its established connections, each as (own address, peer's address),
    sorted, at most 256.
    """

    service: ControlService
    address: str
    port: int
    origin: Origin
    recognised: bool | None
    published: bool
    peers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlListeners:
    """Every such socket of the host's own network namespace; told while there are any."""

    sensor: SensorName
    at: Instant
    listeners: tuple[ControlListener, ...]
