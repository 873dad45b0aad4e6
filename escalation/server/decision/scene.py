"""Reads from the ledger what an action is to be weighed by; what one transaction needs twice is read once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from escalation.model import (
    AgentId,
    Check,
    FaultClass,
    FlightEvidence,
    Gauge,
    History,
    Incident,
    MetricEvidence,
    Price,
    Recommendation,
    RouteEvidence,
    Verdict,
)
from escalation.rule_names import rule_of
from escalation.server import coverage
from escalation.server.attention import silences
from escalation.server.causality import causes, topology
from escalation.server.decision import rules
from escalation.server.decision.approvals import Policy
from escalation.server.decision.preconditions import (
    CHANGING,
    INTERRUPTING,
    Rank,
    Replica,
    Scene,
    by_policy,
    evaluate,
)
from escalation.server.decision.track_record import TrackRecord
from escalation.server.playbook.alternatives import RESTARTS
from escalation.server.playbook.names import acted_on
from escalation.server.playbook.serving import route_of
from escalation.server.storage.store import Ledger

_ON_HOST_AT_MOST: Final = 300
"""How many open incidents of a host are looked through: the newest."""

_ALSO_ENDS_AT_MOST: Final = 8

_COUNTS_TO: Final = 1e15
"""A gauge above it counts nothing."""

_ALL: Final = frozenset(FaultClass)


class Weigher:
    """Weighs actions by one transaction's view of the ledger."""

    def __init__(self, ledger: Ledger, *, policy: Policy, now_ns: int) -> None:
        """Weigh at `now_ns`, by what `ledger` holds."""
        self._ledger = ledger
        self._policy = policy
        self.now_ns = now_ns
        self._open: dict[AgentId, tuple[Incident, ...]] = {}
        self._record = TrackRecord(ledger)
        self._declared: topology.Declared | None = None
        self._maintenance: tuple[silences.Silence, ...] | None = None

    def __repr__(self) -> str:
        return f"Weigher(hosts={len(self._open)}, {self._record!r})"

    def checks(self, recommendation: Recommendation, incident: Incident) -> tuple[Check, ...]:
        """Return what has to hold for the recommended action, as it stands now."""
        if recommendation.advice.action.kind not in CHANGING:
            return ()
        return by_policy(
            evaluate(self.scene(recommendation, incident)),
            kind=recommendation.advice.action.kind,
            may_override=self._policy.may_override,
            refuse_unknown=self._policy.refuse_unknown,
        )

    def scene(self, recommendation: Recommendation, incident: Incident) -> Scene:
        """Return the facts around the recommended action."""
        action, ledger = recommendation.advice.action, self._ledger
        host = ledger.host(incident.agent_id)
        interrupts = action.kind in INTERRUPTING
        return Scene(
            incident=incident,
            action=action,
            host=host,
            would_be_seen=host is not None and coverage.would_be_seen(host, incident.fault_class),
            beside=self._beside(incident),
            replicas=self._others(incident) if interrupts else None,
            ranks=self._ranks(incident),
            spent=self.spent(recommendation) if action.kind in RESTARTS else 0,
            budget=self._policy.restart_budget,
            maintenance=self._works(incident),
            evidence_max_age_s=self._policy.evidence_max_age_s,
            now_ns=self.now_ns,
        )

    def spent(self, recommendation: Recommendation) -> int:
        """Return how many restarts of the target were approved within the budget's time."""
        action = recommendation.advice.action
        return self._record.spent(action, self._policy.restart_budget, now_ns=self.now_ns)

    def price(self, recommendation: Recommendation, incident: Incident) -> Price | None:
        """Return what the action interrupts; None for one that interrupts nothing."""
        action = recommendation.advice.action
        if action.kind not in INTERRUPTING:
            return None
        told = sorted((incident, *self._of_server(incident)), key=lambda each: -each.last_seen_ns)
        flight = _newest_flight(told)
        traffic = _newest_traffic(told)
        seen = [each for each in (flight, traffic) if each is not None]
        return Price(
            requests=None if flight is None else flight[1],
            waiting=None if flight is None else flight[2],
            exchanges=None if traffic is None else traffic[1].exchanges,
            streamed=None if traffic is None else traffic[1].affected_streamed,
            window_s=None if traffic is None else traffic[1].window_s,
            seen_ns=max((each[0] for each in seen), default=None),
            reload=self._record.reload_of(action.host, action.target),
            also_ends=self._also_ends(incident),
        )

    def history(self, recommendation: Recommendation, incident: Incident) -> History:
        """Return how this kind of action ended for this fault class before."""
        return self._record.history_of(incident.fault_class, recommendation.advice.action)

    def verdict(self, incident: Incident) -> Verdict | None:
        """Return what people said of an incident."""
        return self._ledger.records.of(rules.VERDICTS, owner=rule_of(incident)).get(incident.id)

    def _on_host(self, agent_id: AgentId) -> tuple[Incident, ...]:
        if agent_id not in self._open:
            found = self._ledger.open_of(_ALL, limit=_ON_HOST_AT_MOST, agent_id=agent_id)
            self._open[agent_id] = tuple(each for each in found if not each.drill)
        return self._open[agent_id]

    def _beside(self, incident: Incident) -> tuple[Incident, ...]:
        return tuple(each for each in self._on_host(incident.agent_id) if each.id != incident.id)

    def _of_server(self, incident: Incident) -> Iterable[Incident]:
        route, target = route_of(incident), acted_on(incident)
        for each in self._beside(incident):
            other = route_of(each)
            same_port = route is not None and other is not None and other.port == route.port
            if same_port or acted_on(each) == target:
                yield each

    def _others(self, incident: Incident) -> tuple[Replica, ...] | None:
        """Return the other engines of the same routes, as they were declared; None where none was."""
        if self._declared is None:
            known = self._ledger.records.get(topology.DECLARED, topology.THE_MAP)
            self._declared = topology.NOTHING if known is None else known
        engines = self._engines_beside(self._declared, incident)
        if engines is None:
            return None
        found = []
        for engine in engines:
            host = self._ledger.host(engine.host)
            faults = frozenset(
                each.fault_class for each in self._on_host(engine.host) if _is_of(each, engine)
            )
            name = engine.server.name if engine.server is not None else f"port {engine.port or 'any'}"
            found.append(Replica(f"{name} on {engine.host}", faults, host is None or host.silent))
        return tuple(found)

    def _engines_beside(
        self, declared: topology.Declared, incident: Incident
    ) -> tuple[topology.Replica, ...] | None:
        others: dict[topology.Replica, None] = {}
        known = False
        for route in declared.route:
            engines = topology.engines_of(route)
            mine = [
                each for each in engines if each.host == incident.agent_id and self._serves(each, incident)
            ]
            known = known or bool(mine)
            if mine:
                others |= dict.fromkeys(each for each in engines if each not in mine)
        model = causes.model_of(incident)
        if not known and model:
            engines = topology.replicas(declared, router=incident.agent_id, name=model)
            return tuple(each for each in engines if each.host != incident.agent_id) if engines else None
        return tuple(others) if known else None

    def _serves(self, engine: topology.Replica, incident: Incident) -> bool:
        """Return whether `incident` is of this engine, by itself or by what else is open of its server."""
        return _is_of(incident, engine) or any(_is_of(each, engine) for each in self._of_server(incident))

    def _ranks(self, incident: Incident) -> tuple[Rank, ...]:
        if not causes.is_agreement(incident):
            return ()
        model = causes.model_of(incident)
        stalls = [
            each
            for each in self._ledger.open_of(causes.RELATED, limit=2000)
            if causes.model_of(each) == model and not each.drill and not causes.is_agreement(each)
        ]
        newest: dict[AgentId, int] = {}
        for each in causes.agreeing(stalls, host=incident.agent_id):
            newest[each.agent_id] = max(newest.get(each.agent_id, 0), each.last_seen_ns)
        hosts = {agent_id: self._ledger.host(agent_id) for agent_id in sorted(newest)}
        return tuple(
            Rank(
                agent_id,
                newest[agent_id],
                0 if host is None else host.last_heard_ns,
                host is None or host.silent,
                sees=host is not None and coverage.would_be_seen(host, incident.fault_class),
            )
            for agent_id, host in hosts.items()
        )

    def _works(self, incident: Incident) -> tuple[str, ...]:
        """Return who works on what the incident is about, in words."""
        if self._maintenance is None:
            active = self._ledger.records.of(silences.ACTIVE).values()
            self._maintenance = tuple(
                each
                for each in active
                if each.origin is not silences.Origin.SILENCE
                and each.phase(self.now_ns) is silences.Phase.ACTIVE
            )
        return tuple(
            f"maintenance by {each.author}: {each.comment}"
            for each in self._maintenance
            if all(matcher.fits(incident) for matcher in each.matchers)
        )

    def _also_ends(self, incident: Incident) -> tuple[str, ...]:
        """Return the other models that the same server was seen to answer for."""
        mine = causes.model_of(incident)
        models = {causes.model_of(each) for each in self._of_server(incident)} - {"", mine}
        return tuple(f"model {model}" for model in sorted(models))[:_ALSO_ENDS_AT_MOST]


