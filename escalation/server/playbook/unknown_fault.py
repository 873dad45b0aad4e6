"""unknown: a fault class that the host's newer agent knows and this orchestrator does not."""

from __future__ import annotations

from escalation.model import Action, ActionKind, Advice, Incident, Verification
from escalation.server.playbook.names import acted_on


def advise(incident: Incident) -> Advice:
    """Return: ask the agent on the host, and update the orchestrator."""
    number = "of no number" if incident.fault_number is None else f"number {incident.fault_number}"
    return Advice(
        action=Action(
            kind=ActionKind.INSPECT,
            host=incident.agent_id,
            target=acted_on(incident),
            command=("nanobot-agent", "doctor"),
        ),
        summary=(
            f"The host reports a fault class {number} that this orchestrator does not know: update the "
            "orchestrator, and ask the agent on the host meanwhile."
        ),
        risk="None: the command only reads.",
        will_not_fix="Anything: what the fault is, and what helps against it, is not known here.",
        verification=Verification(
            text="The host reports the fault as gone within a day, and not again for 10 minutes.",
            within_s=86_400,
            quiet_s=600,
        ),
    )
