"""Builders of what the sensors of storage say."""

from __future__ import annotations

from typing import Any

from agent.testing import at, origin
from escalation.model import Subject, SubjectKind
from probes.observation import (
    BlockActivity,
    Filesystem,
    Filesystems,
    Origin,
    SensorName,
    ServerReadiness,
    Sight,
    StorageErrors,
    StorageFailure,
    StorageRole,
)

LOOKS, ERRORS, BLOCK = "host.storage", "kernel.storage_error", "kernel.block"
READINESS = "host.readiness"
GIB = 1 << 30
POINT = "/var/lib/docker"
THIS = Subject(SubjectKind.MOUNT, POINT)


def filesystem(**facts: Any) -> Filesystem:
    """Return a healthy half-full XFS of 1000 GiB for containers, with other facts where they are given."""
    usual: dict[str, Any] = {
        "mount": POINT,
        "role": StorageRole.CONTAINERS,
        "filesystem": "xfs",
        "device": "8:1",
        "disk": "sda",
        "mounted": True,
        "read_only": False,
        "forced": False,
        "device_gone": False,
        "error_count": None,
        "sight": Sight.SEEN,
        "total_bytes": 1000 * GIB,
        "free_bytes": 500 * GIB,
        "total_inodes": 1_000_000,
        "free_inodes": 900_000,
    }
    return Filesystem(**(usual | facts))


def look(
    seconds: float, *filesystems: Filesystem, io: float | None = 0.0, left_out: int = 0, **facts: Any
) -> Filesystems:
    """Return a look at these filesystems, or at the one that `facts` tell of."""
    return Filesystems(
        sensor=SensorName(LOOKS),
        at=at(seconds),
        filesystems=filesystems or (filesystem(**facts),),
        io_full_avg60=io,
        left_out=left_out,
    )


def errors(
    seconds: float,
    failure: StorageFailure,
    *,
    device: str = "",
    errno: int = 28,
    count: int = 1,
    where: Origin | None = None,
) -> StorageErrors:
    """Return failures of one sort."""
    return StorageErrors(
        sensor=SensorName(ERRORS),
        at=at(seconds),
        failure=failure,
        device=device,
        origin=where or origin(container=None, unit="postgresql.service"),
        errno=errno,
        count=count,
    )


def activity(
    seconds: float,
    *,
    device: str = "sda",
    reads: int = 1000,
    read_mean_s: float | None = 0.001,
    window_s: float = 15.0,
) -> BlockActivity:
    """Return what a disk did in the last window: a thousand reads of a millisecond each."""
    return BlockActivity(
        sensor=SensorName(BLOCK),
        at=at(seconds),
        device=device,
        window_s=window_s,
        reads=reads,
        writes=0,
        read_bytes=reads * 65536,
        written_bytes=0,
        read_mean_s=read_mean_s if reads else None,
        write_mean_s=None,
        read_p99_s=None if read_mean_s is None or not reads else read_mean_s * 4,
        write_p99_s=None,
    )


def readiness(
    seconds: float,
    *,
    started: float = 0.0,
    listens: bool | None = False,
    shared_memory_bytes: int | None = None,
    where: Origin | None = None,
) -> ServerReadiness:
    """Return a vLLM in a container that started at `started` and does not listen yet."""
    return ServerReadiness(
        sensor=SensorName(READINESS),
        at=at(seconds),
        origin=where or origin(),
        started=at(started),
        port=8000,
        listens=listens,
        shared_memory_bytes=shared_memory_bytes,
    )
