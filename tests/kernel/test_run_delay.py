"""Waits for a processor, on real eBPF: programs that sleep until they are asked, and what they count then."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from probes import registry
from probes.host.clock import now
from probes.host.identity import Identifier
from probes.host.known_servers import KnownServer, KnownServers
from probes.host.neighbours import CgroupUse
from probes.kernel.run_delay import LINGER_S, LOOK_EVERY_S, PROGRAM, RunDelaySensor
from probes.observation import BlindReason, RunDelay
from probes.sensor import SensorBlind
from tests.kernel.conftest import Cgroups, LoadRun

pytestmark = [pytest.mark.root, pytest.mark.ebpf]

CALM = "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
PRESSED = CALM.replace("some avg10=0.00", "some avg10=60.00")
_SLEEPER = (
    "import sys, time\nfor _ in sys.stdin:\n    for _ in range(97): time.sleep(0.001)\n    print(flush=True)"
)
_BURNER = "import os\nos.sched_setaffinity(0, {0})\nprint(flush=True)\nwhile True: pass"
_SWITCHES = re.compile(r"^(?:non)?voluntary_ctxt_switches:\t(\d+)$", re.MULTILINE)


class Bench:
    """A sensor on the session's programs, with a pressure file and a clock that a test moves."""

    def __init__(self, loaded: LoadRun, folder: Path) -> None:
        self.pressure, self.at_s = folder / "cpu", 0.0
        self.known = KnownServers()
        host = registry.surroundings(loaded.handover)
        self.identifier: Identifier = host.identifier
        self.sensor = RunDelaySensor(
            handover=loaded.handover,
            known=self.known,
            use=CgroupUse(mounts=host.mounts),
            pressure=self.pressure,
            monotonic=lambda: self.at_s,
        )
        self.press(CALM)
        self.sensor.open()

    def press(self, text: str) -> None:
        """Let the host wait so much for its processors."""
        self.pressure.write_text(text)

    def serve(self, *processes: subprocess.Popen[str]) -> None:
        """Let these processes be the servers of the host."""
        self.known.post(
            KnownServer(self.identifier.origin(pid=each.pid), 8000, (each.pid,)) for each in processes
        )

    def looks(self, after_s: float = 5.0) -> list[RunDelay]:
        """Let time pass and read."""
        self.at_s += after_s
        return [seen for seen in self.sensor.read(now()) if isinstance(seen, RunDelay)]

    @property
    def awake(self) -> bool:
        """Whether the programs run."""
        return "awake" in repr(self.sensor)


@pytest.fixture
def bench(loaded: LoadRun, tmp_path: Path) -> Iterator[Bench]:
    """A host without servers that waits for nothing."""
    made = Bench(loaded, tmp_path)
    yield made
    made.sensor.close()


@pytest.fixture
def start(cgroups: Callable[..., Cgroups]) -> Iterator[Callable[[Cgroups, str], subprocess.Popen[str]]]:
    """Start pieces of Python in cgroups; they are ended before the cgroups go."""
    running: list[subprocess.Popen[str]] = []

    def start_(group: Cgroups, code: str) -> subprocess.Popen[str]:
        running.append(group.start(code))
        return running[-1]

    yield start_
    for process in running:
        process.kill()
        process.communicate()


def switches(process: subprocess.Popen[str]) -> int:
    """Return how often the process has left a processor so far, wanted or not."""
    return sum(map(int, _SWITCHES.findall(Path(f"/proc/{process.pid}/status").read_text())))


