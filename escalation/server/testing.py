"""Working doubles of the orchestrator's parts, for tests here and elsewhere.

`FakeDesk` is the real service over a ledger in memory, with a clock that a test moves: what it answers is
what the product answers.

Longer than other modules because the ledger in memory has a method for each that the databases have.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from escalation.model import (
    ActionKind,
    AgentId,
    Body,
    BootId,
    CaseId,
    CasePhase,
    CaseReport,
    Device,
    DeviceOpenEvidence,
    FaultClass,
    Heartbeat,
    Incarnation,
    Incident,
    IncidentId,
    Override,
    Reason,
    ReasonCode,
    Recommendation,
    RecommendationId,
    Report,
    SensorCoverage,
    Severity,
    Signed,
    State,
    Subject,
    SubjectKind,
)
from escalation.server.attention.attention_desk import StoredAttention
from escalation.server.attention.maintenance import Window
from escalation.server.attention.values import AttentionSettings
from escalation.server.decision.approvals import Policy, due_of
from escalation.server.decision.rule_desk import StoredRules
from escalation.server.decision.rules import RuleSettings
from escalation.server.decision.signatures import SignatureCheck
from escalation.server.desk import AuditEntry, Entry, Holdings, HostState
from escalation.server.incident.incidents import Case, Key, key_of
from escalation.server.notify.notice_watch import Routing
from escalation.server.service import Service
from escalation.server.storage.store import (
    NOTHING_ELSEWHERE,
    Added,
    Delivery,
    Elsewhere,
    Ledger,
    Sketch,
    StoreUnavailable,
)
from escalation.server.testing_notices import MemoryNotices
from escalation.server.testing_records import MemoryRecords
from escalation.server.web.queue_page import QueuePage, QueueRow, Sought, row_of

T = TypeVar("T")

START_NS = 1_767_225_600_000_000_000
"""Where a ManualClock starts: 2026-01-01T00:00:00Z."""

CONTAINER = "4f" * 32
"""A container id as a runtime writes it."""


class ManualClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, *, wall_ns: int = START_NS) -> None:
        """Start at `wall_ns`."""
        self._wall_ns = wall_ns
        self._steady_s = 1000.0

    def wall_ns(self) -> int:
        """Return Unix time, UTC."""
        return self._wall_ns

    def steady_s(self) -> float:
        """Return the monotonic clock."""
        return self._steady_s

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self._wall_ns += int(seconds * 1e9)
        self._steady_s += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock, forward or back, as an administrator or time synchronisation would."""
        self._wall_ns += int(seconds * 1e9)


