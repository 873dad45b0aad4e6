"""How long a kernel event takes to become a committed row of the queue, as a watcher of the queue sees it.

The whole way runs for real: kernel, loader, agent without privilege, outbox with its fsync, mutual TLS, the
orchestrator's commit with its fsync. The clock starts when the kernel records the event (its own time stamp,
carried to the row) and stops when the committed row arrives on the stream of changes, the way to the watcher
included. Every event is about a new subject, in a control group of its own, and so makes a new row.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.paired import percentile
from bench.rig import Orchestrator, Unavailable, orchestrator, watched
from bench.storms import compile_storm

_V1 = Path("/sys/fs/cgroup")
_UNIFIED = _V1 / "unified"
_NODE = Path("/dev/nvidiactl")
_PATIENCE_S = 10.0
_PACE_S = 1.1
"""Seconds between events. The agent looks for an unknown control group 20 times at once and then once a
second; a fleet does not make new ones faster, this measurement would."""


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of event: how many were timed, and the milliseconds to a committed row."""

    event: str
    figures_ms: tuple[float, ...]


def measure(*, events: int) -> list[Row]:
    """Time `events` of each kind; a kind that this machine cannot cause is left out with a printed reason."""
    rows = []
    with ExitStack() as stack:
        server = stack.enter_context(orchestrator(agents=["bench"]))
        stack.enter_context(watched(server))
        arrivals = stack.enter_context(watching(server))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))
        folder.chmod(0o755)
        storm = compile_storm(folder)
        kinds: tuple[tuple[str, str, Callable[[Path, int], None]], ...] = (
            ("OOM kill in a control group (wakes the agent)", "memory.cgroup_oom_kill", _oom_kill),
            ("refused open of a GPU device (wakes the agent)", "gpu.access_revoked", _refused_open),
            ("fault signal (waits for the 250 ms timer)", "process.killed_by_signal", _fault_signal),
            ("new listener on all interfaces (the same timer)", "exposure.off_mesh_listener", _listener),
        )
        for event, fault_class, cause in kinds:
            try:
                rows.append(Row(event, _waits(arrivals, server, fault_class, partial(cause, storm), events)))
            except Unavailable as reason:
                print(f"latency: {event}: left out: {reason}")
    return rows


def table(rows: list[Row]) -> str:
    """Render the rows as Markdown."""
    lines = ["| event | p50 ms | p99 ms | slowest ms | events |", "|---|---|---|---|---|"]
    for row in rows:
        p50, p99 = percentile(row.figures_ms, 0.5), percentile(row.figures_ms, 0.99)
        worst = max(row.figures_ms)
        lines.append(f"| {row.event} | {p50:.1f} | {p99:.1f} | {worst:.1f} | {len(row.figures_ms)} |")
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A new row: when it came (Unix nanoseconds), and what it is about."""

    at_ns: int
    fault_class: str
    incident_id: str


def _waits(
    arrivals: queue.Queue[Arrival],
    server: Orchestrator,
    fault_class: str,
    cause: Callable[[int], None],
    events: int,
) -> tuple[float, ...]:
    return tuple(_time(arrivals, server, fault_class, partial(cause, number)) for number in range(events))


def _time(
    arrivals: queue.Queue[Arrival], server: Orchestrator, fault_class: str, cause: Callable[[], None]
) -> float:
    while not arrivals.empty():
        arrivals.get_nowait()
    cause()
    deadline = time.monotonic() + _PATIENCE_S
    while (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(queue.Empty):
            arrival = arrivals.get(timeout=left)
            if arrival.fault_class == fault_class:
                return (arrival.at_ns - _first_seen_ns(server, arrival.incident_id)) / 1e6
    raise Unavailable(f"no {fault_class} within {_PATIENCE_S:.0f} s of causing it")


def _first_seen_ns(server: Orchestrator, incident_id: str) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{server.folder}/bench.db?mode=ro", uri=True)) as database:
        found = database.execute(
            "SELECT json_extract(value, '$.first_seen_ns') FROM incidents WHERE id = ?", (incident_id,)
        ).fetchone()
    return int(found[0])


@contextmanager
def watching(server: Orchestrator) -> Iterator[queue.Queue[Arrival]]:
    """Follow the queue's stream of changes; each new row is put into the queue that this gives."""
    arrivals: queue.Queue[Arrival] = queue.Queue()
    with server.client() as client, client.stream("GET", "/api/v1/watch", timeout=None) as stream:
        known: set[str] = set()

        def follow() -> None:
            with contextlib.suppress(Exception):  # the stream ends with the orchestrator
                for line in stream.iter_lines():
                    at_ns = time.time_ns()
                    if line.startswith("data:"):
                        entry = json.loads(line.removeprefix("data:"))
                        if entry["incident_id"] not in known:  # later news of a row is not its arrival
                            known.add(entry["incident_id"])
                            arrivals.put(Arrival(at_ns, entry["fault_class"], entry["incident_id"]))

        threading.Thread(target=follow, daemon=True).start()
        yield arrivals


