"""What serves a route, as its incident knows it, and the commands that only read about it."""

from __future__ import annotations

from typing import Final

from escalation.model import (
    Action,
    ActionKind,
    Advice,
    FlightEvidence,
    Incident,
    PromptSizeEvidence,
    ReasonCode,
    RouteEvidence,
    RouteId,
    ServerKind,
    Verification,
)
from escalation.server.playbook.names import acted_on, container_id, model_name, service_unit

ROUTERS: Final = frozenset({ServerKind.LITELLM, ServerKind.OPEN_WEBUI})
"""The servers that run no model themselves: what they answer came from somewhere else."""

ENGINES: Final = frozenset(
    {
        ServerKind.VLLM,
        ServerKind.TENSORRT_LLM,
        ServerKind.OLLAMA,
        ServerKind.LLAMA_CPP,
        ServerKind.RAY,
        ServerKind.WHISPER,
    }
)
"""The servers that run a model. What is neither, or not known, may be a proxy of any kind."""

READS_LOG: Final = (
    "None: the command only reads. Its output may show what users asked the model: read it on the host, and "
    "do not paste it elsewhere."
)
READS_PORT: Final = "None: the command only reads. Its output names the process that holds the port."
READS_SETTINGS: Final = (
    "The command shown only reads; its output may show a key that was given as a setting, so do not paste it "
    "elsewhere."
)
READS_MODELS: Final = "None: the command only reads. Its output names every model and where it runs."


def route_of(incident: Incident) -> RouteId | None:
    """Return the route that the evidence is about."""
    for each in incident.evidence:
        if isinstance(each, RouteEvidence | FlightEvidence | PromptSizeEvidence):
            return each.id
    return None


def server_of(incident: Incident) -> ServerKind:
    """Return which software answers the route."""
    route = route_of(incident)
    return ServerKind.UNKNOWN if route is None else route.server


def is_at_router(incident: Incident) -> bool:
    """Return whether the route is one of a router's."""
    return server_of(incident) in ROUTERS


def is_at_engine(incident: Incident) -> bool:
    """Return whether the route is one of a server that is known to run the model itself."""
    return server_of(incident) in ENGINES


def model_of(incident: Incident) -> str:
    """Return the model's name for a text, or words that do without it where it is not known or not safe."""
    return model_name(route_of(incident)) or "this model"


def has_second_witness(incident: Incident) -> bool:
    """Return whether the case rests on more than one sign."""
    return all(reason.code is not ReasonCode.SECOND_LAYER_UNKNOWN for reason in incident.reasons)


def log_command(incident: Incident) -> tuple[str, ...]:
    """Return what shows the server's last words, or who holds its port where the server has no safe name."""
    target = acted_on(incident)
    if (container := container_id(target)) is not None:
        return ("docker", "logs", "--tail", "200", container)
    if (unit := service_unit(target)) is not None:
        return ("journalctl", "--no-pager", "--lines=200", f"--unit={unit}")
    return listener_command(incident)


def settings_command(incident: Incident) -> tuple[str, ...]:
    """Return what shows how the server was started, or who holds its port where it has no safe name."""
    target = acted_on(incident)
    if (container := container_id(target)) is not None:
        return ("docker", "inspect", "--format", "{{json .Path}} {{json .Args}}", container)
    if (unit := service_unit(target)) is not None:
        return ("systemctl", "cat", "--no-pager", unit)
    return listener_command(incident)


def template_command(incident: Incident) -> tuple[str, ...] | None:
    """Return what shows a model's template in Ollama; None for another server, or a name that is not safe."""
    model = model_name(route_of(incident))
    if server_of(incident) is not ServerKind.OLLAMA or model is None:
        return None
    show = ("ollama", "show", "--template", model)
    target = acted_on(incident)
    if (container := container_id(target)) is not None:
        return ("docker", "exec", container, *show)
    return show if service_unit(target) is not None else None


def restart_command(incident: Incident) -> tuple[ActionKind, tuple[str, ...]] | None:
    """Return what restarts exactly this server, or None where it has no safe name."""
    target = acted_on(incident)
    if (container := container_id(target)) is not None:
        return ActionKind.RESTART_CONTAINER, ("docker", "restart", container)
    if (unit := service_unit(target)) is not None:
        return ActionKind.RESTART_UNIT, ("systemctl", "restart", unit)
    return None


def listener_command(incident: Incident) -> tuple[str, ...]:
    """Return what shows which process listens on the route's port."""
    route = route_of(incident)
    command = ("ss", "-H", "-l", "-t", "-n", "-p")
    return (*command, f"sport = :{route.port}") if route is not None and 0 < route.port < 65_536 else command


def look(
    incident: Incident,
    *,
    summary: str,
    will_not_fix: str,
    proof: str,
    command: tuple[str, ...] | None = None,
    risk: str | None = None,
) -> Advice:
    """Return the advice to read the server's log, or what `command` shows at the price of `risk`."""
    command = log_command(incident) if command is None else command
    if risk is None:
        risk = READS_PORT if command == listener_command(incident) else READS_LOG
    action = Action(
        kind=ActionKind.INSPECT,
        host=incident.agent_id,
        target=acted_on(incident),
        command=command,
    )
    return Advice(
        action=action,
        summary=summary,
        risk=risk,
        will_not_fix=will_not_fix,
        verification=Verification(text=proof, within_s=86_400, quiet_s=600),
    )


def change(
    incident: Incident,
    *,
    summary: str,
    risk: str,
    will_not_fix: str,
    proof: str,
    command: tuple[str, ...] | None = None,
) -> Advice:
    """Return the advice to change a setting of the server; the command shows how it was started."""
    action = Action(
        kind=ActionKind.CHANGE_SETTING,
        host=incident.agent_id,
        target=acted_on(incident),
        command=settings_command(incident) if command is None else command,
    )
    return Advice(
        action=action,
        summary=summary,
        risk=f"{READS_SETTINGS} {risk}",
        will_not_fix=will_not_fix,
        verification=Verification(text=proof, within_s=3600, quiet_s=600),
    )
