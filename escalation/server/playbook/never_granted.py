"""gpu.never_granted: a workload looks for a GPU that it was never given."""

from __future__ import annotations

from escalation.model import Action, ActionKind, Advice, Incident, Verification
from escalation.server.playbook.names import acted_on, container_id, service_unit


def advise(incident: Incident) -> Advice:
    """Return: look at how it was started; only its owner knows whether it should have a GPU."""
    target = acted_on(incident)
    command: tuple[str, ...]
    if (container := container_id(target)) is not None:
        command = ("docker", "inspect", "--format", "{{json .HostConfig.DeviceRequests}}", container)
        how = "Recreate it with --gpus all or a CDI device if it should have one."
    elif (unit := service_unit(target)) is not None:
        command = ("systemctl", "show", unit, "--property=DeviceAllow,DevicePolicy,PrivateDevices")
        how = "Allow the devices in its unit (DeviceAllow=char-nvidia* rw) if it should have one."
    else:
        command = ("ls", "-l", "/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia-uvm")
        how = "Start it with access to the GPU devices if it should have one."
    return Advice(
        action=Action(kind=ActionKind.INSPECT, host=incident.agent_id, target=target, command=command),
        summary=f"Look at which devices it was started with. {how}",
        risk="None: the command only reads. Recreating the workload afterwards interrupts what it serves.",
        will_not_fix="A GPU cannot be added to a running container; it has to be created anew.",
        verification=Verification(
            text="It opens the GPU devices successfully within a day, and is not refused for 10 minutes.",
            within_s=86_400,
            quiet_s=600,
        ),
    )
