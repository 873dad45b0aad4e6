"""What a second has to read: what time alone may change, and whom an entry concerns, from both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from escalation.model import (
    AgentId,
    BootId,
    CasePhase,
    Recommendation,
    Report,
    Severity,
    State,
    Subject,
    SubjectKind,
)
from escalation.server.attention.silences import Silence, SilenceId, parse
from escalation.server.decision.approvals import Policy, due_of
from escalation.server.service import Service
from escalation.server.storage.store import Delivery, Ledger, Sketch
from escalation.server.storage.stores import OpenStore
from escalation.server.testing import START_NS, ManualClock, case_report
from tests.escalation.server.databases import Database

_BOOT = BootId("boot-1")
_HOUR = 3600 * 10**9
_MOMENTS = tuple(
    START_NS + offset * _HOUR + more for offset in (-9, 0, 1, 2, 4, 5, 9) for more in (-61 * 10**9, -1, 0, 1)
)


@pytest.fixture
async def store(database: Database) -> AsyncIterator[OpenStore]:
    """An empty store."""
    opened = database.open()
    yield opened
    await opened.close()


async def _filled(store: OpenStore) -> Service:
    """Bring one entry each to proposed, approved, done and rejected, an hour after one another."""
    clock = ManualClock()
    desk = Service(store=store, clock=clock, policy=Policy())
    for number in range(4):
        host = AgentId(f"spark-{number}")
        body = case_report(
            case_id=f"case-{number}",
            severity=list(Severity)[number],
            subject=Subject(SubjectKind.UNIT, f"unit-{number}"),
        )
        report = Report(agent_id=host, boot_id=_BOOT, sequence=1, created_ns=clock.wall_ns(), body=body)
        await desk.receive(Delivery(host, _BOOT, ((1, clock.wall_ns(), b""),), (report,)))
        (entry,) = [each for each in await desk.queue(None) if each.incident.agent_id == host]
        ident, digest = entry.recommendation.id, entry.recommendation.digest
        if number in {1, 2}:
            await desk.approve(ident, person="ada", reason="why", digest=digest)
        if number == 2:
            await desk.done(ident, person="ada")
        if number == 3:
            await desk.reject(ident, person="ada", reason="no")
        clock.advance(1800)
    return desk


def _all(ledger: Ledger) -> list[Recommendation]:
    return list(ledger.in_states(frozenset(State), limit=None))


async def test_what_may_be_due_is_read_by_its_moment(store: OpenStore) -> None:
    """At any moment, also with a clock set back by hours, exactly what time alone may change is read."""
    await _filled(store)
    everything = await store.read(_all)
    assert {each.state for each in everything} == {
        State.PROPOSED,
        State.APPROVED,
        State.DONE,
        State.REJECTED,
    }
    sizes = set()
    for now_ns in _MOMENTS:
        found = await store.read(lambda ledger, at=now_ns: ledger.due(now_ns=at))
        dues = [(each, due_of(each)) for each in everything]
        assert list(found) == [each for each, due in dues if due is not None and due.is_over(now_ns)]
        sizes.add(len(found))
    assert sizes == {1, 2, 3}


async def test_whom_an_entry_concerns_is_read_without_its_evidence(store: OpenStore) -> None:
    """A sketch says of an incident what the incident says, and a silence covers the one as the other."""
    await _filled(store)

    def both(ledger: Ledger) -> list[tuple[Sketch, object]]:
        return [
            (each, ledger.incident(each.incident_id))
            for each in ledger.sketches(frozenset({State.PROPOSED, State.DONE}))
        ]

    found = await store.read(both)
    assert len(found) == 2
    silence = Silence(
        id=SilenceId("s"),
        matchers=(parse("subject_name~unit-?"), parse("host=spark-2")),
        author="ada",
        comment="",
        created_ns=0,
        starts_ns=0,
        ends_ns=1,
    )
    assert [silence.covers(sketch) for sketch, _ in found] == [False, True]
    for sketch, incident in found:
        assert incident is not None
        assert all(
            getattr(sketch, name) == getattr(incident, name)
            for name in ("agent_id", "fault_class", "subject", "severity")
        )


async def test_a_case_that_clears_is_due_no_more(store: OpenStore) -> None:
    """What is withdrawn is never read for its deadline again."""
    desk = await _filled(store)
    host = AgentId("spark-0")
    body = case_report(CasePhase.CLEARED, case_id="case-0", subject=Subject(SubjectKind.UNIT, "unit-0"))
    report = Report(agent_id=host, boot_id=_BOOT, sequence=2, created_ns=START_NS, body=body)
    late_ns = START_NS + 9 * _HOUR
    before = await store.read(lambda ledger: ledger.due(now_ns=late_ns))
    await desk.receive(Delivery(host, _BOOT, ((2, START_NS, b""),), (report,)))
    after = await store.read(lambda ledger: ledger.due(now_ns=late_ns))
    assert len(before) == len(after) + 1
