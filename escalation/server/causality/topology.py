"""The declared map: the addresses of hosts, the engines behind routes, the hosts that run one model together.

Reports say most of it: a route's evidence names its port, its model and what serves it. What no single host
knows stands in orchestrator.toml: under which name a router knows the model of an engine elsewhere, whose
address a peer is, which two hosts run one model together. The map is small and checked as a whole; what is
not declared is not guessed, but `nanobotctl topology suggest` says what was seen and is not in it.

Declared is not proven: the map joins faults that agents report, and makes none.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from escalation.model import AgentId, Subject, SubjectKind
from escalation.server.storage.records import Kind

_ADDRESSES_AT_MOST: Final = 16
_PARTS_AT_MOST: Final = 200

_MESH: Final = (ipaddress.ip_network("100.64.0.0/10"), ipaddress.ip_network("fd7a:115c:a1e0::/48"))
"""The addresses that Tailscale gives (RFC 6598's shared space, and its own part of the private one)."""

_UNIT: Final = re.compile(r"[A-Za-z0-9:_.@\\-]{1,247}\.service\Z")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

HostName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?\Z")]
"""A host as its agent's certificate names it."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
"""A route or a model, as requests name it."""


def _once(what: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{what} {twice[0]} is there twice")


class Host(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[topology.host]]`: its addresses, as peers see them, and its name in the mesh."""

    name: HostName
    addresses: tuple[str, ...] = ()
    mesh: Annotated[str, msgspec.Meta(max_length=253)] = ""

    def __post_init__(self) -> None:
        """Refuse what is no address, and loopback, which is everybody's."""
        if len(self.addresses) > _ADDRESSES_AT_MOST:
            raise ValueError(f"more than {_ADDRESSES_AT_MOST} addresses")
        for text in self.addresses:
            address = address_of(text)
            if address is None or address.is_loopback or address.is_unspecified:
                raise ValueError(f"{text!r} is not an address by which others reach this host")


class Engine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[topology.route.engine]]`: by its host, and its unit and port where those are known."""

    host: HostName
    unit: str | None = None
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0

    def __post_init__(self) -> None:
        """Refuse what is no service unit."""
        if self.unit is not None and not _UNIT.match(self.unit):
            raise ValueError(f"{self.unit!r} is not a service unit, such as vllm.service")


class Route(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[topology.route]]`: a model as callers name it, and its engines or the route that it goes via.

    `router` is the host where callers find it (None: any), `model` what the engines call it where that is
    another name.
    """

    name: Name
    router: HostName | None = None
    model: Name | None = None
    via: Name | None = None
    engine: tuple[Engine, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a route that leads nowhere, or to two places."""
        if bool(self.engine) == (self.via is not None):
            raise ValueError(f"route {self.name} has either engines or another route that it goes via")


class Pair(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[topology.pair]]`: the hosts that run one model together, each a rank."""

    model: Name
    ranks: tuple[HostName, ...]

    def __post_init__(self) -> None:
        """Refuse fewer than two different hosts."""
        if len(set(self.ranks)) != len(self.ranks) or len(self.ranks) < 2:
            raise ValueError(f"the ranks of {self.model} are two or more different hosts")


class Declared(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[topology]` tables: all that is declared."""

    host: tuple[Host, ...] = ()
    route: tuple[Route, ...] = ()
    pair: tuple[Pair, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no single table shows: names twice or not there, one address of two hosts, a circle."""
        if max(len(self.host), len(self.route), len(self.pair)) > _PARTS_AT_MOST:
            raise ValueError(f"more than {_PARTS_AT_MOST} hosts, routes or pairs")
        hosts = {each.name for each in self.host}
        _once("host", [each.name for each in self.host])
        _once("address", [str(address_of(text)) for each in self.host for text in each.addresses])
        _once("mesh name", [each.mesh for each in self.host if each.mesh])
        _once("route", [f"{each.name} at {each.router or 'any router'}" for each in self.route])
        _once("pair of ranks of model", [each.model for each in self.pair])
        for where, host in self._named():
            if host not in hosts:
                raise ValueError(f"{where}: there is no [[topology.host]] {host}")
        names = {each.name for each in self.route}
        for route in self.route:
            if route.via is not None and route.via not in names:
                raise ValueError(f"route {route.name} goes via {route.via}, which is no [[topology.route]]")
        for route in self.route:
            self._refuse_circle(route)

    def _refuse_circle(self, route: Route) -> None:
        passed = [route.name]
        while route.via is not None:
            route = following(self, route.via)
            if route.name in passed:
                raise ValueError(f"routes go in a circle: {' via '.join((*passed, route.name))}")
            passed.append(route.name)

    def _named(self) -> Iterator[tuple[str, str]]:
        for route in self.route:
            if route.router is not None:
                yield f"router of route {route.name}", route.router
            for engine in route.engine:
                yield f"engine of route {route.name}", engine.host
        for pair in self.pair:
            for rank in pair.ranks:
                yield f"rank of model {pair.model}", rank


