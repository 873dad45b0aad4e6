"""host.pressure: what the host waits for, and whom a quota holds back; made-up files and real groups."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from probes import recording, registry
from probes.host.cgroups import CgroupMounts, CgroupPaths
from probes.host.clock import now
from probes.host.identity import Identifier
from probes.host.known_servers import KnownServer, KnownServers
from probes.host.neighbours import CgroupUse, Use, busiest, cores_between
from probes.host.quotas import Quotas
from probes.host.stalls import NOT_TOLD, Stalls, stalls_in
from probes.host.waits import TELL_S, PressureSensor
from probes.observation import (
    BlindReason,
    CgroupId,
    CgroupPressure,
    Observation,
    Origin,
    PressureState,
    RunDelay,
    SensorName,
    ServerKind,
)
from probes.sensor import SensorBlind
from probes.testing import instant

CALM = b"some avg10=0.00 avg60=0.00 avg300=0.00 total=5\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
GROUP = "/model-server.service"
TICKS = os.sysconf("SC_CLK_TCK")


class Host:
    """A made-up /proc with one server in a cgroup of its own, and a clock that a test moves."""

    def __init__(self, folder: Path, *, v1: bool = False) -> None:
        self.proc, self.root, self.cpu = folder / "proc", folder / "unified", folder / "cpu"
        (self.proc / "pressure").mkdir(parents=True)
        (self.proc / "7").mkdir()
        (self.proc / "7/cgroup").write_text(f"3:cpu,cpuacct:{GROUP}\n0::{GROUP}\n")
        self.own = (self.cpu if v1 else self.root) / GROUP[1:]
        self.own.mkdir(parents=True)
        (self.root / GROUP[1:]).mkdir(parents=True, exist_ok=True)
        for name in ("cpu", "memory", "io"):
            (self.proc / "pressure" / name).write_bytes(CALM)
        self.vmstat()
        self.known, self.at_s = KnownServers(), 0.0
        mounts = CgroupMounts(self.root, (("cpu", self.cpu),) if v1 else ())
        self.sensor = PressureSensor(
            identifier=Identifier(cgroups=CgroupPaths(root=self.root, monotonic=lambda: 0.0), proc=self.proc),
            known=self.known,
            quotas=Quotas(mounts=mounts),
            root=self.root,
            proc=self.proc,
            monotonic=lambda: self.at_s,
        )

    def vmstat(self, **counts: int) -> None:
        """Let the counters of the memory stand so."""
        usual = {"pgmajfault": 10, "allocstall_normal": 1, "allocstall_movable": 2, "pswpin": 3}
        (self.proc / "vmstat").write_text("".join(f"{k} {v}\n" for k, v in (usual | counts).items()))

    def waits(self, what: str, some: float, full: float = 0.0) -> None:
        """Let tasks wait for something, in both averages."""
        (self.proc / "pressure" / what).write_text(
            f"some avg10={some:.2f} avg60={some:.2f} avg300=0.00 total=9\n"
            f"full avg10={full:.2f} avg60={full:.2f} avg300=0.00 total=9\n"
        )

    def serve(self) -> None:
        """Let the server run, since ten seconds after the boot."""
        origin = Origin(
            CgroupId(5), GROUP, "model-server.service", None, 7, 10 * TICKS, "vllm", ServerKind.VLLM
        )
        self.known.post([KnownServer(origin, 8000, (7,))])

    def quota(self, text: str, *, periods: int = 0, throttled: int = 0, usec: int = 0) -> None:
        """Give the server's group a quota of v2, and let its account stand so."""
        (self.own / "cpu.max").write_text(text)
        (self.own / "cpu.stat").write_text(
            f"usage_usec 1\nnr_periods {periods}\nnr_throttled {throttled}\nthrottled_usec {usec}\n"
        )

    def looks(self, after_s: float = 5.0) -> list[Observation]:
        """Let time pass and read."""
        self.at_s += after_s
        return list(self.sensor.read(instant(self.at_s)))

    def groups(self, after_s: float = 5.0) -> list[CgroupPressure]:
        """The same, of servers only."""
        return [seen for seen in self.looks(after_s) if isinstance(seen, CgroupPressure)]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host where nobody waits and nobody serves."""
    made = Host(tmp_path)
    made.sensor.open()
    yield made
    made.sensor.close()


def test_a_calm_host_says_so_once_a_minute(host: Host) -> None:
    """At the first look, and then when its time has come."""
    (first,) = host.looks()
    assert isinstance(first, PressureState)
    assert (first.cpu_some_avg10, first.memory_full_avg60, first.allocation_stalls) == (0.0, 0.0, 0)
    assert [host.looks() for _ in range(int(TELL_S // 5) - 1)] == [[]] * (int(TELL_S // 5) - 1)
    assert len(host.looks()) == 1


def test_a_host_that_waits_tells_every_look_and_that_it_is_over(host: Host) -> None:
    """The averages of each resource, and what the memory did meanwhile; then one look without any."""
    host.looks()
    host.waits("cpu", 40.0)
    host.waits("memory", 12.5, 11.25)
    host.waits("io", 3.0, 2.0)
    host.vmstat(pgmajfault=110, allocstall_normal=4, pswpin=53, pswpout=7, workingset_refault_file=900)
    (state,) = host.looks()
    assert isinstance(state, PressureState)
    assert (state.cpu_some_avg10, state.memory_full_avg10, state.io_full_avg60) == (40.0, 11.25, 2.0)
    assert (state.major_faults, state.allocation_stalls, state.refaulted_pages) == (100, 3, 900)
    assert (state.swapped_in_pages, state.swapped_out_pages, state.window_s) == (50, 7, 5.0)
    for what in ("cpu", "memory", "io"):
        host.waits(what, 0.0)
    assert len(host.looks()) == 1
    assert host.looks() == []


def test_a_kernel_without_pressure_accounting_tells_what_it_can(tmp_path: Path) -> None:
    """None is not zero."""
    host = Host(tmp_path)
    for name in ("cpu", "memory", "io"):
        (host.proc / "pressure" / name).unlink()
    host.sensor.open()
    (state,) = host.looks()
    assert isinstance(state, PressureState)
    assert state.cpu_some_avg10 is None
    assert state.memory_full_avg10 is None
    host.sensor.close()


def test_without_vmstat_it_is_blind(tmp_path: Path) -> None:
    """There is no such system to look at."""
    host = Host(tmp_path)
    (host.proc / "vmstat").unlink()
    with pytest.raises(SensorBlind) as caught:
        host.sensor.open()
    assert caught.value.blind.reason is BlindReason.UNSUPPORTED_PLATFORM


def test_a_quota_is_told_with_its_periods(host: Host) -> None:
    """What happened since the last look; the first one only notes how the account stands."""
    host.quota("50000 100000", periods=1000, throttled=400, usec=9_000_000)
    host.serve()
    (first,) = host.groups()
    assert (first.quota_cores, first.periods, first.up_s) == (0.5, 0, instant(5).boot_ns / 1e9 - 10)
    host.quota("50000 100000", periods=1050, throttled=445, usec=11_500_000)
    (told,) = host.groups()
    assert (told.periods, told.throttled_periods, told.throttled_s) == (50, 45, 2.5)
    assert told.origin.unit == "model-server.service"


def test_the_smallest_quota_above_counts(tmp_path: Path) -> None:
    """A slice may hold its services back."""
    quotas = Quotas(mounts=CgroupMounts(tmp_path))
    for path, text in (("a", "100000 100000"), ("a/b", "20000 100000"), ("a/b/c", "max 100000")):
        (tmp_path / path).mkdir()
        (tmp_path / path / "cpu.max").write_text(text)
    assert quotas.folder({"": "/a/b/c"}) == f"{tmp_path}/a/b"
    assert quotas.folder({"": "/"}) is None
    assert quotas.folder({}) is None


def test_a_quota_of_the_older_hierarchy_is_read_too(tmp_path: Path) -> None:
    """Its numbers have other names and units; -1 is none."""
    host = Host(tmp_path, v1=True)
    (host.own / "cpu.cfs_period_us").write_text("100000\n")
    (host.own / "cpu.cfs_quota_us").write_text("-1\n")
    quotas = Quotas(mounts=CgroupMounts(host.root, (("cpu", host.cpu),)))
    assert quotas.folder({"cpu": GROUP}) is None
    (host.own / "cpu.cfs_quota_us").write_text("150000\n")
    (host.own / "cpu.stat").write_text("nr_periods 31\nnr_throttled 30\nthrottled_time 2500000000\n")
    folder = quotas.folder({"cpu": GROUP})
    assert folder == str(host.own)
    held = quotas.held(folder)
    assert held is not None
    assert (held.cores, held.periods, held.throttled_periods, held.throttled_s) == (1.5, 31, 30, 2.5)


def test_a_quota_that_is_lifted_is_told_as_none(host: Host) -> None:
    """Somebody may have helped; what is told once is told on."""
    host.quota("10000 100000")
    host.serve()
    host.groups()
    host.quota("max 100000")
    (told,) = host.groups()
    assert (told.quota_cores, told.periods) == (None, 0)


def test_a_server_without_quota_and_pressure_is_not_told(host: Host) -> None:
    """Until its group stalls for memory."""
    host.serve()
    assert host.groups() == []
    (host.root / GROUP[1:] / "memory.pressure").write_bytes(CALM.replace(b"avg10=0.00", b"avg10=30.00"))
    (told,) = host.groups()
    assert (told.memory_some_avg10, told.memory_full_avg10, told.quota_cores) == (30.0, 30.0, None)


@given(st.binary(max_size=300))
def test_any_bytes_are_stalls_or_none(text: bytes) -> None:
    """Whatever the file holds, nothing breaks, and shares are numbers."""
    told = stalls_in(text)
    assert told == NOT_TOLD or isinstance(told, Stalls)


def test_the_neighbour_is_the_lowest_group_that_grew() -> None:
    """Not the slice around it, not the server's own groups, not who used as much before."""
    before = Use(0.0, {"/s": 0.0, "/s/a": 0.0, "/s/b": 0.0, "/old": 0.0, "/me": 0.0, "/me/x": 0.0})
    after = Use(
        10.0, {"/s": 21.0, "/s/a": 20.0, "/s/b": 1.0, "/old": 9.0, "/me": 9.0, "/me/x": 9.0, "/new": 6.0}
    )
    told = busiest(before, after, {"/old": 0.9}, but="/me/x")
    assert [(one.cgroup_path, one.cores, one.grown_cores) for one in told] == [
        ("/s/a", 2.0, 2.0),
        ("/new", 0.6, 0.6),
        ("/s/b", 0.1, 0.1),
    ]
    assert cores_between(before, after)["/old"] == 0.9
    assert busiest(after, before, {}, but=None) == ()


