"""What detectors of storage share: subjects and evidence of a filesystem, and a count of recent failures."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Final

from agent.bounded import entry
from agent.subjects import cut
from escalation.model import BlockEvidence, MountRole, StorageEvidence, Subject, SubjectKind
from escalation.wire.limits import TEXT_BYTES
from probes.observation import BlockActivity, Filesystem, Instant, StorageErrors, StorageFailure

DEVICES_MAX: Final = 64
_EVENTS_MAX: Final = 64

OF_DISK: Final = frozenset({StorageFailure.BLOCK_READ, StorageFailure.BLOCK_WRITE})
"""What the block layer says of a whole disk."""

OF_FILESYSTEM: Final = frozenset({StorageFailure.FILESYSTEM, StorageFailure.SHUTDOWN})
"""What a filesystem says of its own structure."""

OF_CALLS: Final = frozenset({StorageFailure.WRITE, StorageFailure.FALLOCATE, StorageFailure.SYNC})
"""What a program was told; none of them names a filesystem."""


def mount_subject(filesystem: Filesystem) -> Subject:
    """Return the mount point as a subject."""
    return Subject(SubjectKind.MOUNT, cut(filesystem.mount))


def storage_evidence(
    filesystem: Filesystem, *, full_in_s: float | None = None, refused: int = 0
) -> StorageEvidence:
    """Return how a filesystem stands."""
    return StorageEvidence(
        mount=cut(filesystem.mount, TEXT_BYTES["StorageEvidence.mount"]),
        role=MountRole(filesystem.role.value),
        filesystem=cut(filesystem.filesystem, TEXT_BYTES["StorageEvidence.filesystem"]),
        mounted=filesystem.mounted,
        read_only=filesystem.read_only,
        total_bytes=filesystem.total_bytes,
        free_bytes=filesystem.free_bytes,
        total_inodes=filesystem.total_inodes,
        free_inodes=filesystem.free_inodes,
        full_in_s=None if full_in_s is None else round(full_in_s, 1),
        refused_writes=refused,
    )


def block_evidence(
    device: str,
    activity: BlockActivity | None,
    *,
    window_s: float,
    errors: int = 0,
    filesystem_errors: int = 0,
    baseline_s: float | None = None,
) -> BlockEvidence:
    """Return what a disk did; without an activity only its failures are known."""
    return BlockEvidence(
        device=cut(device, TEXT_BYTES["BlockEvidence.device"]),
        window_s=round(window_s, 3),
        reads=activity.reads if activity else 0,
        writes=activity.writes if activity else 0,
        errors=errors,
        filesystem_errors=filesystem_errors,
        read_p99_s=activity.read_p99_s if activity else None,
        write_p99_s=activity.write_p99_s if activity else None,
        baseline_s=baseline_s,
    )


class RecentFailures:
    """How often each sort of failure was told of each device, over `window_s`; bounded in both."""

    def __init__(self, *, window_s: float) -> None:
        self._window_s = window_s
        self._told: OrderedDict[tuple[StorageFailure, str], deque[tuple[Instant, int]]] = OrderedDict()

    def __repr__(self) -> str:
        return f"RecentFailures({len(self._told)})"

    def add(self, errors: StorageErrors) -> None:
        """Count one observation."""
        key = (errors.failure, errors.device)
        told = entry(self._told, key, lambda: deque(maxlen=_EVENTS_MAX), limit=DEVICES_MAX)
        told.append((errors.at, errors.count))

    def count(self, failures: Iterable[StorageFailure], device: str, now: Instant) -> int:
        """Return how often any of `failures` was told of `device` lately."""
        return sum(
            count
            for failure in failures
            for moment, count in self._told.get((failure, device), ())
            if now.since_s(moment) <= self._window_s
        )

    def last(self, failures: Iterable[StorageFailure], device: str) -> Instant | None:
        """Return when any of `failures` was last told of `device`, whenever that was."""
        moments = [told[-1][0] for failure in failures if (told := self._told.get((failure, device)))]
        return max(moments, key=lambda moment: moment.boot_ns, default=None)

    def clear(self) -> None:
        """Forget everything."""
        self._told.clear()
