"""What is known of each host, and which hosts have fallen silent.

Silence is measured by the orchestrator's monotonic clock alone, so that no clock that is set, here or on a
host, makes a host look silent or alive. A silent host is a fault of its own (monitor.blind, subject HOST):
what it would have reported is unknown, and unknown is not healthy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from escalation.model import (
    AgentId,
    BlindEvidence,
    BlindReason,
    BootId,
    CaseId,
    CasePhase,
    CaseReport,
    FaultClass,
    Heartbeat,
    Incarnation,
    Loss,
    Reason,
    ReasonCode,
    Report,
    Severity,
    Subject,
    SubjectKind,
)
from escalation.server.desk import HostState
from escalation.server.incident.incidents import COUNT_MAX

_DEFAULT_INTERVAL_S: Final = 30.0
"""How often a host is expected that has never said how often it means to report."""

_INTERVAL_RANGE_S: Final = (1.0, 3600.0)
"""An interval outside it is drawn to its edge: no host may excuse itself for longer than an hour."""

_LOSS_ACCOUNTS: Final = 64
"""How many loss accounts are kept per host; what is lost beyond that is added under no sensor."""

_SILENCE: Final = BootId("silence")
"""The numbering of what the orchestrator itself reports about a host; no agent's is called so."""


_WITNESSES: Final[Mapping[FaultClass, frozenset[str]]] = {
    FaultClass.GPU_ACCESS_REVOKED: frozenset({"kernel.device_open"}),
    FaultClass.GPU_NEVER_GRANTED: frozenset({"kernel.device_open"}),
    FaultClass.GPU_UVM_LOST: frozenset({"kernel.device_open"}),
    FaultClass.GPU_APPLICATION_XID: frozenset({"gpu.nvml", "kernel.xid"}),
    FaultClass.GPU_DEVICE_FAULT: frozenset({"gpu.nvml"}),
    FaultClass.GPU_DRIVER_MISMATCH: frozenset({"gpu.nvml"}),
    FaultClass.GPU_CLOCKS_CAPPED: frozenset({"gpu.nvml"}),
    FaultClass.GPU_CPU_FALLBACK: frozenset({"host.servers"}),
    FaultClass.TRANSCRIPTION_CPU_FALLBACK: frozenset({"host.servers"}),
    FaultClass.MEMORY_UNIFIED_EXHAUSTION: frozenset({"host.memory"}),
    FaultClass.MEMORY_PAGE_CACHE_REFUSAL: frozenset({"host.servers"}),
    FaultClass.MEMORY_CGROUP_OOM_KILL: frozenset({"kernel.oom_kill"}),
    FaultClass.MEMORY_THRASHING: frozenset({"host.memory", "host.pressure"}),
    FaultClass.CPU_QUOTA_THROTTLED: frozenset({"host.pressure"}),
    FaultClass.CPU_CONTENTION: frozenset({"host.pressure"}),
    FaultClass.PROCESS_KILLED_BY_SIGNAL: frozenset({"kernel.fatal_signal"}),
    FaultClass.PROCESS_UNINTERRUPTIBLE: frozenset({"host.processes"}),
    FaultClass.PROCESS_FD_EXHAUSTED: frozenset({"kernel.descriptors"}),
    FaultClass.PROCESS_NOT_ANSWERING: frozenset({"host.processes"}),
    FaultClass.STORAGE_FULL: frozenset({"host.storage"}),
    FaultClass.STORAGE_READ_ONLY: frozenset({"host.storage"}),
    FaultClass.STORAGE_SLOW_LOAD: frozenset({"host.readiness", "http.routes"}),
    FaultClass.NETWORK_RETRANSMISSION: frozenset({"host.peers"}),
    FaultClass.NETWORK_UPSTREAM_UNREACHABLE: frozenset({"host.peers"}),
    FaultClass.NETWORK_RDMA_FAULT: frozenset({"host.links"}),
    FaultClass.DISTRIBUTED_WORKER_LOST: frozenset({"host.log_files", "host.logs"}),
    FaultClass.DISTRIBUTED_RANK_STALL: frozenset({"host.log_files", "host.logs", "http.routes"}),
    FaultClass.MESH_DEGRADED: frozenset({"mesh.tailscale"}),
    FaultClass.EXPOSURE_OFF_MESH_LISTENER: frozenset({"host.listeners", "kernel.listener"}),
    FaultClass.EXPOSURE_OPEN_CONTROL_PLANE: frozenset({"host.listeners", "kernel.listener"}),
    FaultClass.UNIT_RESTART_LOOP: frozenset({"host.units", "kernel.cgroups"}),
    FaultClass.SERVICE_CONFIG_DRIFT: frozenset({"host.command_lines"}),
    FaultClass.CONTAINER_SHM_TOO_SMALL: frozenset({"kernel.fatal_signal", "kernel.storage_error"}),
    FaultClass.DATABASE_CONNECTIONS_EXHAUSTED: frozenset({"host.log_files", "host.logs", "http.routes"}),
    FaultClass.UI_BLANK_ANSWERS: frozenset({"http.routes"}),
    FaultClass.SCOPE_VIOLATION: frozenset({"host.command_lines", "kernel.scope"}),
    FaultClass.ROUTE_EMPTY_COMPLETION: frozenset({"http.routes"}),
    FaultClass.ROUTE_REASONING_BUDGET_EXHAUSTED: frozenset({"http.routes"}),
    FaultClass.ROUTE_ANSWER_MISROUTED: frozenset({"http.routes"}),
    FaultClass.ROUTE_BROKEN_STREAM: frozenset({"http.routes"}),
    FaultClass.ROUTE_DEGENERATE_OUTPUT: frozenset({"http.routes"}),
    FaultClass.ROUTE_CONTEXT_OVERFLOW: frozenset({"http.routes"}),
    FaultClass.ROUTE_ENGINE_STALLED: frozenset({"http.routes"}),
    FaultClass.ROUTE_ROUTER_COOLDOWN: frozenset({"http.routes"}),
    FaultClass.ROUTE_SATURATED: frozenset({"http.routes"}),
    FaultClass.ROUTE_FAILS_REAL_TRAFFIC: frozenset({"http.routes"}),
    FaultClass.ROUTE_ERRORS_RISING: frozenset({"http.routes"}),
    FaultClass.ROUTE_LATENCY_RISING: frozenset({"http.routes"}),
}
"""Which sensors would see a fault again; a class that is not here is judged without one."""


