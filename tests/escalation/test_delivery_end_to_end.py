"""Outbox, uplink and the real orchestrator in its own process, killed where it hurts."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from escalation.model import (
    AgentId,
    Body,
    BootId,
    CaseId,
    CasePhase,
    CaseReport,
    FaultClass,
    Heartbeat,
    Incarnation,
    Loss,
    LossKind,
    Severity,
    Subject,
    SubjectKind,
)
from escalation.outbox import Outbox, Stored
from escalation.pki import create_authority, issue_agent, issue_orchestrator
from escalation.uplink import Uplink, UplinkLimits, UplinkState
from escalation.wire.codec import decode
from escalation.wire.credentials import Files

AGENT = AgentId("spark-a")
COUNT = 10_000


class Calls:
    """The outbox on the loop's own thread."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    async def pending(self, *, after_row: int, limit: int, max_bytes: int) -> tuple[Stored, ...]:
        return self._outbox.pending(after_row=after_row, limit=limit, max_bytes=max_bytes)

    async def acknowledge(self, boot_id: BootId, sequence: int) -> int:
        return self._outbox.acknowledge(boot_id, sequence)

    async def set_aside(self, row: int, *, now_ns: int) -> None:
        self._outbox.set_aside(row, now_ns=now_ns)


class Site:
    """The orchestrator's folder, and its process."""

    def __init__(self, folder: Path) -> None:
        now = dt.datetime.now(tz=dt.UTC)
        self.pki = folder / "pki"
        create_authority(self.pki, now=now)
        issue_orchestrator(self.pki, names=["localhost"], addresses=["127.0.0.1"], now=now)
        issue_agent(self.pki, host=AGENT, now=now)
        self.port, http = _free_port(), _free_port()
        self.database = folder / "orchestrator.db"
        self.config = folder / "orchestrator.toml"
        self.config.write_text(
            f'[grpc]\nlisten = "127.0.0.1:{self.port}"\nclients_ca = "{self.pki}/ca.crt"\n'
            f'certificate = "{self.pki}/orchestrator.crt"\nkey = "{self.pki}/orchestrator.key"\n'
            f'[http]\nlisten = "127.0.0.1:{http}"\n[store]\npath = "{self.database}"\n'
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, failpoint: str = "") -> None:
        command = [sys.executable, "-m", "escalation.server", "serve", "--config", str(self.config)]
        self.process = subprocess.Popen(
            command,
            env={**os.environ, "NANOBOT_FAILPOINT": failpoint},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)

    def payloads(self) -> list[bytes]:
        with contextlib.closing(sqlite3.connect(self.database)) as database:
            rows = database.execute("SELECT payload FROM reports ORDER BY id").fetchall()
        return [payload for (payload,) in rows]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.stop()


def _body(number: int) -> Body:
    """Return what a busy host says: mostly losses, some cases, a heartbeat now and then."""
    if number % 100 == 0:
        return Heartbeat(
            kernel_boot_id="k",
            agent_version="1",
            started_ns=1,
            coverage=(),
            open_cases=number,
            spool_reports=0,
            spool_bytes=0,
            interval_s=15.0,
        )
    if number % 250 == 7:
        return CaseReport(
            phase=CasePhase.OPENED,
            case_id=CaseId(f"case-{number}"),
            fault_class=FaultClass.GPU_ACCESS_REVOKED,
            severity=Severity.HIGH,
            subject=Subject(SubjectKind.UNIT, f"vllm-{number}.service"),
            incarnation=Incarnation("k"),
            first_seen_ns=1,
            last_seen_ns=2,
            count=number,
        )
    return Loss(LossKind.RING_FULL, "kernel.device_open", number, exact=True)


def _opened(folder: Path, agent_id: AgentId) -> Outbox:
    return Outbox.open(
        folder / "spool.db", agent_id=agent_id, kernel_boot_id="k", max_bytes=64 << 20, now_ns=1
    )


async def _until_empty(outbox: Outbox, site: Site, *, or_dead: bool = False) -> None:
    deadline = time.monotonic() + 40
    while outbox.depth().reports:
        assert site.process is not None
        if or_dead and site.process.poll() is not None:
            return
        assert time.monotonic() < deadline, f"{outbox!r} is not empty"
        await asyncio.sleep(0.01)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "failpoint", ["server.before_commit:5", "server.after_commit:5", "server.after_ack:4"]
)
async def test_ten_thousand_reports_arrive_once_though_the_orchestrator_is_killed(
    site: Site, tmp_path: Path, failpoint: str
) -> None:
    """Queued up while it was down, cut by kill -9 at a named place, finished after a restart."""
    outbox = _opened(tmp_path, AGENT)
    for start in range(1, COUNT, 500):
        outbox.append([_body(number) for number in range(start, start + 500)], now_ns=start)
    kept = _all(outbox)
    uplink = Uplink(
        outbox=Calls(outbox),
        target=f"127.0.0.1:{site.port}",
        files=Files(site.pki / "ca.crt", site.pki / f"{AGENT}.crt", site.pki / f"{AGENT}.key"),
        now_ns=lambda: 5,
        dice=random.Random(7),
        pause=asyncio.sleep,
        limits=UplinkLimits(first_pause_s=0.05, longest_pause_s=0.2),
        options=(("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 300)),
    )
    running = asyncio.create_task(uplink.run())
    try:
        site.start(failpoint)
        await _until_empty(outbox, site, or_dead=True)
        assert site.process is not None
        assert site.process.wait(20) == -signal.SIGKILL
        assert outbox.depth().reports > 0
        site.start()
        await _until_empty(outbox, site)
        assert uplink.status.state is UplinkState.DELIVERING
        assert uplink.status.set_aside_reports == 0
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        outbox.close()
    site.stop()
    assert site.payloads() == kept
    sequences = [decode(payload).sequence for payload in kept]
    assert sequences == sorted(set(sequences))


async def test_a_report_in_another_hosts_name_is_not_taken(site: Site, tmp_path: Path) -> None:
    """A host cannot speak for another; its reports wait, and the status says why."""
    outbox = _opened(tmp_path, AgentId("spark-b"))
    outbox.append([Loss(LossKind.RING_FULL, "kernel.device_open", 3, exact=True)], now_ns=1)
    uplink = Uplink(
        outbox=Calls(outbox),
        target=f"127.0.0.1:{site.port}",
        files=Files(site.pki / "ca.crt", site.pki / f"{AGENT}.crt", site.pki / f"{AGENT}.key"),
        now_ns=lambda: 5,
        dice=random.Random(7),
        pause=asyncio.sleep,
    )
    site.start()
    running = asyncio.create_task(uplink.run())
    try:
        deadline = time.monotonic() + 30
        while uplink.status.state is not UplinkState.NOT_ACCEPTED:
            assert time.monotonic() < deadline, uplink.status
            await asyncio.sleep(0.01)
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    assert uplink.status.detail.startswith("PERMISSION_DENIED: ")
    assert "spark-b" in uplink.status.detail
    assert outbox.depth().reports == 1
    outbox.close()
    site.stop()
    assert site.payloads() == []


def _all(outbox: Outbox) -> list[bytes]:
    found: list[Stored] = []
    while more := outbox.pending(after_row=found[-1].row if found else 0, limit=1000, max_bytes=1 << 20):
        found += more
    return [stored.payload for stored in found]
