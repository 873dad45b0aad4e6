"""host.storage: what is worth telling of filesystems, and a made-up host that is missing parts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from probes.host.storage import SAMPLE_S, TELL_S, StorageSensor
from probes.host.storage_calls import Space
from probes.host.storage_disks import Disks
from probes.observation import BlindReason, Filesystem, Filesystems, Sight, StorageRole
from probes.sensor import SensorBlind
from probes.settings import StorageSettings
from probes.testing import instant

GIB = 1 << 30
ROOT = "27 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw\n"
MODELS = "62 27 8:17 / /mnt/models rw - ext4 /dev/sdb1 rw\n"


class Host:
    """A made-up /proc and /sys, sizes that a test sets, and a clock that it moves."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.sys = folder / "proc", folder / "sys"
        for whose in ("1", "self"):
            (self.proc / whose).mkdir(parents=True)
        (self.proc / "pressure").mkdir()
        for number, disk, part in (("259:2", "nvme0n1", "nvme0n1p2"), ("8:17", "sdb", "sdb1")):
            device = self.sys / "devices" / disk / part
            device.mkdir(parents=True)
            (device / "partition").touch()
            (self.sys / "dev/block").mkdir(parents=True, exist_ok=True)
            (self.sys / "dev/block" / number).symlink_to(device)
        self.at_s = 100.0
        self.free = {"/": 500 * GIB, "/mnt/models": 500 * GIB}
        self.mounts(ROOT + MODELS)
        self.stalled(0.0)
        self.sensor = StorageSensor(
            settings=StorageSettings(external=("/mnt/models",)),
            proc=self.proc,
            disks=Disks(sys=self.sys),
            ask=self.ask,
            monotonic=lambda: self.at_s,
        )

    def mounts(self, text: str) -> None:
        for whose in ("1", "self"):
            (self.proc / whose / "mountinfo").write_text(text)

    def stalled(self, full: float) -> None:
        (self.proc / "pressure/io").write_text(
            "some avg10=0.00 avg60=1.00 avg300=0.00 total=1\n"
            f"full avg10=0.00 avg60={full:.2f} avg300=0.00 total=1\n"
        )

    def ask(self, path: str) -> Space:
        return Space(1000 * GIB, self.free[path], 1 << 20, 1 << 19)

    def looks(self, after_s: float = SAMPLE_S) -> list[Filesystems]:
        """Let time pass and read once."""
        self.at_s += after_s
        return [seen for seen in self.sensor.read(instant(self.at_s)) if isinstance(seen, Filesystems)]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host at rest with two disks, the first look not yet taken."""
    made = Host(tmp_path)
    made.sensor.open()
    yield made
    made.sensor.close()


def _at(seen: Filesystems, mount: str) -> Filesystem:
    (found,) = [each for each in seen.filesystems if each.mount == mount]
    return found


def test_tells_each_filesystem_with_its_disk(host: Host) -> None:
    """Sizes, role, and the whole disk below a partition."""
    (seen,) = host.looks()
    models = _at(seen, "/mnt/models")
    assert (models.role, models.disk, models.mounted, models.sight) == (
        StorageRole.EXTERNAL,
        "sdb",
        True,
        Sight.SEEN,
    )
    assert (models.total_bytes, models.free_bytes, models.device_gone) == (1000 * GIB, 500 * GIB, False)
    assert _at(seen, "/").disk == "nvme0n1"


def test_a_host_at_rest_is_told_of_seldom(host: Host) -> None:
    """One look in `TELL_S` is told while nothing moves."""
    told = [len(host.looks()) for _ in range(9)]
    assert sum(told) == 1 + 8 * SAMPLE_S // TELL_S


@pytest.mark.parametrize("change", ["space", "mount", "option", "pressure", "device"])
def test_what_moves_is_told_at_the_next_look(host: Host, change: str) -> None:
    """Free space, a mount that went, one that turned read-only, a wait for disks, a disk that was pulled."""
    host.looks()
    match change:
        case "space":
            host.free["/"] -= 5 * GIB
        case "mount":
            host.mounts(ROOT)
        case "option":
            host.mounts(ROOT.replace("/dev/nvme0n1p2 rw", "/dev/nvme0n1p2 rw,emergency_ro") + MODELS)
        case "pressure":
            host.stalled(30.0)
        case "device":
            (host.sys / "dev/block/8:17").unlink()
    assert len(host.looks()) == 1


def test_little_moves_are_told_where_little_is_left(host: Host) -> None:
    """With an eighth free, how fast it goes has to be known; with half, it has not."""
    host.free["/"] = 100 * GIB
    host.looks()
    host.free["/"] -= 1 << 20
    assert len(host.looks()) == 1
    host.free["/"] = 500 * GIB
    host.looks()
    host.free["/"] -= 1 << 20
    assert host.looks() == []


def test_an_external_disk_that_went_is_told_as_not_mounted(host: Host) -> None:
    """The folder that is left is no disk."""
    host.looks()
    host.mounts(ROOT)
    (seen,) = host.looks()
    gone = _at(seen, "/mnt/models")
    assert (gone.mounted, gone.sight, gone.total_bytes) == (False, Sight.HIDDEN, None)


def test_a_host_without_a_mount_table_cannot_be_seen(tmp_path: Path) -> None:
    """macOS has none."""
    with pytest.raises(SensorBlind) as caught:
        StorageSensor(settings=StorageSettings(), proc=tmp_path).open()
    assert caught.value.blind.reason is BlindReason.UNSUPPORTED_PLATFORM


def test_a_kernel_without_pressure_accounting_says_so(host: Host) -> None:
    """No share of time is None, not zero."""
    (host.proc / "pressure/io").unlink()
    (seen,) = host.looks()
    assert seen.io_full_avg60 is None


def test_a_name_that_is_no_text_is_kept(host: Host) -> None:
    """Bytes that are no UTF-8 in a mount point come back as they were, so that the right path is asked."""
    raw = b"66 27 8:17 / /mnt/\xff\xfe rw - ext4 /dev/sdb1 rw\n"
    for whose in ("1", "self"):
        (host.proc / whose / "mountinfo").write_bytes(ROOT.encode() + raw)
    host.free["/mnt/\udcff\udcfe"] = GIB
    (seen,) = host.looks()
    assert _at(seen, "/mnt/\udcff\udcfe").free_bytes == GIB


def test_an_ext4_that_stops_at_an_error_is_read_only_whatever_the_table_says(host: Host) -> None:
    """Some kernels leave the mount table as it was: the count of errors tells, once it rises."""
    counts = host.sys / "fs/ext4/sdb1"
    counts.mkdir(parents=True)
    (counts / "errors_count").write_text("2\n")
    stopping = MODELS.replace("/dev/sdb1 rw", "/dev/sdb1 rw,errors=remount-ro")
    host.mounts(ROOT + stopping)
    (seen,) = host.looks()
    assert (_at(seen, "/mnt/models").read_only, _at(seen, "/mnt/models").error_count) == (False, 2)
    (counts / "errors_count").write_text("3\n")
    (seen,) = host.looks()
    assert (_at(seen, "/mnt/models").read_only, _at(seen, "/mnt/models").forced) == (True, True)
    host.mounts(ROOT + stopping.replace("62 27", "99 27"))
    (seen,) = host.looks()
    assert not _at(seen, "/mnt/models").read_only


def test_an_ext4_that_goes_on_after_an_error_stays_writable(host: Host) -> None:
    """By its default it does."""
    counts = host.sys / "fs/ext4/sdb1"
    counts.mkdir(parents=True)
    (counts / "errors_count").write_text("0\n")
    host.looks()
    (counts / "errors_count").write_text("3\n")
    (seen,) = host.looks()
    assert (_at(seen, "/mnt/models").read_only, _at(seen, "/mnt/models").error_count) == (False, 3)