NOTHING: Final = Declared()
"""The map of a site that declares nothing."""

DECLARED: Final = Kind("topology", Declared)
"""The record of the map that all orchestrators on one database judge by."""

THE_MAP: Final = "declared"
"""The key of that record."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One engine of a route: its host, what serves there, and at which port (0: not said)."""

    host: AgentId
    server: Subject | None
    port: int


def owners(declared: Declared) -> dict[Address, AgentId]:
    """Return whose each declared address is."""
    return {
        address: AgentId(host.name)
        for host in declared.host
        for address in map(address_of, host.addresses)
        if address is not None
    }


def route_at(declared: Declared, *, router: str, name: str) -> Route | None:
    """Return the route that callers at `router` call `name`; one that names its router goes first."""
    found = [each for each in declared.route if each.name == name and each.router in {None, router}]
    return min(found, key=lambda each: each.router is None, default=None)


def following(declared: Declared, name: str) -> Route:
    """Return the route that another one goes via: one for any router goes first."""
    found = [each for each in declared.route if each.name == name]
    return min(found, key=lambda each: (each.router is not None, each.router or ""))


def last_of(declared: Declared, route: Route) -> Route:
    """Return the route with the engines that `route` leads to."""
    while route.via is not None:
        route = following(declared, route.via)
    return route


def model_at(declared: Declared, *, router: str, name: str) -> str:
    """Return what engines call the model that callers at `router` call `name`."""
    route = route_at(declared, router=router, name=name)
    if route is None:
        return name
    last = last_of(declared, route)
    return last.model or last.name


def replicas(declared: Declared, *, router: str, name: str) -> tuple[Replica, ...]:
    """Return the engines behind the route that callers at `router` call `name`."""
    route = route_at(declared, router=router, name=name)
    return () if route is None else engines_of(last_of(declared, route))


def engines_of(route: Route) -> tuple[Replica, ...]:
    """Return the engines that stand in a route itself."""
    return tuple(
        Replica(AgentId(each.host), Subject(SubjectKind.UNIT, each.unit) if each.unit else None, each.port)
        for each in route.engine
    )


def other_ranks(declared: Declared, *, host: str, model: str) -> tuple[AgentId, ...]:
    """Return the hosts that run `model` together with `host`; without a model, of all that it runs so."""
    pairs = [each for each in declared.pair if host in each.ranks and model in {"", each.model}]
    return tuple(dict.fromkeys(AgentId(rank) for pair in pairs for rank in pair.ranks if rank != host))


def is_mesh(address: str) -> bool:
    """Return whether an address is one that the mesh gives."""
    found = address_of(address)
    return found is not None and any(found in network for network in _MESH)


def address_of(text: str) -> Address | None:
    """Return an address, one that is mapped into IPv6 as what it is; None for what is none."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found
