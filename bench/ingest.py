"""Durable ingest: reports a second that the orchestrator commits and acknowledges, and its memory.

One real orchestrator on SQLite, pinned to one processor, and one client process on the other. On PostgreSQL
one or more orchestrators share a database of a server of our own (fsync on), all of which run where they
like; the agents are spread over them, CPU is the orchestrators' own, and memory that of the largest. Each
agent is
one mTLS stream with its own certificate and sends reports of about 1 KB that were serialised before the clock
starts. "Batched" is 500 reports a message, "singly" one; a window of messages may be un-acked. The clock
stops at the last acknowledgement, and every acknowledgement is given after the commit.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc

from bench.paired import Spread
from bench.reports import FINGERPRINTS, report_of
from bench.rig import Orchestrator, Unavailable, cpu_s, orchestrator, resident_bytes
from dev import postgres
from escalation.model import AgentId, BootId, CasePhase, Report, Subject, SubjectKind
from escalation.wire import codec, escalation_pb2 as pb

_BEGAN_NS = 1_790_000_000_000_000_000


@dataclass(frozen=True, slots=True)
class Shape:
    """How reports are sent: by how many agents, how many in a message, how many messages un-acked."""

    agents: int
    batch: int
    window: int
    reports: int

    def __str__(self) -> str:
        return f"{self.agents} agent{'s' * (self.agents > 1)}, {self.batch} a message"


SHAPES = (
    Shape(agents=1, batch=500, window=16, reports=100_000),
    Shape(agents=8, batch=500, window=16, reports=160_000),
    Shape(agents=1, batch=1, window=256, reports=15_000),
    Shape(agents=8, batch=1, window=256, reports=24_000),
)


@dataclass(frozen=True, slots=True)
class Row:
    """What one shape gave over some runs: reports/s, server CPU us a report, server's peak memory in MB."""

    shape: Shape
    servers: int
    rate: Spread
    cpu_us: Spread
    resident_mb: Spread
    report_bytes: int


def measure(*, runs: int, store: str = "sqlite", shapes: tuple[Shape, ...] = SHAPES) -> list[Row]:
    """Measure every shape `runs` times, each on a fresh database of `store` (sqlite or postgres)."""
    if store == "sqlite":
        return [_measured(shape, 1, runs, lambda: "") for shape in shapes]
    if postgres.programs() is None:
        raise Unavailable("PostgreSQL is not here (dev/setup.sh tests)")
    numbers = itertools.count(1)
    with postgres.cluster(fsync=True, parent=Path("/var/tmp")) as cluster:
        return [
            _measured(shape, servers, runs, lambda: cluster.create(f"bench_{next(numbers)}"))
            for shape in shapes
            for servers in (1, 2)
            if servers <= shape.agents
        ]


def _measured(shape: Shape, servers: int, runs: int, database: Callable[[], str]) -> Row:
    rates, costs, sizes, report_bytes = [], [], [], 0
    names = [f"bench-{agent}" for agent in range(shape.agents)]
    for _ in range(runs):
        messages = [_messages(name, shape) for name in names]
        report_bytes = len(messages[0][0]) // shape.batch
        where = database()
        with ExitStack() as stack:
            started = [
                stack.enter_context(orchestrator(agents=names, cpu=None if where else 0, postgres=where))
                for _ in range(servers)
            ]
            rate, cost, resident = asyncio.run(_drive(started, messages, shape))
        rates.append(rate)
        costs.append(cost)
        sizes.append(resident)
    return Row(shape, servers, Spread.of(rates), Spread.of(costs), Spread.of(sizes), report_bytes)


def table(rows: list[Row]) -> str:
    """Render the rows as Markdown."""
    lines = [
        "| shape | orchestrators | bytes a report | reports/s, median [min-max] | CPU us a report | RSS MB |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        rate = f"{row.rate.median:,.0f} [{row.rate.low:,.0f}-{row.rate.high:,.0f}]"
        cells = (row.shape, row.servers, row.report_bytes, rate, row.cpu_us, row.resident_mb)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _messages(agent: str, shape: Shape) -> list[bytes]:
    boot = BootId(f"00000000-0000-4000-8000-{abs(hash(agent)) % 10**12:012d}")
    count = shape.reports // shape.agents
    reports = [codec.encode(_report(AgentId(agent), boot, sequence)) for sequence in range(1, count + 1)]
    return [
        pb.ReportBatch(
            reports=[pb.Report.FromString(one) for one in reports[start : start + shape.batch]]
        ).SerializeToString()
        for start in range(0, count, shape.batch)
    ]


def _report(agent: AgentId, boot: BootId, sequence: int) -> Report:
    slot = sequence % FINGERPRINTS
    return report_of(
        agent=agent,
        boot=boot,
        sequence=sequence,
        created_ns=_BEGAN_NS + sequence,
        fault=slot,
        phase=CasePhase.OPENED if sequence <= FINGERPRINTS else CasePhase.UPDATED,
        count=sequence,
        first_seen_ns=_BEGAN_NS,
        subject=Subject(SubjectKind.CGROUP, f"/machine.slice/{slot:0400x}"),
        target=Subject(SubjectKind.UNIT, f"vllm-{slot}.service"),
        container_id=f"{slot:064x}",
        devices=4,
    )


async def _drive(
    servers: Sequence[Orchestrator], messages: list[list[bytes]], shape: Shape
) -> tuple[float, float, float]:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    stop, peak = threading.Event(), [0]

    def watch() -> None:
        while not stop.wait(0.05):
            peak[0] = max(peak[0], *(resident_bytes(server.pid) for server in servers))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        before, started = sum(cpu_s(server.pid) for server in servers), time.monotonic()
        await asyncio.gather(
            *(
                _agent(servers[number % len(servers)], number, batches, shape)
                for number, batches in enumerate(messages)
            )
        )
        wall = time.monotonic() - started
        cost = sum(cpu_s(server.pid) for server in servers) - before
    finally:
        stop.set()
        watcher.join()
    total = sum(len(batches) for batches in messages) * shape.batch
    return total / wall, cost / total * 1e6, peak[0] / 1e6


async def _agent(server: Orchestrator, number: int, batches: list[bytes], shape: Shape) -> None:
    folder = Path(server.folder)
    credentials = grpc.ssl_channel_credentials(
        (folder / "ca.crt").read_bytes(),
        (folder / f"bench-{number}.key").read_bytes(),
        (folder / f"bench-{number}.crt").read_bytes(),
    )
    window = asyncio.Semaphore(shape.window)

    async def requests() -> AsyncIterator[bytes]:
        for batch in batches:
            await window.acquire()
            yield batch

    async with grpc.aio.secure_channel(server.address, credentials) as channel:
        escalate = channel.stream_stream("/nanobot.v1.EscalationService/Escalate")
        last, acked = len(batches) * shape.batch, 0
        call = escalate(requests())
        async for raw in call:
            ack = pb.Ack.FromString(raw)
            for _ in range((ack.sequence - acked) // shape.batch):
                window.release()
            acked = ack.sequence
            if acked >= last:
                call.cancel()
                return
        raise RuntimeError(f"the orchestrator ended the stream at {acked} of {last}")
