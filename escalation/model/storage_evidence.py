"""Evidence of filesystems and the disks below them."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class MountRole(enum.StrEnum):
    """What a filesystem is for on such a host."""

    UNKNOWN = "unknown"
    ROOT = "root"
    CONTAINERS = "containers"
    MODELS = "models"
    DATABASE = "database"
    METRICS = "metrics"
    LOGS = "logs"
    EXTERNAL = "external"
    SHARED_MEMORY = "shared_memory"
    DECLARED = "declared"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageEvidence:
    """How one filesystem stands. What is free is what an ordinary user may have; None is unknown.

    `full_in_s` is when it is full at the pace of now, None while it does not fill.
    """

    mount: str
    role: MountRole
    filesystem: str
    mounted: bool
    read_only: bool
    total_bytes: int | None
    free_bytes: int | None
    total_inodes: int | None
    free_inodes: int | None
    full_in_s: float | None
    refused_writes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockEvidence:
    """What a disk did in `window_s` seconds; the 99th percentile is an upper bound of its class."""

    device: str
    window_s: float
    reads: int
    writes: int
    errors: int
    filesystem_errors: int
    read_p99_s: float | None
    write_p99_s: float | None
    baseline_s: float | None
