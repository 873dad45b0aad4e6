"""What the playbook advises about a host's memory, storage, network, mesh and services: each branch of it.

Longer than other modules because it is one table of situations, each written out to be read.
"""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given, strategies as st

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
    ListenerEvidence,
    MeshEvidence,
    MeshState,
    MountRole,
    PeerEvidence,
    PressureEvidence,
    ProcessEvidence,
    ProcessState,
    Reach,
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
from escalation.server.playbook import names
from escalation.server.playbook.registry import advise
from escalation.server.testing import CONTAINER, START_NS

_UNIT = Subject(SubjectKind.UNIT, "whisper.service")
_BOX = Subject(SubjectKind.CONTAINER, CONTAINER)
_HOST = Subject(SubjectKind.HOST, "spark-1")
_MOUNT = Subject(SubjectKind.MOUNT, "/var/lib/docker")
_PEER = Subject(SubjectKind.PEER, "192.0.2.7 8000")
_LINK = Subject(SubjectKind.INTERFACE, "mlx5_0")
_PID, _TICKS = 4242, 99
_LOOK = ActionKind.INSPECT
_HUMAN = ActionKind.HUMAN
_SETTING = ActionKind.CHANGE_SETTING
_SECOND_UNKNOWN = ReasonCode.SECOND_LAYER_UNKNOWN
_PS = ("ps", "-eo", "pid,rss,comm", "--sort=-rss")
_CGTOP = ("systemd-cgtop", "--batch", "--iterations=2", "--order=cpu")
_LISTENERS = ("ss", "-H", "-l", "-t", "-n", "-p")
_LOG = ("journalctl", "--no-pager", "--lines=200", "--unit=whisper.service")
_DOCKER_LOG = ("docker", "logs", "--tail", "200", CONTAINER)
_KERNEL_LOG = ("journalctl", "--no-pager", "--dmesg", "--lines=200")


def _incident(
    fault_class: FaultClass,
    subject: Subject,
    *evidence: Evidence,
    reasons: tuple[ReasonCode, ...] = (),
    severity: Severity = Severity.HIGH,
    target: Subject | None = None,
    pid: int | None = _PID,
) -> Incident:
    return Incident(
        id=IncidentId("inc-1"),
        agent_id=AgentId("spark-1"),
        fault_class=fault_class,
        fault_number=None,
        subject=subject,
        target=target,
        severity=severity,
        incarnation=Incarnation("kernel-1", pid=pid, start_ticks=_TICKS if pid else None),
        case_id=CaseId("case-1"),
        open=True,
        first_seen_ns=START_NS,
        last_seen_ns=START_NS,
        cleared_ns=None,
        count=1,
        reasons=tuple(Reason(code) for code in reasons),
        evidence=evidence,
    )


def _throttle(quota: float | None = 2.0) -> ThrottleEvidence:
    return ThrottleEvidence(
        window_s=60.0, periods=600, throttled_periods=580, throttled_s=41.0, quota_cores=quota
    )


def _delay(neighbour: str) -> RunDelayEvidence:
    return RunDelayEvidence(
        window_s=60.0,
        waits=900,
        waited_s=44.0,
        p99_s=0.25,
        baseline_s=0.002,
        neighbour=neighbour,
        neighbour_cores=15.0,
    )


def _process(state: ProcessState, *, pid: int | None = _PID, port: int = 8000) -> ProcessEvidence:
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


def _descriptors(limit: int | None, *, host_wide: bool = False, pid: int | None = _PID) -> DescriptorEvidence:
    return DescriptorEvidence(
        process_name="python3",
        pid=pid,
        call=DescriptorCall.ACCEPT,
        failures=31,
        limit=limit,
        host_wide=host_wide,
    )


