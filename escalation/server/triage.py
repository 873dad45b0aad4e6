"""What happens to the ledger when something is received, decided, or time passes.

Every function here is one transaction's work: it reads and writes a `Ledger`, takes `now_ns`, and returns
which recommendations changed, for those who watch the queue. Each change of state is written to the audit log
in the same transaction. The steps that they share are in `steps`, what is read of a row in `queue_rows`.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Final

from escalation.inert import shown
from escalation.model import (
    AgentId,
    CaseReport,
    Heartbeat,
    HostChange,
    Incident,
    IncidentId,
    Loss,
    LossKind,
    RecommendationId,
    State,
    Step,
    UnknownBody,
    Verdict,
    Weighed,
)
from escalation.rule_names import RuleName, parts_of, rule_of
from escalation.server import coverage, queue_rows
from escalation.server.attention import values as attention
from escalation.server.causality import causes
from escalation.server.causality.relations import RELATED
from escalation.server.causality.topology import DECLARED, NOTHING, THE_MAP, Declared
from escalation.server.decision import approvals, preconditions, rules, weighed
from escalation.server.decision.scene import Weigher
from escalation.server.desk import Entry, HostState, NotFound, Refused
from escalation.server.incident import host_history, incidents, timeline
from escalation.server.queue_rows import CONSEQUENCES_AT_MOST, incident_of
from escalation.server.steps import ORCHESTRATOR, Changed, Work, note
from escalation.server.storage.records import Kind
from escalation.server.storage.store import Delivery, Ledger
from escalation.signing import approval


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of a delivery: how many of its reports were new, and which recommendations changed."""

    fresh: int
    changed: Changed


@dataclass(frozen=True, slots=True)
class Decided:
    """What a decision made of an entry, and every recommendation that changed with it."""

    entry: Entry
    changed: Changed


def receive(ledger: Ledger, delivery: Delivery, *, policy: approvals.Policy, now_ns: int) -> Kept:
    """Keep a delivery and fold what it says."""
    added = ledger.add_reports(delivery, received_ns=now_ns)
    agent_id = delivery.agent_id
    work = Work(ledger, actor=f"agent:{agent_id}", policy=policy, now_ns=now_ns)
    host = ledger.host(agent_id)
    if host is None:
        work.note("host.first_heard", agent_id, "")
        host = coverage.first_heard(agent_id, now_ns)
    elif host.silent:
        work.note("host.heard_again", agent_id, "")
        work.fold(coverage.silence_ends(host, now_ns))
    heard = replace(
        host,
        last_heard_ns=now_ns,
        silent=False,
        missing_reports=min(incidents.COUNT_MAX, host.missing_reports + added.missing),
    )
    changes: list[host_history.Change] = []
    for report in delivery.notable:
        if report.sequence not in added.fresh:
            continue
        match report.body:
            case CaseReport():
                if not work.fold(report):
                    heard = coverage.with_loss(heard, Loss(LossKind.REPORT_REFUSED, "", 1, exact=True))
            case Heartbeat():
                changes += host_history.of_heartbeat(heard, report.body, now_ns=now_ns)
                heard = coverage.with_heartbeat(heard, report.body)
            case Loss():
                heard = coverage.with_loss(heard, report.body)
            case HostChange():
                changes.append(host_history.told(report.body))
            case UnknownBody():
                pass  # kept with the other reports; there is nothing here that it could change
    if changes:
        heard = _with_changes(ledger, heard, changes, now_ns=now_ns)
    ledger.put_host(heard)
    work.weigh_proposals()
    return Kept(added.count, frozenset(work.changed))


def _with_changes(
    ledger: Ledger, host: HostState, changes: list[host_history.Change], *, now_ns: int
) -> HostState:
    """Note what was changed on a host, the newest of it, and return the host with what was refused."""
    newest = changes[-host_history.IN_ONE_DELIVERY :]
    host_history.note(ledger, host.agent_id, newest, now_ns=now_ns)
    refused = len(changes) - len(newest)
    return (
        coverage.with_loss(host, Loss(LossKind.REPORT_REFUSED, "", refused, exact=True)) if refused else host
    )


