"""The evidence of filesystems and disks, between model and message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, assert_never

from escalation.model import (
    BlockEvidence,
    MountRole,
    StorageEvidence,
)
from escalation.wire import escalation_pb2 as pb
from escalation.wire.fields import (
    Names,
    bounded,
    finite,
    fit,
    fit_float,
    fit_measure,
    fit_optional,
    fit_u64,
    measure,
    number,
    text,
)

FilesystemEvidence = StorageEvidence | BlockEvidence

_MOUNT_ROLE: Final = Names(MountRole, pb.MountRole)


def message(evidence: FilesystemEvidence) -> pb.Evidence:
    """Return `evidence` as a message."""
    match evidence:
        case StorageEvidence():
            return pb.Evidence(
                storage=pb.StorageEvidence(
                    mount=fit("StorageEvidence.mount", evidence.mount),
                    role=_MOUNT_ROLE.number(evidence.role),
                    filesystem=fit("StorageEvidence.filesystem", evidence.filesystem),
                    mounted=evidence.mounted,
                    read_only=evidence.read_only,
                    total_bytes=fit_optional(evidence.total_bytes),
                    free_bytes=fit_optional(evidence.free_bytes),
                    total_inodes=fit_optional(evidence.total_inodes),
                    free_inodes=fit_optional(evidence.free_inodes),
                    full_in_s=fit_measure(evidence.full_in_s),
                    refused_writes=fit_u64(evidence.refused_writes),
                )
            )
        case BlockEvidence():
            return pb.Evidence(
                block=pb.BlockEvidence(
                    device=fit("BlockEvidence.device", evidence.device),
                    window_s=fit_float(evidence.window_s),
                    reads=fit_u64(evidence.reads),
                    writes=fit_u64(evidence.writes),
                    errors=fit_u64(evidence.errors),
                    filesystem_errors=fit_u64(evidence.filesystem_errors),
                    read_p99_s=fit_measure(evidence.read_p99_s),
                    write_p99_s=fit_measure(evidence.write_p99_s),
                    baseline_s=fit_measure(evidence.baseline_s),
                )
            )
        case _:
            assert_never(evidence)


def _storage(message: pb.StorageEvidence) -> StorageEvidence:
    return StorageEvidence(
        mount=text("StorageEvidence.mount", message.mount),
        role=_MOUNT_ROLE.member(message.role),
        filesystem=text("StorageEvidence.filesystem", message.filesystem),
        mounted=message.mounted,
        read_only=message.read_only,
        total_bytes=number("StorageEvidence.total_bytes", message),
        free_bytes=number("StorageEvidence.free_bytes", message),
        total_inodes=number("StorageEvidence.total_inodes", message),
        free_inodes=number("StorageEvidence.free_inodes", message),
        full_in_s=measure("StorageEvidence.full_in_s", message),
        refused_writes=bounded("StorageEvidence.refused_writes", message.refused_writes),
    )


def _block(message: pb.BlockEvidence) -> BlockEvidence:
    return BlockEvidence(
        device=text("BlockEvidence.device", message.device),
        window_s=finite("BlockEvidence.window_s", message.window_s),
        reads=bounded("BlockEvidence.reads", message.reads),
        writes=bounded("BlockEvidence.writes", message.writes),
        errors=bounded("BlockEvidence.errors", message.errors),
        filesystem_errors=bounded("BlockEvidence.filesystem_errors", message.filesystem_errors),
        read_p99_s=measure("BlockEvidence.read_p99_s", message),
        write_p99_s=measure("BlockEvidence.write_p99_s", message),
        baseline_s=measure("BlockEvidence.baseline_s", message),
    )


READERS: Final[Mapping[str, Callable[[pb.Evidence], FilesystemEvidence]]] = MappingProxyType(
    {
        "storage": lambda message: _storage(message.storage),
        "block": lambda message: _block(message.block),
    }
)
"""Which of the evidence a message holds -> how it is read; raises WireError."""
