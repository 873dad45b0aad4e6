"""Which open incidents have one cause: a stall that two hosts see, and what a router only passes on.

Topology is route -> model -> container or unit -> host, and the model's name is what joins the ends. Three
things follow from it:

- Engines of one model on two hosts that stall within ten minutes of each other are one stall over both: that
  becomes an incident of its own (distributed.rank_stall), on the host that was first, and explains them.
- A host that finds such a stall by itself, in logs and counters, is one of those that agree: the stall over
  both explains it as soon as there is one.
- A router (LiteLLM, Open WebUI) in front of an engine that is at fault shows the same fault once more. That
  is a second place to see one cause from, never a second host that agrees: the engine's incident explains it.
  A server of a kind that is not known may be a proxy too: it is neither engine nor router here.

What takes a route out (empty or degenerate answers) is never explained away: its remedy is at the router.
A case that rests on one sign alone explains nothing: one request that hangs on two hosts may be the same bad
request. A router that knows the model by another name than the engine does is not joined to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from escalation.model import (
    BootId,
    CaseId,
    CasePhase,
    CaseReport,
    FaultClass,
    Incident,
    IncidentId,
    Reason,
    ReasonCode,
    Report,
    Severity,
    Subject,
    SubjectKind,
)
from escalation.server.playbook.serving import is_at_engine, is_at_router, route_of

AGREE_WITHIN_S: Final = 600.0
"""How far apart two incidents may lie and still have one cause."""

_STALLS: Final = (FaultClass.ROUTE_ENGINE_STALLED, FaultClass.ROUTE_FAILS_REAL_TRAFFIC)
"""What a rank shows that waits for another; the plainer sign first."""

_EVIDENCE_AT_MOST: Final = 8
"""How many pieces of evidence an agreement takes over from those who agree."""

_PASSED_ON: Final[Mapping[FaultClass, frozenset[FaultClass]]] = {
    FaultClass.ROUTE_BROKEN_STREAM: frozenset(
        {
            FaultClass.ROUTE_BROKEN_STREAM,
            FaultClass.ROUTE_ERRORS_RISING,
            FaultClass.ROUTE_ROUTER_COOLDOWN,
        }
    ),
    FaultClass.ROUTE_ENGINE_STALLED: frozenset(
        {
            FaultClass.ROUTE_BROKEN_STREAM,
            FaultClass.ROUTE_ENGINE_STALLED,
            FaultClass.ROUTE_ERRORS_RISING,
            FaultClass.ROUTE_FAILS_REAL_TRAFFIC,
            FaultClass.ROUTE_LATENCY_RISING,
            FaultClass.ROUTE_ROUTER_COOLDOWN,
            FaultClass.ROUTE_SATURATED,
        }
    ),
    FaultClass.ROUTE_FAILS_REAL_TRAFFIC: frozenset(
        {
            FaultClass.ROUTE_BROKEN_STREAM,
            FaultClass.ROUTE_ERRORS_RISING,
            FaultClass.ROUTE_FAILS_REAL_TRAFFIC,
            FaultClass.ROUTE_ROUTER_COOLDOWN,
        }
    ),
    FaultClass.ROUTE_SATURATED: frozenset(
        {
            FaultClass.ROUTE_ERRORS_RISING,
            FaultClass.ROUTE_LATENCY_RISING,
            FaultClass.ROUTE_ROUTER_COOLDOWN,
            FaultClass.ROUTE_SATURATED,
        }
    ),
}
"""A fault of an engine -> what a router in front of it then shows."""

RELATED: Final = frozenset({FaultClass.DISTRIBUTED_RANK_STALL, *_PASSED_ON}).union(*_PASSED_ON.values())
"""The fault classes that can explain something, or be explained."""

EXPLAINING: Final = frozenset({FaultClass.DISTRIBUTED_RANK_STALL, *_PASSED_ON})

_AGREEMENT: Final = "agreement "
"""What the case ids of agreements begin with; an agent's own case is called so only to fool its own host."""


def model_of(incident: Incident) -> str:
    """Return the model that the incident is about, as its host names it; empty where it is not known."""
    route = route_of(incident)
    return "" if route is None else route.model


def is_agreement(incident: Incident) -> bool:
    """Return whether the orchestrator itself made this incident of what hosts agree on."""
    return incident.fault_class is FaultClass.DISTRIBUTED_RANK_STALL and incident.case_id.startswith(
        _AGREEMENT
    )


def is_stall_of_ranks(incident: Incident) -> bool:
    """Return whether a host itself found, in logs and counters, that ranks wait for each other."""
    return incident.fault_class is FaultClass.DISTRIBUTED_RANK_STALL and not is_agreement(incident)


