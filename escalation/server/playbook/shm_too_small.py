"""container.shm_too_small: a container's /dev/shm has no room for what its processes share.

A container gets 64 MiB of it unless it is made with more, and processes that share tensors need gibibytes.
Its size is set when the container is made, so the container has to be made anew.
"""

from __future__ import annotations

from typing import Final

from escalation.model import ActionKind, Advice, Incident, ReasonCode, Verification
from escalation.server.playbook import steps
from escalation.server.playbook.names import acted_on, container_id

_PROOF: Final = Verification(
    text="Within a day it runs with more shared memory, and under load nothing is refused for an hour.",
    within_s=86_400,
    quiet_s=3600,
)
_SHOWS: Final = "{{.HostConfig.ShmSize}} {{.HostConfig.IpcMode}}"


def advise(incident: Incident) -> Advice:
    """Return: make the container anew with more of it where two signs agree; look otherwise."""
    container = container_id(acted_on(incident))
    signs = (
        ReasonCode.SHARED_MEMORY_REFUSED,
        ReasonCode.DIED_BY_BUS_ERROR,
        ReasonCode.LOG_LINE_MATCHES,
        ReasonCode.SHARED_MEMORY_SMALL,
    )
    agree = sum(steps.has_reason(incident, sign) for sign in signs) > 1
    if container is None:
        return steps.look(
            incident,
            ("df", "--human-readable", "/dev/shm"),  # noqa: S108 -- it is the shared memory that is full
            summary="Look at how much shared memory there is, and which process fills it.",
            will_not_fix="Anything: it shows the size.",
            proof=_PROOF,
        )
    if steps.is_only_a_note(incident) or not agree:
        return steps.look(
            incident,
            ("docker", "inspect", "--format", _SHOWS, container),
            summary=(
                "Look at the size of the container's shared memory (67108864 is the 64 MiB that a container "
                "gets by default) and whether it shares the host's. A bus error alone can have other causes."
            ),
            will_not_fix="Anything: it shows the size.",
            proof=_PROOF,
        )
    return steps.propose(
        incident,
        ActionKind.RECREATE_CONTAINER,
        ("docker", "inspect", "--format", _SHOWS, container),
        summary=(
            "Make the container anew with --shm-size=16g, or with --ipc=host, and all else as it was. The "
            "command shows what it has now; the size cannot be changed while the container exists."
        ),
        risk=(
            "The command shown only reads. Making it anew ends its requests, loads the model again, and "
            "loses what was written inside the container and not to a volume. What shared memory holds "
            "counts against the container's memory limit."
        ),
        will_not_fix=(
            "A restart of the same container: it keeps its size. Where compose or a script makes it, write "
            "it there (shm_size), or the next deployment brings the fault back."
        ),
        proof=_PROOF,
    )
