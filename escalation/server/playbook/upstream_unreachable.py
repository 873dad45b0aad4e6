"""network.upstream_unreachable: a server cannot reach the server that it asks.

How the attempts fail says where to look. Refused: the host answers, and nothing listens there. Unreachable or
no answer: the way or the host is at fault. A model server that loads its weights listens only when it is
done, so a refusal alone is no crash.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from escalation.model import Advice, Incident, PeerEvidence, ReasonCode, Verification
from escalation.server.playbook import steps
from escalation.server.playbook.names import ip_address

_PROOF: Final = Verification(
    text="Within a day connections to it succeed again, and none fails for 10 minutes after that.",
    within_s=86_400,
    quiet_s=600,
)
_REFUSED: Final = 111  # errno(3) on Linux: ECONNREFUSED
_LOADING: Final = (
    "Wait: the server is alive and loads its model; it listens once that is done. Do not restart it."
)
_REFUSED_HERE: Final = (
    "Nothing listens on this port of this host: look whether the server runs, loads, or fails at its start, "
    "and start it. A list without a line means that nobody listens."
)
_REFUSED_THERE: Final = (
    "The other host answers, and nothing listens there: look on that host whether the server runs, loads, or "
    "fails at its start, and start it. The command shows who asks for it here."
)
_LOST: Final = (
    "Look at the route that leads there, and whether the other host is up: no answer comes from it at all. "
    "Where it is reached over the mesh, look at tailscale status first."
)


def advise(incident: Incident) -> Advice:
    """Return: wait for a load; look for the listener, here or there; look at the way."""
    found = next((each for each in incident.evidence if isinstance(each, PeerEvidence)), None)
    address = ip_address(found.address) if found is not None else None
    port = found.port if found is not None and 0 < found.port < 65_536 else None
    refused = steps.has_reason(incident, ReasonCode.CONNECTS_REFUSED) or (
        found is not None and found.errno == _REFUSED
    )
    lost = steps.has_reason(incident, ReasonCode.CONNECTS_UNREACHABLE, ReasonCode.CONNECTS_TIME_OUT)
    command = ("ss", "-H", "-l", "-t", "-n", "-p", *((f"sport = :{port}",) if port else ()))
    if steps.has_reason(incident, ReasonCode.SERVER_IS_LOADING):
        summary = _LOADING
    elif not refused or lost:
        command = ("ip", "route", "get", address) if address is not None else ("ip", "route", "show")
        summary = _LOST
    elif address is not None and ipaddress.ip_address(address).is_loopback:
        summary = _REFUSED_HERE
    else:
        command, summary = _connections(address), _REFUSED_THERE
    return steps.look(
        incident,
        command,
        summary=summary,
        will_not_fix="Anything: it shows on which side the fault is.",
        proof=_PROOF,
    )


def _connections(address: str | None) -> tuple[str, ...]:
    sockets = ("ss", "-H", "-t", "-a", "-n", "-p")
    if address is None:
        return sockets
    return (*sockets, "dst", f"[{address}]" if ":" in address else address)
