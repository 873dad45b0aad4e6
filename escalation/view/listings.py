"""Lists of views as the API answers them, and what is said of the one who asks."""

from __future__ import annotations

from dataclasses import dataclass

from escalation.server.notify.notice_desk import ReceiverStatus
from escalation.view.attention import SilenceView
from escalation.view.entry import AuditView, EntryView, HostView, IncidentView


@dataclass(frozen=True, slots=True)
class QueueList:
    """Entries of the queue; `total` counts those that the limit left out too.

    `snoozed` and `silenced` are how many entries are, which the queue leaves out when nobody names them.
    """

    entries: tuple[EntryView, ...]
    total: int
    snoozed: int = 0
    silenced: int = 0


@dataclass(frozen=True, slots=True)
class IncidentList:
    """Incidents; `total` counts those that were left out too."""

    incidents: tuple[IncidentView, ...]
    total: int


@dataclass(frozen=True, slots=True)
class HostList:
    """Every host that was ever heard."""

    hosts: tuple[HostView, ...]


@dataclass(frozen=True, slots=True)
class ReceiverList:
    """Every receiver of notifications."""

    receivers: tuple[ReceiverStatus, ...]


@dataclass(frozen=True, slots=True)
class QueuedTest:
    """The test of a receiver that is on its way."""

    id: str


@dataclass(frozen=True, slots=True)
class AuditList:
    """Links of the audit chain, in order."""

    entries: tuple[AuditView, ...]


@dataclass(frozen=True, slots=True)
class AuditHead:
    """The newest link of the audit chain; null before there is one."""

    head: AuditView | None


@dataclass(frozen=True, slots=True)
class Me:
    """Who asks: the name and the role of the credentials, and whether they may change anything."""

    name: str
    role: str
    may_decide: bool


@dataclass(frozen=True, slots=True)
class SilenceList:
    """Silences or maintenance: what stands first, then the newest of what is over."""

    silences: tuple[SilenceView, ...]


@dataclass(frozen=True, slots=True)
class PreviewView:
    """What a silence of these matchers would cover now."""

    matchers: tuple[str, ...]
    incidents: tuple[IncidentView, ...]
