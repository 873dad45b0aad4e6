"""Rows of the queue as they stand in the ledger: a recommendation, its incident, and what that explains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from escalation.model import (
    Incident,
    IncidentId,
    Recommendation,
    RecommendationId,
    State,
    Step,
    Weighed,
)
from escalation.server.causality.relations import EXPLAINING
from escalation.server.decision import weighed
from escalation.server.decision.scene import Weigher
from escalation.server.desk import Entry, NotFound
from escalation.server.storage.store import Ledger

CONSEQUENCES_AT_MOST: Final = 2000
"""How many open incidents that another one explains are shown below it: the newest."""


Consequences = Mapping[IncidentId, tuple[Incident, ...]]
"""An open incident -> the open incidents that it explains."""


def entry(ledger: Ledger, entry_id: str, *, weigher: Weigher | None = None) -> Entry:
    """Return the entry with this recommendation id, or the newest of this incident id.

    An incident that was explained from its beginning has none of its own: then it is the one of its cause.
    """
    recommendation = ledger.recommendation(RecommendationId(entry_id))
    if recommendation is None:
        of_incident = ledger.recommendations(IncidentId(entry_id))
        incident = ledger.incident(IncidentId(entry_id))
        if not of_incident and incident is not None and incident.explained_by is not None:
            of_incident = ledger.recommendations(incident.explained_by)
        if not of_incident:
            raise NotFound("there is no queue entry or incident with this id")
        recommendation = of_incident[-1]
    found = entry_of(ledger, recommendation, weigher=weigher)
    if weigher is None or recommendation.state is not State.PROPOSED:
        return found
    return replace(found, at_proposal=weighed.at_proposal(ledger, recommendation.id))


def entry_of(
    ledger: Ledger,
    recommendation: Recommendation,
    *,
    consequences: Consequences | None = None,
    weigher: Weigher | None = None,
) -> Entry:
    """Return the queue's row for `recommendation`; `consequences` spares looking them up for each row.

    What has to hold, the price and the history are in it where a `weigher` finds them out.
    """
    incident = incident_of(ledger, recommendation)
    explains: tuple[Incident, ...] = ()
    if incident.open and incident.fault_class in EXPLAINING:
        known = consequences_in(ledger) if consequences is None else consequences
        explains = known.get(incident.id, ())
    if weigher is None:
        cured, tried = ledger.outcomes(incident.fault_class, recommendation.advice.action.kind)
        return Entry(recommendation, incident, cured, tried, explains)
    history = weigher.history(recommendation, incident)
    verdict = weigher.verdict(incident)
    kept = _weighed(ledger, recommendation)
    last = kept[-1].checks if kept else ()
    live = recommendation.state in {State.PROPOSED, State.APPROVED}
    return Entry(
        recommendation,
        incident,
        history.fleet.cured,
        history.fleet.tried,
        explains,
        preconditions=weigher.checks(recommendation, incident) if live else last,
        price=weigher.price(recommendation, incident) if live else None,
        history=history,
        weighed=kept,
        verdict=verdict,
    )


def _weighed(ledger: Ledger, recommendation: Recommendation) -> tuple[Weighed, ...]:
    """Return what was found when it was decided, without what an approval found that is void by now."""
    if not recommendation.approvers:
        return ()
    kept = weighed.of(ledger, recommendation.id)
    return tuple(each for each in kept if each.step is Step.DONE or each.person in recommendation.approvers)


def consequences_in(ledger: Ledger) -> Consequences:
    """Return which open incidents explain which others, those of one host side by side."""
    found: dict[IncidentId, list[Incident]] = {}
    explained = ledger.explained(limit=CONSEQUENCES_AT_MOST)
    for each in sorted(explained, key=lambda each: (each.agent_id, each.first_seen_ns, each.id)):
        if each.explained_by is not None:
            found.setdefault(each.explained_by, []).append(each)
    return {incident_id: tuple(explained) for incident_id, explained in found.items()}


def incident_of(ledger: Ledger, recommendation: Recommendation) -> Incident:
    incident = ledger.incident(recommendation.incident_id)
    if incident is None:
        raise NotFound(f"recommendation {recommendation.id} has lost its incident")
    return incident
