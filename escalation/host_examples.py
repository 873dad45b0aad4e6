"""Believable incidents of what a host shows beside its routes and GPUs, for tests; `testing.py` has others.

Longer than other modules because each incident is written out to be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from escalation.model import (
    BlockEvidence,
    Capture,
    Change,
    ControlPlane,
    ControlPlaneEvidence,
    DescriptorCall,
    DescriptorEvidence,
    DriftEvidence,
    Evidence,
    FaultClass,
    Gauge,
    LinkCounter,
    LinkEvidence,
    LogEvidence,
    MeshEvidence,
    MeshState,
    MeshWarning,
    MetricEvidence,
    MountRole,
    PeerEvidence,
    PressureEvidence,
    ProcessEvidence,
    ProcessState,
    Reason,
    ReasonCode,
    Resource,
    RouteEvidence,
    RouteId,
    RouteKind,
    RunDelayEvidence,
    ScopeBreach,
    ScopeEvidence,
    ServerKind,
    SessionsEvidence,
    Severity,
    SignalEvidence,
    StorageEvidence,
    Subject,
    SubjectKind,
    ThrottleEvidence,
    UnitEvidence,
    UnitResult,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """What an incident of one fault class may look like."""

    severity: Severity
    subject: Subject
    reasons: tuple[Reason, ...]
    evidence: tuple[Evidence, ...]
    target: Subject | None = None
    pid: int | None = None


_CONTAINER: Final = Subject(SubjectKind.CONTAINER, "4f" * 32)
_VLLM: Final = Subject(SubjectKind.UNIT, "vllm.service")
_HOST: Final = Subject(SubjectKind.HOST, "spark-a")
_GIB: Final = 1 << 30


def _log(pattern: str, process_name: str, *captures: Capture) -> LogEvidence:
    return LogEvidence(pattern=pattern, count=2, window_s=300.0, process_name=process_name, captures=captures)


def _storage(mount: str, role: MountRole, **fields: object) -> StorageEvidence:
    plain: dict[str, object] = {
        "filesystem": "ext4",
        "mounted": True,
        "read_only": False,
        "total_bytes": 1000 * _GIB,
        "free_bytes": 300 * _GIB,
        "total_inodes": 65_536_000,
        "free_inodes": 60_000_000,
        "full_in_s": None,
        "refused_writes": 0,
    }
    return StorageEvidence(mount=mount, role=role, **plain | fields)  # type: ignore[arg-type]


HOST_EXAMPLES: Final[Mapping[FaultClass, Example]] = {
    FaultClass.MEMORY_THRASHING: Example(
        severity=Severity.HIGH,
        subject=_HOST,
        reasons=(
            Reason(ReasonCode.TASKS_STALL_FOR_MEMORY, threshold=10, window_s=30),
            Reason(ReasonCode.PAGES_SWAP, count=48_211, window_s=30),
        ),
        evidence=(
            PressureEvidence(
                resource=Resource.MEMORY,
                window_s=30.0,
                some_percent=61.5,
                full_percent=34.0,
                major_faults=8123,
                swapped_pages=48_211,
                direct_reclaims=917,
            ),
        ),
    ),
    FaultClass.CPU_QUOTA_THROTTLED: Example(
        severity=Severity.MEDIUM,
        subject=_CONTAINER,
        reasons=(Reason(ReasonCode.QUOTA_THROTTLES, count=2701, threshold=0.25, window_s=300),),
        evidence=(
            ThrottleEvidence(
                window_s=300.0, periods=3000, throttled_periods=2701, throttled_s=188.0, quota_cores=2.0
            ),
        ),
    ),
    FaultClass.CPU_CONTENTION: Example(
        severity=Severity.MEDIUM,
        subject=_VLLM,
        reasons=(
            Reason(ReasonCode.SERVER_THREADS_WAIT, count=90_312, threshold=0.02, window_s=120),
            Reason(ReasonCode.NEIGHBOUR_GROWS),
        ),
        evidence=(
            RunDelayEvidence(
                window_s=120.0,
                waits=90_312,
                waited_s=61.0,
                p99_s=0.131,
                baseline_s=0.004,
                neighbour="/system.slice/backup.service",
                neighbour_cores=17.5,
            ),
            PressureEvidence(resource=Resource.CPU, window_s=60.0, some_percent=71.0, full_percent=None),
        ),
    ),
    FaultClass.PROCESS_UNINTERRUPTIBLE: Example(
        severity=Severity.HIGH,
        subject=Subject(SubjectKind.PROCESS, "VLLM::EngineCore"),
        reasons=(
            Reason(ReasonCode.STUCK_IN_KERNEL, threshold=30, window_s=184),
            Reason(ReasonCode.NO_CPU_PROGRESS),
        ),
        evidence=(
            ProcessEvidence(
                process_name="VLLM::EngineCore",
                pid=4711,
                state=ProcessState.UNINTERRUPTIBLE,
                lasted_s=184.0,
                used_cpu_s=0.0,
            ),
        ),
        target=_VLLM,
    ),
    FaultClass.PROCESS_FD_EXHAUSTED: Example(
        severity=Severity.MEDIUM,
        subject=Subject(SubjectKind.UNIT, "litellm.service"),
        pid=812,
        reasons=(
            Reason(ReasonCode.DESCRIPTORS_REFUSED, count=311, threshold=5, window_s=60),
            Reason(ReasonCode.DESCRIPTOR_LIMIT_REACHED, count=1024),
        ),
        evidence=(
            DescriptorEvidence(
                process_name="litellm",
                pid=812,
                call=DescriptorCall.ACCEPT,
                failures=311,
                limit=1024,
                host_wide=False,
            ),
        ),
    ),
    FaultClass.PROCESS_NOT_ANSWERING: Example(
        severity=Severity.HIGH,
        subject=_VLLM,
        pid=4711,
        reasons=(
            Reason(ReasonCode.BACKLOG_NOT_TAKEN, count=14, window_s=60),
            Reason(ReasonCode.PROCESS_STOPPED),
        ),
        evidence=(
            ProcessEvidence(
                process_name="vllm",
                pid=4711,
                state=ProcessState.STOPPED,
                lasted_s=75.0,
                used_cpu_s=0.0,
                port=8000,
                backlog=14,
                backlog_limit=2048,
            ),
        ),
    ),
    FaultClass.STORAGE_FULL: Example(
        severity=Severity.HIGH,
        subject=Subject(SubjectKind.MOUNT, "/var/lib/docker"),
        reasons=(
            Reason(ReasonCode.SPACE_LOW, threshold=2),
            Reason(ReasonCode.WRITES_REFUSED, count=23, window_s=60),
        ),
        evidence=(_storage("/var/lib/docker", MountRole.CONTAINERS, free_bytes=90 << 20, refused_writes=23),),
    ),
    FaultClass.STORAGE_READ_ONLY: Example(
        severity=Severity.CRITICAL,
        subject=Subject(SubjectKind.MOUNT, "/srv/models"),
        reasons=(Reason(ReasonCode.MOUNT_READ_ONLY), Reason(ReasonCode.FILESYSTEM_ERRORS, count=3)),
        evidence=(
            _storage("/srv/models", MountRole.MODELS, read_only=True),
            BlockEvidence(
                device="nvme1n1",
                window_s=60.0,
                reads=812,
                writes=64,
                errors=7,
                filesystem_errors=3,
                read_p99_s=None,
                write_p99_s=None,
                baseline_s=None,
            ),
        ),
    ),
    FaultClass.STORAGE_SLOW_LOAD: Example(
        severity=Severity.NOTE,
        subject=_VLLM,
        reasons=(
            Reason(ReasonCode.LOADING_FOR_LONG, threshold=300, window_s=1260),
            Reason(ReasonCode.READS_SLOW, count=91_440, threshold=0.008),
        ),
        evidence=(
            BlockEvidence(
                device="sda",
                window_s=600.0,
                reads=91_440,
                writes=12,
                errors=0,
                filesystem_errors=0,
                read_p99_s=0.524,
                write_p99_s=0.002,
                baseline_s=0.008,
            ),
        ),
    ),
    FaultClass.NETWORK_RETRANSMISSION: Example(
        severity=Severity.MEDIUM,
        subject=Subject(SubjectKind.PEER, "100.64.0.7 0"),
        reasons=(Reason(ReasonCode.SEGMENTS_RETRANSMITTED, count=1822, threshold=2, window_s=60),),
        evidence=(
            PeerEvidence(
                address="100.64.0.7",
                port=0,
                window_s=60.0,
                segments=21_004,
                retransmitted=1822,
                resets=0,
                attempts=0,
                failed=0,
                errno=0,
            ),
        ),
    ),
    FaultClass.NETWORK_UPSTREAM_UNREACHABLE: Example(
        severity=Severity.HIGH,
        subject=Subject(SubjectKind.PEER, "127.0.0.1 8000"),
        reasons=(Reason(ReasonCode.CONNECTS_REFUSED, count=45, threshold=5, window_s=60),),
        evidence=(
            PeerEvidence(
                address="127.0.0.1",
                port=8000,
                window_s=60.0,
                segments=0,
                retransmitted=0,
                resets=0,
                attempts=45,
                failed=45,
                errno=111,
                process_name="litellm",
            ),
        ),
        target=_VLLM,
    ),
    FaultClass.NETWORK_RDMA_FAULT: Example(
        severity=Severity.HIGH,
        subject=Subject(SubjectKind.INTERFACE, "rocep1s0f0"),
        reasons=(
            Reason(ReasonCode.RDMA_COUNTERS_RISE, count=117, window_s=60),
            Reason(ReasonCode.COLLECTIVE_FAILED, count=2),
        ),
        evidence=(
            LinkEvidence(
                device="rocep1s0f0",
                port=1,
                counter=LinkCounter.LOCAL_ACK_TIMEOUT,
                rise=117,
                window_s=60.0,
                up=True,
            ),
            _log("nccl.ib_error", "VLLM::Worker_TP1", Capture("status", 12.0)),
        ),
    ),
    FaultClass.DISTRIBUTED_WORKER_LOST: Example(
        severity=Severity.CRITICAL,
        subject=_CONTAINER,
        reasons=(Reason(ReasonCode.NODE_MARKED_DEAD), Reason(ReasonCode.WORKER_PROCESS_ENDED)),
        evidence=(
            _log("ray.node_dead", "gcs_server"),
            MetricEvidence(
                server=ServerKind.RAY,
                port=8265,
                gauge=Gauge.NODES_ALIVE,
                value=1.0,
                rise=-1.0,
                window_s=60.0,
            ),
        ),
    ),
    FaultClass.MESH_DEGRADED: Example(
        severity=Severity.HIGH,
        subject=_HOST,
        reasons=(
            Reason(ReasonCode.MESH_OFFLINE, window_s=120),
            Reason(ReasonCode.KEY_EXPIRES_SOON, threshold=604_800, window_s=172_800),
            Reason(ReasonCode.HEALTH_WARNINGS, count=2),
        ),
        evidence=(
            MeshEvidence(
                state=MeshState.RUNNING,
                online=False,
                key_expires_in_s=172_800.0,
                warnings=(MeshWarning.NO_DERP_CONNECTION, MeshWarning.RESOLV_CONF_OVERWRITTEN),
                peers_active=3,
                peers_relayed=2,
            ),
        ),
    ),
    FaultClass.EXPOSURE_OPEN_CONTROL_PLANE: Example(
        severity=Severity.CRITICAL,
        subject=Subject(SubjectKind.LISTENER, "0.0.0.0:8265"),
        reasons=(
            Reason(ReasonCode.CONTROL_PLANE_REACHABLE),
            Reason(ReasonCode.PEER_OFF_MESH, count=1),
        ),
        evidence=(
            ControlPlaneEvidence(
                plane=ControlPlane.RAY_DASHBOARD,
                address="0.0.0.0",  # noqa: S104 -- what is found, not bound
                port=8265,
                published=True,
                outside_peers=1,
                outside_peer="203.0.113.9",
            ),
        ),
        target=_CONTAINER,
    ),
    FaultClass.UNIT_RESTART_LOOP: Example(
        severity=Severity.HIGH,
        subject=_VLLM,
        reasons=(
            Reason(ReasonCode.LIVES_ARE_SHORT, count=6, threshold=60, window_s=600),
            Reason(ReasonCode.ADDRESS_IN_USE, count=6),
        ),
        evidence=(
            UnitEvidence(
                result=UnitResult.EXIT_CODE,
                exit_status=1,
                starts=6,
                window_s=600.0,
                shortest_s=3.1,
                longest_s=9.8,
            ),
        ),
    ),
    FaultClass.SERVICE_CONFIG_DRIFT: Example(
        severity=Severity.MEDIUM,
        subject=_VLLM,
        reasons=(Reason(ReasonCode.COMMAND_LINE_CHANGED), Reason(ReasonCode.CONTEXT_CHANGED)),
        evidence=(
            DriftEvidence(
                server=ServerKind.VLLM,
                changes=(Change.CONTEXT, Change.PARSER),
                print_before="9b1c04d2f67a83e5",
                print_now="27d0ae5513c8b94f",
                context_before=65_536,
                context_now=8192,
                ran_s=86_400.0 * 12,
            ),
        ),
    ),
    FaultClass.CONTAINER_SHM_TOO_SMALL: Example(
        severity=Severity.MEDIUM,
        subject=_CONTAINER,
        reasons=(
            Reason(ReasonCode.SHARED_MEMORY_REFUSED, count=1),
            Reason(ReasonCode.DIED_BY_BUS_ERROR, count=1),
        ),
        evidence=(
            _storage(
                "/dev/shm",  # noqa: S108 -- a name
                MountRole.SHARED_MEMORY,
                filesystem="tmpfs",
                total_bytes=64 << 20,
                free_bytes=0,
                total_inodes=None,
                free_inodes=None,
                refused_writes=1,
            ),
            SignalEvidence(7, 2, "VLLM::Worker_TP0", 4711),
        ),
    ),
    FaultClass.DATABASE_CONNECTIONS_EXHAUSTED: Example(
        severity=Severity.HIGH,
        subject=Subject(SubjectKind.UNIT, "postgresql@15-main.service"),
        reasons=(
            Reason(ReasonCode.SESSIONS_REFUSED, count=62, window_s=60),
            Reason(ReasonCode.SESSIONS_NEAR_LIMIT, count=100, threshold=95),
        ),
        evidence=(
            SessionsEvidence(port=5432, sessions=100, limit=100, refused=62, window_s=60.0),
            _log("postgresql.too_many_clients", "postgres"),
        ),
    ),
    FaultClass.UI_BLANK_ANSWERS: Example(
        severity=Severity.NOTE,
        subject=Subject(SubjectKind.UNIT, "open-webui.service"),
        reasons=(
            Reason(ReasonCode.UI_ANSWERS_BLANK, count=9, threshold=3, window_s=600),
            Reason(ReasonCode.BACKEND_ANSWERS_GOOD, count=12, window_s=600),
        ),
        evidence=(
            RouteEvidence(
                id=RouteId(3000, RouteKind.CHAT_COMPLETIONS, "qwen3-32b", ServerKind.OPEN_WEBUI),
                window_s=600.0,
                exchanges=9,
                affected=9,
                affected_streamed=9,
                unobserved=0,
            ),
        ),
    ),
    FaultClass.SCOPE_VIOLATION: Example(
        severity=Severity.HIGH,
        subject=Subject(SubjectKind.SCOPE, "agents"),
        reasons=(Reason(ReasonCode.DESTINATION_NOT_ALLOWED, count=3, window_s=60),),
        evidence=(
            ScopeEvidence(
                scope="agents",
                breach=ScopeBreach.DESTINATION,
                process_name="python3",
                pid=902,
                executable="",
                address="203.0.113.9",
                port=443,
                count=3,
                denied=False,
            ),
        ),
        target=Subject(SubjectKind.UNIT, "openclaw.service"),
    ),
}
"""What each of these fault classes may look like."""
