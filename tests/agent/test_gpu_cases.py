"""Every machine of the fake NVML, through the real binding, the sensor, all detectors and the case book."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from agent.cases import CaseBook
from agent.detector import Surroundings, World
from agent.detectors.registry import DETECTORS
from agent.judge import Judge, hysteresis_of
from agent.testing import HOST, KERNEL_BOOT, SURROUNDINGS
from escalation.model import CasePhase, CaseReport, FaultClass, ReasonCode, Severity, Subject, SubjectKind
from probes.gpu.sensor import NAME, NvmlSensor
from probes.host import clock
from probes.host.cgroups import CgroupPaths
from probes.host.identity import Identifier
from probes.observation import Gap, GpuAbsent, Instant, Observation, Seeing
from probes.sensor import SensorBlind
from tests.fake_nvml import profiles
from tests.fake_nvml.fake import FakeNvml
from tests.fake_nvml.profiles import NO_INSTANCE, FakeGpu, Machine
from tests.probes.gpu.conftest import built, fake  # noqa: F401  # fixtures

APPLICATION, DEVICE, DRIVER, BLIND = (
    FaultClass.GPU_APPLICATION_XID,
    FaultClass.GPU_DEVICE_FAULT,
    FaultClass.GPU_DRIVER_MISMATCH,
    FaultClass.MONITOR_BLIND,
)
LAPTOP = Subject(SubjectKind.GPU, "0000:01:00.0")
HERE = Subject(SubjectKind.HOST, HOST)
_PATIENCE_S = 10.0


class Host:
    """A sensor and every detector, driven by hand; `later` moves the clock of all of them."""

    def __init__(
        self, *, proc: Path, surroundings: Surroundings = SURROUNDINGS, open_s: float = _PATIENCE_S
    ) -> None:
        self.reports: list[CaseReport] = []
        self.seen: list[Observation] = []
        self._shift_s = 0.0
        detectors = [kind.build(kind.SETTINGS(), surroundings) for kind in DETECTORS]
        book = CaseBook(agent_id=HOST, kernel_boot_id=KERNEL_BOOT, hysteresis=hysteresis_of(detectors))
        self._judge = Judge(
            detectors=detectors, book=book, failed=lambda name, error: pytest.fail(f"{name}: {error!r}")
        )
        cgroups = CgroupPaths(root=Path("/sys/fs/cgroup"), monotonic=time.monotonic)
        self.sensor = NvmlSensor(
            identifier=Identifier(cgroups=cgroups),
            clock=self.now,
            proc=proc,
            sys_folder=proc.parent / "no-sys",
            open_s=open_s,
        )
        self._open = False

    def now(self) -> Instant:
        """Return the moment on the shifted clock."""
        moment, shift_ns = clock.now(), int(self._shift_s * 1e9)
        return Instant(moment.boot_ns + shift_ns, moment.unix_ns + shift_ns)

    def later(self, seconds: float) -> None:
        """Let time pass in which nothing is read."""
        self._shift_s += seconds

    def look(self) -> None:
        """Open the sensor if need be, read it once, judge what it says."""
        now = self.now()
        try:
            if not self._open:
                self.sensor.open()
                self._open = True
                self.take([Gap(NAME, now, Seeing())])
            self.take(self.sensor.read(now))
        except SensorBlind as error:
            self._open = False
            self.sensor.close()
            self.take([*error.last, Gap(NAME, now, error.blind)])
        self.reports.extend(self._judge.tick(self.now(), World()).bodies)

    def until(self, wanted: Callable[[], bool]) -> None:
        """Look until something is so; threads need their moment."""
        end = time.monotonic() + _PATIENCE_S
        while not wanted():
            assert time.monotonic() < end, (self._judge, self.reports, self.seen[-4:])
            self.look()
            time.sleep(0.01)

    def misses(self) -> bool:
        """Whether a GPU was told to be absent."""
        return any(isinstance(seen, GpuAbsent) for seen in self.seen)

    def rounds(self, count: int) -> None:
        """Look until so many more were told of what is read from now on; a slow thread tells of before."""
        told, since_ns = len(self.seen), self.now().boot_ns
        self.until(lambda: sum(seen.at.boot_ns >= since_ns for seen in self.seen[told:]) >= count)

    def open_cases(self) -> set[tuple[FaultClass, Subject]]:
        """Return what stands open."""
        return {(case.fault_class, case.subject) for case in self._judge.book.open_cases(FaultClass)}

    def opened(self, fault: FaultClass) -> CaseReport:
        """Return the first report of a fault."""
        return next(r for r in self.reports if r.fault_class is fault and r.phase is CasePhase.OPENED)

    def take(self, observations: Sequence[Observation]) -> None:
        """Judge what was observed, by this sensor or beside it."""
        self.seen.extend(observations)
        self.reports.extend(self._judge.observe(observations, self.now()).bodies)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host of this test's own."""
    made = Host(proc=tmp_path / "proc")
    yield made
    made.sensor.close()


