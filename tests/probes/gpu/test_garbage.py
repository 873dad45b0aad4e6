"""A library that answers with garbage: bounded, never an error of ours, and implausible facts are unknown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from probes import recording
from probes.gpu.facts import IMPLAUSIBLE, ProcessKind, Unread
from probes.gpu.nvml import NvmlLibrary, binding
from probes.gpu.protocol import GPUS_MAX, MIG_MAX, PROCESSES_MAX, NvmlError
from probes.gpu.sampler import GpuSample, Sampler
from probes.observation import GpuState, SensorName
from probes.testing import instant
from tests.fake_nvml import profiles
from tests.fake_nvml.fake import FakeNvml
from tests.fake_nvml.profiles import LAPTOP, FakeGpu, Machine

_WORDS = st.sampled_from(
    (
        "nvmlDeviceGetUUID",
        "nvmlDeviceGetName",
        "nvmlDeviceGetPciInfo_v3",
        "nvmlDeviceGetClockInfo",
        "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetPowerUsage",
        "nvmlDeviceGetTemperature",
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetTotalEccErrors",
        "nvmlDeviceGetRemappedRows",
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetMaxMigDeviceCount",
        "nvmlDeviceGetMigDeviceHandleByIndex",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetGraphicsRunningProcesses_v3",
    )
)
_NAMES = st.binary(max_size=300).map(lambda raw: "".join(f"\\x{byte:02x}" for byte in raw if byte))
_NUMBERS = st.dictionaries(
    st.sampled_from(sorted(profiles.TWO_GPUS_WITH_MIG.gpus[0].numbers)),
    st.integers(0, 2**64 - 1) | st.sampled_from((0, 1, 100, 101, 2**31 - 1, 2**31, 2**32 - 1)),
)
_CODES = st.lists(
    st.tuples(_WORDS, st.integers(0, 30) | st.just(999) | st.integers(-(2**31), 2**31 - 1)), max_size=5
)


@st.composite
def _gpus(draw: st.DrawFn) -> FakeGpu:
    gpu = FakeGpu(draw(_NAMES), draw(_NAMES), "ffffffff:ff:1f", draw(_NUMBERS))
    gpu = gpu.having(*(f"code {call} {code}" for call, code in draw(_CODES)))
    for _ in range(draw(st.integers(0, 3))):
        pid, used = draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 2**64 - 1))
        gpu = gpu.running(pid, used, kind=draw(st.sampled_from(("compute", "graphics"))))
    if draw(st.booleans()):
        gpu = gpu.having(process_count=draw(st.integers(0, 2**32 - 1)))
    for _ in range(draw(st.integers(0, 2))):
        numbers = [draw(st.integers(0, 2**32 - 1)) for _ in range(2)]
        sizes = [draw(st.integers(0, 2**64 - 1)) for _ in range(2)]
        gpu = gpu.having(f"mig MIG-x {numbers[0]} {numbers[1]} {sizes[0]} {sizes[1]}")
    return gpu


def _state(sample: GpuSample) -> GpuState:
    return GpuState(SensorName("gpu.nvml"), instant(1), sample.facts, None)


def _check(sample: GpuSample) -> None:
    facts = sample.facts
    bounds: dict[str, tuple[float, float]] = {
        "sm_clock_mhz": (0, 100_000),
        "utilisation_percent": (0, 100),
        "memory_utilisation_percent": (0, 100),
        "power_w": (0, 100_000),
        "temperature_celsius": (-100, 250),
        "memory_used_bytes": (0, 2**50),
        "memory_total_bytes": (0, 2**50),
        "ecc_volatile": (0, 2**40),
    }
    unread = {item.fact for item in facts.unread}
    for name, (low, high) in bounds.items():
        value: Any = getattr(facts, name)
        assert (value is None) == (name in unread), name
        assert value is None or low <= value <= high, name
    assert len(facts.mig) <= MIG_MAX
    assert all(m.memory_used_bytes is None or m.memory_used_bytes <= 2**50 for m in facts.mig)
    assert sample.processes is None or len(sample.processes) <= 2 * PROCESSES_MAX
    assert recording.from_line(recording.to_line(_state(sample))) == _state(sample)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(gpus=st.lists(_gpus(), max_size=3), count=st.just(0) | st.integers(0, 2**32 - 1))
def test_garbage_is_bounded_and_never_a_number_that_makes_no_sense(
    fake: FakeNvml, gpus: list[FakeGpu], count: int
) -> None:
    """Huge counts, bytes that are no text, buffers without an end, any code from any call."""
    fake.become(Machine(tuple(gpus)).also(f"count {count}"))
    nvml = NvmlLibrary(binding=binding())
    nvml.start()
    try:
        sampler = Sampler(nvml=nvml)
        sampler.discover()
        read, missing = sampler.sample(0.0)
        assert len(read) + len(missing) <= GPUS_MAX
        for sample in read:
            _check(sample)
        sampler.sample(1.0)
    except NvmlError:
        return
    finally:
        fake.become(Machine())
        nvml.stop()


def test_a_name_that_is_no_text_is_shown_with_marks(fake: FakeNvml) -> None:
    """Undecodable bytes are replaced; a buffer without an end ends where it ends."""
    bad = FakeGpu("\\xff\\xfeGPU", "x" * 300, "0:1:0", LAPTOP.numbers)
    fake.become(Machine((bad,)))
    nvml = NvmlLibrary(binding=binding())
    nvml.start()
    handle = nvml.handle(0)
    assert nvml.uuid(handle) == "\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}GPU"
    assert nvml.name(handle) == "x" * 96
    nvml.stop()


@pytest.mark.parametrize(("claimed", "code"), [(2**32 - 1, IMPLAUSIBLE), (65, IMPLAUSIBLE)])
def test_a_count_of_processes_that_cannot_be_is_no_list(fake: FakeNvml, claimed: int, code: int) -> None:
    """The library says that it filled more entries than there were."""
    fake.become(Machine((LAPTOP.running(77).having(process_count=claimed),)))
    nvml = NvmlLibrary(binding=binding())
    nvml.start()
    sampler = Sampler(nvml=nvml)
    sampler.discover()
    ((sample,), _) = sampler.sample(0.0)
    assert sample.processes is None
    assert Unread("processes", code) in sample.facts.unread
    nvml.stop()


@pytest.mark.parametrize(("running", "listed"), [(61, 61), (257, 257), (599, 599)])
def test_the_list_grows_with_the_processes(fake: FakeNvml, running: int, listed: int) -> None:
    """More processes than there was room for are asked for again, and the room is kept."""
    gpu = LAPTOP
    for pid in range(1, running + 1):
        gpu = gpu.running(pid)
    fake.become(Machine((gpu,)))
    nvml = NvmlLibrary(binding=binding())
    nvml.start()
    handle = nvml.handle(0)
    assert len(nvml.processes(handle, ProcessKind.COMPUTE)) == listed
    calls = fake.calls("nvmlDeviceGetComputeRunningProcesses_v3")
    assert len(nvml.processes(handle, ProcessKind.COMPUTE)) == listed
    assert fake.calls("nvmlDeviceGetComputeRunningProcesses_v3") == calls + 1
    nvml.stop()


def test_unknown_bytes_of_a_process_are_unknown(fake: FakeNvml) -> None:
    """NVML_VALUE_NOT_AVAILABLE is no number of bytes, and what no GPU can hold is none either."""
    fake.become(Machine((LAPTOP.running(1, profiles.NOT_AVAILABLE).running(2, 2**60).running(3, 0),)))
    nvml = NvmlLibrary(binding=binding())
    nvml.start()
    found = nvml.processes(nvml.handle(0), ProcessKind.COMPUTE)
    assert [(p.pid, p.used_bytes) for p in found] == [(1, None), (2, None), (3, 0)]
    nvml.stop()
