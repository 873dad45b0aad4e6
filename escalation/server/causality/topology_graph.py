"""The topology as a graph: what needs what, from route to mesh, by the map and by what was seen.

route -> model -> container or unit -> GPU -> host -> mesh. A link says that what stands above needs what
stands below. Nothing here decides anything: causes are found by `reach`; this is what people are shown.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from escalation.model import SEVERITY_ORDER, AgentId, Incident, Severity, SubjectKind
from escalation.server.causality import topology
from escalation.server.causality.observed import Held, Served
from escalation.server.causality.topology import Declared, Replica, Route
from escalation.server.playbook.names import acted_on
from escalation.server.playbook.serving import ENGINES, ROUTERS, is_at_router, route_of

PATH_AT_MOST: Final = 40
"""How many nodes of an incident's path are shown: those nearest to it."""

_SERVERS: Final = frozenset({SubjectKind.CONTAINER, SubjectKind.UNIT, SubjectKind.CGROUP})


class NodeKind(enum.StrEnum):
    """What a node is, from what is needed by nothing to what needs nothing."""

    ROUTE = "route"
    MODEL = "model"
    SERVER = "server"
    GPU = "gpu"
    HOST = "host"
    MESH = "mesh"


_LEVELS: Final = tuple(NodeKind)


@dataclass(frozen=True, slots=True)
class Node:
    """One thing, by its name on its host; a model and the mesh are of no host, a route of its router's."""

    kind: NodeKind
    name: str
    host: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """A node, whether the map says it and reports show it, and how many open incidents are about it."""

    node: Node
    declared: bool
    seen: bool
    open: int
    worst: Severity | None


@dataclass(frozen=True, slots=True)
class Graph:
    """Every node in order of its level, and the links from what needs to what is needed."""

    nodes: tuple[Standing, ...]
    links: tuple[tuple[Node, Node], ...]


@dataclass(slots=True)
class _Draft:
    declared: set[Node] = field(default_factory=set)
    seen: set[Node] = field(default_factory=set)
    links: set[tuple[Node, Node]] = field(default_factory=set)


def graph(
    declared: Declared,
    *,
    served: Sequence[Served],
    held: Sequence[Held],
    heard: Iterable[AgentId],
    incidents: Sequence[Incident],
) -> Graph:
    """Return the graph of what is declared, was seen and is heard, with what is open of `incidents`."""
    draft = _Draft()
    draft.seen |= {Node(NodeKind.HOST, host, host) for host in heard}
    _add_held(draft, held)
    _add_served(draft, served, declared)
    _add_declared(draft, declared, served)
    about: dict[Node, list[Incident]] = {}
    for incident in incidents:
        if incident.open and not incident.drill:
            for node in places_of(incident):
                draft.seen.add(node)
                about.setdefault(node, []).append(incident)
    for node in draft.declared | draft.seen:
        if node.kind in {NodeKind.SERVER, NodeKind.GPU}:
            host = Node(NodeKind.HOST, node.host, node.host)
            draft.links.add((node, host))
            draft.seen.add(host)
    nodes = sorted(draft.declared | draft.seen, key=_order)
    return Graph(
        nodes=tuple(
            Standing(node, node in draft.declared, node in draft.seen, len(found), _worst(found))
            for node in nodes
            for found in (about.get(node, []),)
        ),
        links=tuple(sorted(draft.links, key=lambda link: (*_order(link[0]), *_order(link[1])))),
    )


def places_of(incident: Incident) -> tuple[Node, ...]:
    """Return the nodes that an incident is about: a router's route, a server, a GPU, or else the host."""
    host, route, server = incident.agent_id, route_of(incident), acted_on(incident)
    found: list[Node] = []
    if route is not None and route.model and is_at_router(incident):
        found.append(Node(NodeKind.ROUTE, route.model, host))
    elif server.kind in _SERVERS:
        found.append(Node(NodeKind.SERVER, server.name, host))
    if incident.subject.kind is SubjectKind.GPU:
        found.append(Node(NodeKind.GPU, incident.subject.name, host))
    return tuple(found) or (Node(NodeKind.HOST, host, host),)


