"""The life of a recommendation: a table of moves, and the one way in which something becomes approved.

What an approval is bound to is in `binding`.

Time only ever takes away. Every clock check refuses when the deadline has passed *or* when the clock stands
before the moment that started it, so that neither a jump forward nor one back can revive anything.

Longer than other modules because the table and every move along it are read, and reviewed, as one.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, assert_never

import msgspec

from escalation.inert import harmless
from escalation.model import (
    ActionKind,
    Advice,
    Approval,
    Condition,
    FaultClass,
    Incident,
    Override,
    ReasonCode,
    Recommendation,
    RecommendationId,
    State,
)
from escalation.server.decision.binding import bound_of, digest_of
from escalation.server.decision.policies import (
    ApprovalPolicy,
    Demands,
    PolicyCase,
    case_of,
    demands,
    together,
)
from escalation.server.decision.track_record import RestartBudget
from escalation.server.desk import Checked, DeskError, Expired, Refused, Superseded
from escalation.signing import approval
from escalation.signing.approval import ApprovalError, Terms
from escalation.wording.moments import moment

MOVES: Final[Mapping[State, frozenset[State]]] = {
    State.PROPOSED: frozenset({State.APPROVED, State.REJECTED, State.EXPIRED, State.WITHDRAWN}),
    State.APPROVED: frozenset({State.DONE, State.LAPSED}),
    State.DONE: frozenset({State.VERIFIED, State.NOT_CURED}),
    State.REJECTED: frozenset(),
    State.EXPIRED: frozenset(),
    State.WITHDRAWN: frozenset(),
    State.LAPSED: frozenset(),
    State.VERIFIED: frozenset(),
    State.NOT_CURED: frozenset(),
    State.SHADOW: frozenset({State.WITHDRAWN}),
}
"""The whole machine: what may follow what. A state that nothing follows is final."""

UNFINISHED: Final = frozenset(state for state, following in MOVES.items() if following)

REASON_LIMIT: Final = 2000
"""How long a decision's reason may be, in characters."""

MAY_OVERRIDE: Final = frozenset(Condition) - {Condition.SAME_LIFE, Condition.BUDGET_LEFT}
"""What a person may set aside when nobody has said otherwise."""

_BUDGET: Final = RestartBudget()

_RECOMMENDATIONS: Final = uuid.UUID("6b0b5c1e-6f0a-5d0c-9c83-2f5a1f0f7a10")

_CURED_ALIVE: Final = frozenset({FaultClass.UNIT_RESTART_LOOP})
"""Faults of what cannot stay up: only staying up is their cure."""

_NO_PROOF: Final = frozenset({ReasonCode.NOT_SEEN_SINCE, ReasonCode.NOT_WATCHED})
"""Why a case may end without anybody having seen that its fault is over."""