def would_be_seen(host: HostState, fault_class: FaultClass) -> bool:
    """Return whether `fault_class` would be reported by `host` if it came back now.

    Not while the host is silent, nor while each of its sensors for this fault says that it is blind. A host
    that does not speak of these sensors at all is believed: another version may call them otherwise.
    """
    if host.silent:
        return False
    witnesses = _WITNESSES.get(fault_class, frozenset())
    sight = [each.blind is None for each in host.coverage if each.sensor in witnesses]
    return any(sight) or not sight


def first_heard(agent_id: AgentId, now_ns: int) -> HostState:
    """Return the state of a host of which nothing is known but that it was heard."""
    return HostState(
        agent_id=agent_id,
        last_heard_ns=now_ns,
        silent=False,
        agent_version="",
        kernel_boot_id="",
        open_cases=0,
        coverage=(),
        losses=(),
    )


def with_heartbeat(host: HostState, heartbeat: Heartbeat) -> HostState:
    """Return the host as `heartbeat` describes it."""
    return replace(
        host,
        agent_version=heartbeat.agent_version,
        kernel_boot_id=heartbeat.kernel_boot_id,
        open_cases=heartbeat.open_cases,
        coverage=heartbeat.coverage,
        interval_s=heartbeat.interval_s,
        started_ns=heartbeat.started_ns,
    )


def with_loss(host: HostState, loss: Loss) -> HostState:
    """Return the host with `loss` added to the account of its kind and sensor."""
    accounts = {(each.kind, each.sensor): each for each in host.losses}
    key = (loss.kind, loss.sensor)
    if key not in accounts and len(accounts) >= _LOSS_ACCOUNTS:
        key = (loss.kind, "")
    before = accounts.get(key)
    if before is None:
        accounts[key] = replace(loss, sensor=key[1])
    else:
        exact = before.exact and loss.exact
        count = min(COUNT_MAX, before.count + loss.count)
        accounts[key] = replace(before, count=count, exact=exact)
    return replace(host, losses=tuple(accounts[each] for each in sorted(accounts)))


