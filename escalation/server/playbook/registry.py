"""Which remedy answers which fault class: one explicit tuple, sorted, one line each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from escalation.model import Advice, FaultClass, Incident
from escalation.server.playbook import (
    access_revoked,
    application_xid,
    clocks_capped,
    cpu_fallback,
    device_fault,
    driver_mismatch,
    killed_by_signal,
    monitor_blind,
    never_granted,
    off_mesh_listener,
    oom_kill,
    page_cache_refusal,
    rank_stall,
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
    transcription_cpu_fallback,
    unified_exhaustion,
    unknown_fault,
    uvm_lost,
)


@dataclass(frozen=True, slots=True)
class Remedy:
    """What is advised when an incident of `fault_class` is open; `advise` is pure and total."""

    fault_class: FaultClass
    advise: Callable[[Incident], Advice]


REMEDIES: Final[tuple[Remedy, ...]] = (
    Remedy(FaultClass.DISTRIBUTED_RANK_STALL, rank_stall.advise),
    Remedy(FaultClass.EXPOSURE_OFF_MESH_LISTENER, off_mesh_listener.advise),
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
    Remedy(FaultClass.MEMORY_UNIFIED_EXHAUSTION, unified_exhaustion.advise),
    Remedy(FaultClass.MONITOR_BLIND, monitor_blind.advise),
    Remedy(FaultClass.PROCESS_KILLED_BY_SIGNAL, killed_by_signal.advise),
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
    Remedy(FaultClass.TRANSCRIPTION_CPU_FALLBACK, transcription_cpu_fallback.advise),
    Remedy(FaultClass.UNKNOWN, unknown_fault.advise),
)

_BY_FAULT_CLASS: Final = {remedy.fault_class: remedy for remedy in REMEDIES}
_UNKNOWN: Final = _BY_FAULT_CLASS[FaultClass.UNKNOWN]


def advise(incident: Incident) -> Advice:
    """Return what the playbook says about `incident`."""
    return _BY_FAULT_CLASS.get(incident.fault_class, _UNKNOWN).advise(incident)
