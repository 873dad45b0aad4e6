"""service.config_drift: a server came back with another command line than the one that had run well.

It may be meant. The advice says what differs, as far as it left the host, and how to look at the rest.
"""

from __future__ import annotations

from typing import Final

from escalation.model import Advice, Change, DriftEvidence, Incident, Verification
from escalation.server.playbook import serving, steps
from escalation.server.playbook.names import acted_on, container_id, service_unit

_PROOF: Final = Verification(
    text=(
        "Within a day it runs as recorded again, or the change is accepted on the host, and it does not "
        "change for 10 minutes after that."
    ),
    within_s=86_400,
    quiet_s=600,
)
_CHANGES: Final = {
    Change.MODEL: "the model",
    Change.CONTEXT: "the context length",
    Change.QUANTIZATION: "the quantization",
    Change.PARSER: "the parser of reasoning or tool calls",
    Change.MEMORY: "the share of memory",
    Change.PARALLELISM: "over how many GPUs it runs",
    Change.ADDRESS: "where it listens",
    Change.IMAGE: "the image",
    Change.EXECUTABLE: "the program",
    Change.OTHER_OPTION: "another option",
    Change.UNKNOWN: "something that this version has no word for",
}


def advise(incident: Incident) -> Advice:
    """Return: what differs, and the command that shows how it runs now."""
    found = next((each for each in incident.evidence if isinstance(each, DriftEvidence)), None)
    target = acted_on(incident)
    if service_unit(target) is not None or container_id(target) is not None:
        command, risk = serving.settings_command(incident), serving.READS_SETTINGS
    else:
        command, risk = ("systemctl", "list-units", "--no-pager", "--type=service"), steps.READS
    return steps.look(
        incident,
        command,
        summary=(
            f"It differs in {_differences(found)}. If that was meant, accept it on the host (nanobot-agent "
            "accept-drift); if not, deploy it again as it was recorded. A model or a parser that changed "
            "unnoticed explains answers that are suddenly other than they were."
        ),
        risk=risk,
        will_not_fix=(
            "Anything: it shows how it runs now. What it ran with before is where it is deployed from; only "
            "a keyed print of it is kept."
        ),
        proof=_PROOF,
    )


def _differences(found: DriftEvidence | None) -> str:
    if found is None or not found.changes:
        return "its command line"
    words = [_CHANGES[change] for change in found.changes]
    if Change.CONTEXT in found.changes and found.context_before and found.context_now:
        at = found.changes.index(Change.CONTEXT)
        words[at] += f" ({found.context_before} tokens before, {found.context_now} now)"
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
