"""Which entries stand on a page of the queue, in which order, and what is folded or left out."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import psycopg
from hypothesis import given, strategies as st

from escalation.model import (
    ActionKind,
    AgentId,
    BootId,
    FaultClass,
    IncidentId,
    RecommendationId,
    Report,
    Severity,
    State,
    Subject,
    SubjectKind,
)
from escalation.server.attention.values import Shelf
from escalation.server.decision.approvals import Policy
from escalation.server.service import Service
from escalation.server.storage import postgres_migration
from escalation.server.storage.postgres_settings import PostgresSettings
from escalation.server.storage.store import Delivery, Ledger
from escalation.server.testing import START_NS, ManualClock, case_report
from escalation.server.web.charts import axis, charts_of, share
from escalation.server.web.queue_page import PAGE_ROWS, QueueRow, Shelved, Sought, arrange, row_of
from escalation.view.entry import NOT_FINISHED
from tests.escalation.server.databases import Database

NOBODY = Shelved()
OPEN = Sought(NOT_FINISHED, aside=True, fold=False)


def row(number: int, **fields: object) -> QueueRow:
    made = QueueRow(
        id=RecommendationId(f"r{number:05d}"),
        incident_id=IncidentId(f"i{number:05d}"),
        state=State.PROPOSED,
        host=AgentId(f"spark-{number}"),
        fault_class=FaultClass.UNIT_RESTART_LOOP,
        fault_number=None,
        severity=Severity.HIGH,
        drill=False,
        created_ns=number,
        approvers=(),
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def ids(rows: list[QueueRow], sought: Sought = OPEN, shelved: Shelved = NOBODY) -> list[str]:
    return [place.id for place in arrange(rows, sought, person="ada", shelved=shelved).places]


def test_what_waits_for_the_reader_stands_before_what_is_worse() -> None:
    """First what ada can take further, then the worst, then the oldest; what another has in hand is later."""
    rows = [
        row(1, approvers=("ada",), severity=Severity.CRITICAL),
        row(2, state=State.DONE, severity=Severity.CRITICAL),
        row(3, severity=Severity.NOTE),
        row(4, severity=Severity.CRITICAL),
        row(5, severity=Severity.CRITICAL, created_ns=0),
        row(6, severity=Severity.CRITICAL, drill=True),
        row(7, approvers=("bob",), severity=Severity.CRITICAL, created_ns=9),
        row(8, severity=Severity.CRITICAL),
    ]
    shelved = Shelved(owners={IncidentId("i00008"): "bob", IncidentId("i00003"): "ada"})
    found = ids(rows, shelved=shelved)
    assert [int(each[1:]) for each in found] == [5, 4, 7, 6, 3, 1, 2, 8]


def test_what_is_over_comes_newest_first() -> None:
    """In the history the last thing that ended is on top, however bad it was."""
    rows = [row(1, state=State.VERIFIED, severity=Severity.CRITICAL), row(2, state=State.REJECTED)]
    assert ids(rows, Sought(None, fold=False)) == ["r00002", "r00001"]


def test_what_is_put_aside_is_left_out_and_counted() -> None:
    """Snoozed and silenced entries are not in the queue but counted, and are found by name."""
    rows = [row(1), row(2), row(3)]
    shelved = Shelved(snoozed=frozenset({IncidentId("i00001")}), silenced=frozenset({IncidentId("i00002")}))
    page = arrange(rows, OPEN, person="ada", shelved=shelved)
    assert [place.id for place in page.places] == ["r00003"]
    assert page.aside == {Shelf.SILENCED: 1, Shelf.SNOOZED: 1}
    assert page.waiting == 1
    assert ids(rows, Sought(NOT_FINISHED, shelf=Shelf.SNOOZED), shelved) == ["r00001"]


def test_entries_that_stand_alike_are_folded_into_one_that_counts_them() -> None:
    """Three or more of one class on one host are a line; two are two, and without folding each is its own."""
    alike = [row(number, host=AgentId("spark-1")) for number in range(5)]
    rows = [*alike, row(7, host=AgentId("spark-2")), row(8, host=AgentId("spark-2"))]
    page = arrange(rows, Sought(NOT_FINISHED), person="ada", shelved=NOBODY)
    assert [(place.id, place.alike) for place in page.places] == [("r00000", 4), ("r00007", 0), ("r00008", 0)]
    assert (page.total, page.lines) == (7, 3)
    assert len(ids(rows)) == 7


@given(st.integers(0, 350), st.integers(1, 9))
def test_every_entry_stands_on_exactly_one_page(count: int, asked: int) -> None:
    """The pages together hold each once, and a page past the last is the last."""
    rows = [row(number) for number in range(count)]
    first = arrange(rows, OPEN, person="ada", shelved=NOBODY)
    seen = [each for page in range(1, first.pages + 1) for each in ids(rows, replace(OPEN, page=page))]
    assert seen == [each.id for each in rows]
    assert all(len(ids(rows, replace(OPEN, page=page))) <= PAGE_ROWS for page in range(1, first.pages + 1))
    assert arrange(rows, replace(OPEN, page=asked), person="ada", shelved=NOBODY).page <= first.pages


async def test_the_database_tells_of_each_row_what_the_whole_entry_says(database: Database) -> None:
    """On both databases the rows that decide the order are those of the entries read whole."""
    store = database.open()
    try:
        desk = Service(
            store=store,
            clock=ManualClock(),
            policy=Policy(two_person=frozenset({ActionKind.RESTART_CONTAINER})),
        )
        for number in range(4):
            body = case_report(
                case_id=f"case-{number}",
                subject=Subject(SubjectKind.CONTAINER, f'"severity":"note" {number}'),
                severity=list(Severity)[number],
                drill=number == 3,
            )
            report = Report(
                agent_id=AgentId(f"spark-{number}"),
                boot_id=BootId("boot-1"),
                sequence=1,
                created_ns=START_NS,
                body=body,
            )
            await desk.receive(Delivery(report.agent_id, report.boot_id, ((1, START_NS, b""),), (report,)))
        first = next(each.recommendation for each in await desk.queue(None) if not each.incident.drill)
        await desk.approve(first.id, person="ada", reason="x", digest=first.digest)
        entries = await desk.queue(None)
        rows = await store.read(lambda ledger: ledger.queue_rows(frozenset(State), limit=9))
        whole = [row_of(entry.recommendation, entry.incident) for entry in entries]
        assert sorted(rows, key=lambda row: row.id) == sorted(whole, key=lambda row: row.id)
        assert [row.approvers for row in rows].count(("ada",)) == 1
        page = await desk.look(Sought(NOT_FINISHED, aside=True), person="bob")
        assert len(page.lines) == page.arranged.waiting == 4
    finally:
        await store.close()


_WITHOUT_COLUMNS = """
DROP INDEX recommendations_due;
DROP INDEX recommendations_since;
ALTER TABLE recommendations DROP COLUMN due_ns;
ALTER TABLE recommendations DROP COLUMN since_ns;
DROP INDEX incidents_explained;
ALTER TABLE incidents DROP COLUMN severity;
ALTER TABLE incidents DROP COLUMN explained_by;
ALTER TABLE recommendations DROP COLUMN created_ns;
ALTER TABLE recommendations DROP COLUMN approvers;
"""


def _undo(database: Database) -> None:
    """Make the database what the version before the queue's columns left."""
    if isinstance(database.where, Path):
        file = sqlite3.connect(database.where)
        file.executescript(f"{_WITHOUT_COLUMNS} PRAGMA user_version = 4;")
        file.close()
        return
    with psycopg.connect(database.where, autocommit=True) as connection:
        connection.execute(f"{_WITHOUT_COLUMNS} UPDATE orchestrator SET version = 3;")
    postgres_migration.migrate(database.where, PostgresSettings(), None)


