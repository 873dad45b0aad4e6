"""What a change is called on the timeline: pure functions from how things stood and stand to moments."""

from __future__ import annotations

from typing import Final

from escalation.model import Incident, Recommendation, Severity, State, evidence_kind
from escalation.server.incident.timeline import Moment, MomentKind
from escalation.wording.codes import action_headline, headline, marked

_OF_STATE: Final = {
    State.PROPOSED: MomentKind.PROPOSED,
    State.APPROVED: MomentKind.APPROVED,
    State.REJECTED: MomentKind.REJECTED,
    State.EXPIRED: MomentKind.EXPIRED,
    State.WITHDRAWN: MomentKind.WITHDRAWN,
    State.DONE: MomentKind.DONE,
    State.LAPSED: MomentKind.LAPSED,
    State.VERIFIED: MomentKind.VERIFIED,
    State.NOT_CURED: MomentKind.NOT_CURED,
    State.SHADOW: MomentKind.SHADOWED,
}

_WORDS: Final = {
    MomentKind.PROPOSED: "proposed: {action}",
    MomentKind.RESTATED: "the proposal was restated: {action}",
    MomentKind.APPROVED_BY_FIRST: "approved by the first of two: {action}",
    MomentKind.APPROVAL_VOID: "the first approval of two is void, the rules for approving changed: {action}",
    MomentKind.APPROVED: "approved: {action}",
    MomentKind.REJECTED: "rejected: {action}",
    MomentKind.EXPIRED: "nobody decided in time: {action}",
    MomentKind.WITHDRAWN: "withdrawn: {action}",
    MomentKind.LAPSED: "what was approved was not carried out in time, or no longer fits: {action}",
    MomentKind.DONE: "done: {action}",
    MomentKind.VERIFIED: "verified, the fault stayed away: {action}",
    MomentKind.NOT_CURED: "did not cure it: {action}",
    MomentKind.SHADOWED: "its rule is in shadow, so this is not proposed: {action}",
}

_WITH_REASON: Final = frozenset({MomentKind.APPROVED_BY_FIRST, MomentKind.APPROVED, MomentKind.REJECTED})


def of_incident(
    before: Incident | None, after: Incident, *, opened: bool, closed: bool, actor: str, now_ns: int
) -> list[Moment]:
    """Return what a report made of an incident: what began or ended, and what of it matters to a reader."""
    found: list[tuple[MomentKind, str]] = []
    if before is None:
        kind = MomentKind.OPENED if opened else MomentKind.RECORDED
        over = "" if opened else ", and is over"
        found.append((kind, f"{named(after)}, {after.severity}{over}"))
    elif opened:
        found.append((MomentKind.RETURNED, f"it is back, for the {after.returns}. time, {after.severity}"))
    else:
        if before.drill and not after.drill:
            found.append((MomentKind.NO_DRILL, "it is no drill"))
        if before.severity is not after.severity and after.severity is not Severity.UNKNOWN:
            found.append((MomentKind.UPDATED, f"now {after.severity}, was {before.severity}"))
        same = list(map(type, before.evidence)) == list(map(type, after.evidence))
        if not same and (new := sorted(_kinds(after) - _kinds(before))):
            found.append(
                (MomentKind.UPDATED, f"new evidence: {', '.join(each.replace('_', ' ') for each in new)}")
            )
        if before.open and after.open and before.incarnation != after.incarnation:
            found.append(
                (MomentKind.UPDATED, f"{_what_changed(before, after)}, and the fault is still there")
            )
    if closed:
        found.append((MomentKind.CLEARED, "cleared by the detector that raised it"))
    return [Moment(now_ns, kind, words, actor) for kind, words in found]


def of_recommendation(
    before: Recommendation | None, after: Recommendation, *, actor: str, now_ns: int
) -> Moment | None:
    """Return what became of a recommendation; None where nothing did that a reader has to know."""
    kind = _kind(before, after)
    if kind is None:
        return None
    words = _WORDS[kind].format(action=action_headline(after.advice.action.kind))
    if kind in _WITH_REASON and after.decision_reason:
        words = f"{words} ({after.decision_reason})"
    return Moment(now_ns, kind, words, actor, about=after.id)


def of_cause(cause: Incident | None, *, actor: str, now_ns: int) -> Moment:
    """Return the moment on a consequence's timeline: its cause was found, or there is none any more."""
    if cause is None:
        return Moment(now_ns, MomentKind.CAUSE_LOST, "stands alone: nothing that is open explains it", actor)
    return Moment(now_ns, MomentKind.CAUSE_FOUND, f"explained by: {located(cause)}", actor, about=cause.id)


def of_consequence(consequence: Incident, *, joined: bool, actor: str, now_ns: int) -> Moment:
    """Return the moment on a cause's timeline: a consequence joined it or left it."""
    kind = MomentKind.JOINED if joined else MomentKind.LEFT
    words = "a consequence joined" if joined else "no longer its consequence"
    return Moment(now_ns, kind, f"{words}: {located(consequence)}", actor, about=consequence.id)


def named(incident: Incident) -> str:
    """Return what an incident is, as a headline."""
    return marked(headline(incident.fault_class, incident.fault_number), drill=incident.drill)


def located(incident: Incident) -> str:
    """Return what an incident is, and on which host."""
    return f"{named(incident)} on {incident.agent_id}"


def _kind(before: Recommendation | None, after: Recommendation) -> MomentKind | None:
    if before is None or before.state is not after.state:
        return _OF_STATE[after.state]
    if after.approvers != before.approvers and after.approvers:
        return MomentKind.APPROVED_BY_FIRST
    if after.done_by != before.done_by:
        return MomentKind.DONE
    if after.digest != before.digest:
        return MomentKind.RESTATED
    return MomentKind.APPROVAL_VOID if after.approvers != before.approvers else None


def _kinds(incident: Incident) -> set[str]:
    return {evidence_kind(each) for each in incident.evidence}


def _what_changed(before: Incident, after: Incident) -> str:
    was, now = before.incarnation, after.incarnation
    if was.kernel_boot_id != now.kernel_boot_id:
        return "the host booted"
    if was.container_id != now.container_id:
        return "its container is another one"
    return "its process is another one"
