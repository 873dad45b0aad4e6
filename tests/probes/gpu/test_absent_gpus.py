"""What the sensor cannot see: hosts without GPUs, absent libraries, GPUs that are gone or missed."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from probes.gpu import worker
from probes.gpu.facts import Absence
from probes.host import clock
from probes.observation import BlindReason, GpuAbsent, GpuState, SensorName
from probes.sensor import SensorBlind
from tests.fake_nvml import profiles
from tests.fake_nvml.fake import FakeNvml
from tests.fake_nvml.profiles import Machine
from tests.probes.gpu.conftest import Drive, is_state, states

_UNASKED = profiles.TWO_GPUS_WITH_MIG
_NO_ACCESS = BlindReason.NO_DEVICE_ACCESS


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
    assert states(found) == []
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
    assert len(states(drive.next())) == 2
    fake.become(two.with_gpu(1, two.gpus[1].having("code all 15")))
    found = drive.next(lambda o: isinstance(o, GpuAbsent))
    (absent,) = [o for o in found if isinstance(o, GpuAbsent)]
    assert absent.gpu is not None
    assert (absent.gpu.pci, absent.why, absent.code) == ("0000:43:00.0", Absence.LOST, 15)
    assert [s.facts.gpu.pci for s in states(found)] == ["0000:1b:00.0"]
    fake.become(two)
    found = drive.next(lambda o: isinstance(o, GpuState) and o.facts.gpu.pci == "0000:43:00.0")
    assert len(states(found)) == 2


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
    assert len(states(found)) == 1


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
        assert [(s.facts.gpu.uuid, s.facts.gpu.index) for s in states(found)] == [(two.gpus[1].uuid, 0)]
    fake.become(Machine())
    missed: set[str | None] = set()
    while missed != {gpu.uuid for gpu in two.gpus}:
        missed = {o.gpu.uuid for o in drive.next() if isinstance(o, GpuAbsent) and o.gpu}
    fake.become(two)
    found = drive.next(lambda o: isinstance(o, GpuState) and o.facts.gpu.uuid == two.gpus[0].uuid)
    assert len(states(found)) == 2


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
    assert [o for o in driven(sys_folder=sys_folder).next(is_state) if isinstance(o, GpuAbsent)] == []


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
    assert len(states(again.next(is_state))) == 1
    assert again.sensor.period_s == 1
