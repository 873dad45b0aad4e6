"""exposure.open_control_plane: something that obeys whoever reaches it can be reached from beyond the mesh.

It is closed in its own configuration, which no command of ours may rewrite: the advice names the setting of
each, and the exact command shows what holds the port.
"""

from __future__ import annotations

from typing import Final

from escalation.model import (
    ActionKind,
    Advice,
    ControlPlane,
    ControlPlaneEvidence,
    Incident,
    ReasonCode,
    Verification,
)
from escalation.server.playbook import steps
from escalation.server.playbook.names import acted_on, container_id

_PROOF: Final = Verification(
    text="Within an hour nothing listens there off the mesh, and nobody is connected to it, for 10 minutes.",
    within_s=3600,
    quiet_s=600,
)
_SETTINGS: Final = {
    ControlPlane.RAY_DASHBOARD: (
        "Ray runs whatever its dashboard is sent: start it with --dashboard-host=127.0.0.1, and switch its "
        "token authentication on."
    ),
    ControlPlane.RAY_GCS: (
        "Start Ray with --node-ip-address set to the address of the private link, and let only the other "
        "host of the model reach it."
    ),
    ControlPlane.RAY_CLIENT: "Start Ray without its client server, or let only 127.0.0.1 reach it.",
    ControlPlane.DOCKER_API: (
        "Docker's API is root on this host: take -H tcp:// out of its unit or daemon.json, and use ssh for "
        "what has to be reached from afar."
    ),
    ControlPlane.KUBELET: "Switch off anonymous access, and let only the cluster's own control plane in.",
    ControlPlane.ETCD: "Set --listen-client-urls to 127.0.0.1 and require certificates of its clients.",
    ControlPlane.OPENCLAW: "Bind its gateway to loopback, and reach it by tailscale serve.",
    ControlPlane.POSTGRESQL: "Set listen_addresses = 'localhost', and change passwords that came with it.",
    ControlPlane.REDIS: "Set bind 127.0.0.1 and protected-mode yes.",
    ControlPlane.OLLAMA: "Set OLLAMA_HOST=127.0.0.1:11434 in its environment: it asks nobody for a key.",
    ControlPlane.JUPYTER: "Start it with --ip=127.0.0.1, and with a token.",
}


def advise(incident: Incident) -> Advice:
    """Return: bind it to loopback or the mesh, in words for each kind; a note looks at who holds the port."""
    found = next((each for each in incident.evidence if isinstance(each, ControlPlaneEvidence)), None)
    port = found.port if found is not None and 0 < found.port < 65_536 else None
    published = steps.has_reason(incident, ReasonCode.PUBLISHED_BY_PROXY) or (
        found is not None and found.published
    )
    command = _command(incident, port, published=published)
    connected = steps.has_reason(incident, ReasonCode.PEER_OFF_MESH) or (
        found is not None and found.outside_peers > 0
    )
    if steps.is_only_a_note(incident):
        return steps.look(
            incident,
            command,
            summary="Look at what holds this port, and whether it is meant to be reached from outside.",
            will_not_fix="Anything: it shows what has to be closed.",
            proof=_PROOF,
            risk="None: the command only reads. Its output names the process that holds the port.",
        )
    setting = _SETTINGS.get(found.plane, "") if found is not None else ""
    how = (
        f"publish its port on the mesh address or on loopback only (-p 127.0.0.1:{port or 'PORT'}:"
        f"{port or 'PORT'}) and make the container anew"
        if published
        else "bind it to 127.0.0.1 or to the mesh address and restart it"
    )
    return steps.propose(
        incident,
        ActionKind.CHANGE_SETTING,
        command,
        summary=f"Close it to all but this host and the mesh: {how}. {setting}".rstrip(),
        risk=(
            "The command shown only reads: it names what holds the port. The change cuts off whoever uses it "
            "over other addresses, and the restart interrupts what it runs. Where two hosts of one model "
            "talk over it, keep it open between those two addresses."
        ),
        will_not_fix=(
            "Whatever was done through it while it was open"
            + (
                ", and somebody from outside the mesh is connected: find out who before you close it, and "
                "change the secrets of this host."
                if connected
                else ". A firewall in front of the host does not show here."
            )
        ),
        proof=_PROOF,
    )


def _command(incident: Incident, port: int | None, *, published: bool) -> tuple[str, ...]:
    if (container := container_id(acted_on(incident))) is not None:
        return ("docker", "inspect", "--format", "{{json .HostConfig.PortBindings}}", container)
    if published and port is not None:
        return ("docker", "ps", "--no-trunc", f"--filter=publish={port}")
    command = ("ss", "-H", "-t", "-a", "-n", "-p")
    return (*command, f"sport = :{port}") if port is not None else command
