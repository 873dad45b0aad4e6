"""host.servers: cores of a server's cgroup or process tree, on made-up hosts and on real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from probes.host.cgroups import CgroupPaths, find_mounts
from probes.host.clock import now
from probes.host.identity import Identifier
from probes.host.servers import SERVERS_MAX, ServersSensor
from probes.observation import BlindReason, ServerKind, ServerUsage, UsageSource
from probes.sensor import SensorBlind
from probes.testing import instant

CONTAINER = "docker-" + "a" * 64 + ".scope"
TICKS = os.sysconf("SC_CLK_TCK")


class Host:
    """A made-up /proc and cgroup hierarchy, and a clock that a test moves."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.root = folder / "proc", folder / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        (self.proc / "self/stat").touch()
        (self.proc / "1").mkdir()
        (self.proc / "1/stat").write_text("1 (init) S 0 " + "0 " * 30)
        self.root.mkdir()
        self.at_s = 0.0
        paths = CgroupPaths(root=self.root, monotonic=lambda: 0.0)
        self.sensor = ServersSensor(
            identifier=Identifier(cgroups=paths, proc=self.proc),
            root=self.root,
            proc=self.proc,
            monotonic=lambda: self.at_s,
        )

    def process(
        self, pid: int, *command: str, cgroup: str = "/", parent: int = 1, start: int = 100, used_s: float = 0
    ) -> None:
        """Start a process."""
        folder = self.proc / str(pid)
        folder.mkdir(exist_ok=True)
        name = command[0].rpartition("/")[2][:15]
        (folder / "comm").write_text(name + "\n")
        (folder / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in command))
        (folder / "cgroup").write_text(f"0::{cgroup}\n")
        self.cgroup(cgroup, pid)
        self.use(pid, used_s, name=name, parent=parent, start=start)

    def use(
        self,
        pid: int,
        used_s: float,
        *,
        name: str = "x",
        parent: int = 1,
        start: int = 100,
        state: str = "S",
    ) -> None:
        """Let a process have used so much of the processor, half of it in the kernel."""
        half = int(used_s * TICKS / 2)
        tail = f"{state} {parent} 0 0 0 0 0 0 0 0 0 {half} {half} 0 0 0 0 0 0 {start} " + "0 " * 20
        (self.proc / str(pid) / "stat").write_text(f"{pid} ({name}) ) {tail}\n")

    def cgroup(self, path: str, *pids: int, used_us: int | None = 0) -> None:
        """Make a cgroup with these processes."""
        folder = self.root / path.lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        procs = folder / "cgroup.procs"
        before = procs.read_text().split() if procs.exists() else []
        procs.write_text("".join(f"{pid}\n" for pid in dict.fromkeys([*before, *map(str, pids)])))
        if used_us is not None:
            (folder / "cpu.stat").write_text(f"usage_usec {used_us}\nuser_usec 1\nsystem_usec 1\n")

    def looks(self, after_s: float = 5.0) -> Sequence[ServerUsage]:
        """Let time pass and read."""
        self.at_s += after_s
        return [seen for seen in self.sensor.read(instant(self.at_s)) if isinstance(seen, ServerUsage)]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host on which nothing runs."""
    made = Host(tmp_path)
    made.sensor.open()
    return made


def test_a_container_is_measured_by_its_cgroup(host: Host) -> None:
    """All that its processes used, those included that have ended, over the window; pids from below too."""
    host.process(10, "sh", "-c", "run", cgroup=f"/{CONTAINER}")
    host.process(11, "vllm", "serve", "m", "--port", "8123", cgroup=f"/{CONTAINER}")
    host.process(12, "VLLM::EngineCore", cgroup=f"/{CONTAINER}")
    host.cgroup(f"/{CONTAINER}/inner", 13)
    assert host.looks() == []
    host.cgroup(f"/{CONTAINER}", used_us=30_000_000)
    (usage,) = host.looks(5.0)
    assert (usage.cores, usage.window_s, usage.source) == (6.0, 5.0, UsageSource.CGROUP)
    assert (usage.origin.server, usage.origin.pid, usage.port) == (ServerKind.VLLM, 11, 8123)
    assert usage.pids == (10, 11, 12, 13)
    assert usage.started.boot_ns == 100 * 1_000_000_000 // TICKS


def test_a_server_in_a_session_is_measured_by_its_process_tree(host: Host) -> None:
    """What else the session runs is not its own; what it started is."""
    scope = "/user.slice/user-1000.slice/session-3.scope"
    host.process(20, "bash", cgroup=scope, used_s=9)
    host.process(21, "llama-server", "-m", "f", cgroup=scope, parent=20)
    host.process(22, "helper", cgroup=scope, parent=21)
    host.process(23, "make", cgroup=scope, parent=20)
    assert host.looks() == []
    for pid, used_s, parent in ((20, 19, 1), (21, 10, 20), (22, 5, 21), (23, 100, 20)):
        host.use(pid, used_s, parent=parent)
    (usage,) = host.looks(5.0)
    assert (usage.cores, usage.source, usage.pids) == (3.0, UsageSource.PROCESS_TREE, (21, 22))


def test_a_child_that_is_new_brings_no_time_of_its_own(host: Host) -> None:
    """A process that joins the tree may have used its time elsewhere; it counts from the next window."""
    host.process(21, "llama-server", "-m", "f")
    host.looks()
    host.process(22, "helper", parent=21, used_s=60)
    (first,) = host.looks(5.0)
    host.use(22, 65, parent=21)
    (second,) = host.looks(5.0)
    assert (first.cores, first.pids, second.cores) == (0.0, (21, 22), 1.0)


def test_workers_of_one_server_are_one_server(host: Host) -> None:
    """Forked copies have their parent's command line: in one cgroup, or below one parent, they are one."""
    command = ("uvicorn", "speaches.main:app", "--port", "8000")
    host.process(30, *command, cgroup="/system.slice/speaches.service")
    host.process(31, *command, cgroup="/system.slice/speaches.service", parent=30)
    host.process(40, "ollama", "serve")
    host.process(41, "ollama", "serve", parent=40)
    host.looks()
    assert [usage.origin.pid for usage in host.looks()] == [30, 40]


