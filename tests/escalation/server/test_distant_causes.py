"""Causes on another host: along a route, a connection, the ranks of a model; and what only looks alike."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings, strategies as st

from escalation.model import (
    Evidence,
    FaultClass,
    FlightEvidence,
    Incident,
    RouteEvidence,
    RouteId,
    RouteKind,
    ServerKind,
    Severity,
    Subject,
    SubjectKind,
)
from escalation.server import queue_rows, triage
from escalation.server.causality import causes, distant_causes, host_causes
from escalation.server.causality.relations import Relations
from escalation.server.causality.topology import Declared, Engine, Host, Pair, Route
from escalation.server.decision.approvals import Policy
from escalation.server.testing import MemoryLedger
from tests.escalation.server.test_host_causes import MINUTE_NS, Site
from tests.escalation.server.test_one_cause import Told, lossy, silent_at, unreachable

F = FaultClass
MODEL = "Qwen/Qwen3-32B"
ENGINE = Subject(SubjectKind.UNIT, "vllm.service")
OTHER = Subject(SubjectKind.UNIT, "whisper.service")
PROXY = Subject(SubjectKind.UNIT, "litellm.service")
GPU = Subject(SubjectKind.GPU, "000f:01:00.0")
HOST = Subject(SubjectKind.HOST, "spark-1")

MAP = Declared(
    host=(
        Host(name="spark-1", addresses=("100.64.0.11", "192.168.100.11"), mesh="spark-1.tail.ts.net"),
        Host(name="spark-2", addresses=("100.64.0.12",)),
        Host(name="spark-3"),
        Host(name="app-1", addresses=("100.64.0.20",)),
    ),
    route=(
        Route(
            name="qwen3",
            router="app-1",
            model=MODEL,
            engine=(Engine(host="spark-1", unit="vllm.service", port=8000),),
        ),
        Route(name="webui-qwen3", router="spark-3", via="qwen3"),
        Route(
            name="copies",
            engine=(Engine(host="spark-1", port=8100), Engine(host="spark-2", port=8100)),
        ),
    ),
    pair=(Pair(model="big", ranks=("spark-2", "spark-3")),),
)


@dataclass(frozen=True, slots=True)
class At:
    """One fault and the host that tells it."""

    host: str
    told: Told


def shown(
    fault: FaultClass, server: ServerKind, model: str, *, target: Subject = PROXY, port: int = 4000
) -> Told:
    """Return a fault of a route of a model."""
    identity = RouteId(port, RouteKind.CHAT_COMPLETIONS, model, server)
    evidence: Evidence = RouteEvidence(
        id=identity, window_s=600.0, exchanges=20, affected=9, affected_streamed=4, unobserved=0
    )
    if fault is F.ROUTE_ENGINE_STALLED:
        evidence = FlightEvidence(
            id=identity,
            requests=2,
            waiting=1,
            oldest_s=300.0,
            silent_s=200.0,
            patience_s=120.0,
            largest_request_bytes=9000,
        )
    return Told(fault, Subject(SubjectKind.ROUTE, f"{port}/chat_completions {model}"), (evidence,), target)


def at_router(fault: FaultClass, model: str = "qwen3") -> At:
    """Return what LiteLLM shows of a route."""
    return At("app-1", shown(fault, ServerKind.LITELLM, model))


def at_engine(fault: FaultClass, *, host: str = "spark-1", model: str = MODEL, port: int = 8000) -> At:
    """Return what vLLM shows of a route."""
    return At(host, shown(fault, ServerKind.VLLM, model, target=ENGINE, port=port))


GPU_LOST = At("spark-1", Told(F.GPU_DEVICE_FAULT, GPU))
REVOKED = At("spark-1", Told(F.GPU_ACCESS_REVOKED, ENGINE))
OUT_OF_MEMORY = At("spark-1", Told(F.MEMORY_UNIFIED_EXHAUSTION, HOST))
MESH_DOWN = At("spark-1", Told(F.MESH_DEGRADED, HOST))
KILLED = At("spark-1", Told(F.MEMORY_CGROUP_OOM_KILL, ENGINE))
LOOP = At("spark-1", Told(F.UNIT_RESTART_LOOP, ENGINE))
HANGS = At("spark-1", silent_at(8000, subject=ENGINE))
RANKS = At("spark-3", Told(F.DISTRIBUTED_RANK_STALL, ENGINE))
WORKER = At("spark-3", Told(F.DISTRIBUTED_WORKER_LOST, ENGINE))
LINK = At("spark-2", Told(F.NETWORK_RDMA_FAULT, Subject(SubjectKind.INTERFACE, "rocep1s0f0")))
EMPTY = at_router(F.ROUTE_EMPTY_COMPLETION)
ERRORS = at_router(F.ROUTE_ERRORS_RISING)
COOLING = at_router(F.ROUTE_ROUTER_COOLDOWN)
SLOW = at_router(F.ROUTE_LATENCY_RISING)

JOINED = {
    "a lost GPU and the empty route of the router before it": (GPU_LOST, EMPTY),
    "a lost GPU and the errors": (GPU_LOST, ERRORS),
    "a revoked GPU and the empty route": (REVOKED, EMPTY),
    "a host out of memory and the slow route": (OUT_OF_MEMORY, SLOW),
    "a mesh that is down and the cooldown": (MESH_DOWN, COOLING),
    "an OOM kill of the engine and the cooldown": (KILLED, COOLING),
    "a restart loop of the engine and the errors": (LOOP, ERRORS),
    "an engine that hangs and the stalled route": (HANGS, at_router(F.ROUTE_ENGINE_STALLED)),
    "a route via another": (
        GPU_LOST,
        At("spark-3", shown(F.ROUTE_ERRORS_RISING, ServerKind.OPEN_WEBUI, "webui-qwen3", port=8080)),
    ),
    "another name of the model at the router": (at_engine(F.ROUTE_ENGINE_STALLED), COOLING),
    "a mesh that is down and its peer": (MESH_DOWN, At("app-1", unreachable("100.64.0.11", 8000))),
    "a mesh that is down and lost packets": (MESH_DOWN, At("app-1", lossy("100.64.0.11"))),
    "a hanging engine and who calls its port": (HANGS, At("app-1", unreachable("192.168.100.11", 8000))),
    "a killed engine and who calls its declared port": (
        KILLED,
        At("app-1", unreachable("192.168.100.11", 8000)),
    ),
    "a host out of memory and who calls it": (OUT_OF_MEMORY, At("app-1", unreachable("192.168.100.11", 22))),
    "a link of one rank and the stall of the other": (LINK, RANKS),
    "a link of one rank and the worker that the other lost": (LINK, WORKER),
    "a lost GPU of one rank and the stalled engine of the other": (
        At("spark-2", Told(F.GPU_DEVICE_FAULT, GPU)),
        at_engine(F.ROUTE_ENGINE_STALLED, host="spark-3", model="big"),
    ),
}

APART = {
    "a route with another engine": (At("spark-2", Told(F.GPU_DEVICE_FAULT, GPU)), EMPTY),
    "another server of the engine's host": (At("spark-1", Told(F.GPU_ACCESS_REVOKED, OTHER)), EMPTY),
    "another server that was killed": (At("spark-1", Told(F.MEMORY_CGROUP_OOM_KILL, OTHER)), COOLING),
    "degenerate answers": (GPU_LOST, at_router(F.ROUTE_DEGENERATE_OUTPUT)),
    "a route that the map does not know": (GPU_LOST, at_router(F.ROUTE_ERRORS_RISING, "llama")),
    "an address of nobody": (MESH_DOWN, At("app-1", unreachable("100.64.0.99", 8000))),
    "a mesh that is down and an address outside it": (
        MESH_DOWN,
        At("app-1", unreachable("192.168.100.11", 8000)),
    ),
    "an engine that hangs and another port": (HANGS, At("app-1", unreachable("192.168.100.11", 9999))),
    "a killed engine and another port": (KILLED, At("app-1", unreachable("192.168.100.11", 9999))),
    "the same route at an engine elsewhere": (
        GPU_LOST,
        at_engine(F.ROUTE_ERRORS_RISING, host="spark-2"),
    ),
    "the engine of the same model that is not behind this route": (
        at_engine(F.ROUTE_ENGINE_STALLED, host="spark-2"),
        COOLING,
    ),
    "a rank of another model": (
        LINK,
        at_engine(F.ROUTE_ENGINE_STALLED, host="spark-3", model="small"),
    ),
    "a host that is no rank": (At("app-1", LINK.told), RANKS),
    "a silent host and its router": (
        At("spark-1", Told(F.MONITOR_BLIND, HOST)),
        ERRORS,
    ),
    "a silent host and who calls it": (
        At("spark-1", Told(F.MONITOR_BLIND, HOST)),
        At("app-1", unreachable("100.64.0.11", 8000)),
    ),
}


def mapped(declared: Declared = MAP) -> Site:
    """Return a site that judges by a map."""
    site = Site()
    triage.declare(site.ledger, declared, policy=Policy(), now_ns=site.now_ns)
    return site


def tell(site: Site, at: At, *, severity: Severity = Severity.HIGH, clears: bool = False) -> None:
    """Let a host tell a fault, or that it is over."""
    site.report(
        at.told.fault,
        at.told.subject,
        target=at.told.target,
        evidence=at.told.evidence,
        severity=severity,
        clears=clears,
        host=at.host,
    )


def standing(site: Site, at: At) -> Incident:
    """Return the open incident of a fault."""
    (found,) = [
        each
        for each in site.ledger.incidents(limit=1000)
        if each.open
        and (each.agent_id, each.fault_class, each.subject) == (at.host, at.told.fault, at.told.subject)
    ]
    return found


@pytest.mark.parametrize("cause_first", [True, False], ids=["cause first", "consequence first"])
@pytest.mark.parametrize(("cause", "consequence"), JOINED.values(), ids=JOINED.keys())
def test_a_cause_on_one_host_explains_its_consequence_on_another(
    cause: At, consequence: At, *, cause_first: bool
) -> None:
    """One row is to be decided; when the cause clears first, the other is to be decided by itself."""
    site = mapped()
    for each in (cause, consequence) if cause_first else (consequence, cause):
        tell(site, each)
        site.now_ns += MINUTE_NS
    assert standing(site, consequence).explained_by == standing(site, cause).id
    assert [each.incident_id for each in site.waiting()] == [standing(site, cause).id]
    tell(site, cause, clears=True)
    assert standing(site, consequence).explained_by is None
    assert [each.incident_id for each in site.waiting()] == [standing(site, consequence).id]


@pytest.mark.parametrize(("cause", "other"), APART.values(), ids=APART.keys())
def test_what_only_happens_at_the_same_time_stays_a_decision_of_its_own(cause: At, other: At) -> None:
    """Neither explains the other, in either order, and both wait for a decision."""
    for pair in ((cause, other), (other, cause)):
        site = mapped()
        for each in pair:
            tell(site, each)
        assert {each.explained_by for each in site.ledger.incidents(limit=10)} == {None}
        assert len(site.waiting()) == 2


@pytest.mark.parametrize(("cause", "consequence"), JOINED.values(), ids=JOINED.keys())
def test_without_a_map_nothing_elsewhere_is_guessed(cause: At, consequence: At) -> None:
    """What no report and no map joins stays apart; a note and a much later cause explain nothing with one."""
    site = mapped(Declared())
    tell(site, cause)
    tell(site, consequence)
    assert standing(site, consequence).explained_by is None
    site = mapped()
    tell(site, cause, severity=Severity.NOTE)
    tell(site, consequence)
    assert standing(site, consequence).explained_by is None
    site = mapped()
    tell(site, consequence)
    site.now_ns += 11 * MINUTE_NS
    tell(site, cause)
    assert standing(site, consequence).explained_by is None


def test_a_server_that_was_seen_to_serve_the_model_is_behind_the_router_without_a_map() -> None:
    """Reports alone join a lost GPU to the router, once its host has shown that it serves the model."""
    site = mapped(Declared())
    engine = at_engine(F.ROUTE_ERRORS_RISING, model="qwen3")
    tell(site, engine)
    tell(site, engine, clears=True)
    tell(site, GPU_LOST)
    tell(site, EMPTY)
    assert standing(site, EMPTY).explained_by == standing(site, GPU_LOST).id


def test_a_chain_over_three_hosts_is_told_by_its_root_and_comes_apart_link_by_link() -> None:
    """A link of one rank, the engine of the other, and the router in front of it: one row, then another."""
    declared = Declared(
        host=MAP.host,
        pair=MAP.pair,
        route=(Route(name="big-chat", model="big", engine=(Engine(host="spark-3", unit="vllm.service"),)),),
    )
    engine = at_engine(F.ROUTE_ENGINE_STALLED, host="spark-3", model="big")
    router = at_router(F.ROUTE_ROUTER_COOLDOWN, "big-chat")
    for order in ((router, engine, LINK), (LINK, engine, router), (engine, LINK, router)):
        site = mapped(declared)
        for each in order:
            tell(site, each)
            site.now_ns += MINUTE_NS
        root = standing(site, LINK).id
        assert standing(site, engine).explained_by == standing(site, router).explained_by == root
        assert [each.incident_id for each in site.waiting()] == [root]
        entry = queue_rows.entry(site.ledger, root)
        assert [each.agent_id for each in entry.explains] == ["app-1", "spark-3"]
        tell(site, LINK, clears=True)
        assert standing(site, engine).explained_by is None
        assert standing(site, router).explained_by == standing(site, engine).id


def test_replicas_of_one_route_do_not_agree_and_ranks_do() -> None:
    """Two whole copies that stall are two faults; the ranks of the map are one, a third host is none."""
    site = mapped()
    for host in ("spark-1", "spark-2"):
        tell(site, at_engine(F.ROUTE_ENGINE_STALLED, host=host, model="copies", port=8100))
    assert F.DISTRIBUTED_RANK_STALL not in site.open()
    site = mapped()
    for host in ("spark-1", "spark-2"):
        tell(site, at_engine(F.ROUTE_ENGINE_STALLED, host=host, model="big"))
    assert F.DISTRIBUTED_RANK_STALL not in site.open()
    tell(site, at_engine(F.ROUTE_ENGINE_STALLED, host="spark-3", model="big"))
    agreed = site.open()[F.DISTRIBUTED_RANK_STALL]
    stalls = (each for each in site.ledger.incidents(limit=9) if each.id != agreed.id)
    by = {each.agent_id: each.explained_by for each in stalls}
    assert by == {"spark-1": None, "spark-2": agreed.id, "spark-3": agreed.id}


def test_another_map_finds_all_causes_anew_and_is_audited() -> None:
    """A cause is found when the map joins it and lost when it does not; the same map changes nothing."""
    site = mapped(Declared())
    for each in (GPU_LOST, EMPTY):
        tell(site, each)
    for declared, explained in ((MAP, True), (Declared(), False)):
        changed = triage.declare(site.ledger, declared, policy=Policy(), now_ns=site.now_ns)
        assert changed
        assert (standing(site, EMPTY).explained_by is not None) is explained
        assert not triage.declare(site.ledger, declared, policy=Policy(), now_ns=site.now_ns)
    told = [each.verb for each in site.ledger.audit(after=0, limit=1000)]
    assert told.count("topology.declared") == 2


def test_what_a_person_rejected_explains_nothing_elsewhere() -> None:
    """No open fault drops out of the queue because of a guess that somebody has refused."""
    site = mapped()
    for each in (GPU_LOST, EMPTY):
        tell(site, each)
    (waiting,) = site.waiting()
    triage.reject(site.ledger, waiting.id, person="ada", reason="no", policy=Policy(), now_ns=site.now_ns)
    assert standing(site, EMPTY).explained_by is None


def test_rules_over_hosts_know_only_classes_that_are_looked_through() -> None:
    """What explains elsewhere is looked for on its own host, and no class of all rules is behind itself."""
    assert distant_causes.EXPLAINING <= host_causes.EXPLAINING
    explains: dict[str, set[str]] = {}
    for cause in host_causes._CAUSES:
        for each in cause.explains:
            explains.setdefault(cause.fault_class, set()).add(each)
    for far in distant_causes._CAUSES:
        at = "router " if far.way.name == "UPSTREAM" else ""
        for each in far.explains:
            explains.setdefault(far.fault_class, set()).add(at + each)
    for fault, passed_on in causes._PASSED_ON.items():
        explains.setdefault(fault, set()).update(f"router {each}" for each in passed_on)
    for fault in causes._STALLS:
        explains.setdefault("agreement", set()).add(fault)

    def walk(name: str, passed: tuple[str, ...]) -> None:
        assert name not in passed, passed
        for each in explains.get(name, ()):
            walk(each, (*passed, name))

    for name in list(explains):
        walk(name, ())


_POOL = [*dict.fromkeys(each for pair in (*JOINED.values(), *APART.values()) for each in pair)]
_ALL_AT_ONCE = st.lists(st.sampled_from(_POOL), min_size=2, max_size=7, unique=True)


def _told_by(order: list[At]) -> dict[tuple[str, str, str], tuple[str, str, str] | None]:
    site = mapped()
    for each in order:
        tell(site, each)
    found = {each.id: each for each in site.ledger.incidents(limit=1000) if each.open}
    return {
        _name(each): None if each.explained_by is None else _name(found[each.explained_by])
        for each in found.values()
    }


def _name(incident: Incident) -> tuple[str, str, str]:
    host = "" if causes.is_agreement(incident) else incident.agent_id
    return host, incident.fault_class, incident.subject.name


@settings(max_examples=80)
@given(_ALL_AT_ONCE.flatmap(lambda told: st.tuples(st.permutations(told), st.permutations(told))))
def test_any_order_of_reports_ends_in_the_same_causes(orders: tuple[list[At], list[At]]) -> None:
    """What explains what depends on what is open, not on what was told first."""
    one, other = orders
    assert _told_by(one) == _told_by(other)


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(_POOL), st.sampled_from(["see", "see", "see", "note", "clear", "wait", "reject"])
    ),
    min_size=1,
    max_size=16,
)


@settings(max_examples=80)
@given(_STEPS)
def test_whatever_happens_causes_are_open_roots_and_what_would_be_found_anew(
    steps: list[tuple[At, str]],
) -> None:
    """Random sequences on four hosts: no circle, no cause that is gone, no proposal of what is explained."""
    site = mapped()
    for each, what in steps:
        site.now_ns += MINUTE_NS
        match what:
            case "see" | "note":
                tell(site, each, severity=Severity.NOTE if what == "note" else Severity.HIGH)
            case "clear":
                tell(site, each, clears=True)
            case "wait":
                site.now_ns += 15 * MINUTE_NS
            case _:
                for waiting in site.waiting()[:1]:
                    triage.reject(
                        site.ledger,
                        waiting.id,
                        person="ada",
                        reason="no",
                        policy=Policy(),
                        now_ns=site.now_ns,
                    )
        found = {one.id: one for one in site.ledger.incidents(limit=1000) if one.open}
        proposed = {one.incident_id for one in site.waiting()}
        anew = Relations(site.ledger, now_ns=site.now_ns)
        for one in found.values():
            assert one.explained_by == anew.explanation(one), (one, steps)
            if one.explained_by is not None:
                assert found[one.explained_by].explained_by is None
                assert one.id not in proposed


def test_a_map_that_leads_in_a_circle_hides_nobody() -> None:
    """Were every link of a circle at fault, the first that was seen stands as the root of the others."""
    site = Site(MemoryLedger())
    tell(site, GPU_LOST)
    tell(site, REVOKED)
    relations = Relations(site.ledger, now_ns=site.now_ns)
    one, other = site.ledger.incidents(limit=9)
    pointing = {one.id: other, other.id: one}
    relations._above = lambda incident: pointing[incident.id]  # type: ignore[method-assign]
    first = min((one, other), key=host_causes.starts_with)
    assert relations.explanation(first) is None
    assert relations.explanation(pointing[first.id]) == first.id