def _storage(
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


def _block(device: str = "nvme0n1", *, errors: int = 5) -> BlockEvidence:
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


def _peer(address: str = "192.0.2.7", *, port: int = 8000, errno: int = 0) -> PeerEvidence:
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


def _link(
    counter: LinkCounter = LinkCounter.SYMBOL_ERROR, *, device: str = "mlx5_0", up: bool | None = True
) -> LinkEvidence:
    return LinkEvidence(device=device, port=1, counter=counter, rise=88, window_s=60.0, up=up)


def _mesh(state: MeshState) -> MeshEvidence:
    return MeshEvidence(
        state=state,
        online=state is MeshState.RUNNING,
        key_expires_in_s=None,
        warnings=(),
        peers_active=2,
        peers_relayed=2,
    )


def _plane(
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


def _unit(result: UnitResult) -> UnitEvidence:
    return UnitEvidence(result=result, exit_status=1, starts=6, window_s=300.0, shortest_s=0.2, longest_s=3.0)


def _drift(*changes: Change, before: int | None = None, now: int | None = None) -> DriftEvidence:
    return DriftEvidence(
        server=ServerKind.VLLM,
        changes=changes,
        print_before="aa" * 16,
        print_now="bb" * 16,
        context_before=before,
        context_now=now,
        ran_s=90_000.0,
    )


def _scope(breach: ScopeBreach, *, address: str = "", port: int = 0, denied: bool = False) -> ScopeEvidence:
    return ScopeEvidence(
        scope="agents",
        breach=breach,
        process_name="python3",
        pid=_PID,
        executable="curl" if breach is ScopeBreach.EXECUTABLE else "",
        address=address,
        port=port,
        count=3,
        denied=denied,
    )


def _sessions(limit: int | None = 100) -> SessionsEvidence:
    return SessionsEvidence(port=5433, sessions=97, limit=limit, refused=12, window_s=60.0)


def _pressure() -> PressureEvidence:
    return PressureEvidence(resource=Resource.MEMORY, window_s=60.0, some_percent=71.0, full_percent=33.0)


_F, _R = FaultClass, ReasonCode
_SHM = "{{.HostConfig.ShmSize}} {{.HostConfig.IpcMode}}"
_PORTS = ("docker", "inspect", "--format", "{{json .HostConfig.PortBindings}}", CONTAINER)
_MEMORY_OF_UNIT = (
    "systemctl",
    "show",
    "whisper.service",
    "--property=MemoryCurrent,MemoryHigh,MemoryMax,MemorySwapCurrent",
)

_CASES: list[tuple[str, Incident, ActionKind, tuple[str, ...]]] = [
    (
        "a host that thrashes: one server gives way",
        _incident(_F.MEMORY_THRASHING, _HOST, _pressure(), target=_BOX),
        ActionKind.RESTART_CONTAINER,
        ("docker", "restart", CONTAINER),
    ),
    (
        "a unit that thrashes alone: its limit",
        _incident(_F.MEMORY_THRASHING, _UNIT, _pressure()),
        _SETTING,
        _MEMORY_OF_UNIT,
    ),
    (
        "thrashing with one witness",
        _incident(_F.MEMORY_THRASHING, _UNIT, _pressure(), reasons=(_SECOND_UNKNOWN,)),
        _LOOK,
        _MEMORY_OF_UNIT,
    ),
    ("a host that thrashes without a server", _incident(_F.MEMORY_THRASHING, _HOST), _LOOK, _PS),
    (
        "a quota of a unit",
        _incident(_F.CPU_QUOTA_THROTTLED, _UNIT, _throttle()),
        _SETTING,
        ("systemctl", "set-property", "--runtime", "whisper.service", "CPUQuota=300%"),
    ),
    (
        "a quota of a container",
        _incident(_F.CPU_QUOTA_THROTTLED, _BOX, _throttle(1.1)),
        _SETTING,
        ("docker", "update", "--cpus=2.0", CONTAINER),
    ),
    (
        "a quota that is not known",
        _incident(_F.CPU_QUOTA_THROTTLED, _UNIT, _throttle(None)),
        _LOOK,
        ("systemctl", "show", "whisper.service", "--property=CPUQuotaPerSecUSec,CPUUsageNSec"),
    ),
    (
        "a quota of something without a safe name",
        _incident(_F.CPU_QUOTA_THROTTLED, Subject(SubjectKind.UNIT, "a;b.service"), _throttle()),
        _LOOK,
        _CGTOP,
    ),
    (
        "a neighbour that is a container",
        _incident(_F.CPU_CONTENTION, _UNIT, _delay(f"/system.slice/docker-{CONTAINER}.scope")),
        _SETTING,
        ("docker", "update", "--cpu-shares=204", CONTAINER),
    ),
    (
        "a neighbour that is a unit",
        _incident(_F.CPU_CONTENTION, _BOX, _delay("/system.slice/backup.service")),
        _SETTING,
        ("systemctl", "set-property", "--runtime", "backup.service", "CPUWeight=20"),
    ),
    (
        "a neighbour that the host needs",
        _incident(_F.CPU_CONTENTION, _BOX, _delay("/system.slice/tailscaled.service")),
        _LOOK,
        _CGTOP,
    ),
    ("contention without a neighbour", _incident(_F.CPU_CONTENTION, _BOX, _delay("")), _LOOK, _CGTOP),
    (
        "contention as a note",
        _incident(_F.CPU_CONTENTION, _BOX, _delay("/system.slice/backup.service"), severity=Severity.NOTE),
        _LOOK,
        _CGTOP,
    ),
    (
        "stuck in the kernel",
        _incident(_F.PROCESS_UNINTERRUPTIBLE, _UNIT, _process(ProcessState.UNINTERRUPTIBLE)),
        _HUMAN,
        _KERNEL_LOG,
    ),
    (
        "perhaps stuck in the kernel",
        _incident(_F.PROCESS_UNINTERRUPTIBLE, _UNIT, reasons=(_SECOND_UNKNOWN,)),
        _LOOK,
        ("ps", "-o", "pid,stat,wchan:32,etime,comm", "-p", "4242"),
    ),
    (
        "a process without descriptors",
        _incident(_F.PROCESS_FD_EXHAUSTED, _UNIT, _descriptors(1024)),
        _SETTING,
        ("prlimit", "--pid=4242", "--nofile=65536:1048576"),
    ),
    (
        "a process whose limit is high: it leaks",
        _incident(_F.PROCESS_FD_EXHAUSTED, _UNIT, _descriptors(1 << 20)),
        _LOOK,
        ("prlimit", "--pid=4242", "--nofile"),
    ),
    (
        "a process that may be another one by now",
        _incident(_F.PROCESS_FD_EXHAUSTED, _BOX, _descriptors(1024, pid=7), pid=None),
        _LOOK,
        ("docker", "inspect", "--format", "{{json .HostConfig.Ulimits}}", CONTAINER),
    ),
    (
        "a host without descriptors",
        _incident(_F.PROCESS_FD_EXHAUSTED, _HOST, _descriptors(200_000, host_wide=True)),
        _SETTING,
        ("sysctl", "fs.file-max=400000"),
    ),
    (
        "a host whose limit is not known",
        _incident(_F.PROCESS_FD_EXHAUSTED, _HOST, _descriptors(None, host_wide=True)),
        _LOOK,
        ("sysctl", "fs.file-nr"),
    ),
    (
        "a stopped server",
        _incident(
            _F.PROCESS_NOT_ANSWERING,
            _UNIT,
            _process(ProcessState.STOPPED),
            reasons=(_R.BACKLOG_NOT_TAKEN, _R.PROCESS_STOPPED),
        ),
        ActionKind.RESUME_PROCESS,
        ("kill", "-CONT", "4242"),
    ),
    (
        "a stopped server whose process is not known",
        _incident(_F.PROCESS_NOT_ANSWERING, _UNIT, _process(ProcessState.STOPPED, pid=None), pid=None),
        _LOOK,
        (*_LISTENERS, "sport = :8000"),
    ),
    (
        "a server that runs and takes nothing",
        _incident(
            _F.PROCESS_NOT_ANSWERING,
            _UNIT,
            _process(ProcessState.SLEEPING),
            reasons=(_R.BACKLOG_NOT_TAKEN, _R.NO_CPU_PROGRESS),
        ),
        ActionKind.RESTART_UNIT,
        ("systemctl", "restart", "whisper.service"),
    ),
    (
        "a process that a debugger holds",
        _incident(_F.PROCESS_NOT_ANSWERING, _UNIT, _process(ProcessState.STOPPED), severity=Severity.NOTE),
        _LOOK,
        ("ps", "-o", "pid,ppid,stat,etime,comm", "-p", "4242"),
    ),
    (
        "containers filled the disk",
        _incident(_F.STORAGE_FULL, _MOUNT, _storage(), reasons=(_R.SPACE_LOW, _R.WRITES_REFUSED)),
        ActionKind.FREE_SPACE,
        ("docker", "image", "prune", "--force"),
    ),
    (
        "containers may fill the disk",
        _incident(_F.STORAGE_FULL, _MOUNT, _storage(), reasons=(_R.SPACE_LOW, _SECOND_UNKNOWN)),
        _LOOK,
        ("docker", "system", "df"),
    ),
    (
        "models filled the disk",
        _incident(
            _F.STORAGE_FULL,
            Subject(SubjectKind.MOUNT, "/usr/share/ollama/.ollama"),
            _storage(MountRole.MODELS, mount="/usr/share/ollama/.ollama"),
            reasons=(_R.SPACE_LOW, _R.WRITES_REFUSED),
        ),
        _LOOK,
        ("du", "--human-readable", "--one-file-system", "--max-depth=2", "/usr/share/ollama/.ollama"),
    ),
    (
        "small files used the inodes up",
        _incident(
            _F.STORAGE_FULL,
            Subject(SubjectKind.MOUNT, "/srv/audio"),
            _storage(MountRole.DECLARED, mount="/srv/audio"),
            reasons=(_R.INODES_LOW, _R.WRITES_REFUSED),
        ),
        _LOOK,
        ("du", "--inodes", "--one-file-system", "--max-depth=2", "/srv/audio"),
    ),
    (
        "the journal filled the disk",
        _incident(_F.STORAGE_FULL, _MOUNT, _storage(MountRole.LOGS), reasons=(_R.SPACE_LOW,)),
        _LOOK,
        ("journalctl", "--disk-usage"),
    ),
    (
        "a full mount with a hostile path",
        _incident(_F.STORAGE_FULL, _MOUNT, _storage(MountRole.OTHER, mount="/mnt/$(reboot)")),
        _LOOK,
        ("df", "--human-readable", "--local"),
    ),
    (
        "a disk that errs",
        _incident(_F.STORAGE_READ_ONLY, _MOUNT, _storage(), _block(), reasons=(_R.BLOCK_ERRORS,)),
        _HUMAN,
        ("smartctl", "--all", "/dev/nvme0n1"),
    ),
    (
        "a filesystem that was made read-only",
        _incident(_F.STORAGE_READ_ONLY, _MOUNT, _storage(), reasons=(_R.MOUNT_READ_ONLY,)),
        _HUMAN,
        _KERNEL_LOG,
    ),
    (
        "an external disk that is gone",
        _incident(
            _F.STORAGE_READ_ONLY,
            Subject(SubjectKind.MOUNT, "/mnt/models"),
            _storage(MountRole.EXTERNAL, mount="/mnt/models", mounted=False),
            reasons=(_R.MOUNT_MISSING,),
        ),
        _HUMAN,
        ("mount", "/mnt/models"),
    ),
    (
        "a network store that does not answer",
        _incident(
            _F.STORAGE_READ_ONLY,
            Subject(SubjectKind.MOUNT, "/mnt/models"),
            _storage(MountRole.EXTERNAL, mount="/mnt/models"),
            reasons=(_R.MOUNT_SILENT, _R.PLACEMENT_DECLARED),
        ),
        _HUMAN,
        ("findmnt", "/mnt/models"),
    ),
    (
        "one error of a disk with a hostile name",
        _incident(_F.STORAGE_READ_ONLY, _MOUNT, _block("../sda"), reasons=(_R.BLOCK_ERRORS, _SECOND_UNKNOWN)),
        _LOOK,
        _KERNEL_LOG,
    ),
    ("a slow load", _incident(_F.STORAGE_SLOW_LOAD, _UNIT), _LOOK, ("vmstat", "1", "5")),
    (
        "loss to a peer",
        _incident(_F.NETWORK_RETRANSMISSION, _PEER, _peer("2001:db8::7")),
        _LOOK,
        ("ss", "-H", "-t", "-i", "-n", "dst", "[2001:db8::7]"),
    ),
    (
        "loss to a peer that is relayed",
        _incident(_F.NETWORK_RETRANSMISSION, _PEER, _peer("100.64.0.9"), reasons=(_R.PEER_IS_RELAYED,)),
        _LOOK,
        ("tailscale", "ping", "--c=5", "100.64.0.9"),
    ),
    (
        "loss to a peer without an address",
        _incident(_F.NETWORK_RETRANSMISSION, _PEER, _peer("fe80::1%eth0")),
        _LOOK,
        ("ss", "-H", "-t", "-i", "-n"),
    ),
    (
        "refused on this host",
        _incident(_F.NETWORK_UPSTREAM_UNREACHABLE, _PEER, _peer("127.0.0.1", errno=111)),
        _LOOK,
        (*_LISTENERS, "sport = :8000"),
    ),
    (
        "refused by another host",
        _incident(_F.NETWORK_UPSTREAM_UNREACHABLE, _PEER, _peer(), reasons=(_R.CONNECTS_REFUSED,)),
        _LOOK,
        ("ss", "-H", "-t", "-a", "-n", "-p", "dst", "192.0.2.7"),
    ),
    (
        "unreachable",
        _incident(
            _F.NETWORK_UPSTREAM_UNREACHABLE, _PEER, _peer(errno=113), reasons=(_R.CONNECTS_UNREACHABLE,)
        ),
        _LOOK,
        ("ip", "route", "get", "192.0.2.7"),
    ),
    (
        "refused while it loads",
        _incident(
            _F.NETWORK_UPSTREAM_UNREACHABLE,
            _PEER,
            _peer("127.0.0.1", errno=111),
            reasons=(_R.CONNECTS_REFUSED, _R.SERVER_IS_LOADING),
            severity=Severity.NOTE,
        ),
        _LOOK,
        (*_LISTENERS, "sport = :8000"),
    ),
    (
        "a link that errs",
        _incident(_F.NETWORK_RDMA_FAULT, _LINK, _link(), reasons=(_R.RDMA_COUNTERS_RISE,)),
        _HUMAN,
        ("rdma", "statistic", "show", "link", "mlx5_0/1"),
    ),
    (
        "a link that is down",
        _incident(
            _F.NETWORK_RDMA_FAULT,
            _LINK,
            _link(LinkCounter.CARRIER_CHANGES, device="enp1s0f0np0", up=False),
            reasons=(_R.CARRIER_LOST,),
        ),
        _HUMAN,
        ("ip", "-s", "link", "show", "dev", "enp1s0f0np0"),
    ),
    (
        "a link that counted",
        _incident(_F.NETWORK_RDMA_FAULT, _LINK, _link(device="a b"), severity=Severity.NOTE),
        _LOOK,
        ("rdma", "statistic", "show"),
    ),
    (
        "a lost worker",
        _incident(_F.DISTRIBUTED_WORKER_LOST, _BOX, reasons=(_R.NODE_MARKED_DEAD, _R.LOG_LINE_MATCHES)),
        ActionKind.RESTART_CONTAINER,
        ("docker", "restart", CONTAINER),
    ),
    (
        "perhaps a lost worker",
        _incident(_F.DISTRIBUTED_WORKER_LOST, _BOX, reasons=(_SECOND_UNKNOWN,)),
        _LOOK,
        ("docker", "exec", CONTAINER, "ray", "status"),
    ),
    (
        "a lost worker elsewhere",
        _incident(_F.DISTRIBUTED_WORKER_LOST, _HOST, reasons=(_R.NODE_MARKED_DEAD,)),
        _LOOK,
        ("ray", "status"),
    ),
    (
        "ranks that stall, by one host's own log and counters",
        _incident(
            _F.DISTRIBUTED_RANK_STALL,
            Subject(SubjectKind.MODEL, "qwen3-32b"),
            reasons=(_R.BROADCAST_BLOCKED, _R.TOKEN_COUNTERS_FLAT),
            target=_BOX,
        ),
        ActionKind.RESTART_CONTAINER,
        ("docker", "restart", CONTAINER),
    ),
    (
        "ranks that may stall, by the log alone",
        _incident(_F.DISTRIBUTED_RANK_STALL, _BOX, reasons=(_R.BROADCAST_BLOCKED,)),
        _LOOK,
        _DOCKER_LOG,
    ),
    (
        "the key of the mesh has ended",
        _incident(_F.MESH_DEGRADED, _HOST, _mesh(MeshState.NEEDS_LOGIN), reasons=(_R.KEY_EXPIRED,)),
        _HUMAN,
        ("tailscale", "up", "--force-reauth"),
    ),
    (
        "the daemon of the mesh is gone",
        _incident(_F.MESH_DEGRADED, _HOST, _mesh(MeshState.NO_DAEMON), reasons=(_R.MESH_NOT_RUNNING,)),
        _HUMAN,
        ("systemctl", "start", "tailscaled.service"),
    ),
    (
        "the mesh was brought down",
        _incident(_F.MESH_DEGRADED, _HOST, _mesh(MeshState.STOPPED), reasons=(_R.MESH_NOT_RUNNING,)),
        _HUMAN,
        ("tailscale", "up"),
    ),
    (
        "the mesh waits for an approval",
        _incident(_F.MESH_DEGRADED, _HOST, _mesh(MeshState.NEEDS_MACHINE_AUTH)),
        _HUMAN,
        ("tailscale", "status"),
    ),
    (
        "the mesh is offline",
        _incident(_F.MESH_DEGRADED, _HOST, _mesh(MeshState.STARTING), reasons=(_R.MESH_OFFLINE,)),
        _HUMAN,
        ("systemctl", "restart", "tailscaled.service"),
    ),
    (
        "the mesh relays",
        _incident(_F.MESH_DEGRADED, _HOST, _mesh(MeshState.RUNNING), reasons=(_R.PEERS_RELAYED,)),
        _LOOK,
        ("tailscale", "netcheck"),
    ),
    (
        "the key of the mesh ends soon",
        _incident(
            _F.MESH_DEGRADED,
            _HOST,
            _mesh(MeshState.RUNNING),
            reasons=(_R.KEY_EXPIRES_SOON,),
            severity=Severity.NOTE,
        ),
        _LOOK,
        ("tailscale", "status"),
    ),
    (
        "an open control plane",
        _incident(_F.EXPOSURE_OPEN_CONTROL_PLANE, _HOST, _plane(), reasons=(_R.CONTROL_PLANE_REACHABLE,)),
        _SETTING,
        ("ss", "-H", "-t", "-a", "-n", "-p", "sport = :8265"),
    ),
    (
        "an open control plane that Docker publishes",
        _incident(_F.EXPOSURE_OPEN_CONTROL_PLANE, _HOST, _plane(published=True)),
        _SETTING,
        ("docker", "ps", "--no-trunc", "--filter=publish=8265"),
    ),
    (
        "an open control plane of a container",
        _incident(_F.EXPOSURE_OPEN_CONTROL_PLANE, _HOST, _plane(published=True), target=_BOX),
        _SETTING,
        _PORTS,
    ),
    (
        "a control plane that may be open",
        _incident(_F.EXPOSURE_OPEN_CONTROL_PLANE, _HOST, _plane(), severity=Severity.NOTE),
        _LOOK,
        ("ss", "-H", "-t", "-a", "-n", "-p", "sport = :8265"),
    ),
    (
        "a unit in a loop",
        _incident(_F.UNIT_RESTART_LOOP, _UNIT, _unit(UnitResult.EXIT_CODE), reasons=(_R.LIVES_ARE_SHORT,)),
        _LOOK,
        _LOG,
    ),
    (
        "a unit whose address is taken",
        _incident(_F.UNIT_RESTART_LOOP, _UNIT, _unit(UnitResult.EXIT_CODE), reasons=(_R.ADDRESS_IN_USE,)),
        _LOOK,
        _LISTENERS,
    ),
    (
        "a loop without a safe name",
        _incident(_F.UNIT_RESTART_LOOP, Subject(SubjectKind.UNIT, "-x.service")),
        _LOOK,
        ("systemctl", "list-units", "--no-pager", "--failed"),
    ),
    (
        "a server that came back otherwise",
        _incident(_F.SERVICE_CONFIG_DRIFT, _UNIT, _drift(Change.CONTEXT)),
        _LOOK,
        ("systemctl", "cat", "--no-pager", "whisper.service"),
    ),
    (
        "a server without a name that came back otherwise",
        _incident(_F.SERVICE_CONFIG_DRIFT, Subject(SubjectKind.PROCESS, "vllm")),
        _LOOK,
        ("systemctl", "list-units", "--no-pager", "--type=service"),
    ),
    (
        "a container with too little shared memory",
        _incident(_F.CONTAINER_SHM_TOO_SMALL, _BOX, reasons=(_R.SHARED_MEMORY_REFUSED, _R.DIED_BY_BUS_ERROR)),
        ActionKind.RECREATE_CONTAINER,
        ("docker", "inspect", "--format", _SHM, CONTAINER),
    ),
    (
        "a container that died by a bus error",
        _incident(_F.CONTAINER_SHM_TOO_SMALL, _BOX, reasons=(_R.DIED_BY_BUS_ERROR,)),
        _LOOK,
        ("docker", "inspect", "--format", _SHM, CONTAINER),
    ),
    (
        "shared memory of no container",
        _incident(_F.CONTAINER_SHM_TOO_SMALL, _UNIT, reasons=(_R.SHARED_MEMORY_REFUSED,)),
        _LOOK,
        ("df", "--human-readable", "/dev/shm"),
    ),
    (
        "a database without sessions",
        _incident(_F.DATABASE_CONNECTIONS_EXHAUSTED, _UNIT, _sessions(), reasons=(_R.SESSIONS_REFUSED,)),
        _SETTING,
        ("ss", "-H", "-t", "-n", "-p", "state", "established", "sport = :5433"),
    ),
    (
        "a database near its limit",
        _incident(_F.DATABASE_CONNECTIONS_EXHAUSTED, _UNIT, severity=Severity.NOTE),
        _LOOK,
        ("ss", "-H", "-t", "-n", "-p", "state", "established", "sport = :5432"),
    ),
    (
        "an interface that shows nothing",
        _incident(_F.UI_BLANK_ANSWERS, _BOX),
        _LOOK,
        ("docker", "inspect", "--format", "{{.Config.Image}}", CONTAINER),
    ),
    (
        "a program outside its scope",
        _incident(_F.SCOPE_VIOLATION, _UNIT, _scope(ScopeBreach.EXECUTABLE)),
        _LOOK,
        ("ps", "-o", "pid,ppid,user,lstart,comm", "-p", "4242"),
    ),
    (
        "a destination outside its scope",
        _incident(_F.SCOPE_VIOLATION, _UNIT, _scope(ScopeBreach.DESTINATION, address="198.51.100.4")),
        _LOOK,
        ("ss", "-H", "-t", "-a", "-n", "-p", "dst", "198.51.100.4"),
    ),
    (
        "a listener outside its scope",
        _incident(_F.SCOPE_VIOLATION, _UNIT, _scope(ScopeBreach.LISTENER, address="0.0.0.0", port=9000)),
        _LOOK,
        (*_LISTENERS, "sport = :9000"),
    ),
    (
        "a secret on a command line",
        _incident(_F.SCOPE_VIOLATION, _UNIT, _scope(ScopeBreach.SECRET), pid=None),
        _LOOK,
        (
            "systemctl",
            "show",
            "whisper.service",
            "--property=MainPID,User,ControlGroup,ExecMainStartTimestamp",
        ),
    ),
]


@pytest.mark.parametrize(
    ("incident", "kind", "command"), [row[1:] for row in _CASES], ids=[r[0] for r in _CASES]
)
def test_advises(incident: Incident, kind: ActionKind, command: tuple[str, ...]) -> None:
    """The kind of action and its exact argument list, for each branch that the evidence decides."""
    action = advise(incident).action
    assert (action.kind, action.command, action.host) == (kind, command, incident.agent_id)


_PROPOSED = {
    _F.MEMORY_THRASHING: {_SETTING, ActionKind.RESTART_CONTAINER, ActionKind.RESTART_UNIT},
    _F.CPU_QUOTA_THROTTLED: {_SETTING},
    _F.CPU_CONTENTION: {_SETTING},
    _F.PROCESS_UNINTERRUPTIBLE: {_HUMAN},
    _F.PROCESS_FD_EXHAUSTED: {_SETTING},
    _F.PROCESS_NOT_ANSWERING: {
        ActionKind.RESUME_PROCESS,
        ActionKind.RESTART_CONTAINER,
        ActionKind.RESTART_UNIT,
    },
    _F.STORAGE_FULL: {ActionKind.FREE_SPACE},
    _F.STORAGE_READ_ONLY: {_HUMAN},
    _F.STORAGE_SLOW_LOAD: set(),
    _F.NETWORK_RETRANSMISSION: set(),
    _F.NETWORK_UPSTREAM_UNREACHABLE: set(),
    _F.NETWORK_RDMA_FAULT: {_HUMAN},
    _F.DISTRIBUTED_WORKER_LOST: {ActionKind.RESTART_CONTAINER, ActionKind.RESTART_UNIT},
    _F.DISTRIBUTED_RANK_STALL: {ActionKind.RESTART_CONTAINER, ActionKind.RESTART_UNIT},
    _F.MESH_DEGRADED: {_HUMAN},
    _F.EXPOSURE_OPEN_CONTROL_PLANE: {_SETTING},
    _F.UNIT_RESTART_LOOP: set(),
    _F.SERVICE_CONFIG_DRIFT: set(),
    _F.CONTAINER_SHM_TOO_SMALL: {ActionKind.RECREATE_CONTAINER},
    _F.DATABASE_CONNECTIONS_EXHAUSTED: {_SETTING},
    _F.UI_BLANK_ANSWERS: set(),
    _F.SCOPE_VIOLATION: set(),
}
"""What each class may ask for beyond a look. A note, a reboot or the tailnet is never a button."""

_READS = {
    "df", "docker", "du", "ip", "journalctl", "lsblk", "prlimit", "ps", "ray", "rdma", "smartctl", "ss",
    "sysctl", "systemctl", "systemd-cgtop", "tailscale", "vmstat",
}  # fmt: skip

_evidence = st.sampled_from([piece for _, incident, _, _ in _CASES for piece in incident.evidence])


@given(
    fault=st.sampled_from(sorted(_PROPOSED)),
    subject=st.sampled_from([_UNIT, _BOX, _HOST, _MOUNT, _PEER, _LINK]),
    target=st.sampled_from([None, _UNIT, _BOX]),
    severity=st.sampled_from(Severity),
    evidence=st.lists(_evidence, max_size=3),
    reasons=st.lists(st.sampled_from(ReasonCode), max_size=4),
)
def test_no_advice_exceeds_its_ceiling(  # noqa: PLR0917 -- what an incident is made of
    fault: FaultClass,
    subject: Subject,
    target: Subject | None,
    severity: Severity,
    evidence: list[Evidence],
    reasons: list[ReasonCode],
) -> None:
    """Whatever the evidence: within what the catalogue allows, and with one witness or a note only a look."""
    found = _incident(fault, subject, *evidence, reasons=tuple(reasons), severity=severity, target=target)
    advice = advise(found)
    assert advice.action.kind in _PROPOSED[fault] | {_LOOK}
    if severity is Severity.NOTE or _SECOND_UNKNOWN in reasons:
        assert advice.action.kind is _LOOK
    if advice.action.kind is _LOOK:
        assert advice.action.command[0] in _READS
        assert not {"restart", "start", "set-property", "prune", "update", "up"} & set(advice.action.command)
        assert not any(re.match(r"--(pid|nofile)=\d+:|fs\.file-max", word) for word in advice.action.command)
        assert advice.will_not_fix.startswith(("Anything", "A ", "Whatever"))
    texts = (advice.summary, advice.risk, advice.will_not_fix, advice.verification.text)
    assert all(re.fullmatch(r"[ -~]+", text) and text == text.strip() for text in texts)


@given(text=st.text(max_size=60), fault=st.sampled_from(sorted(_PROPOSED)))
def test_hostile_names_reach_no_command_and_no_text(text: str, fault: FaultClass) -> None:
    """A mount, a disk, an address, a neighbour or a link with a hostile name: not even quoted."""
    evidence: tuple[Evidence, ...] = (
        _storage(MountRole.OTHER, mount=text),
        _block(text),
        _peer(text),
        _link(device=text),
        _delay(text),
        dataclasses.replace(_plane(), address=text, outside_peer=text, outside_peers=1),
        dataclasses.replace(_process(ProcessState.STOPPED), process_name=text),
        _scope(ScopeBreach.DESTINATION, address=text),
    )
    for kind in SubjectKind:
        advice = advise(_incident(fault, Subject(kind, text), *evidence))
        for word in advice.action.command:
            assert re.fullmatch(r"[A-Za-z0-9_.,:;@=/%\[\]\\{} -]+", word), word
        texts = (advice.summary, advice.risk, advice.will_not_fix, advice.verification.text)
        assert all(re.fullmatch(r"[ -~]+", each) for each in texts)


def test_says_what_differs_of_a_server_that_drifted() -> None:
    """The changes in words, the lengths of the context in tokens, and never a print."""

    def summary(*changes: Change, **lengths: int) -> str:
        return advise(_incident(_F.SERVICE_CONFIG_DRIFT, _UNIT, _drift(*changes, **lengths))).summary

    assert summary(Change.PARSER).startswith("It differs in the parser of reasoning or tool calls. ")
    both = summary(Change.MODEL, Change.CONTEXT, Change.MEMORY, before=65_536, now=8192)
    assert "the model, the context length (65536 tokens before, 8192 now) and the share of memory." in both
    assert "aaaa" not in both
    assert summary().startswith("It differs in its command line. ")
    told = {summary(change) for change in Change}
    assert len(told) == len(Change)


def test_names_the_setting_that_closes_each_control_plane() -> None:
    """Each kind that is known has its own words; one that is not has the general ones."""
    words = {
        plane: advise(_incident(_F.EXPOSURE_OPEN_CONTROL_PLANE, _HOST, _plane(plane))).summary
        for plane in ControlPlane
    }
    plain = words.pop(ControlPlane.UNKNOWN)
    assert words.pop(ControlPlane.OTHER) == plain
    assert len(set(words.values())) == len(words)
    assert "--dashboard-host=127.0.0.1" in words[ControlPlane.RAY_DASHBOARD]


def test_tells_of_somebody_who_is_connected_from_outside() -> None:
    """Closing it is then not enough: somebody may have used it."""

    def limits(outside: int) -> str:
        found = _incident(_F.EXPOSURE_OPEN_CONTROL_PLANE, _HOST, _plane(outside=outside))
        return advise(found).will_not_fix

    assert "change the secrets" in limits(1)
    assert "change the secrets" not in limits(0)


def test_an_off_mesh_listener_of_docker_is_published_anew() -> None:
    """Held by docker-proxy, the port is published on loopback or the mesh, with its own number."""
    listener = ListenerEvidence("0.0.0.0", 3000, Reach.ALL_INTERFACES, "docker-proxy", confirmed=True)
    subject = Subject(SubjectKind.LISTENER, "0.0.0.0:3000/tcp")
    advice = advise(_incident(_F.EXPOSURE_OFF_MESH_LISTENER, subject, listener))
    assert advice.action.command == ("docker", "ps", "--no-trunc", "--filter=publish=3000")
    assert "-p 127.0.0.1:3000:3000" in advice.summary
    assert "-p 100.x.y.z:3000:3000" in advice.summary
    other = dataclasses.replace(listener, process_name="node")
    advice = advise(
        _incident(
            _F.EXPOSURE_OFF_MESH_LISTENER, subject, other, reasons=(_R.PUBLISHED_BY_PROXY,), target=_BOX
        )
    )
    assert advice.action.command == _PORTS


def test_a_listener_that_was_never_there_is_asked_about_first() -> None:
    """Closing what somebody has just started hides who it was."""
    subject = Subject(SubjectKind.LISTENER, "0.0.0.0:3000/tcp")
    advice = advise(_incident(_F.EXPOSURE_OFF_MESH_LISTENER, subject, reasons=(_R.NOT_EXPECTED_HERE,)))
    assert advice.summary.startswith("Find out first who started it")


@pytest.mark.parametrize(
    ("result", "word"),
    [
        (UnitResult.OOM_KILL, "want of memory"),
        (UnitResult.TIMEOUT, "TimeoutStartSec="),
        (UnitResult.START_LIMIT_HIT, "systemctl reset-failed"),
        (UnitResult.EXIT_CODE, "Stop it until"),
    ],
)
def test_a_restart_loop_is_read_by_how_it_ends(result: UnitResult, word: str) -> None:
    """What ended the unit says where to look; a start limit says how to start it again afterwards."""
    assert word in advise(_incident(_F.UNIT_RESTART_LOOP, _UNIT, _unit(result))).summary


def test_a_full_database_disk_loses_nothing() -> None:
    """No command that removes anything is ever shown for it, and the words say to leave its files alone."""
    for reasons in ((_R.SPACE_LOW, _R.WRITES_REFUSED), (_R.INODES_LOW,)):
        found = _incident(
            _F.STORAGE_FULL, _MOUNT, _storage(MountRole.DATABASE, mount="/srv/pg"), reasons=reasons
        )
        advice = advise(found)
        assert advice.action.command[0] == "du"
        assert "Never remove a file of a database" in advice.summary


def test_valid_keys_are_not_to_be_changed() -> None:
    """A router that refuses keys for want of its database says nothing about the keys."""
    found = _incident(
        _F.DATABASE_CONNECTIONS_EXHAUSTED, _UNIT, _sessions(), reasons=(_R.KEYS_REFUSED_AT_ROUTER,)
    )
    assert "are good: do not change them" in advise(found).summary
    assert "below 100" in advise(found).summary


def test_a_worker_that_was_lost_elsewhere_is_started_there_first() -> None:
    """The command restarts what is here; the words say what has to come before it, and where."""
    reasons = (_R.NODE_MARKED_DEAD, _R.CONNECTIONS_RESET)
    found = _incident(_F.DISTRIBUTED_WORKER_LOST, _PEER, target=_BOX, reasons=reasons)
    advice = advise(found)
    assert advice.action.command == ("docker", "restart", CONTAINER)
    assert advice.summary.startswith("Start the worker again on the other host first")


@pytest.mark.parametrize(
    ("reasons", "kind"),
    [
        ((_R.SHARED_MEMORY_SMALL, _R.DIED_BY_BUS_ERROR), ActionKind.RECREATE_CONTAINER),
        ((_R.SHARED_MEMORY_REFUSED, _R.LOG_LINE_MATCHES), ActionKind.RECREATE_CONTAINER),
        ((_R.SHARED_MEMORY_SMALL,), _LOOK),
        ((_R.SHARED_MEMORY_REFUSED, _R.SHARED_MEMORY_SMALL, _SECOND_UNKNOWN), _LOOK),
    ],
)
def test_two_signs_of_small_shared_memory_make_a_proposal(
    reasons: tuple[ReasonCode, ...], kind: ActionKind
) -> None:
    """Its size is one of them; a single one is only looked at."""
    assert advise(_incident(_F.CONTAINER_SHM_TOO_SMALL, _BOX, reasons=reasons)).action.kind is kind


def test_a_secret_has_to_be_changed() -> None:
    """It was readable, so moving it is not enough; a wider scope is no answer to it."""
    secret = advise(_incident(_F.SCOPE_VIOLATION, _UNIT, _scope(ScopeBreach.SECRET)))
    assert "change the secret" in secret.summary
    assert "wider" not in secret.summary
    refused = advise(_incident(_F.SCOPE_VIOLATION, _UNIT, _scope(ScopeBreach.DESTINATION, denied=True)))
    assert "The kernel refused it." in refused.summary


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        (f"/docker/{CONTAINER}", _BOX),
        (f"/system.slice/docker-{CONTAINER}.scope", _BOX),
        (f"/system.slice/docker-{CONTAINER}.scope/system.slice/cron.service", _BOX),
        ("/system.slice/whisper.service", _UNIT),
        ("/system.slice/whisper.service/worker", _UNIT),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/whisper.service", None),
        (f"/kubepods/{CONTAINER}", None),
        ("/machine.slice/vm.service/system.slice/whisper.service", None),
        ("/system.slice/a b.service", None),
        ("/", None),
    ],
)
def test_a_neighbour_is_found_by_its_control_group(path: str, owner: Subject | None) -> None:
    """Docker's containers and the host's own services; never a unit of what runs inside something."""
    assert names.owner_of_cgroup(path) == owner


