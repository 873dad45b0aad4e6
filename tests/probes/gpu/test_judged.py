"""Machines of the fake library, read by the real binding, judged by the detectors of placement."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

import pytest

from agent.detectors.gpu_clocks import Config as ClocksConfig, GpuClocks
from agent.detectors.gpu_placement import Config as PlacementConfig, GpuPlacement
from agent.detectors.page_cache import Config as CacheConfig, PageCache
from agent.finding import Finding, Verdict
from agent.gpus.placement import Placement, PlacementRule, Placements
from agent.testing import SURROUNDINGS, in_flight, memory, seeing, usage
from escalation.model import FaultClass, ReasonCode, Severity, Subject, SubjectKind
from probes.host import clock
from probes.observation import GpuAbsent, GpuState, Instant, Observation, Origin, ServerKind
from tests.fake_nvml.fake import FakeNvml
from tests.fake_nvml.profiles import (
    GB10,
    GPU_LOST,
    LAPTOP,
    RESET_REQUIRED,
    RTX_5090_LAPTOP,
    TWO_GPUS_WITH_MIG,
    Machine,
)
from tests.probes.gpu.conftest import Driven

SERVER = Origin(unit="vllm.service", pid=os.getpid(), start_ticks=1, server=ServerKind.VLLM)


def told(fake: FakeNvml, driven: Callable[..., Driven], machine: Machine) -> list[Observation]:
    """Return what a sensor says of a machine."""
    fake.become(machine)
    return driven().next(lambda seen: isinstance(seen, GpuState | GpuAbsent))


def moved(seen: Observation, to: Instant) -> Observation:
    """Return the same, at another moment."""
    return dataclasses.replace(seen, at=to)


def judged(seen: list[Observation]) -> list[Finding]:
    """Return what is said of a server that burns twelve cores at work for a minute, declared on the GPU."""
    rules = Placements.of((PlacementRule(unit="vllm.service", on=Placement.GPU),))
    detector = GpuPlacement.build(PlacementConfig(), dataclasses.replace(SURROUNDINGS, placements=rules))
    detector.observe(seeing(0, "host.servers"))
    found: list[Finding] = []
    for second in range(0, 61, 5):
        work = usage(second, 12, pids=(os.getpid(),), where=SERVER)
        for each in (*seen, in_flight(second, oldest_s=5, where=SERVER), work):
            found += detector.observe(moved(each, work.at))
    return [one for one in found if one.verdict is Verdict.PRESENT]


@pytest.mark.parametrize("machine", [RTX_5090_LAPTOP, TWO_GPUS_WITH_MIG, GB10])
def test_a_server_that_no_gpu_lists_has_fallen_back(
    fake: FakeNvml, driven: Callable[..., Driven], machine: Machine
) -> None:
    """Other processes are on the GPUs, MIG slices included; this one is on none."""
    found = judged(told(fake, driven, machine))
    assert {one.fault_class for one in found} == {FaultClass.GPU_CPU_FALLBACK}
    assert ReasonCode.NOT_LISTED_ON_GPU in {reason.code for reason in found[0].reasons}


@pytest.mark.parametrize("machine", [RTX_5090_LAPTOP, GB10])
def test_a_server_that_a_gpu_lists_stays_quiet(
    fake: FakeNvml, driven: Callable[..., Driven], machine: Machine
) -> None:
    """The same cores and requests, and its pid is on the list."""
    placed = machine.with_gpu(0, machine.gpus[0].running(os.getpid()))
    assert judged(told(fake, driven, placed)) == []


@pytest.mark.parametrize("machine", [GPU_LOST, RESET_REQUIRED], ids=["lost", "reset"])
def test_a_gpu_that_cannot_be_asked_makes_nobody_absent(
    fake: FakeNvml, driven: Callable[..., Driven], machine: Machine
) -> None:
    """Cores alone are one sign, and the list is not known."""
    assert judged(told(fake, driven, machine)) == []


def test_a_capped_gb10_is_a_note_until_something_agrees(
    fake: FakeNvml, driven: Callable[..., Driven]
) -> None:
    """Busy at 507 of 3003 MHz with no reason given; nothing else was learnt yet."""
    detector = GpuClocks.build(ClocksConfig(lasting_s=0), SURROUNDINGS)
    detector.observe(seeing(0, "gpu.nvml"))
    capped = GB10.gpus[0].having(sm_clock=507, clock_reasons=0)
    found = [one for seen in told(fake, driven, GB10.with_gpu(0, capped)) for one in detector.observe(seen)]
    assert [(one.severity, one.subject) for one in found] == [
        (Severity.NOTE, Subject(SubjectKind.GPU, "000f:01:00.0"))
    ]
    assert ReasonCode.NO_THROTTLE_REASON in {reason.code for reason in found[0].reasons}


@pytest.mark.parametrize(("machine", "expected"), [(GB10, 1), (RTX_5090_LAPTOP, 0), (GPU_LOST, 0)])
def test_only_a_gpu_without_memory_of_its_own_makes_cache_a_cause(
    fake: FakeNvml, driven: Callable[..., Driven], machine: Machine, expected: int
) -> None:
    """Three starts of vLLM under a full page cache, on three machines."""
    detector = PageCache.build(CacheConfig(), SURROUNDINGS)
    for sensor in ("host.memory", "host.servers"):
        detector.observe(seeing(0, sensor))
    seen = told(fake, driven, machine)
    found: list[Finding] = []
    for start in (0, 60, 120):
        life = usage(start + 30, 1, started=start, where=SERVER)
        for each in (*seen, memory(start + 1, 52, free_gib=2.8), life):
            found += detector.observe(moved(each, life.at))
    assert len(found) == expected


def test_the_clock_of_a_healthy_laptop_says_nothing(fake: FakeNvml, driven: Callable[..., Driven]) -> None:
    """Busy at its power limit, as it is every day."""
    detector = GpuClocks.build(ClocksConfig(lasting_s=0), SURROUNDINGS)
    detector.observe(seeing(0, "gpu.nvml"))
    for seen in told(fake, driven, Machine((LAPTOP,))):
        assert all(one.verdict is not Verdict.PRESENT for one in detector.observe(moved(seen, clock.now())))
