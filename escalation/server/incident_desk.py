"""What people may ask about one incident: what it is, what it belongs to, what was done and what happened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from escalation.model import Incident, IncidentId, RecommendationId
from escalation.server import timeline, triage
from escalation.server.desk import Entry, NotFound, Unavailable
from escalation.server.store import Ledger, Store, StoreError
from escalation.server.timeline import Moment

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """All of one incident: its cause, its consequences, and what was recommended and noted, oldest first."""

    incident: Incident
    cause: Incident | None
    consequences: tuple[Incident, ...]
    entries: tuple[Entry, ...]
    moments: tuple[Moment, ...]


class IncidentDesk(Protocol):
    """What can be asked. All methods raise DeskError kinds only."""

    async def account(self, incident_id: str) -> Account:
        """Return all of the incident with this id, or of the one that this recommendation is of."""


class StoredIncidents:
    """The real desk: everything is read in one transaction."""

    def __init__(self, *, store: Store) -> None:
        """Answer from `store`."""
        self._store = store

    async def account(self, incident_id: str) -> Account:
        """Return all of the incident with this id, or of the one that this recommendation is of."""
        return await self._read(partial(account, incident_id=incident_id))

    async def _read(self, work: Callable[[Ledger], T]) -> T:
        try:
            return await self._store.read(work)
        except StoreError as error:
            raise Unavailable(f"nothing can be read now: {error}") from error


def account(ledger: Ledger, incident_id: str) -> Account:
    """Return all of an incident, found by its own id or by that of one of its recommendations."""
    incident = _found(ledger, incident_id)
    cause = None if incident.explained_by is None else ledger.incident(incident.explained_by)
    consequences: Sequence[Incident] = ()
    if incident.open:
        consequences = triage.consequences_in(ledger).get(incident.id, ())
    return Account(
        incident=incident,
        cause=cause,
        consequences=tuple(consequences),
        entries=tuple(triage.entry_of(ledger, each) for each in ledger.recommendations(incident.id)),
        moments=timeline.of(ledger, incident.id),
    )


def _found(ledger: Ledger, incident_id: str) -> Incident:
    incident = ledger.incident(IncidentId(incident_id))
    if incident is None:
        recommendation = ledger.recommendation(RecommendationId(incident_id))
        incident = None if recommendation is None else ledger.incident(recommendation.incident_id)
    if incident is None:
        raise NotFound("there is no incident with this id")
    return incident
