"""The witness: what stands, what is gone, and what cannot be told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.detector import CgroupLook, ProcessKey
from agent.finding import Place
from agent.host.witness import Witness
from probes.observation import CgroupId


def stat_line(pid: int, state: str = "S", start: int = 77) -> bytes:
    fields = ["0"] * 30
    fields[0], fields[19] = state, str(start)
    return f"{pid} (a ) b) ".encode() + " ".join(fields).encode()


def test_cgroup_that_stands_is_told_from_its_successor(tmp_path: Path) -> None:
    """The inode is the identity; a new folder under the old path is another cgroup."""
    folder = tmp_path / "x.service"
    folder.mkdir()
    (folder / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    inode = CgroupId(folder.stat().st_ino)
    witness = Witness(cgroups=tmp_path)
    same, other = Place(inode, "/x.service"), Place(CgroupId(1), "/x.service")
    world = witness.look([same, other], [])
    assert world.cgroups[same] == CgroupLook(exists=True, populated=True, same=True, cgroup_id=inode)
    assert world.cgroups[other].same is False
    (folder / "cgroup.events").write_text("populated 0\nfrozen 0\n")
    assert witness.look([same], []).cgroups[same].populated is False


def test_missing_folder_is_gone_only_where_the_hierarchy_is_there(tmp_path: Path) -> None:
    """Without a mounted hierarchy nothing is known, so nothing is gone."""
    place = Place(CgroupId(5), "/gone")
    assert Witness(cgroups=tmp_path).look([place], []).cgroups[place] == CgroupLook(exists=False)
    assert Witness(cgroups=tmp_path / "none").look([place], []).cgroups == {}
    assert Witness(cgroups=None).look([place], []).cgroups == {}


def test_hostile_paths_are_not_followed(tmp_path: Path) -> None:
    """Another namespace's view, a NUL or a relative path answers nothing."""
    places = [Place(None, path) for path in ("/../etc", "x", "/a\0b", None)]
    assert Witness(cgroups=tmp_path).look(places, []).cgroups == {}


def test_process_is_known_by_its_start(tmp_path: Path) -> None:
    """A pid that somebody else has now, a zombie and an absent one do not live; a name may hold brackets."""
    (tmp_path / "self").mkdir()
    for pid, state in ((10, "S"), (11, "Z")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_bytes(stat_line(pid, state))
    keys = [
        ProcessKey(10, 77),
        ProcessKey(10, 78),
        ProcessKey(10, None),
        ProcessKey(11, 77),
        ProcessKey(12, 77),
    ]
    lives = Witness(cgroups=None, proc=tmp_path).look([], keys).processes
    assert [lives[key] for key in keys] == [True, False, True, False, False]


def test_unreadable_proc_tells_nothing(tmp_path: Path) -> None:
    """Where /proc is not mounted, a missing process is unknown."""
    assert Witness(cgroups=None, proc=tmp_path).look([], [ProcessKey(1, 1)]).processes == {}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")
def test_this_very_process_lives() -> None:
    """On the real host, with the real fields."""
    key = ProcessKey(os.getpid(), None)
    assert Witness(cgroups=None).look([], [key]).processes == {key: True}
