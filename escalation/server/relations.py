"""What explains an incident, followed up to its root, and what is open beside it.

`host_causes` and `causes` say what explains what; here is where their answers are joined. An explanation is
followed up to its root, across the two: a link at fault that cost a cluster its worker is also behind the
engine that stalled for want of it, and behind what a router then shows on another host. What a person
rejected, and drills, explain nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from escalation.model import AgentId, FaultClass, Incident, IncidentId, State
from escalation.server import causes, host_causes
from escalation.server.store import Ledger

_OF_MODEL_AT_MOST: Final = 2000
_ON_HOST_AT_MOST: Final = 300
"""How many open incidents are looked through for a common cause: the newest."""

_STEPS_AT_MOST: Final = 8
"""How far an explanation is followed up: longer than any chain that the rules allow."""


class Relations:
    """The open incidents of one transaction that may have one cause; what was looked up is kept."""

    def __init__(self, ledger: Ledger) -> None:
        """Look things up in `ledger`."""
        self._ledger = ledger
        self._on_host: dict[AgentId, Sequence[Incident]] = {}
        self._of_model: dict[str, Sequence[Incident]] = {}

    def __repr__(self) -> str:
        return f"Relations(hosts={len(self._on_host)}, models={len(self._of_model)})"

    def open_on_host(self, agent_id: AgentId) -> list[Incident]:
        """Return what is open on a host and may have a cause or a consequence there."""
        found = self._ledger.open_of(host_causes.RELATED, limit=_ON_HOST_AT_MOST, agent_id=agent_id)
        return [each for each in found if not each.drill]

    def open_of_model(self, model: str) -> list[Incident]:
        """Return what is open of a model, on any host, and may have a cause or a consequence there."""
        found = self._ledger.open_of(causes.RELATED, limit=_OF_MODEL_AT_MOST)
        return [each for each in found if causes.model_of(each) == model and not each.drill]

    def agreements(self) -> Iterator[Incident]:
        """Yield the stalls over several hosts that are open."""
        found = self._ledger.open_of(frozenset({FaultClass.DISTRIBUTED_RANK_STALL}), limit=_OF_MODEL_AT_MOST)
        return (each for each in found if causes.is_agreement(each))

    def explanation(self, incident: Incident) -> IncidentId | None:
        """Return the root of what explains `incident`; None if nothing does."""
        found: IncidentId | None = None
        passed = {incident.id}
        above: Incident | None = incident
        while above is not None and len(passed) <= _STEPS_AT_MOST:
            above_id = self._direct(above)
            if above_id is None or above_id in passed:
                break
            passed.add(above_id)
            found = above_id
            above = self._ledger.incident(above_id)
        return found

    def _direct(self, incident: Incident) -> IncidentId | None:
        """Return what explains `incident` itself: what its host is at fault with, then what its model is."""
        if incident.fault_class in host_causes.RELATED:
            for agent_id in self._hosts_of(incident):
                there = replace(incident, agent_id=agent_id)
                found = host_causes.explanation(there, self._accepted_on_host(agent_id))
                if found is not None:
                    return found
        if incident.fault_class not in causes.RELATED:
            return None
        if not causes.model_of(incident) and causes.is_stall_of_ranks(incident):
            return self._of_its_server(incident)
        return causes.explanation(incident, self._accepted_of_model(causes.model_of(incident)))

    def _hosts_of(self, incident: Incident) -> tuple[AgentId, ...]:
        """Return the host of an incident; all that agree, where it is a stall over several."""
        if not causes.is_agreement(incident):
            return (incident.agent_id,)
        witnesses = causes.agreeing(self.open_of_model(causes.model_of(incident)), host=incident.agent_id)
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
        return [each for each in incidents if not self._is_rejected(each)]

    def _is_rejected(self, incident: Incident) -> bool:
        newest = self._ledger.recommendations(incident.id)[-1:]
        return bool(newest) and newest[0].state is State.REJECTED
