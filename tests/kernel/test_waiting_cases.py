"""Faults of waiting, made for real: sensors, detectors and case book, until the case opens and clears.

The clock of the judgement is moved where a fault has to last; what happens to processes happens for real.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest

from agent.cases import CaseBook
from agent.detector import DetectorConfig
from agent.detectors import cpu_contention, cpu_quota, memory_thrashing
from agent.detectors.registry import DETECTORS
from agent.host.witness import Witness
from agent.judge import Judge, hysteresis_of
from agent.testing import HOST, KERNEL_BOOT, SURROUNDINGS
from escalation.model import (
    CasePhase,
    CaseReport,
    FaultClass,
    ReasonCode,
    RunDelayEvidence,
    Severity,
    Subject,
    SubjectKind,
)
from probes import registry
from probes.host import clock
from probes.host.identity import Identifier
from probes.host.known_servers import KnownServer, KnownServers
from probes.host.neighbours import CgroupUse
from probes.host.process_stats import stat_of
from probes.host.processes import PERIOD_S, ProcessesSensor
from probes.host.quotas import Quotas
from probes.host.waits import PressureSensor
from probes.kernel.run_delay import RunDelaySensor
from probes.observation import Gap, Instant, Seeing
from probes.sensor import Sensor
from tests.kernel.conftest import Cgroups, LoadRun

pytestmark = [pytest.mark.root, pytest.mark.ebpf]

_MIB = 1 << 20
_BURN = "import os\nos.sched_setaffinity(0, {0})\nprint(flush=True)\nwhile True: pass"
_PRESSED = (
    "some avg10=60.00 avg60=60.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
)


class Stage:
    """Real sensors on this machine, every detector, and the cases that come of them."""

    def __init__(self, loaded: LoadRun) -> None:
        self.host = registry.surroundings(loaded.handover)
        self.identifier: Identifier = self.host.identifier
        self.known = KnownServers()
        self.sensors: list[Sensor] = []
        self.reports: list[CaseReport] = []
        self._shift_ns = 0
        self._witness = Witness(cgroups=self.host.mounts.unified)
        self.tune({})

    def tune(self, settings: Mapping[type, DetectorConfig]) -> None:
        """Judge with these settings in place of the usual ones."""
        detectors = [kind.build(settings.get(kind, kind.SETTINGS()), SURROUNDINGS) for kind in DETECTORS]
        book = CaseBook(agent_id=HOST, kernel_boot_id=KERNEL_BOOT, hysteresis=hysteresis_of(detectors))
        self.judge = Judge(
            detectors=detectors, book=book, failed=lambda name, error: pytest.fail(f"{name}: {error!r}")
        )

    def add(self, *sensors: Sensor) -> None:
        """Open sensors and let them be read."""
        for sensor in sensors:
            sensor.open()
            self.sensors.append(sensor)
            self.judge.observe([Gap(sensor.name, self.now(), Seeing())], self.now())
            sensor.read(self.now())

    def registered(self, name: str) -> Sensor:
        """Return a sensor of the registry."""
        return next(each for each in registry.SENSORS if each.name == name).build(self.host)

    def serve(self, *processes: subprocess.Popen[str]) -> None:
        """Let these processes be the servers of the host."""
        self.known.post(
            KnownServer(self.identifier.origin(pid=each.pid), 8000, (each.pid,)) for each in processes
        )

    def now(self) -> Instant:
        """Return the moment on the shifted clock."""
        moment = clock.now()
        return Instant(moment.boot_ns + self._shift_ns, moment.unix_ns + self._shift_ns)

    def later(self, seconds: float) -> None:
        """Let time pass in which nothing is read."""
        self._shift_ns += int(seconds * 1e9)

    def look(self) -> None:
        """Read every sensor once and judge what they say, and the time that has passed."""
        for sensor in self.sensors:
            now = self.now()
            self.reports.extend(self.judge.observe(sensor.read(now), now).bodies)
        asked = self.judge.questions()
        world = self._witness.look(asked.places, asked.processes)
        self.reports.extend(self.judge.tick(self.now(), world).bodies)

    def until(
        self, fault: FaultClass, phase: CasePhase, *, seconds: float = 20.0, every_s: float = 0.2
    ) -> CaseReport:
        """Look until a case of that class is in that phase, and return it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.look()
            for report in self.of(fault):
                if report.phase is phase:
                    return report
            time.sleep(every_s)
        said = [(each.fault_class, each.phase, each.subject) for each in self.reports]
        pytest.fail(f"no {fault} was {phase}: {said}")

    def of(self, fault: FaultClass) -> Sequence[CaseReport]:
        """Return what was reported of a class."""
        return [report for report in self.reports if report.fault_class is fault]

    def close(self) -> None:
        """Close the sensors."""
        for sensor in self.sensors:
            sensor.close()


