"""network.retransmission: segments to one peer are lost on the way and sent again.

No command on this host mends a path; the advice is where to look. Traffic that goes over a relay of the mesh
is slow by its nature, and tells of the mesh rather than of the cable.
"""

from __future__ import annotations

from typing import Final

from escalation.model import Advice, Incident, PeerEvidence, ReasonCode, Verification
from escalation.server.playbook import steps
from escalation.server.playbook.names import ip_address

_PROOF: Final = Verification(
    text="Within a day less than one segment in a thousand to this peer is sent again, for 10 minutes.",
    within_s=86_400,
    quiet_s=600,
)


def advise(incident: Incident) -> Advice:
    """Return: look at the peer's path in the mesh where it is relayed, at its sockets otherwise."""
    found = next((each for each in incident.evidence if isinstance(each, PeerEvidence)), None)
    address = ip_address(found.address) if found is not None else None
    if steps.has_reason(incident, ReasonCode.PEER_IS_RELAYED):
        command: tuple[str, ...] = ("tailscale", "netcheck")
        if address is not None:
            command = ("tailscale", "ping", "--c=5", address)
        return steps.look(
            incident,
            command,
            summary=(
                "Look whether the mesh finds a direct path to the peer. It goes over a relay now, which is "
                "slow and drops; a firewall that lets no UDP through (port 41641) is the usual cause."
            ),
            risk="None: the command sends a few packets to the peer.",
            will_not_fix="Anything: it shows the path that the mesh takes.",
            proof=_PROOF,
        )
    sockets = ("ss", "-H", "-t", "-i", "-n")
    return steps.look(
        incident,
        (*sockets, "dst", _of_filter(address)) if address is not None else sockets,
        summary=(
            "Look at the connections to this peer (retrans, rto, mss) and compare with the other peers. "
            "One peer alone points to its link or host, all of them to this host's own link. Large segments "
            "that never arrive while small ones do point to a path with a smaller MTU."
        ),
        will_not_fix="Anything: it shows which path loses segments.",
        proof=_PROOF,
    )


def _of_filter(address: str) -> str:
    return f"[{address}]" if ":" in address else address
