"""What the orchestrator asks of its storage: transactions over a ledger, and nothing else.

A `Store` runs pieces of work, each on a `Ledger`: all writes of one piece are committed, on disk, before
`write` returns, or none of them is kept. Several pieces may share one commit. A piece of work is a plain
function, it runs on a thread of the store's own, and it must not wait for anything.

Error tree: `StoreError` > `StoreUnavailable` (disk full, read-only, stopped: try again later),
`StoreTooNew` (a newer version of this program wrote the database), `StoreTooOld` (it has to be migrated
first), `StoreCorrupt`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from escalation.model import (
    ActionKind,
    AgentId,
    BootId,
    CaseId,
    FaultClass,
    Incident,
    IncidentId,
    Recommendation,
    RecommendationId,
    Report,
    Severity,
    State,
    Subject,
)
from escalation.server.desk import AuditEntry, HostState
from escalation.server.incident.incidents import Case, Key
from escalation.server.storage.notice_ledger import NoticeLedger
from escalation.server.storage.records import Records
from escalation.server.web.queue_page import QueueRow

T = TypeVar("T")


class StoreError(Exception):
    """Anything that the storage cannot do; the message names the operation and the file."""


class StoreUnavailable(StoreError):
    """Nothing can be written now; it may work again later."""


class StoreTooNew(StoreError):
    """The database was written by a newer version of this program."""


class StoreTooOld(StoreError):
    """The database has to be migrated before this version can use it."""


class StoreCorrupt(StoreError):
    """The database is damaged, or is not one of ours."""


ReportRow = tuple[int, int, bytes]
"""(sequence, created_ns, payload): a plain tuple, because forty thousand of them pass in a second."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One batch of one boot of one host, in ascending order of sequence.

    `rows` are all of its reports as they came; `notable` are those that change something, decoded, in order.
    """

    agent_id: AgentId
    boot_id: BootId
    rows: Sequence[ReportRow]
    notable: Sequence[Report]


@dataclass(frozen=True, slots=True)
class Added:
    """What of a delivery was new; `missing` is how many numbers were skipped before and within it."""

    fresh: Container[int]
    count: int
    missing: int


@dataclass(frozen=True, slots=True)
class Sketch:
    """A recommendation, and of its incident what says whom it concerns: read without any evidence."""

    id: RecommendationId
    incident_id: IncidentId
    agent_id: AgentId
    fault_class: FaultClass
    subject: Subject
    severity: Severity


class Ledger(Protocol):
    """What one transaction can read and write."""

    @property
    def notices(self) -> NoticeLedger:
        """Return the outbox, in the same transaction."""

    @property
    def records(self) -> Records:
        """Return what people and the orchestrator noted beside it, in the same transaction."""

    def add_reports(self, delivery: Delivery, *, received_ns: int) -> Added:
        """Keep the reports that are not kept yet."""

    def forget_reports(self, *, received_before_ns: int, limit: int) -> int:
        """Delete the oldest reports, at most `limit`, and return how many; what they said is kept."""

    def case(self, agent_id: AgentId, case_id: CaseId) -> Case | None:
        """Return what is known of a host's case."""

    def put_case(self, case: Case) -> None:
        """Keep what is now known of a case."""

    def incident(self, incident_id: IncidentId) -> Incident | None:
        """Return the incident with this id."""

    def open_incident(self, key: Key) -> Incident | None:
        """Return the open incident with this key."""

    def put_incident(self, incident: Incident) -> None:
        """Keep the incident as it now is."""

    def incidents(self, *, limit: int) -> Sequence[Incident]:
        """Return incidents, open ones first, newest first."""

    def incidents_after(self, name: str, *, limit: int) -> Sequence[Incident]:
        """Return the first `limit` incidents whose id follows `name`, in the order of their ids."""

    def incident_count(self) -> int:
        """Return how many incidents are kept."""

    def open_of(
        self, fault_classes: frozenset[FaultClass], *, limit: int, agent_id: AgentId | None = None
    ) -> Sequence[Incident]:
        """Return the newest `limit` open incidents of `agent_id` (None: any host) and of these classes."""

    def explained(self, *, limit: int) -> Sequence[Incident]:
        """Return the newest `limit` open incidents that another one explains."""

    def open_count(self, agent_id: AgentId) -> int:
        """Return how many incidents of a host are open."""

    def recommendation(self, recommendation_id: RecommendationId) -> Recommendation | None:
        """Return the recommendation with this id."""

    def recommendations(self, incident_id: IncidentId) -> Sequence[Recommendation]:
        """Return an incident's recommendations, oldest first."""

    def recommendations_after(self, name: str, *, limit: int) -> Sequence[Recommendation]:
        """Return the first `limit` recommendations whose id follows `name`, in the order of their ids."""

    def in_states(self, states: frozenset[State], *, limit: int | None) -> Sequence[Recommendation]:
        """Return the newest `limit` recommendations (None: all) that are in one of `states`, oldest first."""

    def due(self, *, now_ns: int) -> Sequence[Recommendation]:
        """Return the recommendations that time alone may change by now, oldest first."""

    def oldest(self, state: State) -> int | None:
        """Return when the oldest recommendation in `state` was made (Unix ns); None where there is none."""

    def queue_rows(self, states: frozenset[State], *, limit: int) -> Sequence[QueueRow]:
        """Return what decides the place of the newest `limit` entries in one of `states`, oldest first."""

    def sketches(self, states: frozenset[State]) -> Sequence[Sketch]:
        """Return whom the recommendations in one of `states` concern, oldest first."""

    def done_with_key(self, key: Key) -> Sequence[Recommendation]:
        """Return the recommendations in DONE whose incident has this key."""

    def put_recommendation(self, recommendation: Recommendation, incident: Incident) -> None:
        """Keep the recommendation as it now is."""

    def state_counts(self) -> Mapping[State, int]:
        """Return how many recommendations are in each state; a state that has none may be absent."""

    def outcomes(self, fault_class: FaultClass, kind: ActionKind) -> tuple[int, int]:
        """Return how often this kind of action cured this fault class, and how often it was tried."""

    def host(self, agent_id: AgentId) -> HostState | None:
        """Return what is known of a host."""

    def hosts(self) -> Sequence[HostState]:
        """Return all hosts, by name."""

    def put_host(self, host: HostState) -> None:
        """Keep what is now known of a host."""

    def last_audit(self) -> AuditEntry | None:
        """Return the newest audit entry."""

    def add_audit(self, entry: AuditEntry) -> None:
        """Append the entry that follows the newest one."""

    def audit(self, *, after: int, limit: int) -> Sequence[AuditEntry]:
        """Return audit entries numbered above `after`, in order."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What other processes wrote to the same database: recommendations that changed, hosts they heard."""

    changed: Sequence[RecommendationId]
    heard: Sequence[HostState]


NOTHING_ELSEWHERE: Final = Elsewhere((), ())


class Store(Protocol):
    """Runs work on the ledger.

    Other processes may use the same database; each piece of work sees what all of them committed before. A
    piece may be run more than once before it is kept, and is kept once.
    """

    async def submit(self, work: Callable[[Ledger], T], *, cost_bytes: int = 0) -> asyncio.Future[T]:
        """Return once there is room for `work`; what it returned, after the commit, is in the future.

        Work is done in the order of submission. `cost_bytes` is what it holds in memory while it waits. What
        it raises is in the future, and then nothing of it was kept; StoreUnavailable says that nothing was
        kept because the storage could not.
        """

    async def write(self, work: Callable[[Ledger], T]) -> T:
        """Run `work` in a transaction and return what it returned, after the commit."""

    async def read(self, work: Callable[[Ledger], T]) -> T:
        """Run `work`, which writes nothing, on a consistent view."""

    async def leads(self) -> bool:
        """Return whether this process does what one of all is to do as time passes."""

    async def elsewhere(self) -> Elsewhere:
        """Return what other processes wrote since the last call; never what this one wrote."""

    def ready(self) -> bool:
        """Return whether the last attempt to write worked."""
