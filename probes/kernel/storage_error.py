"""Failures of disks and filesystems, and writes that were refused (`storage_error.bpf.c`).

A filesystem's own device is told as ``major:minor``, as the mount table has it; a disk by its name. Attempts
to find an inode that failed are told when they were counted twice, a second apart: a creation that is under
way has asked and has not been given either. ext4 tries four times before it refuses a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from probes.host.cgroups import CgroupPaths
from probes.host.clock import at_boot_ns
from probes.host.identity import Identifier
from probes.host.storage_disks import Disks
from probes.kernel.counted import CountedTable, Rise
from probes.kernel.handed import HandedProgram
from probes.kernel.handover import Handover
from probes.kernel.programs import Attachment, KernelProgram
from probes.observation import (
    BlindReason,
    CgroupId,
    Instant,
    Observation,
    Origin,
    SensorName,
    StorageErrors,
    StorageFailure,
)
from probes.sensor import SensorBlind

NAME: Final = SensorName("kernel.storage_error")
PROGRAM: Final = KernelProgram(
    sensor=NAME,
    stem="storage_error",
    attachments=(
        Attachment("storage_error_block", "block:block_rq_error", required=False),
        Attachment("storage_error_ext4", "ext4:ext4_error", required=False),
        Attachment("storage_error_ext4_shutdown", "ext4:ext4_shutdown", required=False),
        Attachment("storage_error_xfs_shutdown", "xfs:xfs_force_shutdown", required=False),
        Attachment("storage_error_xfs_space", "xfs:xfs_delalloc_enospc", required=False),
        Attachment("storage_error_writeback", "filemap:filemap_set_wb_err", required=False),
        Attachment("storage_error_write", "syscalls:sys_exit_write"),
        Attachment("storage_error_pwrite64", "syscalls:sys_exit_pwrite64"),
        Attachment("storage_error_fallocate", "syscalls:sys_exit_fallocate"),
        Attachment("storage_error_fsync", "syscalls:sys_exit_fsync"),
        Attachment("storage_error_fdatasync", "syscalls:sys_exit_fdatasync"),
        Attachment("storage_error_inode_asked", "ext4:ext4_request_inode", required=False),
        Attachment("storage_error_inode_given", "ext4:ext4_allocate_inode", required=False),
    ),
    maps=(
        "storage_error_counts",
        "storage_error_reported",
        "storage_error_inodes",
        "storage_error_events",
        "storage_error_ledger",
    ),
)
_FAILURES: Final = (  # enum storage_error_kind
    StorageFailure.BLOCK_READ,
    StorageFailure.BLOCK_WRITE,
    StorageFailure.FILESYSTEM,
    StorageFailure.SHUTDOWN,
    StorageFailure.WRITEBACK,
    StorageFailure.ALLOCATION,
    StorageFailure.WRITE,
    StorageFailure.FALLOCATE,
    StorageFailure.SYNC,
)
_DISK: Final = frozenset({StorageFailure.BLOCK_READ, StorageFailure.BLOCK_WRITE})
_CALLS: Final = frozenset({StorageFailure.WRITE, StorageFailure.FALLOCATE, StorageFailure.SYNC})
_SWEEP_NS: Final = 60_000_000_000
_INODES_NS: Final = 1_000_000_000
_ENOSPC: Final = 28


class StorageErrorSensor:
    """Says where storage failed, how often, and who was refused."""

    name = NAME
    period_s = 0.25

    def __init__(
        self,
        *,
        handover: Handover | None,
        identifier: Identifier,
        cgroups: CgroupPaths,
        disks: Disks | None = None,
    ) -> None:
        self._program = HandedProgram(sensor=NAME, stem=PROGRAM.stem, handover=handover, settles=False)
        self._table = CountedTable(self._program)
        self._identifier = identifier
        self._cgroups = cgroups
        self._disks = disks or Disks()
        self._swept_ns = 0
        self._missing: dict[int, int] = {}
        self._missed: dict[int, int] = {}
        self._counted_ns: int | None = None

    def __repr__(self) -> str:
        return f"StorageErrorSensor({self._program})"

    def open(self) -> None:
        """Take hold of the ring and the tables; files that were refused before this are not told again."""
        self._table.open()
        self._missed = self._inodes()
        self._missing = dict(self._missed)
        self._counted_ns = None

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return one observation for every counter that rose since the last read."""
        found: list[Observation] = []
        try:
            found.extend(self._observation(rise, now) for rise in self._table.rises(now))
            found.extend(self._refused_files(now))
            self._sweep(now)
        except OSError as error:
            raise SensorBlind(BlindReason.READ_FAILED, str(error.strerror)) from error
        return [*found, *self._program.losses(now)]

    def waiting(self) -> bool:
        """Whether there are events."""
        return self._table.waiting()

    def settle(self) -> None:
        """Note what was told."""
        self._table.settle()

    def wakeup_fd(self) -> int | None:
        """Failures wait for the timer: a disk that fails does so by the thousand."""
        return None

    def close(self) -> None:
        """Let go of the ring."""
        self._program.close()

    def _observation(self, rise: Rise, now: Instant) -> StorageErrors:
        kind = rise.key["kind"]
        failure = _FAILURES[kind] if kind < len(_FAILURES) else StorageFailure.FILESYSTEM
        device = _device(rise.key["device"])
        return StorageErrors(
            sensor=NAME,
            at=at_boot_ns(rise.value["last_ns"], now),
            failure=failure,
            device="" if failure in _CALLS else self._disk(device) if failure in _DISK else device,
            origin=self._origin(rise) if failure in _CALLS else Origin(),
            errno=rise.key["error"],
            count=rise.count,
        )

    def _origin(self, rise: Rise) -> Origin:
        return self._identifier.origin(
            pid=rise.value["pid"],
            cgroup_id=CgroupId(rise.key["cgroup_id"]),
            process_name=rise.value["process"],
            at_boot_ns=rise.value["last_ns"],
        )

    def _disk(self, device: str) -> str:
        return self._disks.name(device) or device

    def _refused_files(self, now: Instant) -> list[Observation]:
        """Tell failed attempts that were counted at two looks."""
        if self._counted_ns is not None and now.boot_ns - self._counted_ns < _INODES_NS:
            return []
        self._counted_ns = now.boot_ns
        before, self._missing = self._missing, self._inodes()
        found: list[Observation] = []
        for device, missing in self._missing.items():
            sure = min(missing, before.get(device, 0))
            rise = sure - self._missed.get(device, 0)
            self._missed[device] = sure
            if rise > 0:
                found.append(
                    StorageErrors(
                        sensor=NAME,
                        at=now,
                        failure=StorageFailure.INODE,
                        device=_device(device),
                        origin=Origin(),
                        errno=_ENOSPC,
                        count=rise,
                    )
                )
        return found

    def _inodes(self) -> dict[int, int]:
        table = self._program.map("inodes")
        read_key, read_value = self._program.layout_of("inodes")
        found: dict[int, int] = {}
        for key in list(table.keys()):
            raw = table.lookup(key)
            if raw is not None:
                value = read_value(raw)
                found[read_key(key)["value"]] = max(0, value["asked"] - value["given"])
        return found

    def _sweep(self, now: Instant) -> None:
        """Once a minute, forget the cgroups that are gone, so that the table stays small."""
        if now.boot_ns - self._swept_ns < _SWEEP_NS:
            return
        self._swept_ns = now.boot_ns
        for key in self._table.told():
            if key["cgroup_id"] and not self._cgroups.exists(CgroupId(key["cgroup_id"])):
                self._table.forget(key)


def _device(number: int) -> str:
    """Return the kernel's own device number as the mount table writes it (linux/kdev_t.h)."""
    return f"{number >> 20}:{number & 0xFFFFF}"
