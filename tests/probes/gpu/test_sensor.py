"""The sensor on the real binding and a fake library: what machines tell, hangs, upgrades, its cost."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from probes.gpu import nvml, worker
from probes.gpu.facts import GpuFacts, ProcessKind, Unread
from probes.observation import BlindReason, GpuDriver, SensorName
from probes.sensor import SensorBlind
from tests.fake_nvml import profiles
from tests.fake_nvml.fake import FakeNvml, build
from tests.fake_nvml.profiles import GIB, Machine
from tests.probes.gpu.conftest import Drive, is_state, states


def test_the_laptop_is_told_whole(fake: FakeNvml, driven: Drive) -> None:
    """Every number, both lists of processes, and why there is no ECC, no row remapping and no MIG."""
    fake.become(profiles.RTX_5090_LAPTOP)
    (state,) = states(driven().next())
    assert state.sensor == SensorName("gpu.nvml")
    facts = state.facts
    assert facts == GpuFacts(
        gpu=facts.gpu,
        name="NVIDIA GeForce RTX 5090 Laptop GPU",
        sm_clock_mhz=2407,
        sm_clock_max_mhz=3090,
        utilisation_percent=93,
        memory_utilisation_percent=41,
        power_w=148.2,
        power_limit_w=175.0,
        temperature_celsius=71,
        memory_used_bytes=17 * GIB,
        memory_total_bytes=24 * GIB,
        clock_reasons=4,
        recovery_action=0,
        unread=facts.unread,
    )
    assert (facts.gpu.uuid, facts.gpu.pci, facts.gpu.index) == (profiles.LAPTOP.uuid, "0000:01:00.0", 0)
    assert {u.fact: u.code for u in facts.unread} == dict.fromkeys(
        (
            "ecc_volatile",
            "ecc_aggregate",
            "remapped_correctable",
            "remapped_uncorrectable",
            "remap_pending",
            "remap_failed",
            "mig_enabled",
        ),
        3,
    )
    assert state.processes is not None
    assert [(p.origin.pid, p.kind, p.used_bytes) for p in state.processes] == [
        (4101, ProcessKind.COMPUTE, 16 * GIB),
        (1200, ProcessKind.GRAPHICS, GIB),
    ]


def test_a_process_on_the_gpu_is_named_with_where_it_belongs(fake: FakeNvml, driven: Drive) -> None:
    """A host pid leads to the process's name and incarnation."""
    fake.become(Machine((profiles.LAPTOP.running(os.getpid()),)))
    (state,) = states(driven().next())
    assert state.processes is not None
    origin = state.processes[0].origin
    assert origin.pid == os.getpid()
    assert origin.start_ticks is not None
    assert origin.process_name == Path("/proc/self/comm").read_text().strip()


def test_two_gpus_are_told_apart_and_one_in_mig_mode_has_its_instances(fake: FakeNvml, driven: Drive) -> None:
    """The slices of a GPU with their memory; a process there names its slice."""
    fake.become(profiles.TWO_GPUS_WITH_MIG)
    whole, sliced = states(driven().next())
    assert (whole.facts.mig_enabled, whole.facts.mig) == (False, ())
    assert (whole.facts.ecc_aggregate, whole.facts.remapped_uncorrectable) == (2, 1)
    assert (whole.facts.remap_pending, whole.facts.remap_failed) == (False, False)
    assert sliced.facts.mig_enabled
    assert [(m.gpu_instance, m.compute_instance, m.memory_used_bytes) for m in sliced.facts.mig] == [
        (1, 0, 30 * GIB),
        (2, 0, GIB),
    ]
    assert sliced.facts.utilisation_percent is None
    assert Unread("utilisation_percent", 3) in sliced.facts.unread
    assert sliced.processes is not None
    assert [(p.origin.pid, p.gpu_instance) for p in sliced.processes] == [(4201, 1)]
    assert whole.facts.gpu.pci == "0000:1b:00.0"
    assert sliced.facts.gpu.pci == "0000:43:00.0"


def test_processes_of_a_mig_gpu_are_found_by_its_instances(fake: FakeNvml, driven: Drive) -> None:
    """Where the whole GPU's list is refused, each slice is asked for its own."""
    sliced = profiles.TWO_GPUS_WITH_MIG.gpus[1]
    fake.become(Machine((sliced.having(processes_by_instance=1),)))
    (state,) = states(driven().next())
    assert state.processes is not None
    assert [(p.origin.pid, p.gpu_instance, p.compute_instance) for p in state.processes] == [(4201, 1, 0)]


