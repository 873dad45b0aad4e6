"""process.killed_by_signal: a model server's process died by its own fault (SEGV, ABRT, BUS, ILL, FPE)."""

from __future__ import annotations

from escalation.model import Action, ActionKind, Advice, Incident, Verification
from escalation.server.playbook.names import acted_on, container_id, service_unit


def advise(incident: Incident) -> Advice:
    """Return: read its log first; its supervisor restarts it, and a restart by hand would lose the trace."""
    target = acted_on(incident)
    command: tuple[str, ...]
    if (container := container_id(target)) is not None:
        command = ("docker", "logs", "--tail", "200", container)
    elif (unit := service_unit(target)) is not None:
        command = ("journalctl", "--no-pager", "--lines=200", f"--unit={unit}")
    else:
        command = ("coredumpctl", "--no-pager", "list")
    return Advice(
        action=Action(kind=ActionKind.INSPECT, host=incident.agent_id, target=target, command=command),
        summary=(
            "Read what it said last, and keep it. Its supervisor restarts it; if it has none, or if it dies "
            "again at once, it has to be stopped and its cause found."
        ),
        risk=(
            "None: the command only reads. Its output may show what users asked the model: read it on the "
            "host, and do not paste it elsewhere."
        ),
        will_not_fix="The crash. A restart without its cause found may become a crash loop.",
        verification=Verification(
            text="It runs for more than 10 minutes without dying by a fault signal again.",
            within_s=86_400,
            quiet_s=600,
        ),
    )
