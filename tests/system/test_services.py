"""Services and the mesh in a booted host: the real agent, without privilege, to the queue."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.probes.host import tailscaled
from tests.probes.host.tailscaled import STATUS, Tailscaled
from tests.system.deployment import AGENT, Deployment

pytestmark = [
    pytest.mark.root,
    pytest.mark.systemd,
    pytest.mark.ebpf,
    pytest.mark.slow,
    pytest.mark.timeout(120),
]


@pytest.fixture(scope="module")
def mesh(deployment: Deployment) -> Iterator[Tailscaled]:
    """A daemon of the mesh that runs well, and an agent that reads it patiently for a moment only."""
    host = deployment.host
    host.run("mkdir", "-p", "/run/tailscale")
    with tailscaled.running(host.path("/run/tailscale/tailscaled.sock")) as daemon:
        host.run("chmod", "666", "/run/tailscale/tailscaled.sock")
        host.shell(
            "printf '\\n[detectors.mesh]\\nlasting_s = 0\\nclear_hold_s = 0\\n' >> /etc/nanobot/agent.toml"
        )
        host.run("systemctl", "kill", "--kill-whom=main", "--signal=HUP", AGENT)
        yield daemon


def sees(deployment: Deployment, sensor: str) -> bool:
    """Return whether the agent says that this sensor of its host sees."""
    for one in deployment.ask("hosts"):
        for row in one["coverage"]:
            if one["host"] == deployment.host.name and row["sensor"] == sensor:
                return bool(row["seeing"])
    return False


def test_an_unprivileged_agent_hears_the_manager_and_the_mesh(
    deployment: Deployment, mesh: Tailscaled
) -> None:
    """From its own unit, with all its restrictions: bus, socket of the daemon, kernel events."""
    for sensor in ("host.units", "mesh.tailscale", "kernel.cgroups", "host.listeners"):
        deployment.host.wait(f"{sensor} sees", lambda sensor=sensor: sees(deployment, sensor), within_s=30)
    assert STATUS in mesh.asked


def test_a_service_in_a_restart_loop_reaches_the_queue(deployment: Deployment, mesh: Tailscaled) -> None:
    """Both witnesses agree, the manager and the kernel; a deployment beside it is nothing."""
    host = deployment.host
    host.write(
        "/etc/systemd/system/broken.service",
        "[Unit]\nStartLimitBurst=4\nStartLimitIntervalSec=60\n"
        "[Service]\nExecStart=/bin/false\nRestart=always\nRestartSec=300ms\n",
    )
    host.write("/etc/systemd/system/served.service", "[Service]\nExecStart=/bin/sleep 600\nRestart=always\n")
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "start", "broken.service", "served.service")
    for _ in range(2):
        host.run("systemctl", "restart", "served.service")
    entry = deployment.until_entry(fault_class="unit.restart_loop", host=host.name, within_s=40)
    assert entry["subject"]["name"] == "broken.service"
    assert entry["severity"] == "high"
    assert "control group vanished" in " ".join(str(reason) for reason in entry["reasons"])


def test_a_mesh_that_lost_its_login_reaches_the_queue(deployment: Deployment, mesh: Tailscaled) -> None:
    """Within its next look."""
    mesh.answers[STATUS] = tailscaled.status(BackendState="NeedsLogin")
    entry = deployment.until_entry(fault_class="mesh.degraded", host=deployment.host.name, within_s=45)
    assert entry["severity"] == "high"
