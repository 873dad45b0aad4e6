"""Evidence as short facts. What came from a host passes `shown` before it stands in one."""

from __future__ import annotations

from typing import assert_never

from escalation.inert import shown
from escalation.model import (
    BlindEvidence,
    BlockEvidence,
    ControlPlaneEvidence,
    DescriptorEvidence,
    Device,
    DeviceOpenEvidence,
    DriftEvidence,
    Evidence,
    FlightEvidence,
    GpuEvidence,
    LinkEvidence,
    ListenerEvidence,
    LogEvidence,
    MemoryEvidence,
    MeshEvidence,
    MetricEvidence,
    OomEvidence,
    OomScope,
    PeerEvidence,
    PlacementEvidence,
    PressureEvidence,
    ProcessEvidence,
    PromptSizeEvidence,
    Reach,
    RouteEvidence,
    RouteId,
    RouteKind,
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
from escalation.wording.codes import blindness
from escalation.wording.machine import gpu_fact, memory_fact, placement_fact, xid_fact
from escalation.wording.network import control_plane_fact, link_fact, mesh_fact, peer_fact
from escalation.wording.pressure import (
    descriptor_fact,
    pressure_fact,
    process_fact,
    run_delay_fact,
    throttle_fact,
)
from escalation.wording.quantities import (
    LABEL_LIMIT,
    counted,
    duration,
    error_name,
    process,
    signal_name,
    size,
    times,
)
from escalation.wording.service import (
    drift_fact,
    log_fact,
    metric_fact,
    scope_fact,
    server_name,
    sessions_fact,
    unit_fact,
)
from escalation.wording.storage import block_fact, storage_fact


def fact(evidence: Evidence) -> str:  # noqa: C901, PLR0912 -- one case per kind, checked complete
    """Return one piece of evidence as a short fact."""
    match evidence:
        case DeviceOpenEvidence():
            numbered = evidence.device is Device.GPU and evidence.minor is not None
            node = f"{device_name(evidence.device)}{evidence.minor if numbered else ''}"
            return (
                f"{process(evidence.process_name, evidence.pid)} was refused {node}: "
                f"{error_name(evidence.errno)}, {times(evidence.failures)}; "
                f"{times(evidence.prior_successes) if evidence.prior_successes else 'never'} opened before"
            )
        case OomEvidence():
            return _oom_fact(evidence)
        case SignalEvidence():
            origin = "raised by the kernel" if evidence.code > 0 else "sent by a process"
            who = process(evidence.process_name, evidence.pid)
            return f"{who} died by {signal_name(evidence.signal)}, {origin}"
        case ListenerEvidence():
            return _listener_fact(evidence)
        case BlindEvidence():
            since = f" for {duration(evidence.silent_s)}" if evidence.silent_s else ""
            sensor = shown(evidence.sensor, limit=LABEL_LIMIT)
            return f"{sensor} sees nothing{since}: {blindness(evidence.reason)}"
        case RouteEvidence():
            return _route_fact(evidence)
        case FlightEvidence():
            return _flight_fact(evidence)
        case PromptSizeEvidence():
            return _prompt_size_fact(evidence)
        case MemoryEvidence():
            return memory_fact(evidence)
        case PlacementEvidence():
            return placement_fact(evidence)
        case GpuEvidence():
            return gpu_fact(evidence)
        case XidEvidence():
            return xid_fact(evidence)
        case PressureEvidence():
            return pressure_fact(evidence)
        case ThrottleEvidence():
            return throttle_fact(evidence)
        case RunDelayEvidence():
            return run_delay_fact(evidence)
        case ProcessEvidence():
            return process_fact(evidence)
        case DescriptorEvidence():
            return descriptor_fact(evidence)
        case StorageEvidence():
            return storage_fact(evidence)
        case BlockEvidence():
            return block_fact(evidence)
        case PeerEvidence():
            return peer_fact(evidence)
        case LinkEvidence():
            return link_fact(evidence)
        case MeshEvidence():
            return mesh_fact(evidence)
        case ControlPlaneEvidence():
            return control_plane_fact(evidence)
        case UnitEvidence():
            return unit_fact(evidence)
        case DriftEvidence():
            return drift_fact(evidence)
        case LogEvidence():
            return log_fact(evidence)
        case MetricEvidence():
            return metric_fact(evidence)
        case SessionsEvidence():
            return sessions_fact(evidence)
        case ScopeEvidence():
            return scope_fact(evidence)
        case UnknownEvidence():
            return f"evidence of a kind that this orchestrator does not know ({evidence.size_bytes} bytes)"
        case _:
            assert_never(evidence)


def _oom_fact(evidence: OomEvidence) -> str:
    match evidence.scope:
        case OomScope.CGROUP:
            whose = "its memory limit was reached"
        case OomScope.HOST:
            whose = "the whole host was out of memory"
        case OomScope.UNKNOWN:
            whose = "whether its limit or the host's memory was reached is unknown"
        case _:
            assert_never(evidence.scope)
    parts = [f"{process(evidence.process_name, evidence.pid)} was killed: {whose}"]
    if evidence.anon_rss_bytes is not None:
        parts.append(f"it held {size(evidence.anon_rss_bytes)}")
    if evidence.limit_bytes is not None:
        parts.append(f"limit {size(evidence.limit_bytes)}")
    if evidence.kills_in_cgroup is not None:
        parts.append(f"{evidence.kills_in_cgroup} kills counted by the cgroup")
    else:
        parts.append("the cgroup's counter could not be read")
    return ", ".join(parts)


def _listener_fact(evidence: ListenerEvidence) -> str:
    address = shown(evidence.address, limit=LABEL_LIMIT)
    address = f"[{address}]" if ":" in address else address
    if evidence.confirmed is None:
        witness = "the socket table could not be read"
    elif evidence.confirmed:
        witness = "the socket table agrees"
    else:
        witness = "the socket table no longer shows it"
    who = process(evidence.process_name, None)
    told = f"{who} listens on {address}:{evidence.port}, {reach_words(evidence.reach)}; {witness}"
    return f"{told}; and {counted(evidence.further, 'further port')}" if evidence.further else told


def _route_fact(evidence: RouteEvidence) -> str:
    streamed = f" ({evidence.affected_streamed} streamed)" if evidence.affected_streamed else ""
    share = f"{evidence.affected} of {counted(evidence.exchanges, 'exchange')} affected{streamed}"
    parts = [f"{route_words(evidence.id)}: {share} within {duration(evidence.window_s)}"]
    if evidence.completion_tokens is not None:
        allowed = "" if evidence.max_tokens is None else f" of {evidence.max_tokens} allowed"
        parts.append(f"{counted(evidence.completion_tokens, 'token')} generated{allowed}")
    elif evidence.max_tokens is not None:
        parts.append(f"{counted(evidence.max_tokens, 'token')} allowed")
    if evidence.measured is not None and evidence.baseline is not None:
        parts.append(f"now {evidence.measured:.3g} where {evidence.baseline:.3g} is usual")
    if evidence.unobserved:
        parts.append(f"{counted(evidence.unobserved, 'exchange')} could not be judged")
    return ", ".join(parts)


def _flight_fact(evidence: FlightEvidence) -> str:
    waiting = f"{counted(evidence.requests, 'request')} under way, {evidence.waiting} without a first byte"
    silent = (
        f"not a byte for {duration(evidence.silent_s)} where {duration(evidence.patience_s)} were allowed"
    )
    oldest = f"the oldest waits for {duration(evidence.oldest_s)}"
    largest = f"the largest request has {size(evidence.largest_request_bytes)}"
    return f"{route_words(evidence.id)}: {waiting}; {silent}, {oldest}, {largest}"


def _prompt_size_fact(evidence: PromptSizeEvidence) -> str:
    split = size(evidence.split_bytes)
    large = f"of {counted(evidence.large, 'request')} of {split} and more {evidence.large_failed} failed"
    small = f"of {evidence.small} smaller ones {evidence.small_failed}"
    return f"{route_words(evidence.id)}: {large}, {small}, within {duration(evidence.window_s)}"


def route_words(route: RouteId) -> str:
    """Return which endpoint and model, behind which port of which software."""
    server = server_name(route.server)
    behind = f" ({server})" if server else ""
    model = f" for {shown(route.model, limit=LABEL_LIMIT)}" if route.model else ""
    return f"{route_name(route.route)}{model} on port {route.port}{behind}"


def route_name(route: RouteKind) -> str:  # noqa: C901, PLR0912 -- one case per kind, checked complete
    """Return an endpoint's name as its users know it."""
    match route:
        case RouteKind.CHAT_COMPLETIONS:
            return "chat completions"
        case RouteKind.COMPLETIONS:
            return "completions"
        case RouteKind.RESPONSES:
            return "responses"
        case RouteKind.MESSAGES:
            return "messages"
        case RouteKind.EMBEDDINGS:
            return "embeddings"
        case RouteKind.RERANK:
            return "reranking"
        case RouteKind.TRANSCRIPTIONS:
            return "transcriptions"
        case RouteKind.SPEECH:
            return "speech"
        case RouteKind.OLLAMA_CHAT:
            return "Ollama's chat"
        case RouteKind.OLLAMA_GENERATE:
            return "Ollama's generate"
        case RouteKind.OLLAMA_EMBED:
            return "Ollama's embed"
        case RouteKind.OTHER:
            return "another path"
        case RouteKind.UNKNOWN:
            return "a route that this orchestrator does not know"
        case _:
            assert_never(route)


def device_name(device: Device) -> str:
    """Return the path of a device node; a GPU's number is appended by the caller."""
    match device:
        case Device.CONTROL | Device.GPU | Device.UVM | Device.UVM_TOOLS | Device.MODESET:
            return f"/dev/{device.value}"
        case Device.OTHER:
            return "another NVIDIA device"
        case Device.UNKNOWN:
            return "a device that this orchestrator does not know"
        case _:
            assert_never(device)


def reach_words(reach: Reach) -> str:
    """Return from where a listener can be reached."""
    match reach:
        case Reach.ALL_INTERFACES:
            return "which is every interface of the host"
        case Reach.PUBLIC:
            return "a public address"
        case Reach.PRIVATE_NETWORK:
            return "a private network outside the mesh"
        case Reach.UNKNOWN:
            return "whose reach is unknown"
        case _:
            assert_never(reach)
