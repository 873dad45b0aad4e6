"""Which open incidents of one host have one cause: a GPU that is out of reach, and what follows from it.

Topology is host -> container or unit -> route. A server whose access to the GPU was taken away computes on
the CPU, and its routes are slow: three incidents of one server, and the first of them is to be decided. What
is wrong with the GPU itself or its driver is the whole host's: it explains every server there, the errors
that programs met on that GPU, and processes that die in the minutes around it. A program's error on the GPU
explains that its own server died.

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

DYING_S: Final = 120.0
"""How long processes go on dying of a GPU that is at fault: a death that comes later has another cause."""

_FALLBACKS: Final = frozenset({FaultClass.GPU_CPU_FALLBACK, FaultClass.TRANSCRIPTION_CPU_FALLBACK})
_SLOW: Final = frozenset({FaultClass.ROUTE_LATENCY_RISING})
_DEATHS: Final = frozenset({FaultClass.PROCESS_KILLED_BY_SIGNAL})


@dataclass(frozen=True, slots=True)
class _Cause:
    """What a fault class explains: on its whole host, or only of the server, or the GPU, that it is about.

    With `within_s`, only what begins so soon after it, or as long before it was noticed.
    """

    fault_class: FaultClass
    explains: frozenset[FaultClass]
    whole_host: bool
    within_s: float | None = None


_CAUSES: Final = (
    _Cause(FaultClass.GPU_DEVICE_FAULT, _FALLBACKS | _SLOW | {FaultClass.GPU_CLOCKS_CAPPED}, whole_host=True),
    _Cause(FaultClass.GPU_DEVICE_FAULT, frozenset({FaultClass.GPU_APPLICATION_XID}), whole_host=False),
    _Cause(FaultClass.GPU_DEVICE_FAULT, _DEATHS, whole_host=True, within_s=DYING_S),
    _Cause(FaultClass.GPU_APPLICATION_XID, _DEATHS, whole_host=False),
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
            if each.fault_class is cause.fault_class
            and _explains(each, incident, cause)
            and explanation(each, causes) is None
        ]
        if found:
            return min(found, key=lambda each: (each.first_seen_ns, each.id)).id
    return None


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
    )


def _explains(each: Incident, incident: Incident, cause: _Cause) -> bool:
    if each.id == incident.id or each.agent_id != incident.agent_id or each.severity is Severity.NOTE:
        return False
    if each.first_seen_ns > incident.first_seen_ns + BEFORE_S * 1e9:
        return False
    apart_ns = abs(each.first_seen_ns - incident.first_seen_ns)
    if cause.within_s is not None and apart_ns > cause.within_s * 1e9:
        return False
    return cause.whole_host or _is_same_gpu(each, incident) or _is_same_server(each, incident)


def _is_same_gpu(one: Incident, other: Incident) -> bool:
    return one.subject.kind is SubjectKind.GPU and one.subject == other.subject


def _is_same_server(one: Incident, other: Incident) -> bool:
    server = acted_on(one)
    is_server = server.kind in {SubjectKind.CONTAINER, SubjectKind.UNIT, SubjectKind.CGROUP}
    return is_server and server == acted_on(other)
