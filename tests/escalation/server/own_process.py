"""An orchestrator in a process of its own that may be killed at a named point, and what it is sent."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio

from escalation.model import CasePhase, Subject, SubjectKind
from escalation.server.testing import case_report, heartbeat
from escalation.wire import codec
from tests.escalation.server.site import METHOD, Site, wired

LAST = 23
"""The number of the last report that is delivered."""


@asynccontextmanager
async def serving(site: Site, failpoint: str = "") -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the orchestrator of `site`, which kills itself at `failpoint`; it must not end in a traceback."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "escalation.server", "serve", "--config", str(site.config_file),
        env={**os.environ, "NANOBOT_FAILPOINT": failpoint}, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    while line := await process.stderr.readline():
        if b"orchestrator_ready" in line:
            break
    said = asyncio.create_task(process.stderr.read())
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        assert b"Traceback" not in await said


def _reports() -> list[bytes]:
    """Heartbeats, and a case that opens, is updated and clears, and then another case."""
    bodies = [heartbeat(), case_report(), *(case_report(CasePhase.UPDATED, count=n) for n in range(2, 12))]
    other = case_report(case_id="case-2", subject=Subject(SubjectKind.UNIT, "vllm.service"))
    bodies += [case_report(CasePhase.CLEARED, count=12), heartbeat(), other]
    bodies += [heartbeat() for _ in range(LAST - len(bodies))]
    return [wired(body, number) for number, body in enumerate(bodies, start=1)]


async def deliver(site: Site, acknowledged: int) -> int:
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
