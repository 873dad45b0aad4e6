"""Every kind of evidence that a case may carry."""

from __future__ import annotations

from dataclasses import dataclass

from escalation.model.host_evidence import (
    BlindEvidence,
    DeviceOpenEvidence,
    ListenerEvidence,
    OomEvidence,
    SignalEvidence,
)
from escalation.model.machine_evidence import GpuEvidence, MemoryEvidence, PlacementEvidence, XidEvidence
from escalation.model.network_evidence import (
    ControlPlaneEvidence,
    LinkEvidence,
    MeshEvidence,
    PeerEvidence,
)
from escalation.model.pressure_evidence import (
    DescriptorEvidence,
    PressureEvidence,
    ProcessEvidence,
    RunDelayEvidence,
    ThrottleEvidence,
)
from escalation.model.route_evidence import FlightEvidence, PromptSizeEvidence, RouteEvidence
from escalation.model.service_evidence import (
    DriftEvidence,
    LogEvidence,
    MetricEvidence,
    ScopeEvidence,
    SessionsEvidence,
    UnitEvidence,
)
from escalation.model.storage_evidence import BlockEvidence, StorageEvidence


@dataclass(frozen=True, slots=True)
class UnknownEvidence:
    """Evidence of a kind that a newer agent sends; kept as its bytes' size, never dropped silently."""

    size_bytes: int


Evidence = (
    DeviceOpenEvidence
    | OomEvidence
    | SignalEvidence
    | ListenerEvidence
    | BlindEvidence
    | RouteEvidence
    | FlightEvidence
    | PromptSizeEvidence
    | MemoryEvidence
    | PlacementEvidence
    | GpuEvidence
    | XidEvidence
    | PressureEvidence
    | ThrottleEvidence
    | RunDelayEvidence
    | ProcessEvidence
    | DescriptorEvidence
    | StorageEvidence
    | BlockEvidence
    | PeerEvidence
    | LinkEvidence
    | MeshEvidence
    | ControlPlaneEvidence
    | UnitEvidence
    | DriftEvidence
    | LogEvidence
    | MetricEvidence
    | SessionsEvidence
    | ScopeEvidence
    | UnknownEvidence
)
