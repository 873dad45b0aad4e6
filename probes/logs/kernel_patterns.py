"""Lines of the kernel. The NVIDIA driver's are read by `probes.gpu.kernel_log`; their ids are here too."""

from __future__ import annotations

from typing import Final

from probes.logs.pattern import LineSource, Pattern

_KERNEL: Final = LineSource.KERNEL
_NVIDIA: Final = "NVIDIA, open-gpu-kernel-modules"
_LIBRARIES: Final = (
    "libcuda",
    "libcudart",
    "libcublas",
    "libnccl",
    "libtorch",
    "libggml",
    "libc",
    "libstdc++",
)

NVIDIA_API_MISMATCH: Final = Pattern(
    "kernel.nvidia_api_mismatch",
    "a program brought a library of another version than the driver's module; the first number of each",
    f"{_NVIDIA}, osapi.c",
    "API mismatch",
    r"NVRM: API mismatch",
    source=_KERNEL,
)
NVIDIA_FELL_OFF: Final = Pattern(
    "kernel.nvidia_fell_off_bus",
    "a GPU does not answer on its bus",
    f"{_NVIDIA}, osinit.c",
    "fallen off the bus",
    r"NVRM: .{0,200}?fallen off the bus",
    source=_KERNEL,
)
NVIDIA_INIT_FAILED: Final = Pattern(
    "kernel.nvidia_init_failed",
    "the driver could not start a GPU",
    f"{_NVIDIA}, osinit.c",
    "RmInitAdapter failed",
    r"NVRM: .{0,200}?RmInitAdapter failed",
    source=_KERNEL,
)

KERNEL_PATTERNS: Final = (
    Pattern(
        "kernel.buffer_io_error",
        "a block of a disk could not be read or written",
        "Linux, fs/buffer.c",
        "Buffer I/O error on dev",
        r"Buffer I/O error on dev",
        source=_KERNEL,
    ),
    Pattern(
        "kernel.ext4_error",
        "ext4 found its structures damaged",
        "Linux, fs/ext4/super.c",
        "EXT4-fs error",
        r"EXT4-fs error \(device",
        source=_KERNEL,
    ),
    Pattern(
        "kernel.file_max",
        "the host has as many open files as it may",
        "Linux, fs/file_table.c",
        "file-max limit",
        r"VFS: file-max limit (?P<limit>[0-9]{1,15}) reached",
        source=_KERNEL,
    ),
    Pattern(
        "kernel.hung_task",
        "a task has been stuck in the kernel for so many seconds",
        "Linux, kernel/hung_task.c",
        " for more than ",
        r":(?P<pid>[0-9]{1,10}) blocked (?:in I/O wait )?for more than (?P<seconds>[0-9]{1,8}) seconds",
        source=_KERNEL,
    ),
    Pattern(
        "kernel.io_error",
        "a disk failed a request",
        "Linux, block/blk-mq.c (blk_print_req_error)",
        "error, dev ",
        r"(?P<what>I/O|critical medium|critical target|critical space allocation|timeout|protection|"
        r"recoverable transport|device offline) error, dev ",
        words=(
            (
                "what",
                (
                    "I/O",
                    "critical medium",
                    "critical target",
                    "critical space allocation",
                    "timeout",
                    "protection",
                    "recoverable transport",
                    "device offline",
                ),
            ),
        ),
        source=_KERNEL,
    ),
    Pattern(
        "kernel.link_down",
        "a network link lost its carrier",
        "Linux, drivers/net/ethernet (for example mlx5/core/en_main.c: Link down)",
        "ink ",
        r"(?:NIC Link is Down|Link is Down|: Link down)",
        source=_KERNEL,
    ),
    NVIDIA_API_MISMATCH,
    NVIDIA_FELL_OFF,
    NVIDIA_INIT_FAILED,
    Pattern(
        "kernel.nvme_timeout",
        "an NVMe disk did not answer; the controller is reset",
        "Linux, drivers/nvme/host/pci.c",
        "timeout",
        r"nvme nvme[0-9]{1,4}: I/O .{0,80}?timeout, (?:reset controller|aborting|completion polled)",
        source=_KERNEL,
    ),
    Pattern(
        "kernel.oom_cgroup",
        "a process was killed because its cgroup ran out of memory",
        "Linux, mm/oom_kill.c",
        "Memory cgroup out of memory",
        r"Memory cgroup out of memory: Kill(?:ed)? process (?P<pid>[0-9]{1,10}) ",
        source=_KERNEL,
    ),
    Pattern(
        "kernel.oom_host",
        "a process was killed because the host ran out of memory",
        "Linux, mm/oom_kill.c",
        "Out of memory: Kill",
        r"Out of memory: Kill(?:ed)? process (?P<pid>[0-9]{1,10}) ",
        source=_KERNEL,
    ),
    Pattern(
        "kernel.remounted_read_only",
        "a filesystem protects itself and takes no more writes",
        "Linux, fs/ext4/super.c; fs/btrfs/messages.c",
        "read-only",
        r"(?:Remounting filesystem read-only|forced readonly|remounted read-only)",
        source=_KERNEL,
    ),
    Pattern(
        "kernel.segfault",
        "a process touched memory that it has not; in which library, where it is one of those that matter",
        "Linux, arch/x86/mm/fault.c",
        "segfault at",
        r"\[(?P<pid>[0-9]{1,10})\]: segfault at .{0,120}? error (?P<error>[0-9a-f]{1,8})"
        r"(?: in (?P<library>lib[a-z+]{1,20})[^ ]{0,60}\[)?",
        words=(("library", _LIBRARIES),),
        source=_KERNEL,
    ),
    Pattern(
        "kernel.soft_lockup",
        "a processor has not scheduled for so many seconds",
        "Linux, kernel/watchdog.c",
        "soft lockup - CPU#",
        r"soft lockup - CPU#(?P<cpu>[0-9]{1,5}) stuck for (?P<seconds>[0-9]{1,8})s",
        source=_KERNEL,
    ),
    Pattern(
        "kernel.xfs_shutdown",
        "XFS has shut a filesystem down",
        "Linux, fs/xfs/xfs_fsops.c",
        "XFS (",
        r"XFS \([^)]{1,40}\): .{0,160}?[Ss]hutting down filesystem",
        source=_KERNEL,
    ),
)
"""Sorted by id."""
