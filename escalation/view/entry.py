"""What people and their tools see: one view model for the command line, the web page and the API.

Everything in a view is ready to be shown: host text is inert, times are RFC 3339 UTC, codes have become
sentences. The one exception is an action's command: its elements stand exactly as they would be run, which
is why a command that holds an invisible or active character is no longer `whole`, and cannot be approved.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from escalation.inert import harmless, shown
from escalation.model import (
    Action,
    Capture,
    Evidence,
    Incident,
    RouteId,
    State,
    Subject,
    evidence_kind,
)
from escalation.rule_names import rule_of
from escalation.server.desk import AuditEntry, Entry, HostState
from escalation.view.attention import NO_ATTENTION, AttentionView, attention_view
from escalation.view.signing import ApprovalView, approval_view
from escalation.view.weighing import (
    AlternativeView,
    HistoryView,
    OverrideView,
    PreconditionView,
    PriceView,
    VerdictView,
    alternative_views,
    history_view,
    override_views,
    precondition_views,
    price_view,
    verdict_view,
)
from escalation.wording.codes import (
    coverage_words,
    headline,
    loss_words,
    marked,
    state_sentence,
    why_not_approvable,
)
from escalation.wording.evidence import fact
from escalation.wording.moments import moment as moment  # noqa: PLC0414 -- other views take it from here
from escalation.wording.quantities import LABEL_LIMIT
from escalation.wording.reason import sentence

Scalar = str | int | float | bool | None

NOT_FINISHED: Final = frozenset({State.PROPOSED, State.APPROVED, State.DONE})
"""The states in which an entry still asks something of somebody."""


@dataclass(frozen=True, slots=True)
class SubjectView:
    """What an entry is about, or what an action acts on."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionView:
    """An action: `command` is the exact argument list, `command_line` the same quoted for a POSIX shell.

    When the command cannot be shown whole, `whole` is false, `command` shows it escaped and `command_line`
    is None. `refusal` says why it cannot be approved, and is None when it can.
    """

    kind: str
    host: str
    target: SubjectView
    command: tuple[str, ...]
    command_line: str | None
    whole: bool
    refusal: str | None


