"""One cause per incident, class by class: what is joined to what, and what looks alike and is not."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings, strategies as st

from escalation.model import (
    Evidence,
    FaultClass,
    FlightEvidence,
    MountRole,
    PeerEvidence,
    ProcessEvidence,
    ProcessState,
    RouteEvidence,
    RouteId,
    RouteKind,
    ServerKind,
    Severity,
    SignalEvidence,
    StorageEvidence,
    Subject,
    SubjectKind,
)
from escalation.server import triage
from escalation.server.causality import host_causes
from escalation.server.causality.causes import EXPLAINING, RELATED
from escalation.server.causality.relations import Relations
from escalation.server.decision.approvals import Policy
from tests.escalation.server.test_host_causes import BOX, HOST, MINUTE_NS, OTHER, Site

F = FaultClass
UNIT = Subject(SubjectKind.UNIT, "vllm.service")
STUCK = Subject(SubjectKind.PROCESS, "VLLM::EngineCore")
MODELS = Subject(SubjectKind.MOUNT, "/srv/models")
PGDATA = Subject(SubjectKind.MOUNT, "/var/lib/postgresql")
POSTGRES = Subject(SubjectKind.UNIT, "postgresql@15-main.service")
LITELLM = Subject(SubjectKind.UNIT, "litellm.service")
LINK = Subject(SubjectKind.INTERFACE, "rocep1s0f0")
HEAD = Subject(SubjectKind.CONTAINER, "a" * 64)


@dataclass(frozen=True, slots=True)
class Told:
    """One fault as a host tells it."""

    fault: FaultClass
    subject: Subject
    evidence: tuple[Evidence, ...] = ()
    target: Subject | None = None


def mounted(subject: Subject, role: MountRole) -> Told:
    """Return a filesystem that became read-only."""
    evidence = StorageEvidence(
        mount=subject.name,
        role=role,
        filesystem="ext4",
        mounted=True,
        read_only=True,
        total_bytes=None,
        free_bytes=None,
        total_inodes=None,
        free_inodes=None,
        full_in_s=None,
        refused_writes=0,
    )
    return Told(F.STORAGE_READ_ONLY, subject, (evidence,))


def unreachable(address: str, port: int, *, target: Subject | None = None) -> Told:
    """Return a peer that cannot be reached."""
    return Told(F.NETWORK_UPSTREAM_UNREACHABLE, peer(address, port), (of_peer(address, port),), target)


def lossy(address: str) -> Told:
    """Return a peer to which packets are lost."""
    return Told(F.NETWORK_RETRANSMISSION, peer(address, 0), (of_peer(address, 0),))


def peer(address: str, port: int) -> Subject:
    """Return the subject of a peer."""
    return Subject(SubjectKind.PEER, f"{address} {port}")


def of_peer(address: str, port: int) -> PeerEvidence:
    """Return evidence of a peer."""
    return PeerEvidence(
        address=address,
        port=port,
        window_s=60.0,
        segments=5000,
        retransmitted=200,
        resets=0,
        attempts=9,
        failed=9,
        errno=111,
    )


def route(fault: FaultClass, server: ServerKind, *, target: Subject, port: int = 8000) -> Told:
    """Return a fault of a route."""
    identity = RouteId(port, RouteKind.CHAT_COMPLETIONS, f"model-{port}", server)
    evidence: Evidence
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
    else:
        evidence = RouteEvidence(
            id=identity, window_s=600.0, exchanges=20, affected=9, affected_streamed=4, unobserved=0
        )
    return Told(fault, Subject(SubjectKind.ROUTE, f"{port}/chat_completions"), (evidence,), target)


def stalled(server: ServerKind = ServerKind.VLLM, *, target: Subject = BOX) -> Told:
    """Return an engine that stalled."""
    return route(F.ROUTE_ENGINE_STALLED, server, target=target)


def slow(target: Subject = BOX) -> Told:
    """Return a route that is slow."""
    return route(F.ROUTE_LATENCY_RISING, ServerKind.VLLM, target=target)


def died(signal: int = 11, *, subject: Subject = BOX) -> Told:
    """Return a process that died by a signal."""
    return Told(F.PROCESS_KILLED_BY_SIGNAL, subject, (SignalEvidence(signal, 2, "vllm", 7),))


def silent_at(port: int, *, subject: Subject = UNIT) -> Told:
    """Return a process that does not take connections at a port."""
    evidence = ProcessEvidence(
        process_name="vllm",
        pid=7,
        state=ProcessState.STOPPED,
        lasted_s=60.0,
        used_cpu_s=0.0,
        port=port,
        backlog=3,
        backlog_limit=128,
    )
    return Told(F.PROCESS_NOT_ANSWERING, subject, (evidence,))


EXHAUSTED = Told(F.MEMORY_UNIFIED_EXHAUSTION, HOST)
MESH_DOWN = Told(F.MESH_DEGRADED, HOST)
LINK_FAULT = Told(F.NETWORK_RDMA_FAULT, LINK)
LOST = Told(F.DISTRIBUTED_WORKER_LOST, HEAD)
RANKS = Told(F.DISTRIBUTED_RANK_STALL, BOX)
LOOP = Told(F.UNIT_RESTART_LOOP, UNIT)
EXHAUSTED_DATABASE = Told(F.DATABASE_CONNECTIONS_EXHAUSTED, POSTGRES)

JOINED = {
    "memory that ran out: thrashing": (EXHAUSTED, Told(F.MEMORY_THRASHING, HOST)),
    "memory that ran out: a refused start": (EXHAUSTED, Told(F.MEMORY_PAGE_CACHE_REFUSAL, UNIT)),
    "memory that ran out: a death": (EXHAUSTED, died()),
    "memory that ran out: a lost worker": (EXHAUSTED, LOST),
    "a read-only disk: full as well": (mounted(MODELS, MountRole.MODELS), Told(F.STORAGE_FULL, MODELS)),
    "a read-only database disk: its connections": (mounted(PGDATA, MountRole.DATABASE), EXHAUSTED_DATABASE),
    "a read-only model disk: a stuck process": (
        mounted(MODELS, MountRole.MODELS),
        Told(F.PROCESS_UNINTERRUPTIBLE, STUCK),
    ),
    "a read-only root: a death": (mounted(Subject(SubjectKind.MOUNT, "/"), MountRole.ROOT), died()),
    "a read-only root: a loop": (mounted(Subject(SubjectKind.MOUNT, "/"), MountRole.ROOT), LOOP),
    "the mesh: a peer in it": (MESH_DOWN, unreachable("100.64.0.7", 8000)),
    "the mesh: a peer in it, IPv6": (MESH_DOWN, unreachable("fd7a:115c:a1e0::7", 8000)),
    "the mesh: loss to a peer in it": (MESH_DOWN, lossy("100.101.102.103")),
    "the mesh: a lost worker": (MESH_DOWN, LOST),
    "a link: ranks that stall": (LINK_FAULT, RANKS),
    "a link: a lost worker": (LINK_FAULT, LOST),
    "a lost worker: ranks that stall": (LOST, RANKS),
    "a lost worker: an engine that stalls": (LOST, stalled()),
    "ranks that stall: their engine": (RANKS, stalled()),
    "ranks that stall: their large prompts": (
        RANKS,
        route(F.ROUTE_FAILS_REAL_TRAFFIC, ServerKind.VLLM, target=BOX),
    ),
    "small shared memory: a bus error": (Told(F.CONTAINER_SHM_TOO_SMALL, BOX), died(7)),
    "an OOM kill: a loop": (Told(F.MEMORY_CGROUP_OOM_KILL, UNIT), LOOP),
    "a crash: a loop": (died(subject=UNIT), LOOP),
    "a stuck process: its engine": (
        Told(F.PROCESS_UNINTERRUPTIBLE, STUCK, target=BOX),
        stalled(ServerKind.OLLAMA),
    ),
    "no descriptors: nobody accepts": (Told(F.PROCESS_FD_EXHAUSTED, UNIT), silent_at(8000)),
    "no descriptors on the whole host: nobody accepts": (
        Told(F.PROCESS_FD_EXHAUSTED, HOST),
        silent_at(8000),
    ),
    "nobody accepts: the engine": (silent_at(8000), stalled(target=UNIT)),
    "nobody accepts: callers of the port": (silent_at(8000), unreachable("127.0.0.1", 8000)),
    "nobody accepts: callers of the port, IPv6": (silent_at(8000), unreachable("::1", 8000)),
    "a loop: callers of that server": (LOOP, unreachable("127.0.0.1", 8000, target=UNIT)),
    "the database: LiteLLM's errors": (
        EXHAUSTED_DATABASE,
        route(F.ROUTE_ERRORS_RISING, ServerKind.LITELLM, target=LITELLM),
    ),
    "a thrashing host: a slow route": (Told(F.MEMORY_THRASHING, HOST), slow()),
    "a thrashing server: its slow route": (Told(F.MEMORY_THRASHING, BOX), slow()),
    "a quota: its slow route": (Told(F.CPU_QUOTA_THROTTLED, BOX), slow()),
    "a neighbour: a slow route": (Told(F.CPU_CONTENTION, BOX), slow()),
}

APART = {
    "memory that ran out: another server's quota": (EXHAUSTED, Told(F.CPU_QUOTA_THROTTLED, BOX)),
    "a read-only disk: another one is full": (
        mounted(MODELS, MountRole.MODELS),
        Told(F.STORAGE_FULL, PGDATA),
    ),
    "a read-only model disk: the database": (mounted(MODELS, MountRole.MODELS), EXHAUSTED_DATABASE),
    "a read-only log disk: a stuck process": (
        mounted(Subject(SubjectKind.MOUNT, "/var/log"), MountRole.LOGS),
        Told(F.PROCESS_UNINTERRUPTIBLE, STUCK),
    ),
    "a read-only model disk: a crash": (mounted(MODELS, MountRole.MODELS), died()),
    "the mesh: this host's own port": (MESH_DOWN, unreachable("127.0.0.1", 8000)),
    "the mesh: a peer in the local network": (MESH_DOWN, unreachable("192.168.1.7", 8000)),
    "the mesh: loss on the local network": (MESH_DOWN, lossy("10.0.0.7")),
    "the mesh: an address that is none": (MESH_DOWN, unreachable("spark-b; reboot", 8000)),
    "a link: an engine that is one host's": (LINK_FAULT, stalled(ServerKind.OLLAMA)),
    "a lost worker: an engine that runs on one host": (LOST, stalled(ServerKind.LLAMA_CPP)),
    "ranks that stall: another server's engine": (RANKS, stalled(target=OTHER)),
    "small shared memory: another signal": (Told(F.CONTAINER_SHM_TOO_SMALL, BOX), died(11)),
    "small shared memory: another container": (
        Told(F.CONTAINER_SHM_TOO_SMALL, BOX),
        died(7, subject=OTHER),
    ),
    "an OOM kill: another unit's loop": (Told(F.MEMORY_CGROUP_OOM_KILL, BOX), LOOP),
    "a crash: another unit's loop": (died(subject=OTHER), LOOP),
    "a stuck process: another server's engine": (
        Told(F.PROCESS_UNINTERRUPTIBLE, STUCK, target=OTHER),
        stalled(),
    ),
    "no descriptors: another server": (Told(F.PROCESS_FD_EXHAUSTED, LITELLM), silent_at(8000)),
    "nobody accepts: another port": (silent_at(8001), unreachable("127.0.0.1", 8000)),
    "nobody accepts: that port of another host": (silent_at(8000), unreachable("192.168.1.7", 8000)),
    "a loop: callers of another server": (LOOP, unreachable("127.0.0.1", 8000, target=LITELLM)),
    "the database: an engine's errors": (
        EXHAUSTED_DATABASE,
        route(F.ROUTE_ERRORS_RISING, ServerKind.VLLM, target=BOX),
    ),
    "a full disk: the database's connections": (
        Told(F.STORAGE_FULL, PGDATA),
        EXHAUSTED_DATABASE,
    ),
    "a thrashing server: another's slow route": (Told(F.MEMORY_THRASHING, OTHER), slow()),
    "a quota: another's slow route": (Told(F.CPU_QUOTA_THROTTLED, OTHER), slow()),
    "a neighbour: another's slow route": (Told(F.CPU_CONTENTION, OTHER), slow()),
    "a slow load: whatever fails meanwhile": (Told(F.STORAGE_SLOW_LOAD, UNIT), stalled(target=UNIT)),
}


def tell(site: Site, told: Told, *, severity: Severity = Severity.HIGH, host: str = "spark-a") -> None:
    """Let the host tell of a fault."""
    site.report(
        told.fault,
        told.subject,
        target=told.target,
        evidence=told.evidence,
        severity=severity,
        host=host,
    )


@pytest.mark.parametrize(("cause", "consequence"), JOINED.values(), ids=JOINED)
@pytest.mark.parametrize("cause_first", [True, False], ids=["cause first", "cause later"])
def test_a_cause_explains_its_consequence(cause: Told, consequence: Told, *, cause_first: bool) -> None:
    """In either order one row is left to decide, and the consequence is told below it."""
    site = Site()
    for told in (cause, consequence) if cause_first else (consequence, cause):
        tell(site, told)
        site.now_ns += MINUTE_NS
    found = site.open()
    assert found[consequence.fault].explained_by == found[cause.fault].id
    assert found[cause.fault].explained_by is None
    (only,) = site.waiting()
    assert only.incident_id == found[cause.fault].id


@pytest.mark.parametrize(("cause", "consequence"), JOINED.values(), ids=JOINED)
def test_a_note_another_host_and_a_much_later_cause_explain_nothing(cause: Told, consequence: Told) -> None:
    """What holds for one join holds for each."""
    for case in ("note", "host", "later"):
        site = Site()
        tell(site, consequence)
        site.now_ns += 11 * MINUTE_NS if case == "later" else 0
        tell(
            site,
            cause,
            severity=Severity.NOTE if case == "note" else Severity.HIGH,
            host="spark-b" if case == "host" else "spark-a",
        )
        assert site.open()[consequence.fault].explained_by is None, case


@pytest.mark.parametrize(("cause", "other"), APART.values(), ids=APART)
def test_what_only_happens_at_the_same_time_stays_a_decision_of_its_own(cause: Told, other: Told) -> None:
    """Two faults, two rows."""
    site = Site()
    tell(site, cause)
    tell(site, other)
    assert {each.explained_by for each in site.open().values()} == {None}
    assert len(site.waiting()) == 2


@pytest.mark.parametrize(("minutes", "explained"), [(1, True), (3, False)])
def test_a_disk_explains_deaths_only_of_the_minutes_around_it(minutes: int, *, explained: bool) -> None:
    """What dies long after has another cause."""
    site = Site()
    tell(site, mounted(Subject(SubjectKind.MOUNT, "/"), MountRole.ROOT))
    site.now_ns += minutes * MINUTE_NS
    tell(site, died())
    assert (site.open()[F.PROCESS_KILLED_BY_SIGNAL].explained_by is not None) is explained


def test_every_link_of_a_chain_is_told_by_its_root() -> None:
    """A link, the worker that it cost, the ranks that wait for it, the engine, and all of it one decision."""
    site = Site()
    chain = (stalled(), RANKS, LOST, LINK_FAULT)
    for told in chain:
        tell(site, told)
        site.now_ns += MINUTE_NS
    found = site.open()
    root = found[F.NETWORK_RDMA_FAULT].id
    assert {found[told.fault].explained_by for told in chain[:-1]} == {root}
    assert [each.incident_id for each in site.waiting()] == [root]
    site.report(LINK_FAULT.fault, LINK, clears=True)
    found = site.open()
    assert {found[told.fault].explained_by for told in chain[:2]} == {found[LOST.fault].id}


def test_the_crash_behind_a_loop_behind_refused_callers_is_the_one_row() -> None:
    """Three classes, one unit: the first cause is to be decided."""
    site = Site()
    for told in (unreachable("127.0.0.1", 8000, target=UNIT), LOOP, died(subject=UNIT)):
        tell(site, told)
    assert [each.incident_id for each in site.waiting()] == [site.open()[F.PROCESS_KILLED_BY_SIGNAL].id]


def test_a_router_elsewhere_is_explained_by_what_is_behind_its_engine() -> None:
    """A stuck process on one host, its engine that stalls, and the router's cooldown on another."""
    site = Site()
    tell(site, stalled())
    tell(site, route(F.ROUTE_ROUTER_COOLDOWN, ServerKind.LITELLM, target=LITELLM), host="spark-b")
    engine = site.open()[F.ROUTE_ENGINE_STALLED]
    assert site.open()[F.ROUTE_ROUTER_COOLDOWN].explained_by == engine.id
    stuck = Told(F.PROCESS_UNINTERRUPTIBLE, STUCK, target=BOX)
    tell(site, stuck)
    found = site.open()
    cause = found[F.PROCESS_UNINTERRUPTIBLE].id
    assert found[F.ROUTE_ENGINE_STALLED].explained_by == found[F.ROUTE_ROUTER_COOLDOWN].explained_by == cause
    site.report(stuck.fault, STUCK, target=BOX, clears=True)
    assert site.open()[F.ROUTE_ROUTER_COOLDOWN].explained_by == engine.id