@contextmanager
def _groups(name: str, *controllers: str) -> Iterator[tuple[Path, ...]]:
    """Make a control group in the unified hierarchy and in each v1 `controllers`; remove them at the end."""
    roots = [_UNIFIED, *(_V1 / controller for controller in controllers)]
    if not all((root / "cgroup.procs").exists() for root in roots):
        raise Unavailable(f"needs the v1 controllers {', '.join(controllers)} beside a unified hierarchy")
    folders = tuple(root / name for root in roots)
    for folder in folders:
        folder.mkdir()
    try:
        yield folders
        time.sleep(_PACE_S)
    finally:
        for folder in folders:
            for _ in range(100):
                with contextlib.suppress(OSError):
                    folder.rmdir()
                    break
                time.sleep(0.01)


def _inside(folders: tuple[Path, ...], *command: str | Path) -> subprocess.Popen[bytes]:
    join = "; ".join(f"echo $$ > {folder}/cgroup.procs" for folder in folders)
    return subprocess.Popen(
        ["sh", "-c", f'{join}; exec "$@"', "sh", *map(str, command)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def _oom_kill(storm: Path, number: int) -> None:
    with _groups(f"bench-oom-{os.getpid()}-{number}", "memory") as folders:
        (folders[1] / "memory.limit_in_bytes").write_text(str(8 << 20))
        with _inside(folders, storm, "hog", "64") as process:
            if process.wait(10) != -signal.SIGKILL:
                raise Unavailable(f"the hog ended with {process.returncode}, not by the kernel")


def _refused_open(storm: Path, number: int) -> None:
    if _NODE.exists():
        raise Unavailable(f"{_NODE} is there: this measurement makes one of its own")
    with _groups(f"bench-refused-{os.getpid()}-{number}", "devices") as folders:
        os.mknod(_NODE, 0o20666, os.makedev(1, 3))
        try:
            with _inside(folders, storm, "refused", "1") as process:
                assert process.stdin is not None
                assert process.stdout is not None
                if process.stdout.readline() != b"opened\n":
                    raise Unavailable("the first open did not succeed")
                (folders[1] / "devices.deny").write_text("c 1:3 rw")
                time.sleep(0.3)  # the agent has read the success by then, as it would in life
                process.stdin.write(b"go\n")
                process.stdin.close()
                if process.wait(10) != 0:
                    raise Unavailable("the second open was not refused")
        finally:
            _NODE.unlink()


def _fault_signal(storm: Path, number: int) -> None:
    shell = storm.parent / f"segv-{number}"  # deaths are counted by process name
    shell.symlink_to("/bin/sh")
    subprocess.run([shell, "-c", "kill -SEGV $$"], check=False)
    time.sleep(0.3 + number % 25 / 100)  # at another phase of the timer each time


def _listener(_: Path, number: int) -> None:
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen(1)
        time.sleep(0.4 + number % 25 / 100)  # past the timer, and at another phase of it each time
