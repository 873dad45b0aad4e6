"""monitor.blind: a sensor cannot see, or a whole host has fallen silent. Unknown is not healthy."""

from __future__ import annotations

from escalation.model import Action, ActionKind, Advice, Incident, SubjectKind, Verification
from escalation.server.playbook.names import acted_on


def advise(incident: Incident) -> Advice:
    """Return: ask the agent's own doctor about a sensor; see whether a silent host's agent lives."""
    target = acted_on(incident)
    command: tuple[str, ...]
    if target.kind is SubjectKind.HOST:
        command = ("systemctl", "status", "--no-pager", "nanobot-agent.service")
        summary = (
            "See whether the host is up and its agent runs. If the host does not answer at all, it may be "
            "powered off, wedged or cut off from the mesh."
        )
        proof = "The host is heard again within a day, and stays heard for 10 minutes."
    else:
        command = ("nanobot-agent", "doctor")
        summary = "Ask the agent why this sensor cannot see; its answer names what is missing."
        proof = "The sensor sees again within a day, and stays so for 10 minutes."
    return Advice(
        action=Action(kind=ActionKind.INSPECT, host=incident.agent_id, target=target, command=command),
        summary=summary,
        risk="None: the command only reads.",
        will_not_fix="Anything: while it lasts, nothing is known of what this would have seen.",
        verification=Verification(text=proof, within_s=86_400, quiet_s=600),
    )
