"""Privileges: root is given up whole, or the agent does not go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.process.privileges import PrivilegeError, Standing, settle, standing

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that every account can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path


def in_child(code: str) -> str:
    """Run `code` in a process of its own, which may drop what it likes, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return done.stdout


@pytest.mark.root
@needs_root
def test_drop_leaves_nothing(reachable: Path) -> None:
    """User, groups and all five capability sets are gone for good, and the folders are the user's."""
    out = in_child(
        f"""
        import dataclasses, json, os
        from pathlib import Path
        from agent.process.privileges import settle, standing
        folder = Path({str(reachable)!r}) / "state"
        settle("nobody", folders={{folder: 0o700}})
        (folder / "mine").write_text("x")
        print(json.dumps([dataclasses.asdict(standing()), os.getgroups(), oct(folder.stat().st_mode)]))
        """
    )
    left, groups, mode = json.loads(out)
    assert left["uid"] not in {0, os.geteuid()}
    assert not any(left[name] for name in ("effective", "permitted", "inheritable", "bounding", "ambient"))
    assert left["no_new_privileges"]
    assert 0 not in groups
    assert mode.endswith("700")


@pytest.mark.root
@needs_root
@pytest.mark.parametrize(
    ("user", "says"),
    [
        (None, "started as root: the agent judges without privilege"),
        ("root", "this account is root"),
        ("no-such-account", "there is no such account"),
    ],
)
def test_root_without_an_account_is_refused(user: str | None, says: str) -> None:
    """Least privilege is the product: there is no way to judge as root."""
    with pytest.raises(PrivilegeError, match=says):
        settle(user, folders={})


@pytest.mark.root
@needs_root
def test_folder_in_use_by_somebody_else_is_left_alone(tmp_path: Path) -> None:
    """A folder with contents is not given away: whose it is, is somebody's decision."""
    tmp_path.chmod(0o755)
    (tmp_path / "precious").write_text("x")
    in_child(
        f"""
        from pathlib import Path
        from agent.process.privileges import settle
        settle("nobody", folders={{Path({str(tmp_path)!r}): 0o700}})
        """
    )
    assert tmp_path.stat().st_uid == 0


def test_standing_reads_what_the_kernel_says() -> None:
    """The five sets, the effective uid and the no-new-privileges bit come from one file."""
    status = (
        "Name:\tx\nUid:\t0\t1000\t0\t0\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000001\n"
        "CapEff:\t0000000000000001\nCapBnd:\t00000000000000ff\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n"
    )
    assert standing(status) == Standing(1000, 1, 1, 0, 0xFF, 0, no_new_privileges=True)
    assert not Standing(1000, 1, 1, 0, 0xFF, 0, no_new_privileges=True).powerless
    assert Standing(1000, 0, 0, 0, 0xFF, 0, no_new_privileges=True).powerless
