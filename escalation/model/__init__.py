"""The words that host and orchestrator share: reports, cases, evidence, incidents, recommendations.

Values only: nothing here reads a clock, a file or a socket. No field holds prompt or answer text, and no
field is prose: reasons are codes with numbers, worded where people read them (`escalation.wording`). Times
are Unix nanoseconds, UTC (`*_ns`); durations are seconds (`*_s`). Each word is defined once, in the file of
its family, and imported from here, on the host and on the orchestrator.
"""

from __future__ import annotations

from escalation.model.decision import (
    Action as Action,
    ActionKind as ActionKind,
    Advice as Advice,
    Approval as Approval,
    Incident as Incident,
    Recommendation as Recommendation,
    State as State,
    Verification as Verification,
)
from escalation.model.evidence import (
    EVIDENCE_KINDS as EVIDENCE_KINDS,
    Evidence as Evidence,
    UnknownEvidence as UnknownEvidence,
    evidence_kind as evidence_kind,
)
from escalation.model.host_evidence import (
    BlindEvidence as BlindEvidence,
    BlindReason as BlindReason,
    Device as Device,
    DeviceOpenEvidence as DeviceOpenEvidence,
    ListenerEvidence as ListenerEvidence,
    OomEvidence as OomEvidence,
    OomScope as OomScope,
    Reach as Reach,
    SignalEvidence as SignalEvidence,
)
from escalation.model.machine_evidence import (
    GpuEvidence as GpuEvidence,
    MemoryEvidence as MemoryEvidence,
    PlacementEvidence as PlacementEvidence,
    XidEvidence as XidEvidence,
)
from escalation.model.names import (
    AGENT_ID as AGENT_ID,
    SEVERITY_ORDER as SEVERITY_ORDER,
    AgentId as AgentId,
    BootId as BootId,
    CaseId as CaseId,
    FaultClass as FaultClass,
    Incarnation as Incarnation,
    IncidentId as IncidentId,
    RecommendationId as RecommendationId,
    Severity as Severity,
    Subject as Subject,
    SubjectKind as SubjectKind,
)
from escalation.model.network_evidence import (
    ControlPlane as ControlPlane,
    ControlPlaneEvidence as ControlPlaneEvidence,
    LinkCounter as LinkCounter,
    LinkEvidence as LinkEvidence,
    MeshEvidence as MeshEvidence,
    MeshState as MeshState,
    MeshWarning as MeshWarning,
    PeerEvidence as PeerEvidence,
)
from escalation.model.pressure_evidence import (
    DescriptorCall as DescriptorCall,
    DescriptorEvidence as DescriptorEvidence,
    PressureEvidence as PressureEvidence,
    ProcessEvidence as ProcessEvidence,
    ProcessState as ProcessState,
    Resource as Resource,
    RunDelayEvidence as RunDelayEvidence,
    ThrottleEvidence as ThrottleEvidence,
)
from escalation.model.reasons import (
    Reason as Reason,
    ReasonCode as ReasonCode,
)
from escalation.model.report import (
    Body as Body,
    CasePhase as CasePhase,
    CaseReport as CaseReport,
    Heartbeat as Heartbeat,
    HostChange as HostChange,
    HostChangeKind as HostChangeKind,
    Loss as Loss,
    LossKind as LossKind,
    Report as Report,
    SensorCoverage as SensorCoverage,
    UnknownBody as UnknownBody,
)
from escalation.model.route_evidence import (
    FlightEvidence as FlightEvidence,
    PromptSizeEvidence as PromptSizeEvidence,
    RouteEvidence as RouteEvidence,
    RouteId as RouteId,
    RouteKind as RouteKind,
    ServerKind as ServerKind,
)
from escalation.model.service_evidence import (
    Capture as Capture,
    Change as Change,
    DriftEvidence as DriftEvidence,
    Gauge as Gauge,
    LogEvidence as LogEvidence,
    MetricEvidence as MetricEvidence,
    ScopeBreach as ScopeBreach,
    ScopeEvidence as ScopeEvidence,
    SessionsEvidence as SessionsEvidence,
    UnitEvidence as UnitEvidence,
    UnitResult as UnitResult,
)
from escalation.model.sightings import (
    NOT_COUNTED as NOT_COUNTED,
    Sightings as Sightings,
)
from escalation.model.signature import (
    PasskeySignature as PasskeySignature,
    Signature as Signature,
    Signed as Signed,
    SshSignature as SshSignature,
)
from escalation.model.storage_evidence import (
    BlockEvidence as BlockEvidence,
    MountRole as MountRole,
    StorageEvidence as StorageEvidence,
)
from escalation.model.weighing import (
    Alternative as Alternative,
    Check as Check,
    Condition as Condition,
    History as History,
    Measured as Measured,
    Override as Override,
    Past as Past,
    Price as Price,
    Result as Result,
    Step as Step,
    Tally as Tally,
    Verdict as Verdict,
    Way as Way,
    Weighed as Weighed,
)