_POOL = [*dict.fromkeys(told for pair in (*JOINED.values(), *APART.values()) for told in pair)]
_STEPS = st.lists(
    st.tuples(
        st.sampled_from(_POOL),
        st.sampled_from(["spark-a", "spark-b"]),
        st.sampled_from(["see", "see", "see", "note", "clear", "wait", "reject"]),
    ),
    min_size=1,
    max_size=20,
)


@settings(max_examples=200)
@given(_STEPS)
def test_whatever_happens_each_open_incident_is_told_by_what_explains_it_now(
    steps: list[tuple[Told, str, str]],
) -> None:
    """Random sequences on two hosts: what is kept is what would be found anew, a root, open and accepted."""
    site = Site()
    for told, host, what in steps:
        site.now_ns += MINUTE_NS
        match what:
            case "see" | "note":
                tell(site, told, host=host, severity=Severity.NOTE if what == "note" else Severity.HIGH)
            case "clear":
                site.report(told.fault, told.subject, target=told.target, clears=True, host=host)
            case "wait":
                site.now_ns += 15 * MINUTE_NS
            case _:
                for each in site.waiting()[:1]:
                    triage.reject(
                        site.ledger, each.id, person="ada", reason="no", policy=Policy(), now_ns=site.now_ns
                    )
        found = {each.id: each for each in site.ledger.incidents(limit=1000) if each.open}
        waiting = {each.incident_id for each in site.waiting()}
        anew = Relations(site.ledger, now_ns=site.now_ns)
        for each in found.values():
            assert each.explained_by == anew.explanation(each), (each, steps)
            if each.explained_by is not None:
                assert found[each.explained_by].explained_by is None
                assert each.id not in waiting


def test_no_class_can_be_behind_itself() -> None:
    """The rules of a host form no circle, so that there always is a root."""
    explains: dict[FaultClass, set[FaultClass]] = {}
    for cause in host_causes._CAUSES:
        explains.setdefault(cause.fault_class, set()).update(cause.explains)

    def behind(fault: FaultClass, passed: tuple[FaultClass, ...] = ()) -> None:
        assert fault not in passed, passed
        for each in explains.get(fault, ()):
            behind(each, (*passed, fault))

    for fault in explains:
        behind(fault)
    assert host_causes.RELATED >= host_causes.EXPLAINING
    assert RELATED >= EXPLAINING