async def test_an_older_database_tells_the_same_rows_after_its_migration(database: Database) -> None:
    """Severity, age, first approvals, causes and deadlines are read back from the values that were kept."""
    store = database.open()
    policy = Policy(two_person=frozenset({ActionKind.RESTART_CONTAINER}))
    desk = Service(store=store, clock=ManualClock(), policy=policy)
    host = AgentId("spark-1")
    bodies = [
        case_report(severity=Severity.MEDIUM),
        case_report(case_id="case-2", fault_class=FaultClass.GPU_CPU_FALLBACK),
    ]
    reports = [
        Report(agent_id=host, boot_id=BootId("boot-1"), sequence=number, created_ns=START_NS, body=body)
        for number, body in enumerate(bodies, start=1)
    ]
    await desk.receive(Delivery(host, BootId("boot-1"), [(1, 1, b""), (2, 1, b"")], reports))
    (first,) = await desk.queue(NOT_FINISHED)
    await desk.approve(first.recommendation.id, person="ada", reason="x", digest=first.recommendation.digest)

    def told(ledger: Ledger) -> object:
        due = [ledger.due(now_ns=START_NS + hours * 3600 * 10**9) for hours in (-1, 0, 4)]
        return ledger.queue_rows(frozenset(State), limit=9), ledger.explained(limit=9), due

    before = await store.read(told)
    assert [each.explained_by for each in before[1]] == [first.incident.id]  # type: ignore[index]
    assert [len(each) for each in before[2]] == [1, 0, 1]  # type: ignore[index]
    await store.close()
    _undo(database)
    store = database.open()
    assert await store.read(told) == before
    await store.close()


def test_only_quantities_are_drawn() -> None:
    """A share of nothing, a part larger than its whole and no evidence have no chart."""
    assert charts_of(()) == ()
    assert share("x", 1, 0, "") == share("x", 3, 2, "") == share("x", -1, 2, "") == ()
    assert axis([]) == ()
    assert axis([5, 5]) == (0.0, 0.0)
    assert axis([0, 5, 10]) == (0.0, 0.5, 1.0)
