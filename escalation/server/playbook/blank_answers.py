"""ui.blank_answers: the interface shows nothing, while the server behind it answers well.

The two do not agree on the field that an answer is in, most often after one of them was updated alone.
"""

from __future__ import annotations

from typing import Final

from escalation.model import Advice, Incident, Verification
from escalation.server.playbook import serving, steps
from escalation.server.playbook.names import acted_on, container_id, service_unit

_PROOF: Final = Verification(
    text="Within a day the interface hands on what the server answers, and does so for 10 minutes.",
    within_s=86_400,
    quiet_s=600,
)


def advise(incident: Incident) -> Advice:
    """Return: look at which version of the interface runs, and bring the two together."""
    target = acted_on(incident)
    if (container := container_id(target)) is not None:
        command: tuple[str, ...] = ("docker", "inspect", "--format", "{{.Config.Image}}", container)
        risk = steps.READS
    elif service_unit(target) is not None:
        command, risk = serving.settings_command(incident), serving.READS_SETTINGS
    else:
        command, risk = serving.listener_command(incident), serving.READS_PORT
    return steps.look(
        incident,
        command,
        summary=(
            "Look at which version of the interface runs, and update it together with the server, or go back "
            "to the pair that worked. The same question asked of the server directly is answered. Where "
            "LiteLLM is between the two, merge_reasoning_content_in_choices can hand reasoning on as content."
        ),
        risk=risk,
        will_not_fix="Anything: it shows a version. Answers that were blank have to be asked for again.",
        proof=_PROOF,
    )
