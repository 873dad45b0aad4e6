"""Cgroup ids and paths: bounded, cached, remembered after the cgroup is gone."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, strategies as st

from probes.host.cgroups import CgroupMounts, CgroupPaths, find_mounts
from probes.observation import CgroupId


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def _id(path: Path) -> CgroupId:
    return CgroupId(path.stat().st_ino)


def test_finds_a_path_and_keeps_it_when_the_cgroup_is_gone(tmp_path: Path) -> None:
    """The dead are asked about after their cgroup was removed."""
    folder = tmp_path / "system.slice" / "a.service"
    folder.mkdir(parents=True)
    wanted, paths = _id(folder), CgroupPaths(root=tmp_path, monotonic=Clock())
    assert paths.path(wanted) == "/system.slice/a.service"
    assert paths.path(_id(tmp_path)) == "/"
    assert paths.exists(wanted)
    folder.rmdir()
    assert paths.path(wanted) == "/system.slice/a.service"
    assert not paths.exists(wanted)


def test_unknown_ids_walk_a_few_times_and_then_once_a_second(tmp_path: Path) -> None:
    """Made-up ids cost little, a new cgroup is found at once or within a second."""
    clock = Clock()
    paths = CgroupPaths(root=tmp_path, monotonic=clock, burst=3)
    assert [paths.path(CgroupId(1)) for _ in range(2)] == [None, None]
    (tmp_path / "new").mkdir()
    assert paths.path(_id(tmp_path / "new")) == "/new"
    (tmp_path / "newer").mkdir()
    wanted = _id(tmp_path / "newer")
    assert paths.path(wanted) is None
    clock.at += 1
    assert paths.path(wanted) == "/newer"


def test_kept_warm_it_knows_what_was_never_asked_about(tmp_path: Path) -> None:
    """A service's cgroup that goes with its last process is known, because it was seen in life."""
    clock = Clock()
    paths = CgroupPaths(root=tmp_path, monotonic=clock, burst=0)
    paths.keep_warm()
    folder = tmp_path / "system.slice" / "b.service"
    folder.mkdir(parents=True)
    wanted = _id(folder)
    clock.at += 59
    paths.keep_warm()
    assert paths.path(wanted) is None
    clock.at += 1
    paths.keep_warm()
    folder.rmdir()
    assert paths.path(wanted) == "/system.slice/b.service"


def test_keeps_no_more_than_its_capacity(tmp_path: Path) -> None:
    """The table is bounded; the ones asked for last stay."""
    for number in range(50):
        (tmp_path / f"c{number}").mkdir()
    paths = CgroupPaths(root=tmp_path, monotonic=Clock(), capacity=10)
    paths.walk()
    assert repr(paths).endswith("known=10)")


def test_leads_from_a_path_to_its_id(tmp_path: Path) -> None:
    """The way back, for a process whose event had no id."""
    (tmp_path / "a").mkdir()
    paths = CgroupPaths(root=tmp_path, monotonic=Clock())
    assert paths.id_of("/a") == _id(tmp_path / "a")
    assert paths.id_of("/b") is None
    assert paths.id_of("a\0") is None
    assert CgroupPaths(root=None, monotonic=Clock()).id_of("/a") is None


def test_reads_the_mounts_of_a_hybrid_host() -> None:
    """v2 beside v1 controllers, with escaped blanks."""
    text = (
        "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
        "cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n"
        "cgroup /mnt/with\\040blank cgroup rw,devices 0 0\n"
        "tmpfs /tmp tmpfs rw 0 0\n"
    )
    mounts = find_mounts(text)
    assert mounts.unified == Path("/sys/fs/cgroup/unified")
    assert mounts.controller("memory") == Path("/sys/fs/cgroup/memory")
    assert mounts.controller("devices") == Path("/mnt/with blank")
    assert mounts.controller("pids") is None


@given(st.text(max_size=300))
def test_any_mount_table_is_read(text: str) -> None:
    """No line does more than to say nothing."""
    assert isinstance(find_mounts(text), CgroupMounts)
