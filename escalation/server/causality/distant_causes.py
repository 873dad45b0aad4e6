"""Which open incidents of one host are explained by what another host is at fault with.

Three things lead from a host to another: a router's route to the engines behind it, a connection to the host
whose address it is, and a rank to the other ranks of its model. `reach` says where each incident leads;
`_CAUSES` is the list of what explains what along each way, and whether the cause has to be about the very
server at its end or may be about the whole host.

A host that is silent explains nothing: what it would report is not known, and an open fault is never hidden
by what is not known. Degenerate answers at a router are not explained: they say something about the model.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from escalation.model import FaultClass, Incident, IncidentId, Severity
from escalation.server.causality.host_causes import BEFORE_S, DYING_S, about_host, ports_of, starts_with
from escalation.server.causality.reach import Place, Way
from escalation.server.playbook.names import acted_on


class _About(enum.Enum):
    """What a cause may be about: anything of the host, or only the server at the end of the way."""

    HOST = enum.auto()
    SERVER = enum.auto()


@dataclass(frozen=True, slots=True)
class _Cause:
    fault_class: FaultClass
    way: Way
    explains: frozenset[FaultClass]
    about: _About
    within_s: float | None = None


_Fault = FaultClass
_REFUSED: Final = frozenset(
    {_Fault.ROUTE_ERRORS_RISING, _Fault.ROUTE_ROUTER_COOLDOWN, _Fault.ROUTE_BROKEN_STREAM}
)
"""What a router shows of an engine that is not there."""

_HANGING: Final = _REFUSED | {_Fault.ROUTE_ENGINE_STALLED, _Fault.ROUTE_FAILS_REAL_TRAFFIC}
"""What it shows of one that is there and does not go on."""

_SLOW: Final = frozenset({_Fault.ROUTE_LATENCY_RISING, _Fault.ROUTE_SATURATED})
_WITHOUT_GPU: Final = _HANGING | _SLOW | {_Fault.ROUTE_EMPTY_COMPLETION}
_UPSTREAM: Final = frozenset({_Fault.NETWORK_UPSTREAM_UNREACHABLE})
_PATH: Final = _UPSTREAM | {_Fault.NETWORK_RETRANSMISSION}
_RANKS: Final = frozenset({_Fault.DISTRIBUTED_RANK_STALL, _Fault.ROUTE_ENGINE_STALLED})
_LOST_RANK: Final = _RANKS | {_Fault.DISTRIBUTED_WORKER_LOST}

_CAUSES: Final = (
    _Cause(_Fault.GPU_DEVICE_FAULT, Way.UPSTREAM, _WITHOUT_GPU, _About.HOST),
    _Cause(_Fault.GPU_DRIVER_MISMATCH, Way.UPSTREAM, _WITHOUT_GPU, _About.HOST),
    _Cause(_Fault.GPU_UVM_LOST, Way.UPSTREAM, _WITHOUT_GPU, _About.HOST),
    _Cause(_Fault.GPU_ACCESS_REVOKED, Way.UPSTREAM, _WITHOUT_GPU, _About.SERVER),
    _Cause(_Fault.MEMORY_UNIFIED_EXHAUSTION, Way.UPSTREAM, _HANGING | _SLOW, _About.HOST),
    _Cause(_Fault.DISTRIBUTED_WORKER_LOST, Way.UPSTREAM, _HANGING, _About.SERVER),
    _Cause(_Fault.MEMORY_CGROUP_OOM_KILL, Way.UPSTREAM, _REFUSED, _About.SERVER),
    _Cause(_Fault.PROCESS_KILLED_BY_SIGNAL, Way.UPSTREAM, _REFUSED, _About.SERVER),
    _Cause(_Fault.UNIT_RESTART_LOOP, Way.UPSTREAM, _REFUSED, _About.SERVER),
    _Cause(_Fault.PROCESS_UNINTERRUPTIBLE, Way.UPSTREAM, _HANGING, _About.SERVER),
    _Cause(_Fault.PROCESS_FD_EXHAUSTED, Way.UPSTREAM, _REFUSED, _About.SERVER),
    _Cause(_Fault.PROCESS_NOT_ANSWERING, Way.UPSTREAM, _HANGING, _About.SERVER),
    _Cause(_Fault.GPU_CPU_FALLBACK, Way.UPSTREAM, _SLOW, _About.SERVER),
    _Cause(_Fault.TRANSCRIPTION_CPU_FALLBACK, Way.UPSTREAM, _SLOW, _About.SERVER),
    _Cause(_Fault.GPU_CLOCKS_CAPPED, Way.UPSTREAM, _SLOW, _About.HOST),
    _Cause(_Fault.MESH_DEGRADED, Way.MESH, _PATH | _REFUSED, _About.HOST),
    _Cause(_Fault.MEMORY_UNIFIED_EXHAUSTION, Way.PEER, _UPSTREAM, _About.HOST),
    _Cause(_Fault.MEMORY_CGROUP_OOM_KILL, Way.PEER, _UPSTREAM, _About.SERVER),
    _Cause(_Fault.PROCESS_KILLED_BY_SIGNAL, Way.PEER, _UPSTREAM, _About.SERVER, within_s=DYING_S),
    _Cause(_Fault.UNIT_RESTART_LOOP, Way.PEER, _UPSTREAM, _About.SERVER),
    _Cause(_Fault.PROCESS_FD_EXHAUSTED, Way.PEER, _UPSTREAM, _About.SERVER),
    _Cause(_Fault.PROCESS_NOT_ANSWERING, Way.PEER, _UPSTREAM, _About.SERVER),
    _Cause(_Fault.GPU_DEVICE_FAULT, Way.RANK, _LOST_RANK, _About.HOST),
    _Cause(_Fault.GPU_UVM_LOST, Way.RANK, _LOST_RANK, _About.HOST),
    _Cause(_Fault.MEMORY_UNIFIED_EXHAUSTION, Way.RANK, _LOST_RANK, _About.HOST),
    _Cause(_Fault.MESH_DEGRADED, Way.RANK, frozenset({_Fault.DISTRIBUTED_WORKER_LOST}), _About.HOST),
    _Cause(_Fault.NETWORK_RDMA_FAULT, Way.RANK, _LOST_RANK, _About.HOST),
    _Cause(_Fault.DISTRIBUTED_WORKER_LOST, Way.RANK, _RANKS, _About.HOST),
)
"""From the root on: what stands first explains before what stands below it."""

EXPLAINING: Final = frozenset(cause.fault_class for cause in _CAUSES)
"""The fault classes that can explain something elsewhere."""

EXPLAINED: Final = frozenset[FaultClass]().union(*(cause.explains for cause in _CAUSES))
"""The fault classes that something elsewhere can explain."""


def explanation(incident: Incident, places: Sequence[Place], causes: Sequence[Incident]) -> IncidentId | None:
    """Return which of `causes`, open incidents of the hosts of `places`, explains `incident`, if any."""
    for cause in _CAUSES:
        if incident.fault_class not in cause.explains:
            continue
        found = [
            each
            for each in causes
            if each.fault_class is cause.fault_class
            and _may(each, incident, cause)
            and any(place.way is cause.way and _is_at(each, place, cause.about) for place in places)
        ]
        if found:
            return min(found, key=starts_with).id
    return None


def _may(each: Incident, incident: Incident, cause: _Cause) -> bool:
    if each.agent_id == incident.agent_id or each.severity is Severity.NOTE:
        return False
    if each.first_seen_ns > incident.first_seen_ns + BEFORE_S * 1e9:
        return False
    apart_ns = abs(each.first_seen_ns - incident.first_seen_ns)
    return cause.within_s is None or apart_ns <= cause.within_s * 1e9


def _is_at(each: Incident, place: Place, about: _About) -> bool:
    if each.agent_id != place.host:
        return False
    if about is _About.HOST or about_host(each):
        return True
    return acted_on(each) in place.servers or bool(place.port and place.port in ports_of(each))
