"""gpu.access_revoked: a container or service that had the GPU is refused its device nodes.

The device list of its control group was rewritten under it, most often by `systemctl daemon-reload`. Open
descriptors go on working and new opens fail, so the server serves until its next model load. A restart makes
the runtime write the list again.
"""

from __future__ import annotations

from escalation.model import (
    Action,
    ActionKind,
    Advice,
    Alternative,
    Incident,
    Verification,
    Way,
)
from escalation.server.playbook.names import acted_on, cgroup_path, container_id, service_unit


def advise(incident: Incident) -> Advice:
    """Return: restart exactly that container or service; look, where neither is known by a safe name."""
    target = acted_on(incident)
    if (container := container_id(target)) is not None:
        kind, command = ActionKind.RESTART_CONTAINER, ("docker", "restart", container)
        what = "Restart the container: the runtime then grants the GPU devices again."
    elif (unit := service_unit(target)) is not None:
        kind, command = ActionKind.RESTART_UNIT, ("systemctl", "restart", unit)
        what = "Restart the service: systemd then grants the GPU devices again."
    else:
        return _look(incident)
    return Advice(
        action=Action(kind=kind, host=incident.agent_id, target=target, command=command),
        summary=what,
        risk=(
            "Requests in flight are cut off, and the model is loaded again, which takes from seconds to many "
            "minutes. Until then nothing is served. Other containers are not touched."
        ),
        will_not_fix=(
            "The cause: the next daemon-reload may revoke access again. To prevent it, create the /dev/char "
            "links (nvidia-ctk system create-dev-char-symlinks --create-all), use CDI, or the cgroupfs "
            "driver."
        ),
        verification=Verification(
            text=(
                "The GPU devices are opened successfully again within 15 minutes, and no open is refused for "
                "10 minutes after that."
            ),
            within_s=900,
            quiet_s=600,
        ),
        alternatives=(
            Alternative(
                Way.BY_HAND,
                "Create the /dev/char links first (nvidia-ctk system create-dev-char-symlinks --create-all), "
                "then restart: what was revoked once is then not revoked by the next daemon-reload.",
                "Minutes at the host, and the same restart.",
                "The restart alone gives access back now; the links can be made at any time after it.",
            ),
        ),
    )


def _look(incident: Incident) -> Advice:
    target = acted_on(incident)
    path = cgroup_path(target)
    command = ("systemd-cgls", "--no-pager", path) if path else ("systemd-cgls", "--no-pager")
    return Advice(
        action=Action(kind=ActionKind.INSPECT, host=incident.agent_id, target=target, command=command),
        summary=(
            "Find out which service owns this control group: it is neither a container nor a service with a "
            "name that can stand in a command, so no restart is offered."
        ),
        risk="None: the command only reads.",
        will_not_fix="Anything: it shows what runs in the control group, so that its owner can be restarted.",
        verification=Verification(
            text="The GPU devices are opened successfully again within a day, and stay so for 10 minutes.",
            within_s=86_400,
            quiet_s=600,
        ),
    )
