"""Orchestrators in processes of their own on one PostgreSQL database, killed, and the database too."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psycopg
import pytest

from dev import postgres
from escalation.model import AgentId, Loss, LossKind
from escalation.outbox import Outbox, Stored
from escalation.server import audit
from escalation.server.desk import AuditEntry
from escalation.server.testing import case_report
from escalation.uplink import Uplink, UplinkLimits
from escalation.wire.credentials import Files
from tests.escalation.server.databases import Database
from tests.escalation.server.own_process import LAST, deliver, serving
from tests.escalation.server.site import TOKEN, Authority, Site, written

pytestmark = pytest.mark.postgres

_FED = 60
_READS_AGAIN_WITHIN_S = 5.0


def _chain(info: str) -> list[AuditEntry]:
    with psycopg.connect(info) as connection:
        return [AuditEntry(*row) for row in connection.execute("SELECT * FROM audit ORDER BY number")]


@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize("point", ["server.before_commit", "server.after_commit", "server.after_ack"])
async def test_what_one_did_not_acknowledge_the_other_takes(
    authority: Authority, shared: Database, tmp_path: Path, point: str, times: int
) -> None:
    """Killed at a named place while its neighbour runs: each report is there once, the incidents are two."""
    assert isinstance(shared.where, str)
    sites = [written(authority, tmp_path / name, store=f'postgres = "{shared.where}"') for name in ("a", "b")]
    async with serving(sites[0], f"{point}:{times}") as doomed, serving(sites[1]):
        acknowledged = await deliver(sites[0], 0)
        assert await asyncio.wait_for(doomed.wait(), 10) == -signal.SIGKILL
        assert acknowledged < LAST
        assert await deliver(sites[1], acknowledged) == LAST
    with psycopg.connect(shared.where) as connection:
        sequences = connection.execute("SELECT sequence FROM reports ORDER BY sequence").fetchall()
        assert [row[0] for row in sequences] == [*range(1, LAST + 1)]
        incidents = connection.execute("SELECT open FROM incidents ORDER BY changed").fetchall()
        assert incidents == [(0,), (1,)]
    chain = _chain(shared.where)
    assert audit.verify(chain) is None
    assert [entry.verb for entry in chain] == [
        "host.first_heard",
        "incident.opened",
        "recommendation.proposed",
        "incident.cleared",
        "recommendation.withdrawn",
        "incident.opened",
        "recommendation.proposed",
    ]


class _Calls:
    """The outbox on the loop's own thread; it counts what was acknowledged."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox

    async def pending(self, *, after_row: int, limit: int, max_bytes: int) -> tuple[Stored, ...]:
        return self.outbox.pending(after_row=after_row, limit=limit, max_bytes=max_bytes)

    async def acknowledge(self, boot_id: object, sequence: int) -> int:
        return self.outbox.acknowledge(boot_id, sequence)  # type: ignore[arg-type]

    async def set_aside(self, row: int, *, now_ns: int) -> None:
        self.outbox.set_aside(row, now_ns=now_ns)


@dataclass(frozen=True, slots=True)
class _Host:
    """One agent's outbox and uplink."""

    agent_id: AgentId
    calls: _Calls
    uplink: Uplink


