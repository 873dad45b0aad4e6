"""A GPU driver that does not answer, under the agent's own sensing: one sensor is blind, the others go on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.pipeline import Pipeline
from agent.sensing import Sensing
from agent.testing_ports import ScriptedSensor
from probes.gpu.facts import Absence
from probes.gpu.sensor import NAME, NvmlSensor
from probes.gpu.worker import Connection
from probes.host import clock
from probes.host.cgroups import CgroupPaths
from probes.host.identity import Identifier
from probes.observation import Blind, BlindReason, Gap, GpuAbsent, Observation, Seeing, SensorName

_OTHER = SensorName("kernel.oom_kill")


class Sick:
    """A driver whose first call blocks until `cured`."""

    def __init__(self) -> None:
        self.cured = threading.Event()
        self.called = threading.Event()

    def connect(self) -> Connection:
        """Block, as loading or initialising a library on a sick GPU does."""
        self.called.set()
        self.cured.wait(60)
        raise RuntimeError("nobody asks any more")


@pytest.fixture
def sick(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sick]:
    """A driver that blocks, and lets go at the end."""
    monkeypatch.setattr("probes.gpu.worker.START_S", 0.05)
    driver = Sick()
    yield driver
    driver.cured.set()
    for thread in threading.enumerate():
        if thread.name.startswith("nvml"):
            thread.join(10)


async def test_a_driver_that_does_not_answer_blinds_one_sensor_and_holds_up_nobody(sick: Sick) -> None:
    """The loop goes on reading what else there is, and the Gap has its reason."""
    cgroups = CgroupPaths(root=Path("/sys/fs/cgroup"), monotonic=lambda: 0.0)
    identifier = Identifier(cgroups=cgroups)
    other = ScriptedSensor(_OTHER, period_s=0.25)
    pipeline, woken = Pipeline(capacity=100), asyncio.Event()
    sensing = Sensing(pipeline=pipeline, clock=clock.now, woken=woken.set)
    seen: list[Observation] = []

    def gpu() -> NvmlSensor:
        return NvmlSensor(
            identifier=identifier,
            clock=clock.now,
            connect=sick.connect,
            installed=lambda: True,
            open_s=0.0,
        )

    async with sensing:
        await sensing.assemble({NAME: gpu, _OTHER: lambda: other}, disabled=frozenset())
        assert sick.called.wait(10)
        reads = other.reads
        while not isinstance(sensing.coverage[NAME], Blind):
            woken.clear()
            now = clock.now()
            await sensing.read_due(now)
            seen += pipeline.take(100)
            await asyncio.sleep(0.01)
        assert other.reads > reads
        assert sensing.coverage[_OTHER] == Seeing()
        coverage = sensing.coverage[NAME]
    assert isinstance(coverage, Blind)
    assert coverage.reason is BlindReason.NOT_ANSWERING
    seen += pipeline.take(100)
    absent = [o for o in seen if isinstance(o, GpuAbsent)]
    assert [(o.gpu, o.why, o.code) for o in absent] == [(None, Absence.NOT_ANSWERING, None)]
    assert [o.coverage for o in seen if isinstance(o, Gap) and o.sensor == NAME][-1] == coverage
