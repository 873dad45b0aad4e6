"""One transaction's steps: a report is folded, causes are found anew, recommendations follow their incident.

A report, a decision and the passing of time end in the same steps, of which each shares the transaction's
ledger, policy and moment with the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from escalation.model import (
    Advice,
    AgentId,
    Approval,
    CaseReport,
    FaultClass,
    Incident,
    IncidentId,
    Recommendation,
    RecommendationId,
    Report,
    State,
)
from escalation.rule_names import RuleName, rule_of
from escalation.server import audit
from escalation.server.causality import causes, host_causes, observed
from escalation.server.causality.relations import RELATED, Relations
from escalation.server.decision import approvals, binding, rules, track_record, weighed
from escalation.server.decision.scene import Weigher
from escalation.server.incident import host_history, incidents, moments, timeline
from escalation.server.playbook import find_cause
from escalation.server.playbook.alternatives import RESTARTS
from escalation.server.playbook.registry import advise
from escalation.server.queue_rows import incident_of
from escalation.server.storage.store import Ledger
from escalation.signing import log as signing_log
from escalation.wording.codes import marked

Changed = frozenset[RecommendationId]


ORCHESTRATOR: Final = "orchestrator"
"""The actor of what nobody asked for: time that passed, a host that fell silent."""

_OF_RULE_AT_MOST: Final = 20_000
"""How many open incidents of one rule are moved into its shadow at once."""

_OPEN_INCIDENTS_PER_HOST: Final = 1000
"""Above it a host's new cases are counted as a loss instead of shown: a queue of thousands helps nobody."""


_APPROVALS: Final = frozenset({"recommendation.approved", "recommendation.approved_by_first"})
_DECISIONS: Final = frozenset({*_APPROVALS, "recommendation.rejected"})

_VOID: Final = "recommendation.approval_void"


def note(ledger: Ledger, *, actor: str, verb: str, object_id: str, detail: str, now_ns: int) -> None:
    """Append an audit entry for something that changes no state."""
    entry = audit.follow(
        ledger.last_audit(), at_ns=now_ns, actor=actor, verb=verb, object_id=object_id, detail=detail
    )
    ledger.add_audit(entry)


