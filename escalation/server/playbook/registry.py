"""Which remedy answers which fault class: one explicit tuple, sorted, one line each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from escalation.model import Advice, FaultClass, Incident
from escalation.server.playbook import (
    access_revoked,
    application_xid,
    blank_answers,
    clocks_capped,
    config_drift,
    cpu_contention,
    cpu_fallback,
    descriptors_exhausted,
    device_fault,
    driver_mismatch,
    killed_by_signal,
    mesh_degraded,
    monitor_blind,
    never_granted,
    not_answering,
    off_mesh_listener,
    oom_kill,
    open_control_plane,
    page_cache_refusal,
    quota_throttled,
    rank_stall,
    rdma_fault,
    restart_loop,
    retransmission,
    route_answer_misrouted,
    route_broken_stream,
    route_context_overflow,
    route_degenerate_output,
    route_empty_completion,
    route_engine_stalled,
    route_errors_rising,
    route_fails_real_traffic,
    route_latency_rising,
    route_reasoning_budget,
    route_router_cooldown,
    route_saturated,
    scope_violation,
    sessions_exhausted,
    shm_too_small,
    slow_load,
    storage_full,
    storage_read_only,
    thrashing,
    transcription_cpu_fallback,
    unified_exhaustion,
    uninterruptible,
    unknown_fault,
    upstream_unreachable,
    uvm_lost,
    worker_lost,
)
from escalation.server.playbook.alternatives import with_alternatives


@dataclass(frozen=True, slots=True)
class Remedy:
    """What is advised when an incident of `fault_class` is open; `advise` is pure and total."""

    fault_class: FaultClass
    advise: Callable[[Incident], Advice]


REMEDIES: Final[tuple[Remedy, ...]] = (
    Remedy(FaultClass.CONTAINER_SHM_TOO_SMALL, shm_too_small.advise),
    Remedy(FaultClass.CPU_CONTENTION, cpu_contention.advise),
    Remedy(FaultClass.CPU_QUOTA_THROTTLED, quota_throttled.advise),
    Remedy(FaultClass.DATABASE_CONNECTIONS_EXHAUSTED, sessions_exhausted.advise),
    Remedy(FaultClass.DISTRIBUTED_RANK_STALL, rank_stall.advise),
    Remedy(FaultClass.DISTRIBUTED_WORKER_LOST, worker_lost.advise),
    Remedy(FaultClass.EXPOSURE_OFF_MESH_LISTENER, off_mesh_listener.advise),
    Remedy(FaultClass.EXPOSURE_OPEN_CONTROL_PLANE, open_control_plane.advise),
    Remedy(FaultClass.GPU_ACCESS_REVOKED, access_revoked.advise),
    Remedy(FaultClass.GPU_APPLICATION_XID, application_xid.advise),
    Remedy(FaultClass.GPU_CLOCKS_CAPPED, clocks_capped.advise),
    Remedy(FaultClass.GPU_CPU_FALLBACK, cpu_fallback.advise),
    Remedy(FaultClass.GPU_DEVICE_FAULT, device_fault.advise),
    Remedy(FaultClass.GPU_DRIVER_MISMATCH, driver_mismatch.advise),
    Remedy(FaultClass.GPU_NEVER_GRANTED, never_granted.advise),
    Remedy(FaultClass.GPU_UVM_LOST, uvm_lost.advise),
    Remedy(FaultClass.MEMORY_CGROUP_OOM_KILL, oom_kill.advise),
    Remedy(FaultClass.MEMORY_PAGE_CACHE_REFUSAL, page_cache_refusal.advise),
    Remedy(FaultClass.MEMORY_THRASHING, thrashing.advise),
    Remedy(FaultClass.MEMORY_UNIFIED_EXHAUSTION, unified_exhaustion.advise),
    Remedy(FaultClass.MESH_DEGRADED, mesh_degraded.advise),
    Remedy(FaultClass.MONITOR_BLIND, monitor_blind.advise),
    Remedy(FaultClass.NETWORK_RDMA_FAULT, rdma_fault.advise),
    Remedy(FaultClass.NETWORK_RETRANSMISSION, retransmission.advise),
    Remedy(FaultClass.NETWORK_UPSTREAM_UNREACHABLE, upstream_unreachable.advise),
    Remedy(FaultClass.PROCESS_FD_EXHAUSTED, descriptors_exhausted.advise),
    Remedy(FaultClass.PROCESS_KILLED_BY_SIGNAL, killed_by_signal.advise),
    Remedy(FaultClass.PROCESS_NOT_ANSWERING, not_answering.advise),
    Remedy(FaultClass.PROCESS_UNINTERRUPTIBLE, uninterruptible.advise),
    Remedy(FaultClass.ROUTE_ANSWER_MISROUTED, route_answer_misrouted.advise),
    Remedy(FaultClass.ROUTE_BROKEN_STREAM, route_broken_stream.advise),
    Remedy(FaultClass.ROUTE_CONTEXT_OVERFLOW, route_context_overflow.advise),
    Remedy(FaultClass.ROUTE_DEGENERATE_OUTPUT, route_degenerate_output.advise),
    Remedy(FaultClass.ROUTE_EMPTY_COMPLETION, route_empty_completion.advise),
    Remedy(FaultClass.ROUTE_ENGINE_STALLED, route_engine_stalled.advise),
    Remedy(FaultClass.ROUTE_ERRORS_RISING, route_errors_rising.advise),
    Remedy(FaultClass.ROUTE_FAILS_REAL_TRAFFIC, route_fails_real_traffic.advise),
    Remedy(FaultClass.ROUTE_LATENCY_RISING, route_latency_rising.advise),
    Remedy(FaultClass.ROUTE_REASONING_BUDGET_EXHAUSTED, route_reasoning_budget.advise),
    Remedy(FaultClass.ROUTE_ROUTER_COOLDOWN, route_router_cooldown.advise),
    Remedy(FaultClass.ROUTE_SATURATED, route_saturated.advise),
    Remedy(FaultClass.SCOPE_VIOLATION, scope_violation.advise),
    Remedy(FaultClass.SERVICE_CONFIG_DRIFT, config_drift.advise),
    Remedy(FaultClass.STORAGE_FULL, storage_full.advise),
    Remedy(FaultClass.STORAGE_READ_ONLY, storage_read_only.advise),
    Remedy(FaultClass.STORAGE_SLOW_LOAD, slow_load.advise),
    Remedy(FaultClass.TRANSCRIPTION_CPU_FALLBACK, transcription_cpu_fallback.advise),
    Remedy(FaultClass.UI_BLANK_ANSWERS, blank_answers.advise),
    Remedy(FaultClass.UNIT_RESTART_LOOP, restart_loop.advise),
    Remedy(FaultClass.UNKNOWN, unknown_fault.advise),
)

_BY_FAULT_CLASS: Final = {remedy.fault_class: remedy for remedy in REMEDIES}


def advise(incident: Incident) -> Advice:
    """Return what the playbook says about `incident`, with every other way."""
    return with_alternatives(incident, _BY_FAULT_CLASS[incident.fault_class].advise(incident))