_CLOCK_SLACK_NS: Final = 60_000_000_000
"""How far a clock may be set back (time synchronisation) before what it started counts as expired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Who may approve what, and for how long.

    `approvers` names the persons per kind of action; a kind that is not in it may be approved by every
    operator. `two_person` are the kinds that two different persons must approve, `require_signature` those
    that count only when signed. `quiet_at_most_s` cuts the time that a fault must have stayed away, for
    drills: a proof of recovery may name many hours. `catalogue` is which playbook advises.
    `policies` ask for more where they fit. Of the conditions of an action those in `may_override` may be set
    aside by name; one that is not known refuses the kinds in `refuse_unknown`.
    """

    approve_within_s: float = 4 * 3600
    execute_within_s: float = 3600
    approvers: Mapping[ActionKind, frozenset[str]] = field(default_factory=dict)
    two_person: frozenset[ActionKind] = frozenset()
    require_signature: frozenset[ActionKind] = frozenset()
    quiet_at_most_s: float = math.inf
    catalogue: str = ""
    policies: tuple[ApprovalPolicy, ...] = ()
    may_override: frozenset[Condition] = MAY_OVERRIDE
    refuse_unknown: frozenset[ActionKind] = frozenset()
    evidence_max_age_s: float = 1800.0
    restart_budget: RestartBudget = _BUDGET

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the rules for approving, which stands in every approval document."""
        rules = {
            "approve_within_s": self.approve_within_s,
            "execute_within_s": self.execute_within_s,
            "approvers": {kind: sorted(names) for kind, names in self.approvers.items()},
            "two_person": sorted(self.two_person),
            "require_signature": sorted(self.require_signature),
            "policies": [msgspec.to_builtins(each) for each in self.policies],
            "may_override": sorted(self.may_override),
            "refuse_unknown": sorted(self.refuse_unknown),
            "evidence_max_age_s": self.evidence_max_age_s,
            "restart_budget": msgspec.to_builtins(self.restart_budget),
        }
        return approval.sealed(rules)

    def demands(self, case: PolicyCase) -> Demands:
        """Return what it takes to approve `case`, by the lists of kinds and by the tables that fit."""
        of_kind = Demands(
            approvers=self.approvers.get(case.kind),
            two_person=case.kind in self.two_person,
            require_signature=case.kind in self.require_signature,
        )
        return together(of_kind, demands(self.policies, case))


@dataclass(frozen=True, slots=True)
class Approve:
    """`person` approves exactly what `digest` names; `checked` is a signature that was found right.

    `requesters` are those who have asked about it, `overrides` the conditions that are set aside.
    """

    person: str
    reason: str
    digest: str
    checked: Checked | None = None
    requesters: frozenset[str] = frozenset()
    overrides: tuple[Override, ...] = ()


@dataclass(frozen=True, slots=True)
class Reject:
    """`person` rejects it."""

    person: str
    reason: str


@dataclass(frozen=True, slots=True)
class MarkDone:
    """`person` has carried out what was approved."""

    person: str


@dataclass(frozen=True, slots=True)
class CaseCleared:
    """The host says that the fault is gone."""


@dataclass(frozen=True, slots=True)
class Explained:
    """Another open incident explains this one, and it is the other that has to be decided."""


@dataclass(frozen=True, slots=True)
class ShadowFell:
    """The rule that opened it was put in shadow, or taken out of it: what is proposed changes its place."""


@dataclass(frozen=True, slots=True)
class FaultReturned:
    """The same fault on the same subject was reported again after it had cleared."""


@dataclass(frozen=True, slots=True)
class Advised:
    """The playbook was asked again, and this is the digest of what it says now."""

    digest: str


@dataclass(frozen=True, slots=True)
class TimePassed:
    """Nothing happened but time.

    `trusted_ns` is a clock reading that no jump has moved forward; `would_be_seen` is whether the host would
    report the fault if it were there.
    """

    trusted_ns: int
    would_be_seen: bool


Event = (
    Approve | Reject | MarkDone | CaseCleared | Explained | ShadowFell | FaultReturned | Advised | TimePassed
)


def propose(
    incident: Incident, advice: Advice, *, ordinal: int, policy: Policy, now_ns: int
) -> Recommendation:
    """Return the incident's recommendation number `ordinal`; the same input gives the same id for ever."""
    return Recommendation(
        id=RecommendationId(str(uuid.uuid5(_RECOMMENDATIONS, f"{incident.id} {ordinal}"))),
        incident_id=incident.id,
        advice=advice,
        digest=digest_of(advice.action, incident),
        state=State.PROPOSED,
        created_ns=now_ns,
        approve_by_ns=now_ns + int(policy.approve_within_s * 1e9),
    )


def restate(recommendation: Recommendation, incident: Incident, advice: Advice) -> Recommendation:
    """Return a proposal that says `advice` now; what one person of two had approved is void if it changed."""
    if recommendation.state is not State.SHADOW:
        _require(recommendation, State.PROPOSED, "be restated")
    digest = digest_of(advice.action, incident)
    if digest == recommendation.digest:
        return recommendation if advice == recommendation.advice else replace(recommendation, advice=advice)
    return replace(
        recommendation,
        advice=advice,
        digest=digest,
        approvers=(),
        approvals=(),
        decided_by=None,
        decided_ns=None,
        decision_reason=None,
    )