def _laptop(*further: str, **numbers: int) -> FakeGpu:
    return profiles.RTX_5090_LAPTOP.gpus[0].having(*further, **numbers)


@pytest.mark.parametrize(
    "machine",
    [profiles.RTX_5090_LAPTOP, profiles.TWO_GPUS_WITH_MIG, profiles.GB10, profiles.EIGHT_GPUS, Machine()],
    ids=["laptop", "MIG", "GB10", "eight", "none"],
)
def test_a_machine_that_is_well_has_no_case(fake: FakeNvml, host: Host, machine: Machine) -> None:  # noqa: F811
    """Idle or loaded, whatever it does not tell, nothing is made of it."""
    fake.become(machine)
    host.rounds(30)
    host.later(3600)
    host.rounds(30)
    assert host.reports == []


def test_a_lost_gpu_is_a_fault_of_the_device(fake: FakeNvml, host: Host) -> None:  # noqa: F811
    """From its start, by its index, because nothing more is told of it."""
    fake.become(profiles.GPU_LOST)
    host.until(host.misses)
    host.later(6)
    host.until(lambda: bool(host.open_cases()))
    opened = host.opened(DEVICE)
    assert (opened.subject, opened.severity) == (Subject(SubjectKind.GPU, "index 0"), Severity.HIGH)
    assert opened.reasons[0].code is ReasonCode.GPU_IS_LOST


def test_a_gpu_that_needs_a_reset_is_a_fault_and_clears_an_hour_after_it(
    fake: FakeNvml,  # noqa: F811
    host: Host,
) -> None:
    """Lost while it ran, by its address; when it answers again, an hour of quiet is waited for."""
    fake.become(profiles.RTX_5090_LAPTOP)
    host.rounds(2)
    fake.become(Machine((_laptop("code all 16"),)))
    host.until(lambda: (DEVICE, LAPTOP) in host.open_cases())
    assert host.opened(DEVICE).reasons[0].code is ReasonCode.GPU_NEEDS_RESET
    fake.become(profiles.RTX_5090_LAPTOP)
    host.rounds(20)
    assert (DEVICE, LAPTOP) in host.open_cases()
    host.later(3601)
    host.rounds(2)
    host.later(31)
    host.until(lambda: not host.open_cases())
    assert host.reports[-1].phase is CasePhase.CLEARED
    assert [r.code for r in host.reports[-1].reasons] == [
        ReasonCode.NO_XID_SINCE,
        ReasonCode.GPU_ANSWERS_AGAIN,
    ]


def test_an_advised_recovery_with_its_xid_is_critical(fake: FakeNvml, host: Host) -> None:  # noqa: F811
    """An Xid 119, the 154 that follows, and field 230: one case with both layers."""
    gpu = _laptop()
    fake.become(Machine((gpu,)))
    host.rounds(2)
    fake.become(Machine((gpu.having(recovery_action=1).telling(1, 119).telling(2, 154),)))
    host.until(lambda: any(r.severity is Severity.CRITICAL for r in host.reports))
    assert host.open_cases() == {(DEVICE, LAPTOP)}
    last = host.reports[-1]
    assert {r.code for r in last.reasons} == {ReasonCode.RECOVERY_IS_ADVISED, ReasonCode.XID_REPORTED}


def test_another_version_is_a_mismatch_and_a_blind_sensor_but_no_fault_of_a_gpu(
    fake: FakeNvml,  # noqa: F811
    host: Host,
) -> None:
    """Code 18 is the host's case; the blindness is one of its own after its grace."""
    fake.become(profiles.LIBRARY_MISMATCH)
    host.look()
    assert host.open_cases() == {(DRIVER, HERE)}
    host.later(61)
    host.look()
    assert host.open_cases() == {(DRIVER, HERE), (BLIND, Subject(SubjectKind.SENSOR, "gpu.nvml"))}
    fake.become(profiles.RTX_5090_LAPTOP)
    host.rounds(3)
    host.later(61)
    host.until(lambda: not host.open_cases())


