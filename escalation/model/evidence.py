"""Every kind of evidence that a case may carry."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, get_args

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

EVIDENCE_KINDS: Final[Mapping[str, type[Evidence]]] = MappingProxyType(
    {
        re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__.removesuffix("Evidence")).lower(): kind
        for kind in get_args(Evidence)
    }
)
"""The name of each kind of evidence, as it is stored and shown: `device_open` of DeviceOpenEvidence."""

_NAMES: Final = {kind: name for name, kind in EVIDENCE_KINDS.items()}


def evidence_kind(evidence: Evidence) -> str:
    """Return the name of the kind of `evidence`."""
    return _NAMES[type(evidence)]
