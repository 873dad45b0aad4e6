"""route.empty_completion: answers with status 200 that hold no text, no reasoning and no tool call."""

from __future__ import annotations

from escalation.model import Advice, Incident
from escalation.server.playbook import route_removal


def advise(incident: Incident) -> Advice:
    """Return: take the route out of the router until its server answers."""
    return route_removal.advise(
        incident,
        fault="The server calls empty answers a success, so nothing else will notice.",
        proof=(
            "Within a day answers under this model's name hold something again, streamed and whole, from "
            "its own server, another deployment or a fallback, or its name is refused as unknown; and none "
            "is empty for 10 minutes after that."
        ),
    )
