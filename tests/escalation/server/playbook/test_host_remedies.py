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
    Change,
    Evidence,
    FaultClass,
    Incident,
    LinkCounter,
    MeshState,
    MountRole,
    ProcessState,
    ReasonCode,
    ScopeBreach,
    Severity,
    Subject,
    SubjectKind,
    UnitResult,
)
from escalation.server.playbook.registry import advise
from escalation.server.testing import CONTAINER
from tests.escalation.server.playbook.host_incidents import (
    BOX,
    HOST,
    HUMAN,
    LINK,
    LOOK,
    MOUNT,
    PEER,
    PORTS,
    SECOND_UNKNOWN,
    SETTING,
    UNIT,
    block_evidence,
    delay_evidence,
    descriptors_evidence,
    drift_evidence,
    incident_of,
    link_evidence,
    mesh_evidence,
    peer_evidence,
    plane_evidence,
    pressure_evidence,
    process_evidence,
    scope_evidence,
    sessions_evidence,
    storage_evidence,
    throttle_evidence,
    unit_evidence,
)

_PS = ("ps", "-eo", "pid,rss,comm", "--sort=-rss")
_CGTOP = ("systemd-cgtop", "--batch", "--iterations=2", "--order=cpu")
_LISTENERS = ("ss", "-H", "-l", "-t", "-n", "-p")
_LOG = ("journalctl", "--no-pager", "--lines=200", "--unit=whisper.service")
_DOCKER_LOG = ("docker", "logs", "--tail", "200", CONTAINER)
_KERNEL_LOG = ("journalctl", "--no-pager", "--dmesg", "--lines=200")

_F, _R = FaultClass, ReasonCode
_SHM = "{{.HostConfig.ShmSize}} {{.HostConfig.IpcMode}}"
_MEMORY_OF_UNIT = (
    "systemctl",
    "show",
    "whisper.service",
    "--property=MemoryCurrent,MemoryHigh,MemoryMax,MemorySwapCurrent",
)

