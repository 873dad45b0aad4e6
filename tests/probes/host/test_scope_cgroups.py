"""Which cgroup a declared scope is, on folders that stand for a hierarchy."""

from __future__ import annotations

from pathlib import Path

import pytest

from probes.host.scope_cgroups import ScopeCgroups
from probes.scopes import ScopeRule

_UNIT = "ray.service"


class Clock:
    """A clock that moves only when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        """Return the present moment."""
        return self.now


def _followed(root: Path, clock: Clock, *, cgroup: str = "") -> ScopeCgroups:
    rule = ScopeRule(name="ray", unit="" if cgroup else _UNIT, cgroup=cgroup, listeners=())
    return ScopeCgroups(rules=(rule,), root=root, monotonic=clock)


def _made(root: Path, path: str) -> int:
    (root / path).mkdir(parents=True)
    return (root / path).stat().st_ino


def test_a_unit_is_found_where_services_are(tmp_path: Path) -> None:
    """At once, and again after each restart, which is another folder."""
    followed = _followed(tmp_path, Clock())
    assert followed.now() == {}
    first = _made(tmp_path, f"system.slice/{_UNIT}")
    assert followed.now() == {"ray": first}
    assert followed.folder("ray") == f"{tmp_path}/system.slice/{_UNIT}"
    (tmp_path / f"system.slice/{_UNIT}").rename(tmp_path / "elsewhere")
    assert followed.now() == {}
    again = _made(tmp_path, f"system.slice/{_UNIT}")
    assert followed.now() == {"ray": again}


def test_a_cgroup_is_found_by_its_path(tmp_path: Path) -> None:
    """And nothing is searched for."""
    followed = _followed(tmp_path, Clock(), cgroup="/a/b")
    inode = _made(tmp_path, "a/b")
    assert followed.now() == {"ray": inode}


@pytest.mark.parametrize("others", [0, 300])
def test_a_unit_elsewhere_is_searched_for_in_steps(tmp_path: Path, others: int) -> None:
    """The whole hierarchy, a few folders at a time, and anew after a while."""
    clock = Clock()
    followed = _followed(tmp_path, clock)
    for number in range(others):
        _made(tmp_path, f"z{number}")
    assert followed.now() == {}
    inode = _made(tmp_path, f"machine.slice/deep/{_UNIT}")
    looks = 0
    while not followed.now():
        looks += 1
        clock.now += 1.0
        assert looks < 60
    assert followed.now() == {"ray": inode}


def test_without_a_hierarchy_there_is_no_scope() -> None:
    """A host without cgroup v2."""
    rule = ScopeRule(name="ray", unit=_UNIT, listeners=())
    followed = ScopeCgroups(rules=(rule,), root=None, monotonic=Clock())
    assert followed.now() == {}
    assert followed.folder("ray") is None
