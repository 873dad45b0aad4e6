"""Sudden deaths in a booted host: of the agent under load, at every named point; and a loop that hangs."""

from __future__ import annotations

import os
import signal
from itertools import pairwise
from pathlib import Path

import pytest

from tests.system.deployment import AGENT, LOADER, ORCHESTRATOR, Deployment
from tests.system.gpu_workload import serving

pytestmark = [
    pytest.mark.root,
    pytest.mark.systemd,
    pytest.mark.ebpf,
    pytest.mark.slow,
    pytest.mark.timeout(120),
]


@pytest.fixture(autouse=True)
def settled(deployment: Deployment) -> None:
    """Begin each story with every part up."""
    for unit in (ORCHESTRATOR, AGENT):
        deployment.environment(unit, {})
        deployment.host.run("systemctl", "start", unit)
    deployment.settle()


def _loader_runs(deployment: Deployment) -> str:
    return deployment.host.show(LOADER, "ExecMainStartTimestampMonotonic")


def _kernel_objects(pid: int) -> set[str]:
    """Return which maps and programs of the kernel the process holds, by the kernel's own ids."""
    found = set()
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        words = info.read_text().split()
        found |= {f"{key}{value}" for key, value in pairwise(words) if key in {"map_id:", "prog_id:"}}
    return found


def _restarts(deployment: Deployment, unit: str) -> int:
    return int(deployment.host.show(unit, "NRestarts"))


def _until_restarted(deployment: Deployment, unit: str, before: int) -> None:
    host = deployment.host
    host.wait(f"{unit} restarted", lambda: _restarts(deployment, unit) > before, within_s=60)
    host.wait(f"{unit} up", lambda: host.show(unit, "ActiveState") == "active", within_s=60)


def _crash(deployment: Deployment, name: str) -> None:
    """Let a process called `name` (at most 15 characters) die by SIGSEGV, which is a fault of its own."""
    host = deployment.host
    host.write(
        "/opt/crash.py",
        "import os, sys\nopen('/proc/self/comm', 'w').write(sys.argv[1])\nos.kill(os.getpid(), 11)\n",
    )
    host.shell(f"ulimit -c 0; /usr/bin/python3 /opt/crash.py {name} || test $? = 139")


def _told_once(deployment: Deployment, *names: str) -> None:
    """Each of the crashes arrived, in an entry of its own, counted once."""

    def told() -> dict[str, list[int]]:
        found: dict[str, list[int]] = {name: [] for name in names}
        for entry in deployment.queue(fault_class="process.killed_by_signal"):
            for name in names:
                if entry["subject"] == {"kind": "process", "name": name}:
                    found[name].append(entry["count"])
        return found

    deployment.host.wait(f"the crashes of {names} in the queue", lambda: all(told().values()))
    assert told() == {name: [1] for name in names}


def test_a_killed_agent_goes_on_with_the_descriptors_it_had(deployment: Deployment) -> None:
    """kill -9 under load: no second loader run, the same descriptors, and what comes after it is counted."""
    host = deployment.host
    loaded, kept, before = (
        _loader_runs(deployment),
        host.show(AGENT, "NFileDescriptorStore"),
        _restarts(deployment, AGENT),
    )
    held = _kernel_objects(deployment.main_pid(AGENT))
    assert int(kept) > len(held) > 1
    with serving(host) as workload:
        os.kill(deployment.main_pid(AGENT), signal.SIGKILL)
        _until_restarted(deployment, AGENT, before)
        deployment.settle()
        workload.revoke()
        deployment.until_entry(fault_class="gpu.access_revoked")
        workload.restore()
    assert _loader_runs(deployment) == loaded
    assert host.show(AGENT, "NFileDescriptorStore") == kept
    assert _kernel_objects(deployment.main_pid(AGENT)) == held


def test_events_after_a_kill_are_counted_exactly(deployment: Deployment) -> None:
    """The next agent reads on where the dead one stopped: a prime number of crashes, each counted once."""
    before = _restarts(deployment, AGENT)
    os.kill(deployment.main_pid(AGENT), signal.SIGKILL)
    names = [f"died-{number}" for number in range(13)]
    for name in names:
        _crash(deployment, name)
    _until_restarted(deployment, AGENT, before)
    _told_once(deployment, *names)


