"""Codes and numbers put into the words that an operator reads at three in the morning.

All prose is in this package: nothing that crosses the wire is a sentence, so nothing that crosses it can be
a lie in good English. Every name of a host that enters a sentence passes `shown` first. One table of words
per enum, each checked complete by the type checker.
"""

from __future__ import annotations

from typing import assert_never

from escalation.inert import shown
from escalation.model import (
    ActionKind,
    BlindReason,
    FaultClass,
    Loss,
    LossKind,
    SensorCoverage,
    Severity,
    State,
)
from escalation.wording.quantities import LABEL_LIMIT, error_name


def headline(  # noqa: C901, PLR0912, PLR0915 -- one case per class, checked complete
    fault_class: FaultClass, fault_number: int | None = None
) -> str:
    """Return what a fault class means, as a headline."""
    match fault_class:
        case FaultClass.GPU_ACCESS_REVOKED:
            return "GPU access was taken away from something that had it"
        case FaultClass.GPU_NEVER_GRANTED:
            return "Something that wants a GPU was never given one"
        case FaultClass.GPU_UVM_LOST:
            return "The GPU's memory driver (nvidia_uvm) is gone"
        case FaultClass.MEMORY_CGROUP_OOM_KILL:
            return "The kernel killed a process: its memory limit was reached"
        case FaultClass.PROCESS_KILLED_BY_SIGNAL:
            return "A process crashed"
        case FaultClass.EXPOSURE_OFF_MESH_LISTENER:
            return "A service listens outside the mesh"
        case FaultClass.MONITOR_BLIND:
            return "Monitoring is blind here"
        case FaultClass.ROUTE_EMPTY_COMPLETION:
            return "A model route answers 200 with nothing in it"
        case FaultClass.ROUTE_REASONING_BUDGET_EXHAUSTED:
            return "Thinking uses up the tokens, and no answer is left"
        case FaultClass.ROUTE_ANSWER_MISROUTED:
            return "The answer arrives in the wrong field"
        case FaultClass.ROUTE_BROKEN_STREAM:
            return "Answers of a model route break off under a status 200"
        case FaultClass.ROUTE_DEGENERATE_OUTPUT:
            return "A model route answers with loops or garbage"
        case FaultClass.ROUTE_CONTEXT_OVERFLOW:
            return "Prompts do not fit into the context of the model"
        case FaultClass.ROUTE_ENGINE_STALLED:
            return "A model server has requests and sends nothing"
        case FaultClass.ROUTE_ROUTER_COOLDOWN:
            return "The router has no deployment left for a model"
        case FaultClass.ROUTE_SATURATED:
            return "A model route has more requests than it can take"
        case FaultClass.ROUTE_FAILS_REAL_TRAFFIC:
            return "A model route answers small prompts and fails large ones"
        case FaultClass.ROUTE_ERRORS_RISING:
            return "A model route fails more often than is usual for it"
        case FaultClass.ROUTE_LATENCY_RISING:
            return "A model route is slower than is usual for it"
        case FaultClass.DISTRIBUTED_RANK_STALL:
            return "A model that runs over two hosts has stalled on both"
        case FaultClass.MEMORY_UNIFIED_EXHAUSTION:
            return "The host runs out of memory, and may freeze"
        case FaultClass.MEMORY_PAGE_CACHE_REFUSAL:
            return "A model server refuses to start: cached files count as used memory"
        case FaultClass.GPU_CPU_FALLBACK:
            return "A model that belongs on the GPU runs on the CPU"
        case FaultClass.TRANSCRIPTION_CPU_FALLBACK:
            return "Transcription that belongs on the GPU runs on the CPU"
        case FaultClass.GPU_CLOCKS_CAPPED:
            return "A GPU works at a fraction of its usual clock"
        case FaultClass.GPU_APPLICATION_XID:
            return "A program made the GPU report an error (Xid)"
        case FaultClass.GPU_DEVICE_FAULT:
            return "A GPU is at fault or lost"
        case FaultClass.GPU_DRIVER_MISMATCH:
            return "The GPU driver's library and its kernel module are of two versions"
        case FaultClass.MEMORY_THRASHING:
            return "Work stands still while the kernel searches for memory"
        case FaultClass.CPU_QUOTA_THROTTLED:
            return "A service is held back by its own CPU quota"
        case FaultClass.CPU_CONTENTION:
            return "A model server waits for the CPU while a neighbour uses it"
        case FaultClass.PROCESS_UNINTERRUPTIBLE:
            return "A process hangs inside the kernel and cannot be killed"
        case FaultClass.PROCESS_FD_EXHAUSTED:
            return "A process has no file descriptor left"
        case FaultClass.PROCESS_NOT_ANSWERING:
            return "A service accepts connections at its port and does not answer"
        case FaultClass.STORAGE_FULL:
            return "A filesystem is full, or out of inodes"
        case FaultClass.STORAGE_READ_ONLY:
            return "A filesystem cannot be written, or is gone"
        case FaultClass.STORAGE_SLOW_LOAD:
            return "A model loads far more slowly than its disk usually allows"
        case FaultClass.NETWORK_RETRANSMISSION:
            return "Packets to a peer are lost"
        case FaultClass.NETWORK_UPSTREAM_UNREACHABLE:
            return "A server that others depend on cannot be reached"
        case FaultClass.NETWORK_RDMA_FAULT:
            return "The link between the nodes of a cluster is at fault"
        case FaultClass.DISTRIBUTED_WORKER_LOST:
            return "A node of a cluster has lost its worker"
        case FaultClass.MESH_DEGRADED:
            return "The mesh network is down or degraded on this host"
        case FaultClass.EXPOSURE_OPEN_CONTROL_PLANE:
            return "A service that can command this host is open outside the mesh"
        case FaultClass.UNIT_RESTART_LOOP:
            return "A service starts and ends again and again"
        case FaultClass.SERVICE_CONFIG_DRIFT:
            return "A model server came back with other settings than before"
        case FaultClass.CONTAINER_SHM_TOO_SMALL:
            return "A container's shared memory is too small for what runs in it"
        case FaultClass.DATABASE_CONNECTIONS_EXHAUSTED:
            return "The database has no connection left"
        case FaultClass.UI_BLANK_ANSWERS:
            return "The web interface shows nothing although the model answers"
        case FaultClass.SCOPE_VIOLATION:
            return "Something does what its declared scope does not allow"
        case FaultClass.UNKNOWN:
            number = "" if fault_number is None else f" (number {fault_number})"
            return f"A fault class that this orchestrator does not know{number}; the agent is newer"
        case _:
            assert_never(fault_class)


