"""A real Ray cluster of two nodes: one is killed, comes back, is stopped, and leaves in order."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.testing import HOST
from escalation.model import CasePhase, FaultClass, ReasonCode, Severity, Subject, SubjectKind
from probes.host.cgroups import CgroupPaths, find_mounts
from probes.host.identity import Identifier
from probes.host.known_servers import KnownServer, KnownServers
from probes.host.model_servers import Servers
from probes.host.processes import ProcessesSensor
from probes.host.sessions import SessionSensor
from probes.logs.sensor import file_sensor
from probes.settings import LogSettings
from tests.real.judged import JudgedHost

RAY = Path(__file__).resolve().parents[2] / ".venv/ray/bin/ray"
HEAD, WORKER, PORT = "127.0.0.12", "127.0.0.13", 6379
FAULT = FaultClass.DISTRIBUTED_WORKER_LOST
NODE = Subject(SubjectKind.PEER, f"{WORKER} 0")
THIS = Subject(SubjectKind.HOST, HOST)
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_memory_monitor_refresh_ms": "0",
}

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not RAY.exists(), reason="Ray is not here (dev/setup.sh tests)"),
]


class Cluster:
    """A head and, one after the other, workers; all in one cgroup, so that none is left behind."""

    def __init__(self, folder: Path, group: Path, root: Path) -> None:
        self.folder, self.root = folder, root
        self._group = group
        self._workers = 0

    def start_head(self) -> None:
        """Start the head."""
        self._start(
            "head", "--head", f"--port={PORT}", f"--node-ip-address={HEAD}", "--include-dashboard=false"
        )

    def start_worker(self) -> int:
        """Start one more worker, always at the same address; return the pid of its raylet."""
        self._workers += 1
        self._start(f"worker{self._workers}", f"--address={HEAD}:{PORT}", f"--node-ip-address={WORKER}")
        link = self.folder / "worker"
        link.unlink(missing_ok=True)
        link.symlink_to(f"worker{self._workers}")
        return self._raylet(f"/worker{self._workers}/")

    def _start(self, name: str, *options: str) -> None:
        subprocess.run(
            [
                *("sh", "-c", f'echo $$ > {self._group}/cgroup.procs && exec "$0" "$@"', RAY, "start"),
                *("--num-cpus=0", "--object-store-memory=78643200", "--disable-usage-stats"),
                *(f"--temp-dir={self.folder}/{name}", *options),
            ],
            check=True,
            capture_output=True,
            timeout=90,
            env={**os.environ, **SETTINGS},
        )

    def _raylet(self, mark: str) -> int:
        for pid in (self._group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                arguments = Path("/proc", pid, "cmdline").read_bytes()
                if arguments.split(b"\0")[0].endswith(b"/raylet") and mark.encode() in arguments:
                    return int(pid)
        raise AssertionError(f"no raylet of {mark}")

    def end(self) -> None:
        """Kill everything that was started."""
        for _ in range(200):
            pids = (self._group / "cgroup.procs").read_text().split()
            if not pids:
                break
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.05)
        self._group.rmdir()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Start a head on a loopback address of its own."""
    mounts = find_mounts()
    if mounts.unified is None:
        pytest.skip("needs a cgroup v2 hierarchy")
    folder = Path(tempfile.mkdtemp(prefix="nb-ray-"))  # short: the paths of its sockets hold 107 bytes
    group = mounts.unified / f"nanobot-ray-{os.getpid()}"
    group.mkdir()
    made = Cluster(folder, group, mounts.unified)
    try:
        made.start_head()
        yield made
    finally:
        made.end()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_worker_is_lost_and_comes_back(cluster: Cluster) -> None:
    """Killed: critical, by two layers. Back: cleared. Stopped, and taken for dead: told by both sides."""
    raylet = cluster.start_worker()
    identifier = Identifier(cgroups=CgroupPaths(root=cluster.root, monotonic=time.monotonic))
    servers = Servers(identifier=identifier, root=cluster.root, monotonic=time.monotonic)
    logs = tuple(
        f"{cluster.folder}/{node}/session_latest/logs/{log}"
        for node, log in (("head", "gcs_server.out"), ("worker", "raylet.out"))
    )
    known = KnownServers()
    host = JudgedHost(
        [
            file_sensor(identifier=identifier, settings=LogSettings(files=logs)),
            SessionSensor(origin=servers.origin, ports=(PORT,)),
            ProcessesSensor(
                identifier=identifier, known=known, mounts=find_mounts(), sockets=tuple, least_load=math.inf
            ),
        ]
    )
    with contextlib.closing(host):
        host.look()
        assert host.reports == []

        os.kill(raylet, signal.SIGKILL)
        host.until(lambda: any(r.severity is Severity.CRITICAL for r in host.of(FAULT, subject=NODE)))
        codes = {reason.code for reason in host.of(FAULT, subject=NODE)[-1].reasons}
        assert codes == {ReasonCode.NODE_MARKED_DEAD, ReasonCode.CONNECTIONS_RESET}

        raylet = cluster.start_worker()
        host.until(lambda: host.wrote("ray.raylet_started") and host.wrote("ray.node_registered"))
        host.later(31)
        host.later(31)
        assert host.phases(FAULT, NODE)[-1] is CasePhase.CLEARED
        assert host.of(FAULT, subject=NODE)[-1].reasons[-1].code is ReasonCode.WORKER_BACK

        host.later(600)
        known.post([KnownServer(identifier.origin(pid=raylet), PORT, (raylet,), companion=True)])
        os.kill(raylet, signal.SIGSTOP)
        host.until(lambda: host.phases(FAULT, NODE)[-1] is not CasePhase.CLEARED)
        host.until(
            lambda: ReasonCode.PROCESS_STOPPED in {r.code for r in host.of(FAULT, subject=NODE)[-1].reasons}
        )
        assert host.of(FAULT, subject=NODE)[-1].severity is Severity.CRITICAL
        os.kill(raylet, signal.SIGCONT)
        host.until(lambda: bool(host.of(FAULT, subject=THIS)))
        assert host.wrote("ray.marked_dead_itself")

        host.lines.clear()
        raylet = cluster.start_worker()
        host.until(lambda: host.wrote("ray.raylet_started") and host.wrote("ray.node_registered"))
        host.later(31)
        host.later(31)
        for subject in (NODE, THIS):
            assert host.phases(FAULT, subject)[-1] is CasePhase.CLEARED

        host.later(600)
        told = len(host.of(FAULT))
        os.kill(raylet, signal.SIGTERM)  # as `ray stop` does
        host.until(lambda: any(line.word("reason") == "EXPECTED_TERMINATION" for line in host.lines))
        for _ in range(10):
            host.look()
        assert len(host.of(FAULT)) == told
    assert {report.fault_class for report in host.reports} <= {FAULT, FaultClass.PROCESS_NOT_ANSWERING}
