"""The topology as people see it: nodes, links, the path of an incident, and what happened together."""

from __future__ import annotations

import json
import tomllib

from hypothesis import given, settings, strategies as st

from escalation.model import FaultClass, GpuEvidence, ServerKind, Subject, SubjectKind
from escalation.server.causality.topology import Declared, Host, Route, is_mesh
from escalation.server.causality.topology_graph import Graph, Node, NodeKind
from escalation.server.incident import incident_desk
from escalation.view.incident import account_view, topology_view
from tests.escalation.server.test_distant_causes import (
    ERRORS,
    GPU,
    GPU_LOST,
    MAP,
    MESH_DOWN,
    OTHER,
    At,
    at_engine,
    at_router,
    mapped,
    shown,
    standing,
    tell,
)
from tests.escalation.server.test_host_causes import MINUTE_NS, Site
from tests.escalation.server.test_one_cause import Told, unreachable

F = FaultClass
K = NodeKind


def _gpu_lost() -> At:
    evidence = GpuEvidence(
        gpu=GPU.name,
        name="GB10",
        sm_mhz=None,
        usual_mhz=None,
        busy_percent=None,
        watts=None,
        event_reasons=None,
        nvml_code=15,
        recovery_action=None,
    )
    return At("spark-1", Told(F.GPU_DEVICE_FAULT, GPU, (evidence,)))


def _graph(site: Site) -> Graph:
    return incident_desk.graph(site.ledger, now_ns=site.now_ns)


def _path(site: Site, at: At) -> list[tuple[str, str, bool]]:
    account = incident_desk.account(site.ledger, standing(site, at).id, now_ns=site.now_ns)
    return [(each.node.kind, each.node.name, here) for each, here in account.path]


def test_the_map_alone_is_a_graph_from_route_to_mesh() -> None:
    """Every declared thing is a node, declared and not seen, and links lead down."""
    site = mapped()
    graph = _graph(site)
    names = {(each.node.kind, each.node.name) for each in graph.nodes}
    assert {(K.ROUTE, "qwen3"), (K.MODEL, "Qwen/Qwen3-32B"), (K.SERVER, "vllm.service")} <= names
    assert {(K.HOST, "spark-1"), (K.MESH, "mesh")} <= names
    assert all(each.declared for each in graph.nodes)
    assert not any(each.open for each in graph.nodes)
    levels = list(NodeKind)
    assert all(levels.index(above.kind) <= levels.index(below.kind) for above, below in graph.links)
    known = {each.node for each in graph.nodes}
    assert all(above in known and below in known for above, below in graph.links)


def test_the_path_of_a_router_goes_down_to_the_mesh_and_says_where_it_is_ill() -> None:
    """Route, model, engine, GPU, host, mesh; what is open stands at its node, and the incident is here."""
    site = mapped()
    engine = at_engine(F.ROUTE_ERRORS_RISING)
    for each in (engine, _gpu_lost(), ERRORS):
        tell(site, each)
    assert _path(site, ERRORS) == [
        ("route", "qwen3", True),
        ("route", "webui-qwen3", False),
        ("model", "Qwen/Qwen3-32B", False),
        ("server", "litellm.service", False),
        ("server", "vllm.service", False),
        ("gpu", GPU.name, False),
        ("host", "app-1", False),
        ("host", "spark-1", False),
        ("mesh", "mesh", False),
    ]
    worst = {each.node.name: (each.open, each.worst) for each in _graph(site).nodes if each.open}
    assert worst[GPU.name][0] == 1
    assert worst["qwen3"][0] == 1


def test_the_path_of_a_gpu_goes_up_to_the_routes_that_need_it() -> None:
    """Who stands at the lost GPU sees what needs it."""
    site = mapped()
    for each in (at_engine(F.ROUTE_ERRORS_RISING), _gpu_lost()):
        tell(site, each)
    names = [name for _, name, _ in _path(site, _gpu_lost())]
    assert names[:2] == ["qwen3", "webui-qwen3"]
    assert "app-1" not in names


def test_reports_alone_make_a_graph() -> None:
    """Without a map the router, its route, the engine and the GPU stand there as they were seen."""
    site = mapped(Declared())
    for each in (at_engine(F.ROUTE_ERRORS_RISING, model="qwen3"), _gpu_lost(), ERRORS):
        tell(site, each)
    found = _graph(site)
    assert not any(each.declared for each in found.nodes)
    assert (Node(K.MODEL, "qwen3"), Node(K.SERVER, "vllm.service", "spark-1")) in found.links
    assert (Node(K.SERVER, "vllm.service", "spark-1"), Node(K.GPU, GPU.name, "spark-1")) in found.links