def marked(words: str, *, drill: bool) -> str:
    """Return `words` with the mark of a drill in front of them, where they are about one."""
    return f"DRILL {words}" if drill else words


def severity_symbol(severity: Severity) -> str:
    """Return one character that tells severities apart without colour."""
    match severity:
        case Severity.CRITICAL:
            return "‼"
        case Severity.HIGH:
            return "▲"
        case Severity.MEDIUM:
            return "◆"
        case Severity.NOTE:
            return "●"
        case Severity.UNKNOWN:
            return "?"
        case _:
            assert_never(severity)


def state_sentence(state: State, *, approvers: int = 0) -> str:
    """Return what a state asks of the person who reads it; `approvers` have approved so far."""
    match state:
        case State.PROPOSED:
            return "one person approved, a second has to" if approvers else "waits for a decision"
        case State.APPROVED:
            return "approved: carry out the command, then mark it done"
        case State.REJECTED:
            return "rejected: nothing will be done"
        case State.EXPIRED:
            return "expired: nobody decided in time"
        case State.WITHDRAWN:
            return "withdrawn: the fault cleared, or another incident explains it, before anybody decided"
        case State.DONE:
            return "carried out: recovery is being verified"
        case State.LAPSED:
            return "lapsed: approved, but not carried out in time"
        case State.VERIFIED:
            return "verified: the fault cleared and stayed away"
        case State.SHADOW:
            return "in shadow: the rule that found it is on trial, and nothing is proposed or told"
        case State.NOT_CURED:
            return "not cured: the fault is still there, came back, or ended with what had it"
        case _:
            assert_never(state)


