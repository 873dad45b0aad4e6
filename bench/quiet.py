"""A busy, healthy host: builds, installs, a database under load, model traffic. Nothing may be raised.

Everything is real and goes well, on all processors: a compiler, `python -m venv` (thousands of files and
processes), PostgreSQL with pgbench where the machine has it, and a model server that answers well. What an
orchestrator holds in its queue afterwards was raised without a fault. Sensors that this machine cannot have
(no GPU, no mesh) are notes of their own kind and listed apart.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.rig import Unavailable, cpu_s, free_ports, orchestrator, proportional_bytes, watched

_HOST = "busy"
_STORM_C = Path(__file__).parent / "storm.c"
_BLIND = "monitor.blind"
_PGBENCH_ROWS = 2
_SETTLE_S = 20.0


@dataclass(frozen=True, slots=True)
class Quiet:
    """How long, how much work was done, what was raised, what could not be seen, and what the agent used."""

    minutes: float
    work: dict[str, int]
    raised: tuple[str, ...]
    blind: tuple[str, ...]
    cpu_share: float
    pss_mb: float


def measure(*, minutes: float) -> Quiet:
    """Keep the host busy for `minutes` and look into the queue."""
    watched_port, other_port = free_ports(2)
    with (
        orchestrator(agents=[_HOST]) as server,
        watched(server, host=_HOST, http_ports=(watched_port,)) as agent,
        tempfile.TemporaryDirectory(prefix="nanobot-busy-", dir="/var/tmp") as scratch,
    ):
        started, used = time.monotonic(), cpu_s(agent.pid)
        work = _work(Path(scratch), minutes * 60, (watched_port, other_port))
        time.sleep(_SETTLE_S)
        took_s = time.monotonic() - started
        with server.client() as client:
            entries = client.get("/api/v1/queue", params={"state": "all"}).json()["entries"]
        return Quiet(
            minutes=took_s / 60,
            work=dict(work),
            raised=tuple(_line(entry) for entry in entries if entry["fault_class"] != _BLIND),
            blind=tuple(_line(entry) for entry in entries if entry["fault_class"] == _BLIND),
            cpu_share=(cpu_s(agent.pid) - used) / took_s,
            pss_mb=proportional_bytes(agent.pid) / 1e6,
        )


def table(quiet: Quiet) -> str:
    """Render it as Markdown."""
    work = ", ".join(f"{count} {what}" for what, count in quiet.work.items())
    raised = "nothing" if not quiet.raised else "; ".join(quiet.raised)
    return (
        "| minutes | done meanwhile | raised | cannot be seen here | agent CPU | PSS MB |\n"
        "|---|---|---|---|---|---|\n"
        f"| {quiet.minutes:.0f} | {work} | {raised} | {'; '.join(quiet.blind) or 'nothing'} "
        f"| {quiet.cpu_share:.1%} | {quiet.pss_mb:.1f} |"
    )


def _line(entry: dict[str, Any]) -> str:
    subject = entry["subject"]
    return (
        f"{entry['fault_class']} ({entry['severity']}) {subject['kind']} {subject['name']} x{entry['count']}"
    )


def _work(scratch: Path, seconds: float, ports: Sequence[int]) -> Counter[str]:
    """Do all of it side by side until the time is over; return how often each was done."""
    done: Counter[str] = Counter()
    end = time.monotonic() + seconds
    jobs: list[tuple[str, Callable[[], object]]] = [
        ("builds", lambda: _run(["cc", "-O2", "-o", str(scratch / "storm"), str(_STORM_C)])),
        ("environments installed", lambda: _install(scratch / "venv")),
    ]
    failures: list[BaseException] = []

    def repeat(name: str, job: Callable[[], object]) -> None:
        try:
            while time.monotonic() < end:
                job()
                done[name] += 1
                time.sleep(0.5)
        except (OSError, subprocess.SubprocessError) as error:
            failures.append(error)

    with contextlib.ExitStack() as stack:
        for port, seed in zip(ports, ("3", "5"), strict=True):
            stack.enter_context(_traffic(port, seconds, seed))
        database = stack.enter_context(_database(scratch / "pg"))
        if database is not None:
            jobs.append(("database runs of 20 s", database))
        threads = [threading.Thread(target=repeat, args=job, name=job[0]) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failures:
        raise Unavailable(f"the work itself failed: {failures[0]}")
    return done


def _run(command: Sequence[str], **more: Any) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=300, **more)


def _install(folder: Path) -> None:
    _run([sys.executable, "-m", "venv", str(folder)])
    shutil.rmtree(folder)


@contextlib.contextmanager
def _traffic(port: int, seconds: float, seed: str) -> Iterator[None]:
    kinds = ("whole", "stream", "stream", "large")
    command = [sys.executable, "-m", "bench.traffic", str(port), str(seconds), seed, *kinds]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield
            process.wait(60)
        finally:
            process.kill()


@contextlib.contextmanager
def _database(folder: Path) -> Iterator[Callable[[], None] | None]:
    """Run a PostgreSQL of our own; yield what puts 20 seconds of load on it, None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found or os.geteuid() != 0:
        yield None
        return
    programs, account = found[-1], 65534
    folder.mkdir()
    os.chown(folder, account, account)
    folder.parent.chmod(0o711)
    (port,) = free_ports(1)
    data, as_nobody = folder / "data", {"user": account, "group": account, "cwd": folder}
    _run([str(programs / "initdb"), "-D", str(data), "-A", "trust", "-U", "bench"], **as_nobody)
    at = ["-h", str(folder), "-p", str(port), "-U", "bench"]
    options = f"-k {folder} -p {port} -c listen_addresses="
    _run(
        [str(programs / "pg_ctl"), "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start"],
        **as_nobody,
    )
    try:
        _run([str(programs / "pgbench"), "-q", "-i", "-s", str(_PGBENCH_ROWS), *at, "postgres"], **as_nobody)
        yield lambda: _run([str(programs / "pgbench"), "-c", "4", "-T", "20", *at, "postgres"], **as_nobody)
    finally:
        _run([str(programs / "pg_ctl"), "-D", str(data), "-m", "fast", "-w", "stop"], **as_nobody)