def under(recommendation: Recommendation, *, policy: Policy, now_ns: int) -> Recommendation:
    """Return a proposal without what was approved under other rules; it stays on record as void."""
    if recommendation.state is not State.PROPOSED or not recommendation.approvers:
        return recommendation
    standing = [each for each in recommendation.approvals if each.void_ns is None]
    rules = policy.digest
    if len(standing) == len(recommendation.approvers) and all(each.policy == rules for each in standing):
        return recommendation
    return replace(
        recommendation,
        approvers=(),
        approvals=tuple(
            each if each.void_ns is not None else replace(each, void_ns=now_ns)
            for each in recommendation.approvals
        ),
        decided_by=None,
        decided_ns=None,
        decision_reason=None,
    )


def terms_of(recommendation: Recommendation, incident: Incident, policy: Policy) -> Terms:
    """Return what there is to approve; raise Refused when it cannot be shown whole."""
    try:
        return approval.terms(
            approval.bound_from(bound_of(recommendation.advice.action, incident)),
            entry_id=recommendation.id,
            approve_by=moment(recommendation.approve_by_ns),
            execute_within_s=int(policy.execute_within_s),
            catalogue=policy.catalogue,
            policy=policy.digest,
        )
    except ApprovalError as error:
        raise Refused(f"recommendation {recommendation.id} cannot be signed: {error}") from error


def step(
    recommendation: Recommendation, incident: Incident, event: Event, *, policy: Policy, now_ns: int
) -> Recommendation:
    """Return what `event` makes of `recommendation`; raise a DeskError for what a person may not do.

    The same value comes back when the event changes nothing.
    """
    match event:
        case Approve():
            return _approve(recommendation, incident, event, policy, now_ns)
        case Reject():
            return _reject(recommendation, event, now_ns)
        case MarkDone():
            return _mark_done(recommendation, incident, event, now_ns)
        case CaseCleared():
            return _case_cleared(recommendation, incident, now_ns)
        case Explained() | ShadowFell():
            if recommendation.state in {State.PROPOSED, State.SHADOW}:
                return _finish(recommendation, State.WITHDRAWN, now_ns)
            return recommendation
        case FaultReturned():
            if recommendation.state is State.DONE:
                return _finish(recommendation, State.NOT_CURED, now_ns)
            return recommendation
        case Advised():
            if recommendation.state is State.APPROVED and event.digest != recommendation.digest:
                return _finish(recommendation, State.LAPSED, now_ns)
            return recommendation
        case TimePassed():
            return _time_passed(recommendation, incident, event, policy, now_ns)
        case _:
            assert_never(event)


def _approve(
    recommendation: Recommendation, incident: Incident, event: Approve, policy: Policy, now_ns: int
) -> Recommendation:
    recommendation = under(recommendation, policy=policy, now_ns=now_ns)
    action = recommendation.advice.action
    person, reason = _named(event.person), _stated(event.reason)
    _require(recommendation, State.PROPOSED, "be approved")
    if _is_late(recommendation, now_ns):
        raise Expired(f"recommendation {recommendation.id}: the time to approve it is over")
    if incident.drill:
        raise Refused(
            f"recommendation {recommendation.id} is of a drill: nothing is broken, and nothing to be done; "
            "it can be rejected, or left until the drill ends"
        )
    if action.kind is ActionKind.HUMAN:
        raise Refused(
            f"recommendation {recommendation.id} describes work that a person does by their own judgement; "
            "it can be rejected, or left until the case clears, but not approved"
        )
    if not all(map(harmless, action.command)):
        raise Refused(f"recommendation {recommendation.id} holds characters that cannot be shown as they are")
    asked = policy.demands(case_of(action, incident.fault_class))
    if asked.approvers is not None and person not in asked.approvers:
        raise Refused(f"policy: {person} may not approve {action.kind} actions{_named_in(asked)}")
    if asked.no_self_approval and person in event.requesters:
        raise Refused(f"policy: {person} has asked about it, and may not approve it{_named_in(asked)}")
    standing = digest_of(action, incident)
    if event.digest != recommendation.digest or standing != recommendation.digest or not incident.open:
        raise Superseded(
            f"recommendation {recommendation.id} is not what was shown: its action, its evidence or its "
            "target has changed; look at it again"
        )
    if person in recommendation.approvers:
        raise Refused(f"policy: {action.kind} needs a second person, and {person} has approved already")
    if event.checked is None and asked.require_signature:
        raise Refused(
            f"policy: an approval of {action.kind} has to be signed; nanobotctl approve --sign KEY does it"
        )
    if event.checked is not None:
        _require_same(recommendation, event, event.checked, terms_of(recommendation, incident, policy))
    approvers = (*recommendation.approvers, person)
    given = Approval(
        person=person,
        at_ns=now_ns,
        reason=reason,
        key=None if event.checked is None else event.checked.key,
        signed=None if event.checked is None else event.checked.signed,
        policy=policy.digest,
    )
    approved = replace(
        recommendation,
        approvers=approvers,
        approvals=(*recommendation.approvals, given),
        decided_by=person,
        decided_ns=now_ns,
        decision_reason=reason,
    )
    if asked.two_person and len(approvers) < 2:
        return approved
    execute_by_ns = now_ns + int(policy.execute_within_s * 1e9)
    return replace(approved, state=_move(recommendation, State.APPROVED), execute_by_ns=execute_by_ns)


