"""Where an incident leads: the servers of other hosts that what it is about depends on, by map and reports.

A router's route leads to its engines: those of the declared route, else every server elsewhere that was seen
to answer for the same model. A connection leads to the host whose address it is. A rank leads to the other
ranks of its model, which only the map names.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from escalation.model import AgentId, FaultClass, Incident, PeerEvidence, Subject
from escalation.server.causality import observed, topology
from escalation.server.causality.observed import SERVED, Served
from escalation.server.causality.topology import DECLARED, NOTHING, THE_MAP, Address, Declared
from escalation.server.playbook.serving import ENGINES, is_at_router, route_of
from escalation.server.storage.store import Ledger

_OF_RANKS = frozenset(
    {
        FaultClass.DISTRIBUTED_RANK_STALL,
        FaultClass.DISTRIBUTED_WORKER_LOST,
        FaultClass.ROUTE_ENGINE_STALLED,
        FaultClass.ROUTE_FAILS_REAL_TRAFFIC,
    }
)
"""What a rank shows that waits for another."""


class Way(enum.Enum):
    """What leads from one host to another."""

    UPSTREAM = enum.auto()
    PEER = enum.auto()
    MESH = enum.auto()
    RANK = enum.auto()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a way ends: a host, and of it the servers and the port that are meant, where those are known."""

    way: Way
    host: AgentId
    servers: frozenset[Subject] = frozenset()
    port: int = 0


class Reach:
    """Answers for one transaction; what was looked up is kept."""

    def __init__(self, ledger: Ledger, *, now_ns: int) -> None:
        """Look things up in `ledger`."""
        self._ledger = ledger
        self._now_ns = now_ns
        self._declared: Declared | None = None
        self._owners: dict[Address, AgentId] | None = None
        self._served: tuple[Served, ...] | None = None
        self._engines: dict[str, list[Served]] | None = None

    def __repr__(self) -> str:
        return f"Reach(declared={self._declared is not None}, served={self._served is not None})"

    @property
    def declared(self) -> Declared:
        """Return the declared map."""
        if self._declared is None:
            self._declared = self._ledger.records.of(DECLARED).get(THE_MAP, NOTHING)
        return self._declared

    @property
    def served(self) -> tuple[Served, ...]:
        """Return who was seen to serve what."""
        if self._served is None:
            self._served = observed.of(self._ledger, SERVED, now_ns=self._now_ns)
        return self._served

    def owner(self, address: str) -> AgentId | None:
        """Return the host whose declared address it is."""
        if self._owners is None:
            self._owners = topology.owners(self.declared)
        found = topology.address_of(address)
        return None if found is None else self._owners.get(found)

    def model_of(self, incident: Incident) -> str:
        """Return what engines call the model that an incident is about; empty where it is not known."""
        route = route_of(incident)
        if route is None or not route.model:
            return ""
        if not is_at_router(incident):
            return route.model
        return topology.model_at(self.declared, router=incident.agent_id, name=route.model)

    def declared_engines(self, incident: Incident) -> frozenset[AgentId] | None:
        """Return the hosts behind a router's route; None where the map does not say."""
        route = route_of(incident)
        if route is None or not is_at_router(incident):
            return None
        found = topology.replicas(self.declared, router=incident.agent_id, name=route.model)
        return frozenset(each.host for each in found) or None

    def ranks(self, model: str) -> frozenset[AgentId] | None:
        """Return the hosts that may be ranks of a model, of replicas none; None where the map is silent."""
        if not model:
            return None
        pairs = [each for each in self.declared.pair if each.model == model]
        if pairs:
            return frozenset(AgentId(rank) for pair in pairs for rank in pair.ranks)
        routes = (each for each in self.declared.route if each.engine and (each.model or each.name) == model)
        hosts = {each.host for route in routes for each in route.engine}
        return frozenset() if len(hosts) > 1 else None

    def places(self, incident: Incident) -> tuple[Place, ...]:
        """Return where an incident leads, without its own host."""
        found = (*self._upstream(incident), *self._peers(incident), *self._ranks(incident))
        return tuple(dict.fromkeys(each for each in found if each.host != incident.agent_id))

    def _upstream(self, incident: Incident) -> Iterator[Place]:
        route = route_of(incident)
        if route is None or not route.model or not is_at_router(incident):
            return
        model = self.model_of(incident)
        declared = topology.replicas(self.declared, router=incident.agent_id, name=route.model)
        for each in declared:
            servers = self._servers(each.host, model=model, port=each.port)
            if each.server is not None:
                servers |= {each.server}
            yield Place(Way.UPSTREAM, each.host, servers, each.port)
            if self._is_on_mesh(each.host):
                yield Place(Way.MESH, each.host)
        if declared:
            return
        for host in dict.fromkeys(each.host for each in self._serving(model)):
            yield Place(Way.UPSTREAM, host, self._servers(host, model=model, port=0))

    def _peers(self, incident: Incident) -> Iterator[Place]:
        for each in incident.evidence:
            host = self.owner(each.address) if isinstance(each, PeerEvidence) else None
            if host is None or not isinstance(each, PeerEvidence):
                continue
            servers = self._servers(host, model="", port=each.port) if each.port else frozenset()
            yield Place(Way.PEER, host, servers, each.port)
            if topology.is_mesh(each.address):
                yield Place(Way.MESH, host)

    def _ranks(self, incident: Incident) -> Iterator[Place]:
        if incident.fault_class not in _OF_RANKS or is_at_router(incident):
            return
        model = self.model_of(incident)
        for host in topology.other_ranks(self.declared, host=incident.agent_id, model=model):
            yield Place(Way.RANK, host)

    def _servers(self, host: AgentId, *, model: str, port: int) -> frozenset[Subject]:
        """Return what was seen or is declared to serve on a host, at that port, or else that model."""
        if not port:
            return frozenset(each.server for each in self._serving(model) if each.host == host)
        seen = {each.server for each in self.served if each.host == host and each.port == port}
        declared = {
            replica.server
            for route in self.declared.route
            for replica in topology.engines_of(route)
            if replica.server is not None and replica.host == host and replica.port == port
        }
        return frozenset(seen | declared)

    def _is_on_mesh(self, host: AgentId) -> bool:
        found = next((each for each in self.declared.host if each.name == host), None)
        return found is not None and (bool(found.mesh) or any(map(topology.is_mesh, found.addresses)))

    def _serving(self, model: str) -> Sequence[Served]:
        """Return the engines that were seen to answer for a model."""
        if self._engines is None:
            self._engines = {}
            for each in self.served:
                if each.kind in ENGINES and each.model:
                    self._engines.setdefault(each.model, []).append(each)
        return self._engines.get(model, ())
