"""Incidents of a host as its agent would report them: evidence of each kind, with what a test says of it."""

from __future__ import annotations

from escalation.model import (
    ActionKind,
    AgentId,
    BlockEvidence,
    CaseId,
    Change,
    ControlPlane,
    ControlPlaneEvidence,
    DescriptorCall,
    DescriptorEvidence,
    DriftEvidence,
    Evidence,
    FaultClass,
    Incarnation,
    Incident,
    IncidentId,
    LinkCounter,
    LinkEvidence,
    MeshEvidence,
    MeshState,
    MountRole,
    PeerEvidence,
    PressureEvidence,
    ProcessEvidence,
    ProcessState,
    Reason,
    ReasonCode,
    Resource,
    RunDelayEvidence,
    ScopeBreach,
    ScopeEvidence,
    ServerKind,
    SessionsEvidence,
    Severity,
    StorageEvidence,
    Subject,
    SubjectKind,
    ThrottleEvidence,
    UnitEvidence,
    UnitResult,
)
from escalation.server.testing import CONTAINER, START_NS

UNIT = Subject(SubjectKind.UNIT, "whisper.service")
BOX = Subject(SubjectKind.CONTAINER, CONTAINER)
HOST = Subject(SubjectKind.HOST, "spark-1")
MOUNT = Subject(SubjectKind.MOUNT, "/var/lib/docker")
PEER = Subject(SubjectKind.PEER, "192.0.2.7 8000")
LINK = Subject(SubjectKind.INTERFACE, "mlx5_0")
PID, TICKS = 4242, 99
LOOK = ActionKind.INSPECT
HUMAN = ActionKind.HUMAN
SETTING = ActionKind.CHANGE_SETTING
SECOND_UNKNOWN = ReasonCode.SECOND_LAYER_UNKNOWN


def incident_of(
    fault_class: FaultClass,
    subject: Subject,
    *evidence: Evidence,
    reasons: tuple[ReasonCode, ...] = (),
    severity: Severity = Severity.HIGH,
    target: Subject | None = None,
    pid: int | None = PID,
) -> Incident:
    return Incident(
        id=IncidentId("inc-1"),
        agent_id=AgentId("spark-1"),
        fault_class=fault_class,
        fault_number=None,
        subject=subject,
        target=target,
        severity=severity,
        incarnation=Incarnation("kernel-1", pid=pid, start_ticks=TICKS if pid else None),
        case_id=CaseId("case-1"),
        open=True,
        first_seen_ns=START_NS,
        last_seen_ns=START_NS,
        cleared_ns=None,
        count=1,
        reasons=tuple(Reason(code) for code in reasons),
        evidence=evidence,
    )


def throttle_evidence(quota: float | None = 2.0) -> ThrottleEvidence:
    return ThrottleEvidence(
        window_s=60.0, periods=600, throttled_periods=580, throttled_s=41.0, quota_cores=quota
    )


def delay_evidence(neighbour: str) -> RunDelayEvidence:
    return RunDelayEvidence(
        window_s=60.0,
        waits=900,
        waited_s=44.0,
        p99_s=0.25,
        baseline_s=0.002,
        neighbour=neighbour,
        neighbour_cores=15.0,
    )


def process_evidence(state: ProcessState, *, pid: int | None = PID, port: int = 8000) -> ProcessEvidence:
    return ProcessEvidence(
        process_name="python3",
        pid=pid,
        state=state,
        lasted_s=90.0,
        used_cpu_s=0.0,
        port=port,
        backlog=2,
        backlog_limit=128,
    )


def descriptors_evidence(
    limit: int | None, *, host_wide: bool = False, pid: int | None = PID
) -> DescriptorEvidence:
    return DescriptorEvidence(
        process_name="python3",
        pid=pid,
        call=DescriptorCall.ACCEPT,
        failures=31,
        limit=limit,
        host_wide=host_wide,
    )


def storage_evidence(
    role: MountRole = MountRole.CONTAINERS, *, mount: str = "/var/lib/docker", mounted: bool = True
) -> StorageEvidence:
    return StorageEvidence(
        mount=mount,
        role=role,
        filesystem="ext4",
        mounted=mounted,
        read_only=False,
        total_bytes=1 << 40,
        free_bytes=1 << 20,
        total_inodes=1 << 20,
        free_inodes=7,
        full_in_s=None,
        refused_writes=3,
    )


def block_evidence(device: str = "nvme0n1", *, errors: int = 5) -> BlockEvidence:
    return BlockEvidence(
        device=device,
        window_s=60.0,
        reads=100,
        writes=20,
        errors=errors,
        filesystem_errors=1,
        read_p99_s=None,
        write_p99_s=None,
        baseline_s=None,
    )


def peer_evidence(address: str = "192.0.2.7", *, port: int = 8000, errno: int = 0) -> PeerEvidence:
    return PeerEvidence(
        address=address,
        port=port,
        window_s=60.0,
        segments=20_000,
        retransmitted=600,
        resets=0,
        attempts=40,
        failed=39,
        errno=errno,
    )


def link_evidence(
    counter: LinkCounter = LinkCounter.SYMBOL_ERROR, *, device: str = "mlx5_0", up: bool | None = True
) -> LinkEvidence:
    return LinkEvidence(device=device, port=1, counter=counter, rise=88, window_s=60.0, up=up)


def mesh_evidence(state: MeshState) -> MeshEvidence:
    return MeshEvidence(
        state=state,
        online=state is MeshState.RUNNING,
        key_expires_in_s=None,
        warnings=(),
        peers_active=2,
        peers_relayed=2,
    )


def plane_evidence(
    plane: ControlPlane = ControlPlane.RAY_DASHBOARD, *, published: bool = False, outside: int = 0
) -> ControlPlaneEvidence:
    return ControlPlaneEvidence(
        plane=plane,
        address="0.0.0.0",
        port=8265,
        published=published,
        outside_peers=outside,
        outside_peer="198.51.100.4" if outside else "",
    )


def unit_evidence(result: UnitResult) -> UnitEvidence:
    return UnitEvidence(result=result, exit_status=1, starts=6, window_s=300.0, shortest_s=0.2, longest_s=3.0)


def drift_evidence(*changes: Change, before: int | None = None, now: int | None = None) -> DriftEvidence:
    return DriftEvidence(
        server=ServerKind.VLLM,
        changes=changes,
        print_before="aa" * 16,
        print_now="bb" * 16,
        context_before=before,
        context_now=now,
        ran_s=90_000.0,
    )


def scope_evidence(
    breach: ScopeBreach, *, address: str = "", port: int = 0, denied: bool = False
) -> ScopeEvidence:
    return ScopeEvidence(
        scope="agents",
        breach=breach,
        process_name="python3",
        pid=PID,
        executable="curl" if breach is ScopeBreach.EXECUTABLE else "",
        address=address,
        port=port,
        count=3,
        denied=denied,
    )


def sessions_evidence(limit: int | None = 100) -> SessionsEvidence:
    return SessionsEvidence(port=5433, sessions=97, limit=limit, refused=12, window_s=60.0)


def pressure_evidence() -> PressureEvidence:
    return PressureEvidence(resource=Resource.MEMORY, window_s=60.0, some_percent=71.0, full_percent=33.0)


PORTS = ("docker", "inspect", "--format", "{{json .HostConfig.PortBindings}}", CONTAINER)
