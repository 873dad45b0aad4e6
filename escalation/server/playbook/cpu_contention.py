"""cpu.contention: a server's threads are ready to run and have to wait, because something else has the cores.

The neighbour that grew is given a smaller weight; it then yields only while others want to run. Nothing is
stopped, and the change is undone by writing the old weight.
"""

from __future__ import annotations

from typing import Final

from escalation.model import ActionKind, Advice, Incident, RunDelayEvidence, Subject, Verification
from escalation.server.playbook import steps
from escalation.server.playbook.names import container_id, owner_of_cgroup, service_unit

_PROOF: Final = Verification(
    text=(
        "Within an hour the server's threads wait no longer than is usual for them, and the time to its "
        "first token is back at what is usual, for 15 minutes."
    ),
    within_s=3600,
    quiet_s=900,
)
_SPARED: Final = frozenset(
    {
        "dbus.service",
        "dbus-broker.service",
        "docker.service",
        "containerd.service",
        "nanobot-agent.service",
        "ssh.service",
        "sshd.service",
        "systemd-journald.service",
        "systemd-networkd.service",
        "systemd-resolved.service",
        "tailscaled.service",
    }
)
"""What a host needs to be reached and run: a smaller weight for these could cost more than it brings."""


def advise(incident: Incident) -> Advice:
    """Return: a fifth of the usual weight for the neighbour that has a safe name; look otherwise."""
    neighbour = _neighbour(incident)
    command: tuple[str, ...] | None = None
    if neighbour is not None and not steps.is_only_a_note(incident):
        if (container := container_id(neighbour)) is not None:
            command = ("docker", "update", "--cpu-shares=204", container)  # 1024 is usual
        elif (unit := service_unit(neighbour)) is not None and unit not in _SPARED:
            command = ("systemctl", "set-property", "--runtime", unit, "CPUWeight=20")  # 100 is usual
    if command is None or neighbour is None:
        return steps.look(
            incident,
            ("systemd-cgtop", "--batch", "--iterations=2", "--order=cpu"),
            target=steps.host_of(incident),
            summary=(
                "Look at which control group has the processor while the server waits. Move that work to "
                "another time or host, or give it a smaller weight."
            ),
            will_not_fix="Anything: it shows who has the processor.",
            proof=_PROOF,
        )
    return steps.propose(
        incident,
        ActionKind.CHANGE_SETTING,
        command,
        target=neighbour,
        summary=(
            "Give the neighbour that took the processor a fifth of the usual weight: it goes on, and yields "
            "whenever the server wants to run."
        ),
        risk=(
            "The neighbour gets slower while the host is busy, also where people wait for it. It can be "
            "undone by giving it back its weight (100; for a container 1024 shares)."
        ),
        will_not_fix=(
            "A host with too few cores for all that it runs. The change does not outlive a reboot or a "
            "recreated container."
        ),
        proof=_PROOF,
    )


def _neighbour(incident: Incident) -> Subject | None:
    named = (each.neighbour for each in incident.evidence if isinstance(each, RunDelayEvidence))
    return next((owner for owner in map(owner_of_cgroup, named) if owner is not None), None)
