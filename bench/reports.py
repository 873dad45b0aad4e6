"""A report of about 1 KB: what the measurements of ingest and of storms send."""

from __future__ import annotations

from escalation.model import (
    AgentId,
    BootId,
    CaseId,
    CasePhase,
    CaseReport,
    Device,
    DeviceOpenEvidence,
    FaultClass,
    Incarnation,
    Reason,
    ReasonCode,
    Report,
    Severity,
    Subject,
)

FINGERPRINTS = 50
"""Faults that are told of in turn."""


def report_of(
    *,
    agent: AgentId,
    boot: BootId,
    sequence: int,
    created_ns: int,
    fault: int,
    phase: CasePhase,
    count: int,
    first_seen_ns: int,
    subject: Subject,
    target: Subject,
    container_id: str = "",
    devices: int,
) -> Report:
    """Return that `subject` was refused its GPU `count` times, with evidence of `devices` devices."""
    evidence = tuple(
        DeviceOpenEvidence(
            device=Device.GPU,
            minor=minor,
            errno=1,
            failures=count,
            prior_successes=7,
            process_name="VLLM::EngineCor",
            pid=4000 + minor,
        )
        for minor in range(devices)
    )
    body = CaseReport(
        phase=phase,
        case_id=CaseId(f"00000000-0000-4000-9000-{fault:012d}"),
        fault_class=FaultClass.GPU_ACCESS_REVOKED,
        severity=Severity.CRITICAL,
        subject=subject,
        target=target,
        incarnation=Incarnation(
            kernel_boot_id=str(boot), container_id=container_id, pid=4000, start_ticks=123456
        ),
        first_seen_ns=first_seen_ns,
        last_seen_ns=first_seen_ns + count,
        count=count,
        reasons=tuple(
            Reason(ReasonCode.OPEN_REFUSED_AFTER_SUCCESS, count=7, threshold=float(n), window_s=60.0)
            for n in range(6)
        ),
        evidence=evidence,
    )
    return Report(agent_id=agent, boot_id=boot, sequence=sequence, created_ns=created_ns, body=body)
