"""The evidence of a case, between model and message: that of hosts and routes here, each other family in a
module of its own, all joined here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, assert_never

from escalation.model import (
    BlindEvidence,
    BlindReason,
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
    ServerKind,
    SessionsEvidence,
    SignalEvidence,
    StorageEvidence,
    ThrottleEvidence,
    UnitEvidence,
    UnknownEvidence,
    XidEvidence,
)
from escalation.wire import (
    escalation_pb2 as pb,
    machine_evidence,
    network_evidence,
    pressure_evidence,
    service_evidence,
    storage_evidence,
)
from escalation.wire.fields import (
    Names,
    bounded,
    finite,
    fit,
    fit_float,
    fit_optional,
    fit_s32,
    fit_u32,
    fit_u64,
    optional_pid,
    text,
    unknown_bytes,
)
from escalation.wire.limits import PORT_MAX

_DEVICE: Final = Names(Device, pb.Device)
_SCOPE: Final = Names(OomScope, pb.OomScope)
_REACH: Final = Names(Reach, pb.Reach)
_BLIND: Final = Names(BlindReason, pb.BlindReason)
_ROUTE: Final = Names(RouteKind, pb.RouteKind)
_SERVER: Final = Names(ServerKind, pb.ServerKind)


_READERS: Final[Mapping[str, Callable[[pb.Evidence], Evidence]]] = MappingProxyType(
    {
        **pressure_evidence.READERS,
        **storage_evidence.READERS,
        **network_evidence.READERS,
        **service_evidence.READERS,
    }
)


def evidence_message(  # noqa: C901, PLR0912 -- one case per kind, checked complete
    evidence: Evidence,
) -> pb.Evidence:
    """Return `evidence` as a message."""
    match evidence:
        case DeviceOpenEvidence():
            return pb.Evidence(
                device_open=pb.DeviceOpenEvidence(
                    device=_DEVICE.number(evidence.device),
                    minor=None if evidence.minor is None else fit_u32(evidence.minor),
                    errno=fit_u32(evidence.errno),
                    failures=fit_u64(evidence.failures),
                    prior_successes=fit_u64(evidence.prior_successes),
                    process_name=fit("DeviceOpenEvidence.process_name", evidence.process_name),
                    pid=fit_optional(evidence.pid),
                )
            )
        case OomEvidence():
            return pb.Evidence(
                oom=pb.OomEvidence(
                    scope=_SCOPE.number(evidence.scope),
                    process_name=fit("OomEvidence.process_name", evidence.process_name),
                    pid=fit_optional(evidence.pid),
                    anon_rss_bytes=fit_optional(evidence.anon_rss_bytes),
                    limit_bytes=fit_optional(evidence.limit_bytes),
                    kills_in_cgroup=fit_optional(evidence.kills_in_cgroup),
                )
            )
        case SignalEvidence():
            return pb.Evidence(
                signal=pb.SignalEvidence(
                    signal=fit_u32(evidence.signal),
                    code=fit_s32(evidence.code),
                    process_name=fit("SignalEvidence.process_name", evidence.process_name),
                    pid=fit_optional(evidence.pid),
                )
            )
        case ListenerEvidence():
            return pb.Evidence(
                listener=pb.ListenerEvidence(
                    address=fit("ListenerEvidence.address", evidence.address),
                    port=min(fit_u32(evidence.port), PORT_MAX),
                    reach=_REACH.number(evidence.reach),
                    process_name=fit("ListenerEvidence.process_name", evidence.process_name),
                    confirmed=evidence.confirmed,
                    further=fit_u32(evidence.further),
                )
            )
        case BlindEvidence():
            return pb.Evidence(
                blind=pb.BlindEvidence(
                    sensor=fit("BlindEvidence.sensor", evidence.sensor),
                    reason=_BLIND.number(evidence.reason),
                    silent_s=fit_float(evidence.silent_s),
                )
            )
        case RouteEvidence():
            return pb.Evidence(route=_route_message(evidence))
        case FlightEvidence():
            return pb.Evidence(
                flight=pb.FlightEvidence(
                    id=_id_message(evidence.id),
                    requests=fit_u64(evidence.requests),
                    waiting=fit_u64(evidence.waiting),
                    oldest_s=fit_float(evidence.oldest_s),
                    silent_s=fit_float(evidence.silent_s),
                    patience_s=fit_float(evidence.patience_s),
                    largest_request_bytes=fit_u64(evidence.largest_request_bytes),
                )
            )
        case PromptSizeEvidence():
            return pb.Evidence(
                prompt_size=pb.PromptSizeEvidence(
                    id=_id_message(evidence.id),
                    window_s=fit_float(evidence.window_s),
                    split_bytes=fit_u64(evidence.split_bytes),
                    small=fit_u64(evidence.small),
                    small_failed=fit_u64(evidence.small_failed),
                    large=fit_u64(evidence.large),
                    large_failed=fit_u64(evidence.large_failed),
                )
            )
        case MemoryEvidence() | PlacementEvidence() | GpuEvidence() | XidEvidence():
            return machine_evidence.message(evidence)
        case (
            DescriptorEvidence()
            | PressureEvidence()
            | ProcessEvidence()
            | RunDelayEvidence()
            | ThrottleEvidence()
        ):
            return pressure_evidence.message(evidence)
        case BlockEvidence() | StorageEvidence():
            return storage_evidence.message(evidence)
        case ControlPlaneEvidence() | LinkEvidence() | MeshEvidence() | PeerEvidence():
            return network_evidence.message(evidence)
        case (
            DriftEvidence()
            | LogEvidence()
            | MetricEvidence()
            | ScopeEvidence()
            | SessionsEvidence()
            | UnitEvidence()
        ):
            return service_evidence.message(evidence)
        case UnknownEvidence():
            return pb.Evidence()
        case _:
            assert_never(evidence)


def evidence(message: pb.Evidence) -> Evidence:  # noqa: C901, PLR0912 -- one case per kind, checked complete
    """Return the evidence that `message` holds; raise WireError."""
    kind = message.WhichOneof("kind")
    match kind:
        case "device_open":
            return _device_open(message.device_open)
        case "oom":
            return _oom(message.oom)
        case "signal":
            signal = message.signal
            return SignalEvidence(
                signal.signal,
                signal.code,
                text("SignalEvidence.process_name", signal.process_name),
                optional_pid("SignalEvidence.pid", signal),
            )
        case "listener":
            return _listener(message.listener)
        case "blind":
            blind = message.blind
            return BlindEvidence(
                text("BlindEvidence.sensor", blind.sensor),
                _BLIND.member(blind.reason),
                finite("BlindEvidence.silent_s", blind.silent_s),
            )
        case "route":
            return _route(message.route)
        case "flight":
            return _flight(message.flight)
        case "prompt_size":
            return _prompt_size(message.prompt_size)
        case "memory":
            return machine_evidence.memory(message.memory)
        case "placement":
            return machine_evidence.placement(message.placement)
        case "gpu":
            return machine_evidence.gpu(message.gpu)
        case "xid":
            return machine_evidence.xid(message.xid)
        case None:
            return UnknownEvidence(unknown_bytes(message))
        case _:
            return _READERS[kind](message)


def _device_open(message: pb.DeviceOpenEvidence) -> DeviceOpenEvidence:
    return DeviceOpenEvidence(
        _DEVICE.member(message.device),
        message.minor if message.HasField("minor") else None,
        message.errno,
        bounded("DeviceOpenEvidence.failures", message.failures),
        bounded("DeviceOpenEvidence.prior_successes", message.prior_successes),
        text("DeviceOpenEvidence.process_name", message.process_name),
        optional_pid("DeviceOpenEvidence.pid", message),
    )


def _oom(message: pb.OomEvidence) -> OomEvidence:
    has = message.HasField
    return OomEvidence(
        _SCOPE.member(message.scope),
        text("OomEvidence.process_name", message.process_name),
        optional_pid("OomEvidence.pid", message),
        bounded("OomEvidence.anon_rss_bytes", message.anon_rss_bytes) if has("anon_rss_bytes") else None,
        bounded("OomEvidence.limit_bytes", message.limit_bytes) if has("limit_bytes") else None,
        bounded("OomEvidence.kills_in_cgroup", message.kills_in_cgroup) if has("kills_in_cgroup") else None,
    )


def _listener(message: pb.ListenerEvidence) -> ListenerEvidence:
    return ListenerEvidence(
        text("ListenerEvidence.address", message.address),
        bounded("ListenerEvidence.port", message.port, PORT_MAX),
        _REACH.member(message.reach),
        text("ListenerEvidence.process_name", message.process_name),
        message.confirmed if message.HasField("confirmed") else None,
        message.further,
    )


def _id_message(route: RouteId) -> pb.RouteId:
    return pb.RouteId(
        port=min(fit_u32(route.port), PORT_MAX),
        route=_ROUTE.number(route.route),
        model=fit("RouteId.model", route.model),
        server=_SERVER.number(route.server),
    )


def _id(message: pb.RouteId) -> RouteId:
    return RouteId(
        bounded("RouteId.port", message.port, PORT_MAX),
        _ROUTE.member(message.route),
        text("RouteId.model", message.model),
        _SERVER.member(message.server),
    )


def _route_message(evidence: RouteEvidence) -> pb.RouteEvidence:
    return pb.RouteEvidence(
        id=_id_message(evidence.id),
        window_s=fit_float(evidence.window_s),
        exchanges=fit_u64(evidence.exchanges),
        affected=fit_u64(evidence.affected),
        affected_streamed=fit_u64(evidence.affected_streamed),
        unobserved=fit_u64(evidence.unobserved),
        completion_tokens=fit_optional(evidence.completion_tokens),
        max_tokens=fit_optional(evidence.max_tokens),
        measured=_fit_measure(evidence.measured),
        baseline=_fit_measure(evidence.baseline),
    )


def _route(message: pb.RouteEvidence) -> RouteEvidence:
    has = message.HasField
    tokens = message.completion_tokens
    return RouteEvidence(
        id=_id(message.id),
        window_s=finite("RouteEvidence.window_s", message.window_s),
        exchanges=bounded("RouteEvidence.exchanges", message.exchanges),
        affected=bounded("RouteEvidence.affected", message.affected),
        affected_streamed=bounded("RouteEvidence.affected_streamed", message.affected_streamed),
        unobserved=bounded("RouteEvidence.unobserved", message.unobserved),
        completion_tokens=bounded("RouteEvidence.completion_tokens", tokens)
        if has("completion_tokens")
        else None,
        max_tokens=bounded("RouteEvidence.max_tokens", message.max_tokens) if has("max_tokens") else None,
        measured=finite("RouteEvidence.measured", message.measured) if has("measured") else None,
        baseline=finite("RouteEvidence.baseline", message.baseline) if has("baseline") else None,
    )


def _flight(message: pb.FlightEvidence) -> FlightEvidence:
    return FlightEvidence(
        id=_id(message.id),
        requests=bounded("FlightEvidence.requests", message.requests),
        waiting=bounded("FlightEvidence.waiting", message.waiting),
        oldest_s=finite("FlightEvidence.oldest_s", message.oldest_s),
        silent_s=finite("FlightEvidence.silent_s", message.silent_s),
        patience_s=finite("FlightEvidence.patience_s", message.patience_s),
        largest_request_bytes=bounded("FlightEvidence.largest_request_bytes", message.largest_request_bytes),
    )


def _prompt_size(message: pb.PromptSizeEvidence) -> PromptSizeEvidence:
    return PromptSizeEvidence(
        id=_id(message.id),
        window_s=finite("PromptSizeEvidence.window_s", message.window_s),
        split_bytes=bounded("PromptSizeEvidence.split_bytes", message.split_bytes),
        small=bounded("PromptSizeEvidence.small", message.small),
        small_failed=bounded("PromptSizeEvidence.small_failed", message.small_failed),
        large=bounded("PromptSizeEvidence.large", message.large),
        large_failed=bounded("PromptSizeEvidence.large_failed", message.large_failed),
    )


def _fit_measure(value: float | None) -> float | None:
    """Return `value`, or None when it is not finite: a share or a time that is no number was not measured."""
    return value if value is not None and math.isfinite(value) else None
