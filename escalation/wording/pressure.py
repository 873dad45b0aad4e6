"""Evidence of what a host or a server waits for, as short facts. What came from a host passes `shown`."""

from __future__ import annotations

from typing import assert_never

from escalation.inert import shown
from escalation.model import (
    DescriptorCall,
    DescriptorEvidence,
    PressureEvidence,
    ProcessEvidence,
    ProcessState,
    Resource,
    RunDelayEvidence,
    ThrottleEvidence,
)
from escalation.wording.quantities import LABEL_LIMIT, counted, duration, process, times


def pressure_fact(evidence: PressureEvidence) -> str:
    """Return how much time tasks lost by waiting."""
    waited = resource_name(evidence.resource)
    shares = [
        f"{who} {share:.3g} %"
        for who, share in (("some tasks", evidence.some_percent), ("all tasks", evidence.full_percent))
        if share is not None
    ]
    parts = [f"waiting for {waited}: {', '.join(shares)} of the time"]
    if not shares:
        parts = [f"how long tasks wait for {waited} is not told by the kernel"]
    if evidence.major_faults:
        parts.append(f"{counted(evidence.major_faults, 'page')} read back from disk")
    if evidence.swapped_pages:
        parts.append(f"{counted(evidence.swapped_pages, 'page')} swapped")
    if evidence.direct_reclaims:
        parts.append(f"processes searched for memory themselves {times(evidence.direct_reclaims)}")
    return f"{', '.join(parts)}, within {duration(evidence.window_s)}"


def throttle_fact(evidence: ThrottleEvidence) -> str:
    """Return how a quota held something back."""
    quota = "" if evidence.quota_cores is None else f" of {evidence.quota_cores:.3g} cores"
    stopped = f"in {evidence.throttled_periods} of {counted(evidence.periods, 'period')}"
    lost = f"for {duration(evidence.throttled_s)} in all, within {duration(evidence.window_s)}"
    return f"its quota{quota} stopped it {stopped}, {lost}"


def run_delay_fact(evidence: RunDelayEvidence) -> str:
    """Return how long a server's threads waited for a CPU, and beside whom."""
    waits = counted(evidence.waits, "wait")
    parts = [f"its threads waited for a CPU for {duration(evidence.waited_s)} in {waits}"]
    if evidence.p99_s is not None:
        usual = "" if evidence.baseline_s is None else f" where {duration(evidence.baseline_s)} is usual"
        parts.append(f"99 of 100 waits took at most {duration(evidence.p99_s)}{usual}")
    parts.append(f"within {duration(evidence.window_s)}")
    if evidence.neighbour:
        who = shown(evidence.neighbour, limit=LABEL_LIMIT)
        parts.append(f"while {who} used {evidence.neighbour_cores:.3g} cores")
    return ", ".join(parts)


def process_fact(evidence: ProcessEvidence) -> str:
    """Return how a process stands still."""
    who = process(evidence.process_name, evidence.pid)
    parts = [f"{who} has been {state_words(evidence.state)} for {duration(evidence.lasted_s)}"]
    if evidence.used_cpu_s is not None:
        used = f"{duration(evidence.used_cpu_s)} of CPU" if evidence.used_cpu_s else "no CPU"
        parts.append(f"used {used} meanwhile")
    if evidence.port:
        limit = f" of at most {evidence.backlog_limit}" if evidence.backlog_limit else ""
        verb = "waits" if evidence.backlog == 1 else "wait"
        parts.append(f"{counted(evidence.backlog, 'connection')}{limit} {verb} at port {evidence.port}")
    return ", ".join(parts)


def descriptor_fact(evidence: DescriptorEvidence) -> str:
    """Return which calls found no descriptor."""
    whose = "the whole host has" if evidence.host_wide else "it has"
    limit = "" if evidence.limit is None else f"; the limit is {evidence.limit}"
    return (
        f"{process(evidence.process_name, evidence.pid)} was refused to {call_words(evidence.call)} "
        f"{times(evidence.failures)}, because {whose} no file descriptor left{limit}"
    )


def resource_name(resource: Resource) -> str:
    """Return what tasks wait for."""
    match resource:
        case Resource.CPU:
            return "the CPU"
        case Resource.MEMORY:
            return "memory"
        case Resource.IO:
            return "disks"
        case Resource.UNKNOWN:
            return "something that this orchestrator does not know"
        case _:
            assert_never(resource)


def state_words(state: ProcessState) -> str:
    """Return the state of a process."""
    match state:
        case ProcessState.RUNNING:
            return "running (R)"
        case ProcessState.SLEEPING:
            return "sleeping (S)"
        case ProcessState.UNINTERRUPTIBLE:
            return "stuck in the kernel (D)"
        case ProcessState.STOPPED:
            return "stopped (T)"
        case ProcessState.ZOMBIE:
            return "dead and not collected (Z)"
        case ProcessState.UNKNOWN:
            return "in an unknown state"
        case _:
            assert_never(state)


def call_words(call: DescriptorCall) -> str:
    """Return what a process wanted a descriptor for."""
    match call:
        case DescriptorCall.OPEN:
            return "open a file"
        case DescriptorCall.ACCEPT:
            return "accept a connection"
        case DescriptorCall.SOCKET:
            return "make a socket"
        case DescriptorCall.UNKNOWN:
            return "do something that this orchestrator does not know"
        case _:
            assert_never(call)
