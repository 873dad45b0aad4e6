"""Where each model server is meant to run, as the operator declared it.

`[[placement]]` names one unit, container or route and says `gpu`, `cpu` or `partial` (a model that is split
on purpose). The narrowest declaration counts: a route with its model, then the route's port, then container
or unit. What is not declared has no placement: a detector then judges by what the server itself had before,
or not at all, but never by its name.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from probes.http.facts import MODEL_BYTES, RouteName
from probes.observation import Origin

RULES_MAX: Final = 256
_ROUTE: Final = re.compile(r"([1-9][0-9]{0,4})(?:/(.+))?", re.DOTALL)


class Placement(enum.StrEnum):
    """Where something is meant to compute."""

    GPU = "gpu"
    CPU = "cpu"
    PARTIAL = "partial"


class PlacementRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One declaration: exactly one of `unit`, `container` and `route`, and where that is meant to run.

    `container` is the beginning of a container's id, of at least twelve digits; `route` is a port, or a port
    and a model (`11434/nomic-embed-text`), as requests name it.
    """

    on: Placement
    unit: Annotated[str, Meta(pattern=r"^[^/\s\x00]{1,255}\.(service|scope)$")] | None = None
    container: Annotated[str, Meta(pattern="^[0-9a-f]{12,64}$")] | None = None
    route: str | None = None

    def __post_init__(self) -> None:
        """Refuse a rule that names nothing or two things, and a route that is none."""
        if sum(part is not None for part in (self.unit, self.container, self.route)) != 1:
            raise ValueError("exactly one of unit, container and route has to be given")
        if self.route is not None:
            route_of(self.route)


def route_of(text: str) -> tuple[int, str | None]:
    """Return port and model of a declared route; raise ValueError for what is none."""
    match = _ROUTE.fullmatch(text)
    if match is None or int(match[1]) > 65535:
        raise ValueError(f"{text!r} is no route: PORT or PORT/MODEL is expected")
    if match[2] is not None and len(match[2].encode(errors="replace")) > MODEL_BYTES:
        raise ValueError(f"the model of a route has at most {MODEL_BYTES} bytes")
    return int(match[1]), match[2]


def check(rules: Sequence[PlacementRule]) -> None:
    """Raise ValueError where two rules speak of the same thing: one of them would never count."""
    seen: set[tuple[str | None, str | None, tuple[int, str | None] | None]] = set()
    for rule in rules:
        key = (rule.unit, rule.container, None if rule.route is None else route_of(rule.route))
        if key in seen:
            named = rule.unit or rule.container or rule.route
            raise ValueError(f"{named!r} is declared twice")
        seen.add(key)


@dataclass(frozen=True, slots=True)
class Placements:
    """All declarations of a host, asked with every judgement about a server."""

    units: dict[str, Placement] = field(default_factory=dict)
    containers: dict[str, Placement] = field(default_factory=dict)
    routes: dict[tuple[int, str | None], Placement] = field(default_factory=dict)

    @staticmethod
    def of(rules: Sequence[PlacementRule]) -> Placements:
        """Return the declarations of a configuration that was checked."""
        return Placements(
            units={rule.unit: rule.on for rule in rules if rule.unit is not None},
            containers={rule.container: rule.on for rule in rules if rule.container is not None},
            routes={route_of(rule.route): rule.on for rule in rules if rule.route is not None},
        )

    def of_route(self, name: RouteName) -> Placement | None:
        """Return what was declared for a route: with its model, else for its port."""
        exact = None if name.model is None else self.routes.get((name.port, name.model))
        return exact or self.routes.get((name.port, None))

    def of_origin(self, origin: Origin) -> Placement | None:
        """Return what was declared for a container or unit."""
        if origin.container_id is not None:
            for beginning, placement in self.containers.items():
                if origin.container_id.startswith(beginning):
                    return placement
        return None if origin.unit is None else self.units.get(origin.unit)

    def of_server(self, origin: Origin, port: int) -> Placement | None:
        """Return what was declared for a whole server: its port, else its container or unit."""
        return self.routes.get((port, None)) or self.of_origin(origin)

    def of_exchange(self, origin: Origin, name: RouteName) -> Placement | None:
        """Return what was declared for the model behind one route, else for who serves it."""
        return self.of_route(name) or self.of_origin(origin)
