"""What a host tells: cases, heartbeats, losses, each in a durable, numbered report."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from escalation.model.evidence import Evidence
from escalation.model.host_evidence import BlindReason
from escalation.model.names import AgentId, BootId, CaseId, FaultClass, Incarnation, Severity, Subject
from escalation.model.reasons import Reason


class CasePhase(enum.StrEnum):
    """What a report says about a case."""

    UNKNOWN = "unknown"
    OPENED = "opened"
    UPDATED = "updated"
    CLEARED = "cleared"


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseReport:
    """A case was opened, updated or cleared. `count` is how often the fault was seen since `first_seen_ns`.

    `fault_number` keeps the wire's number when `fault_class` is UNKNOWN, so that nothing is lost.
    `target` is what an action would act on (a unit or container), when it is known and differs from the
    subject. `drill` says that somebody made the fault on purpose, to see whether it is noticed.
    """

    phase: CasePhase
    case_id: CaseId
    fault_class: FaultClass
    severity: Severity
    subject: Subject
    incarnation: Incarnation
    first_seen_ns: int
    last_seen_ns: int
    count: int
    target: Subject | None = None
    reasons: tuple[Reason, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    fault_number: int | None = None
    drill: bool = False


@dataclass(frozen=True, slots=True)
class SensorCoverage:
    """Whether one sensor sees. `blind` is None when it does; `error` is an errno where one is known."""

    sensor: str
    blind: BlindReason | None
    error: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """The agent lives, and this is what it can and cannot see."""

    kernel_boot_id: str
    agent_version: str
    started_ns: int
    coverage: tuple[SensorCoverage, ...]
    open_cases: int
    spool_reports: int
    spool_bytes: int
    interval_s: float


class LossKind(enum.StrEnum):
    """Where something was lost."""

    UNKNOWN = "unknown"
    RING_FULL = "ring_full"
    PIPELINE_FULL = "pipeline_full"
    SPOOL_QUARANTINED = "spool_quarantined"
    SPOOL_FULL = "spool_full"
    SPOOL_UNWRITABLE = "spool_unwritable"
    REPORT_REFUSED = "report_refused"


@dataclass(frozen=True, slots=True)
class Loss:
    """`count` things were lost at `kind`, of `sensor` where it has one; a lower bound unless `exact`."""

    kind: LossKind
    sensor: str
    count: int
    exact: bool


class HostChangeKind(enum.StrEnum):
    """What was changed on a host. STARTED and ENDED are of services and containers."""

    UNKNOWN = "unknown"
    MANAGER_RELOADED = "manager_reloaded"
    SUSPENDED = "suspended"
    STARTED = "started"
    ENDED = "ended"
    DRIVER_CHANGED = "driver_changed"


@dataclass(frozen=True, slots=True)
class HostChange:
    """Something that is no fault, and may be why there is one: the last of `count` times was at `at_ns`."""

    kind: HostChangeKind
    subject: Subject
    at_ns: int
    count: int = 1


Body = CaseReport | Heartbeat | Loss | HostChange


@dataclass(frozen=True, slots=True)
class UnknownBody:
    """A report of a kind that a newer agent sends: stored and acknowledged, shown as unknown."""

    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One durable, numbered message from a host. (agent_id, boot_id, sequence) is its identity."""

    agent_id: AgentId
    boot_id: BootId
    sequence: int
    created_ns: int
    body: Body | UnknownBody
