"""host.processes: who is stuck, who is stopped, whose connections nobody takes; made up, and for real."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from probes import registry
from probes.host.backlog import Backlog, backlogs, parse_backlog
from probes.host.cgroups import CgroupMounts, CgroupPaths
from probes.host.identity import Identifier
from probes.host.known_servers import KnownServer, KnownServers
from probes.host.process_stats import stat_in
from probes.host.processes import PERIOD_S, ProcessesSensor
from probes.host.sockets import SocketsUnreadable
from probes.observation import (
    BacklogState,
    BlindReason,
    Condition,
    Observation,
    Origin,
    ProcessCondition,
    ServerKind,
)
from probes.sensor import SensorBlind
from probes.testing import instant

TICKS = os.sysconf("SC_CLK_TCK")


class Host:
    """A made-up /proc and socket table."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.root, self.freezer = folder / "proc", folder / "unified", folder / "freezer"
        for made in (self.proc, self.root, self.freezer / "group"):
            made.mkdir(parents=True)
        self.process(1)
        (self.proc / "self").symlink_to("1")
        self.load(1.0)
        self.table: list[Backlog] | OSError = []
        self.known, self.at_s = KnownServers(), 0.0
        paths = CgroupPaths(root=self.root, monotonic=lambda: 0.0)
        self.sensor = ProcessesSensor(
            identifier=Identifier(cgroups=paths, proc=self.proc),
            known=self.known,
            mounts=CgroupMounts(self.root, (("freezer", self.freezer),)),
            proc=self.proc,
            sockets=self.sockets,
        )

    def sockets(self) -> tuple[Backlog, ...]:
        """What the socket table says."""
        if isinstance(self.table, OSError):
            raise SocketsUnreadable("refused") from self.table
        return tuple(self.table)

    def load(self, load: float) -> None:
        """Let the load of the last minute be so."""
        (self.proc / "loadavg").write_text(f"{load:.2f} 0.00 0.00 1/100 4242\n")

    def process(
        self,
        pid: int,
        state: str = "S",
        *,
        used_s: float = 0,
        ran: int = 1,
        parent: int = 1,
        size: int = 0,
        thread: int | None = None,
    ) -> None:
        """Let a process be so; `ran` is what its scheduler account says."""
        folder = self.proc / str(pid) / "task" / str(thread or pid)
        folder.mkdir(parents=True, exist_ok=True)
        used, sizes = int(used_s * TICKS), f"{size or pid << 20} {pid}"
        fields = f"{state} {parent} {'0 ' * 9}{used} 0 {'0 ' * 6}{pid * 10} {sizes} 0"
        for place in (folder, folder.parent.parent) if thread is None else (folder,):
            (place / "stat").write_text(f"{pid} (x) ) {fields}\n")
            (place / "schedstat").write_text(f"{ran} 2 3\n")
        (folder.parent.parent / "comm").write_text("server\n")
        (folder.parent.parent / "cmdline").write_bytes(b"server\0")
        (folder.parent.parent / "cgroup").write_text("5:freezer:/group\n0::/model.service\n")

    def gone(self, pid: int) -> None:
        """Let a process be gone."""
        shutil.rmtree(self.proc / str(pid))

    def serve(self, pid: int, port: int = 8000) -> None:
        """Let a process be a known server."""
        origin = Origin(None, "/model.service", "model.service", None, pid, pid * 10, "vllm", ServerKind.VLLM)
        self.known.post([KnownServer(origin, port, (pid,))])

    def listens(self, waiting: int, *, port: int = 8000, cookie: int = 77) -> None:
        """Let a socket listen with so many connections waiting."""
        self.table = [Backlog(cookie, "127.0.0.1", port, waiting, 5, None)]

    def looks(self) -> Sequence[Observation]:
        """Let a period pass and read."""
        self.at_s += PERIOD_S
        return self.sensor.read(instant(self.at_s))

    def conditions(self) -> list[tuple[Condition, float]]:
        """The same, of processes: how they are and for how long."""
        return [(o.condition, o.lasted_s) for o in self.looks() if isinstance(o, ProcessCondition)]

    def queues(self) -> list[BacklogState]:
        """The same, of sockets."""
        return [o for o in self.looks() if isinstance(o, BacklogState)]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host where everything gets on."""
    made = Host(tmp_path)
    made.sensor.open()
    return made


def test_a_stuck_process_is_told_from_the_second_look_on(host: Host) -> None:
    """Longer and longer, and once more when it runs again."""
    host.process(20, "D")
    assert host.conditions() == []
    assert host.conditions() == [(Condition.STUCK, 15.0)]
    assert host.conditions() == [(Condition.STUCK, 30.0)]
    host.process(20, "S", ran=2, used_s=1)
    assert host.conditions() == [(Condition.RUNS, 45.0)]
    assert host.conditions() == []


def test_a_stuck_process_that_is_gone_is_told(host: Host) -> None:
    """After a reboot of its device it may die at last."""
    host.process(20, "D")
    host.looks()
    host.looks()
    host.gone(20)
    assert host.conditions() == [(Condition.GONE, 30.0)]


def test_a_process_that_waits_for_its_disk_again_and_again_stays_quiet(host: Host) -> None:
    """It is seen in that state at every look, and has run in between."""
    for ran in range(5):
        host.process(20, "D", ran=ran)
        assert host.conditions() == []


def test_the_parent_of_a_vfork_stays_quiet(host: Host) -> None:
    """It waits for a child that has the same memory as itself."""
    host.process(20, "D", size=5 << 20)
    host.process(21, "S", parent=20, size=5 << 20)
    (host.proc / "21/stat").write_text((host.proc / "21/stat").read_text().replace(" 21 0\n", " 20 0\n"))
    assert [host.conditions() for _ in range(3)] == [[], [], []]
    host.process(21, "S", parent=20, size=9 << 20)  # it has executed something: nobody waits for that
    host.conditions()
    assert host.conditions() == [(Condition.STUCK, 15.0)]


@pytest.mark.parametrize("where", ["v1", "v2"])
def test_a_frozen_group_stays_quiet(host: Host, where: str) -> None:
    """Paused on purpose; when it is thawed and still stuck, it is told."""
    host.process(20, "D")
    (host.root / "model.service").mkdir()
    if where == "v1":
        (host.freezer / "group/freezer.state").write_text("FROZEN\n")
    else:
        (host.root / "model.service/cgroup.events").write_text("populated 1\nfrozen 1\n")
    assert [host.conditions() for _ in range(3)] == [[], [], []]
    (host.freezer / "group/freezer.state").write_text("THAWED\n")
    (host.root / "model.service/cgroup.events").write_text("populated 1\nfrozen 0\n")
    assert host.conditions() == [(Condition.STUCK, 45.0)]


def test_a_kernel_thread_stays_quiet(host: Host) -> None:
    """Some wait in that state for their whole life."""
    host.process(20, "D")
    (host.proc / "20/stat").write_text(
        (host.proc / "20/stat").read_text().replace(f" {20 << 20} 20 0", " 0 0 0")
    )
    assert [host.conditions() for _ in range(3)] == [[], [], []]


def test_a_host_without_load_is_not_searched(host: Host) -> None:
    """Somebody who is stuck is load; once found, it is followed whatever the load."""
    host.process(20, "D")
    host.load(0.1)
    assert [host.conditions() for _ in range(3)] == [[], [], []]
    host.load(0.9)
    host.conditions()
    host.load(0.1)
    assert host.conditions() == [(Condition.STUCK, 15.0)]


def test_a_stuck_thread_of_a_server_is_told_by_its_process(host: Host) -> None:
    """The main thread sleeps as if nothing were wrong; threads of others are not looked at."""
    host.process(20)
    host.process(20, "D", thread=25)
    host.process(30)
    host.process(30, "D", thread=35)
    host.serve(20)
    host.looks()
    (told,) = [o for o in host.looks() if isinstance(o, ProcessCondition)]
    assert (told.origin.pid, told.condition) == (20, Condition.STUCK)


def test_a_stopped_server_is_told_and_that_it_goes_on(host: Host) -> None:
    """By its state alone; nobody waits for it."""
    host.process(20, "T")
    host.serve(20)
    assert host.conditions() == []
    assert host.conditions() == [(Condition.STOPPED, 15.0)]
    host.process(20, "S")
    assert host.conditions() == [(Condition.RUNS, 30.0)]
    assert host.conditions() == []


def test_connections_that_nobody_takes_are_told_with_who_should(host: Host) -> None:
    """How many of how many, whether the server is stopped, and what it used of the processor meanwhile."""
    host.process(20, "T", used_s=3)
    host.serve(20)
    host.listens(2)
    assert host.queues() == []
    (told,) = host.queues()
    assert (told.address, told.port, told.backlog, told.limit) == ("127.0.0.1", 8000, 2, 5)
    assert (told.processes, told.stopped, told.used_cpu_s, told.lasted_s) == (1, 1, 0.0, 15.0)
    assert told.origin.pid == 20
    host.process(20, "S", used_s=3.5)
    (told,) = host.queues()
    assert (told.stopped, told.used_cpu_s, told.lasted_s) == (0, 0.5, 30.0)
    host.listens(0)
    (told,) = host.queues()
    assert (told.backlog, told.closed, told.lasted_s) == (0, False, 45.0)
    assert host.queues() == []


def test_a_socket_that_is_closed_is_told(host: Host) -> None:
    """Another socket at the same port begins anew."""
    host.listens(2)
    host.looks()
    host.looks()
    host.listens(1, cookie=78)
    (told,) = host.queues()
    assert (told.backlog, told.closed) == (0, True)


def test_a_queue_that_is_empty_between_looks_stays_quiet(host: Host) -> None:
    """A burst that was taken is no fault, and the next one is another."""
    for waiting in (3, 0, 2, 0):
        host.listens(waiting)
        assert host.queues() == []


def test_an_unknown_owner_is_unknown(host: Host) -> None:
    """A socket of the root group, of no known server: nobody is named, nothing is claimed."""
    host.listens(2, port=9999)
    host.looks()
    (told,) = host.queues()
    assert (told.processes, told.stopped, told.used_cpu_s, told.origin.pid) == (None, None, None, None)


def test_a_socket_table_that_cannot_be_read_is_blindness(host: Host) -> None:
    """Not an empty table."""
    host.table = OSError(1, "refused")
    with pytest.raises(SensorBlind) as caught:
        host.looks()
    assert caught.value.blind.reason is BlindReason.READ_FAILED


@given(st.binary(max_size=200), st.integers(0, 40))
def test_hostile_bytes_are_nothing_or_a_row(body: bytes, kind: int) -> None:
    """Whatever comes, a row is a row and the rest is None."""
    found = parse_backlog(kind, body)
    assert found is None or (0 <= found.port < 65536 and found.waiting >= 0)
    stat = stat_in(body)
    assert stat is None or stat.used_s == stat.used_s


def test_a_real_accept_queue_is_counted() -> None:
    """Two connections that nobody has taken, of at most seven."""
    with socket.create_server(("127.0.0.1", 0), backlog=7) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)):
            (own,) = (each for each in backlogs() if each.port == port)
            assert (own.address, own.waiting, own.limit) == ("127.0.0.1", 2, 7)
            server.accept()[0].close()
            (own,) = (each for each in backlogs() if each.port == port)
            assert own.waiting == 1


class Group:
    """A real cgroup, and a sensor that looks at all of this machine."""

    def __init__(self) -> None:
        mounts = registry.find_mounts()
        if mounts.unified is None:
            pytest.skip("needs a cgroup v2 hierarchy")
        freezer = mounts.controller("freezer")
        self.name = f"nanobot-test-{os.getpid()}"
        self.folders = [mounts.unified / self.name] + ([freezer / self.name] if freezer else [])
        for folder in self.folders:
            folder.mkdir()
        self.known, self.at_s, self.running = KnownServers(), 0.0, list[subprocess.Popen[str]]()
        self.identifier = registry.surroundings(None).identifier
        self.sensor = ProcessesSensor(
            identifier=self.identifier, known=self.known, mounts=mounts, least_load=0.0
        )
        self.sensor.open()

    def start(self, code: str) -> subprocess.Popen[str]:
        """Start a piece of Python inside; it says a line when it is ready."""
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=self.enter,  # noqa: PLW1509 - a cgroup is entered by the child itself, and no thread runs here
        )
        self.running.append(process)
        return process

    def enter(self) -> None:
        """Move the calling process in."""
        for folder in self.folders:
            (folder / "cgroup.procs").write_text(str(os.getpid()))

    def looks(self) -> list[Observation]:
        """Let a period pass on the sensor's clock and read; what is told of this group."""
        self.at_s += PERIOD_S
        return [
            seen
            for seen in self.sensor.read(instant(10**5 + self.at_s))
            if isinstance(seen, ProcessCondition | BacklogState)
            and seen.origin.cgroup_path == f"/{self.name}"
        ]

    def close(self) -> None:
        """End what runs and remove the group."""
        for process in self.running:
            process.kill()
            process.communicate()
        for folder in self.folders:
            end = time.monotonic() + 5
            while folder.exists() and time.monotonic() < end:
                try:
                    folder.rmdir()
                except OSError:
                    time.sleep(0.02)


