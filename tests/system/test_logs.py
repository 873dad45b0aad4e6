"""The journal of a booted host, read by the agent in its unit: known lines arrive, forged ones do not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.system.deployment import AGENT, Deployment

pytestmark = [
    pytest.mark.root,
    pytest.mark.systemd,
    pytest.mark.ebpf,
    pytest.mark.slow,
    pytest.mark.timeout(120),
]

_DROP_IN = "/usr/local/lib/systemd/system/nanobot-agent.service.d/50-journal.conf"
_FULL = "FATAL:  sorry, too many clients already"


def _coverage(deployment: Deployment) -> dict[str, Any]:
    """Return what the agent says of its sight of the journal, nothing while it has said nothing."""
    for one in deployment.ask("hosts"):
        for row in one["coverage"]:
            if one["host"] == deployment.host.name and row["sensor"] == "host.logs":
                return dict(row)
    return {}


def _serve(deployment: Deployment, unit: str, *, user: int = 0) -> None:
    """Run a service whose program is called `postgres` and logs that it turned a client away."""
    deployment.host.write("/opt/database/postgres", f"#!/bin/sh\necho '{_FULL}'\nsleep 600\n", mode=0o755)
    deployment.host.run("systemd-run", f"--unit={unit}", f"--property=User={user}", "/opt/database/postgres")


def test_a_known_line_reaches_the_queue(deployment: Deployment) -> None:
    """By the group that the drop-in gives it, the agent reads the journal; the case names the unit."""
    deployment.host.wait("the journal is seen", lambda: bool(_coverage(deployment).get("seeing")))
    _serve(deployment, "first-database.service")
    entry = deployment.until_entry(fault_class="database.connections_exhausted")
    assert entry["subject"] == {"kind": "unit", "name": "first-database.service"}
    assert entry["severity"] == "note"
    assert _FULL.split("  ")[1] not in str(entry)


def test_a_rotated_journal_is_read_on(deployment: Deployment) -> None:
    """The service manager's own rotation, then a line of another unit."""
    deployment.host.run("journalctl", "--rotate")
    _serve(deployment, "second-database.service")
    deployment.host.wait(
        "an entry of the second unit",
        lambda: any(
            entry["subject"]["name"] == "second-database.service"
            for entry in deployment.queue(fault_class="database.connections_exhausted")
        ),
    )


def test_a_service_of_a_regular_account_is_read(deployment: Deployment) -> None:
    """Where the journal is on disk, journald keeps what it writes in a file of the account's own."""
    deployment.host.run("mkdir", "-p", "/var/log/journal")
    deployment.host.run("journalctl", "--flush")
    _serve(deployment, "account-database.service", user=1000)
    deployment.host.wait(
        "an entry of the account's unit",
        lambda: any(
            entry["subject"]["name"] == "account-database.service"
            for entry in deployment.queue(fault_class="database.connections_exhausted")
        ),
    )
    listed = deployment.host.run("find", "/var/log/journal", "-name", "user-1000.journal")
    assert listed.output.strip().endswith("/user-1000.journal")


def test_a_program_does_not_speak_for_the_kernel(deployment: Deployment) -> None:
    """Whoever may write to the journal may call itself the kernel; nothing comes of it."""
    xid = "NVRM: Xid (PCI:0000:05:00): 79, GPU has fallen off the bus."
    deployment.host.run("logger", "-t", "kernel", "-p", "kern.err", xid)
    deployment.host.run("systemd-cat", "-t", "kernel", "echo", xid)
    _serve(deployment, "third-database.service")  # what comes after it is there, so it was read
    deployment.host.wait(
        "an entry of the third unit",
        lambda: any(
            entry["subject"]["name"] == "third-database.service"
            for entry in deployment.queue(fault_class="database.connections_exhausted")
        ),
    )
    assert deployment.queue(fault_class="gpu.device_fault") == []


def test_without_the_group_the_agent_says_that_it_is_blind(deployment: Deployment) -> None:
    """The reason is told, and everything else goes on."""
    deployment.host.run("rm", _DROP_IN)
    deployment.host.run("systemctl", "daemon-reload")
    deployment.host.run("systemctl", "restart", AGENT)
    deployment.host.wait(
        "the journal is not seen", lambda: _coverage(deployment).get("reason") == "no_privilege"
    )
    deployment.settle()