def test_what_happened_together_is_shown_and_not_merged() -> None:
    """Incidents of the path's hosts that began about then are named; consequences and strangers are not."""
    site = mapped()
    tell(site, at_router(F.ROUTE_ERRORS_RISING))
    near = At("spark-1", Told(F.PROCESS_FD_EXHAUSTED, OTHER))
    tell(site, near)
    tell(site, At("spark-2", Told(F.PROCESS_FD_EXHAUSTED, OTHER)))
    site.now_ns += 6 * MINUTE_NS
    tell(site, GPU_LOST)
    account = incident_desk.account(site.ledger, standing(site, ERRORS).id, now_ns=site.now_ns)
    assert account.cause is not None
    assert account.cause.id == standing(site, GPU_LOST).id
    assert [each.id for each in account.together] == [standing(site, near).id]
    assert standing(site, near).explained_by is None


def test_what_was_seen_and_is_not_declared_is_asked_for() -> None:
    """Hosts, addresses, routes and models on several hosts, each with the lines that would say it."""
    site = mapped(Declared(host=(Host(name="app-1"),)))
    for each in (
        at_engine(F.ROUTE_ERRORS_RISING, model="qwen3"),
        at_engine(F.ROUTE_ERRORS_RISING, host="spark-2", model="qwen3"),
        at_router(F.ROUTE_DEGENERATE_OUTPUT),
        At("app-1", unreachable("100.64.0.11", 8000)),
        At("app-1", unreachable("127.0.0.1", 8000)),
    ):
        tell(site, each)
    found = incident_desk.suggested(site.ledger, now_ns=site.now_ns)
    assert [each.why for each in found] == [
        "spark-1 reports and is not in the map",
        "spark-2 reports and is not in the map",
        "app-1 could not reach 100.64.0.11: of no declared host",
        "app-1 routes to qwen3, and the map does not say where it leads",
        "spark-1, spark-2 serve qwen3: ranks of one model, or engines of one route?",
    ]
    lines = "\n".join(line for each in found for line in each.lines)
    route = tomllib.loads(lines)["topology"]["route"][0]
    assert [each["host"] for each in route["engine"]] == ["spark-1", "spark-2"]


def test_nothing_is_asked_of_a_whole_map() -> None:
    """What is declared is not suggested again."""
    site = mapped()
    for each in (at_engine(F.ROUTE_ERRORS_RISING), ERRORS, MESH_DOWN):
        tell(site, each)
    tell(site, At("app-1", unreachable("100.64.0.11", 8000)))
    assert incident_desk.suggested(site.ledger, now_ns=site.now_ns) == ()


@settings(max_examples=60)
@given(st.text(min_size=1, max_size=60), st.text(min_size=1, max_size=60))
def test_hostile_names_are_inert_in_every_view_and_in_suggested_lines(model: str, unit: str) -> None:
    """Whatever a host calls its model or server, what is shown is printable and what is suggested is TOML."""
    site = mapped(Declared())
    told = shown(F.ROUTE_ERRORS_RISING, ServerKind.LITELLM, model, target=Subject(SubjectKind.UNIT, unit))
    tell(site, At("app-1", told))
    tell(site, at_engine(F.ROUTE_ERRORS_RISING, model=model))
    suggestions = incident_desk.suggested(site.ledger, now_ns=site.now_ns)
    topology = topology_view(_graph(site), suggestions)
    for incident in site.ledger.incidents(limit=9):
        account = account_view(incident_desk.account(site.ledger, incident.id, now_ns=site.now_ns))
        assert all(each.name.isprintable() and each.id.isprintable() for each in account.path)
    assert all(each.why.isprintable() for each in topology.suggestions)
    tomllib.loads("\n".join(line for each in topology.suggestions for line in each.lines))
    json.dumps([each.name for each in topology.nodes])


@settings(max_examples=50)
@given(
    st.one_of(
        st.text(max_size=64),
        st.ip_addresses().map(str),
        st.text(max_size=20).map(lambda zone: f"2001:db8::1%{zone}"),
    ),
    st.integers(0, 65535),
)
def test_whatever_a_host_calls_its_peer_is_kept_shown_and_never_taken_for_a_host(
    address: str, port: int
) -> None:
    """No text in place of an address raises, is taken for a host, or acts where it is shown."""
    site = mapped()
    upstream = At("app-1", unreachable(address, port))
    for each in (MESH_DOWN, upstream):
        tell(site, each)
    found = incident_desk.suggested(site.ledger, now_ns=site.now_ns)
    view = topology_view(_graph(site), found)
    assert all(each.why.isprintable() for each in view.suggestions)
    declared = {text for host in MAP.host for text in host.addresses}
    if address not in declared and not address.startswith("::ffff:"):
        assert standing(site, upstream).explained_by is None or is_mesh(address)


def test_a_graph_with_many_nodes_has_a_short_path() -> None:
    """Hundreds of routes over one host do not make an incident's page endless."""
    routes = tuple(Route(name=f"model-{number}", engine=MAP.route[0].engine) for number in range(200))
    site = mapped(Declared(host=MAP.host, route=routes))
    tell(site, MESH_DOWN)
    assert len(_path(site, MESH_DOWN)) == 40
