"""Ten thousand reports of fifty faults, through gRPC into a real orchestrator: fifty rows, few notices."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from escalation.model import CasePhase, FaultClass, Subject, SubjectKind
from escalation.server import audit
from escalation.server.attention.silences import LONGEST_S
from escalation.server.desk import AuditEntry
from escalation.server.notify.notices import Notice
from escalation.server.storage.store import Ledger
from escalation.server.testing import START_NS, case_report, heartbeat
from escalation.wire import codec
from tests.escalation.server.conftest import running
from tests.escalation.server.databases import Database
from tests.escalation.server.site import TOKEN, Site, escalate, free_port, wired

FAULTS = 50
REPORTS = 10_000
HOSTS = ("spark-1", "spark-2")
_AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


def _storm(host: str) -> list[bytes]:
    """Half of the storm: each of 25 faults opens, is seen again and again, clears and comes back, often."""
    mine = FAULTS // len(HOSTS)
    bodies: list[Any] = [heartbeat()]
    for number in range(1, REPORTS // len(HOSTS)):
        fault, turn = number % mine, number // mine
        flaps, step = divmod(turn, 8)
        phase = CasePhase.OPENED if step == 0 else CasePhase.CLEARED if step == 7 else CasePhase.UPDATED
        if step == 7 and number + mine >= REPORTS // len(HOSTS):
            phase = CasePhase.UPDATED  # in the end all of them stand
        bodies.append(
            case_report(
                phase,
                case_id=f"case-{fault}-{flaps}",
                fault_class=FaultClass.UNIT_RESTART_LOOP,
                subject=Subject(SubjectKind.UNIT, f"model-{fault}.service"),
                count=step + 1,
                last_seen_ns=START_NS + number,
            )
        )
    return [wired(body, number, host=host) for number, body in enumerate(bodies, start=1)]


def _settings(site: Site, database: Database) -> None:
    """Keep it in `database`, and tell a webhook that nobody listens at."""
    secret = site.folder / "hook.secret"
    secret.write_text("a secret of a test\n")
    secret.chmod(0o600)
    text = site.config_file.read_text()
    if database.shared:
        before, _, after = text.partition("[store]\n")
        text = f'{before}[store]\npostgres = "{database.where}"\n{after.partition(chr(10))[2]}'
    site.config_file.write_text(
        text
        + f"""
[notify]
url = "https://desk.example.net"
[[notify.webhook]]
name = "pager"
url = "http://127.0.0.1:{free_port()}/"
secret_file = "{secret}"
[[notify.route]]
receivers = ["pager"]
severity = "note"
"""
    )


def _told(ledger: Ledger) -> list[Notice]:
    incidents = ledger.incidents(limit=1000)
    return [notice for each in incidents for notice in ledger.notices.of(each.id)]


@pytest.mark.timeout(120)
async def test_ten_thousand_reports_of_fifty_faults_are_fifty_rows(site: Site, database: Database) -> None:
    """Whatever comes and goes in it; each fault is told four times at most, and the chain is whole."""
    _settings(site, database)
    half = REPORTS // len(HOSTS)

    async def send(host: str) -> int:
        storm = _storm(host)
        batches = [codec.join(storm[first : first + 250]) for first in range(0, half, 250)]
        async with site.channel(site.authority.agent(host)) as channel:
            return (await escalate(channel, *batches))[-1].sequence

    async with running(site):
        assert await asyncio.gather(*map(send, HOSTS)) == [half, half]
        async with httpx2.AsyncClient(base_url=site.url, headers=_AUTHORIZED) as people:
            queue = (await people.get("/api/v1/queue")).json()
            incidents = (await people.get("/api/v1/incidents?limit=1000")).json()
            assert (queue["total"], incidents["total"]) == (FAULTS, FAULTS)
            assert all(each["returns"] >= 20 for each in queue["entries"])
            assert sum(each["count"] for each in queue["entries"]) >= REPORTS // 2
            body = {"matchers": ["host=spark-1"], "comment": "a storm", "for_s": LONGEST_S}
            silence = await people.post("/api/v1/silences", json=body)
            assert silence.json()["incidents"] == FAULTS // len(HOSTS)
            after = (await people.get("/api/v1/queue")).json()
            assert (after["total"], after["silenced"]) == (FAULTS // 2, FAULTS // 2)
    store = Database(site.database).open() if not database.shared else database.open()
    try:
        told = await store.read(_told)
        chain = await store.read(_chain)
    finally:
        await store.close()
    assert len({each.incident_id for each in told}) == FAULTS
    waiting = [each for each in told if each.state.value != "folded"]
    assert len(waiting) <= 4 * FAULTS
    assert audit.verify(chain) is None
    assert sum(each.verb == "incident.opened" for each in chain) == FAULTS


def _chain(ledger: Ledger) -> list[AuditEntry]:
    found: list[AuditEntry] = []
    while page := ledger.audit(after=len(found), limit=1000):
        found += page
    return found


def test_a_storm_has_the_reports_and_the_faults_that_it_says() -> None:
    """Two hosts, five thousand each, twenty-five faults each, and every fault stands in the end."""
    for host in HOSTS:
        reports = [codec.decode(each) for each in _storm(host)]
        assert len(reports) == REPORTS // 2
        cases = [each.body for each in reports[1:]]
        assert len({each.subject for each in cases}) == FAULTS // 2  # type: ignore[union-attr]
        last = {each.subject: each.phase for each in cases}  # type: ignore[union-attr]
        assert CasePhase.CLEARED not in last.values()