def agreeing(incidents: Sequence[Incident], *, host: str | None = None) -> tuple[Incident, ...]:
    """Return the stalls of one model that are one stall over several hosts, its leader first; else nothing.

    `incidents` are open ones of one model. The leader is of `host` where that is given.
    """
    stalls = sorted((each for each in incidents if _is_stall(each) and _is_certain(each)), key=_rank)
    for leader in stalls:
        if host is not None and leader.agent_id != host:
            continue
        near = [each for each in stalls if _are_near(each, leader) and each is not leader]
        if any(each.agent_id != leader.agent_id for each in near):
            return (leader, *near)
    return ()


def agreement(witnesses: Sequence[Incident], *, standing: Incident | None, now_ns: int) -> Report:
    """Return the report of the stall that `witnesses` agree on, leader first; `standing` is its incident."""
    leader = witnesses[0]
    second = next(each for each in witnesses if each.agent_id != leader.agent_id)
    last_seen_ns = max(each.last_seen_ns for each in witnesses)
    # The moment belongs to the name: two that doubt it and then agree anew are another case.
    name = f"{_AGREEMENT}{leader.id} {second.id} {last_seen_ns}"
    hosts = {each.agent_id for each in witnesses}
    body = CaseReport(
        phase=CasePhase.OPENED if standing is None else CasePhase.UPDATED,
        case_id=CaseId(name) if standing is None else standing.case_id,
        fault_class=FaultClass.DISTRIBUTED_RANK_STALL,
        severity=Severity.CRITICAL,
        subject=Subject(SubjectKind.MODEL, model_of(leader)),
        target=leader.target,
        incarnation=leader.incarnation,
        first_seen_ns=min(each.first_seen_ns for each in witnesses),
        last_seen_ns=last_seen_ns,
        count=len(hosts),
        reasons=(Reason(ReasonCode.TWO_HOSTS_AGREE, window_s=AGREE_WITHIN_S),),
        evidence=tuple(piece for each in witnesses for piece in each.evidence)[:_EVIDENCE_AT_MOST],
    )
    return _report(leader, body, sequence=1, now_ns=now_ns)


def disagreement(standing: Incident, reasons: tuple[Reason, ...], *, now_ns: int) -> Report:
    """Return the report that clears an agreement, because a host that agreed no longer does."""
    body = CaseReport(
        phase=CasePhase.CLEARED,
        case_id=standing.case_id,
        fault_class=standing.fault_class,
        severity=standing.severity,
        subject=standing.subject,
        target=standing.target,
        incarnation=standing.incarnation,
        first_seen_ns=standing.first_seen_ns,
        last_seen_ns=standing.last_seen_ns,
        count=standing.count,
        reasons=reasons,
    )
    return _report(standing, body, sequence=2, now_ns=now_ns)


def explanation(incident: Incident, causes: Sequence[Incident]) -> IncidentId | None:
    """Return which of `causes`, open incidents of the same model, explains `incident`; None if none does.

    What two hosts agree on goes before what one of them sees, and an explanation is never itself explained.
    """
    if is_agreement(incident):
        return None
    candidates = [each for each in causes if each.id != incident.id and _are_near(each, incident)]
    agreed = [each for each in candidates if is_agreement(each)]
    at_router = is_at_router(incident)
    for each in sorted(agreed, key=_rank):
        if at_router and incident.fault_class in _PASSED_ON[FaultClass.ROUTE_ENGINE_STALLED]:
            return each.id
        if _is_stall(incident):
            return each.id
    if at_router:
        for each in sorted(candidates, key=_rank):
            passed_on = _PASSED_ON.get(each.fault_class, frozenset())
            if incident.fault_class not in passed_on or not is_at_engine(each) or not _is_certain(each):
                continue
            if each.severity is Severity.NOTE:
                continue
            if explanation(each, causes) is None:
                return each.id
    return None


def _report(incident: Incident, body: CaseReport, *, sequence: int, now_ns: int) -> Report:
    # Each agreement is a numbering of its own, named like its case, so that ids follow from what agreed.
    boot_id = BootId(body.case_id)
    return Report(
        agent_id=incident.agent_id, boot_id=boot_id, sequence=sequence, created_ns=now_ns, body=body
    )


def _is_stall(incident: Incident) -> bool:
    stalls = incident.fault_class in _STALLS or is_stall_of_ranks(incident)
    return stalls and is_at_engine(incident)


def _is_certain(incident: Incident) -> bool:
    return all(reason.code is not ReasonCode.SECOND_LAYER_UNKNOWN for reason in incident.reasons)


def _are_near(one: Incident, other: Incident) -> bool:
    apart_ns = max(one.first_seen_ns, other.first_seen_ns) - min(one.last_seen_ns, other.last_seen_ns)
    return apart_ns <= AGREE_WITHIN_S * 1e9


def _rank(incident: Incident) -> tuple[bool, int, str, str]:
    plainer = incident.fault_class is not FaultClass.ROUTE_ENGINE_STALLED
    return plainer, incident.first_seen_ns, incident.agent_id, incident.id
