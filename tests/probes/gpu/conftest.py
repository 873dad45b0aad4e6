"""A fake NVML for each test, and a sensor on it that is driven by hand."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from probes.gpu.sensor import NvmlSensor
from probes.host import clock
from probes.host.cgroups import CgroupPaths
from probes.host.identity import Identifier
from probes.observation import GpuState, Observation
from tests.fake_nvml.fake import FakeNvml, build
from tests.fake_nvml.profiles import Machine


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fake library, compiled once."""
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def fake(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNvml]:
    """A fake library of this test's own, held by a fresh copy of the real binding.

    What a test left blocked comes back when the state file no longer says so.
    """
    installed = FakeNvml(built=built, folder=tmp_path)
    monkeypatch.setenv("FAKE_NVML_STATE", str(installed.state))
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    import pynvml  # noqa: PLC0415  # a copy for this test

    pynvml.nvmlLib = ctypes.CDLL(str(installed.link.resolve()))
    monkeypatch.setattr("probes.gpu.worker.LINGER_S", 0.0)
    monkeypatch.setattr("probes.gpu.worker._WAIT_MS", 50)
    yield installed
    installed.become(Machine())
    for thread in threading.enumerate():
        if thread.name.startswith("nvml"):
            thread.join(10)


class Driven:
    """A sensor read until something is there: the fake answers at once, threads need their moment."""

    def __init__(self, sensor: NvmlSensor) -> None:
        self.sensor = sensor
        self.reads = 0

    def next(
        self, wanted: Callable[[Observation], bool] = lambda _: True, *, within_s: float = 30
    ) -> list[Observation]:
        """Return what a read gives, for the first that has something wanted."""
        until = time.monotonic() + within_s
        while True:
            self.reads += 1
            found: Sequence[Observation] = self.sensor.read(clock.now())
            if any(wanted(seen) for seen in found):
                return list(found)
            assert time.monotonic() < until, "nothing of the kind came in time"
            time.sleep(0.01)


@pytest.fixture
def driven(tmp_path: Path) -> Iterator[Callable[..., Driven]]:
    """Opens sensors on the fake, with further settings of the sensor's, and closes them."""
    opened: list[NvmlSensor] = []

    def make(**settings: object) -> Driven:
        cgroups = CgroupPaths(root=Path("/sys/fs/cgroup"), monotonic=time.monotonic)
        places = {"proc": tmp_path / "proc", "sys_folder": tmp_path / "no-sys"}  # this machine may have a GPU
        arguments = {"open_s": 10.0} | places | settings
        sensor = NvmlSensor(identifier=Identifier(cgroups=cgroups), clock=clock.now, **arguments)  # type: ignore[arg-type]
        opened.append(sensor)
        sensor.open()
        return Driven(sensor)

    yield make
    for sensor in opened:
        sensor.close()


Drive = Callable[..., Driven]


def states(seen: list[Observation]) -> list[GpuState]:
    """Return what was said of GPUs that can be read."""
    return [each for each in seen if isinstance(each, GpuState)]


def is_state(seen: Observation) -> bool:
    """Say whether this is of a GPU that can be read."""
    return isinstance(seen, GpuState)