@pytest.fixture
def stage(loaded: LoadRun) -> Iterator[Stage]:
    """A stage without sensors."""
    made = Stage(loaded)
    yield made
    made.close()


@pytest.fixture
def start(cgroups: Callable[..., Cgroups]) -> Iterator[Callable[[Cgroups, str], subprocess.Popen[str]]]:
    """Start pieces of Python in cgroups and wait for their first line; they end before the groups go."""
    running: list[subprocess.Popen[str]] = []

    def start_(group: Cgroups, code: str) -> subprocess.Popen[str]:
        process = group.start(code)
        running.append(process)
        assert process.stdout
        process.said = process.stdout.readline()  # type: ignore[attr-defined]  # for who needs it
        return process

    yield start_
    for process in running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)
        process.kill()
        process.communicate()


def of_cgroup(group: Cgroups) -> Subject:
    """Return the subject that a test's group is."""
    return Subject(SubjectKind.CGROUP, group.name)


def processes_sensor(stage: Stage) -> ProcessesSensor:
    """Return a sensor that looks at all processes whatever the load."""
    return ProcessesSensor(
        identifier=stage.identifier, known=stage.known, mounts=stage.host.mounts, least_load=0.0
    )


def pressure_sensor(stage: Stage) -> PressureSensor:
    """Return a sensor that knows the stage's servers."""
    return PressureSensor(
        identifier=stage.identifier,
        known=stage.known,
        quotas=Quotas(mounts=stage.host.mounts),
        root=stage.host.mounts.unified,
    )