def test_processes_that_are_not_told_are_unknown(fake: FakeNvml, driven: Drive) -> None:
    """A refused list is no empty list."""
    fake.become(Machine((profiles.LAPTOP.having("code nvmlDeviceGetComputeRunningProcesses_v3 4"),)))
    (state,) = states(driven().next())
    assert state.processes is None
    assert Unread("processes", 4) in state.facts.unread


def test_shared_memory_is_unknown_and_not_zero(fake: FakeNvml, driven: Drive) -> None:
    """The GB10 answers NOT_SUPPORTED for its memory, and has an address in another domain."""
    fake.become(profiles.GB10)
    (state,) = states(driven().next())
    assert (state.facts.memory_used_bytes, state.facts.memory_total_bytes) == (None, None)
    assert Unread("memory_used_bytes", 3) in state.facts.unread
    assert state.facts.gpu.pci == "000f:01:00.0"
    assert state.facts.utilisation_percent == 93
    assert state.processes is not None
    assert state.processes[0].used_bytes == 90 * GIB


@pytest.mark.parametrize(
    "call", ["nvmlDeviceGetUtilizationRates", "nvmlInitWithFlags", "nvmlEventSetWait_v2"]
)
def test_a_call_that_hangs_blinds_this_sensor_and_read_returns(
    fake: FakeNvml, driven: Drive, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """The thread is given up and counted; when the call comes back, the next opening sees."""
    monkeypatch.setattr(worker, "CALL_S", 0.1)
    monkeypatch.setattr(worker, "EVENTS_S", 0.2)
    monkeypatch.setattr(worker, "START_S", 0.1)
    fake.become(profiles.RTX_5090_LAPTOP.also(f"hang {call}"))
    drive = driven(open_s=0.0)
    with pytest.raises(SensorBlind) as caught:
        drive.next(lambda _: False)
    assert caught.value.blind.reason is BlindReason.NOT_ANSWERING
    assert call.removesuffix("WithFlags") in caught.value.blind.detail
    assert worker.stuck() >= 1
    with pytest.raises(SensorBlind, match="not_answering"):
        driven(open_s=0.0)
    fake.become(profiles.RTX_5090_LAPTOP)
    until = time.monotonic() + 20
    while worker.stuck():
        assert time.monotonic() < until
        time.sleep(0.01)
    assert len(states(driven().next())) == 1


def test_no_more_than_a_few_threads_are_ever_stuck(fake: FakeNvml, driven: Drive) -> None:
    """When `STUCK_MAX` calls never came back, nothing is tried until one does."""
    fake.become(profiles.RTX_5090_LAPTOP.also("hang nvmlInitWithFlags"))
    first = driven(open_s=0.0)
    first.sensor.close()
    for _ in range(worker.STUCK_MAX + 2):
        with pytest.raises(SensorBlind, match="not_answering"):
            driven(open_s=0.0)
    assert worker.stuck() == worker.STUCK_MAX
    assert fake.calls("nvmlInitWithFlags") == worker.STUCK_MAX


def test_an_upgraded_driver_is_found_by_a_fresh_library(
    fake: FakeNvml, driven: Drive, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """The old library refuses the new module; the next opening loads what is on disk now, beside the old."""
    version = tmp_path / "proc" / "driver" / "nvidia" / "version"
    version.parent.mkdir(parents=True)
    told = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build  (root@host)\nGCC\n"
    version.write_text(told.format("575.57.08"))
    fake.become(profiles.RTX_5090_LAPTOP.also("module 575.57.08"))
    drive = driven()
    (before,) = [o for o in drive.next() if isinstance(o, GpuDriver)]
    assert (before.facts.module, before.facts.disk) == ("575.57.08", "575.57.08")
    assert before.facts.loaded == "13.575.57.08"
    fake.install(build(tmp_path_factory.mktemp("newer"), "580.65.06"))
    version.write_text(told.format("580.65.06"))
    fake.become(profiles.RTX_5090_LAPTOP.also("module 580.65.06"))
    drive.sensor.close()
    found = driven().next()
    (after,) = [o for o in found if isinstance(o, GpuDriver)]
    assert (after.facts.module, after.facts.loaded, after.facts.disk) == (
        "580.65.06",
        "13.580.65.06",
        "580.65.06",
    )
    assert len(states(found)) == 1


def test_an_upgrade_on_disk_alone_is_told_and_sight_is_kept(
    fake: FakeNvml, driven: Drive, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs goes on with the old library; what starts now would get the other, and that is said."""
    monkeypatch.setattr("probes.gpu.driver.LOOK_S", 0.0)
    fake.become(profiles.RTX_5090_LAPTOP)
    drive = driven()
    drive.next()
    fake.install(build(tmp_path_factory.mktemp("newer"), "580.65.06"))
    found = drive.next(lambda o: isinstance(o, GpuDriver))
    assert [o.facts.disk for o in found if isinstance(o, GpuDriver)] == ["580.65.06"]
    assert len(states(drive.next(is_state))) == 1


def test_a_driver_that_goes_away_under_the_sensor_blinds_it(fake: FakeNvml, driven: Drive) -> None:
    """An unloaded driver ends the sampling with its own reason."""
    fake.become(profiles.RTX_5090_LAPTOP)
    drive = driven()
    drive.next()
    fake.become(profiles.RTX_5090_LAPTOP.also("code nvmlDeviceGetClockInfo 9"))
    with pytest.raises(SensorBlind, match="no_driver"):
        drive.next(lambda _: False)


def test_an_older_driver_gives_its_reasons_under_their_first_name(fake: FakeNvml, driven: Drive) -> None:
    """What holds a clock down was called throttling before 535."""
    fake.become(profiles.RTX_5090_LAPTOP.also("code nvmlDeviceGetCurrentClocksEventReasons 13"))
    (state,) = states(driven().next())
    assert state.facts.clock_reasons == 4


def test_a_binding_that_dropped_a_call_costs_one_fact(fake: FakeNvml, driven: Drive) -> None:
    """NVIDIA takes calls that it has replaced out of its binding; the others are read as before."""
    fake.become(profiles.RTX_5090_LAPTOP)
    whole = vars(nvml.binding())
    library = nvml.NvmlLibrary(
        binding=SimpleNamespace(**{k: v for k, v in whole.items() if k != "nvmlDeviceGetTemperature"})
    )
    waiting = nvml.NvmlLibrary(binding=nvml.binding())
    drive = driven(connect=lambda: worker.Connection(library, waiting, lambda: None))
    (state,) = states(drive.next())
    assert (state.facts.temperature_celsius, state.facts.sm_clock_mhz) == (None, 2407)
    assert Unread("temperature_celsius", 13) in state.facts.unread


def test_what_does_not_change_is_read_once(fake: FakeNvml, driven: Drive) -> None:
    """Names and addresses are asked once, slow facts not each time, unsupported ones not again."""
    fake.become(profiles.GB10)
    drive = driven()
    for _ in range(7):
        drive.next(is_state)
    assert fake.calls("nvmlDeviceGetClockInfo") >= 7
    for name in (
        "nvmlDeviceGetName",
        "nvmlDeviceGetUUID",
        "nvmlDeviceGetMaxClockInfo",
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetMemoryInfo",
    ):
        assert fake.calls(name) == 1, name


def test_a_closed_sensor_leaves_no_thread_and_no_user_of_the_library(fake: FakeNvml, driven: Drive) -> None:
    """Every start has its stop, also that of the waiting thread."""
    fake.become(profiles.RTX_5090_LAPTOP)
    drive = driven()
    drive.next()
    drive.sensor.close()
    drive.sensor.close()
    for thread in threading.enumerate():
        if thread.name.startswith("nvml"):
            thread.join(10)
    assert fake.calls("nvmlShutdown") == fake.calls("nvmlInitWithFlags") == 2
    assert fake.calls("nvmlEventSetFree") == 1


def test_nothing_is_sampled_that_nobody_reads(fake: FakeNvml, driven: Drive) -> None:
    """Rounds are asked for by reads."""
    fake.become(profiles.RTX_5090_LAPTOP)
    drive = driven()
    assert fake.calls("nvmlDeviceGetPowerUsage") == 1
    drive.next()
    drive.next(is_state)
    assert fake.calls("nvmlDeviceGetPowerUsage") <= 1 + drive.reads


def test_a_defect_of_ours_is_raised_to_whoever_reads(fake: FakeNvml, driven: Drive) -> None:
    """An exception that is none of NVML's does not leave a sensor that says nothing for ever."""
    fake.become(profiles.RTX_5090_LAPTOP)

    def connect() -> worker.Connection:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        driven(connect=connect)
