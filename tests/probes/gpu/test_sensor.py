"""The sensor on the real binding and a fake library: machines, absences, hangs, losses, upgrades."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from probes.gpu import nvml, worker
from probes.gpu.facts import Absence, GpuFacts, ProcessKind, Unread, XidSource
from probes.host import clock
from probes.observation import (
    BlindReason,
    Gap,
    GpuAbsent,
    GpuDriver,
    GpuState,
    GpuXid,
    Observation,
    SensorName,
)
from probes.sensor import SensorBlind
from tests.fake_nvml import profiles
from tests.fake_nvml.fake import FakeNvml, build
from tests.fake_nvml.profiles import GIB, Machine
from tests.probes.gpu.conftest import Driven

Drive = Callable[..., Driven]
_UNASKED = profiles.TWO_GPUS_WITH_MIG
_NO_ACCESS = BlindReason.NO_DEVICE_ACCESS


def _states(seen: list[Observation]) -> list[GpuState]:
    return [o for o in seen if isinstance(o, GpuState)]


def _is_state(seen: Observation) -> bool:
    return isinstance(seen, GpuState)


def test_the_laptop_is_told_whole(fake: FakeNvml, driven: Drive) -> None:
    """Every number, both lists of processes, and why there is no ECC, no row remapping and no MIG."""
    fake.become(profiles.RTX_5090_LAPTOP)
    (state,) = _states(driven().next())
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
    (state,) = _states(driven().next())
    assert state.processes is not None
    origin = state.processes[0].origin
    assert origin.pid == os.getpid()
    assert origin.start_ticks is not None
    assert origin.process_name == Path("/proc/self/comm").read_text().strip()


def test_two_gpus_are_told_apart_and_one_in_mig_mode_has_its_instances(fake: FakeNvml, driven: Drive) -> None:
    """The slices of a GPU with their memory; a process there names its slice."""
    fake.become(profiles.TWO_GPUS_WITH_MIG)
    whole, sliced = _states(driven().next())
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
    (state,) = _states(driven().next())
    assert state.processes is not None
    assert [(p.origin.pid, p.gpu_instance, p.compute_instance) for p in state.processes] == [(4201, 1, 0)]


def test_processes_that_are_not_told_are_unknown(fake: FakeNvml, driven: Drive) -> None:
    """A refused list is no empty list."""
    fake.become(Machine((profiles.LAPTOP.having("code nvmlDeviceGetComputeRunningProcesses_v3 4"),)))
    (state,) = _states(driven().next())
    assert state.processes is None
    assert Unread("processes", 4) in state.facts.unread


def test_shared_memory_is_unknown_and_not_zero(fake: FakeNvml, driven: Drive) -> None:
    """The GB10 answers NOT_SUPPORTED for its memory, and has an address in another domain."""
    fake.become(profiles.GB10)
    (state,) = _states(driven().next())
    assert (state.facts.memory_used_bytes, state.facts.memory_total_bytes) == (None, None)
    assert Unread("memory_used_bytes", 3) in state.facts.unread
    assert state.facts.gpu.pci == "000f:01:00.0"
    assert state.facts.utilisation_percent == 93
    assert state.processes is not None
    assert state.processes[0].used_bytes == 90 * GIB


@pytest.mark.parametrize(
    ("machine", "why", "code", "reason"),
    [
        (profiles.LIBRARY_MISMATCH, Absence.VERSION_MISMATCH, 18, BlindReason.VERSION_MISMATCH),
        (profiles.NO_DRIVER, Absence.NO_DRIVER, 9, BlindReason.NO_DRIVER),
        (profiles.NO_PERMISSION, Absence.NO_PERMISSION, 4, BlindReason.NO_DEVICE_ACCESS),
        (Machine().also("code nvmlInitWithFlags 17"), Absence.BLOCKED, 17, BlindReason.NO_DEVICE_ACCESS),
        (Machine().also("code nvmlInitWithFlags 999"), Absence.UNKNOWN, 999, BlindReason.READ_FAILED),
        (Machine().also("code nvmlDeviceGetCount_v2 15"), Absence.LOST, 15, BlindReason.READ_FAILED),
        (_UNASKED.also("code nvmlDeviceGetHandleByIndex_v2 4"), Absence.NO_PERMISSION, 4, _NO_ACCESS),
        (_UNASKED.also("code nvmlDeviceGetHandleByIndex_v2 17"), Absence.BLOCKED, 17, _NO_ACCESS),
    ],
)
def test_every_absence_is_blindness_with_its_code(
    fake: FakeNvml, driven: Drive, *, machine: Machine, why: Absence, code: int, reason: BlindReason
) -> None:
    """Nothing that keeps NVML from working looks like another thing, or like health."""
    fake.become(machine)
    with pytest.raises(SensorBlind) as caught:
        driven()
    assert caught.value.blind.reason is reason
    (last,) = caught.value.last
    assert isinstance(last, GpuAbsent)
    assert (last.gpu, last.why, last.code) == (None, why, code)


def test_a_loaded_driver_without_its_devices_is_a_matter_of_access(
    fake: FakeNvml, driven: Drive, tmp_path: Path
) -> None:
    """In a sandbox with a /dev of its own NVML says that no driver is loaded; /proc says that one is."""
    version = tmp_path / "proc" / "driver" / "nvidia" / "version"
    version.parent.mkdir(parents=True)
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.161.08  Sat Jan 6\n")
    fake.become(profiles.NO_DRIVER)
    with pytest.raises(SensorBlind, match="no_device_access") as caught:
        driven()
    assert [(o.why, o.code) for o in caught.value.last if isinstance(o, GpuAbsent)] == [(Absence.BLOCKED, 9)]


@pytest.mark.parametrize(
    ("machine", "why", "code"),
    [
        (profiles.GPU_LOST, Absence.LOST, 15),
        (profiles.RESET_REQUIRED, Absence.RESET_REQUIRED, 16),
        (Machine(), Absence.NO_DEVICE, None),
    ],
)
def test_a_gpu_that_is_gone_is_absent_while_the_sensor_sees(
    fake: FakeNvml, driven: Drive, machine: Machine, why: Absence, code: int | None
) -> None:
    """NVML works and says which GPU does not."""
    fake.become(machine)
    found = driven().next()
    assert _states(found) == []
    (absent,) = [o for o in found if isinstance(o, GpuAbsent)]
    assert (absent.why, absent.code) == (why, code)


def test_a_gpu_lost_while_it_runs_is_told_by_name_and_comes_back(
    fake: FakeNvml, driven: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other GPU is still told; after a reset the library is initialised afresh and the GPU is there."""
    monkeypatch.setattr(worker, "RETRY_S", 0.0)
    two = profiles.TWO_GPUS_WITH_MIG
    fake.become(two)
    drive = driven()
    assert len(_states(drive.next())) == 2
    fake.become(two.with_gpu(1, two.gpus[1].having("code all 15")))
    found = drive.next(lambda o: isinstance(o, GpuAbsent))
    (absent,) = [o for o in found if isinstance(o, GpuAbsent)]
    assert absent.gpu is not None
    assert (absent.gpu.pci, absent.why, absent.code) == ("0000:43:00.0", Absence.LOST, 15)
    assert [s.facts.gpu.pci for s in _states(found)] == ["0000:1b:00.0"]
    fake.become(two)
    found = drive.next(lambda o: isinstance(o, GpuState) and o.facts.gpu.pci == "0000:43:00.0")
    assert len(_states(found)) == 2


