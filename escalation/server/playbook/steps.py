"""The three steps that an advice can be: look, do one thing that may be approved, or leave it to a person.

What stays the same in every advice is said here once; its words and its command are each remedy's own.
"""

from __future__ import annotations

from typing import Final

from escalation.model import (
    Action,
    ActionKind,
    Advice,
    Incident,
    ReasonCode,
    Severity,
    Subject,
    SubjectKind,
    Verification,
)
from escalation.server.playbook.names import acted_on, container_id, service_unit

READS: Final = "None: the command only reads."
KERNEL_LOG: Final = ("journalctl", "--no-pager", "--dmesg", "--lines=200")
"""What the kernel said last; it names devices and processes, never what users asked."""


def host_of(incident: Incident) -> Subject:
    """Return the host as what a step acts on."""
    return Subject(SubjectKind.HOST, incident.agent_id)


def is_only_a_note(incident: Incident) -> bool:
    """Return whether the incident allows no more than a look: a note, or a single witness."""
    codes = {reason.code for reason in incident.reasons}
    return incident.severity is Severity.NOTE or ReasonCode.SECOND_LAYER_UNKNOWN in codes


def has_reason(incident: Incident, *codes: ReasonCode) -> bool:
    """Return whether any of `codes` is among the incident's reasons."""
    return any(reason.code in codes for reason in incident.reasons)


def shown(target: Subject, *, of_unit: str, of_container: str, otherwise: tuple[str, ...]) -> tuple[str, ...]:
    """Return what shows these properties of a unit, or of a container, and what helps without a safe name."""
    if (unit := service_unit(target)) is not None:
        return ("systemctl", "show", unit, f"--property={of_unit}")
    if (container := container_id(target)) is not None:
        return ("docker", "inspect", "--format", of_container, container)
    return otherwise


def propose(
    incident: Incident,
    kind: ActionKind,
    command: tuple[str, ...],
    *,
    summary: str,
    risk: str,
    will_not_fix: str,
    proof: Verification,
    target: Subject | None = None,
) -> Advice:
    """Return the advice to run `command`, on what the incident names unless `target` is given."""
    action = Action(kind=kind, host=incident.agent_id, target=target or acted_on(incident), command=command)
    return Advice(action=action, summary=summary, risk=risk, will_not_fix=will_not_fix, verification=proof)


def look(
    incident: Incident,
    command: tuple[str, ...],
    *,
    summary: str,
    will_not_fix: str,
    proof: Verification,
    risk: str = READS,
    target: Subject | None = None,
) -> Advice:
    """Return the advice to read what `command` shows."""
    return propose(
        incident,
        ActionKind.INSPECT,
        command,
        summary=summary,
        risk=risk,
        will_not_fix=will_not_fix,
        proof=proof,
        target=target,
    )


def by_hand(
    incident: Incident,
    command: tuple[str, ...],
    *,
    summary: str,
    risk: str,
    will_not_fix: str,
    proof: Verification,
) -> Advice:
    """Return the description of what only a person may do, at the host; it can never be approved."""
    return propose(
        incident,
        ActionKind.HUMAN,
        command,
        summary=summary,
        risk=risk,
        will_not_fix=will_not_fix,
        proof=proof,
        target=host_of(incident),
    )