def _require_same(recommendation: Recommendation, event: Approve, checked: Checked, terms: Terms) -> None:
    """Refuse a document that is not exactly the one of what stands here now, and a key that counted."""
    try:
        signed = approval.parse(checked.signed.document)
        stands = approval.document(
            terms,
            person=event.person,
            reason=_stated(event.reason),
            nonce=signed.nonce,
            set_aside={each.condition: each.reason for each in event.overrides},
        )
    except ApprovalError as error:
        raise Refused(str(error)) from error
    if stands != checked.signed.document:
        names = ", ".join(approval.differing(signed, approval.parse(stands)))
        raise Superseded(
            f"recommendation {recommendation.id} is not what was signed ({names}); look at it again"
        )
    if any(each.key == checked.key and each.void_ns is None for each in recommendation.approvals):
        raise Refused(f"policy: the key {checked.key} has approved this already, for somebody else")


def _named_in(asked: Demands) -> str:
    return f" ({', '.join(asked.because)})" if asked.because else ""


def _reject(recommendation: Recommendation, event: Reject, now_ns: int) -> Recommendation:
    person, reason = _named(event.person), _stated(event.reason)
    _require(recommendation, State.PROPOSED, "be rejected")
    return replace(
        recommendation,
        state=_move(recommendation, State.REJECTED),
        decided_by=person,
        decided_ns=now_ns,
        decision_reason=reason,
        finished_ns=now_ns,
    )


def _mark_done(
    recommendation: Recommendation, incident: Incident, event: MarkDone, now_ns: int
) -> Recommendation:
    person = _named(event.person)
    if recommendation.state is State.DONE and recommendation.done_by is None:
        return replace(recommendation, done_by=person)  # it helped before they could say so
    _require(recommendation, State.APPROVED, "be marked done")
    if _is_late(recommendation, now_ns):
        raise Expired(f"recommendation {recommendation.id}: the time to carry it out is over")
    if digest_of(recommendation.advice.action, incident) != recommendation.digest:
        raise Superseded(
            f"recommendation {recommendation.id}: what was approved is not what stands there now"
        )
    state = _move(recommendation, State.DONE)
    return replace(recommendation, state=state, done_by=person, done_ns=now_ns)


def _case_cleared(recommendation: Recommendation, incident: Incident, now_ns: int) -> Recommendation:
    if incident.open:
        return recommendation
    if recommendation.state in {State.PROPOSED, State.SHADOW}:
        return _finish(recommendation, State.WITHDRAWN, now_ns)
    if recommendation.state is State.APPROVED:
        if _is_late(recommendation, now_ns) or _ended_uncured(incident):
            return _finish(recommendation, State.LAPSED, now_ns)
        return replace(recommendation, state=_move(recommendation, State.DONE), done_ns=now_ns)
    return recommendation


def _time_passed(
    recommendation: Recommendation, incident: Incident, event: TimePassed, policy: Policy, now_ns: int
) -> Recommendation:
    match recommendation.state:
        case State.PROPOSED:
            if _is_late(recommendation, now_ns):
                return _finish(recommendation, State.EXPIRED, now_ns)
        case State.APPROVED:
            if _is_late(recommendation, now_ns):
                return _finish(recommendation, State.LAPSED, now_ns)
        case State.DONE:
            return _verify(recommendation, incident, event, policy, now_ns)
        case (
            State.REJECTED
            | State.EXPIRED
            | State.WITHDRAWN
            | State.LAPSED
            | State.VERIFIED
            | State.NOT_CURED
            | State.SHADOW
        ):
            pass
        case _:
            assert_never(recommendation.state)
    return recommendation