@pytest.mark.parametrize(
    "command", [("litellm", "--config", "f"), ("postgres",), ("VLLM::EngineCore",), ("vim", "vllm.py")]
)
def test_what_runs_no_model_is_not_measured(host: Host, command: tuple[str, ...]) -> None:
    """Gateways and databases belong on the CPU; workers are counted with their server."""
    host.process(50, *command, cgroup=f"/{CONTAINER}")
    host.looks()
    assert host.looks() == []


def test_a_process_in_uninterruptible_sleep_is_asked_for_its_command_line_later(host: Host) -> None:
    """Reading it might never end; a server that loads its model sleeps so at many looks, and is found."""
    host.process(30, "vllm", "serve", "m", cgroup=f"/{CONTAINER}")
    host.use(30, 0, state="D")
    for _ in range(5):
        assert host.looks(15.0) == []
    host.use(30, 0)
    host.looks(15.0)
    (usage,) = host.looks(5.0)
    assert (usage.origin.pid, usage.origin.server) == (30, ServerKind.VLLM)


def test_a_server_that_falls_into_uninterruptible_sleep_stays_known(host: Host) -> None:
    """Its command line cannot be read again, and is not needed."""
    host.process(30, "python3", "-m", "vllm.entrypoints.openai.api_server", cgroup=f"/{CONTAINER}")
    host.looks()
    (before,) = host.looks()
    (host.proc / "30/cmdline").unlink()
    host.use(30, 0, state="D")
    for _ in range(3):
        (usage,) = host.looks(15.0)
        assert usage.origin == before.origin


def test_a_shell_that_becomes_a_server_is_found(host: Host) -> None:
    """Its command line changes under the same number."""
    host.process(60, "sh", "-c", "exec ollama serve")
    host.looks()
    host.process(60, "ollama", "serve")
    host.looks(15.0)
    assert [usage.origin.server for usage in host.looks()] == [ServerKind.OLLAMA]


def test_a_number_that_is_used_again_is_another_server(host: Host) -> None:
    """The account of one life is not taken for the next one's."""
    host.process(70, "ollama", "serve", used_s=500)
    host.looks()
    host.process(70, "ollama", "serve", start=999, used_s=1)
    assert host.looks() == []
    host.looks(15.0)
    (usage,) = host.looks()
    assert (usage.origin.start_ticks, usage.cores) == (999, 0.0)


def test_watches_a_bounded_number(host: Host) -> None:
    """A thousand things that call themselves a server cost what a few do."""
    for pid in range(100, 200):
        host.process(pid, "ollama", "serve")
    host.looks()
    assert len(host.looks()) == SERVERS_MAX


def test_a_stat_that_is_garbage_names_nobody(host: Host) -> None:
    """A process whose account cannot be read is no server that can be measured."""
    host.process(80, "ollama", "serve")
    (host.proc / "80/stat").write_bytes(b"80 (a) b) \xff\xff")
    host.looks()
    assert host.looks() == []


def test_a_system_without_proc_cannot_be_seen(tmp_path: Path) -> None:
    """macOS has none."""
    paths = CgroupPaths(root=None, monotonic=lambda: 0.0)
    sensor = ServersSensor(identifier=Identifier(cgroups=paths), root=None, proc=tmp_path / "none")
    with pytest.raises(SensorBlind) as caught:
        sensor.open()
    assert caught.value.blind.reason is BlindReason.UNSUPPORTED_PLATFORM


def test_a_proc_that_hides_others_is_blindness(tmp_path: Path) -> None:
    """With hidepid nobody's server is seen: that is no host without servers."""
    host = Host(tmp_path)
    (host.proc / "1/stat").unlink()
    with pytest.raises(SensorBlind) as caught:
        host.sensor.open()
    assert caught.value.blind.reason is BlindReason.READ_FAILED
    assert "hidepid" in caught.value.blind.detail


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_measures_a_real_server() -> None:
    """A process of this machine that is started like a server and burns one core is seen to burn it."""
    burn = "while True: sum(range(10000))"
    mounts = find_mounts()
    paths = CgroupPaths(root=mounts.unified, monotonic=time.monotonic)
    sensor = ServersSensor(identifier=Identifier(cgroups=paths), root=mounts.unified)
    sensor.open()
    server = subprocess.Popen(["llama-server", "-c", burn], executable=sys.executable)
    try:
        used_s = 0.0
        deadline = time.monotonic() + 30
        while used_s < 0.5 and time.monotonic() < deadline:
            sensor._searched_s = None
            for usage in sensor.read(now()):
                if isinstance(usage, ServerUsage) and usage.origin.pid == server.pid:
                    assert server.pid in usage.pids
                    used_s += usage.cores * usage.window_s
        stat = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
        assert 0.5 <= used_s <= (int(stat[11]) + int(stat[12])) / TICKS
    finally:
        server.kill()
        server.wait()
        sensor.close()
