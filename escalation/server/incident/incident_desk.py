"""What people may ask about one incident and about the topology: what it is, where it is, what happened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, TypeVar

from escalation.model import AgentId, Incident, IncidentId, RecommendationId
from escalation.server import queue_rows
from escalation.server.causality import observed, topology_graph
from escalation.server.causality.observed import HELD, REACHED, SERVED
from escalation.server.causality.reach import Reach
from escalation.server.causality.topology_graph import Graph, Standing
from escalation.server.causality.topology_suggestions import Suggestion, suggestions
from escalation.server.clock import Clock
from escalation.server.decision.approvals import Policy
from escalation.server.decision.scene import Weigher
from escalation.server.desk import Entry, NotFound, Unavailable
from escalation.server.incident import host_history, timeline
from escalation.server.incident.host_history import Near
from escalation.server.incident.timeline import Moment
from escalation.server.storage.store import Ledger, Store, StoreError

T = TypeVar("T")

_POLICY: Final = Policy()

TOGETHER_S: Final = 300.0
"""How far apart the first sights of incidents may lie that are shown as having happened together."""

_TOGETHER_AT_MOST: Final = 10
_ENTRIES_AT_MOST: Final = 100
_INCIDENTS_AT_MOST: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """All of one incident: its cause, its consequences, and what was recommended and noted, oldest first.

    Of a fault that came and went for days the newest hundred recommendations are there.

    `path` are the nodes of the topology that need it or that it needs, each with whether the incident is
    about it; `changes` what was changed around its beginning on its host, on that of its cause and on those
    of its path, nearest first; `together` incidents that began about then and are next to it, and have no
    cause in common that is known.
    """

    incident: Incident
    cause: Incident | None
    consequences: tuple[Incident, ...]
    entries: tuple[Entry, ...]
    moments: tuple[Moment, ...]
    path: tuple[tuple[Standing, bool], ...]
    changes: tuple[Near, ...]
    together: tuple[Incident, ...]


class IncidentDesk(Protocol):
    """What can be asked. All methods raise DeskError kinds only."""

    async def account(self, incident_id: str) -> Account:
        """Return all of the incident with this id, or of the one that this recommendation is of."""

    async def topology(self) -> Graph:
        """Return what needs what, as it is declared and was seen."""

    async def suggestions(self) -> Sequence[Suggestion]:
        """Return what was seen and is not declared."""


class StoredIncidents:
    """The real desk: everything is read in one transaction."""

    def __init__(self, *, store: Store, clock: Clock, policy: Policy | None = None) -> None:
        """Answer from `store`, of which `clock` says what is too old; `policy` weighs what is recommended."""
        self._store = store
        self._clock = clock
        self._policy = policy or _POLICY

    async def account(self, incident_id: str) -> Account:
        """Return all of the incident with this id, or of the one that this recommendation is of."""
        return await self._read(
            partial(account, incident_id=incident_id, policy=self._policy, now_ns=self._clock.wall_ns())
        )

    async def topology(self) -> Graph:
        """Return what needs what, as it is declared and was seen."""
        return await self._read(partial(graph, now_ns=self._clock.wall_ns()))

    async def suggestions(self) -> Sequence[Suggestion]:
        """Return what was seen and is not declared."""
        return await self._read(partial(suggested, now_ns=self._clock.wall_ns()))

    async def _read(self, work: Callable[[Ledger], T]) -> T:
        try:
            return await self._store.read(work)
        except StoreError as error:
            raise Unavailable(f"nothing can be read now: {error}") from error


def account(ledger: Ledger, incident_id: str, *, now_ns: int, policy: Policy = _POLICY) -> Account:
    """Return all of an incident, found by its own id or by that of one of its recommendations."""
    incident = _found(ledger, incident_id)
    cause = None if incident.explained_by is None else ledger.incident(incident.explained_by)
    consequences: Sequence[Incident] = ()
    if incident.open:
        consequences = queue_rows.consequences_in(ledger).get(incident.id, ())
    path = topology_graph.path(graph(ledger, now_ns=now_ns), incident)
    hosts = [incident.agent_id, *([cause.agent_id] if cause is not None else [])]
    hosts += sorted(_hosts_on(path))
    weigher = Weigher(ledger, policy=policy, now_ns=now_ns)
    return Account(
        incident=incident,
        cause=cause,
        consequences=tuple(consequences),
        entries=tuple(
            queue_rows.entry_of(ledger, each, weigher=weigher)
            for each in ledger.recommendations(incident.id)[-_ENTRIES_AT_MOST:]
        ),
        moments=timeline.of(ledger, incident.id),
        path=path,
        changes=host_history.near(ledger, hosts, seen_ns=incident.first_seen_ns),
        together=_together(ledger, incident, frozenset(hosts)),
    )


def graph(ledger: Ledger, *, now_ns: int) -> Graph:
    """Return the topology with what is open now."""
    reach = Reach(ledger, now_ns=now_ns)
    return topology_graph.graph(
        reach.declared,
        served=reach.served,
        held=observed.of(ledger, HELD, now_ns=now_ns),
        heard=[host.agent_id for host in ledger.hosts()],
        incidents=ledger.incidents(limit=_INCIDENTS_AT_MOST),
    )


def suggested(ledger: Ledger, *, now_ns: int) -> tuple[Suggestion, ...]:
    """Return what was seen and is not declared."""
    return suggestions(
        Reach(ledger, now_ns=now_ns).declared,
        heard=[host.agent_id for host in ledger.hosts()],
        served=observed.of(ledger, SERVED, now_ns=now_ns),
        reached=observed.of(ledger, REACHED, now_ns=now_ns),
    )


def _hosts_on(path: Sequence[tuple[Standing, bool]]) -> frozenset[AgentId]:
    return topology_graph.hosts_of(standing for standing, _ in path)


def _together(ledger: Ledger, incident: Incident, hosts: frozenset[AgentId]) -> tuple[Incident, ...]:
    """Return what began about then on `hosts` and has another cause, or none that is known."""
    root = incident.explained_by or incident.id

    def apart(each: Incident) -> int:
        return abs(each.first_seen_ns - incident.first_seen_ns)

    found = [
        each
        for each in ledger.incidents(limit=_INCIDENTS_AT_MOST)
        if each.agent_id in hosts
        and (each.explained_by or each.id) != root
        and each.drill is incident.drill
        and apart(each) <= TOGETHER_S * 1e9
    ]
    return tuple(sorted(found, key=lambda each: (apart(each), each.id))[:_TOGETHER_AT_MOST])


def _found(ledger: Ledger, incident_id: str) -> Incident:
    incident = ledger.incident(IncidentId(incident_id))
    if incident is None:
        recommendation = ledger.recommendation(RecommendationId(incident_id))
        incident = None if recommendation is None else ledger.incident(recommendation.incident_id)
    if incident is None:
        raise NotFound("there is no incident with this id")
    return incident
