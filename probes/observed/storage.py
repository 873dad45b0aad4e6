"""What is said about filesystems, the disks below them, and writes that were refused."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from probes.origin import Instant, Origin, SensorName


class StorageRole(enum.StrEnum):
    """What a filesystem is for on such a host."""

    ROOT = "root"
    CONTAINERS = "containers"
    MODELS = "models"
    DATABASE = "database"
    METRICS = "metrics"
    LOGS = "logs"
    EXTERNAL = "external"
    DECLARED = "declared"
    OTHER = "other"


class Sight(enum.StrEnum):
    """Whether the sizes of a filesystem could be asked for."""

    SEEN = "seen"
    HIDDEN = "hidden"  # our own sandbox, or a folder on the way, hides its mount point
    NOT_ANSWERING = "not_answering"  # the call did not come back in its time
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filesystem:
    """One filesystem that matters, at the mount point that it is known by.

    `device` is ``major:minor`` as the mount table has it, `disk` the name of the whole disk below it, empty
    where there is none. `read_only` is what every program finds; `forced` says that the filesystem itself
    refuses writes although it was mounted for them. `device_gone` is None where it could not be told, and so
    is `error_count`, the errors since the last check, where the filesystem keeps no count. Sizes are what an
    ordinary user may have, None where they are unknown or, for inodes, not limited.
    """

    mount: str
    role: StorageRole
    filesystem: str
    device: str
    disk: str
    mounted: bool
    read_only: bool
    forced: bool
    device_gone: bool | None
    error_count: int | None
    sight: Sight
    total_bytes: int | None
    free_bytes: int | None
    total_inodes: int | None
    free_inodes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filesystems:
    """Every filesystem that matters, sorted by mount point; one that is missing is not mounted any more.

    `io_full_avg60` is the share of time (0..100) in which all tasks waited for a disk, over a minute; None
    where the kernel does not tell. `left_out` counts filesystems beyond the number that is looked at.
    """

    sensor: SensorName
    at: Instant
    filesystems: tuple[Filesystem, ...]
    io_full_avg60: float | None
    left_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockActivity:
    """What a whole disk did in `window_s` seconds, from handing a request to it to its completion.

    A 99th percentile is the upper bound of its class (powers of two of a microsecond); None without requests.
    """

    sensor: SensorName
    at: Instant
    device: str
    window_s: float
    reads: int
    writes: int
    read_bytes: int
    written_bytes: int
    read_mean_s: float | None
    write_mean_s: float | None
    read_p99_s: float | None
    write_p99_s: float | None


class StorageFailure(enum.StrEnum):
    """Who said that storage failed: the block layer, a filesystem, or the system call of a program."""

    BLOCK_READ = "block_read"
    BLOCK_WRITE = "block_write"
    FILESYSTEM = "filesystem"
    SHUTDOWN = "shutdown"
    WRITEBACK = "writeback"
    ALLOCATION = "allocation"
    INODE = "inode"
    WRITE = "write"
    FALLOCATE = "fallocate"
    SYNC = "sync"


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageErrors:
    """`count` failures of one sort with one `errno` (positive; 0 where the kernel gives none).

    The block layer names the whole disk in `device`; a filesystem its own device as ``major:minor``; a system
    call names neither, and its caller in `origin`.
    """

    sensor: SensorName
    at: Instant
    failure: StorageFailure
    device: str
    origin: Origin
    errno: int
    count: int
