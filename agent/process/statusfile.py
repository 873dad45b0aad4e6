"""What the agent says about itself on its own host: one small file, replaced whole, read by `doctor`.

It lies beside the handover socket, on a file system that does not survive a boot, and holds what the metrics
page holds plus the reasons of blindness in words, which never leave the host.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

NAME: Final = "agent-status.json"
_BYTES_MAX: Final = 1 << 20


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
    spool_silent_s: float = 0.0  # since when it has not answered
    spool_error: str | None = None  # what it refused last, while it refuses
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


def opened(path: Path) -> BinaryIO:
    """Open a file in a folder of the agent's for a caller who may be root; raise OSError.

    Anything may lie there: only a plain file is opened, and by no symbolic link.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "no plain file")
    return file


def read(path: Path) -> Status | None:
    """Return what the file says, or None where there is none that can be read."""
    try:
        with opened(path) as file:
            return msgspec.json.decode(file.read(_BYTES_MAX), type=Status)
    except (OSError, msgspec.MsgspecError):
        return None