@pytest.fixture
def group() -> Iterator[Group]:
    """A real group with nobody in it."""
    made = Group()
    yield made
    made.close()


def until_state(pid: int, state: str) -> None:
    """Wait until a process is in a state."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        stat = stat_in(Path(f"/proc/{pid}/stat").read_bytes())
        if stat is not None and stat.state == state:
            return
        time.sleep(0.01)
    raise AssertionError(f"process {pid} never was in state {state}")


@pytest.mark.root
def test_a_real_write_to_a_frozen_filesystem_is_stuck(group: Group, frozen: Callable[[], Path]) -> None:
    """State D until the filesystem is thawed, whatever signal is sent."""
    mount = frozen()
    process = group.start(f"open({str(mount / 'file')!r}, 'w').write('x')")
    until_state(process.pid, "D")
    assert group.looks() == []
    (told,) = group.looks()
    assert isinstance(told, ProcessCondition)
    assert (told.origin.pid, told.condition, told.lasted_s) == (process.pid, Condition.STUCK, 15.0)
    subprocess.run(["fsfreeze", "-u", mount], check=True)
    assert process.wait(10) == 0
    (told,) = group.looks()
    assert isinstance(told, ProcessCondition)
    assert told.condition is Condition.GONE


@pytest.mark.root
def test_a_real_vfork_stays_quiet(group: Group) -> None:
    """The parent is in state D for as long as its child neither executes nor ends."""
    process = group.start(
        "import ctypes, os, time\n"
        "libc = ctypes.CDLL(None)\n"
        "CLONE_VFORK, CLONE_VM, SIGCHLD = 0x4000, 0x100, 17\n"
        "stack = ctypes.create_string_buffer(1 << 16)\n"
        "top = ctypes.addressof(stack) + (1 << 16) - 64\n"
        "pause = ctypes.cast(libc.pause, ctypes.c_void_p)\n"
        "libc.clone.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]\n"
        "libc.clone(pause, top, CLONE_VFORK | CLONE_VM | SIGCHLD, None)\n"
    )
    until_state(process.pid, "D")
    try:
        assert [group.looks() for _ in range(3)] == [[], [], []]
    finally:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        for pid in (
            _children(process.pid) if not children.exists() else map(int, children.read_text().split())
        ):
            os.kill(pid, signal.SIGKILL)


def _children(parent: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        stat = stat_in((folder / "stat").read_bytes()) if folder.name.isdecimal() else None
        if stat is not None and stat.parent == parent:
            found.append(int(folder.name))
    return found


@pytest.mark.root
def test_a_real_frozen_group_stays_quiet(group: Group) -> None:
    """The freezer of cgroup v1 shows its tasks in state D."""
    if len(group.folders) < 2:
        pytest.skip("needs the cgroup v1 controller freezer")
    process = group.start("import time\nprint(flush=True)\ntime.sleep(60)")
    assert process.stdout
    process.stdout.readline()
    state = group.folders[1] / "freezer.state"
    state.write_text("FROZEN")
    try:
        until_state(process.pid, "D")
        assert [group.looks() for _ in range(3)] == [[], [], []]
    finally:
        state.write_text("THAWED")


@pytest.mark.root
def test_a_real_server_that_is_stopped_leaves_connections_waiting(group: Group) -> None:
    """Two clients connect, nobody takes them; after SIGCONT they are taken."""
    process = group.start(
        "import socket\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "print(server.getsockname()[1], flush=True)\n"
        "held = []\n"
        "while True: held.append(server.accept()[0])\n"
    )
    assert process.stdout
    port = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGSTOP)
    until_state(process.pid, "T")
    with socket.create_connection(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)):
        assert group.looks() == []
        (told,) = group.looks()
        assert isinstance(told, BacklogState)
        assert (told.port, told.backlog, told.stopped, told.used_cpu_s) == (port, 2, 1, 0.0)
        assert told.origin.pid == process.pid
        os.kill(process.pid, signal.SIGCONT)
        end = time.monotonic() + 10
        while any(each.port == port and each.waiting for each in backlogs()) and time.monotonic() < end:
            time.sleep(0.01)
        (told,) = group.looks()
        assert isinstance(told, BacklogState)
        assert (told.backlog, told.closed) == (0, False)


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[Callable[[], Path]]:
    """Make a filesystem of its own that takes no writes; it is thawed at the latest at the end."""
    mounts: list[Path] = []

    def make() -> Path:
        image, mount = tmp_path / "image", tmp_path / "disk"
        image.touch()
        os.truncate(image, 16 << 20)
        mount.mkdir()
        subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, mount], check=True)
        mounts.append(mount)
        subprocess.run(["fsfreeze", "-f", mount], check=True)
        return mount

    yield make
    for mount in mounts:
        subprocess.run(["fsfreeze", "-u", mount], check=False, capture_output=True)
        subprocess.run(["umount", mount], check=True)


def test_a_listening_row_has_the_size_that_the_kernel_gives() -> None:
    """struct inet_diag_msg is 72 bytes (linux/inet_diag.h)."""
    assert parse_backlog(20, struct.pack("=BB70x", socket.AF_INET, 10)) is not None
    assert parse_backlog(20, struct.pack("=BB69x", socket.AF_INET, 10)) is None