@pytest.mark.parametrize(
    ("mount", "safe"),
    [
        ("/", True),
        ("/mnt/models", True),
        ("/usr/share/ollama/.ollama", True),
        ("/mnt/../etc", False),
        ("/mnt/.", False),
        ("mnt", False),
        ("-rf", False),
        ("/mnt/a b", False),
        ("/mnt/a\n", False),
        ("//etc", False),
        ("/" + "x" * 300, False),
    ],
)
def test_a_path_of_a_mount_is_used_only_when_it_is_plain(mount: str, safe: bool) -> None:
    """No step upward, no blank, no option, no end of line."""
    found = _incident(_F.STORAGE_FULL, Subject(SubjectKind.MOUNT, mount))
    assert (names.mount_path(found) == mount) is safe


@pytest.mark.parametrize(("pid", "ticks", "known"), [(4242, 9, 4242), (1, 9, None), (4242, None, None)])
def test_a_process_is_named_by_its_life_only(pid: int, ticks: int | None, known: int | None) -> None:
    """A pid without its start may be another process's by now, and init is never acted on."""
    found = _incident(_F.PROCESS_NOT_ANSWERING, _UNIT)
    found = dataclasses.replace(found, incarnation=Incarnation("kernel-1", pid=pid, start_ticks=ticks))
    assert names.process_id(found) == known
