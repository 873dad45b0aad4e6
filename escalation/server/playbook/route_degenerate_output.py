"""route.degenerate_output: loops, one character, blanks or undecodable text in place of an answer.

Most often numerical: a quantised kernel, an image or a driver that does not fit the GPU. A restart alone
brings the same image back, so none is advised.
"""

from __future__ import annotations

from escalation.model import Advice, Incident
from escalation.server.playbook import route_removal


def advise(incident: Incident) -> Advice:
    """Return: take the route out of the router; the cure is the image or flag that worked before."""
    return route_removal.advise(
        incident,
        fault=(
            "What it generates is no language. If that began with a new image, flag or quantisation, go back "
            "to the one before."
        ),
        proof=(
            "Within a day answers under this model's name are text again, from its own server, another "
            "deployment or a fallback, or its name is refused as unknown; and none is degenerate for 10 "
            "minutes after that."
        ),
    )
