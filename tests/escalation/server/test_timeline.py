"""The timeline of an incident: what is noted, in which order, and how it stays small."""

from __future__ import annotations

import pytest

from escalation.model import CasePhase, IncidentId, OomEvidence, OomScope, Severity
from escalation.server.desk import NotFound
from escalation.server.incident import timeline
from escalation.server.incident.incident_desk import StoredIncidents
from escalation.server.incident.timeline import MOMENT, Moment, MomentKind
from escalation.server.storage import rows
from escalation.server.testing import FakeDesk, MemoryLedger, case_report, heartbeat
from escalation.wording.codes import action_headline
from tests.escalation.server.databases import Database
from tests.escalation.server.web_house import built

K = MomentKind
_INCIDENT = IncidentId("incident-1")


def _moment(kind: MomentKind, words: str = "words") -> Moment:
    return Moment(1, kind, words, "agent:spark-1")


async def _kinds(desk: FakeDesk, incident_id: str) -> list[MomentKind]:
    account = await StoredIncidents(store=desk.store, clock=desk.clock).account(incident_id)
    return [each.kind for each in account.moments]


async def test_a_timeline_tells_an_incident_from_its_opening_to_its_proof() -> None:
    """Opening, proposal, decision, execution, clearing and verification stand there in their order."""
    desk = FakeDesk()
    entry = await desk.opened()
    desk.clock.advance(1)
    await desk.approve(
        entry.recommendation.id, person="ada", reason="go on", digest=entry.recommendation.digest
    )
    await desk.done(entry.recommendation.id, person="ada")
    await desk.cleared()
    desk.clock.advance(86_400)
    await desk.report(heartbeat())
    await desk.advance(1)
    moments = (await StoredIncidents(store=desk.store, clock=desk.clock).account(entry.incident.id)).moments
    assert [each.kind for each in moments] == [
        K.OPENED,
        K.PROPOSED,
        K.APPROVED,
        K.DONE,
        K.CLEARED,
        K.VERIFIED,
    ]
    assert [each.actor for each in moments[2:4]] == ["ada", "ada"]
    action = action_headline(entry.recommendation.advice.action.kind)
    assert moments[2].words == f"approved: {action} (go on)"
    assert moments[2].about == entry.recommendation.id
    assert [each.at_ns for each in moments] == sorted(each.at_ns for each in moments)


async def test_only_updates_that_matter_are_noted() -> None:
    """A repeat adds nothing; another severity and a new kind of evidence each add one moment."""
    desk = FakeDesk()
    entry = await desk.opened(severity=Severity.HIGH)
    before = await _kinds(desk, entry.incident.id)
    await desk.report(case_report(CasePhase.UPDATED, severity=Severity.HIGH, count=9))
    assert await _kinds(desk, entry.incident.id) == before
    oom = OomEvidence(OomScope.HOST, "vllm", 7, None, None, None)
    body = case_report(CasePhase.UPDATED, severity=Severity.CRITICAL, count=10)
    evidence = (*body.evidence, oom)
    await desk.report(case_report(CasePhase.UPDATED, severity=Severity.CRITICAL, evidence=evidence))
    account = await StoredIncidents(store=desk.store, clock=desk.clock).account(entry.incident.id)
    assert [each.words for each in account.moments if each.kind is K.UPDATED] == [
        "now critical, was high",
        "new evidence: oom",
    ]


def test_a_fault_that_goes_to_and_fro_fills_no_timeline() -> None:
    """From FULL moments on repeats are dropped, the timeline says so once, and decisions still come in."""
    ledger = MemoryLedger()
    for _ in range(timeline.FULL + 50):
        timeline.add(ledger, _INCIDENT, _moment(K.UPDATED))
    timeline.add(ledger, _INCIDENT, _moment(K.APPROVED))
    timeline.add(ledger, _INCIDENT, _moment(K.PROPOSED))
    timeline.add(ledger, _INCIDENT, _moment(K.CLEARED))
    kinds = [each.kind for each in timeline.of(ledger, _INCIDENT)]
    assert kinds.count(K.FULL) == 1
    assert kinds[timeline.FULL - 2 :] == [K.UPDATED, K.FULL, K.APPROVED, K.CLEARED]


def test_a_decision_that_fills_the_timeline_is_listed_after_the_word_that_it_is_full() -> None:
    """The moment that says so takes no decision's place."""
    ledger = MemoryLedger()
    for _ in range(timeline.FULL - 1):
        timeline.add(ledger, _INCIDENT, _moment(K.UPDATED))
    timeline.add(ledger, _INCIDENT, _moment(K.REJECTED))
    assert [each.kind for each in timeline.of(ledger, _INCIDENT)][-2:] == [K.FULL, K.REJECTED]


def test_a_moment_of_a_newer_version_is_read() -> None:
    """A kind of moment that this version does not know reads as other, with its words."""
    text = rows.dump(_moment(K.OPENED)).replace('"opened"', '"teleported"')
    assert rows.load_record(text, MOMENT) == _moment(K.OTHER)


async def test_moments_are_kept_by_every_database(database: Database) -> None:
    """What one transaction added another reads, in order, and no incident sees those of another."""
    store = database.open()
    try:
        for number in range(12):
            moment = Moment(number, K.UPDATED, f"word {number}", "agent:spark-1", about="other")
            await store.write(lambda ledger, moment=moment: timeline.add(ledger, _INCIDENT, moment))
        told = await store.read(lambda ledger: timeline.of(ledger, _INCIDENT))
        assert [each.at_ns for each in told] == list(range(12))
        assert told[3] == Moment(3, K.UPDATED, "word 3", "agent:spark-1", about="other")
        assert await store.read(lambda ledger: timeline.of(ledger, IncidentId("incident"))) == ()
    finally:
        await store.close()


async def test_an_incident_is_found_by_its_id_and_by_that_of_its_recommendation() -> None:
    """Both lead to the same account; what is neither is not found."""
    desk = FakeDesk()
    entry = await desk.opened()
    incidents = StoredIncidents(store=desk.store, clock=desk.clock)
    assert await incidents.account(entry.recommendation.id) == await incidents.account(entry.incident.id)
    with pytest.raises(NotFound):
        await incidents.account("nothing")


async def test_the_api_answers_with_an_incident_and_its_timeline() -> None:
    """GET /api/v1/incidents/{id} is the account's view."""
    async with built() as house:
        entry = await house.desk.opened()
        answer = await house.get(f"/api/v1/incidents/{entry.incident.id}")
        assert answer.status_code == 200
        body = answer.json()
        assert body["incident"]["id"] == entry.incident.id
        assert [each["kind"] for each in body["timeline"]] == ["opened", "proposed"]
        assert body["timeline"][1]["about"] == entry.recommendation.id
        assert [each["id"] for each in body["recommendations"]] == [entry.recommendation.id]
        assert body["cause"] is None
        assert body["consequences"] == []
        assert (await house.get("/api/v1/incidents/nothing")).status_code == 404
