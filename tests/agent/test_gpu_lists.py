"""Who is on a GPU: listed, absent, or not known, and never absent from a list that is not whole."""

from __future__ import annotations

import dataclasses

import pytest

from agent.gpus.lists import FRESH_S, GpuLists
from agent.subjects import subject_of
from agent.testing import at, gpu_absent, gpu_state, origin
from probes.gpu.facts import Absence, GpuIdentity
from probes.observation import GpuAbsent, GpuState, Origin, SensorName

SERVER = origin()
SUBJECT = subject_of(SERVER)
OTHER = origin(container="d" * 64, pid=99)


def lists(*told: GpuState | GpuAbsent, now: float = 1) -> bool | None:
    """Return what is known of the server with the pids 4711 and 4712 after this was told."""
    made = GpuLists()
    for each in told:
        made.take(each)
    return made.lists(SUBJECT, (4711, 4712), at(now))


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ((gpu_state(1, SERVER),), True),
        ((gpu_state(1, Origin(pid=4712)),), True),
        ((gpu_state(1, origin(pid=5)),), True),
        ((gpu_state(1, OTHER),), False),
        ((gpu_state(1),), False),
        ((), None),
        ((gpu_state(1, listed=False),), None),
        ((gpu_state(1), gpu_state(1, listed=False, index=1, pci="b")), None),
        ((gpu_state(1, SERVER), gpu_state(1, listed=False, index=1, pci="b")), True),
        ((gpu_state(1), gpu_absent(1, Absence.LOST, code=15, pci="b", index=1)), None),
        ((gpu_state(1), gpu_absent(1, Absence.NO_DRIVER, code=9)), None),
        ((gpu_absent(1, Absence.NO_DEVICE),), False),
        ((gpu_state(1 - FRESH_S - 1, SERVER),), None),
    ],
)
def test_absence_needs_a_whole_list(told: tuple[GpuState | GpuAbsent, ...], expected: bool | None) -> None:
    """By pid or by container; one GPU that says nothing makes absence unknown, not presence."""
    assert lists(*told) is expected


@pytest.mark.parametrize(
    "where",
    [
        origin(container=None, unit="session-3.scope"),
        origin(container=None, unit="user@1000.service"),
        origin(container=None, cgroup_path="/", name="python3"),
    ],
)
def test_who_shares_a_name_with_somebody_on_a_gpu_is_not_on_it(where: Origin) -> None:
    """Two servers of one login session, or two programs called python3: only the pid tells them apart."""
    made = GpuLists()
    made.take(gpu_state(1, dataclasses.replace(where, pid=99)))
    assert made.lists(subject_of(where), (4711,), at(1)) is False
    assert made.lists(subject_of(where), (99,), at(1)) is True


@pytest.mark.parametrize(
    "before",
    [
        GpuIdentity(uuid=None, pci=None, index=0),
        GpuIdentity(uuid=None, pci="b", index=7),
        GpuIdentity(uuid="GPU-0", pci="b", index=1),
    ],
)
def test_a_gpu_that_is_named_otherwise_is_the_same_gpu(before: GpuIdentity) -> None:
    """Lost when the agent started, or counted anew: what is told of it now stands in place of that."""
    lost = GpuAbsent(SensorName("gpu.nvml"), at(1), before, Absence.LOST, 15)
    assert lists(lost, gpu_state(30, pci="b"), now=31) is False


def test_a_sensor_that_is_blind_leaves_nothing_known() -> None:
    """What was listed before it does not count."""
    made = GpuLists()
    made.take(gpu_state(1))
    made.forget()
    assert made.lists(SUBJECT, (4711,), at(1)) is None
