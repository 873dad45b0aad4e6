"""The whole orchestrator: both doors, a disk that fills up, a day's backlog, an orderly stop."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import grpc.aio
import httpx2
import pytest

from escalation.server import app, config
from escalation.server.clock import SystemClock
from escalation.server.supervision import Supervisor
from escalation.server.testing import case_report, heartbeat
from escalation.wire import codec
from tests.escalation.server.conftest import running
from tests.escalation.server.site import TOKEN, Ready, Site, escalate, wired

_AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


async def test_a_report_is_seen_and_decided_over_http(orchestrator: Site) -> None:
    """What an agent reports at one door, a person approves at the other."""
    async with orchestrator.channel(orchestrator.authority.agent("spark-1")) as channel:
        await escalate(channel, codec.join([wired(heartbeat(), 1), wired(case_report(), 2)]))
    async with httpx2.AsyncClient(base_url=orchestrator.url, headers=_AUTHORIZED) as people:
        (entry,) = (await people.get("/api/v1/queue")).json()["entries"]
        assert entry["host"] == "spark-1"
        answer = await people.post(
            f"/api/v1/queue/{entry['id']}/approve", json={"reason": "why", "digest": entry["digest"]}
        )
        assert (answer.status_code, answer.json()["state"]) == (200, "approved")
        assert (await people.get("/readyz")).status_code == 200


async def test_a_backlog_arrives_once_and_in_order(site: Site) -> None:
    """Ten thousand reports that two hosts gathered while the orchestrator was down."""
    each = 5000
    backlog = {
        host: [wired(case_report(count=n), n, host=host) for n in range(1, each + 1)]
        for host in ("spark-1", "spark-2")
    }

    async def drain(host: str) -> list[codec.Committed]:
        batches = [codec.join(backlog[host][first : first + 250]) for first in range(0, each, 250)]
        async with site.channel(site.authority.agent(host)) as channel:
            return await escalate(channel, *batches)

    async with running(site):
        acks = await asyncio.gather(drain("spark-1"), drain("spark-2"))
    assert [ack[-1].sequence for ack in acks] == [each, each]
    database = sqlite3.connect(site.database)
    for host in backlog:
        kept = database.execute(
            "SELECT sequence FROM reports JOIN boots ON boots.number = boot WHERE agent_id = ? ORDER BY id",
            (host,),
        ).fetchall()
        assert [row[0] for row in kept] == list(range(1, each + 1))
    assert database.execute("SELECT count(*) FROM incidents").fetchone() == (2,)
    database.close()


@pytest.fixture
def small_disk(site: Site) -> Iterator[Path]:
    """A file system of four mebibytes where the database will be."""
    folder = site.database.parent
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.root
async def test_a_full_disk_tells_agents_to_come_back(small_disk: Path, site: Site) -> None:
    """RESOURCE_EXHAUSTED and not ready while it is full; ready again by itself when there is room."""
    padded = tuple(case_report().evidence) * 32
    batch = codec.join([wired(case_report(evidence=padded), n) for n in range(1, 501)])
    async with (
        running(site),
        site.channel(site.authority.agent("spark-1")) as channel,
        httpx2.AsyncClient(base_url=site.url) as people,
    ):
        await escalate(channel, codec.join([wired(heartbeat(), 1)]))
        ballast = small_disk / "ballast"
        ballast.write_bytes(b"x" * 3_500_000)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await escalate(channel, batch)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await people.get("/readyz")).status_code == 503
        assert (await people.get("/livez")).status_code == 200
        ballast.unlink()
        for _ in range(200):
            if (await people.get("/readyz")).status_code == 200:
                break
            await asyncio.sleep(0.05)
        acks = await escalate(channel, batch)
        assert acks[-1].sequence == 500


async def test_tells_systemd_when_it_is_ready_and_when_it_stops(site: Site) -> None:
    """READY after both doors are open, STOPPING before they close."""
    address = str(site.folder / "notify.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        systemd.settimeout(5)
        stop = asyncio.Event()
        serving = asyncio.create_task(
            app.run(
                config.load(site.config_file),
                clock=SystemClock(),
                supervisor=Supervisor(address=address),
                stop=stop,
            )
        )
        assert await asyncio.to_thread(systemd.recv, 100) == b"READY=1"
        stop.set()
        await serving
        assert systemd.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("door", ["grpc_port", "http_port"])
async def test_a_port_that_is_taken_is_named(site: Site, door: str) -> None:
    """It does not start beside another, and says on which address."""
    with (
        socket.create_server(("127.0.0.1", getattr(site, door))),
        pytest.raises(app.StartError, match=str(getattr(site, door))),
    ):
        await app.run(
            config.load(site.config_file),
            clock=SystemClock(),
            supervisor=Ready(asyncio.Event()),
            stop=asyncio.Event(),
        )
    async with running(site):
        pass


async def test_a_renewed_certificate_serves_the_next_connection(orchestrator: Site) -> None:
    """The files are replaced; a client that trusts only the new authority's name is served, no restart."""
    before = await _served_serial(orchestrator)
    key, certificate = orchestrator.authority.leaf("spiffe://nanobot.local/nanobot/orchestrator", server=True)
    (orchestrator.folder / "server.key").write_bytes(key)
    (orchestrator.folder / "server.crt").write_bytes(certificate)
    assert await _served_serial(orchestrator) != before


async def _served_serial(site: Site) -> str:
    async with site.channel(site.authority.agent("spark-1")) as channel:
        call = channel.stream_stream("/nanobot.v1.EscalationService/Escalate")()
        await call.done_writing()
        await call.code()
    done = await asyncio.create_subprocess_exec(
        "openssl", "s_client", "-connect", f"127.0.0.1:{site.grpc_port}", "-showcerts",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    out, _ = await done.communicate()
    return out.decode().partition("-----BEGIN CERTIFICATE-----")[2].partition("-----END")[0]
