"""route.broken_stream: answers with status 200 break off, end without their end mark, or hold an error.

The route is the messenger: the status was sent before the answer was made, and what failed is behind it. So
nothing is to be approved on the route; the way leads to the backend.
"""

from __future__ import annotations

from escalation.model import Advice, Incident
from escalation.server.playbook import serving


def advise(incident: Incident) -> Advice:
    """Return: follow it to the backend, beginning with the log of the server that broke off."""
    if serving.is_at_router(incident):
        where = (
            "A proxy passes on what its backend breaks: look at the server behind it first. Its own log "
            "names it."
        )
    else:
        where = "Read what the server said when it broke off: an engine that died, memory, a time limit."
    return serving.look(
        incident,
        summary=f"{where} If another incident of the same host or model is open, it is the likely cause.",
        will_not_fix="Anything: what broke the answers is behind the route, and callers have to ask again.",
        proof="20 streams of this route end properly within a day, and none breaks off for 10 minutes.",
    )
