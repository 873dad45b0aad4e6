"""Names of disks: partitions, mapped devices, and systems that do not tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from probes.host.storage_disks import Disks


class Sys:
    """A made-up /sys with an NVMe disk of two partitions and a crypt device on one of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.block, self.names = folder / "dev/block", folder / "class/block"
        for each in (self.block, self.names):
            each.mkdir(parents=True)
        disk = self.device("259:0", folder / "devices/nvme0n1")
        for number in (1, 2):
            part = self.device(f"259:{number}", disk / f"nvme0n1p{number}")
            (part / "partition").write_text(str(number))
        self.crypt = self.device("253:0", folder / "devices/virtual/dm-0")
        self.below(disk / "nvme0n1p2")

    def device(self, number: str, folder: Path) -> Path:
        folder.mkdir(parents=True)
        (self.block / number).symlink_to(folder)
        (self.names / folder.name).symlink_to(folder)
        return folder

    def below(self, *folders: Path) -> None:
        (self.crypt / "slaves").mkdir(exist_ok=True)
        for each in folders:
            (self.crypt / "slaves" / each.name).symlink_to(each)


@pytest.fixture
def made(tmp_path: Path) -> Sys:
    """A host's devices."""
    return Sys(tmp_path)


def test_a_partition_lies_on_its_disk(made: Sys) -> None:
    """The block layer counts by the whole disk."""
    disks = Disks(sys=made.folder)
    assert [disks.name(f"259:{number}") for number in range(3)] == ["nvme0n1"] * 3


def test_a_mapped_device_lies_on_the_one_below_it(made: Sys) -> None:
    """Through the partition to the disk."""
    assert Disks(sys=made.folder).name("253:0") == "nvme0n1"


def test_a_device_over_several_disks_is_named_itself(made: Sys) -> None:
    """Which of them was meant is not known."""
    made.below(made.device("8:0", made.folder / "devices/sda"))
    assert Disks(sys=made.folder).name("253:0") == "dm-0"


def test_a_filesystem_of_its_own_number_is_found_by_its_source(made: Sys) -> None:
    """btrfs has no device of its own."""
    disks = Disks(sys=made.folder)
    assert disks.of_source("0:41", "/dev/nvme0n1p1") == "nvme0n1"
    sources = ("tank/data", "host:/models", "/dev/", "/dev/../..", "/dev/mapper/vg-models")
    assert {disks.of_source("0:41", source) for source in sources} == {""}


def test_a_device_that_went_is_gone(made: Sys) -> None:
    """Its number leads nowhere any more; what never was a disk, and a system without /sys, are not known."""
    disks = Disks(sys=made.folder)
    assert (disks.is_gone("259:0"), disks.is_gone("0:41")) == (False, None)
    (made.block / "259:0").unlink()
    assert disks.is_gone("259:0") is True
    assert Disks(sys=made.folder / "nowhere").is_gone("259:0") is None


def test_reads_the_count_of_errors_that_ext4_keeps(made: Sys) -> None:
    """By the partition's own name; anything else keeps none."""
    folder = made.folder / "fs/ext4/nvme0n1p1"
    folder.mkdir(parents=True)
    (folder / "errors_count").write_text("3\n")
    disks = Disks(sys=made.folder)
    assert (disks.error_count("259:1"), disks.error_count("259:2")) == (3, None)
    (folder / "errors_count").write_text("what\n")
    assert disks.error_count("259:1") is None


def test_remembers_a_bounded_number_of_names(made: Sys) -> None:
    """However many devices come and go."""
    disks = Disks(sys=made.folder)
    for number in range(1000):
        assert disks.name(f"7:{number}") == ""
    assert repr(disks) == "Disks(known=128)"
