"""Real disks that fill, fail and vanish: through the sensors and every detector to a case that clears."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from agent.cases import CaseBook
from agent.detector import World
from agent.detectors.registry import DETECTORS
from agent.judge import Judge, hysteresis_of
from agent.testing import HOST, KERNEL_BOOT, SURROUNDINGS
from escalation.model import (
    BlockEvidence,
    CasePhase,
    CaseReport,
    FaultClass,
    MountRole,
    ReasonCode,
    Severity,
    StorageEvidence,
    Subject,
    SubjectKind,
)
from probes import registry
from probes.host import clock
from probes.host.known_servers import KnownServer, KnownServers
from probes.host.readiness import ReadinessSensor
from probes.host.storage import StorageSensor
from probes.observation import Gap, Instant, Observation, Origin, Seeing, SensorName
from probes.sensor import Sensor
from probes.settings import StorageSettings
from tests.kernel.conftest import Cgroups, LoadRun
from tests.kernel.disks import MIB, Disk, disk, read_directly, thin_disk

pytestmark = [pytest.mark.root, pytest.mark.ebpf]

FULL, READ_ONLY = FaultClass.STORAGE_FULL, FaultClass.STORAGE_READ_ONLY
SLOW, SHM = FaultClass.STORAGE_SLOW_LOAD, FaultClass.CONTAINER_SHM_TOO_SMALL


class Host:
    """The sensors of storage and every detector, driven by hand; `later` moves the clock of all of them."""

    def __init__(self, sensors: Sequence[Sensor]) -> None:
        self.reports: list[CaseReport] = []
        self._shift_s = 0.0
        self._sensors = sensors
        detectors = [kind.build(kind.SETTINGS(), SURROUNDINGS) for kind in DETECTORS]
        book = CaseBook(agent_id=HOST, kernel_boot_id=KERNEL_BOOT, hysteresis=hysteresis_of(detectors))
        self._judge = Judge(
            detectors=detectors, book=book, failed=lambda name, error: pytest.fail(f"{name}: {error!r}")
        )
        for sensor in sensors:
            sensor.open()
            sensor.read(self.now())
            self._take([Gap(sensor.name, self.now(), Seeing())])

    def now(self) -> Instant:
        moment, shift_ns = clock.now(), int(self._shift_s * 1e9)
        return Instant(moment.boot_ns + shift_ns, moment.unix_ns + shift_ns)

    def later(self, seconds: float) -> None:
        """Let time pass in which nothing is read, and look again."""
        self._shift_s += seconds
        self.look()

    def look(self) -> None:
        """Read every sensor once and judge what it says."""
        time.sleep(0.02)
        for sensor in self._sensors:
            self._take(sensor.read(self.now()))
        self.reports.extend(self._judge.tick(self.now(), World()).bodies)

    def about(self, made: Disk) -> list[CaseReport]:
        """Return what was reported of a disk; others may come and go beside it."""
        return [report for report in self.reports if report.subject == _subject(made)]

    def about_fault(self, fault: FaultClass) -> list[CaseReport]:
        """Return what was reported of a class."""
        return [report for report in self.reports if report.fault_class is fault]

    def until(self, fault: FaultClass, phase: CasePhase, severity: Severity | None = None) -> CaseReport:
        """Look until a case of `fault` is reported so; return that report."""
        end = time.monotonic() + 10
        while time.monotonic() < end:
            for report in self.reports:
                if (
                    report.fault_class is fault
                    and report.phase is phase
                    and severity in {None, report.severity}
                ):
                    return report
            self.look()
        raise AssertionError(f"no {fault} {phase} {severity}: {self.reports}")

    def close(self) -> None:
        for sensor in self._sensors:
            sensor.close()

    def _take(self, seen: Sequence[Observation]) -> None:
        self.reports.extend(self._judge.observe(list(seen), self.now()).bodies)


@pytest.fixture
def watching(loaded: LoadRun) -> Iterator[Callable[..., Host]]:
    """Watch only the paths of a test, so that what others mount meanwhile is nobody's fault here."""
    made: list[Host] = []

    def watch(
        *,
        paths: Sequence[Path] = (),
        external: Sequence[Path] = (),
        known: KnownServers | None = None,
        deaths: bool = False,
    ) -> Host:
        settings = StorageSettings(paths=tuple(map(str, paths)), external=tuple(map(str, external)))
        # Every look is taken and told: a test does not wait for a timer.
        moments = iter(range(0, 10**9, 120))

        def monotonic() -> float:
            return float(next(moments))

        surroundings = registry.surroundings(loaded.handover)
        specs = {spec.name: spec for spec in registry.SENSORS}
        names = ["kernel.block", "kernel.storage_error", *(["kernel.fatal_signal"] if deaths else [])]
        kernel = [specs[SensorName(name)].build(surroundings) for name in names]
        looks = StorageSensor(settings=settings, monotonic=monotonic)
        readiness = ReadinessSensor(known=known or KnownServers(), monotonic=monotonic)
        host = Host([*kernel, looks, readiness])
        made.append(host)
        return host

    yield watch
    for host in made:
        host.close()


