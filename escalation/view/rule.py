"""Rules as people see them: what each found, how often it was right, and whether it is in shadow."""

from __future__ import annotations

from dataclasses import dataclass

from escalation.inert import shown
from escalation.model import Reason
from escalation.server.decision.rules import RuleState, Shadow
from escalation.view.weighing import VerdictView, verdict_view
from escalation.wording.codes import headline
from escalation.wording.moments import moment
from escalation.wording.quantities import counted
from escalation.wording.reason import sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowView:
    """Who put a rule in shadow, why, since when and until when."""

    person: str
    reason: str
    since: str
    until: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedView:
    """One incident of a rule and what a person says of it."""

    incident_id: str
    verdict: VerdictView


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleView:
    """One rule over the last `days`: what it opened, and what people say of that.

    `precision` says how often it was right in words that keep the numbers; `suggestion` is only one. A
    `guarded` rule is put in shadow only by who names it twice.
    """

    rule: str
    fault_class: str
    headline: str
    reason: str
    days: int
    opened: int
    in_shadow: int
    faults: int
    not_faults: int
    precision: str
    guarded: bool
    shadow: ShadowView | None
    suggestion: str
    verdicts: tuple[JudgedView, ...]


_VERDICTS_AT_MOST = 50


def rule_view(state: RuleState) -> RuleView:
    """Return what a person sees of a rule; its verdicts are the newest, newest first."""
    newest = sorted(state.verdicts.items(), key=lambda item: (-item[1].at_ns, item[0]))
    return RuleView(
        rule=state.name,
        fault_class=state.fault_class.value,
        headline=headline(state.fault_class),
        reason=sentence(Reason(state.reason_code)),
        days=state.days,
        opened=state.opened,
        in_shadow=state.in_shadow,
        faults=state.faults,
        not_faults=state.not_faults,
        precision=_precision(state),
        guarded=state.guarded,
        shadow=None if state.shadow is None else _shadow_view(state.shadow),
        suggestion=state.suggestion,
        verdicts=tuple(
            JudgedView(incident_id=shown(incident_id), verdict=verdict_view(verdict))
            for incident_id, verdict in newest[:_VERDICTS_AT_MOST]
        ),
    )


def _precision(state: RuleState) -> str:
    judged = state.faults + state.not_faults
    if not judged:
        return f"not judged in {counted(state.days, 'day')}"
    were = "was a fault" if state.faults == 1 else "were faults"
    return f"{state.faults} of {judged} judged {were} in {counted(state.days, 'day')}"


def _shadow_view(shadow: Shadow) -> ShadowView:
    return ShadowView(
        person=shown(shadow.person),
        reason=shown(shadow.reason),
        since=moment(shadow.since_ns),
        until=moment(shadow.until_ns),
    )
