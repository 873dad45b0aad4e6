"""Record the wire as it is: its descriptors, and a batch with every kind of body and evidence.

A new recording is added beside the old ones, never over them: `tests/golden/descriptors/v1-0002.binpb` and
so on. The rules for changing the wire are in proto/README.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from escalation.host_examples import HOST_EXAMPLES
from escalation.model import (
    AgentId,
    BlindEvidence,
    BlindReason,
    Body,
    BootId,
    CaseId,
    CasePhase,
    CaseReport,
    Device,
    DeviceOpenEvidence,
    FaultClass,
    FlightEvidence,
    GpuEvidence,
    Heartbeat,
    HostChange,
    HostChangeKind,
    Incarnation,
    ListenerEvidence,
    Loss,
    LossKind,
    MemoryEvidence,
    OomEvidence,
    OomScope,
    PlacementEvidence,
    PromptSizeEvidence,
    Reach,
    Reason,
    ReasonCode,
    Report,
    RouteEvidence,
    RouteId,
    RouteKind,
    SensorCoverage,
    ServerKind,
    Severity,
    SignalEvidence,
    Subject,
    SubjectKind,
    XidEvidence,
)
from escalation.wire import escalation_pb2 as pb
from escalation.wire.codec import encode, join

FOLDER = Path(__file__).resolve().parent.parent / "tests/golden/descriptors"
BOOT = BootId("0b5e9c1e-8f43-5a53-9d2e-6f0a86f0e4a1")
ROUTE = RouteId(8000, RouteKind.CHAT_COMPLETIONS, "qwen3-32b", ServerKind.VLLM)
BODIES: tuple[Body, ...] = (
    CaseReport(
        phase=CasePhase.OPENED,
        case_id=CaseId("5f0c2a"),
        fault_class=FaultClass.GPU_ACCESS_REVOKED,
        severity=Severity.HIGH,
        subject=Subject(SubjectKind.CONTAINER, "vllm-ü"),
        target=Subject(SubjectKind.UNIT, "vllm.service"),
        incarnation=Incarnation("8d2f7c1e-0000-4000-8000-000000000001", "c" * 64, 1234, 5678),
        first_seen_ns=1_700_000_000_000_000_000,
        last_seen_ns=1_700_000_001_000_000_000,
        count=17,
        reasons=(
            Reason(ReasonCode.OPEN_REFUSED_AFTER_SUCCESS, 5, 3.0, 60.0),
            Reason(ReasonCode.SECOND_LAYER_UNKNOWN),
        ),
        evidence=(
            DeviceOpenEvidence(Device.GPU, 0, 1, 5, 19, "vllm", 1234),
            OomEvidence(OomScope.CGROUP, "vllm", 1234, 7, 11, 13),
            SignalEvidence(11, -6, "vllm", None),
            ListenerEvidence("0.0.0.0", 8000, Reach.ALL_INTERFACES, "vllm", confirmed=True, further=9),
            BlindEvidence("kernel.listener", BlindReason.ATTACH_FAILED, 2.5),
            RouteEvidence(
                id=ROUTE,
                window_s=300.0,
                exchanges=29,
                affected=17,
                affected_streamed=12,
                unobserved=3,
                completion_tokens=512,
                max_tokens=1024,
                measured=0.25,
                baseline=0.0,
            ),
            FlightEvidence(
                id=ROUTE,
                requests=7,
                waiting=5,
                oldest_s=200.0,
                silent_s=190.0,
                patience_s=120.0,
                largest_request_bytes=65_536,
            ),
            PromptSizeEvidence(
                id=ROUTE,
                window_s=900.0,
                split_bytes=131_072,
                small=41,
                small_failed=1,
                large=11,
                large_failed=10,
            ),
            MemoryEvidence(
                total_bytes=130_000_000_000,
                available_bytes=3_000_000_000,
                free_bytes=1_000_000_000,
                floor_bytes=8_000_000_000,
                falls_bytes_per_s=500_000_000.0,
                empty_in_s=6.0,
                stalled_percent=12.5,
                stalls=31,
            ),
            PlacementEvidence(
                server=ServerKind.OLLAMA,
                process_name="ollama",
                pid=1234,
                cores=7.5,
                window_s=60.0,
                requests=5,
                listed=False,
                failed_opens=3,
                measured=2.5,
                baseline=41.0,
            ),
            GpuEvidence(
                gpu="0000000F:01:00.0",
                name="NVIDIA GB10",
                sm_mhz=507,
                usual_mhz=2405,
                busy_percent=96,
                watts=14.5,
                event_reasons=0,
                nvml_code=15,
                recovery_action=2,
            ),
            XidEvidence(gpu="0000000F:01:00.0", number=79, count=2, sources=3, process_name="vllm", pid=1234),
        ),
    ),
    Heartbeat(
        kernel_boot_id="8d2f7c1e-0000-4000-8000-000000000001",
        agent_version="0.1.0",
        started_ns=1_700_000_000_000_000_000,
        coverage=(
            SensorCoverage("kernel.device_open", None),
            SensorCoverage("kernel.listener", BlindReason.NO_PRIVILEGE, 1),
        ),
        open_cases=1,
        spool_reports=2,
        spool_bytes=3,
        interval_s=15.0,
    ),
    Loss(LossKind.RING_FULL, "kernel.device_open", 23, exact=True),
    HostChange(
        HostChangeKind.STARTED, Subject(SubjectKind.UNIT, "vllm.service"), 1_700_000_000_000_000_000, 3
    ),
    *(
        CaseReport(
            phase=CasePhase.UPDATED,
            case_id=CaseId(f"case {fault_class}"),
            fault_class=fault_class,
            severity=example.severity,
            subject=example.subject,
            target=example.target,
            incarnation=Incarnation("8d2f7c1e-0000-4000-8000-000000000001"),
            first_seen_ns=1_700_000_000_000_000_000,
            last_seen_ns=1_700_000_001_000_000_000,
            count=3,
            reasons=example.reasons,
            evidence=example.evidence,
            drill=fault_class is FaultClass.STORAGE_FULL,
        )
        for fault_class, example in HOST_EXAMPLES.items()
    ),
)


def main() -> int:
    """Write the next recording; return 1 when the newest one is the same."""
    file_set = FileDescriptorSet()
    pb.DESCRIPTOR.CopyToProto(file_set.file.add())
    descriptors = file_set.SerializeToString()
    before = sorted(FOLDER.glob("v1-*.binpb"))
    if before and before[-1].read_bytes() == descriptors:
        print(f"{before[-1].name} is the wire as it is")
        return 1
    payloads = [
        encode(
            Report(
                agent_id=AgentId("spark-a"),
                boot_id=BOOT,
                sequence=number,
                created_ns=1_700_000_000,
                body=body,
            )
        )
        for number, body in enumerate(BODIES, start=1)
    ]
    FOLDER.mkdir(parents=True, exist_ok=True)
    stem = FOLDER / f"v1-{len(before) + 1:04}"
    stem.with_suffix(".binpb").write_bytes(descriptors)
    stem.with_suffix(".batch").write_bytes(join(payloads))
    print(f"wrote {stem.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
