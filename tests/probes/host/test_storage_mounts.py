"""The mount table: what matters, what is an image, what a sandbox hides; and a table that is no table."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, strategies as st

from probes.host.storage_mounts import Chosen, Mount, choose, parse
from probes.observation import StorageRole

ROOT = "27 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw,discard"
SNAP = "40 27 7:3 / /snap/core/1 ro,nodev - squashfs /dev/loop3 ro"
OVERLAY = "50 27 0:50 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw,lowerdir=/a"
SHM = "51 27 0:51 / /dev/shm rw - tmpfs tmpfs rw,size=65536k"
EFI = "41 27 259:1 / /boot/efi rw - vfat /dev/nvme0n1p1 rw"
DOCKER = "60 27 8:1 / /var/lib/docker rw - xfs /dev/sda1 rw"
BOUND = "61 27 8:1 /volumes /srv/volumes rw - xfs /dev/sda1 rw"
MODELS = r"62 27 8:17 / /mnt/model\040disk rw - ext4 /dev/sdb1 rw"


def _chosen(
    *lines: str,
    own: Iterable[str] | None = None,
    declared: Iterable[str] = (),
    external: Iterable[str] = (),
    most: int = 32,
) -> dict[str, Chosen]:
    host = parse("\n".join(lines))
    inside = host if own is None else parse("\n".join(own))
    found, _ = choose(host, inside, declared=declared, external=external, resolved={}, most=most)
    return {each.point: each for each in found}


def test_the_root_and_local_disks_matter() -> None:
    """Each once, with its role; images, overlays, tmpfs and boot partitions have nothing to fill."""
    found = _chosen(ROOT, SNAP, OVERLAY, SHM, EFI, DOCKER, BOUND, MODELS)
    assert {point: each.role for point, each in found.items()} == {
        "/": StorageRole.ROOT,
        "/mnt/model disk": StorageRole.OTHER,
        "/var/lib/docker": StorageRole.CONTAINERS,
    }


@pytest.mark.parametrize(
    "point", ["/runs", "/snapshots", "/devdata", "/system", "/processed", "/bootstrap", "/run/media/me/disk"]
)
def test_a_disk_matters_whatever_its_mount_point_begins_with(point: str) -> None:
    """What begins like a folder of the system is another folder; removable disks may be mounted below one."""
    disk = f"62 27 8:17 / {point} rw - ext4 /dev/sdb1 rw"
    assert set(_chosen(ROOT, disk)) == {"/", point}


@pytest.mark.parametrize("point", ["/boot", "/boot/efi", "/run/initramfs", "/snap/core"])
def test_a_disk_of_the_system_itself_does_not(point: str) -> None:
    """What the boot needs is full or small by design."""
    disk = f"62 27 8:17 / {point} rw - ext4 /dev/sdb1 rw"
    assert set(_chosen(ROOT, disk)) == {"/"}


def test_the_root_matters_whatever_it_is_made_of() -> None:
    """An overlay, as in a container or on a live system, fills like another; an image does not."""
    overlay = "27 1 0:50 / / rw - overlay overlay rw,lowerdir=/a"
    image = "27 1 7:1 / / ro - squashfs /dev/loop1 ro"
    assert [each.role for each in _chosen(overlay).values()] == [StorageRole.ROOT]
    assert _chosen(image) == {}


def test_a_declared_path_matters_wherever_it_lies() -> None:
    """Also on a tmpfs or on a network mount, at the mount point that holds it."""
    nfs = "63 27 0:60 / /models rw - nfs4 server:/models rw"
    found = _chosen(ROOT, SHM, nfs, declared=("/models/hf/cache", "/dev/shm"))
    assert {point: each.role for point, each in found.items()} == {
        "/": StorageRole.ROOT,
        "/dev/shm": StorageRole.DECLARED,
        "/models": StorageRole.DECLARED,
    }


def test_an_external_disk_is_told_whether_or_not_it_is_there() -> None:
    """Its mount point alone counts: a folder of that name on the root filesystem is not the disk."""
    there = _chosen(ROOT, MODELS, external=("/mnt/model disk",))["/mnt/model disk"]
    away = _chosen(ROOT, external=("/mnt/model disk",))["/mnt/model disk"]
    assert (there.role, there.mount is None) == (StorageRole.EXTERNAL, False)
    assert (away.role, away.mount, away.ask) == (StorageRole.EXTERNAL, None, None)


def test_what_a_sandbox_hides_is_not_asked() -> None:
    """An empty folder over /home is another filesystem: its size would be a lie."""
    home = "64 27 8:33 / /home rw - ext4 /dev/sdc1 rw"
    inside = [ROOT.replace("rw,relatime", "ro"), "90 27 0:99 / /home ro - tmpfs tmpfs ro"]
    found = _chosen(ROOT, home, own=inside)
    assert found["/home"].ask is None
    assert found["/"].ask == "/"


def test_a_hidden_filesystem_is_asked_at_another_of_its_mounts() -> None:
    """What is mounted twice can be seen at the second place."""
    home = "64 27 8:33 / /home rw - ext4 /dev/sdc1 rw"
    again = "65 27 8:33 /x /srv/x rw - ext4 /dev/sdc1 rw"
    found = _chosen(ROOT, home, again, own=[ROOT, "90 27 0:99 / /home ro - tmpfs tmpfs ro", again])
    assert found["/home"].ask == "/srv/x"


@pytest.mark.parametrize(
    ("line", "read_only", "forced"),
    [
        (ROOT, False, False),
        (ROOT.replace("rw,discard", "rw,errors=remount-ro,emergency_ro"), True, True),
        (ROOT.replace("rw,discard", "ro,errors=remount-ro"), True, True),
        (ROOT.replace("rw,discard", "rw,shutdown"), True, True),
        (ROOT.replace("rw,relatime", "ro").replace("rw,discard", "ro"), True, False),
        (ROOT.replace("rw,relatime", "ro,relatime"), True, False),
        (SNAP.replace("ro,nodev", "rw,nodev"), True, False),
    ],
)
def test_tells_what_was_forced_from_what_was_asked_for(line: str, read_only: bool, forced: bool) -> None:
    """What turned read-only under a mount for writing was not asked to; an image is so by design."""
    (mount,) = parse(line)
    assert (mount.read_only, mount.forced) == (read_only, forced)


def test_the_uppermost_mount_of_a_point_counts() -> None:
    """What lies below another mount cannot be reached."""
    over = "70 62 0:70 / /mnt/model\\040disk rw - tmpfs tmpfs rw"
    found = _chosen(ROOT, MODELS, over, external=("/mnt/model disk",))
    mount = found["/mnt/model disk"].mount
    assert mount is not None
    assert mount.filesystem == "tmpfs"


def test_their_number_is_bounded_and_the_rest_is_counted() -> None:
    """A host with hundreds of disks is looked at in part, and says so."""
    disks = [f"{100 + n} 27 8:{n} / /data/{n} rw - ext4 /dev/sd{n} rw" for n in range(50)]
    host = parse("\n".join([ROOT, *disks]))
    found, left_out = choose(host, host, declared=(), external=(), resolved={}, most=8)
    assert (len(found), left_out) == (8, 43)
    assert "/" in {each.point for each in found}


@given(st.text(max_size=400))
def test_takes_any_text_for_a_table(text: str) -> None:
    """Whatever it is, a list of mounts comes back, and choosing among them never fails."""
    mounts = parse(text)
    assert all(isinstance(mount, Mount) for mount in mounts)
    choose(mounts, mounts, declared=("/x",), external=("/y",), resolved={}, most=4)


@given(st.lists(st.text(alphabet="/ab \\01:47-,rw", max_size=12), max_size=12).map(" ".join))
def test_takes_lines_that_look_like_a_table(line: str) -> None:
    """Fields in the wrong place leave a line out."""
    for mount in parse(line):
        assert mount.device.count(":") == 1
