"""exposure.off_mesh_listener: a server listens where more than this host and its private mesh can reach it.

The change that closes it belongs to the server's own configuration, which no command of ours may rewrite: the
advice names the setting for the servers that are known, and the exact command shows what holds the port.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from escalation.model import (
    Action,
    ActionKind,
    Advice,
    Incident,
    ListenerEvidence,
    ReasonCode,
    SubjectKind,
    Verification,
)
from escalation.server.playbook import steps
from escalation.server.playbook.names import acted_on, container_id


@dataclass(frozen=True, slots=True)
class _Server:
    """How one kind of server is told where to listen."""

    name: str
    processes: frozenset[str]
    port: int
    setting: str


_SERVERS: Final = (
    _Server("LiteLLM", frozenset({"litellm"}), 4000, "start it with --host 127.0.0.1"),
    _Server("Ollama", frozenset({"ollama"}), 11434, "set OLLAMA_HOST=127.0.0.1:11434 in its environment"),
    _Server("Open WebUI", frozenset({"open-webui"}), 8080, "set HOST=127.0.0.1 in its environment"),
    _Server("OpenPlaud", frozenset({"openplaud"}), 3000, "publish its port as 127.0.0.1:3000:3000"),
    _Server("PostgreSQL", frozenset({"postgres"}), 5432, "set listen_addresses = 'localhost'"),
    _Server("Ray", frozenset({"raylet", "gcs_server"}), 8265, "start it with --dashboard-host=127.0.0.1"),
    _Server("vLLM", frozenset({"vllm"}), 8000, "start it with --host 127.0.0.1"),
)


def advise(incident: Incident) -> Advice:
    """Return: bind it to loopback or to the mesh, with the setting of that server where it is recognised."""
    target = acted_on(incident)
    listener = _listener(incident)
    one = listener if incident.subject.kind is SubjectKind.LISTENER else None
    port = one.port if one is not None and 0 < one.port < 65_536 else None
    container = container_id(target)
    command: tuple[str, ...]
    if container is not None or _is_published(incident, listener):
        number = port or "PORT"
        how = (
            f"publish its port on loopback (-p 127.0.0.1:{number}:{number}) or on this host's own address in "
            f"the mesh (-p 100.x.y.z:{number}:{number}), and make the container anew"
        )
        if container is not None:
            command = ("docker", "inspect", "--format", "{{json .HostConfig.PortBindings}}", container)
        else:
            command = ("docker", "ps", "--no-trunc", *((f"--filter=publish={port}",) if port else ()))
    else:
        how = "bind it to 127.0.0.1 or to the mesh address in its configuration and restart it"
        command = ("ss", "-H", "-l", "-t", "-n", "-p", *((f"sport = :{port}",) if port else ()))
    server = _recognised(listener)
    summary = f"Close it to all but this host and the mesh: {how}."
    if one is None:
        summary = f"Find out what opens so many ports, and end it where nobody meant it. {summary}"
    if steps.has_reason(incident, ReasonCode.NOT_EXPECTED_HERE):
        summary = f"Find out first who started it: nothing has listened here before. {summary}"
    if server is not None:
        summary += f" It looks like {server.name}: {server.setting}."
    return Advice(
        action=Action(kind=ActionKind.CHANGE_SETTING, host=incident.agent_id, target=target, command=command),
        summary=summary,
        risk=(
            "The command shown only reads: it names what holds the port. The change cuts off clients that "
            "use the host's other addresses, and the restart interrupts what the server serves."
        ),
        will_not_fix=(
            "Whatever was reached while it was open. A firewall in front of the host does not show here, and "
            "Docker's published ports pass by ufw's rules."
        ),
        verification=Verification(
            text="The socket table shows no listener off the mesh on this port for 10 minutes.",
            within_s=3600,
            quiet_s=600,
        ),
    )


def _is_published(incident: Incident, listener: ListenerEvidence | None) -> bool:
    """Return whether Docker holds the port for a container."""
    by_name = listener is not None and listener.process_name.startswith("docker-pr")
    return by_name or steps.has_reason(incident, ReasonCode.PUBLISHED_BY_PROXY)


def _listener(incident: Incident) -> ListenerEvidence | None:
    return next((each for each in incident.evidence if isinstance(each, ListenerEvidence)), None)


def _recognised(listener: ListenerEvidence | None) -> _Server | None:
    if listener is None:
        return None
    by_name = (server for server in _SERVERS if listener.process_name.lower() in server.processes)
    by_port = (server for server in _SERVERS if server.port == listener.port)
    return next(by_name, None) or next(by_port, None)
