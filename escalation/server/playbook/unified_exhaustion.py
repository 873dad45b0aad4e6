"""memory.unified_exhaustion: the host runs out of the memory that programs, page cache and GPU share.

On such a machine the end is often no kill but a freeze of the whole host, so the step has to come before it:
free the memory of one server, and let it take less when it starts again.
"""

from __future__ import annotations

from escalation.model import (
    Action,
    ActionKind,
    Advice,
    Alternative,
    Incident,
    Severity,
    Subject,
    SubjectKind,
    Verification,
    Way,
)
from escalation.server.playbook.names import acted_on
from escalation.server.playbook.serving import has_second_witness, restart_command

_PROOF = Verification(
    text="More memory than the floor can be had within 15 minutes, and nothing stalls for an hour then.",
    within_s=900,
    quiet_s=3600,
)
_LATER = (
    "The cause: give the server a smaller share (vLLM: --gpu-memory-utilization, --max-model-len, "
    "--max-num-batched-tokens), or the host fills up again."
)


def advise(incident: Incident) -> Advice:
    """Return: restart the one model server where two signs agree; show who holds what otherwise."""
    restart = restart_command(incident)
    if restart is None or not has_second_witness(incident) or incident.severity is Severity.NOTE:
        return Advice(
            action=Action(
                kind=ActionKind.INSPECT,
                host=incident.agent_id,
                target=Subject(SubjectKind.HOST, incident.agent_id),
                command=("ps", "-eo", "pid,rss,comm", "--sort=-rss"),
            ),
            summary=(
                "Look at who holds the memory, and stop the largest server that can be spared before the "
                "host freezes. Memory that a GPU program holds on a unified-memory machine is not in this "
                "list: nvidia-smi shows it."
            ),
            risk="None: the command only reads. Waiting has a price: a frozen host needs its power cut.",
            will_not_fix="Anything: it shows what to stop.",
            verification=_PROOF,
        )
    kind, command = restart
    return Advice(
        action=Action(kind=kind, host=incident.agent_id, target=acted_on(incident), command=command),
        summary="Restart the model server: its memory is free again at once, before the host freezes.",
        risk=(
            "Requests in flight are cut off, and the model is loaded again, which takes minutes on a host "
            "that is short of memory. Not acting risks the whole host, with everything on it."
        ),
        will_not_fix=_LATER,
        verification=_PROOF,
        alternatives=(
            Alternative(
                Way.LESS_LOAD,
                "Stop something else on the host that can be spared: another model, a build, a notebook.",
                "Whoever uses that, and the minutes of finding it.",
                "Memory that falls like this may be gone before it is found; then the host freezes.",
            ),
        ),
    )
