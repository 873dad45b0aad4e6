"""memory.thrashing: tasks spend their time waiting for memory that is taken from them and read back again.

Two ways lead here. A unit or container at its own limit thrashes alone: its limit, or what it needs, has to
change. A host that is full thrashes as a whole, and ends in a kill or a freeze: one server has to give way.
"""

from __future__ import annotations

from typing import Final

from escalation.model import ActionKind, Advice, Incident, Verification
from escalation.server.playbook import serving, steps
from escalation.server.playbook.names import acted_on, container_id, service_unit

_PROOF: Final = Verification(
    text="Within 15 minutes tasks stall for memory less than 1 % of the time, and for an hour after that.",
    within_s=900,
    quiet_s=3600,
)
_WHO_HOLDS: Final = ("ps", "-eo", "pid,rss,comm", "--sort=-rss")
_LATER: Final = (
    "The cause: what is loaded needs more memory than there is. Give the server less to do (context length, "
    "batch size, no offload to the host's memory), or it comes back."
)


def advise(incident: Incident) -> Advice:
    """Return: change the limit of what thrashes alone; restart one server of a full host; else look."""
    subject = incident.subject
    alone = service_unit(subject) is not None or container_id(subject) is not None
    limits = steps.shown(
        acted_on(incident),
        of_unit="MemoryCurrent,MemoryHigh,MemoryMax,MemorySwapCurrent",
        of_container="{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}",
        otherwise=_WHO_HOLDS,
    )
    restart = serving.restart_command(incident)
    if steps.is_only_a_note(incident) or restart is None:
        return steps.look(
            incident,
            limits if alone else _WHO_HOLDS,
            target=subject if alone else steps.host_of(incident),
            summary=(
                "Look at who holds the memory and at its limit. Tasks that wait for memory are slow, not "
                "dead; what follows, when nothing is done, is a kill by the kernel."
            ),
            will_not_fix="Anything: it shows what to make smaller, or to stop.",
            proof=_PROOF,
        )
    if alone:
        return steps.propose(
            incident,
            ActionKind.CHANGE_SETTING,
            limits,
            summary=(
                "Raise the memory limit of what thrashes, or make it need less: its working set is a little "
                "larger than its limit, so it reads the same pages again and again. The command shows both."
            ),
            risk=(
                "The command shown only reads. A higher limit leaves less for everything else: on a host "
                "that is full it moves the stall to the whole host."
            ),
            will_not_fix=_LATER,
            proof=_PROOF,
        )
    kind, command = restart
    return steps.propose(
        incident,
        kind,
        command,
        summary="Restart the server that can be spared: its memory is free again at once.",
        risk=(
            "Its requests in flight are cut off, and its model is loaded again, which is slow on a host that "
            "is short of memory. Not acting risks a kill of another process, or a freeze of the host."
        ),
        will_not_fix=_LATER,
        proof=_PROOF,
    )
