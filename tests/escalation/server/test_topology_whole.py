"""Topology over the whole orchestrator: two hosts at one door, people at the other, a map in its file."""

from __future__ import annotations

import time

import httpx2
import pytest

from escalation.model import (
    AgentId,
    CaseReport,
    FaultClass,
    HostChange,
    HostChangeKind,
    Incident,
    ServerKind,
    Severity,
    Subject,
    SubjectKind,
)
from escalation.server import triage
from escalation.server.causality import observed
from escalation.server.causality.observed import KEPT_S, OF_ONE_HOST, SERVED, Served
from escalation.server.decision.approvals import Policy
from escalation.server.incident import incident_desk
from escalation.server.storage.store import Ledger
from escalation.server.testing import START_NS, MemoryLedger, case_report, heartbeat
from escalation.wire import codec
from tests.escalation.server.conftest import running
from tests.escalation.server.databases import Database
from tests.escalation.server.site import TOKEN, Site, escalate, wired
from tests.escalation.server.test_distant_causes import ERRORS, GPU_LOST, MAP, At, at_engine, mapped, tell
from tests.escalation.server.test_host_causes import Site as Fleet

_AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
_MAP = """
[[topology.host]]
name = "spark-1"
mesh = "spark-1.tail.ts.net"
[[topology.host]]
name = "app-1"
[[topology.route]]
name = "qwen3"
router = "app-1"
model = "Qwen/Qwen3-32B"
[[topology.route.engine]]
host = "spark-1"
unit = "vllm.service"
port = 8000
"""


def _case(at: At, seen_ns: int) -> CaseReport:
    return case_report(
        case_id=f"{at.host} {at.told.fault}",
        seen_ns=seen_ns,
        fault_class=at.told.fault,
        severity=Severity.HIGH,
        subject=at.told.subject,
        target=at.told.target,
        evidence=at.told.evidence,
    )


async def test_a_gpu_on_one_host_explains_a_route_of_another_over_the_wire(site: Site) -> None:
    """Reports of two agents come in by gRPC; a person reads one row, its path and what was changed nearby."""
    site.config_file.write_text(site.config_file.read_text() + _MAP)
    now_ns = time.time_ns()
    whole = Subject(SubjectKind.HOST, "spark-1")
    told = {
        "app-1": [heartbeat(), _case(ERRORS, now_ns)],
        "spark-1": [
            heartbeat(),
            HostChange(HostChangeKind.MANAGER_RELOADED, whole, now_ns - 60 * 10**9),
            _case(GPU_LOST, now_ns),
        ],
    }
    async with running(site), httpx2.AsyncClient(base_url=site.url, headers=_AUTHORIZED) as people:
        for host, bodies in told.items():
            batch = [wired(body, number, host=host) for number, body in enumerate(bodies, start=1)]
            async with site.channel(site.authority.agent(host)) as channel:
                await escalate(channel, codec.join(batch))
        (entry,) = (await people.get("/api/v1/queue")).json()["entries"]
        assert (entry["host"], entry["fault_class"]) == ("spark-1", "gpu.device_fault")
        (consequence,) = entry["explains"]
        account = (await people.get(f"/api/v1/incidents/{consequence['incident_id']}")).json()
        assert account["cause"]["incident_id"] == entry["incident_id"]
        assert [(each["kind"], each["name"]) for each in account["path"] if each["host"] != "app-1"] == [
            ("model", "Qwen/Qwen3-32B"),
            ("server", "vllm.service"),
            ("host", "spark-1"),
            ("mesh", "mesh"),
        ]
        (change,) = account["changes"]
        assert (change["host"], change["kind"], change["after_s"]) == ("spark-1", "manager_reloaded", -60.0)
        kinds = [each["kind"] for each in account["timeline"]]
        assert kinds == ["opened", "proposed", "cause_found", "withdrawn"]
        topology = (await people.get("/api/v1/topology")).json()
        assert topology["suggestions"] == []
        verbs = [each["verb"] for each in (await people.get("/api/v1/audit")).json()["entries"]]
        assert "topology.declared" in verbs
    async with running(site), httpx2.AsyncClient(base_url=site.url, headers=_AUTHORIZED) as people:
        again = [each["verb"] for each in (await people.get("/api/v1/audit")).json()["entries"]]
        assert again.count("topology.declared") == 1
        assert (await people.get(f"/api/v1/incidents/{consequence['incident_id']}")).json() == account


async def test_every_database_judges_by_the_map_and_by_what_was_seen(database: Database) -> None:
    """A cause over hosts is found in a later transaction, and by a store that was opened anew."""

    def first(ledger: Ledger) -> None:
        triage.declare(ledger, MAP, policy=Policy(), now_ns=START_NS)
        tell(Fleet(ledger), at_engine(FaultClass.ROUTE_ERRORS_RISING))

    def second(ledger: Ledger) -> list[Incident]:
        fleet = Fleet(ledger, _sequence=10)
        for each in (GPU_LOST, ERRORS):
            tell(fleet, each)
        return list(ledger.incidents(limit=9))

    store = database.open()
    await store.write(first)
    await store.close()
    store = database.open()
    try:
        found = {(each.agent_id, each.fault_class): each for each in await store.write(second)}
        cause = found[AgentId("spark-1"), FaultClass.GPU_DEVICE_FAULT]
        assert found[AgentId("app-1"), FaultClass.ROUTE_ERRORS_RISING].explained_by == cause.id
        graph = await store.read(lambda ledger: incident_desk.graph(ledger, now_ns=START_NS))
        assert "vllm.service" in {each.node.name for each in graph.nodes if each.seen}
    finally:
        await store.close()


def _served(number: int, *, host: str = "spark-1") -> At:
    return at_engine(FaultClass.ROUTE_ERRORS_RISING, host=host, model=f"model-{number}", port=8000 + number)


def test_what_a_host_shows_is_bounded_and_forgotten() -> None:
    """Of one host the newest servers are kept, those of another are untouched, and a week ends all of it."""
    site = mapped()
    tell(site, _served(0, host="spark-2"))
    for number in range(OF_ONE_HOST + 5):
        site.now_ns += 10**9
        tell(site, _served(number))
    found = observed.of(site.ledger, SERVED, now_ns=site.now_ns)
    assert [each.model for each in found if each.host == "spark-2"] == ["model-0"]
    mine = {each.model for each in found if each.host == "spark-1"}
    assert mine == {f"model-{number}" for number in range(5, OF_ONE_HOST + 5)}
    later_ns = site.now_ns + int(KEPT_S * 1e9) + 1
    assert observed.of(site.ledger, SERVED, now_ns=later_ns) == ()


@pytest.mark.parametrize(("hours", "kept_hours"), [(1, 0), (25, 25)])
def test_what_is_seen_again_is_written_once_a_day(hours: int, kept_hours: int) -> None:
    """A server that is ill all day costs one record a day."""
    ledger = MemoryLedger()
    site = Fleet(ledger)
    tell(site, _served(1))
    (incident,) = ledger.incidents(limit=1)
    later_ns = START_NS + hours * 3600 * 10**9
    assert not observed.learn(ledger, incident, now_ns=later_ns)
    (found,) = observed.of(ledger, SERVED, now_ns=later_ns)
    assert found == Served(
        AgentId("spark-1"),
        Subject(SubjectKind.UNIT, "vllm.service"),
        ServerKind.VLLM,
        8001,
        "model-1",
        START_NS + kept_hours * 3600 * 10**9,
    )
