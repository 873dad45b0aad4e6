"""Which detections can be trusted: a rule is a fault class and the reason for which a detector opened a case.

People say of an incident whether there was a fault. From that follows how often a rule was right, in numbers
that stay small: "2 of 3", never a share of a handful. A rule that is often wrong may be put in shadow by a
person, for a time: what it finds is kept, counted and shown, and neither proposed nor told. The program never
does that by itself, and only suggests it; nobody does it to what guards the fleet without saying so twice.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal

import msgspec

from escalation.model import FaultClass, Incident, ReasonCode, Verdict
from escalation.rule_names import RuleName, parts_of, rule_of
from escalation.server.attention.silences import fits_pattern
from escalation.server.clock import is_over
from escalation.server.decision.policies import Glob
from escalation.server.storage.records import Kind
from escalation.server.storage.store import Ledger
from escalation.server.web.access import Role
from escalation.wording.quantities import counted

_DAY_NS: Final = 86_400 * 10**9
_DAYS_KEPT: Final = 92


class RuleSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[rules]` table: who may put a rule in shadow, for how long, and when that is suggested.

    `guarded` are the fault classes whose rules are put in shadow only by who names the rule twice.
    """

    shadow_role: Literal["operator", "admin"] = "operator"
    shadow_at_most_days: Annotated[float, msgspec.Meta(gt=0, le=90)] = 14.0
    precision_days: Annotated[int, msgspec.Meta(ge=1, le=90)] = 30
    suggest_after: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 3
    guarded: tuple[Glob, ...] = ("exposure.*", "monitor.blind", "scope.violation")

    @property
    def role(self) -> Role:
        """Return who may put a rule in shadow."""
        return Role(self.shadow_role)

    def guards(self, fault_class: FaultClass) -> bool:
        """Return whether a rule of this class is put in shadow only by who says so twice."""
        return any(fits_pattern(each, fault_class.value) for each in self.guarded)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """Who put a rule in shadow, why, and until when."""

    person: str
    reason: str
    since_ns: int
    until_ns: int

    def is_over(self, now_ns: int) -> bool:
        """Return whether its time is over, or the clock went back before it began."""
        return is_over(started_ns=self.since_ns, ends_ns=self.until_ns, now_ns=now_ns)


@dataclass(frozen=True, slots=True)
class Openings:
    """How many incidents a rule opened on one day, and how many of them in shadow."""

    count: int = 0
    in_shadow: int = 0


VERDICTS: Final = Kind("verdict", Verdict)
"""Owned by the rule, by incident: the last word on each. The earlier ones are in the audit log."""

SHADOWS: Final = Kind("shadow", Shadow)
"""By rule, while it is in force."""

OPENINGS: Final = Kind("openings", Openings)
"""Owned by the rule, by day (UTC)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleState:
    """What is known of one rule, over the last `days`."""

    name: RuleName
    fault_class: FaultClass
    reason_code: ReasonCode
    days: int
    opened: int
    in_shadow: int
    faults: int
    not_faults: int
    shadow: Shadow | None
    guarded: bool
    verdicts: Mapping[str, Verdict]
    suggestion: str = ""


def shadow_over(ledger: Ledger, name: RuleName, *, now_ns: int) -> Shadow | None:
    """Return the shadow that a rule is in now."""
    shadow = ledger.records.of(SHADOWS).get(name)
    return None if shadow is None or shadow.is_over(now_ns) else shadow


def count_opening(ledger: Ledger, incident: Incident, *, now_ns: int) -> None:
    """Count an incident that was opened for its rule, and forget the days of long ago."""
    if incident.drill:
        return
    owner, today = rule_of(incident), day_of(now_ns)
    days = ledger.records.of(OPENINGS, owner=owner)
    known = days.get(today, Openings())
    now = replace(known, count=known.count + 1, in_shadow=known.in_shadow + incident.shadow)
    ledger.records.put(OPENINGS, today, now, owner=owner)
    if today not in days:
        for day in [each for each in days if each < day_of(now_ns - _DAYS_KEPT * _DAY_NS)]:
            ledger.records.remove(OPENINGS, day, owner=owner)


def known_rules(ledger: Ledger, settings: RuleSettings, *, now_ns: int) -> Sequence[RuleState]:
    """Return every rule that opened something, was judged or is in shadow, by name."""
    names = {owner for owner, _ in ledger.records.owners(OPENINGS)}
    names |= {owner for owner, _ in ledger.records.owners(VERDICTS)}
    names |= set(ledger.records.of(SHADOWS))
    states = (state_of(ledger, RuleName(each), settings, now_ns=now_ns) for each in sorted(names))
    return [each for each in states if each is not None]


def state_of(ledger: Ledger, name: RuleName, settings: RuleSettings, *, now_ns: int) -> RuleState | None:
    """Return what is known of a rule; None for a name that no rule can have."""
    parts = parts_of(name)
    if parts is None:
        return None
    since_ns = now_ns - settings.precision_days * _DAY_NS
    days = ledger.records.of(OPENINGS, owner=name)
    recent = [each for day, each in days.items() if day >= day_of(since_ns)]
    verdicts = {
        incident_id: each
        for incident_id, each in ledger.records.of(VERDICTS, owner=name).items()
        if each.at_ns > since_ns
    }
    faults = sum(each.fault for each in verdicts.values())
    state = RuleState(
        name=name,
        fault_class=parts[0],
        reason_code=parts[1],
        days=settings.precision_days,
        opened=sum(each.count for each in recent),
        in_shadow=sum(each.in_shadow for each in recent),
        faults=faults,
        not_faults=len(verdicts) - faults,
        shadow=shadow_over(ledger, name, now_ns=now_ns),
        guarded=settings.guards(parts[0]),
        verdicts=verdicts,
    )
    return replace(state, suggestion=_suggestion(state, settings))


def _suggestion(state: RuleState, settings: RuleSettings) -> str:
    """Return a suggestion in words; nothing follows from it by itself."""
    wrong, right = state.not_faults, state.faults
    if state.shadow is not None or wrong < settings.suggest_after or wrong <= right:
        return ""
    words = f"{wrong} of {counted(wrong + right, 'verdict')} say that there was no fault"
    if state.guarded:
        return f"{words}. It guards the fleet: mend its cause or its settings rather than its telling."
    return f"{words}: look at its settings, or put it in shadow for some days."


def day_of(at_ns: int) -> str:
    """Return the day of a time, UTC; a time outside the calendar is its first day."""
    if not 0 <= at_ns < 253_402_300_800 * 10**9:
        return "1970-01-01"
    return dt.datetime.fromtimestamp(at_ns // 10**9, dt.UTC).date().isoformat()
