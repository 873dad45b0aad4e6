"""Builders of queue entries for tests: one believable entry per fault class, any field replaced by name."""

from __future__ import annotations

import dataclasses
from typing import Final

from escalation.model import (
    Action,
    ActionKind,
    Advice,
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
    Verification,
)
from escalation.server.desk import Entry

A_MOMENT_NS: Final = 1_795_000_000_000_000_000
"""2026-11-18T11:06:40Z."""

_MINUTE_NS: Final = 60_000_000_000
_HOST: Final = AgentId("spark-a")
_CONTAINER: Final = Subject(SubjectKind.CONTAINER, "vllm-qwen")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Example:
    severity: Severity
    subject: Subject
    reasons: tuple[Reason, ...]
    evidence: tuple[Evidence, ...]
    kind: ActionKind
    command: tuple[str, ...]
    summary: str
    risk: str
    will_not_fix: str
    proof: str


_EXAMPLES: Final = {
    FaultClass.GPU_ACCESS_REVOKED: _Example(
        severity=Severity.CRITICAL,
        subject=_CONTAINER,
        reasons=(
            Reason(ReasonCode.OPEN_REFUSED_AFTER_SUCCESS, count=7, threshold=1, window_s=60),
            Reason(ReasonCode.SECOND_LAYER_UNKNOWN),
        ),
        evidence=(DeviceOpenEvidence(Device.CONTROL, None, 1, 7, 212, "VLLM::EngineCore", 4711),),
        kind=ActionKind.RESTART_CONTAINER,
        command=("docker", "restart", "--time", "30", "vllm-qwen"),
        summary="Restart the container vllm-qwen, so that it is granted its GPU again.",
        risk="Requests in flight are lost; loading the model takes minutes.",
        will_not_fix="The next daemon-reload may take the GPU away again; use CDI to prevent it.",
        proof="Opening the GPU from this container works again",
    ),
    FaultClass.GPU_NEVER_GRANTED: _Example(
        severity=Severity.HIGH,
        subject=_CONTAINER,
        reasons=(Reason(ReasonCode.DEVICE_NODE_MISSING, count=3),),
        evidence=(DeviceOpenEvidence(Device.CONTROL, None, 2, 3, 0, "python3", 902),),
        kind=ActionKind.INSPECT,
        command=("docker", "inspect", "--format", "{{json .HostConfig.DeviceRequests}}", "vllm-qwen"),
        summary="Look whether the container vllm-qwen was started with a GPU.",
        risk="None: it only reads.",
        will_not_fix="The container must be created again with a GPU.",
        proof="The model server opens the GPU",
    ),
    FaultClass.GPU_UVM_LOST: _Example(
        severity=Severity.HIGH,
        subject=Subject(SubjectKind.HOST, "spark-a"),
        reasons=(Reason(ReasonCode.DRIVER_BEHIND_NODE_MISSING, count=5),),
        evidence=(DeviceOpenEvidence(Device.UVM, None, 6, 5, 12, "ollama", 311),),
        kind=ActionKind.HUMAN,
        command=("modprobe", "nvidia_uvm"),
        summary="Load the module nvidia_uvm again.",
        risk="Everything that uses a GPU on the host must stop first.",
        will_not_fix="The next suspend may take it away again.",
        proof="Opening /dev/nvidia-uvm works again",
    ),
    FaultClass.MEMORY_CGROUP_OOM_KILL: _Example(
        severity=Severity.HIGH,
        subject=Subject(SubjectKind.UNIT, "whisper.service"),
        reasons=(
            Reason(ReasonCode.KERNEL_CHOSE_VICTIM, count=2),
            Reason(ReasonCode.CGROUP_COUNTED_KILL, count=2),
        ),
        evidence=(OomEvidence(OomScope.CGROUP, "whisper", 88, 8_246_337_208, 8_589_934_592, 2),),
        kind=ActionKind.CHANGE_SETTING,
        command=("systemctl", "set-property", "--runtime", "whisper.service", "MemoryMax=12G"),
        summary="Raise the memory limit of whisper.service from 8 GiB to 12 GiB until the next boot.",
        risk="The memory is then missing elsewhere on the host.",
        will_not_fix="A leak, or a model that is too large for this host.",
        proof="No further kill in this unit",
    ),
    FaultClass.PROCESS_KILLED_BY_SIGNAL: _Example(
        severity=Severity.HIGH,
        subject=_CONTAINER,
        reasons=(Reason(ReasonCode.DIED_BY_FAULT_SIGNAL, count=1),),
        evidence=(SignalEvidence(11, 1, "VLLM::Worker_TP", 512),),
        kind=ActionKind.INSPECT,
        command=("docker", "logs", "--tail", "200", "vllm-qwen"),
        summary="Read the last lines of vllm-qwen before its supervisor restarts it again.",
        risk="None: it only reads.",
        will_not_fix="The defect itself.",
        proof="It runs for ten minutes without dying again",
    ),
    FaultClass.EXPOSURE_OFF_MESH_LISTENER: _Example(
        severity=Severity.CRITICAL,
        subject=Subject(SubjectKind.LISTENER, "0.0.0.0:5432/tcp"),
        reasons=(
            Reason(ReasonCode.LISTENS_ON_ALL_INTERFACES),
            Reason(ReasonCode.HOST_HAS_PUBLIC_ADDRESS),
            Reason(ReasonCode.SOCKET_TABLE_AGREES),
        ),
        evidence=(
            ListenerEvidence("0.0.0.0", 5432, Reach.ALL_INTERFACES, "postgres", confirmed=True),  # noqa: S104
        ),
        kind=ActionKind.INSPECT,
        command=("ss", "-Hltnp", "sport = :5432"),
        summary="Find what publishes port 5432, and bind it to the mesh address.",
        risk="None: it only reads.",
        will_not_fix="The service stays reachable until its configuration is changed.",
        proof="Nothing listens there any more",
    ),
    FaultClass.MONITOR_BLIND: _Example(
        severity=Severity.MEDIUM,
        subject=Subject(SubjectKind.SENSOR, "kernel.device_open"),
        reasons=(Reason(ReasonCode.SENSOR_BLIND, window_s=420),),
        evidence=(BlindEvidence("kernel.device_open", BlindReason.NOT_HANDED_OVER, 420.0),),
        kind=ActionKind.RESTART_UNIT,
        command=("systemctl", "restart", "nanobot-probes.service"),
        summary="Load the kernel sensors again.",
        risk="Events of about a second are missed.",
        will_not_fix="Missing kernel headers or privileges: the loader's journal names them.",
        proof="The sensor sees again",
    ),
    FaultClass.UNKNOWN: _Example(
        severity=Severity.UNKNOWN,
        subject=Subject(SubjectKind.UNKNOWN, "something-new"),
        reasons=(Reason(ReasonCode.UNKNOWN, count=3),),
        evidence=(UnknownEvidence(48),),
        kind=ActionKind.HUMAN,
        command=(),
        summary="Update the orchestrator, then look again.",
        risk="None.",
        will_not_fix="Anything.",
        proof="The agent reports that it cleared",
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
    """Return a believable entry of `fault_class`; what is not given is the example's own."""
    example = _EXAMPLES[fault_class]
    incident = Incident(
        id=IncidentId(f"inc-{number}"),
        agent_id=host,
        fault_class=fault_class,
        fault_number=999 if fault_class is FaultClass.UNKNOWN else None,
        subject=subject or example.subject,
        target=None,
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
    recommendation = Recommendation(
        id=RecommendationId(f"rec-{number}"),
        incident_id=incident.id,
        advice=Advice(
            action=Action(
                example.kind,
                host,
                subject or example.subject,
                example.command if command is None else command,
            ),
            summary=summary or example.summary,
            risk=example.risk,
            will_not_fix=example.will_not_fix,
            verification=Verification(example.proof, within_s=300.0, quiet_s=600.0),
        ),
        digest=f"{number:064x}",
        state=state,
        created_ns=A_MOMENT_NS,
        approve_by_ns=A_MOMENT_NS + 60 * _MINUTE_NS,
    )
    return Entry(recommendation, incident, cured=3, tried=4)
