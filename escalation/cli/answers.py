"""The shapes of the API's lists, as nanobotctl reads them."""

from __future__ import annotations

from dataclasses import dataclass

from escalation.server.notify.notice_desk import ReceiverStatus
from escalation.view.entry import AuditView, EntryView, HostView, IncidentView
from escalation.view.policy import PolicyRow
from escalation.view.rule import RuleView


@dataclass(frozen=True, slots=True)
class QueueAnswer:
    """`GET /api/v1/queue`: at most the limit, of `total`."""

    entries: tuple[EntryView, ...]
    total: int
    snoozed: int = 0
    silenced: int = 0


@dataclass(frozen=True, slots=True)
class IncidentsAnswer:
    """`GET /api/v1/incidents`."""

    incidents: tuple[IncidentView, ...]
    total: int


@dataclass(frozen=True, slots=True)
class HostsAnswer:
    """`GET /api/v1/hosts`."""

    hosts: tuple[HostView, ...]


@dataclass(frozen=True, slots=True)
class AuditAnswer:
    """`GET /api/v1/audit`."""

    entries: tuple[AuditView, ...]


@dataclass(frozen=True, slots=True)
class ReceiversAnswer:
    """`GET /api/v1/notify`."""

    receivers: tuple[ReceiverStatus, ...]


@dataclass(frozen=True, slots=True)
class RulesAnswer:
    """`GET /api/v1/rules`."""

    rules: tuple[RuleView, ...]


@dataclass(frozen=True, slots=True)
class PolicyAnswer:
    """`GET /api/v1/policy/test`."""

    rows: tuple[PolicyRow, ...]
