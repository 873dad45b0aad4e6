"""One fault the whole way in a booted host: from the kernel to a verified decision, with the real units."""

from __future__ import annotations

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


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


@pytest.mark.parametrize(("unit", "user"), [(AGENT, "nanobot-agent"), (ORCHESTRATOR, "nanobot-orchestrator")])
def test_long_running_parts_hold_no_capability_at_all(deployment: Deployment, unit: str, user: str) -> None:
    """The kernel says so of every set, and that each part runs as its own user and can gain nothing."""
    status = _status(deployment.main_pid(unit))
    uid = deployment.host.run("id", "-u", user).output.strip()
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert set(status["Uid"].split()) == {uid}
    assert status["NoNewPrivs"] == "1"


def test_the_loader_is_gone_when_the_sensors_see(deployment: Deployment) -> None:
    """Nothing privileged of ours stays in memory."""
    assert deployment.host.show(LOADER, "MainPID") == "0"
    assert deployment.host.show(LOADER, "Result") == "success"
    assert deployment.blind() == []


def test_a_revoked_gpu_is_seen_decided_cured_and_verified(deployment: Deployment) -> None:
    """The story of the first fault: refused open, queue, approval, the command carried out, proof."""
    host = deployment.host
    with serving(host) as workload:
        host.run("sleep", "1")
        assert deployment.queue(fault_class="gpu.access_revoked") == []
        workload.revoke()
        entry = deployment.until_entry(fault_class="gpu.access_revoked", host=host.name, state="proposed")
        assert entry["severity"] == "critical"
        assert workload.unit in entry["subject"]["name"]
        assert entry["action"]["kind"] == "restart_unit"
        assert entry["action"]["command"] == ["systemctl", "restart", workload.unit]
        assert any(item["kind"] == "device_open" for item in entry["evidence"]), entry["evidence"]

        approved = host.run("nanobotctl", "approve", entry["id"], "--reason", "drained")
        assert approved.status == 0
        deployment.until_entry(id=entry["id"], state="approved")
        workload.restore()
        host.run(*entry["action"]["command"])
        host.run("nanobotctl", "done", entry["id"])
        verified = deployment.until_entry(id=entry["id"], state="verified", within_s=40)
        assert verified["decided_by"] == "operator"
        assert verified["decision_reason"] == "drained"
    assert host.run("nanobotctl", "audit", "verify").status == 0


def test_the_restarted_server_is_not_accused_again(deployment: Deployment) -> None:
    """The cure left one entry, finished, and nothing that waits for a person."""
    entries = deployment.queue(fault_class="gpu.access_revoked")
    assert [entry["state"] for entry in entries] == ["verified"]
