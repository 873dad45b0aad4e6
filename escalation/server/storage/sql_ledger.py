"""The ledger in SQL that SQLite and PostgreSQL both read; what differs is behind `Database`.

What a busy transaction touches again and again (hosts, open incidents, their cases, the highest number of
each boot) is held in memory and written once, when the transaction ends or a query has to see it. The cache
is only right while nobody else writes: who lets others write between two transactions calls `forget`, or
`forget_changed` with what they wrote to.

Longer than other modules because each kind of row has its statements, and all of them share that cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final, Protocol

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
    State,
)
from escalation.server.decision.approvals import due_of
from escalation.server.desk import AuditEntry, HostState
from escalation.server.incident.incidents import Case, Clearing, Key, key_of
from escalation.server.storage import rows
from escalation.server.storage.sql_notices import SqlNotices
from escalation.server.storage.sql_records import SqlRecords
from escalation.server.storage.store import Added, Delivery, ReportRow, Sketch, StoreCorrupt
from escalation.server.web.queue_page import QueueRow

_CACHED: Final = 4096
"""How many values of one kind are held; above it the cache starts anew at the next commit."""

_KEY_COLUMNS: Final = (
    "agent_id = ? AND fault_class = ? AND coalesce(fault_number, -1) = ? "
    "AND subject_kind = ? AND subject_name = ? AND drill = ?"
)


_ALL: Final = 2**62
"""A limit that limits nothing, in both dialects."""

Values = Sequence[Any]


class Rows(Protocol):
    """What a statement found."""

    def fetchone(self) -> Any:
        """Return the next row, or None."""

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""

    def __iter__(self) -> Iterator[Any]:
        """Yield the rows that are left."""


class Database(Protocol):
    """One connection in a transaction; a question mark stands for a value."""

    def execute(self, statement: str, values: Values = (), /) -> Rows:
        """Run one statement."""

    def execute_each(self, statement: str, rows: Iterable[Values], /) -> None:
        """Run one statement for each row of values."""

    def add_new(self, boot: int, rows: Sequence[ReportRow], *, received_ns: int) -> None:
        """Keep reports of which none is kept yet; at the latest when `flush` returns."""

    def add_some(self, boot: int, rows: Sequence[ReportRow], *, received_ns: int) -> set[int]:
        """Keep the reports that are not kept yet, and return their numbers."""

    def forget_reports(self, *, received_before_ns: int, limit: int) -> int:
        """Delete the oldest reports, at most `limit`, and return how many."""

    def flush(self) -> None:
        """Write what was held back."""

    def forget(self) -> None:
        """Drop what was held back: the transaction was undone."""


@dataclass(slots=True)
class _Boot:
    number: int
    highest: int


class SqlLedger:
    """Reads and writes one transaction at a time on `database`; the caller begins and ends it."""

    def __init__(self, *, database: Database) -> None:
        """Start with nothing cached."""
        self.database = database
        self.notices = SqlNotices(database=database)
        self.records = SqlRecords(database=database)
        self._boots: dict[tuple[AgentId, BootId], _Boot] = {}
        self._hosts: dict[AgentId, HostState | None] = {}
        self._cases: dict[tuple[AgentId, CaseId], Case | None] = {}
        self._incidents: dict[IncidentId, Incident] = {}
        self._open: dict[Key, IncidentId | None] = {}
        self._recommendations: dict[IncidentId, list[Recommendation]] = {}
        self._last_audit: AuditEntry | None = None
        self._dirty_boots: set[tuple[AgentId, BootId]] = set()
        self._dirty_hosts: set[AgentId] = set()
        self._dirty_cases: set[tuple[AgentId, CaseId]] = set()
        self._dirty_incidents: set[IncidentId] = set()

    def __repr__(self) -> str:
        return f"SqlLedger(incidents={len(self._incidents)}, cases={len(self._cases)})"

    # The store's side ---------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write what was changed in memory only."""
        self.database.flush()
        if self._dirty_boots:
            changed = [self._boots[key] for key in self._dirty_boots]
            self.database.execute_each(
                "UPDATE boots SET highest = ? WHERE number = ?",
                [(boot.highest, boot.number) for boot in changed],
            )
            self._dirty_boots.clear()
        if self._dirty_hosts:
            hosts = [self._hosts[agent_id] for agent_id in self._dirty_hosts]
            self.database.execute_each(
                "INSERT INTO hosts VALUES (?, ?) ON CONFLICT (agent_id) DO UPDATE SET value = excluded.value",
                [(host.agent_id, rows.dump(host)) for host in hosts if host is not None],
            )
            self._dirty_hosts.clear()
        self._flush_incidents()
        if self._dirty_cases:
            cases = [self._cases[key] for key in self._dirty_cases]
            self.database.execute_each(
                "INSERT INTO cases VALUES (?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (agent_id, case_id) DO UPDATE SET "
                "incident_id = excluded.incident_id, count = excluded.count, "
                "cleared_boot_id = excluded.cleared_boot_id, "
                "cleared_sequence = excluded.cleared_sequence, "
                "cleared_created_ns = excluded.cleared_created_ns",
                [_case_row(case) for case in cases if case is not None],
            )
            self._dirty_cases.clear()

    def forget(self) -> None:
        """Drop everything that is held in memory: the transaction was undone, or another one begins."""
        for held in (
            self._boots,
            self._hosts,
            self._cases,
            self._incidents,
            self._open,
            self._recommendations,
            self._dirty_boots,
            self._dirty_hosts,
            self._dirty_cases,
            self._dirty_incidents,
        ):
            held.clear()
        self._last_audit = None
        self.records.forget()
        self.database.forget()

    def forget_changed(self, *, hosts: AbstractSet[str], incidents: AbstractSet[str]) -> None:
        """Drop what somebody else may have changed, who wrote to these hosts and incidents only.

        A case is written with its incident, a boot with its host. What was looked up and not there is dropped
        too: it may be there now.
        """
        self._boots = {key: boot for key, boot in self._boots.items() if key[0] not in hosts}
        self._hosts = {
            key: host for key, host in self._hosts.items() if host is not None and key not in hosts
        }
        self._cases = {
            key: case
            for key, case in self._cases.items()
            if case is not None and key[0] not in hosts and case.incident_id not in incidents
        }
        self._incidents = {key: each for key, each in self._incidents.items() if key not in incidents}
        self._open = {
            key: each for key, each in self._open.items() if each is not None and each not in incidents
        }
        self._recommendations = {
            key: each for key, each in self._recommendations.items() if key not in incidents and each
        }
        self._last_audit = None
        self.records.forget()

    def trim(self) -> None:
        """Drop what is held when it has grown too large; to be called between transactions."""
        held = (self._boots, self._hosts, self._cases, self._incidents, self._open, self._recommendations)
        if any(len(each) > _CACHED for each in held):
            self.forget()
        self.records.trim(_CACHED)

    # Reports ------------------------------------------------------------------------------------------

    def add_reports(self, delivery: Delivery, *, received_ns: int) -> Added:
        """Keep the reports that are not kept yet."""
        if not delivery.rows:
            return Added(fresh=(), count=0, missing=0)
        boot = self._boot(delivery.agent_id, delivery.boot_id)
        first, last = delivery.rows[0][0], delivery.rows[-1][0]
        if first > boot.highest:
            self.database.add_new(boot.number, delivery.rows, received_ns=received_ns)
            missing = last - boot.highest - len(delivery.rows)
            added = Added(fresh=range(first, last + 1), count=len(delivery.rows), missing=missing)
        else:
            added = self._add_some(delivery, boot, received_ns)
        if last > boot.highest:
            boot.highest = last
            self._dirty_boots.add((delivery.agent_id, delivery.boot_id))
        return added

    def forget_reports(self, *, received_before_ns: int, limit: int) -> int:
        """Delete the oldest reports, at most `limit`, and return how many; what they said is kept."""
        return self.database.forget_reports(received_before_ns=received_before_ns, limit=limit)

    def _add_some(self, delivery: Delivery, boot: _Boot, received_ns: int) -> Added:
        """Add what comes, in part or in whole, a second time."""
        fresh = self.database.add_some(boot.number, delivery.rows, received_ns=received_ns)
        highest, missing = boot.highest, 0
        for sequence, _, _ in delivery.rows:
            if sequence > highest:
                missing += sequence - highest - 1
                highest = sequence
        return Added(fresh=fresh, count=len(fresh), missing=missing)

    def _boot(self, agent_id: AgentId, boot_id: BootId) -> _Boot:
        key = (agent_id, boot_id)
        boot = self._boots.get(key)
        if boot is None:
            row = self.database.execute(
                "INSERT INTO boots (agent_id, boot_id, highest) VALUES (?, ?, 0) "
                "ON CONFLICT (agent_id, boot_id) DO UPDATE SET agent_id = excluded.agent_id "
                "RETURNING number, highest",
                key,
            ).fetchone()
            boot = self._boots[key] = _Boot(row[0], row[1])
        return boot

    # Cases and incidents ------------------------------------------------------------------------------

    def case(self, agent_id: AgentId, case_id: CaseId) -> Case | None:
        """Return what is known of a host's case."""
        key = (agent_id, case_id)
        if key not in self._cases:
            row = self.database.execute(
                "SELECT incident_id, count, cleared_boot_id, cleared_sequence, cleared_created_ns "
                "FROM cases WHERE agent_id = ? AND case_id = ?",
                key,
            ).fetchone()
            self._cases[key] = None if row is None else _case(agent_id, case_id, row)
        return self._cases[key]

    def put_case(self, case: Case) -> None:
        """Keep what is now known of a case."""
        key = (case.agent_id, case.case_id)
        self._cases[key] = case
        self._dirty_cases.add(key)

    def incident(self, incident_id: IncidentId) -> Incident | None:
        """Return the incident with this id."""
        found = self._incidents.get(incident_id)
        if found is None:
            row = self.database.execute("SELECT value FROM incidents WHERE id = ?", (incident_id,)).fetchone()
            if row is None:
                return None
            found = self._incidents[incident_id] = rows.load_incident(row[0])
        return found

    def open_incident(self, key: Key) -> Incident | None:
        """Return the open incident with this key."""
        if key not in self._open:
            self._flush_incidents()
            row = self.database.execute(
                f"SELECT id FROM incidents WHERE open = 1 AND {_KEY_COLUMNS}",  # noqa: S608 - a constant
                _key_values(key),
            ).fetchone()
            self._open[key] = None if row is None else row[0]
        incident_id = self._open[key]
        return None if incident_id is None else self.incident(incident_id)

    def put_incident(self, incident: Incident) -> None:
        """Keep the incident as it now is."""
        key = key_of(incident)
        before = self._incidents.get(incident.id)
        if before is not None and before.drill is not incident.drill:
            self._open.pop(key_of(before), None)
        self._incidents[incident.id] = incident
        if incident.open:
            self._open[key] = incident.id
        elif self._open.get(key) == incident.id:
            self._open[key] = None
        self._dirty_incidents.add(incident.id)

    def incidents(self, *, limit: int) -> Sequence[Incident]:
        """Return incidents, open ones first, newest first."""
        self._flush_incidents()
        found = self.database.execute(
            "SELECT value FROM incidents ORDER BY open DESC, last_seen_ns DESC LIMIT ?", (limit,)
        )
        return [rows.load_incident(value) for (value,) in found]

    def incidents_after(self, name: str, *, limit: int) -> Sequence[Incident]:
        """Return the first `limit` incidents whose id follows `name`, in the order of their ids."""
        self._flush_incidents()
        found = self.database.execute(
            "SELECT value FROM incidents WHERE id > ? ORDER BY id LIMIT ?", (name, limit)
        )
        return [rows.load_incident(value) for (value,) in found]

    def incident_count(self) -> int:
        """Return how many incidents are kept."""
        self._flush_incidents()
        return int(self.database.execute("SELECT count(*) FROM incidents").fetchone()[0])

    def open_of(
        self, fault_classes: frozenset[FaultClass], *, limit: int, agent_id: AgentId | None = None
    ) -> Sequence[Incident]:
        """Return the newest `limit` open incidents of `agent_id` (None: any host) and of these classes."""
        self._flush_incidents()
        marks = ", ".join("?" * len(fault_classes))
        found = self.database.execute(
            f"SELECT id FROM incidents WHERE open = 1 AND fault_class IN ({marks}) "  # noqa: S608 - question marks only
            f"{'' if agent_id is None else 'AND agent_id = ? '}ORDER BY last_seen_ns DESC, id LIMIT ?",
            (*sorted(fault_classes), *(() if agent_id is None else (agent_id,)), limit),
        ).fetchall()
        incidents = (self.incident(IncidentId(incident_id)) for (incident_id,) in found)
        return [each for each in incidents if each is not None]

    def explained(self, *, limit: int) -> Sequence[Incident]:
        """Return the newest `limit` open incidents that another one explains."""
        self._flush_incidents()
        found = self.database.execute(
            "SELECT id FROM incidents WHERE open = 1 AND explained_by IS NOT NULL "
            "ORDER BY last_seen_ns DESC, id LIMIT ?",
            (limit,),
        ).fetchall()
        incidents = (self.incident(IncidentId(incident_id)) for (incident_id,) in found)
        return [each for each in incidents if each is not None]

    def open_count(self, agent_id: AgentId) -> int:
        """Return how many incidents of a host are open."""
        self._flush_incidents()
        row = self.database.execute(
            "SELECT count(*) FROM incidents WHERE open = 1 AND agent_id = ?", (agent_id,)
        ).fetchone()
        return int(row[0])

    def _flush_incidents(self) -> None:
        if not self._dirty_incidents:
            return
        # Those that closed go first: the one that takes a key over may be among the others.
        dirty = sorted((self._incidents[each] for each in self._dirty_incidents), key=lambda each: each.open)
        self.database.execute_each(
            "INSERT INTO incidents (id, agent_id, fault_class, fault_number, subject_kind, subject_name, "
            "open, last_seen_ns, value, drill, severity, explained_by) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
            "open = excluded.open, last_seen_ns = excluded.last_seen_ns, value = excluded.value, "
            "drill = excluded.drill, severity = excluded.severity, explained_by = excluded.explained_by",
            [
                (
                    incident.id,
                    *_key_columns(incident),
                    int(incident.open),
                    incident.last_seen_ns,
                    value,
                    int(incident.drill),
                    incident.severity,
                    incident.explained_by,
                )
                for incident, value in ((each, rows.dump_incident(each)) for each in dirty)
            ],
        )
        self._dirty_incidents.clear()

    # Recommendations ----------------------------------------------------------------------------------

    def recommendation(self, recommendation_id: RecommendationId) -> Recommendation | None:
        """Return the recommendation with this id."""
        row = self.database.execute(
            "SELECT value FROM recommendations WHERE id = ?", (recommendation_id,)
        ).fetchone()
        return None if row is None else rows.load_recommendation(row[0])

    def recommendations(self, incident_id: IncidentId) -> Sequence[Recommendation]:
        """Return an incident's recommendations, oldest first."""
        held = self._recommendations.get(incident_id)
        if held is None:
            found = self.database.execute(
                "SELECT value FROM recommendations WHERE incident_id = ? ORDER BY position", (incident_id,)
            )
            held = [rows.load_recommendation(value) for (value,) in found]
            self._recommendations[incident_id] = held
        return tuple(held)

    def recommendations_after(self, name: str, *, limit: int) -> Sequence[Recommendation]:
        """Return the first `limit` recommendations whose id follows `name`, in the order of their ids."""
        found = self.database.execute(
            "SELECT value FROM recommendations WHERE id > ? ORDER BY id LIMIT ?", (name, limit)
        )
        return [rows.load_recommendation(value) for (value,) in found]

    def in_states(self, states: frozenset[State], *, limit: int | None) -> Sequence[Recommendation]:
        """Return the newest `limit` recommendations (None: all) that are in one of `states`, oldest first."""
        marks = ", ".join("?" * len(states))
        found = self.database.execute(
            f"SELECT value FROM recommendations WHERE state IN ({marks}) "  # noqa: S608 - question marks only
            "ORDER BY position DESC LIMIT ?",
            (*sorted(states), _ALL if limit is None else limit),
        ).fetchall()
        return [rows.load_recommendation(value) for (value,) in reversed(found)]

    def due(self, *, now_ns: int) -> Sequence[Recommendation]:
        """Return the recommendations that time alone may change by now, oldest first."""
        found = self.database.execute(
            "SELECT value FROM recommendations WHERE position IN ("
            "SELECT position FROM recommendations WHERE due_ns <= ? "
            "UNION ALL SELECT position FROM recommendations WHERE since_ns > ?) ORDER BY position",
            (now_ns, now_ns),
        )
        return [rows.load_recommendation(value) for (value,) in found]

    def oldest(self, state: State) -> int | None:
        """Return when the oldest recommendation in `state` was made (Unix ns); None where there is none."""
        row = self.database.execute(
            "SELECT min(created_ns) FROM recommendations WHERE state = ?", (state,)
        ).fetchone()
        return None if row[0] is None else int(row[0])

    def queue_rows(self, states: frozenset[State], *, limit: int) -> Sequence[QueueRow]:
        """Return what decides the place of the newest `limit` entries in one of `states`, oldest first."""
        self._flush_incidents()
        marks = ", ".join("?" * len(states))
        found = self.database.execute(
            "SELECT recommendations.id, incident_id, state, agent_id, incidents.fault_class, fault_number, "  # noqa: S608 - question marks only
            "severity, drill, created_ns, approvers FROM recommendations "
            "JOIN incidents ON incidents.id = recommendations.incident_id "
            f"WHERE state IN ({marks}) ORDER BY position DESC LIMIT ?",
            (*sorted(states), limit),
        ).fetchall()
        return [rows.queue_row(row) for row in reversed(found)]

    def sketches(self, states: frozenset[State]) -> Sequence[Sketch]:
        """Return whom the recommendations in one of `states` concern, oldest first."""
        self._flush_incidents()
        marks = ", ".join("?" * len(states))
        found = self.database.execute(
            "SELECT recommendations.id, incident_id, agent_id, incidents.fault_class, subject_kind, "  # noqa: S608 - question marks only
            "subject_name, severity FROM recommendations "
            "JOIN incidents ON incidents.id = recommendations.incident_id "
            f"WHERE state IN ({marks}) ORDER BY position",
            sorted(states),
        )
        return [rows.sketch(row) for row in found]

    def done_with_key(self, key: Key) -> Sequence[Recommendation]:
        """Return the recommendations in DONE whose incident has this key."""
        self._flush_incidents()
        found = self.database.execute(
            "SELECT recommendations.value FROM recommendations "  # noqa: S608 - a constant
            "JOIN incidents ON incidents.id = recommendations.incident_id "
            f"WHERE state = 'done' AND {_KEY_COLUMNS.replace('fault_class', 'incidents.fault_class')} "
            "ORDER BY position",
            _key_values(key),
        ).fetchall()
        return [rows.load_recommendation(value) for (value,) in found]

    def put_recommendation(self, recommendation: Recommendation, incident: Incident) -> None:
        """Keep the recommendation as it now is."""
        due = due_of(recommendation)
        self.database.execute(
            "INSERT INTO recommendations (id, incident_id, state, fault_class, action_kind, value, "
            "created_ns, approvers, due_ns, since_ns) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET "
            "state = excluded.state, action_kind = excluded.action_kind, value = excluded.value, "
            "created_ns = excluded.created_ns, approvers = excluded.approvers, "
            "due_ns = excluded.due_ns, since_ns = excluded.since_ns",
            (
                recommendation.id,
                recommendation.incident_id,
                recommendation.state,
                incident.fault_class,
                recommendation.advice.action.kind,
                rows.dump(recommendation),
                recommendation.created_ns,
                rows.dump(recommendation.approvers),
                None if due is None else due.at_ns,
                None if due is None else due.since_ns,
            ),
        )
        held = self._recommendations.get(recommendation.incident_id)
        if held is None:
            return
        for position, each in enumerate(held):
            if each.id == recommendation.id:
                held[position] = recommendation
                return
        held.append(recommendation)

    def state_counts(self) -> Mapping[State, int]:
        """Return how many recommendations are in each state; a state that has none may be absent."""
        found = self.database.execute("SELECT state, count(*) FROM recommendations GROUP BY state")
        return {State(state): count for state, count in found}

    def outcomes(self, fault_class: FaultClass, kind: ActionKind) -> tuple[int, int]:
        """Return how often this kind of action cured this fault class, and how often it was tried."""
        row = self.database.execute(
            "SELECT count(*) FILTER (WHERE state = 'verified'), count(*) FROM recommendations "
            "WHERE fault_class = ? AND action_kind = ? AND state IN ('verified', 'not_cured')",
            (fault_class, kind),
        ).fetchone()
        return int(row[0]), int(row[1])

    # Hosts --------------------------------------------------------------------------------------------

    def host(self, agent_id: AgentId) -> HostState | None:
        """Return what is known of a host."""
        if agent_id not in self._hosts:
            row = self.database.execute("SELECT value FROM hosts WHERE agent_id = ?", (agent_id,)).fetchone()
            self._hosts[agent_id] = None if row is None else rows.load_host(row[0])
        return self._hosts[agent_id]

    def hosts(self) -> Sequence[HostState]:
        """Return all hosts, by name."""
        self.flush()
        found = self.database.execute("SELECT value FROM hosts ORDER BY agent_id")
        return [rows.load_host(value) for (value,) in found]

    def put_host(self, host: HostState) -> None:
        """Keep what is now known of a host."""
        self._hosts[host.agent_id] = host
        self._dirty_hosts.add(host.agent_id)

    # Audit --------------------------------------------------------------------------------------------

    def last_audit(self) -> AuditEntry | None:
        """Return the newest audit entry."""
        if self._last_audit is None:
            row = self.database.execute("SELECT * FROM audit ORDER BY number DESC LIMIT 1").fetchone()
            self._last_audit = None if row is None else AuditEntry(*row)
        return self._last_audit

    def add_audit(self, entry: AuditEntry) -> None:
        """Append the entry that follows the newest one."""
        self.database.execute(
            "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                entry.number,
                entry.at_ns,
                entry.actor,
                entry.verb,
                entry.object_id,
                entry.detail,
                entry.previous,
                entry.digest,
            ),
        )
        self._last_audit = entry

    def audit(self, *, after: int, limit: int) -> Sequence[AuditEntry]:
        """Return audit entries numbered above `after`, in order."""
        found = self.database.execute(
            "SELECT * FROM audit WHERE number > ? ORDER BY number LIMIT ?", (after, limit)
        )
        return [AuditEntry(*row) for row in found]


