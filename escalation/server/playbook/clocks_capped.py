"""gpu.clocks_capped: a GPU under load stays far below the clock that is usual for it.

Where the driver gives no reason for it, the power supply is the usual one: a USB-C negotiation that went
wrong holds a DGX Spark at a fifth of its clock until it has been without power. With a reason given, it is
heat or a power limit.
"""

from __future__ import annotations

from escalation.model import (
    Action,
    ActionKind,
    Advice,
    Incident,
    ReasonCode,
    Subject,
    SubjectKind,
    Verification,
)


def advise(incident: Incident) -> Advice:
    """Return: a full power cycle by hand where no reason is given; look at heat and power otherwise."""
    proof = Verification(
        text="The clock under load is back at what is usual within a day, and stays there for 10 minutes.",
        within_s=86_400,
        quiet_s=600,
    )
    if all(reason.code is not ReasonCode.NO_THROTTLE_REASON for reason in incident.reasons):
        return Advice(
            action=Action(
                kind=ActionKind.INSPECT,
                host=incident.agent_id,
                target=incident.subject,
                command=("nvidia-smi", "-q", "-d", "CLOCK,POWER,TEMPERATURE,PERFORMANCE"),
            ),
            summary="Look at what the driver says of heat, power and clocks while the GPU is under load.",
            risk="None: the command only reads.",
            will_not_fix="Anything: it shows whether a fan, the air or a power limit is to be seen to.",
            verification=proof,
        )
    return Advice(
        action=Action(
            kind=ActionKind.HUMAN,
            host=incident.agent_id,
            target=Subject(SubjectKind.HOST, incident.agent_id),
            command=("systemctl", "poweroff"),
        ),
        summary=(
            "Power the machine off, unplug its supply from the wall and from the machine for 60 seconds, and "
            "start it again: the power negotiation then begins anew. Use the supply that came with it."
        ),
        risk=(
            "Everything on the machine stops until a person has started it again. Do not do this from afar: "
            "a reboot without unplugging does not help."
        ),
        will_not_fix=(
            "A supply or a port that is broken: a machine that stays at some 30 W after this is a case for "
            "its maker."
        ),
        verification=proof,
    )
