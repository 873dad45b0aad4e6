"""The real programs, started for a measurement and ended after it.

Nothing is shared with `make run`: a measurement wants bare programs, pinned where asked, without a live view.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from dev.units import environment_of
from escalation import pki

PROGRAMS = Path(sys.executable).parent
LOADER = Path(__file__).resolve().parent.parent / "probes/kernel/__main__.py"
ACCOUNT = "nobody"
TOKEN = "bench"
_START_S = 30.0


class Unavailable(Exception):
    """This machine cannot run what was to be measured; the message says why."""


@dataclass(frozen=True, slots=True)
class Orchestrator:
    """A running orchestrator: where it listens, and the folder of its certificates and database."""

    pid: int
    address: str
    url: str
    folder: Path

    def client(self) -> httpx2.Client:
        """Return a client that may read and decide."""
        return httpx2.Client(base_url=self.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)


@dataclass(frozen=True, slots=True)
class Agent:
    """A running, unprivileged agent that holds the sensors' descriptors, and its configuration."""

    pid: int
    metrics_url: str
    config: Path


@contextmanager
def orchestrator(
    *, agents: Sequence[str], cpu: int | None = None, postgres: str = ""
) -> Iterator[Orchestrator]:
    """Run an orchestrator with certificates for `agents`, pinned to `cpu`.

    Its database is a fresh file, or the PostgreSQL database of that connection string.
    """
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="nanobot-bench-", dir="/var/tmp"))
        )
        folder.chmod(0o755)
        now = dt.datetime.now(dt.UTC)
        pki.create_authority(folder, now=now)
        pki.issue_orchestrator(folder, names=["localhost"], addresses=["127.0.0.1"], now=now)
        for agent in agents:
            pki.issue_agent(folder, host=agent, now=now)
        grpc_port, web_port = free_ports(2)
        config = folder / "orchestrator.toml"
        config.write_text(
            f'[grpc]\nlisten = "127.0.0.1:{grpc_port}"\nclients_ca = "{folder}/ca.crt"\n'
            f'certificate = "{folder}/orchestrator.crt"\nkey = "{folder}/orchestrator.key"\n'
            f'reports_per_s = 1e6\n[http]\nlisten = "127.0.0.1:{web_port}"\n'
            f'[store]\npath = "{folder}/bench.db"\n{f"postgres = {postgres!r}" if postgres else ""}\n'
            f'[[person]]\nname = "bench"\nrole = "operator"\n'
            f'token_sha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}"\n'
        )
        pin = [] if cpu is None else ["taskset", "-c", str(cpu)]
        command = [*pin, str(PROGRAMS / "nanobot-orchestrator"), "serve", "--config", str(config)]
        process = stack.enter_context(_running(command, folder / "orchestrator.log"))
        url = f"http://127.0.0.1:{web_port}"
        _wait_until(lambda: _answers(f"{url}/readyz"), process, folder / "orchestrator.log")
        yield Orchestrator(process.pid, f"127.0.0.1:{grpc_port}", url, folder)


@contextmanager
def watched(
    server: Orchestrator | None = None,
    *,
    host: str = "bench",
    http_ports: Sequence[int] = (8000,),
    environment: Mapping[str, str] | None = None,
    disabled: Sequence[str] = (),
) -> Iterator[Agent]:
    """Run the agent without privilege and the loader; reports go to `server`, or wait in the spool.

    `http_ports` are the ports on which model servers are watched; `environment` takes the place of ours;
    sensors that are `disabled` do not run.

    Raises Unavailable where programs cannot be loaded.
    """
    if os.geteuid() != 0:
        raise Unavailable("kernel sensors need root")
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="nanobot-bench-", dir="/var/tmp"))
        )
        folder.chmod(0o755)
        state = folder / "state"
        state.mkdir()
        shutil.chown(state, ACCOUNT)
        certificates = _certificates(folder, server, host)
        address, (metrics,) = server.address if server else "127.0.0.1:1", free_ports(1)
        config = folder / "agent.toml"
        config.write_text(
            f'[agent]\nid = "{host}"\nstate_dir = "{state}"\n[sensors]\nsocket = "{state}/handover.sock"\n'
            f"disabled = {list(disabled)}\n"
            f'[orchestrator]\naddress = "{address}"\n{certificates}\n[metrics]\nport = {metrics}\n'
            f"[http]\nports = {list(http_ports)}\n"
        )
        log = folder / "agent.log"
        command = [str(PROGRAMS / "nanobot-agent"), "run", "--config", str(config), "--user", ACCOUNT]
        as_its_unit = {**(environment or os.environ), **environment_of("nanobot-agent.service")}
        process = stack.enter_context(_running(command, log, as_its_unit))
        _wait_until((state / "handover.sock").exists, process, log)
        load = [
            "/usr/bin/python3",
            "-I",
            str(LOADER),
            "load",
            "--config",
            str(config),
            "--agent-user",
            ACCOUNT,
        ]
        done = subprocess.run(load, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"the loader ended with {done.returncode}: {done.stderr.strip()[-300:]}")
        metrics_url = f"http://127.0.0.1:{metrics}/metrics"
        _wait_until(lambda: _sees(metrics_url), process, log)
        yield Agent(process.pid, metrics_url, config)


def free_ports(count: int) -> tuple[int, ...]:
    """Return `count` loopback ports that nobody listens on at the moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return tuple(one.getsockname()[1] for one in sockets)


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that the process and its living threads have used."""
    ran = [(task / "schedstat").read_text().split()[0] for task in Path(f"/proc/{pid}/task").iterdir()]
    return sum(map(int, ran)) / 1e9


def resident_bytes(pid: int) -> int:
    """Return the resident set of the process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def proportional_bytes(pid: int) -> int:
    """Return the proportional set size (PSS) of the process."""
    return _rolled_up(pid, "Pss:")


def anonymous_bytes(pid: int) -> int:
    """Return what the process holds that is no file's, and so does not depend on who else maps its files."""
    return _rolled_up(pid, "Pss_Anon:")


def _rolled_up(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise Unavailable(f"/proc/{pid}/smaps_rollup has no line {name}")


def _certificates(folder: Path, server: Orchestrator | None, host: str) -> str:
    source = server.folder if server else folder
    if server is None:
        pki.create_authority(folder, now=dt.datetime.now(dt.UTC))
        pki.issue_agent(folder, host=host, now=dt.datetime.now(dt.UTC))
    key = folder / "agent.key"
    shutil.copyfile(source / f"{host}.key", key)
    key.chmod(0o600)
    shutil.chown(key, ACCOUNT)
    return f'ca = "{source}/ca.crt"\ncert = "{source}/{host}.crt"\nkey = "{key}"'


@contextmanager
def _running(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environment)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until(ready: object, process: subprocess.Popen[bytes], log: Path) -> None:
    assert callable(ready)
    deadline = time.monotonic() + _START_S
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise Unavailable(f"{Path(str(process.args[0])).name}: {log.read_text()[-600:]}")  # type: ignore[index]
        time.sleep(0.02)


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=2).status_code == httpx2.codes.OK
    except httpx2.TransportError:
        return False


def _sees(url: str) -> bool:
    try:
        page = httpx2.get(url, timeout=2).text
    except httpx2.TransportError:
        return False
    return 'nanobot_agent_sensor_seeing{sensor="http.routes"} 1.0' in page