class MemoryLedger:
    """A ledger in dictionaries."""

    def __init__(self) -> None:
        """Start empty."""
        self.kept: dict[tuple[AgentId, BootId], dict[int, bytes]] = {}
        self._cases: dict[tuple[AgentId, CaseId], Case] = {}
        self._incidents: dict[IncidentId, Incident] = {}
        self._recommendations: dict[RecommendationId, Recommendation] = {}
        self._of_incident: dict[IncidentId, tuple[RecommendationId, ...]] = {}
        self._hosts: dict[AgentId, HostState] = {}
        self._audit: list[AuditEntry] = []
        self.notices = MemoryNotices()
        self.records = MemoryRecords()

    def copy(self) -> MemoryLedger:
        """Return a ledger that holds the same and changes by itself."""
        twin = MemoryLedger()
        twin.kept = {key: dict(rows) for key, rows in self.kept.items()}
        twin._cases = dict(self._cases)
        twin._incidents = dict(self._incidents)
        twin._recommendations = dict(self._recommendations)
        twin._of_incident = dict(self._of_incident)
        twin._hosts = dict(self._hosts)
        twin._audit = list(self._audit)
        twin.notices = self.notices.copy()
        twin.records = self.records.copy()
        return twin

    def add_reports(self, delivery: Delivery, *, received_ns: int) -> Added:  # noqa: ARG002 - nothing expires here
        """Keep the reports that are not kept yet."""
        rows = self.kept.setdefault((delivery.agent_id, delivery.boot_id), {})
        fresh = {sequence for sequence, _, _ in delivery.rows if sequence not in rows}
        highest = max(rows, default=0)
        missing = 0
        for sequence, _, payload in delivery.rows:
            if sequence in fresh:
                missing += max(0, sequence - highest - 1)
                highest = max(highest, sequence)
                rows[sequence] = payload
        return Added(fresh=fresh, count=len(fresh), missing=missing)

    def forget_reports(self, *, received_before_ns: int, limit: int) -> int:  # noqa: ARG002 - nothing expires here
        """Keep everything."""
        return 0

    def case(self, agent_id: AgentId, case_id: CaseId) -> Case | None:
        """Return what is known of a host's case."""
        return self._cases.get((agent_id, case_id))

    def put_case(self, case: Case) -> None:
        """Keep what is now known of a case."""
        self._cases[case.agent_id, case.case_id] = case

    def incident(self, incident_id: IncidentId) -> Incident | None:
        """Return the incident with this id."""
        return self._incidents.get(incident_id)

    def open_incident(self, key: Key) -> Incident | None:
        """Return the open incident with this key."""
        return next((each for each in self._incidents.values() if each.open and key_of(each) == key), None)

    def put_incident(self, incident: Incident) -> None:
        """Keep the incident as it now is."""
        self._incidents[incident.id] = incident

    def incidents(self, *, limit: int) -> Sequence[Incident]:
        """Return incidents, open ones first, newest first."""
        return sorted(self._incidents.values(), key=lambda each: (not each.open, -each.last_seen_ns))[:limit]

    def incidents_after(self, name: str, *, limit: int) -> Sequence[Incident]:
        """Return the first `limit` incidents whose id follows `name`, in the order of their ids."""
        return [self._incidents[each] for each in sorted(self._incidents) if each > name][:limit]

    def incident_count(self) -> int:
        """Return how many incidents are kept."""
        return len(self._incidents)

    def open_of(
        self, fault_classes: frozenset[FaultClass], *, limit: int, agent_id: AgentId | None = None
    ) -> Sequence[Incident]:
        """Return the newest `limit` open incidents of `agent_id` (None: any host) and of these classes."""
        found = (each for each in self._incidents.values() if each.open and agent_id in {None, each.agent_id})
        wanted = (each for each in found if each.fault_class in fault_classes)
        return sorted(wanted, key=lambda each: (-each.last_seen_ns, each.id))[:limit]

    def explained(self, *, limit: int) -> Sequence[Incident]:
        """Return the newest `limit` open incidents that another one explains."""
        found = (each for each in self._incidents.values() if each.open and each.explained_by is not None)
        return sorted(found, key=lambda each: (-each.last_seen_ns, each.id))[:limit]

    def open_count(self, agent_id: AgentId) -> int:
        """Return how many incidents of a host are open."""
        return sum(each.open and each.agent_id == agent_id for each in self._incidents.values())

    def recommendation(self, recommendation_id: RecommendationId) -> Recommendation | None:
        """Return the recommendation with this id."""
        return self._recommendations.get(recommendation_id)

    def recommendations(self, incident_id: IncidentId) -> Sequence[Recommendation]:
        """Return an incident's recommendations, oldest first."""
        return [self._recommendations[each] for each in self._of_incident.get(incident_id, ())]

    def recommendations_after(self, name: str, *, limit: int) -> Sequence[Recommendation]:
        """Return the first `limit` recommendations whose id follows `name`, in the order of their ids."""
        return [self._recommendations[each] for each in sorted(self._recommendations) if each > name][:limit]

    def in_states(self, states: frozenset[State], *, limit: int | None) -> Sequence[Recommendation]:
        """Return the newest `limit` recommendations (None: all) that are in one of `states`, oldest first."""
        found = [each for each in self._recommendations.values() if each.state in states]
        return found if limit is None else found[-limit:]

    def due(self, *, now_ns: int) -> Sequence[Recommendation]:
        """Return the recommendations that time alone may change by now, oldest first."""
        found = ((each, due_of(each)) for each in self._recommendations.values())
        return [each for each, due in found if due is not None and due.is_over(now_ns)]

    def oldest(self, state: State) -> int | None:
        """Return when the oldest recommendation in `state` was made (Unix ns); None where there is none."""
        found = (each.created_ns for each in self._recommendations.values() if each.state is state)
        return min(found, default=None)

    def queue_rows(self, states: frozenset[State], *, limit: int) -> Sequence[QueueRow]:
        """Return what decides the place of the newest `limit` entries in one of `states`, oldest first."""
        found = self.in_states(states, limit=limit)
        return [row_of(each, self._incidents[each.incident_id]) for each in found]

    def sketches(self, states: frozenset[State]) -> Sequence[Sketch]:
        """Return whom the recommendations in one of `states` concern, oldest first."""
        found = ((each.id, self._incidents[each.incident_id]) for each in self.in_states(states, limit=None))
        return [
            Sketch(each, of.id, of.agent_id, of.fault_class, of.subject, of.severity) for each, of in found
        ]

    def done_with_key(self, key: Key) -> Sequence[Recommendation]:
        """Return the recommendations in DONE whose incident has this key."""
        done = (each for each in self._recommendations.values() if each.state is State.DONE)
        return [each for each in done if key_of(self._incidents[each.incident_id]) == key]

    def put_recommendation(self, recommendation: Recommendation, incident: Incident) -> None:
        """Keep the recommendation as it now is."""
        if incident.id not in self._incidents:
            raise KeyError(f"incident {incident.id} is not in the ledger")
        if recommendation.id not in self._recommendations:
            known = self._of_incident.get(recommendation.incident_id, ())
            self._of_incident[recommendation.incident_id] = (*known, recommendation.id)
        self._recommendations[recommendation.id] = recommendation

    def state_counts(self) -> Mapping[State, int]:
        """Return how many recommendations are in each state."""
        return Counter(each.state for each in self._recommendations.values())

    def outcomes(self, fault_class: FaultClass, kind: ActionKind) -> tuple[int, int]:
        """Return how often this kind of action cured this fault class, and how often it was tried."""
        states = [
            each.state
            for each in self._recommendations.values()
            if each.advice.action.kind is kind
            and self._incidents[each.incident_id].fault_class is fault_class
            and each.state in {State.VERIFIED, State.NOT_CURED}
        ]
        return states.count(State.VERIFIED), len(states)

    def host(self, agent_id: AgentId) -> HostState | None:
        """Return what is known of a host."""
        return self._hosts.get(agent_id)

    def hosts(self) -> Sequence[HostState]:
        """Return all hosts, by name."""
        return sorted(self._hosts.values(), key=lambda each: each.agent_id)

    def put_host(self, host: HostState) -> None:
        """Keep what is now known of a host."""
        self._hosts[host.agent_id] = host

    def last_audit(self) -> AuditEntry | None:
        """Return the newest audit entry."""
        return self._audit[-1] if self._audit else None

    def add_audit(self, entry: AuditEntry) -> None:
        """Append the entry that follows the newest one."""
        self._audit.append(entry)

    def audit(self, *, after: int, limit: int) -> Sequence[AuditEntry]:
        """Return audit entries numbered above `after`, in order."""
        return [each for each in self._audit if each.number > after][:limit]