def _host(name: str, site: Site, folder: Path) -> _Host:
    key, certificate = site.authority.agent(name)
    (folder / f"{name}.key").write_bytes(key)
    (folder / f"{name}.key").chmod(0o600)
    (folder / f"{name}.crt").write_bytes(certificate)
    agent_id = AgentId(name)
    calls = _Calls(
        Outbox.open(
            folder / f"{name}.db", agent_id=agent_id, kernel_boot_id="k", max_bytes=64 << 20, now_ns=1
        )
    )
    uplink = Uplink(
        outbox=calls,
        target=f"localhost:{site.grpc_port}",
        files=Files(site.authority.ca, folder / f"{name}.crt", folder / f"{name}.key"),
        now_ns=time.time_ns,
        dice=random.Random(7),
        pause=asyncio.sleep,
        limits=UplinkLimits(first_pause_s=0.05, longest_pause_s=0.2),
        options=(("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 300)),
    )
    return _Host(agent_id, calls, uplink)


@pytest.fixture
def own_cluster() -> Iterator[postgres.Cluster]:
    """A server that this test may break."""
    with postgres.cluster() as running:
        yield running


async def _until(true: Callable[[], bool], within_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.01)


async def _reads(site: Site) -> int:
    """Return the status of one look at the queue."""
    async with httpx2.AsyncClient(timeout=10, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        return (await client.get(f"{site.url}/api/v1/queue")).status_code


@pytest.mark.timeout(120)
@pytest.mark.parametrize("way", ["immediate", "kill"])
async def test_a_restart_of_the_database_loses_no_acknowledged_report(
    authority: Authority, own_cluster: postgres.Cluster, tmp_path: Path, way: str
) -> None:
    """Agents deliver through two orchestrators while the server falls: all of it is there, once, in order."""
    info = own_cluster.create("desk")
    sites = [written(authority, tmp_path / name, store=f'postgres = "{info}"') for name in ("a", "b")]
    hosts = [_host(f"spark-{number}", sites[number % 2], tmp_path) for number in range(4)]
    sent: dict[str, int] = dict.fromkeys((host.agent_id for host in hosts), 0)

    def feed(host: _Host) -> None:
        first = sent[host.agent_id] + 1
        lost = [
            Loss(LossKind.RING_FULL, "kernel.device_open", n, exact=True) for n in range(first, first + 50)
        ]
        host.calls.outbox.append([*lost, case_report(case_id=f"case-{first}")], now_ns=time.time_ns())
        sent[host.agent_id] += 51
        host.uplink.wake()

    async def feed_all() -> None:
        for _ in range(_FED):
            for host in hosts:
                feed(host)
            await asyncio.sleep(0.02)

    async with serving(sites[0]), serving(sites[1]), asyncio.TaskGroup() as tasks:
        assert [await _reads(site) for site in sites] == [200, 200]
        uplinks = [tasks.create_task(host.uplink.run()) for host in hosts]
        feeding = tasks.create_task(feed_all())
        await _until(lambda: all(host.calls.outbox.depth().reports < sent[host.agent_id] for host in hosts))
        if way == "kill":
            pid = own_cluster.pid()
            own_cluster.kill()
            await _until(lambda: not Path(f"/proc/{pid}").exists() or _is_zombie(pid))
        else:
            await asyncio.to_thread(own_cluster.stop)
        for host in hosts:
            feed(host)
        assert await _reads(sites[0]) == 503
        await _started(own_cluster)
        back_s = time.monotonic()
        while {await _reads(site) for site in sites} != {200}:
            assert time.monotonic() - back_s < _READS_AGAIN_WITHIN_S
        await feeding
        await _until(lambda: not any(host.calls.outbox.depth().reports for host in hosts))
        for each in uplinks:
            each.cancel()
    for host in hosts:
        host.calls.outbox.close()
    with psycopg.connect(info) as connection:
        found = connection.execute(
            "SELECT agent_id, array_agg(sequence ORDER BY sequence) FROM reports "
            "JOIN boots ON boots.number = reports.boot GROUP BY agent_id"
        ).fetchall()
        assert connection.execute("SELECT count(*) FROM incidents").fetchone() == (4,)
    assert {agent: len(sequences) for agent, sequences in found} == sent
    assert all(sequences == [*range(1, len(sequences) + 1)] for _, sequences in found)
    assert audit.verify(_chain(info)) is None


async def _started(cluster: postgres.Cluster) -> None:
    """Start the server again; what the killed one left must be gone first."""
    deadline_s = time.monotonic() + 20
    while True:
        try:
            await asyncio.to_thread(cluster.start)
        except RuntimeError:
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.1)
        else:
            return


def _is_zombie(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True