@dataclass(frozen=True, slots=True)
class CuredBefore:
    """How often this remedy cured this fault on this subject, of how many times it was tried."""

    cured: int
    tried: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsequenceView:
    """An open incident that another one explains."""

    incident_id: str
    host: str
    fault_class: str
    headline: str
    subject: SubjectView


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTextView:
    """What a language model wrote about an entry: apart from everything else, and never believed.

    The cause is one of a list of ours (`likely_cause_words` says it), `notes` is plain text of the model's,
    and `follow_up` are indexes into the entry's `evidence`. It is no part of what is kept or decided.
    """

    model: str
    likely_cause: str
    likely_cause_words: str
    notes: str
    follow_up: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryView:
    """One entry of the queue."""

    id: str
    incident_id: str
    host: str
    fault_class: str
    headline: str
    severity: str
    subject: SubjectView
    summary: str
    first_seen: str
    last_seen: str
    cleared_at: str | None
    count: int
    incident_open: bool
    state: str
    state_means: str
    action: ActionView
    risk: str
    will_not_fix: str
    verify: str
    verify_within_s: float
    verify_quiet_s: float
    digest: str
    reasons: tuple[str, ...]
    evidence: tuple[dict[str, Scalar], ...]
    created_at: str
    approve_by: str
    execute_by: str | None
    approvers: tuple[str, ...]
    decided_by: str | None
    decided_at: str | None
    decision_reason: str | None
    done_by: str | None
    done_at: str | None
    finished_at: str | None
    cured_before: CuredBefore
    explained_by: str | None = None
    explains: tuple[ConsequenceView, ...] = ()
    drill: bool = False
    returns: int = 0
    attention: AttentionView = NO_ATTENTION
    alternatives: tuple[AlternativeView, ...] = ()
    preconditions: tuple[PreconditionView, ...] = ()
    price: PriceView | None = None
    history: HistoryView | None = None
    approvals: tuple[ApprovalView, ...] = ()
    model_text: ModelTextView | None = None
    set_aside: tuple[OverrideView, ...] = ()
    rule: str = ""
    verdict: VerdictView | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentView:
    """One incident; what a rule in `shadow` found is kept and told to nobody."""

    id: str
    host: str
    fault_class: str
    headline: str
    severity: str
    subject: SubjectView
    open: bool
    first_seen: str
    last_seen: str
    cleared_at: str | None
    count: int
    reasons: tuple[str, ...]
    evidence: tuple[dict[str, Scalar], ...]
    explained_by: str | None = None
    drill: bool = False
    returns: int = 0
    rule: str = ""
    shadow: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageView:
    """Whether one sensor sees; `reason` is the code and `words` the sentence for it."""

    sensor: str
    seeing: bool
    reason: str | None
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LossView:
    """What was lost on the way from a host."""

    kind: str
    sensor: str
    count: int
    exact: bool
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HostView:
    """What is known of one host, and what it cannot see."""

    host: str
    last_heard: str
    silent: bool
    agent_version: str
    open_cases: int
    coverage: tuple[CoverageView, ...]
    losses: tuple[LossView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditView:
    """One link of the audit chain with the exact values that its digest covers; not made inert."""

    number: int
    at: str
    at_ns: int
    actor: str
    verb: str
    object_id: str
    detail: str
    previous: str
    digest: str


def entry_view(entry: Entry) -> EntryView:
    """Return what a person sees of a queue entry."""
    recommendation, incident = entry.recommendation, entry.incident
    advice = recommendation.advice
    return EntryView(
        id=shown(recommendation.id),
        incident_id=shown(incident.id),
        host=shown(incident.agent_id),
        fault_class=_fault_name(incident),
        headline=_headline(incident),
        severity=incident.severity.value,
        subject=_subject(incident.subject),
        summary=shown(advice.summary),
        first_seen=moment(incident.first_seen_ns),
        last_seen=moment(incident.last_seen_ns),
        cleared_at=_moment_or_none(incident.cleared_ns),
        count=incident.count,
        incident_open=incident.open,
        state=recommendation.state.value,
        state_means=state_sentence(recommendation.state, approvers=len(recommendation.approvers)),
        action=action_view(advice.action, drill=incident.drill),
        risk=shown(advice.risk),
        will_not_fix=shown(advice.will_not_fix),
        verify=shown(advice.verification.text),
        verify_within_s=advice.verification.within_s,
        verify_quiet_s=advice.verification.quiet_s,
        digest=shown(recommendation.digest),
        reasons=tuple(sentence(reason) for reason in incident.reasons),
        evidence=tuple(evidence_view(evidence) for evidence in incident.evidence),
        created_at=moment(recommendation.created_ns),
        approve_by=moment(recommendation.approve_by_ns),
        execute_by=_moment_or_none(recommendation.execute_by_ns),
        approvers=tuple(map(shown, recommendation.approvers)),
        decided_by=_shown_or_none(recommendation.decided_by),
        decided_at=_moment_or_none(recommendation.decided_ns),
        decision_reason=_shown_or_none(recommendation.decision_reason),
        done_by=_shown_or_none(recommendation.done_by),
        done_at=_moment_or_none(recommendation.done_ns),
        finished_at=_moment_or_none(recommendation.finished_ns),
        cured_before=CuredBefore(entry.cured, entry.tried),
        explained_by=_shown_or_none(incident.explained_by),
        explains=tuple(consequence_view(each) for each in entry.explains),
        drill=incident.drill,
        returns=incident.returns,
        attention=attention_view(entry.attention),
        alternatives=alternative_views(advice.alternatives),
        preconditions=precondition_views(entry.preconditions, entry.at_proposal),
        price=None if entry.price is None else price_view(entry.price),
        history=None if entry.history is None else history_view(entry.history),
        approvals=tuple(map(approval_view, recommendation.approvals)),
        set_aside=override_views(entry.weighed),
        rule=rule_of(incident),
        verdict=None if entry.verdict is None else verdict_view(entry.verdict),
    )


def consequence_view(incident: Incident) -> ConsequenceView:
    """Return an incident in the few words in which another one names it."""
    return ConsequenceView(
        incident_id=shown(incident.id),
        host=shown(incident.agent_id),
        fault_class=_fault_name(incident),
        headline=_headline(incident),
        subject=_subject(incident.subject),
    )


def action_view(action: Action, *, drill: bool = False) -> ActionView:
    """Return an action whole, or say that it cannot be shown so."""
    whole = all(harmless(element) for element in action.command)
    refusal = why_not_approvable(action.kind, drill=drill)
    if not whole:
        refusal = "its command holds characters that cannot be shown as they are"
    return ActionView(
        kind=action.kind.value,
        host=shown(action.host),
        target=_subject(action.target),
        command=action.command if whole else tuple(shown(element) for element in action.command),
        command_line=shell_line(action.command),
        whole=whole,
        refusal=refusal,
    )


def shell_line(command: Sequence[str]) -> str | None:
    """Return an argument list quoted for a POSIX shell, None when it cannot be shown whole."""
    return shlex.join(command) if all(map(harmless, command)) else None


def evidence_view(evidence: Evidence) -> dict[str, Scalar]:
    """Return evidence as its kind, its fields and the fact in words."""
    view: dict[str, Scalar] = {"kind": evidence_kind(evidence)}
    for item in dataclasses.fields(evidence):
        value = getattr(evidence, item.name)
        if isinstance(value, RouteId):  # said flat, as everything else of a piece of evidence
            view |= {each.name: _scalar(getattr(value, each.name)) for each in dataclasses.fields(value)}
        else:
            view[item.name] = _scalar(value)
    view["fact"] = fact(evidence)
    return view


def _scalar(value: Any) -> Scalar:
    """Return a field of evidence as one plain value; what is a list reads as its entries."""
    match value:
        case str():
            return shown(value)
        case tuple():
            return ", ".join(str(_scalar(each)) for each in value)
        case Capture():
            return shown(f"{value.name} {value.word if value.number is None else f'{value.number:g}'}")
        case _:
            number: Scalar = value
            return number


def incident_view(incident: Incident) -> IncidentView:
    """Return what a person sees of an incident."""
    return IncidentView(
        id=shown(incident.id),
        host=shown(incident.agent_id),
        fault_class=_fault_name(incident),
        headline=_headline(incident),
        severity=incident.severity.value,
        subject=_subject(incident.subject),
        open=incident.open,
        first_seen=moment(incident.first_seen_ns),
        last_seen=moment(incident.last_seen_ns),
        cleared_at=_moment_or_none(incident.cleared_ns),
        count=incident.count,
        reasons=tuple(sentence(reason) for reason in incident.reasons),
        evidence=tuple(evidence_view(evidence) for evidence in incident.evidence),
        explained_by=_shown_or_none(incident.explained_by),
        drill=incident.drill,
        returns=incident.returns,
        rule=rule_of(incident),
        shadow=incident.shadow,
    )


def host_view(host: HostState) -> HostView:
    """Return what is known of a host; a silent host sees nothing, whatever its last heartbeat said."""
    return HostView(
        host=shown(host.agent_id),
        last_heard=moment(host.last_heard_ns),
        silent=host.silent,
        agent_version=shown(host.agent_version, limit=LABEL_LIMIT),
        open_cases=host.open_cases,
        coverage=tuple(
            CoverageView(
                sensor=shown(coverage.sensor, limit=LABEL_LIMIT),
                seeing=coverage.blind is None and not host.silent,
                reason=coverage.blind.value if coverage.blind else "host_silent" if host.silent else None,
                words="not known: the host is silent"
                if host.silent and coverage.blind is None
                else coverage_words(coverage),
            )
            for coverage in host.coverage
        ),
        losses=tuple(
            LossView(
                kind=loss.kind.value,
                sensor=shown(loss.sensor, limit=LABEL_LIMIT),
                count=loss.count,
                exact=loss.exact,
                words=loss_words(loss),
            )
            for loss in host.losses
        ),
    )


def audit_view(entry: AuditEntry) -> AuditView:
    """Return an audit entry with the exact values that its digest covers."""
    return AuditView(
        number=entry.number,
        at=moment(entry.at_ns),
        at_ns=entry.at_ns,
        actor=entry.actor,
        verb=entry.verb,
        object_id=entry.object_id,
        detail=entry.detail,
        previous=entry.previous,
        digest=entry.digest,
    )


def _headline(incident: Incident) -> str:
    return marked(headline(incident.fault_class, incident.fault_number), drill=incident.drill)


def _fault_name(incident: Incident) -> str:
    if incident.fault_number is not None:
        return f"{incident.fault_class.value}:{incident.fault_number}"
    return incident.fault_class.value


def _subject(subject: Subject) -> SubjectView:
    return SubjectView(subject.kind.value, shown(subject.name))


def _moment_or_none(at_ns: int | None) -> str | None:
    return None if at_ns is None else moment(at_ns)


def _shown_or_none(text: str | None) -> str | None:
    return None if text is None else shown(text)
