"""What a rule is called: the fault class, and the reason for which a detector opened a case."""

from __future__ import annotations

from typing import NewType

from escalation.model import FaultClass, Incident, ReasonCode

RuleName = NewType("RuleName", str)
"""A fault class and a reason code, as `route.empty_completion:answers_empty`."""


def rule_of(incident: Incident) -> RuleName:
    """Return the rule that opened an incident; of one from before this was kept, its first reason."""
    code = incident.opened_for
    if code is None:
        code = incident.reasons[0].code if incident.reasons else ReasonCode.UNKNOWN
    return name_of(incident.fault_class, code)


def name_of(fault_class: FaultClass, code: ReasonCode) -> RuleName:
    """Return the name of a rule."""
    return RuleName(f"{fault_class.value}:{code.value}")


def parts_of(name: str) -> tuple[FaultClass, ReasonCode] | None:
    """Return what a rule's name is made of; None for a name that no rule can have."""
    fault_class, separator, code = name.partition(":")
    if separator and fault_class in set(FaultClass) and code in set(ReasonCode):
        return FaultClass(fault_class), ReasonCode(code)
    return None
