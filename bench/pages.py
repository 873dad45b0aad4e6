"""How fast the pages are with ten thousand open entries, on SQLite and asked without a network.

And what a second that passes takes of a processor beside them, when nothing is due.
"""

from __future__ import annotations

import asyncio
import hashlib
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import httpx2

from escalation.model import AgentId, BootId, CasePhase, Report, Severity, Subject, SubjectKind
from escalation.server import app
from escalation.server.clock import SystemClock
from escalation.server.config import Config, GrpcSettings
from escalation.server.decision.approvals import Policy
from escalation.server.metrics import ServerMetrics
from escalation.server.notify.notice_desk import NoReceivers
from escalation.server.service import Service
from escalation.server.storage.sqlite_store import SqliteStore
from escalation.server.storage.store import Delivery
from escalation.server.testing import case_report
from escalation.server.web.access import Person, Role

_TOKEN = "of-the-bench"
_HOSTS = 20
_SEVERITIES = (Severity.CRITICAL, Severity.HIGH, Severity.MEDIUM, Severity.NOTE)


@dataclass(frozen=True, slots=True)
class Row:
    """One page: how long its answers took, and how large the newest was; or a tick, which has no size."""

    name: str
    seconds: tuple[float, ...]
    size_bytes: int


def measure(*, entries: int = 10_000, looks: int = 60) -> list[Row]:
    """Fill a ledger and look at each page `looks` times."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_measured(Path(folder), entries, looks))


def table(rows: list[Row]) -> str:
    """Return the figures as Markdown."""
    lines = ["| page | p50 ms | p95 ms | slowest ms | kB |", "|---|---|---|---|---|"]
    for row in rows:
        ordered = sorted(row.seconds)
        p95 = ordered[int(0.95 * (len(ordered) - 1))]
        figures = " | ".join(f"{1000 * each:.1f}" for each in (statistics.median(ordered), p95, ordered[-1]))
        lines.append(f"| {row.name} | {figures} | {row.size_bytes / 1000:.1f} |")
    return "\n".join(lines)


async def _measured(folder: Path, entries: int, looks: int) -> list[Row]:
    store, clock, metrics = SqliteStore(path=folder / "bench.db"), SystemClock(), ServerMetrics()
    nowhere = Path("/nonexistent")
    person = Person(name="ada", role=Role.OPERATOR, token_sha256=hashlib.sha256(_TOKEN.encode()).hexdigest())
    config = Config(grpc=GrpcSettings(certificate=nowhere, key=nowhere, clients_ca=nowhere), person=(person,))
    service = Service(store=store, clock=clock, policy=Policy())
    try:
        await _fill(service, clock, entries)
        application = app.application(
            config, store=store, service=service, notices=NoReceivers(), metrics=metrics, clock=clock
        )
        transport = httpx2.ASGITransport(app=application)
        headers = {"authorization": f"Bearer {_TOKEN}", "accept": "text/html"}
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://127.0.0.1", headers=headers
        ) as client:
            return [*await _looked(client, looks), await _passed(service, looks)]
    finally:
        await store.close()


async def _looked(client: httpx2.AsyncClient, looks: int) -> list[Row]:
    newest = (await client.get("/api/v1/queue?limit=1")).json()["entries"][0]["id"]
    rows = []
    for name, path in (
        ("queue", "/"),
        ("queue, each entry by itself", "/?fold=no"),
        ("queue, page 100", "/?fold=no&page=100"),
        ("queue, one host", "/?host=spark-7&fold=no"),
        ("entry", f"/q/{newest}"),
        ("hosts", "/hosts"),
        ("audit", "/audit"),
    ):
        seconds, size = [], 0
        for _ in range(looks):
            started = time.perf_counter()
            answer = await client.get(path)
            seconds.append(time.perf_counter() - started)
            size = len(answer.raise_for_status().content)
        rows.append(Row(name, tuple(seconds), size))
    return rows


async def _passed(service: Service, ticks: int) -> Row:
    seconds = []
    for _ in range(ticks):
        started = time.process_time()
        await service.tick()
        seconds.append(time.process_time() - started)
    return Row("a second that passes (processor time)", tuple(seconds), 0)


async def _fill(service: Service, clock: SystemClock, entries: int) -> None:
    """Let hosts report cases that nothing explains, so that each is a row of its own."""
    boot = BootId("00000000-0000-4000-8000-000000000001")
    each = -(-entries // _HOSTS)
    for host in range(_HOSTS):
        agent = AgentId(f"spark-{host}")
        reports = [
            Report(
                agent_id=agent,
                boot_id=boot,
                sequence=number + 1,
                created_ns=clock.wall_ns(),
                body=case_report(
                    CasePhase.OPENED,
                    case_id=f"case-{number}",
                    severity=_SEVERITIES[number % len(_SEVERITIES)],
                    subject=Subject(SubjectKind.CONTAINER, f"{number:064x}"),
                    seen_ns=clock.wall_ns(),
                ),
            )
            for number in range(each)
        ]
        rows = [(report.sequence, report.created_ns, b"") for report in reports]
        await service.receive(Delivery(agent, boot, rows, reports))