def silence_begins(host: HostState, now_ns: int) -> Report:
    """Return the report that opens the case of a host that is not heard any more."""
    return _about_silence(host, CasePhase.OPENED, ReasonCode.HOST_SILENT, now_ns)


def silence_ends(host: HostState, now_ns: int) -> Report:
    """Return the report that clears that case, for a host that is heard again."""
    return _about_silence(host, CasePhase.CLEARED, ReasonCode.HOST_HEARD_AGAIN, now_ns)


def _about_silence(host: HostState, phase: CasePhase, code: ReasonCode, now_ns: int) -> Report:
    silent_s = max(0.0, (now_ns - host.last_heard_ns) / 1e9)
    body = CaseReport(
        phase=phase,
        # One silence is one case: it is named by the moment at which the host was heard last.
        case_id=CaseId(f"silence-{host.last_heard_ns}"),
        fault_class=FaultClass.MONITOR_BLIND,
        severity=Severity.HIGH,
        subject=Subject(SubjectKind.HOST, host.agent_id),
        incarnation=Incarnation(kernel_boot_id=host.kernel_boot_id),
        first_seen_ns=host.last_heard_ns,
        last_seen_ns=host.last_heard_ns if phase is CasePhase.OPENED else now_ns,
        count=1,
        reasons=(Reason(code=code, window_s=silent_s, threshold=expected_within_s(host.interval_s)),),
        evidence=(BlindEvidence(sensor="", reason=BlindReason.HOST_SILENT, silent_s=silent_s),),
    )
    # OPENED and CLEARED of one silence differ in their number, and the later one has the higher number.
    sequence = 2 * host.last_heard_ns + (phase is CasePhase.CLEARED)
    return Report(agent_id=host.agent_id, boot_id=_SILENCE, sequence=sequence, created_ns=now_ns, body=body)


def expected_within_s(interval_s: float, *, factor: float = 3.0) -> float:
    """Return after how long a host that reports every `interval_s` is called silent."""
    low, high = _INTERVAL_RANGE_S
    # Not-a-number compares as false with everything, and so counts as never said.
    interval_s = min(high, max(low, interval_s)) if interval_s > 0 else _DEFAULT_INTERVAL_S
    return factor * interval_s


@dataclass(slots=True)
class _Expected:
    heard_s: float
    interval_s: float


class Watch:
    """Knows, by the monotonic clock, which hosts are overdue."""

    def __init__(self, *, factor: float, hosts: Iterable[HostState], now_s: float, grace_s: float) -> None:
        """Expect every host of `hosts` anew from `now_s` on, with `grace_s` to find its way back."""
        self._factor = factor
        self._expected = {host.agent_id: _Expected(now_s + grace_s, host.interval_s) for host in hosts}

    def __repr__(self) -> str:
        return f"Watch(hosts={len(self._expected)}, factor={self._factor})"

    def expect_anew(self, now_s: float, grace_s: float) -> None:
        """Expect every host anew from `now_s` on, with `grace_s` to find its way back."""
        for expected in self._expected.values():
            expected.heard_s = max(expected.heard_s, now_s + grace_s)

    def heard(self, agent_id: AgentId, now_s: float, interval_s: float | None = None) -> None:
        """Note that a host was heard, and how often it means to be from now on."""
        expected = self._expected.setdefault(agent_id, _Expected(now_s, 0.0))
        expected.heard_s = max(expected.heard_s, now_s)
        if interval_s is not None:
            expected.interval_s = interval_s

    def overdue(self, now_s: float) -> frozenset[AgentId]:
        """Return the hosts that should have been heard by `now_s` and were not."""
        return frozenset(
            agent_id
            for agent_id, expected in self._expected.items()
            if now_s - expected.heard_s > expected_within_s(expected.interval_s, factor=self._factor)
        )