def until_state(pid: int, states: str) -> None:
    """Wait until a process is in one of these states."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        stat = stat_of(f"/proc/{pid}")
        if stat is not None and stat.state in states:
            return
        time.sleep(0.01)
    pytest.fail(f"process {pid} never was in one of the states {states}")


def test_a_quota_of_a_tenth_of_a_core(
    stage: Stage,
    cgroups: Callable[..., Cgroups],
    start: Callable[[Cgroups, str], subprocess.Popen[str]],
) -> None:
    """A busy loop under a quota: throttled in most periods; lifting the quota clears it."""
    group = cgroups("cpu")
    quota = group.folders["cpu"] / "cpu.cfs_quota_us"
    quota.write_text("10000")
    settings = cpu_quota.Config(window_s=2.0, periods=10, start_s=0.0, clear_hold_s=0.0)
    stage.tune({cpu_quota.CpuQuota: settings})
    stage.serve(start(group, _BURN))
    stage.add(pressure_sensor(stage))
    opened = stage.until(FaultClass.CPU_QUOTA_THROTTLED, CasePhase.OPENED)
    assert (opened.subject, opened.severity) == (of_cgroup(group), Severity.NOTE)
    assert [reason.code for reason in opened.reasons] == [
        ReasonCode.QUOTA_THROTTLES,
        ReasonCode.SECOND_LAYER_UNKNOWN,
    ]
    quota.write_text("-1")
    cleared = stage.until(FaultClass.CPU_QUOTA_THROTTLED, CasePhase.CLEARED)
    assert cleared.reasons[0].code is ReasonCode.THROTTLING_ENDED


def test_a_busy_loop_beside_a_server(
    stage: Stage,
    cgroups: Callable[..., Cgroups],
    start: Callable[[Cgroups, str], subprocess.Popen[str]],
    tmp_path: Path,
) -> None:
    """Two on one processor: the server waits, the neighbour is named; when it runs no more, it is over."""
    own, other = cgroups(), cgroups()
    server = start(own, _BURN)
    stage.serve(server)
    settings = cpu_contention.Config(
        contended_percent=0.5, wait_s=0.0015, waited_share=0.2, lasting_s=0.0, clear_hold_s=0.0
    )
    stage.tune({cpu_contention.CpuContention: settings})
    gate = tmp_path / "cpu"
    gate.write_text(_PRESSED)
    delays = RunDelaySensor(
        handover=stage.host.handover,
        known=stage.known,
        use=CgroupUse(mounts=stage.host.mounts),
        pressure=gate,
    )
    neighbour = start(other, _BURN)
    stage.add(pressure_sensor(stage), delays)
    opened = stage.until(FaultClass.CPU_CONTENTION, CasePhase.OPENED, every_s=1.0)
    assert opened.subject == of_cgroup(own)
    assert opened.severity is Severity.MEDIUM
    (evidence,) = (each for each in opened.evidence if isinstance(each, RunDelayEvidence))
    assert evidence.neighbour not in (
        "",
        own.name,
    )  # on a machine with other work that may be another's group
    assert evidence.waited_s > 0
    neighbour.kill()
    os.kill(server.pid, signal.SIGSTOP)  # other work of the machine may hold the processor as well
    cleared = stage.until(FaultClass.CPU_CONTENTION, CasePhase.CLEARED)
    assert cleared.reasons[0].code is ReasonCode.CPU_FREE_AGAIN


def test_a_group_whose_files_do_not_fit(
    stage: Stage,
    cgroups: Callable[..., Cgroups],
    start: Callable[[Cgroups, str], subprocess.Popen[str]],
    tmp_path: Path,
) -> None:
    """A limit below the working set: it reclaims and stalls. The disk is fast, so the share is small here."""
    group, data = cgroups("memory"), tmp_path / "weights"
    (group.folders["memory"] / "memory.limit_in_bytes").write_text(str(16 * _MIB))
    with data.open("wb") as file:
        file.write(os.urandom(48 * _MIB))
        os.fsync(file.fileno())
    settings = memory_thrashing.Config(stalled_percent=0.05, lasting_s=0.0)
    stage.tune({memory_thrashing.MemoryThrashing: settings})
    stage.add(stage.registered("kernel.reclaim"))
    reader = start(
        group,
        "import mmap, os, random\n"
        f"fd = os.open({str(data)!r}, os.O_RDONLY)\n"
        "os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)\n"
        "held = mmap.mmap(fd, 0, prot=mmap.PROT_READ); held.madvise(mmap.MADV_RANDOM)\n"
        "print(flush=True)\n"
        "while True: held[random.randrange(len(held))]\n",
    )
    opened = stage.until(FaultClass.MEMORY_THRASHING, CasePhase.OPENED, seconds=30, every_s=0.5)
    assert (opened.subject, opened.severity) == (of_cgroup(group), Severity.HIGH)
    assert [reason.code for reason in opened.reasons] == [
        ReasonCode.TASKS_STALL_FOR_MEMORY,
        ReasonCode.RECLAIMS_DIRECTLY,
    ]
    reader.kill()
    reader.wait()
    group.folders[""].rmdir()
    cleared = stage.until(FaultClass.MEMORY_THRASHING, CasePhase.CLEARED)
    assert cleared.reasons[0].code is ReasonCode.CGROUP_GONE
    group.folders[""].mkdir()


def test_a_process_with_thirty_two_descriptors(
    stage: Stage,
    cgroups: Callable[..., Cgroups],
    start: Callable[[Cgroups, str], subprocess.Popen[str]],
) -> None:
    """It accepts until it may not; the case ends with the process."""
    group = cgroups()
    stage.add(stage.registered("kernel.descriptors"))
    server = start(
        group,
        "import resource, socket, time\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))\n"
        "server = socket.create_server(('127.0.0.1', 0), backlog=64); held = []\n"
        "print(server.getsockname()[1], flush=True)\n"
        "while True:\n"
        "    try: held.append(server.accept()[0])\n"
        "    except OSError: time.sleep(0.01)\n",
    )
    port = int(server.said)  # type: ignore[attr-defined]  # its first line
    with contextlib.ExitStack() as clients:
        for _ in range(40):
            clients.enter_context(socket.create_connection(("127.0.0.1", port)))
        opened = stage.until(FaultClass.PROCESS_FD_EXHAUSTED, CasePhase.OPENED)
    assert (opened.subject, opened.severity) == (of_cgroup(group), Severity.HIGH)
    assert [(r.code, r.threshold) for r in opened.reasons] == [
        (ReasonCode.DESCRIPTORS_REFUSED, 5.0),
        (ReasonCode.DESCRIPTOR_LIMIT_REACHED, 32.0),
    ]
    assert opened.incarnation is not None
    assert opened.incarnation.pid == server.pid
    server.kill()
    server.wait()
    cleared = stage.until(FaultClass.PROCESS_FD_EXHAUSTED, CasePhase.CLEARED)
    assert cleared.reasons[0].code is ReasonCode.PROCESS_GONE


def test_a_stopped_server_with_two_clients(
    stage: Stage,
    cgroups: Callable[..., Cgroups],
    start: Callable[[Cgroups, str], subprocess.Popen[str]],
) -> None:
    """SIGSTOP, two connects: high, with the process that has to go on; SIGCONT clears it."""
    group = cgroups()
    server = start(
        group,
        "import socket\nserver = socket.create_server(('127.0.0.1', 0)); held = []\n"
        "print(server.getsockname()[1], flush=True)\nwhile True: held.append(server.accept()[0])\n",
    )
    port = int(server.said)  # type: ignore[attr-defined]  # its first line
    stage.add(processes_sensor(stage))
    os.kill(server.pid, signal.SIGSTOP)
    until_state(server.pid, "T")
    with socket.create_connection(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)):
        stage.look()
        stage.later(PERIOD_S)
        opened = stage.until(FaultClass.PROCESS_NOT_ANSWERING, CasePhase.OPENED)
        assert (opened.subject, opened.severity) == (of_cgroup(group), Severity.HIGH)
        assert opened.incarnation is not None
        assert opened.incarnation.pid == server.pid
        os.kill(server.pid, signal.SIGCONT)
        cleared = stage.until(FaultClass.PROCESS_NOT_ANSWERING, CasePhase.CLEARED)
    assert cleared.reasons[0].code is ReasonCode.CONNECTIONS_TAKEN_AGAIN


def test_a_write_to_a_frozen_filesystem(
    stage: Stage, cgroups: Callable[..., Cgroups], frozen: Path, impatient_kernel: None
) -> None:
    """Stuck at every look: a note; found by the kernel's watchdog: high; thawed: over."""
    assert impatient_kernel is None
    group = cgroups()
    stage.add(stage.registered("kernel.task_hang"), processes_sensor(stage))
    process = group.start(f"open({str(frozen / 'file')!r}, 'w').write('x')")
    try:
        until_state(process.pid, "D")
        for _ in range(3):
            stage.look()
            stage.later(PERIOD_S)
        stage.until(FaultClass.PROCESS_UNINTERRUPTIBLE, CasePhase.OPENED)
        end = time.monotonic() + 10
        while stage.of(FaultClass.PROCESS_UNINTERRUPTIBLE)[-1].severity is not Severity.HIGH:
            assert time.monotonic() < end
            time.sleep(0.2)
            stage.look()
        told = stage.of(FaultClass.PROCESS_UNINTERRUPTIBLE)[-1]
        assert told.subject == of_cgroup(group)
        assert ReasonCode.KERNEL_REPORTS_HANG in {reason.code for reason in told.reasons}
    finally:
        subprocess.run(["fsfreeze", "-u", frozen], check=True)
        process.communicate(timeout=10)
    cleared = stage.until(FaultClass.PROCESS_UNINTERRUPTIBLE, CasePhase.CLEARED)
    assert cleared.reasons[0].code is ReasonCode.PROCESS_GONE


def test_settings_of_these_detectors_are_checked() -> None:
    """A share above one, or a window of nothing, is refused."""
    for kind, wrong in (
        (cpu_quota.Config, {"throttled_share": 2.0}),
        (cpu_contention.Config, {"above_usual": 1.0}),
        (memory_thrashing.Config, {"stalled_percent": 0.0}),
    ):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(wrong, kind)
