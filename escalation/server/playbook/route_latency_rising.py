"""route.latency_rising: a route is slower than is usual for it. A change, not yet a cause."""

from __future__ import annotations

from escalation.model import Advice, Incident
from escalation.server.playbook import serving


def advise(incident: Incident) -> Advice:
    """Return: look at the load, the GPU and the log; nothing is restarted for being slow."""
    return serving.look(
        incident,
        summary=(
            "See whether more requests, longer prompts or a slower machine make it slow: other load on the "
            "GPU, clocks that are throttled, or a model that fell back to the CPU."
        ),
        will_not_fix="Anything: a restart would only make the next answers slower still.",
        proof="Answers are as fast as is usual on this route again within a day, for 10 minutes.",
    )
