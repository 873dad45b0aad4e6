"""A disk that fills and one that vanishes in a booted host: through the agent's sandbox to the queue."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.deployment import AGENT, Deployment

pytestmark = [
    pytest.mark.root,
    pytest.mark.systemd,
    pytest.mark.ebpf,
    pytest.mark.slow,
    pytest.mark.timeout(180),
]

_SETTINGS = """
[storage]
paths = ["/srv/models"]
external = ["/mnt/model-disk"]

[detectors.storage_read_only]
missing_s = 0
clear_hold_s = 0
"""


@pytest.fixture(scope="module")
def host_with_disks(deployment: Deployment) -> Iterator[Deployment]:
    """Two small filesystems that are declared, mounted before and after the agent's sandbox was made."""
    host = deployment.host
    written = host.run("cat", "/etc/nanobot/agent.toml").output
    host.write("/etc/nanobot/agent.toml", written + _SETTINGS)
    for point in ("/srv/models", "/mnt/model-disk"):
        host.run("mkdir", "-p", point)
    host.run("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", "/mnt/model-disk")
    host.run("systemctl", "restart", AGENT)
    deployment.settle()
    host.run("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", "/srv/models")
    yield deployment
    host.run("umount", "-q", "/srv/models", "/mnt/model-disk", check=False)


def test_what_fills_and_what_vanishes_reach_the_queue(host_with_disks: Deployment) -> None:
    """The one with its refused writes, the other by the name of its mount point."""
    host, deployment = host_with_disks.host, host_with_disks
    assert deployment.queue(fault_class="storage.full") == []
    assert deployment.queue(fault_class="storage.read_only") == []
    host.run("dd", "if=/dev/zero", "of=/srv/models/blob", "bs=64k", check=False)
    host.run("umount", "/mnt/model-disk")
    full = deployment.until_entry(fault_class="storage.full", host=host.name, within_s=40)
    assert (full["severity"], full["subject"]) == ("high", {"kind": "mount", "name": "/srv/models"})
    gone = deployment.until_entry(fault_class="storage.read_only", host=host.name, within_s=40)
    assert (gone["severity"], gone["subject"]) == ("high", {"kind": "mount", "name": "/mnt/model-disk"})
    assert any(item["kind"] == "storage" for item in gone["evidence"]), gone["evidence"]
