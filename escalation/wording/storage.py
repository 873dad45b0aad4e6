"""Evidence of filesystems and disks as short facts. What came from a host passes `shown`."""

from __future__ import annotations

from typing import assert_never

from escalation.inert import shown
from escalation.model import BlockEvidence, MountRole, StorageEvidence
from escalation.wording.quantities import LABEL_LIMIT, counted, duration, size, times


def storage_fact(evidence: StorageEvidence) -> str:
    """Return how a filesystem stands."""
    mount = shown(evidence.mount, limit=LABEL_LIMIT) or "a filesystem without a path"
    kind = f" ({shown(evidence.filesystem, limit=LABEL_LIMIT)})" if evidence.filesystem else ""
    name = f"{mount}{kind}, {role_words(evidence.role)}"
    if not evidence.mounted:
        return f"{name}: not mounted"
    parts = ["read-only"] if evidence.read_only else []
    if evidence.free_bytes is None:
        parts.append("its free space is unknown")
    else:
        whole = "" if evidence.total_bytes is None else f" of {size(evidence.total_bytes)}"
        parts.append(f"{size(evidence.free_bytes)}{whole} free")
    if evidence.free_inodes is not None and evidence.total_inodes:
        parts.append(f"{evidence.free_inodes} of {counted(evidence.total_inodes, 'inode')} free")
    if evidence.full_in_s is not None:
        parts.append(f"full in {duration(evidence.full_in_s)} at this rate")
    if evidence.refused_writes:
        parts.append(f"writes refused {times(evidence.refused_writes)}")
    return f"{name}: {', '.join(parts)}"


def block_fact(evidence: BlockEvidence) -> str:
    """Return what a disk did."""
    device = shown(evidence.device, limit=LABEL_LIMIT) or "a disk without a name"
    parts = [f"{device}: {counted(evidence.reads, 'read')}, {counted(evidence.writes, 'write')}"]
    if evidence.errors:
        parts.append(counted(evidence.errors, "failed request"))
    if evidence.filesystem_errors:
        parts.append(f"{counted(evidence.filesystem_errors, 'error')} of the filesystem on it")
    if evidence.read_p99_s is not None:
        usual = "" if evidence.baseline_s is None else f" where {duration(evidence.baseline_s)} is usual"
        parts.append(f"99 of 100 reads took at most {duration(evidence.read_p99_s)}{usual}")
    if evidence.write_p99_s is not None:
        parts.append(f"99 of 100 writes at most {duration(evidence.write_p99_s)}")
    return f"{', '.join(parts)}, within {duration(evidence.window_s)}"


def role_words(role: MountRole) -> str:
    """Return what a filesystem is for."""
    match role:
        case MountRole.ROOT:
            return "the root of the host"
        case MountRole.CONTAINERS:
            return "for containers and images"
        case MountRole.MODELS:
            return "for models"
        case MountRole.DATABASE:
            return "for the database"
        case MountRole.METRICS:
            return "for metrics"
        case MountRole.LOGS:
            return "for logs"
        case MountRole.EXTERNAL:
            return "an external disk"
        case MountRole.SHARED_MEMORY:
            return "shared memory"
        case MountRole.DECLARED:
            return "declared by the operator"
        case MountRole.OTHER:
            return "for something else"
        case MountRole.UNKNOWN:
            return "for what this orchestrator does not know"
        case _:
            assert_never(role)
