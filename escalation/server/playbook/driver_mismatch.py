"""gpu.driver_mismatch: the driver's library was upgraded under a kernel module that is still the old one.

What runs goes on; whatever wants to use the GPU anew fails, the next restart of a server included.
"""

from __future__ import annotations

from escalation.model import Action, ActionKind, Advice, Incident, Subject, SubjectKind, Verification


def advise(incident: Incident) -> Advice:
    """Return: reboot in a quiet hour, by hand, or load the module anew with every user stopped."""
    return Advice(
        action=Action(
            kind=ActionKind.HUMAN,
            host=incident.agent_id,
            target=Subject(SubjectKind.HOST, incident.agent_id),
            command=("systemctl", "reboot"),
        ),
        summary=(
            "Reboot the host in a quiet hour, and restart no server before: those that run still work, those "
            "that start do not. Without a reboot: stop every user of the GPU, this host's nanobot-agent too, "
            "then rmmod nvidia_uvm nvidia_drm nvidia_modeset nvidia and modprobe nvidia."
        ),
        risk="Everything on the host stops for some minutes, and models are loaded again after that.",
        will_not_fix=(
            "The next unattended upgrade of the driver: hold its packages (apt-mark hold) and upgrade them "
            "together with a planned reboot."
        ),
        verification=Verification(
            text="Library and kernel module work together within a day, and do so for 10 minutes.",
            within_s=86_400,
            quiet_s=600,
        ),
    )
