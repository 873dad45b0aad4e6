"""Which open incidents of one host have one cause: a GPU that is out of reach, and what follows from it.

Topology is host -> container or unit -> route. A server whose access to the GPU was taken away computes on
the CPU, and its routes are slow: three incidents of one server, and the first of them is to be decided. What
is wrong with the GPU itself or its driver is the whole host's: it explains every server there.

A note explains nothing. A consequence does not begin before its cause (but for the time that a case waits
before it opens). What came first in the chain is named, so that an explanation is never itself explained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from escalation.model import FaultClass, Incident, IncidentId, Severity, SubjectKind
from escalation.server.playbook.names import acted_on

BEFORE_S: Final = 600.0
"""How much later than its consequence a cause may have been seen for the first time."""

_FALLBACKS: Final = frozenset({FaultClass.GPU_CPU_FALLBACK, FaultClass.TRANSCRIPTION_CPU_FALLBACK})
_SLOW: Final = frozenset({FaultClass.ROUTE_LATENCY_RISING})


@dataclass(frozen=True, slots=True)
class _Cause:
    """What a fault class explains: on its whole host, or only of the server that it is about."""

    fault_class: FaultClass
    explains: frozenset[FaultClass]
    whole_host: bool


_CAUSES: Final = (
    _Cause(FaultClass.GPU_DEVICE_FAULT, _FALLBACKS | _SLOW | {FaultClass.GPU_CLOCKS_CAPPED}, whole_host=True),
    _Cause(FaultClass.GPU_DRIVER_MISMATCH, _FALLBACKS | _SLOW, whole_host=True),
    _Cause(FaultClass.GPU_UVM_LOST, _FALLBACKS | _SLOW, whole_host=True),
    _Cause(FaultClass.GPU_ACCESS_REVOKED, _FALLBACKS | _SLOW, whole_host=False),
    _Cause(FaultClass.GPU_CPU_FALLBACK, _SLOW, whole_host=False),
    _Cause(FaultClass.TRANSCRIPTION_CPU_FALLBACK, _SLOW, whole_host=False),
    _Cause(FaultClass.GPU_CLOCKS_CAPPED, _SLOW, whole_host=True),
)
"""From the root on: what stands first explains before what stands below it."""

EXPLAINING: Final = frozenset(cause.fault_class for cause in _CAUSES)
"""The fault classes that can explain something."""

RELATED: Final = EXPLAINING.union(*(cause.explains for cause in _CAUSES))
"""The fault classes that can explain something, or be explained."""


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
            return min(found, key=lambda each: (each.first_seen_ns, each.id)).id
    return None


def _explains(each: Incident, incident: Incident, cause: _Cause) -> bool:
    if each.id == incident.id or each.agent_id != incident.agent_id or each.severity is Severity.NOTE:
        return False
    if each.first_seen_ns > incident.first_seen_ns + BEFORE_S * 1e9:
        return False
    return cause.whole_host or _is_same_server(each, incident)


def _is_same_server(one: Incident, other: Incident) -> bool:
    server = acted_on(one)
    is_server = server.kind in {SubjectKind.CONTAINER, SubjectKind.UNIT, SubjectKind.CGROUP}
    return is_server and server == acted_on(other)
