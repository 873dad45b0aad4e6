"""Who and what: ids, fault classes, severities, subjects and their incarnations."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final, NewType

AgentId = NewType("AgentId", str)
"""The host's name as its certificate carries it: ``spiffe://<trust domain>/nanobot/agent/<AgentId>``."""

BootId = NewType("BootId", str)
"""One numbering of reports: a UUID that changes with the host's boot and with every fresh spool."""

CaseId = NewType("CaseId", str)
IncidentId = NewType("IncidentId", str)
RecommendationId = NewType("RecommendationId", str)

AGENT_ID: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
"""What an AgentId looks like in full: a lower-case DNS name of at most 63 characters."""


class FaultClass(enum.StrEnum):
    """The catalogue's dotted names. UNKNOWN stands for a class that a newer agent knows and we do not."""

    UNKNOWN = "unknown"
    GPU_ACCESS_REVOKED = "gpu.access_revoked"
    GPU_NEVER_GRANTED = "gpu.never_granted"
    GPU_UVM_LOST = "gpu.uvm_lost"
    MEMORY_CGROUP_OOM_KILL = "memory.cgroup_oom_kill"
    PROCESS_KILLED_BY_SIGNAL = "process.killed_by_signal"
    EXPOSURE_OFF_MESH_LISTENER = "exposure.off_mesh_listener"
    MONITOR_BLIND = "monitor.blind"
    ROUTE_EMPTY_COMPLETION = "route.empty_completion"
    ROUTE_REASONING_BUDGET_EXHAUSTED = "route.reasoning_budget_exhausted"
    ROUTE_ANSWER_MISROUTED = "route.answer_misrouted"
    ROUTE_BROKEN_STREAM = "route.broken_stream"
    ROUTE_DEGENERATE_OUTPUT = "route.degenerate_output"
    ROUTE_CONTEXT_OVERFLOW = "route.context_overflow"
    ROUTE_ENGINE_STALLED = "route.engine_stalled"
    ROUTE_ROUTER_COOLDOWN = "route.router_cooldown"
    ROUTE_SATURATED = "route.saturated"
    ROUTE_FAILS_REAL_TRAFFIC = "route.fails_real_traffic"
    ROUTE_ERRORS_RISING = "route.errors_rising"
    ROUTE_LATENCY_RISING = "route.latency_rising"
    DISTRIBUTED_RANK_STALL = "distributed.rank_stall"
    MEMORY_UNIFIED_EXHAUSTION = "memory.unified_exhaustion"
    MEMORY_PAGE_CACHE_REFUSAL = "memory.page_cache_refusal"
    GPU_CPU_FALLBACK = "gpu.cpu_fallback"
    TRANSCRIPTION_CPU_FALLBACK = "transcription.cpu_fallback"
    GPU_CLOCKS_CAPPED = "gpu.clocks_capped"
    GPU_APPLICATION_XID = "gpu.application_xid"
    GPU_DEVICE_FAULT = "gpu.device_fault"
    GPU_DRIVER_MISMATCH = "gpu.driver_mismatch"
    MEMORY_THRASHING = "memory.thrashing"
    CPU_QUOTA_THROTTLED = "cpu.quota_throttled"
    CPU_CONTENTION = "cpu.contention"
    PROCESS_UNINTERRUPTIBLE = "process.uninterruptible"
    PROCESS_FD_EXHAUSTED = "process.fd_exhausted"
    PROCESS_NOT_ANSWERING = "process.not_answering"
    STORAGE_FULL = "storage.full"
    STORAGE_READ_ONLY = "storage.read_only"
    STORAGE_SLOW_LOAD = "storage.slow_load"
    NETWORK_RETRANSMISSION = "network.retransmission"
    NETWORK_UPSTREAM_UNREACHABLE = "network.upstream_unreachable"
    NETWORK_RDMA_FAULT = "network.rdma_fault"
    DISTRIBUTED_WORKER_LOST = "distributed.worker_lost"
    MESH_DEGRADED = "mesh.degraded"
    EXPOSURE_OPEN_CONTROL_PLANE = "exposure.open_control_plane"
    UNIT_RESTART_LOOP = "unit.restart_loop"
    SERVICE_CONFIG_DRIFT = "service.config_drift"
    CONTAINER_SHM_TOO_SMALL = "container.shm_too_small"
    DATABASE_CONNECTIONS_EXHAUSTED = "database.connections_exhausted"
    UI_BLANK_ANSWERS = "ui.blank_answers"
    SCOPE_VIOLATION = "scope.violation"


class Severity(enum.StrEnum):
    """How bad it is, worst last in `SEVERITY_ORDER`."""

    UNKNOWN = "unknown"
    NOTE = "note"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


SEVERITY_ORDER: Final = (Severity.UNKNOWN, Severity.NOTE, Severity.MEDIUM, Severity.HIGH, Severity.CRITICAL)


class SubjectKind(enum.StrEnum):
    """What kind of thing a case is about."""

    UNKNOWN = "unknown"
    HOST = "host"
    UNIT = "unit"
    CONTAINER = "container"
    CGROUP = "cgroup"
    PROCESS = "process"
    LISTENER = "listener"
    SENSOR = "sensor"
    GPU = "gpu"
    ROUTE = "route"
    MODEL = "model"
    MOUNT = "mount"
    DISK = "disk"
    PEER = "peer"
    INTERFACE = "interface"
    SCOPE = "scope"


@dataclass(frozen=True, slots=True)
class Subject:
    """What a case is about. `name` came from a host: hostile text, shown only escaped."""

    kind: SubjectKind
    name: str


@dataclass(frozen=True, slots=True)
class Incarnation:
    """Which life of the subject a case speaks of; an approval is void when any of it changed."""

    kernel_boot_id: str
    container_id: str | None = None
    pid: int | None = None
    start_ticks: int | None = None
