"""More entries than one answer holds, put into a ledger without the reports that would make them."""

from __future__ import annotations

from dataclasses import replace

from escalation.model import (
    ActionKind,
    CaseId,
    IncidentId,
    RecommendationId,
    Severity,
    Subject,
    SubjectKind,
)
from escalation.server.desk import Entry
from escalation.server.storage.store import Ledger


def crowd(ledger: Ledger, beside: Entry, *, count: int) -> None:
    """Put `count` newer notes beside an entry; what they advise only reads."""
    advice = beside.recommendation.advice
    looking = replace(advice, action=replace(advice.action, kind=ActionKind.INSPECT))
    for number in range(count):
        incident = replace(
            beside.incident,
            id=IncidentId(f"c0000000-{number:05d}"),
            case_id=CaseId(f"crowd-{number}"),
            subject=Subject(SubjectKind.UNIT, f"unit-{number}.service"),
            severity=Severity.NOTE,
            last_seen_ns=beside.incident.last_seen_ns + 1,
        )
        ledger.put_incident(incident)
        recommendation = replace(
            beside.recommendation,
            id=RecommendationId(f"e0000000-{number:05d}"),
            incident_id=incident.id,
            advice=looking,
            created_ns=beside.recommendation.created_ns + 1,
        )
        ledger.put_recommendation(recommendation, incident)
