"""Model routes as cases name them: from a `RouteName` to its subject and its id on the wire."""

from __future__ import annotations

from typing import Final

from agent.subjects import cut
from escalation.model import RouteId, RouteKind, ServerKind, Subject, SubjectKind
from probes.http.facts import MODEL_BYTES, Route, RouteName
from probes.observation import Origin, SensorName

SENSOR: Final = SensorName("http.routes")

GENERATING: Final = frozenset(
    {
        Route.CHAT_COMPLETIONS,
        Route.COMPLETIONS,
        Route.RESPONSES,
        Route.MESSAGES,
        Route.OLLAMA_CHAT,
        Route.OLLAMA_GENERATE,
    }
)
"""The routes whose answers are text that somebody reads."""

COMPLETING: Final = frozenset({Route.COMPLETIONS, Route.OLLAMA_GENERATE})
"""Generating routes without a conversation. Editors ask them for the rest of a line, which may be nothing."""

MODEL_ROUTES: Final = frozenset(Route) - {Route.OTHER}
"""The routes that make a model work. OTHER is health and metrics pages: a dead engine answers those."""


def subject_of_route(name: RouteName) -> Subject:
    """Return what a case about `name` is about, e.g. ``8000/chat_completions qwen3-32b``."""
    place = f"{name.port}/{name.route.value}"
    model = cut(name.model or "", MODEL_BYTES)
    return Subject(SubjectKind.ROUTE, f"{place} {model}" if model else place)


def route_id_of(name: RouteName, origin: Origin) -> RouteId:
    """Return the same in fields, with the kind of server that answers."""
    return RouteId(
        port=name.port,
        route=RouteKind(name.route.value),
        model=cut(name.model or "", MODEL_BYTES),
        server=ServerKind(origin.server.value),
    )


def port_of(subject: Subject) -> int | None:
    """Return the port that a route's subject begins with; None for what is no route."""
    port, slash, _ = subject.name.partition("/")
    return int(port) if slash and port.isdecimal() and port.isascii() else None