def _subject(made: Disk) -> Subject:
    return Subject(SubjectKind.MOUNT, str(made.point))


def _codes(report: CaseReport) -> set[ReasonCode]:
    return {reason.code for reason in report.reasons}


def _storage(report: CaseReport) -> StorageEvidence:
    (found,) = [each for each in report.evidence if isinstance(each, StorageEvidence)]
    return found


def test_a_full_filesystem_is_told_and_clears(watching: Callable[..., Host], tmp_path: Path) -> None:
    """Written until nothing fits: high, with the refused writes; freed again, it clears."""
    with disk(tmp_path) as made:
        host = watching(paths=[made.point])
        host.look()
        full = made.fill()
        opened = host.until(FULL, CasePhase.OPENED)
        assert (opened.subject, opened.severity) == (_subject(made), Severity.HIGH)
        assert {ReasonCode.SPACE_LOW, ReasonCode.WRITES_REFUSED} <= _codes(opened)
        evidence = _storage(opened)
        assert (evidence.role, evidence.filesystem) == (MountRole.DECLARED, "ext4")
        assert evidence.free_bytes is not None
        assert evidence.free_bytes < MIB // 2
        assert evidence.refused_writes > 0
        full.unlink()
        os.sync()
        host.later(700)
        host.later(61)
        assert host.until(FULL, CasePhase.CLEARED).subject == _subject(made)


def test_a_filesystem_without_inodes_is_told(watching: Callable[..., Host], tmp_path: Path) -> None:
    """Most of its space is free and no file can be made: the inodes are the reason, and no space is low."""
    with disk(tmp_path, inodes=16) as made:
        host = watching(paths=[made.point])
        host.look()
        for number in range(30):
            try:
                (made.point / f"file{number}").touch()
            except OSError:
                continue
        opened = host.until(FULL, CasePhase.OPENED)
        assert opened.subject == _subject(made)
        report = opened if opened.severity is Severity.HIGH else host.until(FULL, CasePhase.UPDATED)
        assert report.severity is Severity.HIGH
        assert {ReasonCode.INODES_LOW, ReasonCode.WRITES_REFUSED} <= _codes(report)
        assert ReasonCode.SPACE_LOW not in _codes(report)
        assert _storage(report).free_inodes == 0


def test_a_filesystem_that_turns_read_only_is_told_and_clears(
    watching: Callable[..., Host], tmp_path: Path
) -> None:
    """An error that ext4 finds makes it read-only: critical; mounted again and quiet, it clears."""
    with disk(tmp_path, options="errors=remount-ro") as made:
        host = watching(paths=[made.point])
        host.look()
        made.fail()
        host.until(READ_ONLY, CasePhase.OPENED)
        end = time.monotonic() + 5
        while not _reported(host, Severity.CRITICAL) and time.monotonic() < end:
            host.later(11)
        (worst,) = _reported(host, Severity.CRITICAL)[:1]
        assert worst.subject == _subject(made)
        assert {ReasonCode.MOUNT_READ_ONLY, ReasonCode.FILESYSTEM_ERRORS} <= _codes(worst)
        assert any(isinstance(each, StorageEvidence) and each.read_only for each in worst.evidence)
        made.unmount()
        made.mount()
        host.later(3700)
        host.later(31)
        assert ReasonCode.WRITABLE_AGAIN in _codes(host.until(READ_ONLY, CasePhase.CLEARED))


