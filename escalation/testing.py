"""A builder of queue entries for tests: a believable incident per fault class, with the playbook's advice."""

from __future__ import annotations

import dataclasses
from typing import Final

from escalation.model import (
    AgentId,
    BlindEvidence,
    BlindReason,
    CaseId,
    Device,
    DeviceOpenEvidence,
    Evidence,
    FaultClass,
    Incarnation,
    Incident,
    IncidentId,
    ListenerEvidence,
    OomEvidence,
    OomScope,
    Reach,
    Reason,
    ReasonCode,
    Recommendation,
    RecommendationId,
    Severity,
    SignalEvidence,
    State,
    Subject,
    SubjectKind,
    UnknownEvidence,
)
from escalation.server.desk import Entry
from escalation.server.playbook.registry import advise

A_MOMENT_NS: Final = 1_795_000_000_000_000_000
"""2026-11-18T11:06:40Z."""

_MINUTE_NS: Final = 60_000_000_000
_HOST: Final = AgentId("spark-a")
_CONTAINER: Final = Subject(SubjectKind.CONTAINER, "4f" * 32)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Example:
    severity: Severity
    subject: Subject
    reasons: tuple[Reason, ...]
    evidence: tuple[Evidence, ...]
    target: Subject | None = None


_EXAMPLES: Final = {
    FaultClass.GPU_ACCESS_REVOKED: _Example(
        severity=Severity.CRITICAL,
        subject=_CONTAINER,
        reasons=(
            Reason(ReasonCode.OPEN_REFUSED_AFTER_SUCCESS, count=7, threshold=1, window_s=60),
            Reason(ReasonCode.SECOND_LAYER_UNKNOWN),
        ),
        evidence=(DeviceOpenEvidence(Device.CONTROL, 255, 1, 7, 212, "VLLM::EngineCore", 4711),),
    ),
    FaultClass.GPU_NEVER_GRANTED: _Example(
        severity=Severity.NOTE,
        subject=_CONTAINER,
        reasons=(Reason(ReasonCode.DEVICE_NODE_MISSING, count=3),),
        evidence=(DeviceOpenEvidence(Device.GPU, 0, 2, 3, 0, "python3", 902),),
    ),
    FaultClass.GPU_UVM_LOST: _Example(
        severity=Severity.HIGH,
        subject=Subject(SubjectKind.HOST, "spark-a"),
        reasons=(Reason(ReasonCode.DRIVER_BEHIND_NODE_MISSING, count=5),),
        evidence=(DeviceOpenEvidence(Device.UVM, 0, 6, 5, 12, "ollama", 311),),
    ),
    FaultClass.MEMORY_CGROUP_OOM_KILL: _Example(
        severity=Severity.HIGH,
        subject=Subject(SubjectKind.UNIT, "whisper.service"),
        reasons=(
            Reason(ReasonCode.KERNEL_CHOSE_VICTIM, count=2),
            Reason(ReasonCode.CGROUP_COUNTED_KILL, count=2),
        ),
        evidence=(OomEvidence(OomScope.CGROUP, "whisper", 88, 8_246_337_208, 8_589_934_592, 2),),
    ),
    FaultClass.PROCESS_KILLED_BY_SIGNAL: _Example(
        severity=Severity.HIGH,
        subject=_CONTAINER,
        reasons=(Reason(ReasonCode.DIED_BY_FAULT_SIGNAL, count=1),),
        evidence=(SignalEvidence(11, 1, "VLLM::Worker_TP", 512),),
    ),
    FaultClass.EXPOSURE_OFF_MESH_LISTENER: _Example(
        severity=Severity.CRITICAL,
        subject=Subject(SubjectKind.LISTENER, "0.0.0.0:5432/tcp"),
        target=Subject(SubjectKind.UNIT, "postgresql.service"),
        reasons=(
            Reason(ReasonCode.LISTENS_ON_ALL_INTERFACES),
            Reason(ReasonCode.HOST_HAS_PUBLIC_ADDRESS),
            Reason(ReasonCode.SOCKET_TABLE_AGREES),
        ),
        evidence=(
            ListenerEvidence("0.0.0.0", 5432, Reach.ALL_INTERFACES, "postgres", confirmed=True),  # noqa: S104
        ),
    ),
    FaultClass.MONITOR_BLIND: _Example(
        severity=Severity.MEDIUM,
        subject=Subject(SubjectKind.SENSOR, "kernel.device_open"),
        reasons=(Reason(ReasonCode.SENSOR_BLIND, window_s=420),),
        evidence=(BlindEvidence("kernel.device_open", BlindReason.NOT_HANDED_OVER, 420.0),),
    ),
    FaultClass.UNKNOWN: _Example(
        severity=Severity.UNKNOWN,
        subject=Subject(SubjectKind.UNKNOWN, "something-new"),
        reasons=(Reason(ReasonCode.UNKNOWN, count=3),),
        evidence=(UnknownEvidence(48),),
    ),
}


def an_entry(
    fault_class: FaultClass = FaultClass.GPU_ACCESS_REVOKED,
    *,
    number: int = 1,
    state: State = State.PROPOSED,
    host: AgentId = _HOST,
    subject: Subject | None = None,
    command: tuple[str, ...] | None = None,
    summary: str | None = None,
    evidence: tuple[Evidence, ...] | None = None,
) -> Entry:
    """Return a believable entry of `fault_class` with the playbook's advice; what is given replaces it."""
    example = _EXAMPLES[fault_class]
    incident = Incident(
        id=IncidentId(f"inc-{number}"),
        agent_id=host,
        fault_class=fault_class,
        fault_number=999 if fault_class is FaultClass.UNKNOWN else None,
        subject=subject or example.subject,
        target=example.target,
        severity=example.severity,
        incarnation=Incarnation("5d1f0f0e-0000-4000-8000-000000000001"),
        case_id=CaseId(f"case-{number}"),
        open=True,
        first_seen_ns=A_MOMENT_NS,
        last_seen_ns=A_MOMENT_NS + 3 * _MINUTE_NS,
        cleared_ns=None,
        count=7,
        reasons=example.reasons,
        evidence=example.evidence if evidence is None else evidence,
    )
    advice = advise(incident)
    if command is not None:
        advice = dataclasses.replace(advice, action=dataclasses.replace(advice.action, command=command))
    if summary is not None:
        advice = dataclasses.replace(advice, summary=summary)
    recommendation = Recommendation(
        id=RecommendationId(f"rec-{number}"),
        incident_id=incident.id,
        advice=advice,
        digest=f"{number:064x}",
        state=state,
        created_ns=A_MOMENT_NS,
        approve_by_ns=A_MOMENT_NS + 60 * _MINUTE_NS,
    )
    return Entry(recommendation, incident, cured=3, tried=4)
