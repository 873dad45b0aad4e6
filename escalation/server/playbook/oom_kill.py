"""memory.cgroup_oom_kill: the kernel killed a process because its control group was at its memory limit.

A higher limit is proposed only where the limit is known and two witnesses agree (the kernel's event and the
control group's own count); in every other case the advice is to look.
"""

from __future__ import annotations

from typing import Final

from escalation.model import (
    Action,
    ActionKind,
    Advice,
    Alternative,
    Incident,
    OomEvidence,
    OomScope,
    Subject,
    Verification,
    Way,
)
from escalation.server.playbook.names import acted_on, container_id, service_unit

_STEP_BYTES: Final = 64 * 1024 * 1024
_LARGEST_LIMIT_BYTES: Final = 1 << 50
"""A limit above this is the kernel's way of saying that there is none."""

_PROOF: Final = Verification(
    text="The kernel kills nothing in this control group for 24 hours.", within_s=86_400, quiet_s=86_400
)


def advise(incident: Incident) -> Advice:
    """Return: raise the limit by a quarter where it is known and confirmed; look in every other case."""
    target = acted_on(incident)
    limit_bytes = _confirmed_limit(incident)
    if limit_bytes is not None:
        raised = -(-limit_bytes * 5 // (4 * _STEP_BYTES)) * _STEP_BYTES
        if (unit := service_unit(target)) is not None:
            command = ("systemctl", "set-property", "--runtime", unit, f"MemoryMax={raised}")
            return _raise_limit(incident, target, command, limit_bytes, raised)
        if (container := container_id(target)) is not None:
            # Docker refuses a limit above the sum of memory and swap, so both are given, in its own ratio.
            command = ("docker", "update", f"--memory={raised}", f"--memory-swap={2 * raised}", container)
            return _raise_limit(incident, target, command, limit_bytes, raised)
    return _look(incident, target)


def _confirmed_limit(incident: Incident) -> int | None:
    for evidence in incident.evidence:
        if (
            isinstance(evidence, OomEvidence)
            and evidence.scope is OomScope.CGROUP
            and evidence.kills_in_cgroup
            and evidence.limit_bytes
            and evidence.limit_bytes < _LARGEST_LIMIT_BYTES
        ):
            return evidence.limit_bytes
    return None


def _raise_limit(
    incident: Incident, target: Subject, command: tuple[str, ...], limit_bytes: int, raised_bytes: int
) -> Advice:
    return Advice(
        action=Action(kind=ActionKind.CHANGE_SETTING, host=incident.agent_id, target=target, command=command),
        summary=(
            f"Raise the memory limit from {_mebibytes(limit_bytes)} to {_mebibytes(raised_bytes)}, or make "
            "the workload smaller (context length, batch size, a smaller model)."
        ),
        risk=(
            "The host has less memory for everything else: on a host that is already full this moves the "
            "kill from the control group to the whole host. Nothing is restarted by the change itself."
        ),
        will_not_fix=(
            "A leak, or a request that needs more than any limit. The change does not outlive a reboot or a "
            "recreated container: write it down where the service is defined once it has proven right."
        ),
        verification=_PROOF,
        alternatives=(
            Alternative(
                Way.LESS_LOAD,
                "Leave the limit and make the workload smaller: a shorter context, smaller batches, a "
                "smaller model.",
                "Answers that are shorter or come later, and its own restart.",
                "It needs somebody who knows the workload; until then the next request may be killed too.",
            ),
        ),
    )


def _look(incident: Incident, target: Subject) -> Advice:
    command: tuple[str, ...]
    if (unit := service_unit(target)) is not None:
        command = ("systemctl", "show", unit, "--property=MemoryCurrent,MemoryPeak,MemoryMax,NRestarts")
    elif (container := container_id(target)) is not None:
        command = ("docker", "inspect", "--format", "{{.State.OOMKilled}} {{.HostConfig.Memory}}", container)
    else:
        command = ("ps", "-eo", "pid,rss,comm", "--sort=-rss")
    return Advice(
        action=Action(kind=ActionKind.INSPECT, host=incident.agent_id, target=target, command=command),
        summary=(
            "Look at what the workload uses and what it is allowed. No limit is proposed: it is not known, "
            "or the control group's own count does not confirm the kill."
        ),
        risk="None: the command only reads.",
        will_not_fix="Anything: it shows the use of memory, so that either can be changed.",
        verification=_PROOF,
    )


def _mebibytes(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.0f} MiB"
