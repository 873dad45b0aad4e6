"""Failures of disks and filesystems and refused writes, on real eBPF and real loop devices."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from probes.observation import Observation, StorageErrors, StorageFailure
from tests.kernel.conftest import Cgroups, Watch
from tests.kernel.disks import MIB, Disk, disk, thin_disk

pytestmark = [pytest.mark.root, pytest.mark.ebpf]

SENSOR = "kernel.storage_error"


def _of(found: list[Observation], group: Cgroups) -> list[StorageErrors]:
    return [o for o in found if isinstance(o, StorageErrors) and o.origin.cgroup_id == group.id]


def _on(found: list[Observation], *devices: str) -> list[StorageErrors]:
    return [o for o in found if isinstance(o, StorageErrors) and o.device in devices]


def _total(found: list[StorageErrors], failure: StorageFailure) -> int:
    return sum(o.count for o in found if o.failure is failure)


def test_counts_a_prime_number_of_refused_writes(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups], tmp_path: Path
) -> None:
    """Forty-three writes on a full filesystem are forty-three refusals of that cgroup, for want of space."""
    watching, group = watch(SENSOR), cgroups()
    with disk(tmp_path) as made:
        made.fill()
        code = (
            "import os\n"
            f"f = os.open({str(made.point / 'more')!r}, os.O_WRONLY | os.O_CREAT)\n"
            "n = 0\n"
            "while n < 43:\n"
            "    try: os.write(f, bytes(65536))\n"
            "    except OSError: n += 1\n"
        )
        assert group.python(code).returncode == 0
        found = watching.until(lambda seen: _total(_of(seen, group), StorageFailure.WRITE) >= 43, 3)
    mine = _of(found, group)
    assert _total(mine, StorageFailure.WRITE) == 43
    assert {(o.errno, o.device, o.origin.cgroup_path) for o in mine} == {(errno.ENOSPC, "", group.name)}


def test_tells_space_that_could_not_be_reserved(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups], tmp_path: Path
) -> None:
    """fallocate beyond what is free, as NCCL and PostgreSQL call it, is told with its errno."""
    watching, group = watch(SENSOR), cgroups()
    with disk(tmp_path) as made:
        code = (
            "import os\n"
            f"f = os.open({str(made.point / 'segment')!r}, os.O_RDWR | os.O_CREAT)\n"
            f"try: os.posix_fallocate(f, 0, {64 * MIB})\n"
            "except OSError as error: print(error.errno)\n"
        )
        assert group.python(code).stdout.split() == [str(errno.ENOSPC)]
        found = watching.until(lambda seen: bool(_of(seen, group)), 3)
    assert [(o.failure, o.errno, o.count) for o in _of(found, group)] == [
        (StorageFailure.FALLOCATE, errno.ENOSPC, 1)
    ]


def test_tells_files_that_found_no_inode(watch: Callable[[str], Watch], tmp_path: Path) -> None:
    """On a filesystem without inodes every attempt for each refused file is counted, for that filesystem."""
    watching = watch(SENSOR)
    with disk(tmp_path, inodes=16) as made:
        refused = 0
        for one in range(40):
            try:
                (made.point / f"file{one}").touch()
            except OSError:
                refused += 1
        assert refused >= 29
        number = made.number
        found = watching.until(lambda seen: bool(_on(seen, number)), 12)
    (told,) = _on(found, number)
    assert (told.failure, told.errno, told.count % refused) == (StorageFailure.INODE, errno.ENOSPC, 0)


def test_tells_errors_of_the_filesystem(watch: Callable[[str], Watch], tmp_path: Path) -> None:
    """Three errors that ext4 finds in itself are three, at its own device."""
    watching = watch(SENSOR)
    with disk(tmp_path, options="errors=continue") as made:
        for _ in range(3):
            made.fail()
        number = made.number
        found = watching.until(lambda seen: _total(_on(seen, number), StorageFailure.FILESYSTEM) >= 3, 3)
    assert _total(_on(found, number), StorageFailure.FILESYSTEM) == 3


def test_tells_a_disk_that_cannot_be_read(watch: Callable[[str], Watch], tmp_path: Path) -> None:
    """Blocks that are not there any more are read errors of the disk, by its name."""
    watching = watch(SENSOR)
    with disk(tmp_path) as made:
        _lose_blocks(made)
        with pytest.raises(OSError, match="Input/output error"):
            (made.point / "file").read_bytes()
        found = watching.until(lambda seen: bool(_on(seen, made.name)), 3)
    failures = {(o.failure, o.errno) for o in _on(found, made.name)}
    assert failures == {(StorageFailure.BLOCK_READ, errno.EIO)}


def test_tells_what_was_never_written(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups], tmp_path: Path
) -> None:
    """A write that is accepted and lost later is told by disk, filesystem and the sync that found out."""
    watching, group = watch(SENSOR), cgroups()
    with thin_disk(tmp_path) as made:
        number = made.number
        code = (
            "import os\n"
            f"f = os.open({str(made.point / 'file')!r}, os.O_WRONLY | os.O_CREAT)\n"
            "os.write(f, bytes(8 << 20))\n"
            "try: os.fsync(f)\n"
            "except OSError as error: print(error.errno)\n"
        )
        assert group.python(code).stdout.split() == [str(errno.ENOSPC)]
        found = watching.until(lambda seen: bool(_of(seen, group)), 3)
    assert _total(_of(found, group), StorageFailure.SYNC) == 1
    assert _total(_on(found, made.name), StorageFailure.BLOCK_WRITE) > 0
    assert {(o.failure, o.errno) for o in _on(found, number)} == {(StorageFailure.WRITEBACK, 0)}


def test_stays_quiet_while_all_is_well(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups], tmp_path: Path
) -> None:
    """Writes that succeed, files that are made, a pipe whose reader left: no failure of storage."""
    watching, group = watch(SENSOR), cgroups()
    with disk(tmp_path) as made:
        code = (
            "import os, signal\n"
            "signal.signal(signal.SIGPIPE, signal.SIG_IGN)\n"
            "for n in range(50):\n"
            f"    f = os.open({str(made.point)!r} + f'/{{n}}', os.O_WRONLY | os.O_CREAT)\n"
            "    os.write(f, bytes(4096)); os.close(f)\n"
            "r, w = os.pipe(); os.close(r)\n"
            "try: os.write(w, b'x')\nexcept BrokenPipeError: print('broken')\n"
        )
        assert group.python(code).stdout.split() == ["broken"]
        found = watching.during(0.4)
        assert _of(found, group) == []
        assert _on(found, made.number, made.name) == []


def _lose_blocks(made: Disk) -> None:
    (made.point / "file").write_bytes(os.urandom(4 * MIB))
    made.drop_caches()
    made.remount("ro")
    with (made.point / "file").open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    os.truncate(made.image, MIB)