class Work:
    """One transaction's changes: applies them to the ledger, audits them, and remembers what changed."""

    def __init__(self, ledger: Ledger, *, actor: str, policy: approvals.Policy, now_ns: int) -> None:
        self._ledger = ledger
        self._actor = actor
        self._policy = policy
        self._now_ns = now_ns
        self._proposed: dict[RecommendationId, None] = {}
        self.changed: set[RecommendationId] = set()

    def note(self, verb: str, object_id: str, detail: str) -> None:
        note(
            self._ledger,
            actor=self._actor,
            verb=verb,
            object_id=object_id,
            detail=detail,
            now_ns=self._now_ns,
        )

    def fold(self, report: Report) -> bool:
        """Fold one case report; False when the host has too many open incidents to open another."""
        body = report.body
        if not isinstance(body, CaseReport):
            raise TypeError(f"only a case report can be folded, not {type(body).__name__}")
        ledger = self._ledger
        case = ledger.case(report.agent_id, body.case_id)
        incident = ledger.incident(case.incident_id) if case is not None else None
        standing = ledger.open_incident(incidents.key_of_case(report.agent_id, body))
        folding = incidents.fold(
            report,
            body,
            case=case,
            incident=incident,
            standing=standing,
            recent=None if standing is not None else self._recent(report.agent_id, body),
            now_ns=self._now_ns,
        )
        if folding is None:
            return True
        if folding.opened:
            folding = replace(folding, incident=self._shaded(folding.incident))
        if folding.opened and ledger.open_count(report.agent_id) >= _OPEN_INCIDENTS_PER_HOST:
            return False
        known = ledger.incident(folding.incident.id)
        ledger.put_incident(folding.incident)
        ledger.put_case(folding.case)
        self._note_folding(known, folding)
        if known is None or folding.opened:
            changed = host_history.of_incident(folding.incident)
            host_history.note(ledger, report.agent_id, changed, now_ns=self._now_ns)
        if folding.opened:
            for done in ledger.done_with_key(incidents.key_of(folding.incident)):
                self.step(done, incident_of(ledger, done), approvals.FaultReturned())
        if not causes.is_agreement(folding.incident):
            repeats = known is not None and host_causes.is_same(known, folding.incident)
            self.relate(folding.incident, repeats=repeats)
        now = ledger.incident(folding.incident.id) or folding.incident
        if known is not None and _same_ground(known, now):
            newest = ledger.recommendations(known.id)[-1:]
            if newest and newest[0].state in approvals.UNFINISHED:
                self.changed.add(newest[0].id)
                return True
        if now.open or folding.closed:
            self.follow(now)
        return True

    def _recent(self, agent_id: AgentId, body: CaseReport) -> Incident | None:
        """Return the incident of the key of `body` that cleared last."""
        name = incidents.name_of(incidents.key_of_case(agent_id, body))
        cleared = self._ledger.records.get(incidents.CLEARED, name, owner=agent_id)
        return None if cleared is None else self._ledger.incident(cleared.incident_id)

    def _note_folding(self, known: Incident | None, folding: incidents.Folding) -> None:
        incident = folding.incident
        if known is None:
            verb = "incident.opened" if folding.opened else "incident.recorded"
            what = marked(incident.fault_class, drill=incident.drill)
            self.note(verb, incident.id, f"{what} on {incident.agent_id}")
            if folding.opened:
                rules.count_opening(self._ledger, incident, now_ns=self._now_ns)
        elif folding.opened:
            self.note("incident.returned", incident.id, f"number {incident.returns}")
        elif known.drill and not incident.drill:
            self.note("incident.is_no_drill", incident.id, "")
        if folding.closed:
            self.note("incident.cleared", incident.id, "")
            cleared = incidents.Cleared(incident.id, self._now_ns)
            name = incidents.name_of(incidents.key_of(incident))
            self._ledger.records.put(incidents.CLEARED, name, cleared, owner=incident.agent_id)
            if known is not None:
                track_record.note_loading(self._ledger, known, incident)
        for moment in moments.of_incident(
            known,
            incident,
            opened=folding.opened,
            closed=folding.closed,
            actor=self._actor,
            now_ns=self._now_ns,
        ):
            timeline.add(self._ledger, incident.id, moment)

    def _shaded(self, incident: Incident) -> Incident:
        """Return a new incident, in shadow where its rule is."""
        in_shadow = rules.shadow_over(self._ledger, rule_of(incident), now_ns=self._now_ns)
        return replace(incident, shadow=in_shadow is not None and not incident.drill)

    def shade(self, name: RuleName, fault_class: FaultClass, *, shadow: bool) -> None:
        """Put what a rule has open into its shadow, or take it out."""
        for each in self._ledger.open_of(frozenset({fault_class}), limit=_OF_RULE_AT_MOST):
            if each.drill or each.shadow is shadow or rule_of(each) != name:
                continue
            changed = replace(each, shadow=shadow)
            self._ledger.put_incident(changed)
            self.relate(changed)
            self.follow(self._ledger.incident(each.id) or changed)

    def relate(self, incident: Incident, *, repeats: bool = False) -> None:
        """Find out anew what has one cause among what is open of the same model, on its host and around it.

        What only repeats itself changes nothing among the incidents of its host. A drill has no cause and no
        consequence: it stands alone, and nothing is explained by it.
        """
        if incident.drill:
            return
        learnt = not repeats and observed.learn(self._ledger, incident, now_ns=self._now_ns)
        related = self._related(incident, repeats=repeats, learnt=learnt)
        if related:
            self.explain(related)

    def explain(self, waiting: list[Incident]) -> None:
        """Find out anew what explains each of `waiting`, and whatever a change of that may change."""
        relations, done = Relations(self._ledger, now_ns=self._now_ns), set[IncidentId]()
        while waiting:
            each = waiting.pop()
            if each.id in done:
                continue
            done.add(each.id)
            explained_by = relations.explanation(each)
            if explained_by == each.explained_by:
                continue
            changed = replace(each, explained_by=explained_by)
            self._ledger.put_incident(changed)
            verb = "incident.stands_alone" if explained_by is None else "incident.explained"
            self.note(verb, each.id, "" if explained_by is None else f"by {explained_by}")
            self._note_cause(each, changed)
            self.follow(changed)
            if each.fault_class in causes.RELATED and (model := relations.reach.model_of(each)):
                waiting += relations.open_of_model(model)  # a router elsewhere may show the same
            waiting += relations.open_on_host(each.agent_id) + relations.leading_to(each.agent_id)

    def _note_cause(self, before: Incident, after: Incident) -> None:
        """Put it on the timelines of a consequence, of the cause that it had and of the one that it has."""
        ledger, actor, now_ns = self._ledger, self._actor, self._now_ns
        had = None if before.explained_by is None else ledger.incident(before.explained_by)
        has = None if after.explained_by is None else ledger.incident(after.explained_by)
        timeline.add(ledger, after.id, moments.of_cause(has, actor=actor, now_ns=now_ns))
        for cause, joined in ((had, False), (has, True)):
            if cause is not None:
                moment = moments.of_consequence(after, joined=joined, actor=actor, now_ns=now_ns)
                timeline.add(ledger, cause.id, moment)

    def _related(self, incident: Incident, *, repeats: bool, learnt: bool) -> list[Incident]:
        """Return what `incident` may explain or be explained by, after hosts agreed or no longer do."""
        if repeats and incident.fault_class not in causes.RELATED:
            return []
        relations = Relations(self._ledger, now_ns=self._now_ns)
        model = relations.reach.model_of(incident) if incident.fault_class in causes.RELATED else ""
        related = relations.open_of_model(model) if model else []
        if model and self._agree(relations, related, incident):
            relations = Relations(self._ledger, now_ns=self._now_ns)  # what is open is not what it was
            related = relations.open_of_model(model)
            for agent_id in {each.agent_id for each in related} - {incident.agent_id}:
                related += relations.open_on_host(agent_id)
        if repeats or not (learnt or incident.fault_class in RELATED):
            return related
        related += relations.open_on_host(incident.agent_id) + relations.leading_to(incident.agent_id)
        if incident.fault_class in host_causes.BEHIND_RANKS:
            for each in relations.agreements():
                related += relations.open_of_model(causes.model_of(each))
        return related

    def _agree(self, relations: Relations, related: list[Incident], incident: Incident) -> bool:
        """Open, update or clear what hosts agree on, and tell whether; `incident` is what has changed."""
        standing = next((each for each in related if causes.is_agreement(each)), None)
        witnesses = relations.agreeing(related, host=standing.agent_id if standing is not None else None)
        if standing is not None and not witnesses:
            self.fold(causes.disagreement(standing, incident.reasons, now_ns=self._now_ns))
            witnesses = relations.agreeing(related)
            if witnesses:
                self.fold(causes.agreement(witnesses, standing=None, now_ns=self._now_ns))
            return True
        if witnesses:
            self.fold(causes.agreement(witnesses, standing=standing, now_ns=self._now_ns))
        return bool(witnesses)

    def follow(self, incident: Incident) -> None:
        """Bring the incident's recommendations in line with how it stands."""
        standing = self._ledger.recommendations(incident.id)
        if not incident.open:
            for each in standing:
                self.step(each, incident, approvals.CaseCleared())
            return
        if incident.explained_by is not None:
            for each in standing:
                self.step(each, incident, approvals.Explained())
            return
        advice = advise(incident)
        newest = standing[-1] if standing else None
        if incident.shadow:
            self._keep_in_shadow(incident, advice, standing)
            return
        if newest is not None and newest.state is State.SHADOW:
            newest = self.step(newest, incident, approvals.ShadowFell())
        if newest is not None and newest.state is State.PROPOSED:
            newest = self.void(newest, incident)
            restated = approvals.restate(newest, incident, self._within_budget(advice, incident))
            self._keep(newest, restated, incident)
            self.changed.add(newest.id)
            return
        digest = binding.digest_of(advice.action, incident)
        if newest is not None and newest.state is State.APPROVED:
            newest = self.step(newest, incident, approvals.Advised(digest))
        if newest is not None:
            self.changed.add(newest.id)
            if newest.state in approvals.UNFINISHED:
                return
        advice = self._within_budget(advice, incident)
        refused = newest.digest if newest is not None and newest.state is State.REJECTED else None
        if refused == binding.digest_of(advice.action, incident):
            return  # a person has said no to exactly this
        proposal = approvals.propose(
            incident, advice, ordinal=len(standing) + 1, policy=self._policy, now_ns=self._now_ns
        )
        self._keep(None, proposal, incident)

    def _keep_in_shadow(self, incident: Incident, advice: Advice, standing: Sequence[Recommendation]) -> None:
        """Keep what would be proposed where nobody is asked to decide it; what was decided stays decided."""
        newest = standing[-1] if standing else None
        if newest is not None and newest.state is State.SHADOW:
            self._keep(newest, approvals.restate(newest, incident, advice), incident)
            return
        if newest is not None and newest.state in {State.APPROVED, State.DONE, State.REJECTED}:
            return
        if newest is not None and newest.state is State.PROPOSED:
            self.step(newest, incident, approvals.ShadowFell())
        proposal = approvals.propose(
            incident, advice, ordinal=len(standing) + 1, policy=self._policy, now_ns=self._now_ns
        )
        self._keep(None, replace(proposal, state=State.SHADOW), incident)

    def _within_budget(self, advice: Advice, incident: Incident) -> Advice:
        """Return the advice, or to find the cause first where its restart was approved too often already."""
        budget = self._policy.restart_budget
        if advice.action.kind not in RESTARTS or incident.drill:
            return advice
        spent = track_record.TrackRecord(self._ledger).spent(advice.action, budget, now_ns=self._now_ns)
        if spent < budget.approvals:
            return advice
        return find_cause.instead_of(advice, incident, spent=spent, within_s=budget.within_s)

    def weigh_proposals(self) -> None:
        """Keep the conditions of what was proposed as they are found now: the last of a piece of work."""
        if not self._proposed:
            return
        weigher = Weigher(self._ledger, policy=self._policy, now_ns=self._now_ns)
        for each in self._proposed:
            recommendation = self._ledger.recommendation(each)
            if recommendation is not None and recommendation.state is State.PROPOSED:
                checks = weigher.checks(recommendation, incident_of(self._ledger, recommendation))
                weighed.note_proposal(self._ledger, each, checks)

    def step(
        self, recommendation: Recommendation, incident: Incident, event: approvals.Event
    ) -> Recommendation:
        """Apply `event`, keep and audit what it changes, and return it."""
        moved = approvals.step(recommendation, incident, event, policy=self._policy, now_ns=self._now_ns)
        self._keep(recommendation, moved, incident)
        return moved

    def void(self, recommendation: Recommendation, incident: Incident) -> Recommendation:
        """Void what was approved under other rules than these, and return what is left of it."""
        standing = approvals.under(recommendation, policy=self._policy, now_ns=self._now_ns)
        self._keep(recommendation, standing, incident)
        return standing

    def _keep(self, before: Recommendation | None, after: Recommendation, incident: Incident) -> None:
        if before is after:
            return
        self._ledger.put_recommendation(after, incident)
        track_record.note_step(self._ledger, before, after, incident, now_ns=self._now_ns)
        self.changed.add(after.id)
        if after.state is State.PROPOSED and (before is None or before.digest != after.digest):
            self._proposed[after.id] = None
        verb = _verb(before, after)
        if verb is not None:
            given = after.approvals[-1] if verb in _APPROVALS and after.approvals else None
            signed = self._note_signature(after.id, given) if given is not None else ""
            reason = f" reason={after.decision_reason}" if verb in _DECISIONS else ""
            if verb == _VOID and before is not None:
                reason = f" of={','.join(before.approvers)} policy={self._policy.digest}"
            self.note(verb, after.id, f"digest={after.digest}{signed}{reason}")
        moment = moments.of_recommendation(before, after, actor=self._actor, now_ns=self._now_ns)
        if moment is not None:
            timeline.add(self._ledger, incident.id, moment)

    def _note_signature(self, recommendation_id: RecommendationId, given: Approval) -> str:
        """Write a signature to the audit log whole, and return how the decision's entry names it."""
        if given.signed is None:
            return ""
        detail = signing_log.detail_of(given.signed)
        self.note(signing_log.VERB, recommendation_id, detail)
        return f" {signing_log.reference_to(detail)}"


def _verb(before: Recommendation | None, after: Recommendation) -> str | None:
    if before is None or before.state is not after.state:
        return f"recommendation.{after.state}"
    if after.approvers != before.approvers and after.approvers:
        return "recommendation.approved_by_first"
    if after.done_by != before.done_by:
        return "recommendation.marked_done"
    if after.digest != before.digest:
        return "recommendation.restated"
    return _VOID if after.approvers != before.approvers else None


def _same_ground(before: Incident, after: Incident) -> bool:
    """Return whether nothing changed that an advice or its digest depends on, as with most updates."""
    return (
        before.open
        and after.open
        and before.drill is after.drill
        and before.case_id == after.case_id
        and before.incarnation == after.incarnation
        and before.target == after.target
        and before.explained_by == after.explained_by
        and before.evidence == after.evidence
    )