def _reported(host: Host, severity: Severity) -> list[CaseReport]:
    return [each for each in host.reports if each.fault_class is READ_ONLY and each.severity is severity]


def test_a_disk_that_loses_blocks_is_told(watching: Callable[..., Host], tmp_path: Path) -> None:
    """Reads that fail are a note on the filesystem above the disk, and what else fails makes it more."""
    with disk(tmp_path) as made:
        host = watching(paths=[made.point])
        (made.point / "file").write_bytes(os.urandom(4 * MIB))
        made.drop_caches()
        host.look()
        with (made.point / "file").open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        os.truncate(made.image, MIB)
        with pytest.raises(OSError, match="Input/output error"):
            (made.point / "file").read_bytes()
        opened = host.until(READ_ONLY, CasePhase.OPENED)
        assert (opened.subject, opened.severity) == (_subject(made), Severity.NOTE)
        assert ReasonCode.BLOCK_ERRORS in _codes(opened)


def test_writes_that_are_lost_on_the_way_are_told(watching: Callable[..., Host], tmp_path: Path) -> None:
    """The disk refuses what the filesystem had accepted: both say so, and that is high."""
    with thin_disk(tmp_path) as made:
        host = watching(paths=[made.point])
        host.look()
        with (made.point / "file").open("wb", buffering=0) as file:
            file.write(bytes(8 * MIB))
            with pytest.raises(OSError, match="No space left"):
                os.fsync(file.fileno())
        report = host.until(READ_ONLY, CasePhase.OPENED)
        assert report.subject == _subject(made)
        if report.severity is not Severity.HIGH:
            host.later(11)
            report = host.until(READ_ONLY, CasePhase.UPDATED, Severity.HIGH)
        assert ReasonCode.BLOCK_ERRORS in _codes(report)


def test_an_external_disk_that_vanishes_is_told_and_clears(
    watching: Callable[..., Host], tmp_path: Path
) -> None:
    """Unmounted, it is missing after a while, by the name of its mount point; back, it clears."""
    with disk(tmp_path) as made:
        host = watching(external=[made.point])
        host.look()
        made.unmount()
        host.later(1)
        assert host.about(made) == []
        host.later(40)
        opened = host.until(READ_ONLY, CasePhase.OPENED)
        assert (opened.subject, opened.severity) == (_subject(made), Severity.HIGH)
        assert _codes(opened) == {ReasonCode.MOUNT_MISSING, ReasonCode.PLACEMENT_DECLARED}
        assert (_storage(opened).role, _storage(opened).mounted) == (MountRole.EXTERNAL, False)
        made.mount()
        host.later(15)
        host.later(31)
        assert _codes(host.until(READ_ONLY, CasePhase.CLEARED)) == {ReasonCode.MOUNT_BACK}


def test_what_only_looks_like_a_fault_stays_quiet(watching: Callable[..., Host], tmp_path: Path) -> None:
    """A full tmpfs nobody declared, a filesystem mounted read-only, /dev/full, and a frozen disk."""
    with disk(tmp_path) as made:
        (made.point / "file").write_bytes(bytes(4096))
        made.remount("ro")
        host = watching(paths=[made.point])
        with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(OSError, match="No space"):
            full.write(b"x")
        for _ in range(4):
            host.later(60)
        assert host.about(made) == []


def test_a_disk_that_is_frozen_is_neither_full_nor_failing(
    watching: Callable[..., Host], tmp_path: Path
) -> None:
    """fsfreeze holds writers up, as a snapshot does: sizes are still told, and nothing failed."""
    if shutil.which("fsfreeze") is None:
        pytest.skip("needs fsfreeze (package util-linux)")
    with disk(tmp_path) as made:
        host = watching(paths=[made.point])
        host.look()
        with made.frozen():
            for _ in range(4):
                host.later(60)
        assert host.about(made) == []


