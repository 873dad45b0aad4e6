"""route.router_cooldown: the router has no deployment left for a model, because all of them cool down.

Cooling down is the router's reaction to a backend that failed, and ends by itself. The same words are sent
for a model that the router does not know, so a typing error looks like an outage.
"""

from __future__ import annotations

from escalation.model import Advice, Incident
from escalation.server.playbook import serving


def advise(incident: Incident) -> Advice:
    """Return: look at what failed behind the router; the cooldown itself is left alone."""
    return serving.look(
        incident,
        summary=(
            f"Find what failed behind the router for {serving.model_of(incident)}: mend that, and the "
            "cooldown ends by itself (cooldown_time). If nothing failed, the router may not know a model "
            "of this name."
        ),
        will_not_fix=(
            "The backend. Switching the cooldown off, or raising allowed_fails, only sends the requests back "
            "to a server that is sick."
        ),
        proof=(
            "The router finds a deployment again within a day, and does not run out of them for 10 minutes."
        ),
    )
