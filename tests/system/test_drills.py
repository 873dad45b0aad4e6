"""Drills in a booted host: from the command to a row of the queue that says DRILL, and nothing is left."""

from __future__ import annotations

from typing import Any

import pytest

from probes.host.cgroups import find_mounts
from tests.system.deployment import Deployment

pytestmark = [
    pytest.mark.root,
    pytest.mark.systemd,
    pytest.mark.ebpf,
    pytest.mark.slow,
    pytest.mark.timeout(240),
]

_COMMAND = "nanobot-agent"


def _drill(deployment: Deployment, fault: str, *, seconds: int = 30) -> str:
    done = deployment.host.run(
        _COMMAND, "drill", fault, "--seconds", str(seconds), timeout_s=200, check=False
    )
    assert done.status == 0, done.output + done.errors
    return done.output


def test_a_lost_gpu_is_drilled_from_the_kernel_to_the_queue(deployment: Deployment) -> None:
    """The agent, without a capability, sees root's mark, and all that follows says that it is a drill."""
    host = deployment.host
    said = _drill(deployment, "gpu.access_revoked")
    assert "Alarm raised after" in said
    assert "It cleared by itself" in said
    entry = _entry(deployment, "gpu.access_revoked")
    assert entry["severity"] == "critical"
    assert entry["state"] == "withdrawn"
    assert "DRILL" in host.run("nanobotctl", "queue", "--state", "all").output
    assert "DRILL" in host.run("nanobotctl", "show", entry["id"]).output
    assert host.run("nanobotctl", "approve", entry["id"], "--reason", "x", check=False).status != 0
    assert host.shell("ls /run/nanobot-drill").split() == ["lock"]
    assert (
        "nanobot-drill"
        not in host.run("systemctl", "list-units", "--all", "--plain", "nanobot-drill*").output
    )


def test_a_restart_loop_is_drilled_and_what_an_earlier_drill_left_is_cleared(deployment: Deployment) -> None:
    """By the service manager's own word, which the agent hears without privilege."""
    host = deployment.host
    host.shell(
        "mkdir -p /run/nanobot-drill/nanobot-drill-0000dead"
        " && systemd-run --quiet --unit=nanobot-drill-0000dead.service sleep 600"
    )
    said = _drill(deployment, "unit.restart_loop")
    assert "Taking away what nanobot-drill-0000dead left behind." in said
    assert host.run("systemctl", "is-active", "nanobot-drill-0000dead.service", check=False).status != 0
    assert _entry(deployment, "unit.restart_loop")["severity"] == "high"


@pytest.mark.skipif(find_mounts().controller("memory") is None, reason="a booted host can limit memory here")
def test_a_drill_that_this_host_cannot_hold_in_bounds_ends_at_once(deployment: Deployment) -> None:
    """The service manager has no memory controller in here: that is named, nothing waits, nothing is left."""
    host = deployment.host
    done = host.run(_COMMAND, "drill", "memory.cgroup_oom_kill", check=False, timeout_s=60)
    assert done.status == 1
    assert "no memory controller for its services" in done.errors
    assert host.shell("ls /run/nanobot-drill").split() == ["lock"]
    assert not deployment.queue(fault_class="memory.cgroup_oom_kill")


def _entry(deployment: Deployment, fault: str) -> dict[str, Any]:
    """Return the entry of the drill; others on this machine may die meanwhile, which is seen here too."""
    own = [each for each in deployment.queue(fault_class=fault) if each["drill"]]
    assert len(own) == 1, own
    assert own[0]["subject"]["name"].startswith("nanobot-drill-")
    return own[0]


def test_only_root_can_drill(deployment: Deployment) -> None:
    """Nor can anybody else put a mark: the folder is root's."""
    host = deployment.host
    done = host.run(_COMMAND, "drill", "process.killed_by_signal", user="daemon", check=False, timeout_s=30)
    assert done.status == 1
    assert "only root" in done.errors
    assert host.run("touch", "/run/nanobot-drill/mark.json", user="daemon", check=False).status != 0