class MemoryStore:
    """A store that keeps all or nothing of each piece of work, in memory."""

    def __init__(self) -> None:
        """Start empty, writable and leading."""
        self.ledger = MemoryLedger()
        self.writable = True
        self.leading = True

    async def submit(self, work: Callable[[Ledger], T], *, cost_bytes: int = 0) -> asyncio.Future[T]:  # noqa: ARG002 - nothing waits
        """Run `work` at once."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            answer.set_result(await self.write(work))
        except Exception as error:  # noqa: BLE001 - handed to whoever waits for the future
            answer.set_exception(error)
        return answer

    async def write(self, work: Callable[[Ledger], T]) -> T:
        """Run `work` on a copy, which takes the ledger's place if nothing was raised."""
        if not self.writable:
            raise StoreUnavailable("the store in memory was told to be full")
        draft = self.ledger.copy()
        result = work(draft)
        self.ledger = draft
        return result

    async def read(self, work: Callable[[Ledger], T]) -> T:
        """Run `work` on a copy."""
        return work(self.ledger.copy())

    async def leads(self) -> bool:
        """Return what a test says: nobody else writes here."""
        return self.leading

    async def elsewhere(self) -> Elsewhere:
        """Return nothing: nobody else writes here."""
        return NOTHING_ELSEWHERE

    def ready(self) -> bool:
        """Return whether writing works."""
        return self.writable


