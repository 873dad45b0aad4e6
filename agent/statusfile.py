"""What the agent says about itself on its own host: one small file, replaced whole, read by `doctor`.

It lies beside the handover socket, on a file system that does not survive a boot, and holds what the metrics
page holds plus the reasons of blindness in words, which never leave the host.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

NAME: Final = "agent-status.json"


class SensorStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One sensor; `reason` is None while it sees."""

    name: str
    reason: str | None = None
    detail: str = ""


class RaisedStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A case that a drill raised; `by_itself` is whether its own detector saw it clear."""

    case_id: str
    fault_class: str
    subject: str
    opened_boot_ns: int
    cleared_boot_ns: int | None = None
    by_itself: bool = False


class DrillStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The drill that is on, or the last one: how its command learns what the agent saw of it."""

    id: str
    ended: bool
    raised: tuple[RaisedStatus, ...] = ()


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The agent at one moment."""

    pid: int
    version: str
    agent_id: str
    written_unix_s: float
    next_write_s: float
    kernel_boot_id: str
    sensors: tuple[SensorStatus, ...]
    http_ports: tuple[int, ...] = ()  # what the loaded programs watch
    open_cases: int
    spool_open: bool
    spool_reports: int
    spool_bytes: int
    uncommitted: int
    connected: bool
    last_ack_unix_s: float | None
    uplink_error: str | None
    supervised: bool
    watchdog_s: float | None
    capabilities: int | None
    drill: DrillStatus | None = None


def write(path: Path, status: Status) -> None:
    """Replace the file; raises OSError."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.json.format(msgspec.json.encode(status), indent=1))
    fresh.chmod(0o644)
    os.replace(fresh, path)  # noqa: PTH105  # atomic on one file system


def read(path: Path) -> Status | None:
    """Return what the file says, or None where there is none that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Status)
    except (OSError, msgspec.MsgspecError):
        return None