def used_s(process: subprocess.Popen[str]) -> float:
    """Return the processor time that the process has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_every_wait_of_a_watched_thread_is_counted(
    bench: Bench,
    cgroups: Callable[..., Cgroups],
    start: Callable[[Cgroups, str], subprocess.Popen[str]],
) -> None:
    """A thread that leaves the processor comes back after one wait; the kernel's own count says how often.

    A few may be missing: a system call on any map of the machine switches a processor's programs off
    meanwhile.
    """
    process = start(cgroups(), _SLEEPER)
    assert process.stdin
    assert process.stdout
    bench.serve(process)
    bench.press(PRESSED)
    assert bench.looks() == []
    before = switches(process)
    print(file=process.stdin, flush=True)
    process.stdout.readline()
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
        time.sleep(0.001)
    (told,) = bench.looks()
    left = switches(process) - before
    assert left >= 97
    assert left - 3 <= told.waits <= left
    assert (told.threads, told.window_s, told.origin.pid) == (1, 5.0, process.pid)
    assert told.p99_s is not None
    assert 0 < told.waited_s < 5


def test_a_server_that_shares_its_processor_waits_and_the_neighbour_is_named(
    bench: Bench,
    cgroups: Callable[..., Cgroups],
    start: Callable[[Cgroups, str], subprocess.Popen[str]],
) -> None:
    """Two busy loops on one processor: the server waits while the other runs, whose group has grown."""
    own, other = cgroups(), cgroups()
    server = start(own, _BURNER)
    assert server.stdout
    server.stdout.readline()
    bench.serve(server)
    bench.looks()  # the first look of all, for what is usual
    assert bench.awake
    neighbour = start(other, _BURNER)
    assert neighbour.stdout
    neighbour.stdout.readline()
    bench.press(PRESSED)
    bench.looks()
    began, used = time.monotonic(), used_s(neighbour)
    while used_s(neighbour) < used + 0.3 and time.monotonic() < began + 30:
        time.sleep(0.05)
    (told,) = bench.looks(lasted := time.monotonic() - began)
    assert told.waited_s >= 0.25  # for as long as the other ran, at least
    assert told.p99_s is not None
    assert told.p99_s >= 0.001
    (named,) = (one for one in told.neighbours if one.cgroup_path == other.name)
    assert named.grown_cores * lasted >= 0.25
    assert own.name not in {one.cgroup_path for one in told.neighbours}


def test_sleeps_while_nobody_waits_and_wakes_for_a_look(
    bench: Bench,
    cgroups: Callable[..., Cgroups],
    start: Callable[[Cgroups, str], subprocess.Popen[str]],
) -> None:
    """No server, no look; then one window, rest, one again after a long while, and longer under pressure."""
    assert bench.looks() == []
    assert not bench.awake
    bench.serve(start(cgroups(), _SLEEPER))
    bench.looks()
    assert bench.awake
    assert len(bench.looks()) == 1
    assert not bench.awake
    assert bench.looks() == []
    assert not bench.awake
    bench.looks(LOOK_EVERY_S)
    assert bench.awake
    bench.press(PRESSED)
    assert len(bench.looks()) == 1
    assert bench.awake
    bench.press(CALM)
    assert len(bench.looks(LINGER_S - 1)) == 1
    assert bench.awake
    assert len(bench.looks(2)) == 1
    assert not bench.awake


def test_a_server_that_is_gone_is_forgotten(
    bench: Bench,
    cgroups: Callable[..., Cgroups],
    start: Callable[[Cgroups, str], subprocess.Popen[str]],
) -> None:
    """Its place is free for the next one, whose waits begin at none."""
    group = cgroups()
    first = start(group, _SLEEPER)
    bench.serve(first)
    bench.press(PRESSED)
    bench.looks()
    second = start(group, _SLEEPER)
    bench.serve(second)
    bench.looks()
    told = bench.looks()
    assert [(one.origin.pid, one.threads) for one in told] == [(second.pid, 1)]


_UNPRIVILEGED = """
import ctypes, json, os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from probes.kernel.asleep import Sleepers
from probes.kernel.handover import Handover, HandedMap, Manifest
from probes.kernel.libbpf import Libbpf, Map
from probes.kernel.run_delay import PROGRAM
handed = Handover(Manifest.from_bytes(sys.stdin.buffer.readline()), tuple(json.loads(sys.argv[2])))
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
caps = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Cap")]
assert all(int(line.split()[1], 16) == 0 for line in caps if not line.startswith("CapBnd")), caps
library = Libbpf()
entry = handed.maps(PROGRAM.sensor)["run_delay_threads"]
threads = Map(libbpf=library, fd=entry.fd, key_size=4, value_size=entry.entry.value_size)
threads.update((4242).to_bytes(4, sys.byteorder), bytes(entry.entry.value_size))
assert threads.lookup((4242).to_bytes(4, sys.byteorder)) is not None
threads.delete((4242).to_bytes(4, sys.byteorder))
sleepers = Sleepers(program=PROGRAM, handover=handed, libbpf=library)
for namespace in (False, True):
    if namespace:  # as the agent's unit has one: PrivateUsers=
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.unshare(0x10000000) == 0, os.strerror(ctypes.get_errno())
    sleepers.wake()
    print(repr(sleepers))
    sleepers.sleep()
    print(repr(sleepers))
"""


def test_waking_takes_no_capability(loaded: LoadRun) -> None:
    """A process of another user, without one capability, fills the table and lets the programs run.

    Also in a user namespace of its own.
    """
    fds = list(loaded.handover.descriptors)
    done = subprocess.run(
        [sys.executable, "-I", "-c", _UNPRIVILEGED, Path(registry.__file__).parents[1], json.dumps(fds)],
        input=loaded.handover.manifest.to_bytes() + b"\n",
        capture_output=True,
        pass_fds=fds,
        check=False,
        timeout=30,
    )
    assert done.stderr.decode() == ""
    assert (
        done.stdout.decode().splitlines()
        == [
            "Sleepers(3 programs, awake)",
            "Sleepers(3 programs, asleep)",
        ]
        * 2
    )


def test_without_its_programs_it_is_blind(tmp_path: Path) -> None:
    """A handover that does not name them is a reason of its own."""
    sensor = RunDelaySensor(
        handover=None, known=KnownServers(), use=CgroupUse(mounts=registry.find_mounts("")), proc=tmp_path
    )
    with pytest.raises(SensorBlind) as caught:
        sensor.open()
    assert caught.value.blind.reason is BlindReason.NOT_HANDED_OVER
    assert all(each.asleep for each in PROGRAM.tracepoints)
    with contextlib.suppress(SensorBlind):
        sensor.read(now())