def test_events_while_the_agent_is_dead_are_judged_by_the_next_one(deployment: Deployment) -> None:
    """The ring is the kernel's and the store holds it: a crash of another process is told afterwards."""
    host = deployment.host
    host.run("systemctl", "kill", "-s", "KILL", AGENT)
    _crash(deployment, "died-unseen")
    deployment.settle()
    _told_once(deployment, "died-unseen")


@pytest.mark.parametrize(
    ("unit", "point"),
    [
        (AGENT, "agent.after_commit"),
        (AGENT, "uplink.after_send"),
        (AGENT, "uplink.before_forget"),
        (ORCHESTRATOR, "server.before_commit"),
        (ORCHESTRATOR, "server.after_commit"),
        (ORCHESTRATOR, "server.after_ack"),
    ],
)
def test_a_death_at_a_named_point_loses_and_doubles_nothing(
    deployment: Deployment, unit: str, point: str
) -> None:
    """Whatever step it dies at, the fault arrives exactly once, counted once."""
    name = point.replace("server.", "s.").replace("agent.", "a.").replace("uplink.", "u.")
    before = _restarts(deployment, unit)
    deployment.environment(unit, {"NANOBOT_FAILPOINT": point})
    os.kill(deployment.main_pid(unit), signal.SIGKILL)
    _crash(deployment, name)
    deployment.host.wait(f"dead at {point}", lambda: _restarts(deployment, unit) > before + 1, within_s=40)
    deployment.environment(unit, {})
    deployment.host.run("systemctl", "restart", unit)
    deployment.settle()
    _told_once(deployment, name)


def test_a_death_between_reading_and_committing_is_accounted_for(deployment: Deployment) -> None:
    """What the dead agent had read and not committed is told by the next one, or counted as lost."""
    before = _restarts(deployment, AGENT)
    deployment.environment(AGENT, {"NANOBOT_FAILPOINT": "agent.before_commit"})
    os.kill(deployment.main_pid(AGENT), signal.SIGKILL)
    _crash(deployment, "a.before_commit")
    deployment.host.wait(
        "dead before a commit", lambda: _restarts(deployment, AGENT) > before + 1, within_s=40
    )
    deployment.environment(AGENT, {})
    deployment.host.run("systemctl", "restart", AGENT)
    deployment.settle()

    def accounted() -> int:
        told = deployment.queue(fault_class="process.killed_by_signal")
        told = [entry for entry in told if entry["subject"]["name"] == "a.before_commit"]
        losses = [loss for host in deployment.ask("hosts") for loss in host["losses"]]
        lost = [loss for loss in losses if loss["sensor"] == "kernel.fatal_signal"]
        return sum(row["count"] for row in (*told, *lost))

    deployment.host.wait("the crash told or counted as lost", lambda: accounted() >= 1)


def test_a_hung_work_loop_is_restarted_by_the_watchdog(deployment: Deployment) -> None:
    """A process that lives and does nothing is not taken for a healthy one."""
    host = deployment.host
    loaded, before = _loader_runs(deployment), _restarts(deployment, AGENT)
    host.write(f"/etc/systemd/system/{AGENT}.d/watchdog.conf", "[Service]\nWatchdogSec=3s\n")
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "restart", AGENT)
    deployment.settle()
    before = _restarts(deployment, AGENT)
    os.kill(deployment.main_pid(AGENT), signal.SIGSTOP)
    _until_restarted(deployment, AGENT, before)
    deployment.settle()
    assert _loader_runs(deployment) == loaded
    assert host.show(AGENT, "Result") == "success"


def test_a_host_that_falls_silent_is_a_fault_of_its_own(deployment: Deployment) -> None:
    """Silence is monitor.blind, not health; and when the host is heard again the case clears."""
    host = deployment.host
    host.run("systemctl", "stop", AGENT)
    subject = {"kind": "host", "name": host.name}
    deployment.until_entry(fault_class="monitor.blind", subject=subject, state="proposed", within_s=30)
    host.run("systemctl", "start", AGENT)
    deployment.settle()

    def heard() -> bool:
        incidents = deployment.ask("incidents")
        silent = [i for i in incidents if i["fault_class"] == "monitor.blind" and i["subject"] == subject]
        return bool(silent) and not any(incident["open"] for incident in silent)

    host.wait("the case of silence cleared", heard)
