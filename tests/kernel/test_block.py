"""Histograms of disks, on real eBPF and a real loop device."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from probes.host.clock import now
from probes.observation import BlockActivity
from tests.kernel.conftest import Watch
from tests.kernel.disks import Disk, disk, read_directly

pytestmark = [pytest.mark.root, pytest.mark.ebpf]

_PAGE = mmap.PAGESIZE


def _activity(watching: Watch, made: Disk) -> list[BlockActivity]:
    return [o for o in watching.sensor.read(now()) if isinstance(o, BlockActivity) and o.device == made.name]


def test_counts_a_prime_number_of_reads(watch: Callable[[str], Watch], tmp_path: Path) -> None:
    """Forty-one reads past the cache are forty-one reads of that disk, with their bytes and a time."""
    watching = watch("kernel.block")
    with disk(tmp_path, mounted=False) as made:
        watching.drop()
        read_directly(made, 41)
        (told,) = _activity(watching, made)
    assert (told.reads, told.read_bytes, told.writes) == (41, 41 * _PAGE, 0)
    assert told.read_mean_s is not None
    assert told.read_p99_s is not None
    assert 0 < told.read_mean_s < 2
    assert told.read_p99_s * 41 >= told.read_mean_s
    assert told.write_p99_s is None
    assert told.window_s > 0


def test_tells_writes_apart(watch: Callable[[str], Watch], tmp_path: Path) -> None:
    """A synchronous write counts as a write, also when a flush goes before it."""
    watching = watch("kernel.block")
    with disk(tmp_path) as made:
        watching.drop()
        with (made.point / "file").open("wb") as file:
            file.write(bytes(64 * 1024))
            file.flush()
            os.fsync(file.fileno())
        (told,) = _activity(watching, made)
    assert told.writes > 0
    assert told.written_bytes >= 64 * 1024
    assert told.write_p99_s is not None


def test_a_disk_of_which_nothing_is_asked_is_not_told(watch: Callable[[str], Watch], tmp_path: Path) -> None:
    """Reads out of the cache never reach a disk."""
    watching = watch("kernel.block")
    with disk(tmp_path) as made:
        (made.point / "file").write_bytes(bytes(8192))
        os.sync()
        watching.drop()
        for _ in range(100):
            assert len((made.point / "file").read_bytes()) == 8192
        assert [told.reads for told in _activity(watching, made)] in ([], [0])
