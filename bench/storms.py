"""What the probes cost a workload: CPU time of storms of system calls, with them on against off.

Each pair runs the workload bare and watched, in alternating order; an A/A control runs it bare twice. Beside
it stand the tools that an operator would use instead, each on the storm that it traces. The workload is
pinned to one processor; the figure is its own CPU time, children included, so what an agent does on the other
processor does not blur it. Reads of a disk are measured by the clock: most of their work, and half of what is
added to it, is done by the kernel's own threads while the reader waits.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.awake import run_delay
from bench.paired import Paired, run_pairs
from bench.rig import Unavailable, watched
from bench.scoped import PLACES, scope

COUNTS = {
    "block": 20_000,
    "exec": 1500,
    "open": 400_000,
    "switch": 150_000,
    "tcp": 25_000,
    "write": 1_000_000,
}
PEERS = {
    "block": ("libbpf-tools biolatency", ("/usr/sbin/biolatency",)),
    "exec": ("bcc exitsnoop", ("/usr/sbin/exitsnoop-bpfcc",)),
    "open": ("libbpf-tools opensnoop", ("/usr/sbin/opensnoop",)),
    "switch": ("libbpf-tools runqlat", ("/usr/sbin/runqlat",)),
    "tcp": ("bcc tcpstates", ("/usr/sbin/tcpstates-bpfcc",)),
}
_PEER_ATTACHES_S = 6.0
# In a mount namespace of their own the peers find what they look for on any machine: tracefs, debugfs and
# kernel headers of whatever version under the running kernel's name.
_PEER_WORLD = """
set -e
mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug
mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing
if [ ! -e /lib/modules/$(uname -r)/build ]; then
  newest=$(ls -d /lib/modules/*/build | tail -n 1)
  mount --bind /lib/modules "$1"
  mount -t tmpfs tmpfs /lib/modules
  ln -s "$1/$(basename "${newest%/build}")" /lib/modules/$(uname -r)
fi
shift
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a storm, who watched it, and what that cost."""

    storm: str
    watcher: str
    result: Paired


def measure(*, pairs: int, peers: bool, names: Collection[str] = ()) -> list[Row]:
    """Measure every storm, or those named; what is not installed is left out with a printed reason."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        storm = compile_storm(Path(folder))
        for name in names or COUNTS:
            try:
                with _disk(Path(folder)) if name == "block" else nullcontext("") as disk:
                    rows.extend(_rows(storm, name, disk=disk, pairs=pairs, peers=peers))
            except Unavailable as reason:
                print(f"storms: {name}: left out: {reason}")
    return rows


def _rows(storm: Path, name: str, *, disk: str, pairs: int, peers: bool) -> Iterator[Row]:
    def under(watch: Callable[[], AbstractContextManager[object]]) -> float:
        with watch():
            return _cost_us(storm, name, disk)

    bare = partial(under, nullcontext)
    yield Row(name, "A/A control", run_pairs(bare, bare, pairs=pairs))
    sides: list[tuple[str, Callable[[], AbstractContextManager[object]], int]] = [("nanobot", watched, pairs)]
    if name == "switch":  # once more with what the agent wakes when servers wait
        sides += [
            (f"run-queue delay, {how}", partial(run_delay, awake=how == "awake"), pairs)
            for how in ("asleep", "awake")
        ]
    if name in {"exec", "tcp"}:  # and with a scope declared, which no host has by default
        sides += [(f"a scope, {place}", partial(scope, place=place), pairs) for place in PLACES]
    if peers and name in PEERS:
        peer, command = PEERS[name]
        sides.append((peer, partial(_peer, command), max(3, pairs // 3)))
    for watcher, watch, count in sides:
        try:
            yield Row(name, watcher, run_pairs(partial(under, watch), bare, pairs=count))
        except Unavailable as reason:
            print(f"storms: {name}, {watcher}: left out: {reason}")


def table(rows: list[Row]) -> str:
    """Render the rows as Markdown."""
    lines = [
        "| storm | watched by | us an operation, on | off | on/off, median [min-max] | pairs |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        result = row.result
        cells = (row.storm, row.watcher, f"{result.on.median:.2f}", f"{result.off.median:.2f}", result.ratio)
        lines.append("| " + " | ".join(map(str, (*cells, result.pairs))) + " |")
    return "\n".join(lines)


def compile_storm(folder: Path) -> Path:
    """Compile the workload into `folder` and return the program."""
    program = folder / "storm"
    source = Path(__file__).with_name("storm.c")
    subprocess.run(["cc", "-O2", "-Wall", "-o", program, source], check=True)
    return program


def _cost_us(storm: Path, name: str, disk: str) -> float:
    cpu = str(min(os.sched_getaffinity(0)))
    command = ["taskset", "-c", cpu, storm, name, str(COUNTS[name]), *filter(None, [disk])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    cpu_s, wall_s = map(float, done.stdout.split())
    return (wall_s if disk else cpu_s) / COUNTS[name] * 1e6


@contextmanager
def _disk(folder: Path) -> Iterator[str]:
    """Make a disk of 4 MiB out of a file that stays in the cache."""
    if os.geteuid() != 0:
        raise Unavailable("a loop device needs root")
    image = folder / "disk"
    image.write_bytes(os.urandom(4 << 20))
    made = subprocess.run(["losetup", "--find", "--show", image], check=False, capture_output=True, text=True)
    if made.returncode:
        raise Unavailable(f"losetup: {made.stderr.strip()}")
    device = made.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@contextmanager
def _peer(command: tuple[str, ...]) -> Iterator[None]:
    if not Path(command[0]).exists():
        raise Unavailable(f"{command[0]} is not installed")
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as said:
        world = ["unshare", "--mount", "sh", "-c", _PEER_WORLD, "sh", folder]
        process = subprocess.Popen([*world, *command], stdout=subprocess.DEVNULL, stderr=said)
        try:
            time.sleep(_PEER_ATTACHES_S)
            if process.poll() is not None:
                said.seek(0)
                words = said.read().decode(errors="replace").strip()[-200:]
                raise Unavailable(f"{command[0]} ended with {process.returncode}: {words}")
            yield
        finally:
            process.terminate()
            process.wait(10)