def pass_time(
    ledger: Ledger,
    *,
    overdue: AbstractSet[AgentId],
    policy: approvals.Policy,
    now_ns: int,
    trusted_ns: int,
) -> Changed:
    """Expire, lapse and verify what is due, and open the case of each overdue host that is not silent yet."""
    work = Work(ledger, actor=ORCHESTRATOR, policy=policy, now_ns=now_ns)
    for agent_id in sorted(overdue):
        host = ledger.host(agent_id)
        if host is not None and not host.silent:
            ledger.put_host(replace(host, silent=True))
            work.note("host.silent", agent_id, "")
            work.fold(coverage.silence_begins(host, now_ns))
    for name, shadow in ledger.records.of(rules.SHADOWS).items():
        if shadow.is_over(now_ns):
            _unshadow(work, ledger, RuleName(name), "its time is over")
    for recommendation in ledger.due(now_ns=now_ns):
        incident = incident_of(ledger, recommendation)
        host = ledger.host(incident.agent_id)
        seen = host is not None and coverage.would_be_seen(host, incident.fault_class)
        event = approvals.TimePassed(trusted_ns, would_be_seen=seen)
        if work.step(recommendation, incident, event) is not recommendation:
            work.follow(incident)
    work.weigh_proposals()
    return frozenset(work.changed)


def declare(ledger: Ledger, declared: Declared, *, policy: approvals.Policy, now_ns: int) -> Changed:
    """Judge by this map from now on; where it differs from the one before, find all causes anew."""
    known = ledger.records.get(DECLARED, THE_MAP) or NOTHING
    if known == declared:
        return frozenset()
    ledger.records.put(DECLARED, THE_MAP, declared)
    work = Work(ledger, actor=ORCHESTRATOR, policy=policy, now_ns=now_ns)
    numbers = f"{len(declared.host)} hosts, {len(declared.route)} routes, {len(declared.pair)} pairs"
    work.note("topology.declared", "topology", numbers)
    related = [each for each in ledger.open_of(RELATED, limit=CONSEQUENCES_AT_MOST) if not each.drill]
    for each in {causes.model_of(each): each for each in related if causes.model_of(each)}.values():
        work.relate(each)
    work.explain(related)
    work.weigh_proposals()
    return frozenset(work.changed)


def adopt(ledger: Ledger, *, policy: approvals.Policy, now_ns: int) -> Changed:
    """Decide by these rules from now on: what one of two approved under others is void."""
    work = Work(ledger, actor=ORCHESTRATOR, policy=policy, now_ns=now_ns)
    for each in ledger.in_states(frozenset({State.PROPOSED}), limit=None):
        if each.approvers:
            work.void(each, incident_of(ledger, each))
    return frozenset(work.changed)


def approve(
    ledger: Ledger,
    entry_id: str,
    *,
    event: approvals.Approve,
    policy: approvals.Policy,
    now_ns: int,
) -> Decided:
    """Record that a person approves exactly what a digest names; raise Refused for a condition in the way.

    The conditions are judged anew, by what the ledger holds in this transaction. Those in the event's
    `overrides` are set aside by name, with a reason, where policy allows it.
    """
    if event.checked is not None:
        _use_up(ledger, approval.parse(event.checked.signed.document).nonce, now_ns)
    standing = queue_rows.entry(ledger, entry_id)
    recommendation, incident = standing.recommendation, standing.incident
    work = Work(ledger, actor=ORCHESTRATOR, policy=policy, now_ns=now_ns)
    recommendation = work.void(recommendation, incident)
    remarks = ledger.records.of(attention.REMARKS, owner=incident.id).values()
    event = replace(event, requesters=frozenset(each.person for each in remarks if each.is_question))
    checks = Weigher(ledger, policy=policy, now_ns=now_ns).checks(recommendation, incident)
    decided = _decide(ledger, recommendation.id, event, event.person, policy=policy, now_ns=now_ns)
    preconditions.insist(checks, event.overrides)
    found = Weighed(Step.APPROVED, event.person, now_ns, checks, event.overrides)
    weighed.add(ledger, recommendation.id, found)
    for each in event.overrides:
        note(
            ledger,
            actor=event.person,
            verb="recommendation.condition_set_aside",
            object_id=recommendation.id,
            detail=f"{each.condition}: {each.reason}",
            now_ns=now_ns,
        )
    return replace(decided, entry=replace(decided.entry, weighed=(*decided.entry.weighed, found)))


def reject(
    ledger: Ledger, entry_id: str, *, person: str, reason: str, policy: approvals.Policy, now_ns: int
) -> Decided:
    """Record that `person` rejects it."""
    return _decide(ledger, entry_id, approvals.Reject(person, reason), person, policy=policy, now_ns=now_ns)