def _is_of(incident: Incident, engine: topology.Replica) -> bool:
    """Return whether an incident of the engine's host is of the engine, as far as it was declared."""
    route = route_of(incident)
    if engine.server is not None and engine.server in {acted_on(incident), incident.subject}:
        return True
    if engine.port:
        return route is not None and route.port == engine.port
    return engine.server is None


def _newest_flight(told: Sequence[Incident]) -> tuple[int, int, int | None] | None:
    """Return when, how many requests were in flight, and how many of them without a first byte."""
    for incident in told:
        running = waiting = None
        for piece in incident.evidence:
            match piece:
                case FlightEvidence():
                    return incident.last_seen_ns, piece.requests, piece.waiting
                case MetricEvidence(gauge=Gauge.REQUESTS_RUNNING):
                    running = _whole(piece.value)
                case MetricEvidence(gauge=Gauge.REQUESTS_WAITING):
                    waiting = _whole(piece.value)
        if running is not None:
            return incident.last_seen_ns, running + (waiting or 0), waiting
    return None


def _newest_traffic(told: Sequence[Incident]) -> tuple[int, RouteEvidence] | None:
    for incident in told:
        for piece in incident.evidence:
            if isinstance(piece, RouteEvidence):
                return incident.last_seen_ns, piece
    return None


def _whole(value: float) -> int | None:
    """Return a number that a server told of itself as a count; None where it is none."""
    return int(value) if 0 <= value < _COUNTS_TO else None
