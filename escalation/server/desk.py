"""The operator's desk: everything that people and their tools may ask of the orchestrator, as one interface.

The HTTP API, the web page and the tests speak to a `Desk` only; `service.py` is the real one, `testing.py`
holds a working double. A person's name reaches it only from an authenticated transport.

Error tree: `DeskError` > `NotFound`, `Refused` (policy or state forbids it), `Superseded` (what was approved
is not what stands there now), `Expired` (too late), `Unavailable` (nothing can be kept at the moment),
`FellBehind` (a watcher that did not keep up).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from escalation.model import (
    AgentId,
    Check,
    History,
    Incident,
    Loss,
    Override,
    Price,
    Recommendation,
    SensorCoverage,
    Signed,
    State,
    Verdict,
    Weighed,
)
from escalation.server.attention.values import NOTHING, Attention
from escalation.server.web.queue_page import QueuePage, Sought


class DeskError(Exception):
    """Anything that the desk refuses; the message is for the person who asked."""


class NotFound(DeskError):
    """There is no such entry."""


class Refused(DeskError):
    """The state of the entry, or a policy, forbids it."""


class Superseded(DeskError):
    """The action, its evidence or its target changed since it was shown."""


class Expired(DeskError):
    """The time to approve, or to carry out what was approved, is over."""


class Unavailable(DeskError):
    """Nothing can be written or read now (a full disk, shutting down); it may work again later."""


class FellBehind(DeskError):
    """A watcher did not take the changes as fast as they came; it has to read the queue anew."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the queue: a recommendation, its incident, and how often this remedy cured before.

    `explains` are the open incidents that are only consequences of this one; `attention` is what people do
    about it besides deciding. `preconditions` are what has to hold for the action, as the newest facts say;
    `price` is what it interrupts; `history` how it went before; `weighed` what was found when it was decided;
    `verdict` what people say of the incident. `at_proposal` are the conditions as they were found when it was
    proposed, where one entry is shown alone.
    """

    recommendation: Recommendation
    incident: Incident
    cured: int
    tried: int
    explains: tuple[Incident, ...] = ()
    attention: Attention = NOTHING
    preconditions: tuple[Check, ...] = ()
    price: Price | None = None
    history: History | None = None
    weighed: tuple[Weighed, ...] = ()
    verdict: Verdict | None = None
    at_proposal: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True)
class Checked:
    """A signature that was found right, and the name of the key that made it."""

    signed: Signed
    key: str


@dataclass(frozen=True, slots=True)
class Holdings:
    """How much is kept: more than one answer may hold."""

    entries: int
    incidents: int


@dataclass(frozen=True, slots=True)
class HostState:
    """What is known of one host: when it was last heard, what it sees, what it lost.

    `missing_reports` counts numbers that were skipped in what it sent. It is information, not an alarm: an
    agent may drop an unsent heartbeat or update when a newer one says the same and more.
    """

    agent_id: AgentId
    last_heard_ns: int
    silent: bool
    agent_version: str
    kernel_boot_id: str
    open_cases: int
    coverage: tuple[SensorCoverage, ...]
    losses: tuple[Loss, ...]
    interval_s: float = 0.0
    missing_reports: int = 0
    started_ns: int = 0


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One link of the audit chain: `digest` covers every other field and the digest before it."""

    number: int
    at_ns: int
    actor: str
    verb: str
    object_id: str
    detail: str
    previous: str
    digest: str


class Desk(Protocol):
    """What can be asked. All methods raise DeskError kinds only."""

    async def queue(self, states: frozenset[State] | None) -> Sequence[Entry]:
        """Return entries in `states` (None: all): worst first, then oldest first; of too many the first."""

    async def look(self, sought: Sought, *, person: str) -> QueuePage:
        """Return one page of the queue in the order in which `person` wants it."""

    async def entry(self, entry_id: str) -> Entry:
        """Return the entry with this recommendation id, or the newest of this incident id or its cause."""

    async def approve(
        self,
        entry_id: str,
        *,
        person: str,
        reason: str,
        digest: str,
        signed: Signed | None = None,
        overrides: Sequence[Override] = (),
    ) -> Entry:
        """Record that `person` approves exactly what `digest` names, and what they `signed` of it.

        `overrides` are the conditions that they set aside.
        """

    async def reject(self, entry_id: str, *, person: str, reason: str) -> Entry:
        """Record that `person` rejects it; a reason is required."""

    async def done(self, entry_id: str, *, person: str) -> Entry:
        """Record that `person` has carried out what was approved; verification starts."""

    async def incidents(self) -> Sequence[Incident]:
        """Return incidents, open ones first, newest first; of too many the first."""

    async def entries_after(self, name: str, *, limit: int) -> Sequence[Entry]:
        """Return the first `limit` entries of any state whose id follows `name`, in the order of ids."""

    async def incidents_after(self, name: str, *, limit: int) -> Sequence[Incident]:
        """Return the first `limit` incidents whose id follows `name`, in the order of their ids."""

    async def holdings(self) -> Holdings:
        """Return how many entries and incidents there are."""

    async def hosts(self) -> Sequence[HostState]:
        """Return every host that was ever heard, by name."""

    async def audit(self, *, after: int, limit: int) -> Sequence[AuditEntry]:
        """Return audit entries numbered above `after`, in order."""

    async def audit_head(self) -> AuditEntry | None:
        """Return the newest link of the audit chain, or None."""

    def changes(self) -> AsyncIterator[Entry]:
        """Yield each entry as it changes, from now on."""
