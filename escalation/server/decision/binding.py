"""What an approval is bound to: a digest over everything that makes an action what it is.

The argument list, the kinds of evidence, the life of the target, the case and the host. Counts and times are
left out on purpose: a fault that is seen once more is the same fault, and an approval that lapses with each
repeat would teach people to approve without reading.
"""

from __future__ import annotations

from typing import Any, assert_never

from escalation.model import (
    Action,
    BlindEvidence,
    BlockEvidence,
    ControlPlaneEvidence,
    DescriptorEvidence,
    DeviceOpenEvidence,
    DriftEvidence,
    Evidence,
    FlightEvidence,
    GpuEvidence,
    Incident,
    LinkEvidence,
    ListenerEvidence,
    LogEvidence,
    MemoryEvidence,
    MeshEvidence,
    MetricEvidence,
    OomEvidence,
    PeerEvidence,
    PlacementEvidence,
    PressureEvidence,
    ProcessEvidence,
    PromptSizeEvidence,
    RouteEvidence,
    RouteId,
    RunDelayEvidence,
    ScopeEvidence,
    SessionsEvidence,
    SignalEvidence,
    StorageEvidence,
    ThrottleEvidence,
    UnitEvidence,
    UnknownEvidence,
    XidEvidence,
)
from escalation.signing import approval


def digest_of(action: Action, incident: Incident) -> str:
    """Return the SHA-256, in hex, of what an approval of `action` for `incident` is bound to."""
    return approval.sealed(bound_of(action, incident))


def bound_of(action: Action, incident: Incident) -> dict[str, Any]:
    """Return what an approval of `action` for `incident` is bound to, as plain JSON values."""
    life = incident.incarnation
    bound: dict[str, Any] = {
        "version": 1,
        "incident": incident.id,
        "case": incident.case_id,
        "host": [action.host, incident.agent_id],
        "fault": [incident.fault_class, incident.fault_number],
        "subject": [incident.subject.kind, incident.subject.name],
        "action": [action.kind, action.target.kind, action.target.name, list(action.command)],
        "evidence": sorted({_identity(evidence) for evidence in incident.evidence}, key=repr),
        "incarnation": [life.kernel_boot_id, life.container_id, life.pid, life.start_ticks],
    }
    if incident.drill:
        bound["drill"] = True
    return bound


def _identity(  # noqa: C901, PLR0912 -- one case per kind, checked complete
    evidence: Evidence,
) -> tuple[object, ...]:
    """Return what makes this piece of evidence the one it is, without how often and by whom."""
    match evidence:
        case DeviceOpenEvidence():
            return ("device_open", evidence.device, evidence.minor, evidence.errno)
        case OomEvidence():
            return ("oom", evidence.scope, evidence.limit_bytes)
        case SignalEvidence():
            return ("signal", evidence.signal, evidence.code)
        case ListenerEvidence():
            return ("listener", evidence.address, evidence.port, evidence.reach)
        case BlindEvidence():
            return ("blind", evidence.sensor, evidence.reason)
        case RouteEvidence():
            return ("route", *_route(evidence.id))
        case FlightEvidence():
            return ("flight", *_route(evidence.id))
        case PromptSizeEvidence():
            return ("prompt_size", *_route(evidence.id))
        case MemoryEvidence():
            return ("memory", evidence.total_bytes, evidence.floor_bytes)
        case PlacementEvidence():
            return ("placement", evidence.server, evidence.listed)
        case GpuEvidence():
            return ("gpu", evidence.gpu, evidence.nvml_code, evidence.recovery_action)
        case XidEvidence():
            return ("xid", evidence.gpu, evidence.number)
        case PressureEvidence():
            return ("pressure", evidence.resource)
        case ThrottleEvidence():
            return ("throttle", evidence.quota_cores)
        case RunDelayEvidence():
            return ("run_delay", evidence.neighbour)
        case ProcessEvidence():
            return ("process", evidence.state, evidence.pid, evidence.port)
        case DescriptorEvidence():
            return ("descriptor", evidence.call, evidence.limit, evidence.host_wide)
        case StorageEvidence():
            return ("storage", evidence.mount, evidence.mounted, evidence.read_only)
        case BlockEvidence():
            return ("block", evidence.device)
        case PeerEvidence():
            return ("peer", evidence.address, evidence.port, evidence.errno)
        case LinkEvidence():
            return ("link", evidence.device, evidence.port, evidence.counter)
        case MeshEvidence():
            return ("mesh", evidence.state, evidence.online)
        case ControlPlaneEvidence():
            return ("control_plane", evidence.plane, evidence.address, evidence.port)
        case UnitEvidence():
            return ("unit", evidence.result, evidence.exit_status)
        case DriftEvidence():
            return ("drift", evidence.server, evidence.print_before, evidence.print_now)
        case LogEvidence():
            return ("log", evidence.pattern)
        case MetricEvidence():
            return ("metric", evidence.server, evidence.port, evidence.gauge)
        case SessionsEvidence():
            return ("sessions", evidence.port, evidence.limit)
        case ScopeEvidence():
            return (
                "scope",
                evidence.scope,
                evidence.breach,
                evidence.executable,
                evidence.address,
                evidence.port,
            )
        case UnknownEvidence():
            return ("unknown",)
        case _:
            assert_never(evidence)


def _route(route: RouteId) -> tuple[object, ...]:
    return (route.port, route.route, route.model, route.server)