def test_a_load_from_a_slow_disk_is_told_and_clears(
    watching: Callable[..., Host], cgroups: Callable[..., Cgroups], tmp_path: Path
) -> None:
    """A server whose disk answers forty times slower than usual and that does not listen: until it does."""
    group = cgroups("blkio")
    below = tmp_path.stat().st_dev
    throttle = group.folders["blkio"] / "blkio.throttle.read_bps_device"
    if not throttle.exists() or not Path(f"/sys/dev/block/{os.major(below)}:{os.minor(below)}").exists():
        pytest.skip("needs a disk below the tests' folder and throttling of its reads by cgroup")
    known = KnownServers()
    with disk(tmp_path) as made, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        taken.close()
        (made.point / "model").write_bytes(os.urandom(8 * MIB))
        made.drop_caches()
        host = watching(known=known)
        for _ in range(45):
            read_directly(made, 12)
            host.look()
        made.forget_image()
        throttle.write_text(f"{os.major(below)}:{os.minor(below)} {100 * 1024}")
        server = group.start(_SERVER.format(model=str(made.point / "model"), port=port))
        try:
            assert server.stdin is not None
            assert server.stdout is not None
            ticks = int(Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[19])
            origin = Origin(pid=server.pid, start_ticks=ticks, unit="vllm.service")
            known.post([KnownServer(origin, port, (server.pid,))])
            assert server.stdout.readline() == "read\n"
            host.look()
            assert host.about_fault(SLOW) == []
            server.stdin.write("\n")
            server.stdin.flush()
            assert server.stdout.readline() == "read\n"
            host.later(2000)
            opened = host.until(SLOW, CasePhase.OPENED)
            assert (opened.severity, opened.subject.name) == (Severity.NOTE, "vllm.service")
            assert {ReasonCode.LOADING_FOR_LONG, ReasonCode.READS_SLOW} <= _codes(opened)
            (evidence,) = [each for each in opened.evidence if isinstance(each, BlockEvidence)]
            assert evidence.device == made.name
            server.stdin.write("\n")
            server.stdin.flush()
            assert server.stdout.readline() == "listens\n"
            host.later(1)
            assert _codes(host.until(SLOW, CasePhase.CLEARED)) == {ReasonCode.SERVER_LISTENS}
        finally:
            server.kill()
            server.communicate()


_SERVER = """
import mmap, os, socket, sys
page, model = mmap.mmap(-1, 4096), os.open({model!r}, os.O_RDONLY | os.O_DIRECT)
place = 0
for _ in range(2):
    for _ in range(15):
        place = (place + 911) % 2000
        os.preadv(model, [page], place * 4096)
    print("read", flush=True)
    sys.stdin.readline()
server = socket.create_server(("127.0.0.1", {port}))
print("listens", flush=True)
sys.stdin.readline()
"""


def test_a_container_with_little_shared_memory_is_told(
    watching: Callable[..., Host], cgroups: Callable[..., Cgroups]
) -> None:
    """A process that maps more than its /dev/shm holds dies of SIGBUS: told with the size of it."""
    name = "c0ffee" * 10 + f"{os.getpid():04x}"[-4:]
    group = cgroups(name=f"docker-{name}.scope")
    known = KnownServers()
    host = watching(known=known, deaths=True)
    mounts = "mount --make-rprivate / && mount -t tmpfs -o size=1m shm /dev/shm && "
    wait = ["unshare", "--mount", "sh", "-c", mounts + "echo ready && exec cat"]
    with group.launch(wait) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        ticks = int(Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[19])
        origin = Origin(pid=server.pid, start_ticks=ticks, container_id=name)
        known.post([KnownServer(origin, 1, (server.pid,))])
        host.look()
        worker = (
            "import mmap, os\n"
            "f = os.open('/dev/shm/segment', os.O_RDWR | os.O_CREAT)\n"
            "os.ftruncate(f, 8 << 20)\n"
            "m = mmap.mmap(f, 8 << 20)\n"
            "for page in range(0, 8 << 20, 4096): m[page] = 1\n"
        )
        inside = ["nsenter", "--target", str(server.pid), "--mount", sys.executable, "-I", "-S", "-c", worker]
        assert group.run(inside).returncode in {-signal.SIGBUS, 128 + signal.SIGBUS}
        opened = host.until(SHM, CasePhase.OPENED)
        assert server.stdin is not None
        server.stdin.close()
    assert (opened.severity, opened.subject) == (
        Severity.MEDIUM,
        Subject(SubjectKind.CONTAINER, name),
    )
    assert _codes(opened) == {ReasonCode.DIED_BY_BUS_ERROR, ReasonCode.SHARED_MEMORY_SMALL}
    assert _storage(opened).total_bytes == MIB
