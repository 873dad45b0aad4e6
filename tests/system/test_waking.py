"""The programs that sleep are woken by an agent in its sandbox, for a server that it found."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from tests.system.deployment import AGENT, Deployment

pytestmark = [
    pytest.mark.root,
    pytest.mark.systemd,
    pytest.mark.ebpf,
    pytest.mark.slow,
    pytest.mark.timeout(180),
]

_UNIT = """
[Service]
ExecStart=/bin/bash -c 'exec -a vllm /usr/bin/python3 -c "import time; time.sleep(600)" serve'
"""


def links_of(pid: int) -> int:
    """Return how many BPF links a process holds open."""
    found = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found += os.readlink(entry) == "anon_inode:bpf_link"  # noqa: PTH115 -- no path to anything
    return found


def test_an_agent_in_its_sandbox_wakes_the_programs_that_sleep(deployment: Deployment) -> None:
    """The first look at a server takes three more links than it holds for good, and nothing goes blind."""
    host, agent = deployment.host, deployment.main_pid(AGENT)
    held = links_of(agent)
    host.write("/etc/systemd/system/vllm.service", _UNIT)
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "start", "vllm")
    try:
        host.wait("a look at the server", lambda: links_of(agent) == held + 3, within_s=60)
    finally:
        host.run("systemctl", "stop", "vllm", check=False)
    assert "kernel.run_delay" not in deployment.blind()
