"""Scopes and changes in a booted host: units that leave their scope, a server that came back otherwise.

Real: units of a real service manager, the loader and the agent in their own units' sandboxes, the kernel that
refuses. The two units are the same small program; one is audited, the other denied by the file of root's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.deployment import AGENT, LOADER, Deployment

pytestmark = [
    pytest.mark.root,
    pytest.mark.systemd,
    pytest.mark.ebpf,
    pytest.mark.slow,
    pytest.mark.timeout(240),
]

FAULT = "scope.violation"
DRIFT = "service.config_drift"
CANARY = "nbcanary-9d2f4e"
_AUDITED, _DENIED = "openclaw.service", "gateway.service"
_SCOPES = f"""
[detectors.scope]
clear_after_s = 10

[detectors.config_drift]
well_s = 1
settle_s = 0
clear_hold_s = 1

[[scope]]
name = "openclaw"
unit = "{_AUDITED}"
executables = ["/usr/bin/python3"]
destinations = ["127.0.0.0/8:9736"]

[[scope]]
name = "gateway"
unit = "{_DENIED}"
mode = "deny"
destinations = ["127.0.0.0/8:9736"]
listeners = [4000]
"""
# Reads what to do from a pipe: a port to connect to, a program to run.
_PROGRAM = """\
import os, socket, subprocess, sys
name = sys.argv[1]
while True:
    with open(f"/run/{name}.do") as pipe:
        for word in pipe.read().split():
            try:
                if word.isdecimal():
                    socket.create_connection(("127.0.0.1", int(word)), timeout=5).close()
                    said = "connected"
                else:
                    said = str(subprocess.run([word], stdout=subprocess.DEVNULL).returncode)
            except OSError as error:
                said = os.strerror(error.errno)
            with open(f"/run/{name}.said", "a") as file:
                file.write(f"{word}: {said}\\n")
