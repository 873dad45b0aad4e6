"""Codes and numbers put into the words that an operator reads at three in the morning.

One place for all prose: nothing that crosses the wire is a sentence, so nothing that crosses it can be a
lie in good English. Every name of a host that enters a sentence passes `shown` first. Longer than other
modules because it is one table of words per enum, each checked complete by the type checker.
"""

from __future__ import annotations

import errno
from typing import Final, assert_never

from escalation.inert import shown
from escalation.model import (
    ActionKind,
    BlindEvidence,
    BlindReason,
    Device,
    DeviceOpenEvidence,
    Evidence,
    FaultClass,
    ListenerEvidence,
    Loss,
    LossKind,
    OomEvidence,
    OomScope,
    Reach,
    Reason,
    ReasonCode,
    SensorCoverage,
    Severity,
    SignalEvidence,
    State,
    UnknownEvidence,
)

LABEL_LIMIT: Final = 120
"""Characters of a host's name that a sentence or a table shows; an action is never cut."""

_LONGEST_S: Final = 1e11
"""Three thousand years: what is longer came from no clock."""

# Numbers are Linux's (signal(7), errno(3)), whatever the orchestrator runs on: they come from a watched host.
_SIGNALS: Final = {
    1: "SIGHUP",
    2: "SIGINT",
    3: "SIGQUIT",
    4: "SIGILL (illegal instruction)",
    5: "SIGTRAP (breakpoint)",
    6: "SIGABRT (the process gave up)",
    7: "SIGBUS (bus error)",
    8: "SIGFPE (arithmetic error)",
    9: "SIGKILL",
    11: "SIGSEGV (bad memory access)",
    13: "SIGPIPE",
    15: "SIGTERM",
    24: "SIGXCPU",
    25: "SIGXFSZ",
    31: "SIGSYS (forbidden system call)",
}
_ERRNOS: Final = {number: name for number, name in errno.errorcode.items() if number < 35} | {
    11: "EAGAIN",
    36: "ENAMETOOLONG",
    38: "ENOSYS",
    40: "ELOOP",
    95: "EOPNOTSUPP",
    110: "ETIMEDOUT",
}


def headline(fault_class: FaultClass, fault_number: int | None = None) -> str:
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
            return "withdrawn: the fault cleared, or the facts changed, before anybody decided"
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
        case ActionKind.CHANGE_SETTING:
            return "change a setting"
        case ActionKind.INSPECT:
            return "look closer (reads only)"
        case ActionKind.HUMAN:
            return "work for a person"
        case _:
            assert_never(kind)


def sentence(reason: Reason) -> str:  # noqa: C901, PLR0912 -- one case per code, checked complete by the type checker
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
        case ReasonCode.UNKNOWN:
            text = "A reason that this orchestrator does not know; the agent is newer"
        case _:
            assert_never(reason.code)
    return f"{text}{_numbers(reason)}."


def _numbers(reason: Reason) -> str:
    parts = []
    if reason.count:
        parts.append(times(reason.count))
    if reason.window_s:
        parts.append(f"within {duration(reason.window_s)}")
    if reason.threshold:
        parts.append(f"threshold {reason.threshold:g}")
    return f" ({', '.join(parts)})" if parts else ""


def fact(evidence: Evidence) -> str:
    """Return one piece of evidence as a short fact."""
    match evidence:
        case DeviceOpenEvidence():
            numbered = evidence.device is Device.GPU and evidence.minor is not None
            node = f"{device_name(evidence.device)}{evidence.minor if numbered else ''}"
            return (
                f"{process(evidence.process_name, evidence.pid)} was refused {node}: "
                f"{error_name(evidence.errno)}, {times(evidence.failures)}; "
                f"{times(evidence.prior_successes) if evidence.prior_successes else 'never'} opened before"
            )
        case OomEvidence():
            return _oom_fact(evidence)
        case SignalEvidence():
            origin = "raised by the kernel" if evidence.code > 0 else "sent by a process"
            who = process(evidence.process_name, evidence.pid)
            return f"{who} died by {signal_name(evidence.signal)}, {origin}"
        case ListenerEvidence():
            return _listener_fact(evidence)
        case BlindEvidence():
            since = f" for {duration(evidence.silent_s)}" if evidence.silent_s else ""
            sensor = shown(evidence.sensor, limit=LABEL_LIMIT)
            return f"{sensor} sees nothing{since}: {blindness(evidence.reason)}"
        case UnknownEvidence():
            return f"evidence of a kind that this orchestrator does not know ({evidence.size_bytes} bytes)"
        case _:
            assert_never(evidence)


