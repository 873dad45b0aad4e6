"""A restart that was approved too often: not another one, but the cause.

A restart that has to be repeated mends nothing and hides what would; some faults leak a little with each,
until only the host's own restart helps. So the advice turns into work for a person until the budget's time
has passed.
"""

from __future__ import annotations

from dataclasses import replace

from escalation.model import Action, ActionKind, Advice, Incident, Verification
from escalation.server.playbook import serving, steps
from escalation.wording.quantities import duration


def instead_of(advice: Advice, incident: Incident, *, spent: int, within_s: float) -> Advice:
    """Return the advice to find the cause first, in place of another restart."""
    return replace(
        advice,
        action=Action(
            kind=ActionKind.HUMAN,
            host=incident.agent_id,
            target=steps.host_of(incident),
            command=serving.log_command(incident),
        ),
        summary=(
            f"Find the cause first: {spent} restarts of it were approved within {duration(within_s)}, and "
            "the fault is here again. Read what it said before each start, and what was changed before them."
        ),
        risk=(
            "The command only reads. Its output may show what users asked the model: read it on the host, "
            "and do not paste it elsewhere."
        ),
        will_not_fix="Anything: it shows why the restarts did not last.",
        verification=Verification(
            text="The fault clears within a day, and does not come back for an hour.",
            within_s=86_400,
            quiet_s=3600,
        ),
    )