@dataclass(frozen=True, slots=True)
class Due:
    """When time alone may change something: from `at_ns` on, or when the clock stands before `since_ns`."""

    at_ns: int
    since_ns: int

    def is_over(self, now_ns: int) -> bool:
        """Return whether it has to be looked at by now."""
        return now_ns >= self.at_ns or now_ns < self.since_ns


_AT_ANY_TIME: Final = Due(0, 0)


def due_of(recommendation: Recommendation) -> Due | None:
    """Return when time alone may change it; None: never. What may not be due has not even to be read.

    When something carried out is verified depends on its incident, its host and the settings: always.
    """
    match recommendation.state:
        case State.PROPOSED:
            return Due(recommendation.approve_by_ns, recommendation.created_ns - _CLOCK_SLACK_NS)
        case State.APPROVED:
            if recommendation.decided_ns is None or recommendation.execute_by_ns is None:
                return _AT_ANY_TIME
            return Due(recommendation.execute_by_ns, recommendation.decided_ns - _CLOCK_SLACK_NS)
        case State.DONE:
            return _AT_ANY_TIME
        case _:
            return None


def _verify(
    recommendation: Recommendation, incident: Incident, event: TimePassed, policy: Policy, now_ns: int
) -> Recommendation:
    """Give credit only for time that certainly passed, to a host that can see: silence proves nothing."""
    proof = recommendation.advice.verification
    if incident.open:
        since_ns = recommendation.done_ns or now_ns
        late = event.trusted_ns >= since_ns + int(proof.within_s * 1e9)
        return _finish(recommendation, State.NOT_CURED, now_ns) if late else recommendation
    if _ended_uncured(incident):
        return _finish(recommendation, State.NOT_CURED, now_ns)
    quiet_from_ns = max(incident.cleared_ns or now_ns, recommendation.done_ns or 0)
    quiet_s = min(proof.quiet_s, policy.quiet_at_most_s)
    quiet = event.trusted_ns >= quiet_from_ns + int(quiet_s * 1e9)
    if quiet and event.would_be_seen:
        return _finish(recommendation, State.VERIFIED, now_ns)
    return recommendation


def _ended_uncured(incident: Incident) -> bool:
    """Return whether it cleared because what should stay up is gone, or nobody looks: no proof of a cure."""
    if incident.open:
        return False
    codes = {reason.code for reason in incident.reasons}
    gone = incident.fault_class in _CURED_ALIVE and ReasonCode.CGROUP_GONE in codes
    return gone or not codes.isdisjoint(_NO_PROOF)


def _finish(recommendation: Recommendation, state: State, now_ns: int) -> Recommendation:
    return replace(recommendation, state=_move(recommendation, state), finished_ns=now_ns)


def _move(recommendation: Recommendation, to: State) -> State:
    if to not in MOVES[recommendation.state]:
        raise DeskError(f"recommendation {recommendation.id} cannot go from {recommendation.state} to {to}")
    return to


def _require(recommendation: Recommendation, state: State, what: str) -> None:
    if recommendation.state is state:
        return
    message = f"recommendation {recommendation.id} is {recommendation.state} and cannot {what}"
    if recommendation.state in {State.EXPIRED, State.LAPSED}:
        raise Expired(message)
    if recommendation.state is State.WITHDRAWN:
        raise Superseded(message)
    raise Refused(message)


def _is_late(recommendation: Recommendation, now_ns: int) -> bool:
    """Return whether the time to approve, or to carry out, is over, or its clock was set back."""
    due = due_of(recommendation)
    return due is not None and due.is_over(now_ns)


def _named(person: str) -> str:
    if not person.strip():
        raise Refused("a decision needs the name of the person who takes it")
    return person


def _stated(reason: str) -> str:
    stated = reason.strip()
    if not stated:
        raise Refused("a decision needs a reason")
    if "\0" in stated:
        raise Refused("the reason holds a character that not every database can keep (NUL)")
    if len(stated) > REASON_LIMIT:
        raise Refused(f"the reason is longer than {REASON_LIMIT} characters")
    return stated
