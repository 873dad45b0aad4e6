"""agent.toml: what a host's agent is told, read once, strict, with defaults that are good for production.

Each detector's settings sit in its own file; the `[detectors]` table is made from the registry, so a new
detector changes nothing here.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from agent.detector import DetectorConfig
from agent.detectors.registry import DETECTORS
from agent.gpus.placement import RULES_MAX, PlacementRule, check
from agent.host.exposure import AllowedListener, Mesh
from escalation.model import AGENT_ID
from escalation.settings import SettingsError, load
from probes.observation import ServerKind
from probes.scopes import ScopeMode, ScopeRule, check as check_scopes
from probes.settings import (
    CommandLineSettings,
    LogSettings,
    MetricsEndpoint,
    SensorSettings,
    StorageSettings,
    TailscaleSettings,
)

Port = Annotated[int, Meta(ge=1, le=65535)]
UnitName = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9:_.\\@-]{1,245}\.(service|scope|slice|socket|mount|swap)$")
]
AbsolutePath = Annotated[str, Meta(pattern="^/[^\0]*$", max_length=1024)]


def _check_port(key: str, port: str) -> None:
    if not 1 <= int(port) <= 65535:
        raise ValueError(f"{key}: {port} is no port (1 to 65535)")


class Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[agent]`: who this is and where it keeps its state. Without `id` the host's name is taken."""

    id: Annotated[str, Meta(pattern=f"^({AGENT_ID.pattern})?$")] = ""
    state_dir: AbsolutePath = "/var/lib/nanobot/agent"
    log_level: Annotated[str, Meta(pattern="^(debug|info|warning|error)$")] = "info"


