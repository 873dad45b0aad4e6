"""mesh.degraded: the private mesh of this host is down, about to end, or slow.

Whoever changes the mesh may lock himself out of the only way to the host. So this is never a button: it is
described for a person, who has a second way in first.
"""

from __future__ import annotations

from typing import Final

from escalation.model import Advice, Incident, MeshEvidence, MeshState, ReasonCode, Verification
from escalation.server.playbook import steps

_PROOF: Final = Verification(
    text="Within a day the mesh runs, is online, and reaches its active peers directly for 10 minutes.",
    within_s=86_400,
    quiet_s=600,
)
_RISK: Final = (
    "The mesh may be the only way to this host: have a second one first (a console, the local network). "
    "Connections over it break."
)


def advise(incident: Incident) -> Advice:
    """Return: what a person does about a mesh that is down; a look where it only is slow or ends soon."""
    found = next((each for each in incident.evidence if isinstance(each, MeshEvidence)), None)
    state = found.state if found is not None else MeshState.UNKNOWN
    if steps.is_only_a_note(incident):
        return _look(incident)
    if steps.has_reason(incident, ReasonCode.KEY_EXPIRED) or state is MeshState.NEEDS_LOGIN:
        return steps.by_hand(
            incident,
            ("tailscale", "up", "--force-reauth"),
            summary=(
                "Log this host in to the mesh again, from a console of the host. For a server, switch off "
                "the end of its key in the admin console afterwards."
            ),
            risk=f"{_RISK} The host leaves the mesh until somebody has logged it in.",
            will_not_fix="The next end of the key, unless it is switched off.",
            proof=_PROOF,
        )
    command: tuple[str, ...]
    match state:
        case MeshState.NO_DAEMON:
            command = ("systemctl", "start", "tailscaled.service")
            summary = "Start the mesh's daemon: it does not run. Read its log first for why it ended."
        case MeshState.STOPPED:
            command = ("tailscale", "up")
            summary = "Bring the mesh up again: somebody has brought it down on this host. Ask who and why."
        case MeshState.NEEDS_MACHINE_AUTH:
            command = ("tailscale", "status")
            summary = "Approve this host in the mesh's admin console: it waits for that."
        case _:
            if not steps.has_reason(incident, ReasonCode.MESH_NOT_RUNNING, ReasonCode.MESH_OFFLINE):
                return _look(incident)
            command = ("systemctl", "restart", "tailscaled.service")
            summary = (
                "Look at tailscale status and at the host's own network first. If both look well, restart "
                "the mesh's daemon."
            )
    return steps.by_hand(
        incident,
        command,
        summary=summary,
        risk=_RISK,
        will_not_fix="A network that lets nothing through, or a host that was removed from the mesh.",
        proof=_PROOF,
    )


def _look(incident: Incident) -> Advice:
    soon = steps.has_reason(incident, ReasonCode.KEY_EXPIRES_SOON)
    return steps.look(
        incident,
        ("tailscale", "status") if soon else ("tailscale", "netcheck"),
        summary=(
            (
                "The key of this host ends soon: log it in again at a quiet hour, from a console, or switch "
                "off the end of its key in the admin console."
            )
            if soon
            else (
                "Look how this host reaches the mesh: without UDP (port 41641) everything goes over relays, "
                "which is slow. For the first seconds of a connection that is ordinary."
            )
        ),
        will_not_fix="Anything: it shows the state. Nothing about the mesh is changed from here.",
        proof=_PROOF,
        risk="None: the command only asks. Its output names the hosts of the mesh.",
    )
