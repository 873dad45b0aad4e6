"""Cgroups of services and containers that come and go, on real eBPF and a real cgroup hierarchy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.detectors.restart_loop import Config, RestartLoop
from agent.testing import SURROUNDINGS, present, seeing
from escalation.model import Severity, Subject, SubjectKind
from probes.observation import CgroupChanged, Observation
from tests.kernel.conftest import Cgroups, Watch

pytestmark = [pytest.mark.root, pytest.mark.ebpf]

CONTAINER = "5eaf00d1" * 8


def come_and_go(folder: Path) -> int:
    """Make a cgroup and remove it; return its id."""
    folder.mkdir()
    number = folder.stat().st_ino
    folder.rmdir()
    return number


def of(group: Cgroups, told: list[Observation]) -> list[CgroupChanged]:
    """Return what was told of cgroups inside `group`."""
    inside = [one for one in told if isinstance(one, CgroupChanged)]
    return [one for one in inside if (one.origin.cgroup_path or "").startswith(f"{group.name}/")]


def test_counts_a_prime_number_of_lives(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups]
) -> None:
    """Seven lives of a container's cgroup are fourteen observations, each life with its own id."""
    watching, group = watch("kernel.cgroups"), cgroups()
    folder = group.folders[""] / f"docker-{CONTAINER}.scope"
    ids = [come_and_go(folder) for _ in range(7)]
    told = of(group, watching.during(0.3))
    assert [one.made for one in told] == [True, False] * 7
    assert [one.origin.cgroup_id for one in told] == [number for number in ids for _ in range(2)]
    assert {one.origin.container_id for one in told} == {CONTAINER}
    assert {one.origin.cgroup_path for one in told} == {f"{group.name}/docker-{CONTAINER}.scope"}
    times = [one.at.boot_ns for one in told]
    assert times == sorted(times)


def test_a_container_that_comes_and_goes_is_a_case_and_a_new_one_each_time_is_none(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups]
) -> None:
    """An engine that restarts a container makes its cgroup again; one that is made anew has a new id."""
    watching, group = watch("kernel.cgroups"), cgroups()
    for life in range(4):
        come_and_go(group.folders[""] / f"docker-{CONTAINER}.scope")
        come_and_go(group.folders[""] / f"docker-{life:064x}.scope")
    detector = RestartLoop.build(Config(), SURROUNDINGS)
    found = present(detector, seeing(0, "kernel.cgroups"), *of(group, watching.during(0.3)))
    assert {one.subject for one in found} == {Subject(SubjectKind.CONTAINER, CONTAINER)}
    assert {one.severity for one in found} == {Severity.NOTE}


@pytest.mark.parametrize(
    ("name", "unit", "container"),
    [
        ("vllm.service", "vllm.service", None),
        (f"libpod-{CONTAINER}.scope", None, CONTAINER),
        (f"cri-containerd-{CONTAINER}.scope", None, CONTAINER),
        (CONTAINER, None, CONTAINER),
    ],
)
def test_services_and_containers_are_told(
    watch: Callable[[str], Watch],
    cgroups: Callable[..., Cgroups],
    name: str,
    unit: str | None,
    container: str | None,
) -> None:
    """By the end of their path, as each engine writes it."""
    watching, group = watch("kernel.cgroups"), cgroups()
    come_and_go(group.folders[""] / name)
    told = of(group, watching.during(0.3))
    assert [(one.made, one.origin.unit, one.origin.container_id) for one in told] == [
        (True, unit, container),
        (False, unit, container),
    ]


@pytest.mark.parametrize(
    "name", ["session-3.scope", "app.slice", "init.scope", "service", "x" * 63, "x" * 65, "run-r1.mount"]
)
def test_everything_else_leaves_in_the_kernel(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups], name: str
) -> None:
    """Logins, slices and mounts are nobody's restart."""
    watching, group = watch("kernel.cgroups"), cgroups()
    come_and_go(group.folders[""] / name)
    assert of(group, watching.during(0.3)) == []


def test_cgroups_of_the_old_hierarchies_are_not_told_twice(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups]
) -> None:
    """Only the v2 hierarchy counts, wherever else a container has folders."""
    watching, group = watch("kernel.cgroups"), cgroups("cpu")
    come_and_go(group.folders["cpu"] / f"docker-{CONTAINER}.scope")
    assert of(group, watching.during(0.3)) == []


def test_a_path_without_end_is_not_told(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups]
) -> None:
    """What does not fit into a record leaves no half a name."""
    watching, group = watch("kernel.cgroups"), cgroups()
    deep = group.folders[""] / ("x" * 250)
    deep.mkdir()
    try:
        come_and_go(deep / "vllm.service")
        assert of(group, watching.during(0.3)) == []
    finally:
        deep.rmdir()