_CASES: list[tuple[str, Incident, ActionKind, tuple[str, ...]]] = [
    (
        "a host that thrashes: one server gives way",
        incident_of(_F.MEMORY_THRASHING, HOST, pressure_evidence(), target=BOX),
        ActionKind.RESTART_CONTAINER,
        ("docker", "restart", CONTAINER),
    ),
    (
        "a unit that thrashes alone: its limit",
        incident_of(_F.MEMORY_THRASHING, UNIT, pressure_evidence()),
        SETTING,
        _MEMORY_OF_UNIT,
    ),
    (
        "thrashing with one witness",
        incident_of(_F.MEMORY_THRASHING, UNIT, pressure_evidence(), reasons=(SECOND_UNKNOWN,)),
        LOOK,
        _MEMORY_OF_UNIT,
    ),
    ("a host that thrashes without a server", incident_of(_F.MEMORY_THRASHING, HOST), LOOK, _PS),
    (
        "a quota of a unit",
        incident_of(_F.CPU_QUOTA_THROTTLED, UNIT, throttle_evidence()),
        SETTING,
        ("systemctl", "set-property", "--runtime", "whisper.service", "CPUQuota=300%"),
    ),
    (
        "a quota of a container",
        incident_of(_F.CPU_QUOTA_THROTTLED, BOX, throttle_evidence(1.1)),
        SETTING,
        ("docker", "update", "--cpus=2.0", CONTAINER),
    ),
    (
        "a quota that is not known",
        incident_of(_F.CPU_QUOTA_THROTTLED, UNIT, throttle_evidence(None)),
        LOOK,
        ("systemctl", "show", "whisper.service", "--property=CPUQuotaPerSecUSec,CPUUsageNSec"),
    ),
    (
        "a quota of something without a safe name",
        incident_of(_F.CPU_QUOTA_THROTTLED, Subject(SubjectKind.UNIT, "a;b.service"), throttle_evidence()),
        LOOK,
        _CGTOP,
    ),
    (
        "a neighbour that is a container",
        incident_of(_F.CPU_CONTENTION, UNIT, delay_evidence(f"/system.slice/docker-{CONTAINER}.scope")),
        SETTING,
        ("docker", "update", "--cpu-shares=204", CONTAINER),
    ),
    (
        "a neighbour that is a unit",
        incident_of(_F.CPU_CONTENTION, BOX, delay_evidence("/system.slice/backup.service")),
        SETTING,
        ("systemctl", "set-property", "--runtime", "backup.service", "CPUWeight=20"),
    ),
    (
        "a neighbour that the host needs",
        incident_of(_F.CPU_CONTENTION, BOX, delay_evidence("/system.slice/tailscaled.service")),
        LOOK,
        _CGTOP,
    ),
    ("contention without a neighbour", incident_of(_F.CPU_CONTENTION, BOX, delay_evidence("")), LOOK, _CGTOP),
    (
        "contention as a note",
        incident_of(
            _F.CPU_CONTENTION, BOX, delay_evidence("/system.slice/backup.service"), severity=Severity.NOTE
        ),
        LOOK,
        _CGTOP,
    ),
    (
        "stuck in the kernel",
        incident_of(_F.PROCESS_UNINTERRUPTIBLE, UNIT, process_evidence(ProcessState.UNINTERRUPTIBLE)),
        HUMAN,
        _KERNEL_LOG,
    ),
    (
        "perhaps stuck in the kernel",
        incident_of(_F.PROCESS_UNINTERRUPTIBLE, UNIT, reasons=(SECOND_UNKNOWN,)),
        LOOK,
        ("ps", "-o", "pid,stat,wchan:32,etime,comm", "-p", "4242"),
    ),
    (
        "a process without descriptors",
        incident_of(_F.PROCESS_FD_EXHAUSTED, UNIT, descriptors_evidence(1024)),
        SETTING,
        ("prlimit", "--pid=4242", "--nofile=65536:1048576"),
    ),
    (
        "a process whose limit is high: it leaks",
        incident_of(_F.PROCESS_FD_EXHAUSTED, UNIT, descriptors_evidence(1 << 20)),
        LOOK,
        ("prlimit", "--pid=4242", "--nofile"),
    ),
    (
        "a process that may be another one by now",
        incident_of(_F.PROCESS_FD_EXHAUSTED, BOX, descriptors_evidence(1024, pid=7), pid=None),
        LOOK,
        ("docker", "inspect", "--format", "{{json .HostConfig.Ulimits}}", CONTAINER),
    ),
    (
        "a host without descriptors",
        incident_of(_F.PROCESS_FD_EXHAUSTED, HOST, descriptors_evidence(200_000, host_wide=True)),
        SETTING,
        ("sysctl", "fs.file-max=400000"),
    ),
    (
        "a host whose limit is not known",
        incident_of(_F.PROCESS_FD_EXHAUSTED, HOST, descriptors_evidence(None, host_wide=True)),
        LOOK,
        ("sysctl", "fs.file-nr"),
    ),
    (
        "a stopped server",
        incident_of(
            _F.PROCESS_NOT_ANSWERING,
            UNIT,
            process_evidence(ProcessState.STOPPED),
            reasons=(_R.BACKLOG_NOT_TAKEN, _R.PROCESS_STOPPED),
        ),
        ActionKind.RESUME_PROCESS,
        ("kill", "-CONT", "4242"),
    ),
    (
        "a stopped server whose process is not known",
        incident_of(
            _F.PROCESS_NOT_ANSWERING, UNIT, process_evidence(ProcessState.STOPPED, pid=None), pid=None
        ),
        LOOK,
        (*_LISTENERS, "sport = :8000"),
    ),
    (
        "a server that runs and takes nothing",
        incident_of(
            _F.PROCESS_NOT_ANSWERING,
            UNIT,
            process_evidence(ProcessState.SLEEPING),
            reasons=(_R.BACKLOG_NOT_TAKEN, _R.NO_CPU_PROGRESS),
        ),
        ActionKind.RESTART_UNIT,
        ("systemctl", "restart", "whisper.service"),
    ),
    (
        "a process that a debugger holds",
        incident_of(
            _F.PROCESS_NOT_ANSWERING, UNIT, process_evidence(ProcessState.STOPPED), severity=Severity.NOTE
        ),
        LOOK,
        ("ps", "-o", "pid,ppid,stat,etime,comm", "-p", "4242"),
    ),
    (
        "containers filled the disk",
        incident_of(_F.STORAGE_FULL, MOUNT, storage_evidence(), reasons=(_R.SPACE_LOW, _R.WRITES_REFUSED)),
        ActionKind.FREE_SPACE,
        ("docker", "image", "prune", "--force"),
    ),
    (
        "containers may fill the disk",
        incident_of(_F.STORAGE_FULL, MOUNT, storage_evidence(), reasons=(_R.SPACE_LOW, SECOND_UNKNOWN)),
        LOOK,
        ("docker", "system", "df"),
    ),
    (
        "models filled the disk",
        incident_of(
            _F.STORAGE_FULL,
            Subject(SubjectKind.MOUNT, "/usr/share/ollama/.ollama"),
            storage_evidence(MountRole.MODELS, mount="/usr/share/ollama/.ollama"),
            reasons=(_R.SPACE_LOW, _R.WRITES_REFUSED),
        ),
        LOOK,
        ("du", "--human-readable", "--one-file-system", "--max-depth=2", "/usr/share/ollama/.ollama"),
    ),
    (
        "small files used the inodes up",
        incident_of(
            _F.STORAGE_FULL,
            Subject(SubjectKind.MOUNT, "/srv/audio"),
            storage_evidence(MountRole.DECLARED, mount="/srv/audio"),
            reasons=(_R.INODES_LOW, _R.WRITES_REFUSED),
        ),
        LOOK,
        ("du", "--inodes", "--one-file-system", "--max-depth=2", "/srv/audio"),
    ),
    (
        "the journal filled the disk",
        incident_of(_F.STORAGE_FULL, MOUNT, storage_evidence(MountRole.LOGS), reasons=(_R.SPACE_LOW,)),
        LOOK,
        ("journalctl", "--disk-usage"),
    ),
    (
        "a full mount with a hostile path",
        incident_of(_F.STORAGE_FULL, MOUNT, storage_evidence(MountRole.OTHER, mount="/mnt/$(reboot)")),
        LOOK,
        ("df", "--human-readable", "--local"),
    ),
    (
        "a disk that errs",
        incident_of(
            _F.STORAGE_READ_ONLY, MOUNT, storage_evidence(), block_evidence(), reasons=(_R.BLOCK_ERRORS,)
        ),
        HUMAN,
        ("smartctl", "--all", "/dev/nvme0n1"),
    ),
    (
        "a filesystem that was made read-only",
        incident_of(_F.STORAGE_READ_ONLY, MOUNT, storage_evidence(), reasons=(_R.MOUNT_READ_ONLY,)),
        HUMAN,
        _KERNEL_LOG,
    ),
    (
        "an external disk that is gone",
        incident_of(
            _F.STORAGE_READ_ONLY,
            Subject(SubjectKind.MOUNT, "/mnt/models"),
            storage_evidence(MountRole.EXTERNAL, mount="/mnt/models", mounted=False),
            reasons=(_R.MOUNT_MISSING,),
        ),
        HUMAN,
        ("mount", "/mnt/models"),
    ),
    (
        "a network store that does not answer",
        incident_of(
            _F.STORAGE_READ_ONLY,
            Subject(SubjectKind.MOUNT, "/mnt/models"),
            storage_evidence(MountRole.EXTERNAL, mount="/mnt/models"),
            reasons=(_R.MOUNT_SILENT, _R.PLACEMENT_DECLARED),
        ),
        HUMAN,
        ("findmnt", "/mnt/models"),
    ),
    (
        "one error of a disk with a hostile name",
        incident_of(
            _F.STORAGE_READ_ONLY, MOUNT, block_evidence("../sda"), reasons=(_R.BLOCK_ERRORS, SECOND_UNKNOWN)
        ),
        LOOK,
        _KERNEL_LOG,
    ),
    ("a slow load", incident_of(_F.STORAGE_SLOW_LOAD, UNIT), LOOK, ("vmstat", "1", "5")),
    (
        "loss to a peer",
        incident_of(_F.NETWORK_RETRANSMISSION, PEER, peer_evidence("2001:db8::7")),
        LOOK,
        ("ss", "-H", "-t", "-i", "-n", "dst", "[2001:db8::7]"),
    ),
    (
        "loss to a peer that is relayed",
        incident_of(
            _F.NETWORK_RETRANSMISSION, PEER, peer_evidence("100.64.0.9"), reasons=(_R.PEER_IS_RELAYED,)
        ),
        LOOK,
        ("tailscale", "ping", "--c=5", "100.64.0.9"),
    ),
    (
        "loss to a peer without an address",
        incident_of(_F.NETWORK_RETRANSMISSION, PEER, peer_evidence("fe80::1%eth0")),
        LOOK,
        ("ss", "-H", "-t", "-i", "-n"),
    ),
    (
        "refused on this host",
        incident_of(_F.NETWORK_UPSTREAM_UNREACHABLE, PEER, peer_evidence("127.0.0.1", errno=111)),
        LOOK,
        (*_LISTENERS, "sport = :8000"),
    ),
    (
        "refused by another host",
        incident_of(_F.NETWORK_UPSTREAM_UNREACHABLE, PEER, peer_evidence(), reasons=(_R.CONNECTS_REFUSED,)),
        LOOK,
        ("ss", "-H", "-t", "-a", "-n", "-p", "dst", "192.0.2.7"),
    ),
    (
        "unreachable",
        incident_of(
            _F.NETWORK_UPSTREAM_UNREACHABLE,
            PEER,
            peer_evidence(errno=113),
            reasons=(_R.CONNECTS_UNREACHABLE,),
        ),
        LOOK,
        ("ip", "route", "get", "192.0.2.7"),
    ),
    (
        "refused while it loads",
        incident_of(
            _F.NETWORK_UPSTREAM_UNREACHABLE,
            PEER,
            peer_evidence("127.0.0.1", errno=111),
            reasons=(_R.CONNECTS_REFUSED, _R.SERVER_IS_LOADING),
            severity=Severity.NOTE,
        ),
        LOOK,
        (*_LISTENERS, "sport = :8000"),
    ),
    (
        "a link that errs",
        incident_of(_F.NETWORK_RDMA_FAULT, LINK, link_evidence(), reasons=(_R.RDMA_COUNTERS_RISE,)),
        HUMAN,
        ("rdma", "statistic", "show", "link", "mlx5_0/1"),
    ),
    (
        "a link that is down",
        incident_of(
            _F.NETWORK_RDMA_FAULT,
            LINK,
            link_evidence(LinkCounter.CARRIER_CHANGES, device="enp1s0f0np0", up=False),
            reasons=(_R.CARRIER_LOST,),
        ),
        HUMAN,
        ("ip", "-s", "link", "show", "dev", "enp1s0f0np0"),
    ),
    (
        "a link that counted",
        incident_of(_F.NETWORK_RDMA_FAULT, LINK, link_evidence(device="a b"), severity=Severity.NOTE),
        LOOK,
        ("rdma", "statistic", "show"),
    ),
    (
        "a lost worker",
        incident_of(_F.DISTRIBUTED_WORKER_LOST, BOX, reasons=(_R.NODE_MARKED_DEAD, _R.LOG_LINE_MATCHES)),
        ActionKind.RESTART_CONTAINER,
        ("docker", "restart", CONTAINER),
    ),
    (
        "perhaps a lost worker",
        incident_of(_F.DISTRIBUTED_WORKER_LOST, BOX, reasons=(SECOND_UNKNOWN,)),
        LOOK,
        ("docker", "exec", CONTAINER, "ray", "status"),
    ),
    (
        "a lost worker elsewhere",
        incident_of(_F.DISTRIBUTED_WORKER_LOST, HOST, reasons=(_R.NODE_MARKED_DEAD,)),
        LOOK,
        ("ray", "status"),
    ),
    (
        "ranks that stall, by one host's own log and counters",
        incident_of(
            _F.DISTRIBUTED_RANK_STALL,
            Subject(SubjectKind.MODEL, "qwen3-32b"),
            reasons=(_R.BROADCAST_BLOCKED, _R.TOKEN_COUNTERS_FLAT),
            target=BOX,
        ),
        ActionKind.RESTART_CONTAINER,
        ("docker", "restart", CONTAINER),
    ),
    (
        "ranks that may stall, by the log alone",
        incident_of(_F.DISTRIBUTED_RANK_STALL, BOX, reasons=(_R.BROADCAST_BLOCKED,)),
        LOOK,
        _DOCKER_LOG,
    ),
    (
        "the key of the mesh has ended",
        incident_of(_F.MESH_DEGRADED, HOST, mesh_evidence(MeshState.NEEDS_LOGIN), reasons=(_R.KEY_EXPIRED,)),
        HUMAN,
        ("tailscale", "up", "--force-reauth"),
    ),
    (
        "the daemon of the mesh is gone",
        incident_of(
            _F.MESH_DEGRADED, HOST, mesh_evidence(MeshState.NO_DAEMON), reasons=(_R.MESH_NOT_RUNNING,)
        ),
        HUMAN,
        ("systemctl", "start", "tailscaled.service"),
    ),
    (
        "the mesh was brought down",
        incident_of(_F.MESH_DEGRADED, HOST, mesh_evidence(MeshState.STOPPED), reasons=(_R.MESH_NOT_RUNNING,)),
        HUMAN,
        ("tailscale", "up"),
    ),
    (
        "the mesh waits for an approval",
        incident_of(_F.MESH_DEGRADED, HOST, mesh_evidence(MeshState.NEEDS_MACHINE_AUTH)),
        HUMAN,
        ("tailscale", "status"),
    ),
    (
        "the mesh is offline",
        incident_of(_F.MESH_DEGRADED, HOST, mesh_evidence(MeshState.STARTING), reasons=(_R.MESH_OFFLINE,)),
        HUMAN,
        ("systemctl", "restart", "tailscaled.service"),
    ),
    (
        "the mesh relays",
        incident_of(_F.MESH_DEGRADED, HOST, mesh_evidence(MeshState.RUNNING), reasons=(_R.PEERS_RELAYED,)),
        LOOK,
        ("tailscale", "netcheck"),
    ),
    (
        "the key of the mesh ends soon",
        incident_of(
            _F.MESH_DEGRADED,
            HOST,
            mesh_evidence(MeshState.RUNNING),
            reasons=(_R.KEY_EXPIRES_SOON,),
            severity=Severity.NOTE,
        ),
        LOOK,
        ("tailscale", "status"),
    ),
    (
        "an open control plane",
        incident_of(
            _F.EXPOSURE_OPEN_CONTROL_PLANE, HOST, plane_evidence(), reasons=(_R.CONTROL_PLANE_REACHABLE,)
        ),
        SETTING,
        ("ss", "-H", "-t", "-a", "-n", "-p", "sport = :8265"),
    ),
    (
        "an open control plane that Docker publishes",
        incident_of(_F.EXPOSURE_OPEN_CONTROL_PLANE, HOST, plane_evidence(published=True)),
        SETTING,
        ("docker", "ps", "--no-trunc", "--filter=publish=8265"),
    ),
    (
        "an open control plane of a container",
        incident_of(_F.EXPOSURE_OPEN_CONTROL_PLANE, HOST, plane_evidence(published=True), target=BOX),
        SETTING,
        PORTS,
    ),
    (
        "a control plane that may be open",
        incident_of(_F.EXPOSURE_OPEN_CONTROL_PLANE, HOST, plane_evidence(), severity=Severity.NOTE),
        LOOK,
        ("ss", "-H", "-t", "-a", "-n", "-p", "sport = :8265"),
    ),
    (
        "a unit in a loop",
        incident_of(
            _F.UNIT_RESTART_LOOP, UNIT, unit_evidence(UnitResult.EXIT_CODE), reasons=(_R.LIVES_ARE_SHORT,)
        ),
        LOOK,
        _LOG,
    ),
    (
        "a unit whose address is taken",
        incident_of(
            _F.UNIT_RESTART_LOOP, UNIT, unit_evidence(UnitResult.EXIT_CODE), reasons=(_R.ADDRESS_IN_USE,)
        ),
        LOOK,
        _LISTENERS,
    ),
    (
        "a loop without a safe name",
        incident_of(_F.UNIT_RESTART_LOOP, Subject(SubjectKind.UNIT, "-x.service")),
        LOOK,
        ("systemctl", "list-units", "--no-pager", "--failed"),
    ),
    (
        "a server that came back otherwise",
        incident_of(_F.SERVICE_CONFIG_DRIFT, UNIT, drift_evidence(Change.CONTEXT)),
        LOOK,
        ("systemctl", "cat", "--no-pager", "whisper.service"),
    ),
    (
        "a server without a name that came back otherwise",
        incident_of(_F.SERVICE_CONFIG_DRIFT, Subject(SubjectKind.PROCESS, "vllm")),
        LOOK,
        ("systemctl", "list-units", "--no-pager", "--type=service"),
    ),
    (
        "a container with too little shared memory",
        incident_of(
            _F.CONTAINER_SHM_TOO_SMALL, BOX, reasons=(_R.SHARED_MEMORY_REFUSED, _R.DIED_BY_BUS_ERROR)
        ),
        ActionKind.RECREATE_CONTAINER,
        ("docker", "inspect", "--format", _SHM, CONTAINER),
    ),
    (
        "a container that died by a bus error",
        incident_of(_F.CONTAINER_SHM_TOO_SMALL, BOX, reasons=(_R.DIED_BY_BUS_ERROR,)),
        LOOK,
        ("docker", "inspect", "--format", _SHM, CONTAINER),
    ),
    (
        "shared memory of no container",
        incident_of(_F.CONTAINER_SHM_TOO_SMALL, UNIT, reasons=(_R.SHARED_MEMORY_REFUSED,)),
        LOOK,
        ("df", "--human-readable", "/dev/shm"),
    ),
    (
        "a database without sessions",
        incident_of(
            _F.DATABASE_CONNECTIONS_EXHAUSTED, UNIT, sessions_evidence(), reasons=(_R.SESSIONS_REFUSED,)
        ),
        SETTING,
        ("ss", "-H", "-t", "-n", "-p", "state", "established", "sport = :5433"),
    ),
    (
        "a database near its limit",
        incident_of(_F.DATABASE_CONNECTIONS_EXHAUSTED, UNIT, severity=Severity.NOTE),
        LOOK,
        ("ss", "-H", "-t", "-n", "-p", "state", "established", "sport = :5432"),
    ),
    (
        "an interface that shows nothing",
        incident_of(_F.UI_BLANK_ANSWERS, BOX),
        LOOK,
        ("docker", "inspect", "--format", "{{.Config.Image}}", CONTAINER),
    ),
    (
        "a program outside its scope",
        incident_of(_F.SCOPE_VIOLATION, UNIT, scope_evidence(ScopeBreach.EXECUTABLE)),
        LOOK,
        ("ps", "-o", "pid,ppid,user,lstart,comm", "-p", "4242"),
    ),
    (
        "a destination outside its scope",
        incident_of(
            _F.SCOPE_VIOLATION, UNIT, scope_evidence(ScopeBreach.DESTINATION, address="198.51.100.4")
        ),
        LOOK,
        ("ss", "-H", "-t", "-a", "-n", "-p", "dst", "198.51.100.4"),
    ),
    (
        "a listener outside its scope",
        incident_of(
            _F.SCOPE_VIOLATION, UNIT, scope_evidence(ScopeBreach.LISTENER, address="0.0.0.0", port=9000)
        ),
        LOOK,
        (*_LISTENERS, "sport = :9000"),
    ),
    (
        "a secret on a command line",
        incident_of(_F.SCOPE_VIOLATION, UNIT, scope_evidence(ScopeBreach.SECRET), pid=None),
        LOOK,
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
    _F.MEMORY_THRASHING: {SETTING, ActionKind.RESTART_CONTAINER, ActionKind.RESTART_UNIT},
    _F.CPU_QUOTA_THROTTLED: {SETTING},
    _F.CPU_CONTENTION: {SETTING},
    _F.PROCESS_UNINTERRUPTIBLE: {HUMAN},
    _F.PROCESS_FD_EXHAUSTED: {SETTING},
    _F.PROCESS_NOT_ANSWERING: {
        ActionKind.RESUME_PROCESS,
        ActionKind.RESTART_CONTAINER,
        ActionKind.RESTART_UNIT,
    },
    _F.STORAGE_FULL: {ActionKind.FREE_SPACE},
    _F.STORAGE_READ_ONLY: {HUMAN},
    _F.STORAGE_SLOW_LOAD: set(),
    _F.NETWORK_RETRANSMISSION: set(),
    _F.NETWORK_UPSTREAM_UNREACHABLE: set(),
    _F.NETWORK_RDMA_FAULT: {HUMAN},
    _F.DISTRIBUTED_WORKER_LOST: {ActionKind.RESTART_CONTAINER, ActionKind.RESTART_UNIT},
    _F.DISTRIBUTED_RANK_STALL: {ActionKind.RESTART_CONTAINER, ActionKind.RESTART_UNIT},
    _F.MESH_DEGRADED: {HUMAN},
    _F.EXPOSURE_OPEN_CONTROL_PLANE: {SETTING},
    _F.UNIT_RESTART_LOOP: set(),
    _F.SERVICE_CONFIG_DRIFT: set(),
    _F.CONTAINER_SHM_TOO_SMALL: {ActionKind.RECREATE_CONTAINER},
    _F.DATABASE_CONNECTIONS_EXHAUSTED: {SETTING},
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
    subject=st.sampled_from([UNIT, BOX, HOST, MOUNT, PEER, LINK]),
    target=st.sampled_from([None, UNIT, BOX]),
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
    found = incident_of(fault, subject, *evidence, reasons=tuple(reasons), severity=severity, target=target)
    advice = advise(found)
    assert advice.action.kind in _PROPOSED[fault] | {LOOK}
    if severity is Severity.NOTE or SECOND_UNKNOWN in reasons:
        assert advice.action.kind is LOOK
    if advice.action.kind is LOOK:
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
        storage_evidence(MountRole.OTHER, mount=text),
        block_evidence(text),
        peer_evidence(text),
        link_evidence(device=text),
        delay_evidence(text),
        dataclasses.replace(plane_evidence(), address=text, outside_peer=text, outside_peers=1),
        dataclasses.replace(process_evidence(ProcessState.STOPPED), process_name=text),
        scope_evidence(ScopeBreach.DESTINATION, address=text),
    )
    for kind in SubjectKind:
        advice = advise(incident_of(fault, Subject(kind, text), *evidence))
        for word in advice.action.command:
            assert re.fullmatch(r"[A-Za-z0-9_.,:;@=/%\[\]\\{} -]+", word), word
        texts = (advice.summary, advice.risk, advice.will_not_fix, advice.verification.text)
        assert all(re.fullmatch(r"[ -~]+", each) for each in texts)
