"""A drill is seen everywhere, decides nothing, and never takes the place of a real fault."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from escalation.model import (
    CasePhase,
    CaseReport,
    FaultClass,
    Incident,
    Severity,
    State,
    Subject,
    SubjectKind,
)
from escalation.server.decision.approvals import Policy
from escalation.server.desk import Refused
from escalation.server.service import Service
from escalation.server.storage import sqlite_file
from escalation.server.storage.sqlite_store import SqliteStore
from escalation.server.testing import CONTAINER, FakeDesk, ManualClock, MemoryStore, case_report
from tests.escalation.server.deliveries import delivery_of

MOUNT = Subject(SubjectKind.MOUNT, "/srv/models")


class Queue:
    """A service over a store, and the host that reports to it."""

    def __init__(self, store: SqliteStore | MemoryStore) -> None:
        self.service = Service(store=store, clock=ManualClock(), policy=Policy())
        self._sequence = 0

    async def tell(self, body: CaseReport) -> None:
        """Let the host report `body`."""
        self._sequence += 1
        await self.service.receive(delivery_of(self._sequence, body))

    async def open(self) -> dict[bool, Incident]:
        """Return the open incidents, by whether they are drills."""
        found = [each for each in await self.service.incidents() if each.open]
        assert len({each.drill for each in found}) == len(found)
        return {each.drill: each for each in found}


@pytest.fixture(params=["memory", "sqlite"])
async def queue(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Queue]:
    """The queue over each of the stores."""
    if request.param == "memory":
        yield Queue(MemoryStore())
        return
    store = SqliteStore(path=tmp_path / "orchestrator.db")
    yield Queue(store)
    await store.close()


def full(phase: CasePhase = CasePhase.OPENED, *, drill: bool, case_id: str = "case-1") -> CaseReport:
    """Return a filesystem that is full."""
    return case_report(
        phase, case_id=case_id, fault_class=FaultClass.STORAGE_FULL, subject=MOUNT, drill=drill
    )


@pytest.mark.parametrize("first", [True, False])
async def test_a_real_fault_is_not_swallowed_by_a_drill_nor_ends_with_it(
    queue: Queue, *, first: bool
) -> None:
    """The same class and subject, one real and one practised, in either order: two incidents, two ends."""
    await queue.tell(full(drill=first, case_id=f"case {first}"))
    await queue.tell(full(drill=not first, case_id=f"case {not first}"))
    found = await queue.open()
    assert set(found) == {True, False}
    assert found[True].id != found[False].id
    await queue.tell(full(CasePhase.CLEARED, drill=True, case_id="case True"))
    assert set(await queue.open()) == {False}
    (row,) = await queue.service.queue(frozenset({State.PROPOSED}))
    assert row.incident.id == found[False].id


async def test_what_began_as_a_drill_is_real_as_soon_as_its_host_says_so(queue: Queue) -> None:
    """The same case reported without the mark turns real and can be approved; it never turns back."""
    await queue.tell(full(drill=True))
    (practised,) = (await queue.open()).values()
    await queue.tell(full(CasePhase.UPDATED, drill=False))
    (real,) = (await queue.open()).values()
    assert real == replace(practised, drill=False)
    (row,) = await queue.service.queue(frozenset({State.PROPOSED}))
    digest = row.recommendation.digest
    await queue.service.approve(row.recommendation.id, person="ada", reason="it is real", digest=digest)
    await queue.tell(full(CasePhase.UPDATED, drill=True))
    assert set(await queue.open()) == {False}
    assert "incident.is_no_drill" in {each.verb for each in await queue.service.audit(after=0, limit=100)}
    await queue.tell(full(drill=True, case_id="case-2"))
    assert set(await queue.open()) == {True, False}


async def test_a_drill_that_turns_real_beside_a_real_one_stays_what_it_was(queue: Queue) -> None:
    """The real one is there already: there are never two of a kind."""
    await queue.tell(full(drill=True, case_id="drill"))
    await queue.tell(full(drill=False, case_id="real"))
    await queue.tell(full(CasePhase.UPDATED, drill=False, case_id="drill"))
    assert set(await queue.open()) == {True, False}
    await queue.tell(full(CasePhase.CLEARED, drill=False, case_id="drill"))
    assert set(await queue.open()) == {False}


async def test_a_drill_is_shown_and_rejected_and_never_approved() -> None:
    """Nothing is broken, so nothing is carried out; whoever has seen it may put it away."""
    desk = FakeDesk()
    entry = await desk.opened(drill=True)
    assert entry.incident.drill
    with pytest.raises(Refused, match="is of a drill: nothing is broken"):
        await desk.approve(
            entry.recommendation.id, person="ada", reason="why not", digest=entry.recommendation.digest
        )
    rejected = await desk.reject(entry.recommendation.id, person="ada", reason="seen")
    assert rejected.recommendation.state is State.REJECTED
    await desk.cleared(drill=True)
    assert not [each for each in await desk.incidents() if each.open]


async def test_of_two_that_are_as_bad_the_real_one_stands_first() -> None:
    """A drill that came first does not stand before what is real."""
    desk = FakeDesk()
    drill = await desk.opened(drill=True, case_id="drill")
    desk.clock.advance(60.0)
    real = await desk.opened(case_id="real")
    ids = [each.incident.id for each in await desk.queue(None)]
    assert ids == [real.incident.id, drill.incident.id]


@pytest.mark.parametrize(("practised", "explained"), [((), 1), ((0,), 0), ((1,), 0), ((0, 1), 0)])
async def test_a_drill_explains_nothing_and_is_not_explained(
    practised: tuple[int, ...], explained: int
) -> None:
    """Neither of a real incident nor of another drill; the same two faults, both real, are one cause."""
    desk = FakeDesk()
    box = Subject(SubjectKind.CONTAINER, CONTAINER)
    for number, fault in enumerate((FaultClass.GPU_ACCESS_REVOKED, FaultClass.GPU_CPU_FALLBACK)):
        await desk.report(
            case_report(
                case_id=f"case-{number}",
                fault_class=fault,
                subject=box,
                severity=Severity.HIGH,
                drill=number in practised,
            )
        )
    found = await desk.incidents()
    assert sum(each.explained_by is not None for each in found) == explained


async def test_stalls_that_are_practised_on_two_hosts_are_no_stall_over_both() -> None:
    """What hosts agree on is made of real incidents only."""
    desk = FakeDesk()
    for host in ("spark-1", "spark-2"):
        await desk.report(
            case_report(
                case_id=f"stall-{host}",
                fault_class=FaultClass.ROUTE_ENGINE_STALLED,
                drill=True,
                severity=Severity.HIGH,
            ),
            host=host,
        )
    assert {each.fault_class for each in await desk.incidents()} == {FaultClass.ROUTE_ENGINE_STALLED}


async def test_an_older_database_has_no_drills_and_takes_them_from_now_on(tmp_path: Path) -> None:
    """Its incidents are real ones; the schema is brought up to date when it is opened."""
    path = tmp_path / "orchestrator.db"
    store = SqliteStore(path=path)
    await Queue(store).tell(full(drill=False))
    await store.close()
    database = sqlite3.connect(path)
    database.executescript(
        "DROP TABLE notices; DROP TABLE records; DROP INDEX incidents_open; DROP INDEX incidents_explained; "
        "ALTER TABLE incidents DROP COLUMN drill; ALTER TABLE incidents DROP COLUMN severity; "
        "ALTER TABLE incidents DROP COLUMN explained_by; "
        "DROP INDEX recommendations_due; DROP INDEX recommendations_since; "
        "ALTER TABLE recommendations DROP COLUMN due_ns; ALTER TABLE recommendations DROP COLUMN since_ns; "
        "ALTER TABLE recommendations DROP COLUMN created_ns; "
        "ALTER TABLE recommendations DROP COLUMN approvers; "
        "UPDATE incidents SET value = json_remove(value, '$.drill'); "
        "CREATE UNIQUE INDEX incidents_open ON incidents (agent_id, fault_class, "
        "ifnull(fault_number, -1), subject_kind, subject_name) WHERE open = 1; PRAGMA user_version = 1;"
    )
    database.close()

    reopened = SqliteStore(path=path)
    queue = Queue(reopened)
    assert set(await queue.open()) == {False}
    queue._sequence = 1
    await queue.tell(full(drill=True, case_id="case-2"))
    assert set(await queue.open()) == {True, False}
    await reopened.close()
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA user_version").fetchone() == (len(sqlite_file.migrations()),)
    assert database.execute("SELECT drill FROM incidents ORDER BY drill").fetchall() == [(0,), (1,)]
    database.close()
