"""What a reader takes out of a ring and does not live to settle is told by its successor, on real eBPF."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from probes import registry
from probes.host.clock import now
from probes.observation import DeviceOpens, FatalSignal, Gap, Observation
from probes.sensor import Sensor
from tests.kernel.conftest import Cgroups, LoadRun, Watch

pytestmark = [pytest.mark.root, pytest.mark.ebpf]

_CRASH = "import ctypes, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); ctypes.string_at(8)"


@pytest.fixture
def successor(loaded: LoadRun) -> Iterator[Callable[[str], Sensor]]:
    """Open a sensor as the process after a crash does: on the same descriptors, with no word from before."""
    opened: list[Sensor] = []

    def open_(name: str) -> Sensor:
        spec = next(s for s in registry.SENSORS if s.name == name)
        sensor = spec.build(registry.surroundings(loaded.handover))
        sensor.open()
        opened.append(sensor)
        return sensor

    yield open_
    for sensor in opened:
        sensor.close()


def lost(seen: list[Observation]) -> int:
    """Return how many losses were told."""
    return sum(o.lost for o in seen if isinstance(o, Gap))


def test_tells_what_a_dead_reader_took_along(
    watch: Callable[[str], Watch], successor: Callable[[str], Sensor], cgroups: Callable[..., Cgroups]
) -> None:
    """Events that were read and never settled are a Gap of exactly their number."""
    first, group = watch("kernel.fatal_signal"), cgroups()
    first.sensor.settle()
    for _ in range(5):
        group.python(_CRASH)
    taken = [o for o in first.during(0.3) if isinstance(o, FatalSignal)]
    assert sum(o.origin.cgroup_id == group.id for o in taken) == 5
    assert lost(list(successor("kernel.fatal_signal").read(now()))) == len(taken)


def test_closing_settles_nothing(
    watch: Callable[[str], Watch], successor: Callable[[str], Sensor], cgroups: Callable[..., Cgroups]
) -> None:
    """An agent that ends in order while its disk takes nothing has not kept what it read: that is told."""
    first, group = watch("kernel.fatal_signal"), cgroups()
    first.sensor.settle()
    for _ in range(3):
        group.python(_CRASH)
    taken = [o for o in first.during(0.3) if isinstance(o, FatalSignal)]
    first.sensor.close()
    assert lost(list(successor("kernel.fatal_signal").read(now()))) == len(taken) >= 3


def test_tells_nothing_of_what_is_settled(
    watch: Callable[[str], Watch], successor: Callable[[str], Sensor], cgroups: Callable[..., Cgroups]
) -> None:
    """Once settled, a reader may die: its successor has nothing to tell, and reads on where it stopped."""
    first, group = watch("kernel.fatal_signal"), cgroups()
    group.python(_CRASH)
    first.during(0.3)
    first.sensor.settle()
    group.python(_CRASH)
    seen = list(successor("kernel.fatal_signal").read(now()))
    assert lost(seen) == 0
    mine = [o for o in seen if isinstance(o, FatalSignal) and o.origin.cgroup_id == group.id]
    assert len(mine) == 1


def test_counts_are_told_again_until_they_are_settled(
    watch: Callable[[str], Watch], successor: Callable[[str], Sensor], cgroups: Callable[..., Cgroups]
) -> None:
    """Device opens stand in the kernel's table: what a dead reader took along is told again, not lost."""
    first, group = watch("kernel.device_open"), cgroups()
    first.sensor.settle()
    group.python("import os\nfor _ in range(3):\n try: os.open('/dev/nvidia-none', 0)\n except OSError: pass")

    def opens(seen: list[Observation]) -> list[int]:
        return [o.count for o in seen if isinstance(o, DeviceOpens) and o.origin.cgroup_id == group.id]

    assert sum(opens(first.during(0.3))) == 3
    second = successor("kernel.device_open")
    again = list(second.read(now()))
    assert (opens(again), lost(again)) == ([3], 0)
    second.settle()
    assert opens(list(successor("kernel.device_open").read(now()))) == []
