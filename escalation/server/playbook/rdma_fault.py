"""network.rdma_fault: the fast link between two hosts of one model fails, or counts errors.

What helps is work at the cable, the port or the environment of the ranks. A link that is taken down ends
every collective over it, so nothing is offered for approval.
"""

from __future__ import annotations

from typing import Final

from escalation.model import Advice, Incident, LinkCounter, LinkEvidence, ReasonCode, Verification
from escalation.server.playbook import steps
from escalation.server.playbook.names import device_name

_PROOF: Final = Verification(
    text="Within a day the link is up and its counters of errors stand still for an hour under load.",
    within_s=86_400,
    quiet_s=3600,
)
_STATISTICS: Final = ("rdma", "statistic", "show")


def advise(incident: Incident) -> Advice:
    """Return: look at the link of a note; else what to mend at a link that is down, or that errs."""
    found = next((each for each in incident.evidence if isinstance(each, LinkEvidence)), None)
    command = _command(found)
    if steps.is_only_a_note(incident):
        return steps.look(
            incident,
            command,
            summary=(
                "Look at the counters of the link twice, a minute apart. Counters that stand still are of "
                "the past; a port that nothing uses may count and warn without harm."
            ),
            will_not_fix="Anything: it shows whether the link errs now.",
            proof=_PROOF,
        )
    down = steps.has_reason(incident, ReasonCode.CARRIER_LOST) or (found is not None and found.up is False)
    return steps.by_hand(
        incident,
        command,
        summary=(
            (
                "Look at both ends of the link: reseat the cable, and see whether the other host is up. When "
                "the link is up again, restart all ranks of the model together."
            )
            if down
            else (
                "Compare the settings of the ranks on both hosts (NCCL_SOCKET_IFNAME, NCCL_IB_HCA, "
                "NCCL_IB_GID_INDEX, the MTU), then reseat the cable. When the counters stand still, restart "
                "all ranks of the model together."
            )
        ),
        risk=(
            "Taking the link down ends every request of the model that runs over it, on both hosts, and the "
            "model is loaded again, which takes many minutes."
        ),
        will_not_fix=(
            "A cable, a port or an adapter that is failing: errors that come back after reseating are a case "
            "for a new one. TCP over another port goes on well meanwhile and proves nothing."
        ),
        proof=_PROOF,
    )


def _command(found: LinkEvidence | None) -> tuple[str, ...]:
    device = device_name(found.device) if found is not None else None
    if found is None or device is None:
        return _STATISTICS
    if found.counter is LinkCounter.CARRIER_CHANGES:
        return ("ip", "-s", "link", "show", "dev", device)
    return (*_STATISTICS, "link", f"{device}/{found.port}") if 0 < found.port < 256 else _STATISTICS