def case_report(
    phase: CasePhase = CasePhase.OPENED, *, case_id: str = "case-1", seen_ns: int = START_NS, **fields: object
) -> CaseReport:
    """Build the report of a container that lost its GPU; `fields` replace any of its fields."""
    case = CaseReport(
        phase=phase,
        case_id=CaseId(case_id),
        fault_class=FaultClass.GPU_ACCESS_REVOKED,
        severity=Severity.CRITICAL,
        subject=Subject(SubjectKind.CONTAINER, CONTAINER),
        incarnation=Incarnation(kernel_boot_id="kernel-1", container_id=CONTAINER),
        first_seen_ns=seen_ns,
        last_seen_ns=seen_ns,
        count=1,
        reasons=(Reason(code=ReasonCode.OPEN_REFUSED_AFTER_SUCCESS, count=3, threshold=1, window_s=60),),
        evidence=(DeviceOpenEvidence(Device.CONTROL, 255, 1, 3, 11, "ollama", 4242),),
    )
    return replace(case, **fields)  # type: ignore[arg-type]


def heartbeat(**fields: object) -> Heartbeat:
    """Build the heartbeat of an agent that sees everything; `fields` replace any of its fields."""
    beat = Heartbeat(
        kernel_boot_id="kernel-1",
        agent_version="0.1.0",
        started_ns=START_NS,
        coverage=(SensorCoverage("kernel.device_open", None),),
        open_cases=0,
        spool_reports=0,
        spool_bytes=0,
        interval_s=10.0,
    )
    return replace(beat, **fields)  # type: ignore[arg-type]