def test_groups_of_a_host_with_many_containers_are_all_seen(tmp_path: Path) -> None:
    """Whoever grew among hundreds is named; without a name it would seem that nobody did."""
    for number in range(400):
        folder = tmp_path / f"docker-{number:064x}.scope"
        folder.mkdir()
        (folder / "cpu.stat").write_text("usage_usec 2000000\n")
    assert len(CgroupUse(mounts=CgroupMounts(tmp_path)).look(1.0).used_s) == 400


def test_a_group_of_any_name_is_a_neighbour(tmp_path: Path) -> None:
    """Names come from whoever makes groups: bytes that are no text, line breaks, groups in groups."""
    folder = os.fsencode(tmp_path) + b"/\xff\n\x1b[31m"
    os.mkdir(folder)  # noqa: PTH102 -- a Path is made of text
    Path(os.fsdecode(folder), "cpu.stat").write_text("usage_usec 1000000\nuser_usec garbage\n")
    deep = tmp_path
    for _ in range(20):
        deep /= "d"
        deep.mkdir()
        (deep / "cpu.stat").write_bytes(b"\xff\xff usage_usec -5\n")
    use = CgroupUse(mounts=CgroupMounts(tmp_path))
    before, after = Use(0.0, {}), use.look(1.0)
    (told,) = busiest(before, after, {}, but=None)
    assert (told.cores, told.cgroup_path) == (1.0, os.fsdecode(b"/\xff\n\x1b[31m"))
    line = recording.to_line(
        RunDelay(
            sensor=SensorName("kernel.run_delay"),
            at=instant(1),
            origin=Origin(),
            window_s=1.0,
            threads=1,
            waits=0,
            waited_s=0.0,
            p99_s=None,
            cpu_some_avg10=None,
            neighbours=(told,),
        )
    )
    (read,) = recording.read([line])
    assert isinstance(read, RunDelay)
    assert read.neighbours == (told,)


