"""Where the limit of a drill's memory is read back: in the process's own group, and in a drill's alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.drills import limits

_V1 = (
    "40 30 0:32 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n"
    "41 40 0:33 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu\n"
    "42 40 0:34 {root} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    "43 40 0:35 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
)
_V2 = "31 25 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
_UNIT = "/system.slice/nanobot-drill-0123abcd.service"


@pytest.mark.parametrize(
    ("groups", "mounts", "file"),
    [
        (f"0::{_UNIT}\n", _V2, f"/sys/fs/cgroup{_UNIT}/memory.max"),
        (
            f"4:memory:{_UNIT}\n1:name=systemd:{_UNIT}\n0::{_UNIT}\n",
            _V1.format(root="/"),
            f"/sys/fs/cgroup/memory{_UNIT}/memory.limit_in_bytes",
        ),
        (
            "4:memory:/docker/1f/nanobot-drill-0123abcd\n0::/\n",
            _V1.format(root="/docker/1f"),
            "/sys/fs/cgroup/memory/nanobot-drill-0123abcd/memory.limit_in_bytes",
        ),
    ],
    ids=["version 2", "version 1", "a container that sees outer paths"],
)
def test_the_limit_is_read_in_the_groups_of_the_process(groups: str, mounts: str, file: str) -> None:
    """Of the hierarchy that has the memory controller, below where it is mounted."""
    assert limits.limit_file(groups, mounts) == Path(file)


@pytest.mark.parametrize(
    ("groups", "mounts"),
    [
        (f"4:memory:/\n1:name=systemd:{_UNIT}\n0::{_UNIT}\n", _V1.format(root="/")),
        (f"4:memory:{_UNIT}\n0::{_UNIT}\n", _V2),
        ("0::/user.slice/session-1.scope\n", _V2),
        ("", ""),
    ],
    ids=["a booted container", "not mounted", "a group of somebody else", "nothing"],
)
def test_a_limit_that_is_not_the_drills_own_is_none(groups: str, mounts: str) -> None:
    """Its service is in the service manager's hierarchy alone, and the memory of all is one group."""
    assert limits.limit_file(groups, mounts) is None


def test_a_process_outside_of_a_drill_is_not_limited() -> None:
    """Whatever its memory is limited to."""
    assert not limits.holds(64 << 20)