class FakeDesk:
    """The desk over a ledger in memory: tests say what hosts report and how time passes."""

    def __init__(
        self,
        *,
        policy: Policy | None = None,
        routing: Routing | None = None,
        signatures: SignatureCheck | None = None,
        windows: Sequence[Window] = (),
        settings: AttentionSettings | None = None,
        store: MemoryStore | None = None,
    ) -> None:
        """Start at START_NS on `store`, or with no host heard."""
        self.clock = ManualClock()
        self.store = store or MemoryStore()
        self.service = Service(
            store=self.store,
            clock=self.clock,
            policy=policy or Policy(),
            routing=routing,
            signatures=signatures,
            windows=windows,
        )
        self.rules = StoredRules(
            store=self.store,
            clock=self.clock,
            settings=RuleSettings(),
            policy=policy or Policy(),
            touched=self.service.touch,
            routing=routing,
        )
        self.attention = StoredAttention(
            store=self.store,
            clock=self.clock,
            settings=settings or AttentionSettings(),
            touched=self.service.touch,
            routing=routing,
        )
        self._sequence = 0

    async def report(self, body: Body, *, host: str = "spark-1", boot: str = "boot-1") -> None:
        """Let `host` report `body`, as the next of its numbers."""
        await self.reports((body,), host=host, boot=boot)

    async def reports(self, bodies: Sequence[Body], *, host: str = "spark-1", boot: str = "boot-1") -> None:
        """Let `host` report `bodies` in one delivery."""
        reports = []
        for body in bodies:
            self._sequence += 1
            reports.append(
                Report(
                    agent_id=AgentId(host),
                    boot_id=BootId(boot),
                    sequence=self._sequence,
                    created_ns=self.clock.wall_ns(),
                    body=body,
                )
            )
        rows = tuple((report.sequence, report.created_ns, b"") for report in reports)
        await self.service.receive(Delivery(AgentId(host), BootId(boot), rows, tuple(reports)))
        await self.service.publish()

    async def opened(self, *, host: str = "spark-1", **fields: object) -> Entry:
        """Let `host` report a case and return the newest entry of the queue that speaks of it."""
        body = case_report(CasePhase.OPENED, **fields)  # type: ignore[arg-type]
        await self.report(body, host=host)
        entries = await self.queue(None)
        return max(
            (each for each in entries if each.incident.case_id == body.case_id),
            key=lambda each: each.recommendation.created_ns,
        )

    async def cleared(self, *, host: str = "spark-1", **fields: object) -> None:
        """Let `host` report that a case is gone."""
        await self.report(case_report(CasePhase.CLEARED, **fields), host=host)  # type: ignore[arg-type]

    async def advance(self, seconds: float) -> None:
        """Let time pass, and what depends on it happen."""
        self.clock.advance(seconds)
        await self.service.tick()
        await self.service.publish()

    async def queue(self, states: frozenset[State] | None) -> Sequence[Entry]:
        """Return entries in `states` (None: all): worst first, then oldest first."""
        return await self.service.queue(states)

    async def look(self, sought: Sought, *, person: str) -> QueuePage:
        """Return one page of the queue in the order in which `person` wants it."""
        return await self.service.look(sought, person=person)

    async def audit_head(self) -> AuditEntry | None:
        """Return the newest link of the audit chain."""
        return await self.service.audit_head()

    async def entry(self, entry_id: str) -> Entry:
        """Return the entry with this recommendation id, or the newest of this incident id."""
        return await self.service.entry(entry_id)

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
        return await self._told(
            await self.service.approve(
                entry_id, person=person, reason=reason, digest=digest, signed=signed, overrides=overrides
            )
        )

    async def reject(self, entry_id: str, *, person: str, reason: str) -> Entry:
        """Record that `person` rejects it; a reason is required."""
        return await self._told(await self.service.reject(entry_id, person=person, reason=reason))

    async def done(self, entry_id: str, *, person: str) -> Entry:
        """Record that `person` has carried out what was approved; verification starts."""
        return await self._told(await self.service.done(entry_id, person=person))

    async def incidents(self) -> Sequence[Incident]:
        """Return incidents, open ones first, newest first."""
        return await self.service.incidents()

    async def entries_after(self, name: str, *, limit: int) -> Sequence[Entry]:
        """Return the first `limit` entries of any state whose id follows `name`, in the order of ids."""
        return await self.service.entries_after(name, limit=limit)

    async def incidents_after(self, name: str, *, limit: int) -> Sequence[Incident]:
        """Return the first `limit` incidents whose id follows `name`, in the order of their ids."""
        return await self.service.incidents_after(name, limit=limit)

    async def holdings(self) -> Holdings:
        """Return how many entries and incidents there are."""
        return await self.service.holdings()

    async def hosts(self) -> Sequence[HostState]:
        """Return every host that was ever heard, by name."""
        return await self.service.hosts()

    async def audit(self, *, after: int, limit: int) -> Sequence[AuditEntry]:
        """Return audit entries numbered above `after`, in order."""
        return await self.service.audit(after=after, limit=limit)

    def changes(self) -> AsyncIterator[Entry]:
        """Yield each entry as it changes, from now on."""
        return self.service.changes()

    async def _told(self, entry: Entry) -> Entry:
        await self.service.publish()
        return entry
