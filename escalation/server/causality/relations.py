"""What explains an incident, followed up to its root, and what is open beside it.

`host_causes`, `distant_causes` and `causes` say what explains what, on one host, along the ways from host to
host, and of one model; here is where their answers are joined. An explanation is followed up to its root,
across all of them: a link at fault that cost a cluster its worker is also behind the engine that stalled for
want of it, and behind what a router then shows on another host. What a person rejected, drills and what is in
shadow explain nothing. What explains what depends on what is open, never on the order in which it came; and
where a wrong map leads in a circle, the first of the circle is its root, so that never all are hidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from escalation.model import AgentId, FaultClass, Incident, IncidentId, State
from escalation.server.causality import causes, distant_causes, host_causes
from escalation.server.causality.reach import Reach
from escalation.server.playbook.serving import is_at_engine
from escalation.server.storage.store import Ledger

RELATED: Final = causes.RELATED | host_causes.RELATED | distant_causes.EXPLAINED
"""The fault classes that can explain something, or be explained."""

EXPLAINING: Final = causes.EXPLAINING | host_causes.EXPLAINING | distant_causes.EXPLAINING
"""The fault classes that can explain something."""

_OF_MODEL_AT_MOST: Final = 2000
_ON_HOST_AT_MOST: Final = 300
"""How many open incidents are looked through for a common cause: the newest."""


class Relations:
    """The open incidents of one transaction that may have one cause; what was looked up is kept."""

    def __init__(self, ledger: Ledger, *, now_ns: int) -> None:
        """Look things up in `ledger`."""
        self._ledger = ledger
        self.reach = Reach(ledger, now_ns=now_ns)
        self._on_host: dict[AgentId, Sequence[Incident]] = {}
        self._of_model: dict[str, Sequence[Incident]] = {}
        self._by_model: dict[str, list[Incident]] | None = None
        self._elsewhere: Sequence[tuple[Incident, frozenset[AgentId]]] | None = None

    def __repr__(self) -> str:
        return f"Relations(hosts={len(self._on_host)}, models={len(self._of_model)})"

    def open_on_host(self, agent_id: AgentId) -> list[Incident]:
        """Return what is open on a host and may have a cause or a consequence there."""
        found = self._ledger.open_of(RELATED, limit=_ON_HOST_AT_MOST, agent_id=agent_id)
        return [each for each in found if not each.drill]

    def open_of_model(self, model: str) -> list[Incident]:
        """Return what is open of a model, on any host, and may have a cause or a consequence there."""
        if self._by_model is None:
            self._by_model = {}
            for each in self._ledger.open_of(causes.RELATED, limit=_OF_MODEL_AT_MOST):
                if not each.drill:
                    self._by_model.setdefault(self.reach.model_of(each), []).append(each)
        return list(self._by_model.get(model, ()))

    def leading_to(self, agent_id: AgentId) -> list[Incident]:
        """Return what is open on other hosts and leads to this one."""
        if self._elsewhere is None:
            found = self._ledger.open_of(distant_causes.EXPLAINED, limit=_OF_MODEL_AT_MOST)
            self._elsewhere = [
                (each, frozenset(place.host for place in self.reach.places(each)))
                for each in found
                if not each.drill
            ]
        return [each for each, hosts in self._elsewhere if agent_id in hosts]

    def agreements(self) -> Iterator[Incident]:
        """Yield the stalls over several hosts that are open."""
        found = self._ledger.open_of(frozenset({FaultClass.DISTRIBUTED_RANK_STALL}), limit=_OF_MODEL_AT_MOST)
        return (each for each in found if causes.is_agreement(each))

    def agreeing(self, related: Sequence[Incident], *, host: str | None = None) -> tuple[Incident, ...]:
        """Return the stalls of one model, all in `related`, that are one stall over several hosts.

        Where the map names the ranks of the model it is they who agree; hosts that it names as replicas of
        one route each run a whole copy, and never agree.
        """
        related = [each for each in related if not each.shadow]
        models = {self.reach.model_of(each) for each in related if not causes.is_agreement(each)}
        for model in models:
            hosts = self.reach.ranks(model)
            if hosts is not None:
                related = [each for each in related if each.agent_id in hosts or causes.is_agreement(each)]
        return causes.agreeing(related, host=host)

    def explanation(self, incident: Incident) -> IncidentId | None:
        """Return the root of what explains `incident`; None if nothing does."""
        passed = [incident]
        while (above := self._above(passed[-1])) is not None:
            ids = [each.id for each in passed]
            if above.id in ids:
                root = min(passed[ids.index(above.id) :], key=host_causes.starts_with)
                return None if root.id == incident.id else root.id
            passed.append(above)
        return passed[-1].id if len(passed) > 1 else None

    def _above(self, incident: Incident) -> Incident | None:
        found = self._direct(incident)
        return None if found is None else self._ledger.incident(found)

    def _direct(self, incident: Incident) -> IncidentId | None:
        """Return what explains `incident` itself: a fault of its host, of one it leads to, of its model."""
        for agent_id in self._hosts_of(incident):
            there = incident if agent_id == incident.agent_id else replace(incident, agent_id=agent_id)
            if incident.fault_class in host_causes.RELATED:
                found = host_causes.explanation(there, self._accepted_on_host(agent_id))
                if found is not None:
                    return found
            if incident.fault_class in distant_causes.EXPLAINED:
                found = self._of_another_host(there)
                if found is not None:
                    return found
        if incident.fault_class not in causes.RELATED:
            return None
        if not causes.model_of(incident) and causes.is_stall_of_ranks(incident):
            return self._of_its_server(incident)
        return causes.explanation(incident, self._candidates(incident))

    def _candidates(self, incident: Incident) -> Sequence[Incident]:
        """Return what is at fault with the same model, without what the map says is not behind `incident`."""
        model = self.reach.model_of(incident)
        found = self._accepted_of_model(model)
        engines, ranks = self.reach.declared_engines(incident), self.reach.ranks(model)
        if engines is not None:
            return [each for each in found if each.agent_id in engines or causes.is_agreement(each)]
        if ranks is not None and incident.agent_id not in ranks and is_at_engine(incident):
            return [each for each in found if not causes.is_agreement(each)]
        return found

    def _of_another_host(self, incident: Incident) -> IncidentId | None:
        places = self.reach.places(incident)
        there = [
            each
            for host in dict.fromkeys(place.host for place in places)
            for each in self._accepted_on_host(host)
        ]
        return distant_causes.explanation(incident, places, there)

    def _hosts_of(self, incident: Incident) -> tuple[AgentId, ...]:
        """Return the host of an incident; all that agree, where it is a stall over several."""
        if not causes.is_agreement(incident):
            return (incident.agent_id,)
        related = self.open_of_model(causes.model_of(incident))
        witnesses = self.agreeing(related, host=incident.agent_id)
        return tuple(dict.fromkeys((incident.agent_id, *(each.agent_id for each in witnesses))))

    def _of_its_server(self, incident: Incident) -> IncidentId | None:
        """Return the stall over several hosts that explains what the same server shows of a model.

        A host that finds a stall in a log does not know of which model it is; its routes do.
        """
        for each in self._accepted_on_host(incident.agent_id):
            model = causes.model_of(each) if host_causes.is_same_server(each, incident) else ""
            if model and each.id != incident.id:
                found = causes.explanation(each, self._accepted_of_model(model))
                if found is not None:
                    return found
        return None

    def _accepted_on_host(self, agent_id: AgentId) -> Sequence[Incident]:
        if agent_id not in self._on_host:
            self._on_host[agent_id] = self._accepted(self.open_on_host(agent_id))
        return self._on_host[agent_id]

    def _accepted_of_model(self, model: str) -> Sequence[Incident]:
        if not model:
            return ()
        if model not in self._of_model:
            self._of_model[model] = self._accepted(self.open_of_model(model))
        return self._of_model[model]

    def _accepted(self, incidents: Sequence[Incident]) -> Sequence[Incident]:
        return [each for each in incidents if not each.shadow and not self._is_rejected(each)]

    def _is_rejected(self, incident: Incident) -> bool:
        newest = self._ledger.recommendations(incident.id)[-1:]
        return bool(newest) and newest[0].state is State.REJECTED
