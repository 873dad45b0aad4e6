"""The orchestrator killed with SIGKILL at named points, its agent sending again what was not acknowledged."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import sys

import pytest

from escalation.server import audit
from escalation.server.desk import AuditEntry
from tests.escalation.server.own_process import LAST, deliver, serving
from tests.escalation.server.site import Site


@pytest.mark.parametrize("times", [1, 3, 8])
@pytest.mark.parametrize("point", ["server.before_commit", "server.after_commit", "server.after_ack"])
async def test_loses_nothing_and_keeps_nothing_twice(site: Site, point: str, times: int) -> None:
    """Whatever it was doing when it died, each report is there once and the incidents are the same two."""
    async with serving(site, f"{point}:{times}") as doomed:
        acknowledged = await deliver(site, 0)
        assert await asyncio.wait_for(doomed.wait(), 10) == -signal.SIGKILL
    assert acknowledged < LAST
    async with serving(site) as process:
        assert await deliver(site, acknowledged) == LAST
        process.terminate()
        assert await process.wait() == 0

    database = sqlite3.connect(site.database)
    assert [row[0] for row in database.execute("SELECT sequence FROM reports ORDER BY id")] == [
        *range(1, LAST + 1)
    ]
    incidents = database.execute("SELECT id, open FROM incidents ORDER BY rowid").fetchall()
    assert [is_open for _, is_open in incidents] == [0, 1]
    verbs = [row[0] for row in database.execute("SELECT verb FROM audit ORDER BY number")]
    assert verbs == [
        "host.first_heard",
        "incident.opened",
        "recommendation.proposed",
        "incident.cleared",
        "recommendation.withdrawn",
        "incident.opened",
        "recommendation.proposed",
    ]
    chain = [AuditEntry(*row) for row in database.execute("SELECT * FROM audit ORDER BY number")]
    assert audit.verify(chain) is None
    database.close()


async def test_a_second_orchestrator_on_the_same_database_is_refused(site: Site) -> None:
    """Two writers would each trust their own memory: the second says who is in the way, and exits 1."""
    async with serving(site):
        second = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "escalation.server", "serve", "--config", str(site.config_file),
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, said = await second.communicate()
    assert second.returncode == 1
    assert b"another orchestrator is using it" in said
