"""What an operator may tell the sensors about the host; every default is a host that nobody described.

The agent reads and checks the file (the tables of the same names in agent.toml); these are its results. The
privileged loader reads its own part of that file by itself (`probes/kernel/config.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from probes.origin import ServerKind
from probes.scopes import ScopeRule


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings:
    """`[storage]`: folders whose filesystems matter beside the known ones, and disks that must be mounted."""

    paths: tuple[str, ...] = ()
    external: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """`[logs]`: whether the journal is read, for which units too, and which files are followed."""

    journal: bool = True
    units: tuple[str, ...] = ()
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
class CommandLineSettings:
    """Where the agent keeps the key of its prints, and where a person's acceptances of changes lie."""

    state_dir: str = "/var/lib/nanobot/agent"


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorSettings:
    """Every table."""

    storage: StorageSettings = field(default_factory=StorageSettings)
    logs: LogSettings = field(default_factory=LogSettings)
    tailscale: TailscaleSettings = field(default_factory=TailscaleSettings)
    metrics_endpoints: tuple[MetricsEndpoint, ...] = ()
    scopes: tuple[ScopeRule, ...] = ()
    command_lines: CommandLineSettings = field(default_factory=CommandLineSettings)