def test_a_gpu_that_is_not_listed_any_more_is_missed(
    fake: FakeNvml, driven: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a new start the library may count one GPU less; whoever was there is told as gone."""
    monkeypatch.setattr(worker, "RETRY_S", 0.0)
    two = profiles.TWO_GPUS_WITH_MIG
    fake.become(two)
    drive = driven()
    drive.next()
    fake.become(Machine(two.gpus[:1]))
    found = drive.next(lambda o: isinstance(o, GpuAbsent) and o.why is Absence.GONE)
    assert [o.gpu.uuid for o in found if isinstance(o, GpuAbsent) and o.gpu] == [two.gpus[1].uuid]
    assert len(_states(found)) == 1


def test_the_first_of_two_is_missed_until_it_is_back(
    fake: FakeNvml, driven: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is left takes its index; the one that is gone keeps its name, from one start to the next."""
    monkeypatch.setattr(worker, "RETRY_S", 0.0)
    two = profiles.TWO_GPUS_WITH_MIG
    fake.become(two)
    drive = driven()
    drive.next()
    fake.become(Machine(two.gpus[1:]))
    for _ in range(4):
        found = drive.next(lambda o: isinstance(o, GpuAbsent) and o.why is Absence.GONE)
        assert [o.gpu.uuid for o in found if isinstance(o, GpuAbsent) and o.gpu] == [two.gpus[0].uuid]
        assert [(s.facts.gpu.uuid, s.facts.gpu.index) for s in _states(found)] == [(two.gpus[1].uuid, 0)]
    fake.become(Machine())
    missed: set[str | None] = set()
    while missed != {gpu.uuid for gpu in two.gpus}:
        missed = {o.gpu.uuid for o in drive.next() if isinstance(o, GpuAbsent) and o.gpu}
    fake.become(two)
    found = drive.next(lambda o: isinstance(o, GpuState) and o.facts.gpu.uuid == two.gpus[0].uuid)
    assert len(_states(found)) == 2


def _held(folder: Path, *addresses: str) -> Path:
    """Return a /sys whose PCI bus has these GPUs, taken by NVIDIA's driver."""
    _bus(folder, **dict.fromkeys(addresses, ("0x10de", "0x030200")))
    driver = folder / "bus" / "pci" / "drivers" / "nvidia"
    driver.mkdir(parents=True)
    (driver / "bind").write_text("")
    for name in addresses:
        (driver / name).symlink_to(folder / "bus" / "pci" / "devices" / name)
    return folder


def test_a_gpu_of_which_nothing_can_be_read_is_absent_by_its_address(
    fake: FakeNvml, driven: Drive, tmp_path: Path
) -> None:
    """Its handle ends with 999, as that of a GPU off the bus often does; where it sits the bus knows."""
    sys_folder = _held(tmp_path / "sys", "000f:01:00.0")
    fake.become(profiles.GB10.also("code nvmlDeviceGetHandleByIndex_v2 999"))
    (absent,) = [o for o in driven(sys_folder=sys_folder).next() if isinstance(o, GpuAbsent)]
    assert absent.gpu is not None
    assert (absent.gpu.pci, absent.why, absent.code) == ("000f:01:00.0", Absence.UNKNOWN, 999)


def test_a_gpu_that_the_driver_has_and_nvml_does_not_count_is_missed(
    fake: FakeNvml, driven: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No devices were found, or one less, where a GPU could not be started; it is told until it is there."""
    monkeypatch.setattr(worker, "RETRY_S", 0.0)
    sys_folder = _held(tmp_path / "sys", "0000:1b:00.0", "0000:43:00.0")
    two = profiles.TWO_GPUS_WITH_MIG
    for gpus, missed in (((), ["0000:1b:00.0", "0000:43:00.0"]), (two.gpus[:1], ["0000:43:00.0"])):
        fake.become(Machine(gpus))
        drive = driven(sys_folder=sys_folder)
        absent = [o for o in drive.next() if isinstance(o, GpuAbsent)]
        assert [(o.gpu and o.gpu.pci, o.why) for o in absent] == [(pci, Absence.GONE) for pci in missed]
        fake.become(two)
        drive.next(lambda o: isinstance(o, GpuState) and o.facts.gpu.pci == "0000:43:00.0")
        assert [o for o in drive.next() if isinstance(o, GpuAbsent)] == []
        drive.sensor.close()


def test_a_gpu_that_is_not_the_drivers_to_count_is_not_missed(
    fake: FakeNvml, driven: Drive, tmp_path: Path
) -> None:
    """One for a guest (another driver has it), a virtual function, one that is excluded by a setting."""
    sys_folder = _held(tmp_path / "sys", "0000:02:00.0", "0000:03:00.4")
    _bus(sys_folder, guest=("0x10de", "0x030000"))
    (sys_folder / "bus" / "pci" / "devices" / "0000:03:00.4" / "physfn").mkdir()
    told = tmp_path / "proc" / "driver" / "nvidia" / "gpus" / "0000:02:00.0" / "information"
    told.parent.mkdir(parents=True)
    told.write_text("Model: \t\t NVIDIA RTX\nGPU Excluded:\t Yes\n")
    fake.become(profiles.RTX_5090_LAPTOP)
    assert [o for o in driven(sys_folder=sys_folder).next(_is_state) if isinstance(o, GpuAbsent)] == []


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
    assert len(_states(driven().next())) == 1


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
    assert len(_states(found)) == 1


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
    assert len(_states(drive.next(_is_state))) == 1


def test_a_driver_that_goes_away_under_the_sensor_blinds_it(fake: FakeNvml, driven: Drive) -> None:
    """An unloaded driver ends the sampling with its own reason."""
    fake.become(profiles.RTX_5090_LAPTOP)
    drive = driven()
    drive.next()
    fake.become(profiles.RTX_5090_LAPTOP.also("code nvmlDeviceGetClockInfo 9"))
    with pytest.raises(SensorBlind, match="no_driver"):
        drive.next(lambda _: False)


def test_xids_come_from_events_with_their_gpu(fake: FakeNvml, driven: Drive) -> None:
    """A prime number of events on two GPUs are as many Xids, each with its address; no older ones."""
    one, other = profiles.TWO_GPUS_WITH_MIG.gpus
    fake.become(Machine((one.telling(1, 79), other)))
    drive = driven()
    drive.next()
    for serial in range(2, 9):
        one = one.telling(serial, 31 if serial % 2 else 4242)
    fake.become(Machine((one, other.telling(9, 48))))
    seen: list[GpuXid] = []
    while len(seen) < 8:
        seen += [o for o in drive.next(lambda o: isinstance(o, GpuXid)) if isinstance(o, GpuXid)]
    assert [(x.facts.pci, x.facts.number) for x in seen] == [
        *[("0000:1b:00.0", 31 if serial % 2 else 4242) for serial in range(2, 9)],
        ("0000:43:00.0", 48),
    ]
    assert {x.facts.source for x in seen} == {XidSource.NVML}


def test_an_xid_rings(fake: FakeNvml, driven: Drive) -> None:
    """The descriptor is readable from the event to the read that tells it."""
    fake.become(profiles.RTX_5090_LAPTOP)
    drive = driven()
    drive.next()
    fd = drive.sensor.wakeup_fd()
    assert fd is not None
    assert select.select([fd], [], [], 0)[0] == []
    fake.become(Machine((profiles.RTX_5090_LAPTOP.gpus[0].telling(1, 31),)))
    assert select.select([fd], [], [], 10)[0] == [fd]
    assert [type(o) for o in drive.sensor.read(clock.now())][:1] == [GpuXid]
    assert select.select([fd], [], [], 0)[0] == []
    drive.sensor.close()
    assert drive.sensor.wakeup_fd() is None


def test_an_xid_that_takes_the_driver_along_is_still_told(fake: FakeNvml, driven: Drive) -> None:
    """What came before sight went is told with the blindness."""
    fake.become(profiles.RTX_5090_LAPTOP)
    drive = driven()
    drive.next()
    fd = drive.sensor.wakeup_fd()
    assert fd is not None
    gpu = profiles.RTX_5090_LAPTOP.gpus[0].telling(1, 79)
    fake.become(Machine((gpu,)).also("code nvmlDeviceGetClockInfo 9"))
    assert select.select([fd], [], [], 10)[0] == [fd]
    sampling = drive.sensor._worker
    assert sampling is not None
    sampling.ask()
    sampling._thread.join(10)
    with pytest.raises(SensorBlind) as caught:
        drive.sensor.read(clock.now())
    xid, absent = caught.value.last
    assert isinstance(xid, GpuXid)
    assert isinstance(absent, GpuAbsent)
    assert (xid.facts.number, absent.why) == (79, Absence.NO_DRIVER)


def test_more_xids_than_fit_are_counted_as_lost(
    fake: FakeNvml, driven: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A storm of events costs its oldest, and the Gap says how many."""
    monkeypatch.setattr(worker, "_QUEUE", 5)
    fake.become(profiles.RTX_5090_LAPTOP)
    drive = driven()
    drive.next()
    gpu = profiles.RTX_5090_LAPTOP.gpus[0]
    for serial in range(1, 12):
        gpu = gpu.telling(serial, 13)
    fake.become(Machine((gpu,)))
    events = drive.sensor._worker and drive.sensor._worker._events
    assert events is not None
    until = time.monotonic() + 10
    while events._lost < 6 and time.monotonic() < until:
        time.sleep(0.01)
    found = drive.next(lambda o: isinstance(o, Gap))
    assert [o.lost for o in found if isinstance(o, Gap)] == [6]
    assert len([o for o in found if isinstance(o, GpuXid)]) == 5


def test_a_changed_recovery_action_is_read_at_once(fake: FakeNvml, driven: Drive) -> None:
    """The event brings the slow facts forward."""
    fake.become(profiles.RTX_5090_LAPTOP)
    drive = driven()
    drive.next()
    gpu = profiles.RTX_5090_LAPTOP.gpus[0].telling(1, 2, type_=profiles.RECOVERY_EVENT)
    fake.become(Machine((gpu.having(recovery_action=2),)))
    found = drive.next(lambda o: isinstance(o, GpuState) and o.facts.recovery_action == 2)
    assert not [o for o in found if isinstance(o, GpuXid)]


def test_an_older_driver_gives_its_reasons_under_their_first_name(fake: FakeNvml, driven: Drive) -> None:
    """What holds a clock down was called throttling before 535."""
    fake.become(profiles.RTX_5090_LAPTOP.also("code nvmlDeviceGetCurrentClocksEventReasons 13"))
    (state,) = _states(driven().next())
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
    (state,) = _states(drive.next())
    assert (state.facts.temperature_celsius, state.facts.sm_clock_mhz) == (None, 2407)
    assert Unread("temperature_celsius", 13) in state.facts.unread


def test_a_gpu_without_xid_events_says_so(fake: FakeNvml, driven: Drive) -> None:
    """One of three sources is missing, and its code is told."""
    fake.become(Machine((profiles.LAPTOP.lacking("event_types"), profiles.LAPTOP.having(event_types=1))))
    codes = [{u.fact: u.code for u in s.facts.unread}["xids"] for s in _states(driven().next())]
    assert codes == [3, 3]


def test_a_wait_that_fails_is_told_as_long_as_it_does(
    fake: FakeNvml, driven: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No GPU's Xids are heard while the waiting ends at once with a code; with none they are again."""
    monkeypatch.setattr(worker, "CALL_S", 0.05)
    fake.become(profiles.RTX_5090_LAPTOP.also("code nvmlEventSetWait_v2 999"))
    drive = driven()
    drive.next(lambda o: isinstance(o, GpuState) and Unread("xids", 999) in o.facts.unread)
    fake.become(profiles.RTX_5090_LAPTOP)
    drive.next(lambda o: isinstance(o, GpuState) and "xids" not in {u.fact for u in o.facts.unread})


def test_a_gpu_that_spoils_the_set_of_events_is_left_out_of_it(fake: FakeNvml, driven: Drive) -> None:
    """A registration that ends with 999 leaves a set that is of no use: the other GPU gets a fresh one."""
    one, other = profiles.TWO_GPUS_WITH_MIG.gpus
    other = other.having("code nvmlDeviceRegisterEvents 999")
    fake.become(Machine((one, other)))
    drive = driven()
    told = [{u.fact: u.code for u in state.facts.unread}.get("xids") for state in _states(drive.next())]
    assert told == [None, 999]
    assert (fake.calls("nvmlEventSetCreate"), fake.calls("nvmlEventSetFree")) == (2, 1)
    fake.become(Machine((one.telling(1, 31), other)))
    (xid,) = [o for o in drive.next(lambda o: isinstance(o, GpuXid)) if isinstance(o, GpuXid)]
    assert (xid.facts.pci, xid.facts.number) == ("0000:1b:00.0", 31)


def test_what_does_not_change_is_read_once(fake: FakeNvml, driven: Drive) -> None:
    """Names and addresses are asked once, slow facts not each time, unsupported ones not again."""
    fake.become(profiles.GB10)
    drive = driven()
    for _ in range(7):
        drive.next(_is_state)
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
    drive.next(_is_state)
    assert fake.calls("nvmlDeviceGetPowerUsage") <= 1 + drive.reads


def test_a_defect_of_ours_is_raised_to_whoever_reads(fake: FakeNvml, driven: Drive) -> None:
    """An exception that is none of NVML's does not leave a sensor that says nothing for ever."""
    fake.become(profiles.RTX_5090_LAPTOP)

    def connect() -> worker.Connection:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        driven(connect=connect)


def _bus(folder: Path, **devices: tuple[str, str]) -> Path:
    for name, (vendor, class_) in devices.items():
        device = folder / "bus" / "pci" / "devices" / name
        device.mkdir(parents=True)
        (device / "vendor").write_text(f"{vendor}\n")
        (device / "class").write_text(f"{class_}\n")
    return folder


def test_a_host_without_a_gpu_is_not_blind(driven: Drive, tmp_path: Path) -> None:
    """Its bus lists none and there is no library: that is said once a minute, and costs no thread."""
    sys_folder = _bus(tmp_path, disk=("0x1af4", "0x010000"), nvidia_audio=("0x10de", "0x040300"))
    drive = driven(sys_folder=sys_folder, installed=lambda: False)
    now = clock.now()
    said = GpuAbsent(SensorName("gpu.nvml"), now, None, Absence.NO_DEVICE, None)
    assert [list(drive.sensor.read(now)) for _ in range(3)] == [[said]] * 3
    assert drive.sensor.period_s == 60
    assert drive.sensor.wakeup_fd() is None
    assert not [t for t in threading.enumerate() if t.name == "nvml"]


def test_a_gpu_that_is_plugged_in_is_found(fake: FakeNvml, driven: Drive, tmp_path: Path) -> None:
    """The bare host looks again; the next opening begins to watch."""
    fake.become(profiles.RTX_5090_LAPTOP)
    sys_folder = _bus(tmp_path / "sys", disk=("0x1af4", "0x010000"))
    drive = driven(sys_folder=sys_folder, installed=lambda: False)
    drive.sensor.read(clock.now())
    _bus(sys_folder, gpu=("0x10de", "0x030000"))
    with pytest.raises(SensorBlind, match="turned up"):
        drive.sensor.read(clock.now())
    again = driven(sys_folder=sys_folder, installed=lambda: False)
    assert len(_states(again.next(_is_state))) == 1
    assert again.sensor.period_s == 1
