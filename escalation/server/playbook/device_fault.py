"""gpu.device_fault: the GPU itself is at fault: off the bus, in need of a reset, with errors beyond repair.

What helps is what the driver advises. Each of these steps ends every program on the GPU, and some the whole
host, so they are described for a person and never offered for approval.
"""

from __future__ import annotations

from escalation.model import (
    Action,
    ActionKind,
    Advice,
    GpuEvidence,
    Incident,
    ReasonCode,
    Severity,
    Subject,
    SubjectKind,
    Verification,
    XidEvidence,
)
from escalation.server.playbook.names import gpu_address

_RESET, _REBOOT = 1, 2  # nvml.h, nvmlDeviceGpuRecoveryAction_t
_WORN = frozenset({64, 140, 171, 172})
"""Xids of memory that could not be repaired: a reset may help once, the part is a case for its maker."""

_PROOF = Verification(
    text="The GPU answers and the driver advises nothing within a day, and it stays so for an hour.",
    within_s=86_400,
    quiet_s=3600,
)


def advise(incident: Incident) -> Advice:
    """Return: reset or reboot by hand, as the driver advises; collect its report where it advises nothing.

    A note asks for nothing now: a row that is remapped takes effect at the next reset, whenever that is.
    """
    if incident.severity is Severity.NOTE:
        return _look(incident)
    address = gpu_address(incident.subject)
    command: tuple[str, ...]
    match _advised(incident):
        case 1 | 3 | 4 if address is not None:
            command = ("nvidia-smi", "--gpu-reset", "-i", address)
            summary = (
                "Take the routes of this host out of use, stop every program that uses the GPU, this host's "
                "nanobot-agent too, reset it, and start them again, the agent first. The reset is refused "
                "while anything has it open."
            )
        case 1 | 2 | 3 | 4 | 6 | 7:  # a reset of the bus is part of a reboot
            command = ("systemctl", "reboot")
            summary = (
                "Take the routes of this host out of use, stop its servers in order, then reboot it. If the "
                "GPU is not there after that, unplug the machine for a minute."
            )
        case _:
            command = ("nvidia-bug-report.sh",)
            summary = (
                "Collect the driver's report before anything else: it is what the maker asks for. Then plan "
                "a reboot; the driver advises no smaller step."
            )
    return Advice(
        action=Action(
            kind=ActionKind.HUMAN,
            host=incident.agent_id,
            target=Subject(SubjectKind.HOST, incident.agent_id),
            command=command,
        ),
        summary=summary,
        risk=(
            "A reset ends every program on that GPU, a reboot everything on the host. Where the host has one "
            "GPU, as a DGX Spark has, both cost the same: all models of this host stop answering."
        ),
        will_not_fix=_limits(incident),
        verification=_PROOF,
    )


def _look(incident: Incident) -> Advice:
    return Advice(
        action=Action(
            kind=ActionKind.INSPECT,
            host=incident.agent_id,
            target=incident.subject,
            command=("nvidia-smi", "-q", "-d", "ECC,ROW_REMAPPER,PAGE_RETIREMENT"),
        ),
        summary=(
            "Look at the GPU's memory errors and at the rows that wait to be remapped. If some do, plan a "
            "reset of the GPU, or a reboot, for the next quiet hour; nothing is urgent."
        ),
        risk="None: the command only reads.",
        will_not_fix=(
            "Anything: a part that is retired stays retired, and many of them are a case for its maker."
        ),
        verification=_PROOF,
    )


def _limits(incident: Incident) -> str:
    worn = any(isinstance(each, XidEvidence) and each.number in _WORN for each in incident.evidence)
    if worn:
        return (
            "The GPU's memory, which has errors that could not be repaired: ask its maker to replace it, "
            "with the report of nvidia-bug-report.sh. Requests that were under way are lost."
        )
    return (
        "Hardware that is failing: a fault that comes back after a reset is a case for its maker. "
        "Requests that were under way are lost."
    )


def _advised(incident: Incident) -> int | None:
    told = [each for each in incident.evidence if isinstance(each, GpuEvidence)]
    for each in told:
        if each.recovery_action:
            return each.recovery_action
    codes = {reason.code for reason in incident.reasons}
    if ReasonCode.GPU_IS_LOST in codes:
        return _REBOOT
    return _RESET if ReasonCode.GPU_NEEDS_RESET in codes else None