class Sensors(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[sensors]`: which are switched off, and where the loader hands over. The loader reads this too."""

    disabled: tuple[str, ...] = ()
    socket: AbsolutePath = "/run/nanobot/handover.sock"


class Http(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[http]`: on which ports model servers answer, and how their traffic is captured.

    A server in a container is known by the port inside it. The loader reads this too, and has to run again
    after a change. `capture` is `cgroup` (programs on the cgroup v2 root) or `packet` (a packet socket, for
    hosts without cgroup v2). `tls_libraries` are paths of OpenSSL's libssl to watch; empty is off, because
    each call of a watched process then costs it some 20 microseconds, and the loader needs CAP_SYS_ADMIN.
    """

    ports: Annotated[tuple[Port, ...], Meta(max_length=64)] = (8000, 4000, 11434, 8080)
    capture: Annotated[str, Meta(pattern="^(cgroup|packet)$")] = "cgroup"
    tls_libraries: Annotated[tuple[AbsolutePath, ...], Meta(max_length=16)] = ()

    def __post_init__(self) -> None:
        """Refuse what the loader would refuse."""
        for name, listed in (("ports", self.ports), ("tls_libraries", self.tls_libraries)):
            if twice := [each for each in listed if listed.count(each) > 1]:
                raise ValueError(f"{name}: {twice[0]!r} stands there twice")


class Orchestrator(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[orchestrator]`: where reports go, and the certificates for both ends."""

    address: Annotated[str, Meta(pattern=r"^(\[[0-9a-fA-F:.]+\]|[^:\s]+):[0-9]{1,5}$")] = "127.0.0.1:9736"
    ca: AbsolutePath = "/etc/nanobot/pki/agent/ca.crt"
    cert: AbsolutePath = "/etc/nanobot/pki/agent/agent.crt"
    key: AbsolutePath = "/etc/nanobot/pki/agent/agent.key"
    server_name: str | None = None

    def __post_init__(self) -> None:
        """Refuse a port that is none."""
        _check_port("address", self.address.rpartition(":")[2])


class Metrics(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[metrics]`: where Prometheus scrapes."""

    enabled: bool = True
    address: str = "127.0.0.1"
    port: Port = 9735


class Spool(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[spool]`: how much waits on disk while the orchestrator is away (64 MiB are about 200 000 reports)."""

    max_bytes: Annotated[int, Meta(ge=64 * 1024)] = 64 * 1024 * 1024


class HeartbeatSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[heartbeat]`: how often the coverage map is told."""

    interval_s: Annotated[float, Meta(ge=1, le=3600)] = 30.0


class Pipeline(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[pipeline]`: how many observations may wait to be judged."""

    capacity: Annotated[int, Meta(ge=100, le=1_000_000)] = 8192


class Storage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[storage]`: folders whose filesystems matter beside the known ones, and disks that must be mounted."""

    paths: Annotated[tuple[AbsolutePath, ...], Meta(max_length=32)] = ()
    external: Annotated[tuple[AbsolutePath, ...], Meta(max_length=16)] = ()


class Logs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[logs]`: whether the journal is read, and which files are followed beside it.

    What container engines and model servers (by their usual names) log is read anyway; `units` are others.
    """

    journal: bool = True
    units: Annotated[tuple[UnitName, ...], Meta(max_length=32)] = ()
    files: Annotated[tuple[AbsolutePath, ...], Meta(max_length=32)] = ()


class Tailscale(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[tailscale]`: where the daemon of the mesh answers."""

    socket: AbsolutePath = TailscaleSettings().socket


class Endpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[metrics_endpoint]]`: numbers that a server of this host serves about itself, on loopback."""

    server: Annotated[str, Meta(pattern="^(vllm|litellm|ray|ollama|llama_cpp)$")]
    url: Annotated[str, Meta(pattern=r"^http://(127\.0\.0\.1|localhost|\[::1\]):[0-9]{1,5}(/[!-~]*)?$")]

    def __post_init__(self) -> None:
        """Refuse a port that is none."""
        _check_port("url", self.url.split("/")[2].rpartition(":")[2])


class Scope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[scope]]`: what a unit, or a cgroup by its path, may execute, connect to and listen on.

    A sort that is left out is not limited; an empty list allows nothing of it. `mode = "deny"` has what is
    not allowed refused; it counts only in a file that belongs to root. The loader reads this too, and has to
    run again after a change.
    """

    name: str
    unit: str = ""
    cgroup: str = ""
    mode: Annotated[str, Meta(pattern="^(audit|deny)$")] = "audit"
    executables: tuple[AbsolutePath, ...] | None = None
    destinations: tuple[str, ...] | None = None
    listeners: tuple[Port, ...] | None = None

    @property
    def rule(self) -> ScopeRule:
        """Return it as sensors and loader know it."""
        return ScopeRule(
            name=self.name,
            unit=self.unit,
            cgroup=self.cgroup,
            mode=ScopeMode(self.mode),
            executables=self.executables,
            destinations=self.destinations,
            listeners=self.listeners,
        )


if TYPE_CHECKING:

    class Detectors(msgspec.Struct):
        """`[detectors.<name>]`: each detector's own settings."""
else:
    Detectors = msgspec.defstruct(
        "Detectors",
        [(kind.NAME, kind.SETTINGS, msgspec.field(default_factory=kind.SETTINGS)) for kind in DETECTORS],
        frozen=True,
        forbid_unknown_fields=True,
        kw_only=True,
    )


class AgentSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file."""

    agent: Identity = Identity()
    sensors: Sensors = Sensors()
    http: Http = Http()
    orchestrator: Orchestrator = Orchestrator()
    metrics: Metrics = Metrics()
    spool: Spool = Spool()
    heartbeat: HeartbeatSettings = HeartbeatSettings()
    pipeline: Pipeline = Pipeline()
    mesh: Mesh = Mesh()
    allowed_listener: tuple[AllowedListener, ...] = ()
    placement: Annotated[tuple[PlacementRule, ...], Meta(max_length=RULES_MAX)] = ()
    storage: Storage = Storage()
    logs: Logs = Logs()
    tailscale: Tailscale = Tailscale()
    metrics_endpoint: Annotated[tuple[Endpoint, ...], Meta(max_length=16)] = ()
    scope: tuple[Scope, ...] = ()
    detectors: Detectors = msgspec.field(default_factory=Detectors)

    def __post_init__(self) -> None:
        """Refuse two declarations of one placement, and scopes that cannot be kept."""
        check(self.placement)
        check_scopes(each.rule for each in self.scope)


def read(path: Path, *, sensors: Iterable[str]) -> AgentSettings:
    """Read agent.toml; raise SettingsError naming file, line and key.

    `sensors` are the names that exist: switching off one that does not is an error, because a typing mistake
    there would leave a sensor on that somebody wanted off.
    """
    settings = load(path, AgentSettings)
    if unknown := sorted(set(settings.sensors.disabled) - set(sensors)):
        known = ", ".join(sorted(sensors))
        raise SettingsError(f"{path}: sensors.disabled: unknown sensor {unknown[0]!r}; there are: {known}")
    return settings


def detector_settings(settings: AgentSettings, name: str) -> DetectorConfig:
    """Return the settings of the detector `name`."""
    found: Any = getattr(settings.detectors, name)
    assert isinstance(found, DetectorConfig)
    return found


def sensor_settings(settings: AgentSettings) -> SensorSettings:
    """Return what the file tells the sensors."""
    return SensorSettings(
        storage=StorageSettings(paths=settings.storage.paths, external=settings.storage.external),
        logs=LogSettings(journal=settings.logs.journal, units=settings.logs.units, files=settings.logs.files),
        tailscale=TailscaleSettings(socket=settings.tailscale.socket),
        metrics_endpoints=tuple(
            MetricsEndpoint(server=ServerKind(each.server), url=each.url)
            for each in settings.metrics_endpoint
        ),
        scopes=tuple(each.rule for each in settings.scope),
        command_lines=CommandLineSettings(state_dir=settings.agent.state_dir),
    )
