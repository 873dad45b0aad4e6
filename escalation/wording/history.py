"""What was changed on a host, in words."""

from __future__ import annotations

from typing import assert_never

from escalation.inert import shown
from escalation.server.incident.host_history import Change, ChangeKind
from escalation.wording.quantities import LABEL_LIMIT, counted


def history_words(change: Change) -> str:
    """Return a change as a short fact; names from hosts are inert."""
    name = f"{change.subject.kind.value} {shown(change.subject.name, limit=LABEL_LIMIT)}"
    detail = f" ({shown(change.detail, limit=LABEL_LIMIT)})" if change.detail else ""
    match change.kind:
        case ChangeKind.MANAGER_RELOADED:
            words = "the service manager read its units again (daemon-reload)"
        case ChangeKind.SUSPENDED:
            words = "the host slept and woke"
        case ChangeKind.STARTED:
            words = f"{name} started"
        case ChangeKind.ENDED:
            words = f"{name} ended"
        case ChangeKind.DRIVER_CHANGED:
            words = "the GPU's driver is another one"
        case ChangeKind.CONFIG_CHANGED:
            words = f"{name} runs with other settings{detail}"
        case ChangeKind.BOOTED:
            words = "the host booted"
        case ChangeKind.AGENT_STARTED:
            words = "the agent was started again"
        case ChangeKind.AGENT_UPGRADED:
            words = f"the agent is another version{detail}"
        case ChangeKind.OTHER:
            words = f"something that this version does not know was changed: {name}"
        case _:
            assert_never(change.kind)
    return words if change.count == 1 else f"{words}, {counted(change.count, 'time')}"