def why_not_approvable(kind: ActionKind, *, drill: bool = False) -> str | None:
    """Return why an action of this kind can never be approved here, or None when it can be."""
    if drill:
        return "this is a drill: nothing is broken, so there is nothing to carry out"
    match kind:
        case ActionKind.HUMAN:
            return "this is work for a person at the machine; it is described here, never approved here"
        case (
            ActionKind.RESTART_UNIT
            | ActionKind.RESTART_CONTAINER
            | ActionKind.REMOVE_ROUTE
            | ActionKind.RECREATE_CONTAINER
            | ActionKind.RESUME_PROCESS
            | ActionKind.FREE_SPACE
            | ActionKind.CHANGE_SETTING
            | ActionKind.INSPECT
        ):
            return None
        case _:
            assert_never(kind)


def action_headline(kind: ActionKind) -> str:
    """Return what kind of step is recommended."""
    match kind:
        case ActionKind.RESTART_UNIT:
            return "restart the unit"
        case ActionKind.RESTART_CONTAINER:
            return "restart the container"
        case ActionKind.REMOVE_ROUTE:
            return "take the route out"
        case ActionKind.RECREATE_CONTAINER:
            return "make the container anew"
        case ActionKind.RESUME_PROCESS:
            return "let the stopped process run on"
        case ActionKind.FREE_SPACE:
            return "free space"
        case ActionKind.CHANGE_SETTING:
            return "change a setting"
        case ActionKind.INSPECT:
            return "look closer (reads only)"
        case ActionKind.HUMAN:
            return "work for a person"
        case _:
            assert_never(kind)


def blindness(reason: BlindReason) -> str:  # noqa: C901, PLR0912 -- one case per reason, checked complete
    """Return why something cannot be seen."""
    match reason:
        case BlindReason.DISABLED:
            return "switched off in the configuration"
        case BlindReason.NOT_HANDED_OVER:
            return "the loader has not handed it over (is nanobot-probes.service started?)"
        case BlindReason.NO_PRIVILEGE:
            return "the right to see it is missing"
        case BlindReason.NO_KERNEL_SUPPORT:
            return "the kernel does not offer it"
        case BlindReason.NO_HEADERS:
            return "no kernel headers are installed (Debian: linux-headers-amd64 or -arm64)"
        case BlindReason.NO_LIBRARY:
            return "a library is missing on the host"
        case BlindReason.ATTACH_FAILED:
            return "the kernel refused the program"
        case BlindReason.READ_FAILED:
            return "reading it failed"
        case BlindReason.UNSUPPORTED_PLATFORM:
            return "not available on this operating system"
        case BlindReason.HOST_SILENT:
            return "the host is silent: no heartbeat arrives"
        case BlindReason.NO_NVML:
            return "NVIDIA's management library or its Python binding is missing on the host"
        case BlindReason.NO_DRIVER:
            return "the NVIDIA driver is not loaded"
        case BlindReason.NO_DEVICE_ACCESS:
            return "the agent may not open the NVIDIA devices"
        case BlindReason.VERSION_MISMATCH:
            return "NVIDIA's library and the loaded driver are of different versions"
        case BlindReason.NOT_ANSWERING:
            return "what it asks does not answer: a call does not come back"
        case BlindReason.UNKNOWN:
            return "for a reason that this orchestrator does not know; the agent is newer"
        case _:
            assert_never(reason)


def coverage_words(coverage: SensorCoverage) -> str:
    """Return whether a sensor sees, and if not, why."""
    if coverage.blind is None:
        return "sees"
    return blindness(coverage.blind) + (f" ({error_name(coverage.error)})" if coverage.error else "")


def loss_words(loss: Loss) -> str:
    """Return what was lost on the way from a host, and where."""
    match loss.kind:
        case LossKind.RING_FULL:
            where = "events: the kernel's ring buffer was full"
        case LossKind.PIPELINE_FULL:
            where = "observations: the agent's queue was full"
        case LossKind.SPOOL_QUARANTINED:
            where = "reports: the spool was damaged and set aside"
        case LossKind.SPOOL_FULL:
            where = "reports: the spool was full"
        case LossKind.SPOOL_UNWRITABLE:
            where = "reports: the spool could not be written"
        case LossKind.REPORT_REFUSED:
            where = "reports: the orchestrator refused them"
        case LossKind.UNKNOWN:
            where = "things, at a place that this orchestrator does not know"
        case _:
            assert_never(loss.kind)
    sensor = f" ({shown(loss.sensor, limit=LABEL_LIMIT)})" if loss.sensor else ""
    return f"{'' if loss.exact else 'at least '}{loss.count} {where}{sensor}"
