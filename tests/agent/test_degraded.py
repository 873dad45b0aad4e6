"""A real agent on hosts that give it little: no loader, no service manager, no GPU, and no Linux at all.

The last is Linux with another name: what the system's name decides is then decided as on macOS. Nothing here
has run on a Mac.
"""

from __future__ import annotations

import os
import plistlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.process import statusfile
from agent.process.claim import claimed
from escalation.model import AgentId, Heartbeat
from escalation.outbox import Outbox
from escalation.wire.codec import decode
from probes.host.portable import PortableSensor
from probes.observation import BlindReason, ListenerInventory, MemoryState
from probes.registry import SENSORS, sensors_of
from probes.testing import instant

ROOT = Path(__file__).parents[2]
NOBODY = 65534
_START = """
import asyncio, importlib, os, sys
import psutil, agent.command
for name in agent.command._LATE_IMPORTS:
    importlib.import_module(name)
if os.geteuid() == 0:
    os.setgroups([]); os.setgid({uid}); os.setuid({uid})
sys.platform = {platform!r}
sys.exit(agent.command.main(["run", "--config", sys.argv[1]]))
"""


@dataclass(frozen=True)
class Life:
    """What an agent left behind: its last status, its heartbeats, and its log."""

    status: statusfile.Status
    heartbeats: list[Heartbeat]
    log: str

    @property
    def blind(self) -> dict[str, str]:
        """Return why each blind sensor is so."""
        return {each.name: each.reason for each in self.status.sensors if each.reason is not None}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that an unprivileged agent may have as its own."""
    made = Path(tempfile.mkdtemp(prefix="nanobot-degraded-"))
    if os.geteuid() == 0:
        os.chown(made, NOBODY, NOBODY)
    yield made
    shutil.rmtree(made)


def lived(folder: Path, platform: str) -> Life:
    """Run an agent, without privilege, until its status was written twice; then end it in order."""
    config = folder / "agent.toml"
    config.write_text(
        f"[agent]\nid = 'degraded'\nstate_dir = '{folder}'\n[metrics]\nenabled = false\n"
        f"[sensors]\nsocket = '{folder}/handover.sock'\n[heartbeat]\ninterval_s = 1\n"
    )
    config.chmod(0o644)
    environment = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"}
    log = folder / "log"
    script = _START.format(uid=NOBODY, platform=platform)
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [sys.executable, "-c", script, str(config)],
            cwd=ROOT,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
        ) as agent,
    ):
        try:
            first = _status(folder, agent, after=0.0)
            status = _status(folder, agent, after=first.written_unix_s)
        finally:
            agent.send_signal(signal.SIGTERM)
            code = agent.wait(15)
    assert code == 0, log.read_text()
    outbox = Outbox.open(
        folder / "spool.sqlite",
        agent_id=AgentId("degraded"),
        kernel_boot_id="any",
        max_bytes=1 << 20,
        now_ns=time.time_ns(),
    )
    stored = outbox.pending(after_row=0, limit=1000, max_bytes=1 << 20)
    outbox.close()
    bodies = [decode(each.payload).body for each in stored]
    return Life(status, [body for body in bodies if isinstance(body, Heartbeat)], log.read_text())


def test_a_second_agent_does_not_start(folder: Path) -> None:
    """It says why, and leaves socket, status and spool to the first."""
    config = folder / "agent.toml"
    config.write_text(
        f"[agent]\nid = 'twin'\nstate_dir = '{folder}'\n[sensors]\nsocket = '{folder}/handover.sock'\n"
    )
    config.chmod(0o644)
    with claimed(folder / "handover.sock"):
        if os.geteuid() == 0:
            os.chown(folder / "handover.sock.lock", NOBODY, NOBODY)
        second = subprocess.run(
            [sys.executable, "-c", _START.format(uid=NOBODY, platform="linux"), str(config)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (second.returncode, second.stderr.startswith("nanobot-agent: another agent runs here")) == (
        1,
        True,
    )
    assert {each.name for each in folder.iterdir()} == {"agent.toml", "handover.sock.lock"}


def _status(folder: Path, agent: subprocess.Popen[bytes], *, after: float) -> statusfile.Status:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        status = statusfile.read(folder / statusfile.NAME)
        if status is not None and status.written_unix_s > after:
            return status
        assert agent.poll() is None, (folder / "log").read_text()
        time.sleep(0.1)
    raise AssertionError((folder / "log").read_text())


@pytest.mark.skipif(sys.platform != "linux", reason="is about Linux without its extras")
def test_without_loader_manager_and_gpu_the_agent_lives_and_says_so(folder: Path) -> None:
    """Each kernel sensor is blind for want of a handover; what the host tells anybody is seen."""
    life = lived(folder, "linux")
    kernel = [spec.name for spec in SENSORS if spec.program is not None]
    assert {life.blind.get(name) for name in kernel} == {BlindReason.NOT_HANDED_OVER}
    assert {"host.listeners", "host.memory", "host.servers", "host.suspend"}.isdisjoint(life.blind)
    assert not life.status.supervised
    assert {each.sensor for each in life.heartbeats[-1].coverage} == {s.name for s in sensors_of("linux")}
    assert "Traceback" not in life.log
    assert "sensor_failed" not in life.log


def test_where_the_system_is_no_linux_the_agent_lives_and_says_so(folder: Path) -> None:
    """The sensor that stands in sees; what needs Linux is named blind, and nothing breaks."""
    life = lived(folder, "darwin")
    told = {each.name for each in life.status.sensors}
    assert told == {spec.name for spec in SENSORS}
    assert "host.portable" not in life.blind
    assert life.blind["host.suspend"] == BlindReason.UNSUPPORTED_PLATFORM
    assert "Traceback" not in life.log
    assert "sensor_failed" not in life.log


def test_a_sensor_that_stands_in_is_left_out_on_linux() -> None:
    """Where others see more, it is neither read nor told as blind."""
    assert {spec.name for spec in SENSORS} - {spec.name for spec in sensors_of("linux")} == {"host.portable"}


def test_the_stand_in_sees_memory_and_a_listener_of_its_own_user() -> None:
    """psutil's numbers of this very machine, and a socket that this process listens on."""
    sensor = PortableSensor()
    sensor.open()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        memory, inventory = sensor.read(instant(1))
    assert isinstance(memory, MemoryState)
    assert 0 < memory.available_bytes <= memory.total_bytes
    assert isinstance(inventory, ListenerInventory)
    mine = [each for each in inventory.listeners if each.port == port]
    assert [(each.address, each.origin.pid) for each in mine] == [("127.0.0.1", os.getpid())]
    assert ("127.0.0.1", "lo") in inventory.host_addresses
    sensor.close()


def test_the_launch_daemon_starts_the_agent_as_its_own_user() -> None:
    """macOS: never root, started again after a crash, and its folders are those of the configuration."""
    plist = plistlib.loads((ROOT / "launchd" / "lab.nanobot.agent.plist").read_bytes())
    assert plist["ProgramArguments"][1:] == ["run", "--config", "/usr/local/etc/nanobot/agent.toml"]
    assert plist["UserName"] == "_nanobot"
    assert plist["KeepAlive"] is True
    assert plist["LowPriorityIO"] is True