@pytest.mark.parametrize(
    "machine",
    [
        profiles.NO_DRIVER,
        profiles.NO_PERMISSION,
        Machine().also("code nvmlInitWithFlags 12"),
        Machine().also("code nvmlInitWithFlags 17"),
        Machine().also("code nvmlInitWithFlags 999"),
    ],
    ids=["9", "4", "12", "17", "999"],
)
def test_what_keeps_nvml_away_is_blindness_alone(fake: FakeNvml, host: Host, machine: Machine) -> None:  # noqa: F811
    """No driver, no library, no permission: none of them is a mismatch or a broken GPU."""
    fake.become(machine)
    for _ in range(4):
        host.look()
        host.later(31)
    assert host.open_cases() == {(BLIND, Subject(SubjectKind.SENSOR, "gpu.nvml"))}


def test_a_hanging_call_is_blindness_alone(
    fake: FakeNvml,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A sick GPU may be behind it, but nothing says so."""
    host = Host(proc=tmp_path / "proc", open_s=0.5)
    monkeypatch.setattr("probes.gpu.worker.CALL_S", 0.1)
    monkeypatch.setattr("probes.gpu.worker.START_S", 0.1)
    fake.become(profiles.HANGING)
    host.until(lambda: any(isinstance(o, Gap) and not isinstance(o.coverage, Seeing) for o in host.seen))
    host.later(61)
    host.look()
    assert host.open_cases() == {(BLIND, Subject(SubjectKind.SENSOR, "gpu.nvml"))}
    host.sensor.close()


def test_xids_of_two_gpus_are_cases_of_their_own(fake: FakeNvml, host: Host) -> None:  # noqa: F811
    """A program's error on one, a fault of the device on the other; an unknown number stays visible."""
    one, other = profiles.TWO_GPUS_WITH_MIG.gpus
    fake.become(Machine((one, other)))
    host.rounds(2)
    fake.become(Machine((one.telling(1, 31).telling(2, 4242), other.telling(3, 95))))
    host.until(lambda: len(host.open_cases()) == 2)
    assert host.open_cases() == {
        (APPLICATION, Subject(SubjectKind.GPU, "0000:1b:00.0")),
        (DEVICE, Subject(SubjectKind.GPU, "0000:43:00.0")),
    }
    assert host.opened(APPLICATION).severity is Severity.NOTE
    assert host.opened(DEVICE).severity is Severity.HIGH


def test_both_gpus_lost_at_once_are_the_drivers_case(fake: FakeNvml, host: Host) -> None:  # noqa: F811
    """A note about the driver, and no fault of either GPU."""
    two = profiles.TWO_GPUS_WITH_MIG
    fake.become(two)
    host.rounds(3)
    fake.become(two.also("code nvmlDeviceGetClockInfo 15"))
    host.until(host.misses)
    host.later(6)
    host.until(lambda: bool(host.open_cases()))
    host.rounds(20)
    assert host.open_cases() == {(DRIVER, HERE)}
    assert host.opened(DRIVER).severity is Severity.NOTE


def test_a_killed_process_leaves_no_case(fake: FakeNvml, host: Host) -> None:  # noqa: F811
    """Its 43 and 45 come as it leaves the GPU."""
    staying = profiles.LAPTOP.running(4101)
    fake.become(Machine((staying.running(4102),)))
    host.rounds(3)
    fake.become(Machine((staying.telling(1, 43).telling(2, 45),)))
    host.rounds(30)
    host.later(120)
    host.rounds(3)
    assert host.reports == []


def test_idle_clocks_and_garbage_are_no_fault(fake: FakeNvml, host: Host) -> None:  # noqa: F811
    """A GPU at rest, and one whose numbers make no sense."""
    idle = _laptop(sm_clock=180, utilisation=0, clock_reasons=1, power=6_000)
    mad = profiles.EIGHT_GPUS.gpus[0].having(
        f"process compute {2**31} 18446744073709551615 {NO_INSTANCE} {NO_INSTANCE}",
        sm_clock=2**32 - 1,
        utilisation=4_000_000,
        power=2**32 - 1,
        temperature=2**31 - 1,
    )
    fake.become(Machine((idle, mad)))
    host.rounds(40)
    host.later(3600)
    host.rounds(20)
    assert host.reports == []