@pytest.mark.root
def test_a_real_quota_holds_a_real_process_back(
    real_group: Callable[[str], Path], burner: Callable[[Path], subprocess.Popen[str]]
) -> None:
    """A tenth of a core for a busy loop: nearly every period is throttled."""
    folder = real_group("cpu")
    quota = folder / "cpu.cfs_quota_us"
    if not quota.exists():
        pytest.skip("needs the cgroup v1 controller cpu")
    quota.write_text("10000")
    process, host, known = burner(folder), registry.surroundings(None), KnownServers()
    known.post([KnownServer(host.identifier.origin(pid=process.pid), 8000, (process.pid,))])
    sensor = PressureSensor(
        identifier=host.identifier, known=known, quotas=Quotas(mounts=host.mounts), root=host.mounts.unified
    )
    sensor.open()
    seen = [*sensor.read(now())]
    end = time.monotonic() + 20
    while time.monotonic() < end and sum(o.periods for o in seen if isinstance(o, CgroupPressure)) < 7:
        time.sleep(0.2)
        seen += sensor.read(now())
    sensor.close()
    told = [o for o in seen if isinstance(o, CgroupPressure)]
    assert {o.quota_cores for o in told} == {0.1}
    periods, throttled = sum(o.periods for o in told), sum(o.throttled_periods for o in told)
    assert periods >= 7
    assert throttled >= periods * 0.6


@pytest.fixture
def real_group() -> Iterator[Callable[[str], Path]]:
    """Make a group of a cgroup v1 controller; it is removed at the end."""
    made: list[Path] = []

    def make(controller: str) -> Path:
        root = registry.find_mounts().controller(controller)
        if root is None:
            pytest.skip(f"needs the cgroup v1 controller {controller}")
        folder = root / f"nanobot-test-{os.getpid()}"
        folder.mkdir()
        made.append(folder)
        return folder

    yield make
    for folder in made:
        end = time.monotonic() + 5
        while folder.exists() and time.monotonic() < end:
            try:
                folder.rmdir()
            except OSError:
                time.sleep(0.02)


@pytest.fixture
def burner(real_group: Callable[[str], Path]) -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Start a busy loop in a group; it is ended before the group goes."""
    running: list[subprocess.Popen[str]] = []

    def start(folder: Path) -> subprocess.Popen[str]:
        def enter() -> None:
            (folder / "cgroup.procs").write_text(str(os.getpid()))

        running.append(
            subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", "while True: pass"],
                preexec_fn=enter,  # noqa: PLW1509 - a cgroup is entered by the child itself, and no thread runs here
                text=True,
            )
        )
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()
