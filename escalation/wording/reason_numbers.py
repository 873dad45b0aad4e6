"""What the numbers of a reason mean: that goes by its code, and the table says it for those unlike most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from escalation.model import Reason, ReasonCode
from escalation.wording.quantities import counted, duration, times


@dataclass(frozen=True, slots=True)
class _Numbers:
    """What the numbers of a code mean: what is counted, in what the threshold is measured, how time is told.

    With no `thing` a single count is not worth telling: the code names a state. The unit `share` is told in
    hundredths.
    """

    thing: str = "time"
    unit: str = ""
    window: str = "within"


_NUMBERS: Final[Mapping[ReasonCode, _Numbers]] = {
    ReasonCode.CGROUP_GONE: _Numbers(thing="", unit="s", window="for"),
    ReasonCode.NO_KILL_SINCE: _Numbers(unit="s", window="for"),
    ReasonCode.SUBJECT_RAN_SINCE: _Numbers(unit="s", window="for"),
    ReasonCode.HOST_HAS_PUBLIC_ADDRESS: _Numbers(thing=""),
    ReasonCode.SOCKET_TABLE_AGREES: _Numbers(thing=""),
    ReasonCode.LISTENER_CLOSED: _Numbers(thing=""),
    ReasonCode.LISTENER_ALLOWED: _Numbers(thing=""),
    ReasonCode.USAGE_AGREES: _Numbers(thing="token"),
    ReasonCode.MEMORY_BELOW_FLOOR: _Numbers(unit="GiB", window="for"),
    ReasonCode.TASKS_STALL_FOR_MEMORY: _Numbers(unit="%"),
    ReasonCode.SERVER_STAYS_UP: _Numbers(window="for"),
    ReasonCode.NO_XID_SINCE: _Numbers(unit="s", window="for"),
    ReasonCode.PAGES_SWAP: _Numbers(thing="page"),
    ReasonCode.MEMORY_STALLS_ENDED: _Numbers(unit="%"),
    ReasonCode.QUOTA_THROTTLES: _Numbers(thing="period", unit="share"),
    ReasonCode.THROTTLING_ENDED: _Numbers(thing="period", unit="share"),
    ReasonCode.TASKS_WAIT_FOR_CPU: _Numbers(unit="%"),
    ReasonCode.SERVER_THREADS_WAIT: _Numbers(thing="wait", unit="s"),
    ReasonCode.NEIGHBOUR_GROWS: _Numbers(unit="cores"),
    ReasonCode.CPU_FREE_AGAIN: _Numbers(unit="%"),
    ReasonCode.STUCK_IN_KERNEL: _Numbers(thing="", unit="s", window="for"),
    ReasonCode.NO_CPU_PROGRESS: _Numbers(window="for"),
    ReasonCode.TASKS_STALL_FOR_IO: _Numbers(unit="%"),
    ReasonCode.PROCESS_RUNS_AGAIN: _Numbers(window="for"),
    ReasonCode.PROCESS_GONE: _Numbers(thing="", window="for"),
    ReasonCode.DESCRIPTORS_REFUSED: _Numbers(thing="call"),
    ReasonCode.DESCRIPTOR_LIMIT_REACHED: _Numbers(thing="descriptor"),
    ReasonCode.BACKLOG_NOT_TAKEN: _Numbers(thing="connection"),
    ReasonCode.PROCESS_STOPPED: _Numbers(thing="", window="for"),
    ReasonCode.SPACE_LOW: _Numbers(unit="%", window="for"),
    ReasonCode.INODES_LOW: _Numbers(unit="%", window="for"),
    ReasonCode.WRITES_REFUSED: _Numbers(thing="write"),
    ReasonCode.SPACE_FALLS: _Numbers(unit="s", window="in"),
    ReasonCode.MOUNT_READ_ONLY: _Numbers(thing=""),
    ReasonCode.MOUNT_MISSING: _Numbers(thing="", window="for"),
    ReasonCode.MOUNT_SILENT: _Numbers(thing="", window="for"),
    ReasonCode.NOT_SEEN_SINCE: _Numbers(thing="", unit="s", window="for"),
    ReasonCode.NOT_WATCHED: _Numbers(thing=""),
    ReasonCode.FILESYSTEM_ERRORS: _Numbers(thing="error"),
    ReasonCode.BLOCK_ERRORS: _Numbers(thing="failed request"),
    ReasonCode.READS_SLOW: _Numbers(thing="read", unit="usual"),
    ReasonCode.LOADING_FOR_LONG: _Numbers(unit="s", window="for"),
    ReasonCode.SERVER_LISTENS: _Numbers(thing=""),
    ReasonCode.SEGMENTS_RETRANSMITTED: _Numbers(thing="segment", unit="%"),
    ReasonCode.PEER_IS_RELAYED: _Numbers(thing=""),
    ReasonCode.CONNECTS_REFUSED: _Numbers(thing="attempt"),
    ReasonCode.CONNECTS_UNREACHABLE: _Numbers(thing="attempt"),
    ReasonCode.CONNECTS_TIME_OUT: _Numbers(thing="attempt"),
    ReasonCode.CONNECTIONS_RESET: _Numbers(thing="connection"),
    ReasonCode.SERVER_IS_LOADING: _Numbers(thing=""),
    ReasonCode.RDMA_COUNTERS_RISE: _Numbers(thing="error"),
    ReasonCode.COLLECTIVE_FAILED: _Numbers(thing="line"),
    ReasonCode.LINK_STEADY_AGAIN: _Numbers(unit="s", window="for"),
    ReasonCode.NODE_MARKED_DEAD: _Numbers(thing="line"),
    ReasonCode.WORKER_PROCESS_ENDED: _Numbers(thing=""),
    ReasonCode.WORKER_BACK: _Numbers(thing="", window="for"),
    ReasonCode.BROADCAST_BLOCKED: _Numbers(thing="line"),
    ReasonCode.TOKEN_COUNTERS_FLAT: _Numbers(thing="request"),
    ReasonCode.MESH_NOT_RUNNING: _Numbers(thing="", unit="s", window="for"),
    ReasonCode.MESH_OFFLINE: _Numbers(thing="", unit="s", window="for"),
    ReasonCode.KEY_EXPIRED: _Numbers(thing=""),
    ReasonCode.KEY_EXPIRES_SOON: _Numbers(thing="", unit="s", window="in"),
    ReasonCode.HEALTH_WARNINGS: _Numbers(thing="warning", unit="s", window="for"),
    ReasonCode.PEERS_RELAYED: _Numbers(thing="peer", unit="s", window="for"),
    ReasonCode.MESH_WELL_AGAIN: _Numbers(thing="active peer"),
    ReasonCode.CONTROL_PLANE_REACHABLE: _Numbers(thing="", window="for"),
    ReasonCode.PEER_OFF_MESH: _Numbers(thing="peer"),
    ReasonCode.CONTROL_PLANE_CLOSED: _Numbers(thing=""),
    ReasonCode.PUBLISHED_BY_PROXY: _Numbers(thing=""),
    ReasonCode.NOT_EXPECTED_HERE: _Numbers(thing=""),
    ReasonCode.FIREWALL_NOT_SEEN: _Numbers(thing=""),
    ReasonCode.LIVES_ARE_SHORT: _Numbers(thing="start", unit="s"),
    ReasonCode.START_LIMIT_HIT: _Numbers(thing=""),
    ReasonCode.UNIT_STAYS_UP: _Numbers(thing="", unit="s", window="for"),
    ReasonCode.COMMAND_LINE_CHANGED: _Numbers(thing="", window="after"),
    ReasonCode.MODEL_CHANGED: _Numbers(thing="", window="after"),
    ReasonCode.CONTEXT_CHANGED: _Numbers(thing="", window="after"),
    ReasonCode.IMAGE_CHANGED: _Numbers(thing="", window="after"),
    ReasonCode.BACK_AS_RECORDED: _Numbers(thing=""),
    ReasonCode.CHANGE_ACCEPTED: _Numbers(thing=""),
    ReasonCode.SESSIONS_REFUSED: _Numbers(thing="connection"),
    ReasonCode.SESSIONS_NEAR_LIMIT: _Numbers(thing="connection", unit="%"),
    ReasonCode.KEYS_REFUSED_AT_ROUTER: _Numbers(thing="request"),
    ReasonCode.SESSIONS_FREE_AGAIN: _Numbers(thing="connection", unit="s", window="for"),
    ReasonCode.UI_ANSWERS_BLANK: _Numbers(thing="answer"),
    ReasonCode.BACKEND_ANSWERS_GOOD: _Numbers(thing="answer"),
    ReasonCode.SECRET_ON_COMMAND_LINE: _Numbers(thing="secret"),
    ReasonCode.SECRET_GONE: _Numbers(thing=""),
    ReasonCode.NO_VIOLATION_SINCE: _Numbers(unit="s", window="for"),
    ReasonCode.LOG_LINE_MATCHES: _Numbers(thing="line"),
    ReasonCode.METRICS_AGREE: _Numbers(thing=""),
}
"""The codes whose numbers are not times, bare thresholds and windows that lie behind."""

_PLAIN: Final = _Numbers()


def numbers(reason: Reason) -> str:
    """Return the numbers of a reason in brackets, to stand behind its sentence; nothing where it has none."""
    if reason.code is ReasonCode.NO_BYTES_WHILE_IN_FLIGHT and reason.window_s:
        silence = f"{duration(reason.window_s)} of silence where {duration(reason.threshold)} are allowed"
        return f" ({counted(reason.count, 'request')}, {silence})"
    meaning = _NUMBERS.get(reason.code, _PLAIN)
    parts = []
    if meaning.thing == "time" and reason.count:
        parts.append(times(reason.count))
    elif meaning.thing and reason.count:
        parts.append(counted(reason.count, meaning.thing))
    elif reason.count > 1:
        parts.append(times(reason.count))
    if reason.window_s:
        parts.append(f"{meaning.window} {duration(reason.window_s)}")
    if reason.threshold:
        parts.append(_threshold(reason.threshold, meaning.unit))
    return f" ({', '.join(parts)})" if parts else ""


def _threshold(value: float, unit: str) -> str:
    match unit:
        case "s":
            return f"threshold {duration(value)}"
        case "usual":
            return f"usually {duration(value)}"
        case "share":
            return f"threshold {100 * value:g} %"
        case _:
            return f"threshold {value:g} {unit}".rstrip()
