"""Codes and numbers put into the words that an operator reads at three in the morning.

All prose is in this module and in `evidence_wording.py`: nothing that crosses the wire is a sentence, so
nothing that crosses it can be a lie in good English. Every name of a host that enters a sentence passes
`shown` first. Longer than other modules because it is one table of words per enum, each checked complete by
the type checker.
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
    Reason,
    ReasonCode,
    SensorCoverage,
    Severity,
    State,
)
from escalation.quantities import LABEL_LIMIT, counted, duration, error_name, times


def headline(  # noqa: C901, PLR0912 -- one case per class, checked complete
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
        case FaultClass.UNKNOWN:
            number = "" if fault_number is None else f" (number {fault_number})"
            return f"A fault class that this orchestrator does not know{number}; the agent is newer"
        case _:
            assert_never(fault_class)


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
        case State.NOT_CURED:
            return "not cured: the fault is still there, or came back"
        case _:
            assert_never(state)


def why_not_approvable(kind: ActionKind) -> str | None:
    """Return why an action of this kind can never be approved here, or None when it can be."""
    match kind:
        case ActionKind.HUMAN:
            return "this is work for a person at the machine; it is described here, never approved here"
        case (
            ActionKind.RESTART_UNIT
            | ActionKind.RESTART_CONTAINER
            | ActionKind.REMOVE_ROUTE
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
        case ActionKind.CHANGE_SETTING:
            return "change a setting"
        case ActionKind.INSPECT:
            return "look closer (reads only)"
        case ActionKind.HUMAN:
            return "work for a person"
        case _:
            assert_never(kind)


def sentence(reason: Reason) -> str:  # noqa: C901, PLR0912, PLR0915 -- one case per code, checked complete
    """Return why a case was opened, kept open or cleared, as a sentence."""
    match reason.code:
        case ReasonCode.OPEN_REFUSED_AFTER_SUCCESS:
            text = "Opening the GPU was refused (EPERM) where it had worked before"
        case ReasonCode.OPEN_REFUSED_BY_MODE:
            text = "Opening the GPU was refused by the file's mode or owner (EACCES)"
        case ReasonCode.DEVICE_NODE_MISSING:
            text = "The GPU's device node does not exist there (ENOENT)"
        case ReasonCode.DRIVER_BEHIND_NODE_MISSING:
            text = "The device node exists, but no driver answers behind it (ENXIO)"
        case ReasonCode.OPEN_SUCCEEDS_AGAIN:
            text = "Opening the GPU works again"
        case ReasonCode.CGROUP_GONE:
            text = "The container or unit is gone; nothing is left to recover"
        case ReasonCode.KERNEL_CHOSE_VICTIM:
            text = "The kernel chose the process and killed it; no person did"
        case ReasonCode.CGROUP_COUNTED_KILL:
            text = "The cgroup's own counter agrees that the kernel killed in it"
        case ReasonCode.NO_KILL_SINCE:
            text = "No further kill was seen"
        case ReasonCode.DIED_BY_FAULT_SIGNAL:
            text = "The process died by a signal that only a defect causes"
        case ReasonCode.SUBJECT_RAN_SINCE:
            text = "It has run since without dying again"
        case ReasonCode.LISTENS_ON_ALL_INTERFACES:
            text = "It listens on all interfaces"
        case ReasonCode.LISTENS_OFF_MESH:
            text = "It listens on an address outside the mesh"
        case ReasonCode.HOST_HAS_PUBLIC_ADDRESS:
            text = "The host has a public address"
        case ReasonCode.SOCKET_TABLE_AGREES:
            text = "The host's socket table shows the same listener"
        case ReasonCode.LISTENER_CLOSED:
            text = "The listener is closed"
        case ReasonCode.LISTENER_ALLOWED:
            text = "The listener was put on the allow-list"
        case ReasonCode.SENSOR_BLIND:
            text = "The sensor cannot see"
        case ReasonCode.SENSOR_SEES_AGAIN:
            text = "The sensor sees again"
        case ReasonCode.HOST_SILENT:
            text = "Nothing was heard from the host"
        case ReasonCode.HOST_HEARD_AGAIN:
            text = "The host is heard again"
        case ReasonCode.SECOND_LAYER_UNKNOWN:
            text = "A second, independent sign is missing: treat the cause as likely, not as certain"
        case ReasonCode.ANSWERS_EMPTY:
            text = "Answers had no text, no reasoning and no tool call in them"
        case ReasonCode.USAGE_AGREES:
            text = "The server's own token count agrees"
        case ReasonCode.BUDGET_SPENT_ON_REASONING:
            text = "All tokens were spent on thinking: the answers end for their length with nothing to read"
        case ReasonCode.ANSWER_IN_REASONING_FIELD:
            text = "The answer was finished, but it stands in the reasoning field and the content is empty"
        case ReasonCode.REASONING_MARKS_IN_CONTENT:
            text = "Marks of thinking (<think>, <|channel|>) stand in the answer: no parser took them out"
        case ReasonCode.STREAMS_CUT:
            text = "The server closed the connection in the middle of its answer"
        case ReasonCode.STREAMS_WITHOUT_END:
            text = "Streams ended without saying that they were done"
        case ReasonCode.ERRORS_IN_ANSWERS:
            text = "Answers with status 200 had an error in them"
        case ReasonCode.TEXT_REPEATS:
            text = "The text repeats itself far more than language does"
        case ReasonCode.TEXT_IS_ONE_CHARACTER:
            text = "The text is one character over and over"
        case ReasonCode.TEXT_IS_BLANK:
            text = "The text is blank: spaces and line breaks only"
        case ReasonCode.TEXT_UNDECODABLE:
            text = "The text is full of characters that could not be decoded"
        case ReasonCode.PROMPTS_TOO_LONG:
            text = "The server refused prompts as too long for its context"
        case ReasonCode.PROMPTS_CUT_SILENTLY:
            text = "The server read far fewer tokens than were sent: it cuts prompts without saying so"
        case ReasonCode.NO_BYTES_WHILE_IN_FLIGHT:
            text = "Requests are under way and not one byte comes back, for longer than their size explains"
        case ReasonCode.DEPLOYMENTS_COOLING:
            text = "The router answered that every deployment of the model is cooling down"
        case ReasonCode.REFUSED_AS_BUSY:
            text = "The server refused requests because it is busy"
        case ReasonCode.REQUESTS_QUEUE:
            text = "Requests wait longer and longer for their first byte"
        case ReasonCode.ERRORS_ABOVE_BASELINE:
            text = "More requests fail than is usual on this route"
        case ReasonCode.FIRST_TOKEN_ABOVE_BASELINE:
            text = "The first token takes longer than is usual on this route"
        case ReasonCode.PACE_BELOW_BASELINE:
            text = "Tokens come more slowly than is usual on this route"
        case ReasonCode.LARGE_PROMPTS_FAIL:
            text = "Requests with large prompts failed"
        case ReasonCode.SMALL_PROMPTS_SUCCEED:
            text = "Requests with small prompts succeeded at the same time"
        case ReasonCode.TWO_HOSTS_AGREE:
            text = "Two or more hosts saw the same model stall at the same time"
        case ReasonCode.BOTH_STREAMED_AND_WHOLE:
            text = "Both streamed and whole answers were affected"
        case ReasonCode.ANSWERS_GOOD_AGAIN:
            text = "Answers are good again"
        case ReasonCode.ENGINE_ANSWERS_AGAIN:
            text = "The engine answers again"
        case ReasonCode.BACK_AT_BASELINE:
            text = "It is back at what is usual on this route"
        case ReasonCode.ROUTE_UNUSED:
            text = "Its name is refused as unknown now: the route is not served any more"
        case ReasonCode.MANAGER_RELOADED_BEFORE:
            text = "The service manager read its units again shortly before, which rewrites lists of devices"
        case ReasonCode.HOST_SLEPT_BEFORE:
            text = "The host had slept shortly before"
        case ReasonCode.MEMORY_BELOW_FLOOR:
            text = "Less memory can be had than the floor, and it stays so"
        case ReasonCode.MEMORY_FALLS:
            text = "Memory runs out at the present rate"
        case ReasonCode.TASKS_STALL_FOR_MEMORY:
            text = "All tasks stall together for want of memory"
        case ReasonCode.ALLOCATIONS_STALL:
            text = "Processes had to make room themselves before they got memory"
        case ReasonCode.MEMORY_AVAILABLE_AGAIN:
            text = "Memory can be had again, and nothing stalls for it"
        case ReasonCode.FREE_MEMORY_IS_CACHE:
            text = "Hardly any memory is free, but most of it is cached files that the kernel would give up"
        case ReasonCode.SERVER_STARTS_REPEATEDLY:
            text = "The model server started again and again"
        case ReasonCode.SERVER_STAYS_UP:
            text = "The model server has stayed up"
        case ReasonCode.CPU_BURNS_DURING_REQUESTS:
            text = "The server's processes kept many cores busy while it answered"
        case ReasonCode.NOT_LISTED_ON_GPU:
            text = "The driver lists none of the server's processes on a GPU"
        case ReasonCode.DEVICE_OPENS_FAIL:
            text = "The server's processes could not open the GPU"
        case ReasonCode.LISTED_ON_GPU_AGAIN:
            text = "The driver lists the server's processes on a GPU again, and the CPU is quiet"
        case ReasonCode.CLOCKS_LOW_UNDER_LOAD:
            text = "The GPU is busy at a fraction of the clock that is usual for it under load"
        case ReasonCode.POWER_LOW_UNDER_LOAD:
            text = "It draws a fraction of the power that is usual for it under load"
        case ReasonCode.NO_THROTTLE_REASON:
            text = "The driver gives no reason for it"
        case ReasonCode.CLOCKS_USUAL_AGAIN:
            text = "The clock under load is what is usual again"
        case ReasonCode.XID_REPORTED:
            text = "The driver reported the error"
        case ReasonCode.XID_FROM_SEVERAL_PROCESSES:
            text = "Several different programs met the same error: suspect the hardware"
        case ReasonCode.NO_XID_SINCE:
            text = "No further error was reported"
        case ReasonCode.GPU_IS_LOST:
            text = "The driver has lost the GPU: it no longer answers on the bus"
        case ReasonCode.GPU_NEEDS_RESET:
            text = "The driver says that the GPU has to be reset"
        case ReasonCode.RECOVERY_IS_ADVISED:
            text = "The driver advises a step of recovery"
        case ReasonCode.GPU_ANSWERS_AGAIN:
            text = "The GPU answers again, and the driver advises nothing"
        case ReasonCode.LIBRARY_DIFFERS_FROM_MODULE:
            text = "The library refuses to work: the loaded kernel module is of another version"
        case ReasonCode.DRIVER_ANSWERS_AGAIN:
            text = "Library and kernel module work together again"
        case ReasonCode.INSTALLED_LIBRARY_DIFFERS:
            text = "The installed library is of another version than the loaded module: what starts now fails"
        case ReasonCode.AUDIO_BELOW_BASELINE:
            text = "Transcription takes several times as long as is usual for audio of that size"
        case ReasonCode.PLACEMENT_DECLARED:
            text = "The operator declared that it belongs where it runs"
        case ReasonCode.UNKNOWN:
            text = "A reason that this orchestrator does not know; the agent is newer"
        case _:
            assert_never(reason.code)
    return f"{text}{_numbers(reason)}."


def _numbers(reason: Reason) -> str:
    if reason.code is ReasonCode.USAGE_AGREES and reason.count:
        return f" ({counted(reason.count, 'token')})"
    if reason.code is ReasonCode.NO_BYTES_WHILE_IN_FLIGHT and reason.window_s:
        silence = f"{duration(reason.window_s)} of silence where {duration(reason.threshold)} are allowed"
        return f" ({counted(reason.count, 'request')}, {silence})"
    parts = []
    if reason.count:
        parts.append(times(reason.count))
    if reason.window_s:
        parts.append(f"within {duration(reason.window_s)}")
    if reason.threshold:
        parts.append(f"threshold {reason.threshold:g}")
    return f" ({', '.join(parts)})" if parts else ""


def blindness(reason: BlindReason) -> str:  # noqa: C901, PLR0912 -- one case per reason, checked complete
    """Return why something cannot be seen."""
    match reason:
        case BlindReason.DISABLED:
            return "switched off in the configuration"
        case BlindReason.NOT_HANDED_OVER:
            return "the loader has not handed it over (is nanobot-probes.service started?)"
        case BlindReason.NO_PRIVILEGE:
            return "the loader lacks the privilege"
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
            return "a call to the NVIDIA driver does not come back"
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