"""


class Unit:
    """One of the two units: told what to do, and asked what came of it."""

    def __init__(self, deployment: Deployment, unit: str) -> None:
        self.host = deployment.host
        self.unit = unit
        self.name = unit.removesuffix(".service")
        self._lines = 0

    def start(self) -> None:
        """Start it, or again; it carries a secret on its command line if it is the audited one."""
        self.host.shell(f"test -p /run/{self.name}.do || mkfifo /run/{self.name}.do")
        more = f"--api-key {CANARY}" if self.unit == _AUDITED else ""
        self.host.write(
            f"/etc/systemd/system/{self.unit}",
            f"[Service]\nExecStart=/usr/bin/python3 /opt/scoped.py {self.name} {more}\n",
        )
        self.host.run("systemctl", "daemon-reload")
        self.host.run("systemctl", "restart", self.unit)

    def do(self, word: str) -> str:
        """Have it connect to a port or run a program; return what it says."""
        self.host.shell(f"timeout 20 sh -c 'echo {word} > /run/{self.name}.do'")
        self._lines += 1
        said = self.host.path(f"/run/{self.name}.said")
        self.host.wait(
            f"{self.unit} does {word}",
            lambda: said.exists() and len(said.read_text().splitlines()) >= self._lines,
        )
        return said.read_text().splitlines()[self._lines - 1].partition(": ")[2]


@pytest.fixture(scope="module")
def scoped(deployment: Deployment) -> Iterator[Deployment]:
    """The deployment with two scopes declared, and loaded."""
    host = deployment.host
    settings = host.path("/etc/nanobot/agent.toml").read_text()
    host.write("/etc/nanobot/agent.toml", settings + _SCOPES)
    host.write("/opt/scoped.py", _PROGRAM)
    host.run("systemctl", "restart", AGENT, LOADER)
    deployment.settle()
    yield deployment
    host.run("systemctl", "stop", _AUDITED, _DENIED, check=False)


def _told(deployment: Deployment, scope: str) -> str:
    """Return what the queue says of a scope: the reasons and the state of its newest entry."""
    entries = [e for e in deployment.queue(fault_class=FAULT) if e["subject"]["name"] == scope]
    newest = max(entries, key=lambda entry: entry["first_seen"], default=None)
    return "" if newest is None else f"{newest['state']}: {' '.join(newest['reasons'])}"


def test_units_are_kept_to_their_scopes(scoped: Deployment) -> None:
    """Audit passes and tells, denial refuses and tells, a restart changes nothing, a kept scope clears."""
    host = scoped.host
    done = host.run("nanobot-agent", "doctor", check=False)
    doctor = done.output + done.errors
    assert "openclaw (openclaw.service) is to be kept to 1 executables, 1 destinations: audit" in doctor
    assert "gateway (gateway.service) is to be kept to 1 destinations, 1 listeners: deny" in doctor
    assert "but it was loaded otherwise" not in doctor
    audited, denied = Unit(scoped, _AUDITED), Unit(scoped, _DENIED)
    for unit in (audited, denied):
        unit.start()
    host.wait(
        "the second unit is held",
        lambda: denied.do("9737") == "Operation not permitted",
        within_s=20,
    )
    for unit in (audited, denied):
        assert unit.do("9736") == "connected"
    assert _told(scoped, "openclaw") == ""
    assert audited.do("/usr/bin/true") == "0"
    assert audited.do("9737") == "connected"

    host.wait("the refusal is told", lambda: "The kernel refused" in _told(scoped, "gateway"))
    host.wait("the program is told", lambda: "It ran a program" in _told(scoped, "openclaw"))
    assert "The kernel refused" not in _told(scoped, "openclaw")

    denied.start()
    host.wait("a restart keeps the scope", lambda: denied.do("9737") == "Operation not permitted")
    for scope in ("gateway", "openclaw"):
        host.wait(f"{scope} clears", lambda scope=scope: _told(scoped, scope).startswith("withdrawn"))


def test_the_agent_is_held_by_nobody(scoped: Deployment) -> None:
    """It goes on delivering, and its page answers a unit that may not connect to anything else."""
    denied = Unit(scoped, _DENIED)
    said = scoped.host.path("/run/gateway.said")
    denied._lines = len(said.read_text().splitlines()) if said.exists() else 0
    assert denied.do("9735") == "connected"
    assert scoped.blind() == []


def test_the_secret_is_a_case_and_nowhere_else(scoped: Deployment) -> None:
    """Its option is told; its value is in no file of the product, no log, no page, and not in the agent."""
    host = scoped.host
    entry = scoped.until_entry(fault_class=FAULT, subject={"kind": "unit", "name": _AUDITED}, within_s=60)
    assert any("A secret stands on its command line" in said for said in entry["reasons"])
    assert "--api-key" in host.run("nanobotctl", "show", entry["id"]).output
    assert CANARY not in host.run("nanobotctl", "show", entry["id"], "--json").output
    found = host.shell(
        f"grep -rl {CANARY} /var/lib/nanobot /run/nanobot /var/log /run/log /etc/nanobot 2>/dev/null || true"
    )
    # What the service manager was told to execute is in its own journal, by its own doing, or not at all.
    assert [line for line in found.splitlines() if "journal" not in line] == []
    assert CANARY not in host.journal("nanobot-*", lines=2000)
    pid = scoped.main_pid(AGENT)
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb") as memory:
        for line in maps:
            place, mode, *_ = line.split()
            if "rw" not in mode or "[v" in line:
                continue
            start, end = (int(number, 16) for number in place.split("-"))
            memory.seek(start)
            try:
                assert CANARY.encode() not in memory.read(end - start), line
            except OSError:
                continue


class Vllm:
    """A unit whose process is named and started like vLLM."""

    UNIT = "vllm.service"

    def __init__(self, deployment: Deployment) -> None:
        self.host = deployment.host
        self.host.write("/opt/vllm", "import time\nwhile True:\n    time.sleep(60)\n")

    def start(self, flags: str) -> None:
        """Start it with these flags, and have the agent look at once, as when it reads its settings."""
        command = f"/usr/bin/python3 /opt/vllm serve org/{CANARY} --port 18999 {flags}"
        self.host.write(f"/etc/systemd/system/{self.UNIT}", f"[Service]\nExecStart={command}\n")
        self.host.run("systemctl", "daemon-reload")
        self.host.run("systemctl", "restart", self.UNIT)
        self.host.shell("sleep 1.5")  # as long as it has to run to have run well
        self.look()

    def look(self) -> None:
        """Have the agent look at command lines now."""
        self.host.run("systemctl", "kill", "--signal=HUP", AGENT)


def test_a_server_that_came_back_otherwise_is_a_case(scoped: Deployment) -> None:
    """Recorded, changed, told across a restart of the agent, and over when it is back or accepted."""
    host = scoped.host

    def states() -> list[str]:
        entries = scoped.queue(fault_class=DRIFT)
        return [entry["state"] for entry in sorted(entries, key=lambda entry: entry["first_seen"])]

    vllm = Vllm(scoped)
    try:
        vllm.start("--max-model-len 32768")
        host.wait("it is recorded", lambda: _recorded(scoped), within_s=60)
        scoped.settle()
        assert states() == []
        vllm.start("--max-model-len 8192")
        entry = scoped.until_entry(fault_class=DRIFT, within_s=40)
        assert entry["subject"] == {"kind": "unit", "name": vllm.UNIT}
        shown = host.run("nanobotctl", "show", entry["id"]).output
        assert "32768" in shown.replace("\u202f", "").replace(" ", "")
        assert CANARY not in shown
        vllm.start("--max-model-len=32768")
        host.wait("it is back", lambda: states() == ["withdrawn"], within_s=40)
        vllm.start("--max-model-len 4096")
        host.wait("it changed again", lambda: len(states()) == 2, within_s=40)
        host.run("nanobot-agent", "accept-drift", vllm.UNIT)
        vllm.look()
        host.wait("it is accepted", lambda: states() == ["withdrawn"] * 2, within_s=40)
        vllm.start("--max-model-len 4096")
        vllm.look()
        assert states() == ["withdrawn"] * 2
    finally:
        host.run("systemctl", "stop", vllm.UNIT, check=False)


def _recorded(deployment: Deployment) -> bool:
    """Restart the agent, which keeps what it learnt when it ends; whether the server is part of that."""
    host = deployment.host
    host.shell("sleep 1")
    host.run("systemctl", "restart", AGENT)
    spool = host.path("/var/lib/nanobot/agent/")
    return any(b"config_drift/vllm.service" in file.read_bytes() for file in spool.glob("spool.sqlite*"))
