"""Which open incidents of one host have one cause, and what an incident's cause has to share with it.

Topology is host -> container or unit -> route. What is wrong with the whole host (its GPU, its driver, its
memory, the filesystem that everything needs) explains what suffers from it anywhere there; what is wrong with
one server explains what that server shows, and what its callers see of its port. `_CAUSES` is the list, from
the catalogue's "one cause per incident"; each line says what joins the two.

A note explains nothing. A consequence does not begin before its cause (but for the time that a case waits
before it opens). Chains are followed to their root in `relations`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from escalation.model import (
    FaultClass,
    FlightEvidence,
    Incident,
    IncidentId,
    MountRole,
    PeerEvidence,
    ProcessEvidence,
    PromptSizeEvidence,
    RouteEvidence,
    RouteId,
    ServerKind,
    SessionsEvidence,
    Severity,
    SignalEvidence,
    StorageEvidence,
    SubjectKind,
)
from escalation.server.causality.topology import address_of, is_mesh
from escalation.server.playbook.names import acted_on
from escalation.server.playbook.serving import route_of, server_of

BEFORE_S: Final = 600.0
"""How much later than its consequence a cause may have been seen for the first time."""

_JOINING: Final = (
    FlightEvidence,
    PeerEvidence,
    ProcessEvidence,
    PromptSizeEvidence,
    RouteEvidence,
    SessionsEvidence,
    SignalEvidence,
    StorageEvidence,
)
"""The kinds of evidence that a join looks at; what has none of them is joined by what it is about alone."""

DYING_S: Final = 120.0
"""How long processes go on dying of a GPU or a disk that is at fault: a later death has another cause."""

STARVING_S: Final = 600.0
"""How long processes go on dying of memory that ran out."""

_SIGBUS: Final = 7

_DISTRIBUTED: Final = frozenset(
    {ServerKind.VLLM, ServerKind.RAY, ServerKind.TENSORRT_LLM, ServerKind.UNKNOWN}
)
"""What may run over several hosts."""

_NEEDED_BY_ALL: Final = frozenset({MountRole.ROOT, MountRole.CONTAINERS})

Join = Callable[[Incident, Incident], bool]
"""Takes a cause and a consequence of the same host, returns whether they belong together."""


def is_same_server(one: Incident, other: Incident) -> bool:
    """Return whether both are about the same container, unit or cgroup; names of processes join nobody."""
    server = acted_on(one)
    is_server = server.kind in {SubjectKind.CONTAINER, SubjectKind.UNIT, SubjectKind.CGROUP}
    return is_server and server == acted_on(other)


def _anywhere(_cause: Incident, _consequence: Incident) -> bool:
    return True


def _same_gpu_or_server(cause: Incident, consequence: Incident) -> bool:
    same_gpu = cause.subject.kind is SubjectKind.GPU and cause.subject == consequence.subject
    return same_gpu or is_same_server(cause, consequence)


def about_host(incident: Incident) -> bool:
    """Return whether an incident is about the whole host."""
    return incident.subject.kind is SubjectKind.HOST


def _within(cause: Incident, consequence: Incident) -> bool:
    return about_host(cause) or is_same_server(cause, consequence)


def _same_mount(cause: Incident, consequence: Incident) -> bool:
    return cause.subject.kind is SubjectKind.MOUNT and cause.subject == consequence.subject


def _on(*roles: MountRole) -> Join:
    """Return the join of what needs a filesystem of one of `roles` with that filesystem."""
    wanted = frozenset(roles) | _NEEDED_BY_ALL

    def needs(cause: Incident, _consequence: Incident) -> bool:
        return any(isinstance(each, StorageEvidence) and each.role in wanted for each in cause.evidence)

    return needs


def _over_mesh(_cause: Incident, consequence: Incident) -> bool:
    peer = _peer_of(consequence)
    return peer is not None and is_mesh(peer.address)


def _behind_port(cause: Incident, consequence: Incident) -> bool:
    """Whether callers fail at what the cause is about: the same server, or a port of it on this host."""
    if is_same_server(cause, consequence):
        return True
    peer = _peer_of(consequence)
    if peer is None or not peer.port or peer.port not in ports_of(cause):
        return False
    address = address_of(peer.address)
    return address is not None and (address.is_loopback or address.is_unspecified)


def _over_hosts(_cause: Incident, consequence: Incident) -> bool:
    return server_of(consequence) in _DISTRIBUTED


def _at_litellm(_cause: Incident, consequence: Incident) -> bool:
    return server_of(consequence) is ServerKind.LITELLM


def _by_bus_error(cause: Incident, consequence: Incident) -> bool:
    signals = {each.signal for each in consequence.evidence if isinstance(each, SignalEvidence)}
    return is_same_server(cause, consequence) and _SIGBUS in signals


@dataclass(frozen=True, slots=True)
class _Cause:
    """What a fault class explains, where `joined` says that the two belong together.

    With `within_s`, only what begins so soon after it, or as long before it was noticed.
    """

    fault_class: FaultClass
    explains: frozenset[FaultClass]
    joined: Join
    within_s: float | None = None


_Fault = FaultClass
_FALLBACKS: Final = frozenset({_Fault.GPU_CPU_FALLBACK, _Fault.TRANSCRIPTION_CPU_FALLBACK})
_SLOW: Final = frozenset({_Fault.ROUTE_LATENCY_RISING})
_DEATHS: Final = frozenset({_Fault.PROCESS_KILLED_BY_SIGNAL})
_STALLS: Final = frozenset({_Fault.ROUTE_ENGINE_STALLED, _Fault.ROUTE_FAILS_REAL_TRAFFIC})
_RANKS: Final = frozenset({_Fault.DISTRIBUTED_RANK_STALL})
_SHORT_OF_MEMORY: Final = frozenset({_Fault.MEMORY_THRASHING, _Fault.MEMORY_PAGE_CACHE_REFUSAL})
_WORKERS: Final = frozenset({_Fault.DISTRIBUTED_WORKER_LOST})
_UPSTREAM: Final = frozenset({_Fault.NETWORK_UPSTREAM_UNREACHABLE})
_LOOPS: Final = frozenset({_Fault.UNIT_RESTART_LOOP})

_CAUSES: Final = (
    _Cause(_Fault.GPU_DEVICE_FAULT, _FALLBACKS | _SLOW | {_Fault.GPU_CLOCKS_CAPPED}, _anywhere),
    _Cause(_Fault.GPU_DEVICE_FAULT, frozenset({_Fault.GPU_APPLICATION_XID}), _same_gpu_or_server),
    _Cause(_Fault.GPU_DEVICE_FAULT, _DEATHS, _anywhere, within_s=DYING_S),
    _Cause(_Fault.GPU_APPLICATION_XID, _DEATHS, _same_gpu_or_server),
    _Cause(_Fault.GPU_DRIVER_MISMATCH, _FALLBACKS | _SLOW, _anywhere),
    _Cause(_Fault.GPU_UVM_LOST, _FALLBACKS | _SLOW, _anywhere),
    _Cause(_Fault.GPU_ACCESS_REVOKED, _FALLBACKS | _SLOW, is_same_server),
    _Cause(_Fault.MEMORY_UNIFIED_EXHAUSTION, _WORKERS | _SHORT_OF_MEMORY, _anywhere),
    _Cause(_Fault.MEMORY_UNIFIED_EXHAUSTION, _DEATHS, _anywhere, within_s=STARVING_S),
    _Cause(_Fault.STORAGE_READ_ONLY, frozenset({_Fault.STORAGE_FULL}), _same_mount),
    _Cause(
        _Fault.STORAGE_READ_ONLY, frozenset({_Fault.DATABASE_CONNECTIONS_EXHAUSTED}), _on(MountRole.DATABASE)
    ),
    _Cause(
        _Fault.STORAGE_READ_ONLY,
        frozenset({_Fault.PROCESS_UNINTERRUPTIBLE, _Fault.STORAGE_SLOW_LOAD}),
        _on(MountRole.MODELS, MountRole.EXTERNAL, MountRole.DECLARED),
    ),
    _Cause(_Fault.STORAGE_READ_ONLY, _DEATHS | _LOOPS, _on(), within_s=DYING_S),
    _Cause(_Fault.MESH_DEGRADED, _UPSTREAM | {_Fault.NETWORK_RETRANSMISSION}, _over_mesh),
    _Cause(_Fault.MESH_DEGRADED, _WORKERS, _anywhere),
    _Cause(_Fault.NETWORK_RDMA_FAULT, _WORKERS | _RANKS, _anywhere),
    _Cause(_Fault.DISTRIBUTED_WORKER_LOST, _RANKS, _anywhere),
    _Cause(_Fault.DISTRIBUTED_WORKER_LOST, frozenset({_Fault.ROUTE_ENGINE_STALLED}), _over_hosts),
    _Cause(_Fault.DISTRIBUTED_RANK_STALL, _STALLS, is_same_server),
    _Cause(_Fault.CONTAINER_SHM_TOO_SMALL, _DEATHS, _by_bus_error),
    _Cause(_Fault.MEMORY_CGROUP_OOM_KILL, _LOOPS, is_same_server),
    _Cause(_Fault.PROCESS_KILLED_BY_SIGNAL, _LOOPS, is_same_server),
    _Cause(_Fault.PROCESS_UNINTERRUPTIBLE, frozenset({_Fault.ROUTE_ENGINE_STALLED}), is_same_server),
    _Cause(_Fault.PROCESS_FD_EXHAUSTED, frozenset({_Fault.PROCESS_NOT_ANSWERING}), _within),
    _Cause(_Fault.PROCESS_NOT_ANSWERING, frozenset({_Fault.ROUTE_ENGINE_STALLED}), is_same_server),
    _Cause(_Fault.PROCESS_NOT_ANSWERING, _UPSTREAM, _behind_port),
    _Cause(_Fault.UNIT_RESTART_LOOP, _UPSTREAM, _behind_port),
    _Cause(_Fault.DATABASE_CONNECTIONS_EXHAUSTED, frozenset({_Fault.ROUTE_ERRORS_RISING}), _at_litellm),
    _Cause(_Fault.MEMORY_THRASHING, _SLOW, _within),
    _Cause(_Fault.CPU_QUOTA_THROTTLED, _SLOW, is_same_server),
    _Cause(_Fault.CPU_CONTENTION, _SLOW, is_same_server),
    _Cause(_Fault.GPU_CPU_FALLBACK, _SLOW, is_same_server),
    _Cause(_Fault.TRANSCRIPTION_CPU_FALLBACK, _SLOW, is_same_server),
    _Cause(_Fault.GPU_CLOCKS_CAPPED, _SLOW, _anywhere),
)
"""From the root on: what stands first explains before what stands below it."""

EXPLAINING: Final = frozenset(cause.fault_class for cause in _CAUSES)
"""The fault classes that can explain something."""

RELATED: Final = EXPLAINING.union(*(cause.explains for cause in _CAUSES))
"""The fault classes that can explain something, or be explained."""

BEHIND_RANKS: Final = frozenset(cause.fault_class for cause in _CAUSES if cause.explains & _RANKS)
"""What on one host can explain a stall over several."""


def explanation(incident: Incident, causes: Sequence[Incident]) -> IncidentId | None:
    """Return which of `causes`, open incidents of the same host, explains `incident`; None if none does."""
    for cause in _CAUSES:
        if incident.fault_class not in cause.explains:
            continue
        found = [
            each
            for each in causes
            if each.fault_class is cause.fault_class and _explains(each, incident, cause)
        ]
        if found:
            return min(found, key=starts_with).id
    return None


def starts_with(incident: Incident) -> tuple[int, str]:
    """Return what decides which of several causes is named: the first that was seen."""
    return incident.first_seen_ns, incident.id


def is_same(before: Incident, after: Incident) -> bool:
    """Whether nothing changed in an incident that decides what it explains, or what explains it.

    Most reports only say again what is known, and looking through a host's incidents for each is dear.
    """
    return (
        before.open
        and after.open
        and before.severity is after.severity
        and before.drill is after.drill
        and before.target == after.target
        and before.first_seen_ns == after.first_seen_ns
        and (before.evidence == after.evidence or _is_joined_alike(before, after))
    )


def _explains(each: Incident, incident: Incident, cause: _Cause) -> bool:
    if each.id == incident.id or each.agent_id != incident.agent_id or each.severity is Severity.NOTE:
        return False
    if each.first_seen_ns > incident.first_seen_ns + BEFORE_S * 1e9:
        return False
    apart_ns = abs(each.first_seen_ns - incident.first_seen_ns)
    if cause.within_s is not None and apart_ns > cause.within_s * 1e9:
        return False
    return cause.joined(each, incident)


def _is_joined_alike(before: Incident, after: Incident) -> bool:
    if not any(isinstance(each, _JOINING) for each in (*before.evidence, *after.evidence)):
        return True
    return _joined_by(before) == _joined_by(after)


def _joined_by(incident: Incident) -> frozenset[tuple[object, ...]]:
    """Return what of an incident's evidence the joins look at."""
    found: set[tuple[object, ...]] = {("server", server_of(incident))}
    for each in incident.evidence:
        match each:
            case StorageEvidence():
                found.add(("role", each.role))
            case PeerEvidence():
                found.add(("peer", each.address, each.port))
            case SignalEvidence():
                found.add(("signal", each.signal))
            case _:
                pass
    if (route := route_of(incident)) is not None:
        found.add(("model", route.model))
    return frozenset(found | {("port", port) for port in ports_of(incident)})


def _peer_of(incident: Incident) -> PeerEvidence | None:
    return next((each for each in incident.evidence if isinstance(each, PeerEvidence)), None)


def ports_of(incident: Incident) -> frozenset[int]:
    """Return the ports that an incident's evidence gives to what it is about."""
    route = route_of(incident)
    told = {each.port for each in incident.evidence if isinstance(each, ProcessEvidence | SessionsEvidence)}
    return frozenset(told | ({route.port} if isinstance(route, RouteId) else set())) - {0}
