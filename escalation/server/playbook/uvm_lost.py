"""gpu.uvm_lost: the unified-memory driver is gone or dead, host-wide, most often after a suspend."""

from __future__ import annotations

from escalation.model import Action, ActionKind, Advice, Incident, Subject, SubjectKind, Verification


def advise(incident: Incident) -> Advice:
    """Return: load the driver again, by hand; removing a loaded one needs every GPU user stopped first."""
    return Advice(
        action=Action(
            kind=ActionKind.HUMAN,
            host=incident.agent_id,
            target=Subject(SubjectKind.HOST, incident.agent_id),
            command=("modprobe", "nvidia_uvm"),
        ),
        summary=(
            "Load nvidia_uvm again on the host. If it is loaded but dead (after a suspend), stop every GPU "
            "user, run rmmod nvidia_uvm, then load it, then start them again."
        ),
        risk=(
            "Loading a missing module is harmless. Removing a loaded one needs every process that uses the "
            "GPU stopped, on the whole host; if it does not unload, only a reboot helps."
        ),
        will_not_fix=(
            "Servers that have already fallen back to the CPU stay there until they are restarted. A laptop "
            "that suspends again will lose the driver again."
        ),
        verification=Verification(
            text="/dev/nvidia-uvm is opened successfully within an hour, and does not fail for 10 minutes.",
            within_s=3600,
            quiet_s=600,
        ),
    )
