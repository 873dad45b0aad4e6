"""The orchestrator killed with SIGKILL at named points, its agent sending again what was not acknowledged."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest

from escalation.model import CasePhase, Subject, SubjectKind
from escalation.server import audit
from escalation.server.desk import AuditEntry
from escalation.server.testing import case_report, heartbeat
from escalation.wire import codec
from tests.escalation.server.site import METHOD, Site, wired

_LAST = 23


def _reports() -> list[bytes]:
    """Heartbeats, and a case that opens, is updated and clears, and then another case."""
    bodies = [heartbeat(), case_report(), *(case_report(CasePhase.UPDATED, count=n) for n in range(2, 12))]
    other = case_report(case_id="case-2", subject=Subject(SubjectKind.UNIT, "vllm.service"))
    bodies += [case_report(CasePhase.CLEARED, count=12), heartbeat(), other]
    bodies += [heartbeat() for _ in range(_LAST - len(bodies))]
    return [wired(body, number) for number, body in enumerate(bodies, start=1)]


@asynccontextmanager
async def _running(site: Site, failpoint: str = "") -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "escalation.server",
        "serve",
        "--config",
        str(site.config_file),
        env={**os.environ, "NANOBOT_FAILPOINT": failpoint},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    while line := await process.stderr.readline():
        if b"orchestrator_ready" in line:
            break
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def _deliver(site: Site, acknowledged: int) -> int:
    """Send all reports above `acknowledged`, two in a batch; return the highest number acknowledged."""
    waiting = _reports()[acknowledged:]
    async with site.channel(site.authority.agent("spark-1")) as channel:
        call = channel.stream_stream(METHOD)()
        try:
            for first in range(0, len(waiting), 2):
                await call.write(codec.join(waiting[first : first + 2]))
                ack = await call.read()
                if ack is grpc.aio.EOF:
                    break
                acknowledged = codec.decode_ack(ack).sequence
            await call.done_writing()
        except grpc.aio.AioRpcError:
            pass
        call.cancel()
    return acknowledged


@pytest.mark.parametrize("times", [1, 3, 8])
@pytest.mark.parametrize("point", ["server.before_commit", "server.after_commit", "server.after_ack"])
async def test_loses_nothing_and_keeps_nothing_twice(site: Site, point: str, times: int) -> None:
    """Whatever it was doing when it died, each report is there once and the incidents are the same two."""
    async with _running(site, f"{point}:{times}") as doomed:
        acknowledged = await _deliver(site, 0)
        assert await asyncio.wait_for(doomed.wait(), 10) == -signal.SIGKILL
    assert acknowledged < _LAST
    async with _running(site) as process:
        assert await _deliver(site, acknowledged) == _LAST
        process.terminate()
        assert await process.wait() == 0

    database = sqlite3.connect(site.database)
    assert [row[0] for row in database.execute("SELECT sequence FROM reports ORDER BY id")] == [
        *range(1, _LAST + 1)
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
    async with _running(site):
        second = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "escalation.server", "serve", "--config", str(site.config_file),
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, said = await second.communicate()
    assert second.returncode == 1
    assert b"another orchestrator is using it" in said