def path(whole: Graph, incident: Incident) -> tuple[tuple[Standing, bool], ...]:
    """Return what needs the nodes of an incident and what they need, by level, and whether each is of it."""
    here = places_of(incident)
    found = dict.fromkeys(here)
    found |= dict.fromkeys(_walked(here, [(above, below) for below, above in whole.links]))
    found |= dict.fromkeys(_walked(here, whole.links))
    nearest = dict.fromkeys(list(found)[:PATH_AT_MOST])
    return tuple((each, each.node in here) for each in whole.nodes if each.node in nearest)


def hosts_of(nodes: Iterable[Standing]) -> frozenset[AgentId]:
    """Return the hosts that nodes stand on."""
    return frozenset(AgentId(each.node.host) for each in nodes if each.node.host)


def _walked(start: Iterable[Node], links: Iterable[tuple[Node, Node]]) -> list[Node]:
    """Return what can be reached along `links`, nearest first."""
    below: dict[Node, list[Node]] = {}
    for above, needed in links:
        below.setdefault(above, []).append(needed)
    waiting, passed = list(start), set(start)
    found: list[Node] = []
    for node in waiting:
        for each in below.get(node, ()):
            if each not in passed:
                passed.add(each)
                waiting.append(each)
                found.append(each)
    return found


def _add_held(draft: _Draft, held: Sequence[Held]) -> None:
    draft.seen |= {Node(NodeKind.GPU, each.gpu, each.host) for each in held}


def _add_served(draft: _Draft, served: Sequence[Served], declared: Declared) -> None:
    gpus = [node for node in draft.seen if node.kind is NodeKind.GPU]
    for each in served:
        server = Node(NodeKind.SERVER, each.server.name, each.host)
        draft.seen.add(server)
        if each.kind in ENGINES:
            draft.links |= {(server, gpu) for gpu in gpus if gpu.host == each.host}
        if not each.model:
            continue
        if each.kind in ROUTERS:
            route = Node(NodeKind.ROUTE, each.model, each.host)
            model = Node(NodeKind.MODEL, topology.model_at(declared, router=each.host, name=each.model))
            draft.seen |= {route, model}
            draft.links |= {(route, server), (route, model)}
        elif each.kind in ENGINES:
            model = Node(NodeKind.MODEL, each.model)
            draft.seen.add(model)
            draft.links.add((model, server))


def _add_declared(draft: _Draft, declared: Declared, served: Sequence[Served]) -> None:
    for host in declared.host:
        node = Node(NodeKind.HOST, host.name, host.name)
        draft.declared.add(node)
        if host.mesh or any(map(topology.is_mesh, host.addresses)):
            mesh = Node(NodeKind.MESH, "mesh")
            draft.declared.add(mesh)
            draft.links.add((node, mesh))
    for route in declared.route:
        node = Node(NodeKind.ROUTE, route.name, route.router or "")
        draft.declared.add(node)
        if route.via is not None:
            following = topology.following(declared, route.via)
            draft.links.add((node, Node(NodeKind.ROUTE, following.name, following.router or "")))
            continue
        model = Node(NodeKind.MODEL, route.model or route.name)
        draft.declared.add(model)
        draft.links.add((node, model))
        _add_engines(draft, route, model, served)
    for pair in declared.pair:
        model = Node(NodeKind.MODEL, pair.model)
        draft.declared.add(model)
        draft.links |= {(model, Node(NodeKind.HOST, rank, rank)) for rank in pair.ranks}


def _add_engines(draft: _Draft, route: Route, model: Node, served: Sequence[Served]) -> None:
    for engine in topology.engines_of(route):
        for name in _names_of(engine, served):
            server = Node(NodeKind.SERVER, name, engine.host)
            draft.declared.add(server)
            draft.links.add((model, server))


def _names_of(engine: Replica, served: Sequence[Served]) -> tuple[str, ...]:
    """Return what a declared engine is called: its unit, else what was seen at its port, else the port."""
    if engine.server is not None:
        return (engine.server.name,)
    seen = (each for each in served if each.host == engine.host and each.port == engine.port)
    found = tuple(dict.fromkeys(each.server.name for each in seen if engine.port))
    return found or ((f"port {engine.port}",) if engine.port else ())


def _order(node: Node) -> tuple[int, str, str]:
    return _LEVELS.index(node.kind), node.host, node.name


def _worst(incidents: Sequence[Incident]) -> Severity | None:
    return max((each.severity for each in incidents), key=SEVERITY_ORDER.index, default=None)
