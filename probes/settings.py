"""What an operator may tell the sensors about the host; every default is a host that nobody described.

The agent reads and checks the file (the tables of the same names in agent.toml); these are its results. The
privileged loader reads its own part of that file by itself (`probes/kernel/config.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from probes.origin import ServerKind


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings:
    """`[storage]`: folders whose filesystems matter beside the known ones, and disks that must be mounted."""

    paths: tuple[str, ...] = ()
    external: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """`[logs]`: whether the journal is read, and which files are followed beside it."""

    journal: bool = True
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TailscaleSettings:
    """`[tailscale]`: where the daemon of the mesh answers."""

    socket: str = "/run/tailscale/tailscaled.sock"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsEndpoint:
    """`[[metrics_endpoint]]`: a page of numbers that a server of this host serves about itself."""

    server: ServerKind
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeRule:
    """`[[scope]]`: what a unit (or a cgroup, by its path) may execute, connect to and listen on.

    None allows everything of that sort, an empty tuple nothing. Destinations are ``address/prefix`` with an
    optional ``:port``, listeners are ports.
    """

    name: str
    unit: str = ""
    cgroup: str = ""
    executables: tuple[str, ...] | None = None
    destinations: tuple[str, ...] | None = None
    listeners: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorSettings:
    """Every table."""

    storage: StorageSettings = field(default_factory=StorageSettings)
    logs: LogSettings = field(default_factory=LogSettings)
    tailscale: TailscaleSettings = field(default_factory=TailscaleSettings)
    metrics_endpoints: tuple[MetricsEndpoint, ...] = ()
    scopes: tuple[ScopeRule, ...] = ()