def mark_done(
    ledger: Ledger, entry_id: str, *, person: str, policy: approvals.Policy, now_ns: int
) -> Decided:
    """Record that `person` has carried out what was approved, and what held when they said so.

    It refuses nothing: what was done is done, and a record that left it out would be wrong.
    """
    standing = queue_rows.entry(ledger, entry_id)
    checks = Weigher(ledger, policy=policy, now_ns=now_ns).checks(standing.recommendation, standing.incident)
    decided = _decide(
        ledger,
        standing.recommendation.id,
        approvals.MarkDone(person),
        person,
        policy=policy,
        now_ns=now_ns,
    )
    if checks:
        found = Weighed(Step.DONE, person, now_ns, checks)
        weighed.add(ledger, standing.recommendation.id, found)
    return decided


def shadow(
    ledger: Ledger, name: RuleName, kept: rules.Shadow, *, policy: approvals.Policy, now_ns: int
) -> Changed:
    """Put a rule in shadow: what it has found and will find is kept, and neither proposed nor told."""
    parts = parts_of(name)
    if parts is None:
        raise NotFound("there is no rule of this name")
    work = Work(ledger, actor=kept.person, policy=policy, now_ns=now_ns)
    ledger.records.put(rules.SHADOWS, name, kept)
    work.note("rule.shadowed", name, f"until={kept.until_ns} reason={kept.reason}")
    work.shade(name, parts[0], shadow=True)
    work.weigh_proposals()
    return frozenset(work.changed)


def unshadow(
    ledger: Ledger, name: RuleName, *, person: str, reason: str, policy: approvals.Policy, now_ns: int
) -> Changed:
    """Take a rule out of its shadow: what is still open is proposed and told."""
    if name not in ledger.records.of(rules.SHADOWS):
        raise NotFound("this rule is in no shadow")
    work = Work(ledger, actor=person, policy=policy, now_ns=now_ns)
    _unshadow(work, ledger, name, reason)
    work.weigh_proposals()
    return frozenset(work.changed)


def judge(ledger: Ledger, entry_id: str, verdict: Verdict, *, now_ns: int) -> Incident:
    """Record what a person says of an incident; the last word counts, and all are in the audit log."""
    incident = ledger.incident(IncidentId(entry_id))
    if incident is None:
        found = ledger.recommendation(RecommendationId(entry_id))
        incident = None if found is None else ledger.incident(found.incident_id)
    if incident is None:
        raise NotFound("there is no queue entry or incident with this id")
    if incident.drill:
        raise Refused("a drill says nothing of its rule: somebody made it on purpose")
    name = rule_of(incident)
    ledger.records.put(rules.VERDICTS, incident.id, verdict, owner=name)
    word = "fault" if verdict.fault else "not_a_fault"
    note(
        ledger,
        actor=verdict.person,
        verb="incident.judged",
        object_id=incident.id,
        detail=f"{word} rule={name} reason={verdict.reason}",
        now_ns=now_ns,
    )
    said = "there was a fault" if verdict.fault else "there was no fault"
    why = f" ({shown(verdict.reason)})" if verdict.reason else ""
    moment = timeline.Moment(now_ns, timeline.MomentKind.JUDGED, f"judged: {said}{why}", verdict.person)
    timeline.add(ledger, incident.id, moment)
    return incident


def _unshadow(work: Work, ledger: Ledger, name: RuleName, reason: str) -> None:
    ledger.records.remove(rules.SHADOWS, name)
    work.note("rule.unshadowed", name, f"reason={reason}")
    parts = parts_of(name)
    if parts is not None:
        work.shade(name, parts[0], shadow=False)


def _decide(
    ledger: Ledger,
    entry_id: str,
    event: approvals.Event,
    person: str,
    *,
    policy: approvals.Policy,
    now_ns: int,
) -> Decided:
    standing = queue_rows.entry(ledger, entry_id)
    work = Work(ledger, actor=person, policy=policy, now_ns=now_ns)
    moved = work.step(standing.recommendation, standing.incident, event)
    work.relate(standing.incident)  # what a person rejects explains nothing any more
    work.weigh_proposals()
    weigher = Weigher(ledger, policy=policy, now_ns=now_ns)
    return Decided(queue_rows.entry_of(ledger, moved, weigher=weigher), frozenset({moved.id, *work.changed}))


_NONCES: Final = Kind("approval.nonce", int)
"""Numbers of signed documents that were used, with when (Unix ns)."""


def _use_up(ledger: Ledger, nonce: str, now_ns: int) -> None:
    if ledger.records.get(_NONCES, nonce) is not None:
        raise Refused("this signed document was used already; sign a new one")
    ledger.records.put(_NONCES, nonce, now_ns)