def _key_values(key: Key) -> tuple[str, str, int, str, str, int]:
    number = -1 if key.fault_number is None else key.fault_number
    return key.agent_id, key.fault_class, number, key.subject.kind, key.subject.name, int(key.drill)


def _key_columns(incident: Incident) -> tuple[str, str, int | None, str, str]:
    subject = incident.subject
    return incident.agent_id, incident.fault_class, incident.fault_number, subject.kind, subject.name


def _case_row(case: Case) -> tuple[str, str, str, int, str | None, int | None, int | None]:
    clearing = case.clearing
    if clearing is None:
        return case.agent_id, case.case_id, case.incident_id, case.count, None, None, None
    cleared = (clearing.boot_id, clearing.sequence, clearing.created_ns)
    return case.agent_id, case.case_id, case.incident_id, case.count, *cleared


def _case(
    agent_id: AgentId, case_id: CaseId, row: tuple[str, int, str | None, int | None, int | None]
) -> Case:
    incident_id, count, boot_id, sequence, created_ns = row
    clearing = None
    if boot_id is not None:
        if sequence is None or created_ns is None:
            raise StoreCorrupt("a case in the database is cleared by half a report")
        clearing = Clearing(BootId(boot_id), sequence, created_ns)
    return Case(agent_id, case_id, IncidentId(incident_id), count, clearing)
