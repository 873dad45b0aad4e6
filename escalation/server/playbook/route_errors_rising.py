"""route.errors_rising: a route fails more often than is usual for it. A change, not yet a cause."""

from __future__ import annotations

from escalation.model import Advice, Incident
from escalation.server.playbook import serving


def advise(incident: Incident) -> Advice:
    """Return: look at what the server says about its errors."""
    return serving.look(
        incident,
        summary=(
            "Read which errors the server sends, and what changed when they began: an image, a setting, a "
            "client, a key."
        ),
        will_not_fix="Anything: it shows which errors they are.",
        proof="The share of failures is back at what is usual on this route within a day, for 10 minutes.",
    )
