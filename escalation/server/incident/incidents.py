"""Reports of cases become incidents: one open incident per host, fault class and subject, and one drill.

Reports may come late, twice or out of order, so folding asks what is known and never assumes a sequence:

- a fault that is seen opens an incident, or folds into the open one with the same key, whatever the phase
  says;
- only a CLEARED of the case that an incident follows closes it; another case of the same key that went quiet
  (an agent that lost its notes) does not hold it open and does not close it;
- a fault seen soon after its incident had cleared is the same incident, which has returned: what comes and
  goes is one row and not hundreds. Later it is a new one;
- a fault seen after its own case had cleared is nothing when that report is older than the clearing;
- a CLEARED for a case that nobody reported is recorded as an incident that is over;
- a drill and a real fault of the same class and subject are two incidents. What began as a drill is real as
  soon as one report of its case says so; what is real never becomes a drill.

An incident's id is made from the identity of the report that opened it: replaying the same reports makes the
same ids.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass, replace
from typing import Any, Final

from escalation.model import (
    AgentId,
    BootId,
    CaseId,
    CasePhase,
    CaseReport,
    FaultClass,
    Incident,
    IncidentId,
    Report,
    Sightings,
    Subject,
)
from escalation.server.clock import is_over
from escalation.server.storage.records import Kind

COUNT_MAX: Final = 2**63 - 1
"""Where counts stop: the largest number that every database and reader of JSON here can hold."""

RETURNS_WITHIN_S: Final = 900.0
"""How soon after its clearing a fault is the same one again."""

_INCIDENTS: Final = uuid.UUID("f6a0c8a2-30f4-5c6e-8f0e-0f4f2f3f9d55")


@dataclass(frozen=True, slots=True)
class Key:
    """What makes two cases the same incident while it is open."""

    agent_id: AgentId
    fault_class: FaultClass
    fault_number: int | None
    subject: Subject
    drill: bool = False


@dataclass(frozen=True, slots=True)
class Clearing:
    """The report that cleared a case, so that older ones can be told from a case that came back."""

    boot_id: BootId
    sequence: int
    created_ns: int


@dataclass(frozen=True, slots=True)
class Case:
    """What is known of one case of a host: its incident, the count it reported last, and how it ended."""

    agent_id: AgentId
    case_id: CaseId
    incident_id: IncidentId
    count: int
    clearing: Clearing | None


@dataclass(frozen=True, slots=True)
class Folding:
    """What one report made of what was known; `opened` and `closed` name the moments that matter."""

    incident: Incident
    case: Case
    opened: bool
    closed: bool


@dataclass(frozen=True, slots=True)
class Cleared:
    """Which incident of a key cleared last, and when."""

    incident_id: IncidentId
    at_ns: int


CLEARED: Final = Kind("cleared", Cleared)
"""Owned by the host, by the name of the key."""


def name_of(key: Key) -> str:
    """Return a key as the name of its record."""
    told = (key.fault_class, key.fault_number, key.subject.kind, key.subject.name, key.drill)
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def key_of(incident: Incident) -> Key:
    """Return the key under which reports fold into `incident` while it is open."""
    return Key(
        incident.agent_id, incident.fault_class, incident.fault_number, incident.subject, incident.drill
    )


def key_of_case(agent_id: AgentId, case: CaseReport) -> Key:
    """Return the key of the incident that `case` belongs to."""
    return Key(agent_id, case.fault_class, case.fault_number, case.subject, case.drill)


def fold(
    report: Report,
    body: CaseReport,
    *,
    case: Case | None,
    incident: Incident | None,
    standing: Incident | None,
    recent: Incident | None = None,
    now_ns: int,
) -> Folding | None:
    """Fold `body` of `report`; None when it tells nothing new.

    `case` is what is known of its case, `incident` that case's incident, `standing` the open incident of its
    key, `recent` the one of its key that cleared last. `now_ns` is when it was received: incidents
    are closed by the orchestrator's clock, because waiting times are measured from there.
    """
    if case is not None and case.clearing is not None and _is_older(report, case.clearing):
        return None
    clears = body.phase is CasePhase.CLEARED
    clearing = Clearing(report.boot_id, report.sequence, report.created_ns) if clears else None
    if case is not None and case.clearing is not None:
        if clears:
            return None
        case, incident = None, None  # the same case id, seen again after it had cleared: another incident
    if incident is not None and incident.open:
        turned_real = incident.drill and not body.drill and not clears and standing is None
        known = replace(incident, drill=False) if turned_real else incident
        return _fold_into(
            known, case, report, body, clearing=clearing, now_ns=now_ns, turned_real=turned_real
        )
    if clears and case is not None and incident is not None:
        # Its incident was closed by the case that took it over.
        return Folding(incident, replace(case, clearing=clearing), opened=False, closed=False)
    if standing is None and not clears and recent is not None and has_just_cleared(recent, now_ns=now_ns):
        return _return(recent, case, report, body)
    if clears or standing is None:
        return _open(report, body, clearing, now_ns)
    return _fold_into(standing, None, report, body, clearing=clearing, now_ns=now_ns)


def has_just_cleared(incident: Incident, *, now_ns: int) -> bool:
    """Return whether `incident` cleared so lately that the same fault is the same incident."""
    if incident.open or incident.cleared_ns is None:
        return False
    ends_ns = incident.cleared_ns + int(RETURNS_WITHIN_S * 1e9)
    return not is_over(started_ns=incident.cleared_ns, ends_ns=ends_ns, now_ns=now_ns)


def _return(incident: Incident, case: Case | None, report: Report, body: CaseReport) -> Folding:
    """Open it again; of a case that it knew, and that another one closed, only what is new counts."""
    counted = case.count if case is not None and case.incident_id == incident.id else 0
    fresh = max(0, body.count - counted)
    back = replace(
        incident,
        open=True,
        cleared_ns=None,
        returns=min(COUNT_MAX, incident.returns + 1),
        case_id=body.case_id,
        target=body.target,
        severity=body.severity,
        incarnation=body.incarnation,
        last_seen_ns=max(incident.last_seen_ns, body.last_seen_ns),
        count=min(COUNT_MAX, incident.count + fresh),
        sightings=_sighted(incident.sightings, body, fresh),
        reasons=body.reasons,
        evidence=body.evidence,
        opened_for=body.reasons[0].code if body.reasons else None,
    )
    known = Case(report.agent_id, body.case_id, incident.id, max(counted, body.count), None)
    return Folding(back, known, opened=True, closed=False)


def _open(report: Report, body: CaseReport, clearing: Clearing | None, now_ns: int) -> Folding:
    name = f"{report.agent_id} {report.boot_id} {report.sequence}"
    incident = Incident(
        id=IncidentId(str(uuid.uuid5(_INCIDENTS, name))),
        agent_id=report.agent_id,
        fault_class=body.fault_class,
        fault_number=body.fault_number,
        subject=body.subject,
        target=body.target,
        severity=body.severity,
        incarnation=body.incarnation,
        case_id=body.case_id,
        open=clearing is None,
        first_seen_ns=body.first_seen_ns,
        last_seen_ns=body.last_seen_ns,
        cleared_ns=None if clearing is None else now_ns,
        count=body.count,
        reasons=body.reasons,
        evidence=body.evidence,
        drill=body.drill,
        opened_for=body.reasons[0].code if body.reasons else None,
        sightings=Sightings(body.first_seen_ns).with_more(body.count, at_ns=body.last_seen_ns),
    )
    case = Case(report.agent_id, body.case_id, incident.id, body.count, clearing)
    return Folding(incident, case, opened=clearing is None, closed=False)


def _fold_into(
    incident: Incident,
    case: Case | None,
    report: Report,
    body: CaseReport,
    *,
    clearing: Clearing | None,
    now_ns: int,
    turned_real: bool = False,
) -> Folding | None:
    counted = case.count if case is not None else 0
    fresh = max(0, body.count - counted)
    changed: dict[str, Any] = {}
    closed = clearing is not None and incident.case_id == body.case_id
    if closed:
        changed = {"open": False, "cleared_ns": now_ns, "reasons": body.reasons or incident.reasons}
    elif clearing is None and body.last_seen_ns >= incident.last_seen_ns:
        changed = {
            "severity": body.severity,
            "incarnation": body.incarnation,
            "target": body.target,
            "case_id": body.case_id,
            "reasons": body.reasons or incident.reasons,
            "evidence": body.evidence or incident.evidence,
        }
    folded = replace(
        incident,
        first_seen_ns=min(incident.first_seen_ns, body.first_seen_ns),
        last_seen_ns=max(incident.last_seen_ns, body.last_seen_ns),
        count=min(COUNT_MAX, incident.count + fresh),
        sightings=_sighted(incident.sightings, body, fresh),
        **changed,
    )
    known = Case(report.agent_id, body.case_id, incident.id, max(counted, body.count), clearing)
    if folded == incident and known == case and not turned_real:
        return None
    return Folding(folded, known, opened=False, closed=closed)


def _sighted(known: Sightings, body: CaseReport, fresh: int) -> Sightings:
    """Return the sightings with what a report adds; an older version's incident has none until now."""
    begun = known if known.counts else Sightings(body.last_seen_ns)
    return begun.with_more(fresh, at_ns=body.last_seen_ns) if fresh else known


def _is_older(report: Report, clearing: Clearing) -> bool:
    if report.boot_id == clearing.boot_id:
        return report.sequence <= clearing.sequence
    return report.created_ns <= clearing.created_ns