def _oom_fact(evidence: OomEvidence) -> str:
    match evidence.scope:
        case OomScope.CGROUP:
            whose = "its memory limit was reached"
        case OomScope.HOST:
            whose = "the whole host was out of memory"
        case OomScope.UNKNOWN:
            whose = "whether its limit or the host's memory was reached is unknown"
        case _:
            assert_never(evidence.scope)
    parts = [f"{process(evidence.process_name, evidence.pid)} was killed: {whose}"]
    if evidence.anon_rss_bytes is not None:
        parts.append(f"it held {size(evidence.anon_rss_bytes)}")
    if evidence.limit_bytes is not None:
        parts.append(f"limit {size(evidence.limit_bytes)}")
    if evidence.kills_in_cgroup is not None:
        parts.append(f"{evidence.kills_in_cgroup} kills counted by the cgroup")
    else:
        parts.append("the cgroup's counter could not be read")
    return ", ".join(parts)


def _listener_fact(evidence: ListenerEvidence) -> str:
    address = shown(evidence.address, limit=LABEL_LIMIT)
    address = f"[{address}]" if ":" in address else address
    if evidence.confirmed is None:
        witness = "the socket table could not be read"
    elif evidence.confirmed:
        witness = "the socket table agrees"
    else:
        witness = "the socket table no longer shows it"
    who = process(evidence.process_name, None)
    return f"{who} listens on {address}:{evidence.port}, {reach_words(evidence.reach)}; {witness}"


def blindness(reason: BlindReason) -> str:
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


def device_name(device: Device) -> str:
    """Return the path of a device node; a GPU's number is appended by the caller."""
    match device:
        case Device.CONTROL | Device.GPU | Device.UVM | Device.UVM_TOOLS | Device.MODESET:
            return f"/dev/{device.value}"
        case Device.OTHER:
            return "another NVIDIA device"
        case Device.UNKNOWN:
            return "a device that this orchestrator does not know"
        case _:
            assert_never(device)


def reach_words(reach: Reach) -> str:
    """Return from where a listener can be reached."""
    match reach:
        case Reach.ALL_INTERFACES:
            return "which is every interface of the host"
        case Reach.PUBLIC:
            return "a public address"
        case Reach.PRIVATE_NETWORK:
            return "a private network outside the mesh"
        case Reach.UNKNOWN:
            return "whose reach is unknown"
        case _:
            assert_never(reach)


def process(name: str, pid: int | None) -> str:
    """Return a process's name, made inert, with its pid where it is known."""
    label = shown(name, limit=LABEL_LIMIT) or "a process without a name"
    return label if pid is None else f"{label} (pid {pid})"


def error_name(number: int) -> str:
    """Return an errno's name."""
    return _ERRNOS.get(number, f"errno {number}")


def signal_name(number: int) -> str:
    """Return a signal's name, and what it means where it names a defect."""
    return _SIGNALS.get(number, f"signal {number}")


def times(count: int) -> str:
    """Return a count as a number of times."""
    return "once" if count == 1 else f"{count} times"


def duration(seconds: float) -> str:
    """Return a duration in its two largest units; what is no duration is said to be unknown."""
    if not 0 <= seconds < _LONGEST_S:
        return "an unknown time"
    whole = round(seconds)
    if whole < 1:
        return f"{seconds * 1000:.0f} ms"
    parts = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        if whole >= length:
            parts.append(f"{whole // length} {unit}")
            whole %= length
    return " ".join(parts[:2])


def size(count_bytes: int) -> str:
    """Return a size in binary units."""
    unit, bits = "bytes", 0
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if count_bytes < 1024 << bits:
            break
        unit, bits = larger, bits + 10
    if not bits:
        return f"{count_bytes} bytes"
    tenths = (count_bytes * 10) >> bits
    return f"{tenths // 10}.{tenths % 10} {unit}"
