"""Several processes on one PostgreSQL database: one after the other, once each, and honest about it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psycopg
import pytest

from dev import postgres
from escalation.model import CasePhase, State
from escalation.server import audit, steps, triage
from escalation.server.decision.approvals import Policy
from escalation.server.desk import DeskError, Entry
from escalation.server.service import Service
from escalation.server.storage import postgres_migration
from escalation.server.storage.postgres_settings import PostgresSettings
from escalation.server.storage.postgres_store import PostgresStore
from escalation.server.storage.store import Ledger, StoreCorrupt, StoreTooNew, StoreTooOld, StoreUnavailable
from escalation.server.testing import START_NS, ManualClock, case_report, heartbeat
from tests.escalation.server.databases import Database
from tests.escalation.server.deliveries import delivery_of
from tests.escalation.server.postgres_desks import SETTINGS, desk_of, end_connections, info_of, opened

pytestmark = pytest.mark.postgres
_IMPATIENT = PostgresSettings(idle_s=0.1)
"""Shorter than a configuration may say: what takes a minute there takes a moment here."""


async def test_two_processes_make_one_incident_of_one_fault(shared: Database) -> None:
    """The same report to both, at once and again: one incident, one proposal, one whole chain."""
    async with opened(shared) as stores:
        desks = [desk_of(each) for each in stores]
        await asyncio.gather(*(desk.receive(delivery_of(1)) for desk in desks for _ in range(5)))
        incidents = [await desk.incidents() for desk in desks]
        assert incidents[0] == incidents[1]
        assert len(incidents[0]) == 1
        assert len(await desks[0].queue(None)) == 1
        chain = await desks[1].audit(after=0, limit=100)
        assert audit.verify(chain) is None
        assert [each.verb for each in chain] == [
            "host.first_heard", "incident.opened", "recommendation.proposed"
        ]  # fmt: skip


async def test_the_chain_is_one_whatever_the_processes_write(shared: Database) -> None:
    """Three processes with many hosts each: every entry follows the one before it."""
    async with opened(shared, 3) as stores:
        desks = [desk_of(each) for each in stores]
        await asyncio.gather(
            *(
                desk.receive(
                    delivery_of(number, case_report(count=number), host=f"host-{place}-{number % 4}")
                )
                for number in range(1, 21)
                for place, desk in enumerate(desks)
            )
        )
        chain = await desks[0].audit(after=0, limit=1000)
        assert audit.verify(chain) is None
        assert len(await desks[0].incidents()) == 12


_DECISIONS = ("approve", "reject", "withdraw", "expire")


@pytest.mark.parametrize("first", _DECISIONS)
@pytest.mark.parametrize("second", _DECISIONS)
async def test_of_two_that_race_exactly_one_decides(shared: Database, first: str, second: str) -> None:
    """Whatever two processes do with one proposal at the same moment, it takes one way, and is told once."""
    clock = ManualClock()
    async with opened(shared) as stores:
        desks = [desk_of(each, clock) for each in stores]
        await desks[0].receive(delivery_of(1))
        (entry,) = await desks[0].queue(None)

        async def act(desk: Service, number: int, what: str) -> None:
            match what:
                case "approve":
                    await desk.approve(
                        entry.recommendation.id,
                        person=f"p{number}",
                        reason="why",
                        digest=entry.recommendation.digest,
                    )
                case "reject":
                    await desk.reject(entry.recommendation.id, person=f"p{number}", reason="no")
                case "withdraw":
                    await desk.receive(delivery_of(number + 2, case_report(CasePhase.CLEARED)))
                case _:
                    await stores[number].write(
                        partial(
                            triage.pass_time,
                            overdue=frozenset(),
                            policy=Policy(),
                            now_ns=START_NS + 5 * 3600 * 10**9,
                            trusted_ns=START_NS,
                        )
                    )

        results = await asyncio.gather(
            act(desks[0], 0, first), act(desks[1], 1, second), return_exceptions=True
        )
        assert all(each is None or isinstance(each, DeskError) for each in results)
        refused = [each for each in results if each is not None]
        chain = await desks[0].audit(after=0, limit=100)
        assert audit.verify(chain) is None
        ways = [
            each.verb
            for each in chain
            if each.object_id == entry.recommendation.id and each.verb != "recommendation.proposed"
        ]
        people = [what for what in (first, second) if what in {"approve", "reject"}]
        settled = await desks[1].entry(entry.recommendation.id)
        assert settled.recommendation.state is not State.PROPOSED
        assert ways[0] == f"recommendation.{_state_after(ways[0])}"
        decided = [way for way in ways if way in {"recommendation.approved", "recommendation.rejected"}]
        assert len(decided) + len(refused) == len(people)
        assert len(decided) <= 1
        # An approved one may still lapse or be done; what was settled otherwise stays as it is.
        assert len(ways) == 1 or ways[0] == "recommendation.approved"


def _state_after(verb: str) -> State:
    return State(verb.removeprefix("recommendation."))


async def test_tells_what_others_wrote_and_never_what_it_wrote_itself(shared: Database) -> None:
    """The other process learns the changed entry and the host once, the writing one nothing."""
    async with opened(shared) as (mine, other):
        desk = desk_of(mine)
        assert (await other.elsewhere()).changed == ()
        await desk.receive(delivery_of(1))
        (entry,) = await desk.queue(None)
        told = await other.elsewhere()
        assert told.changed == (entry.recommendation.id,)
        assert [host.agent_id for host in told.heard] == ["spark-1"]
        assert await other.elsewhere() == await mine.elsewhere()
        await desk.receive(delivery_of(2, case_report(CasePhase.UPDATED, count=5)))
        assert (await other.elsewhere()).changed == (entry.recommendation.id,), "its incident was updated"
        assert (await mine.elsewhere()).changed == ()


async def test_watchers_see_what_another_process_decided(shared: Database) -> None:
    """Whoever watches one orchestrator sees an approval that was given to the other."""
    async with opened(shared) as stores:
        desks = [desk_of(each) for each in stores]
        await desks[0].receive(delivery_of(1))
        await desks[1].tick()
        (entry,) = await desks[1].queue(None)
        changes = desks[1].changes()
        await desks[0].reject(entry.recommendation.id, person="ada", reason="no")
        await desks[1].tick()
        await desks[1].publish()
        seen: Entry = await asyncio.wait_for(anext(changes), 5)
        assert seen.recommendation.state is State.REJECTED
        await changes.aclose()  # type: ignore[attr-defined]


async def test_one_process_leads_and_the_next_takes_over(shared: Database) -> None:
    """What is due is done by one; when it is gone, another does it."""
    async with opened(shared) as (first, second):
        assert await first.leads()
        assert await first.leads()
        assert not await second.leads()
        await first.close()
        assert await second.leads()


async def test_one_that_stands_still_in_its_turn_holds_nobody_up(shared: Database) -> None:
    """The server ends its transaction, the other writes, and it runs its work again after that."""
    other_wrote = threading.Event()
    runs: list[int] = []

    def stand_still(ledger: Ledger) -> None:
        runs.append(1)
        other_wrote.wait(10)
        steps.note(ledger, actor="first", verb="x", object_id="y", detail="z", now_ns=1)

    def write(ledger: Ledger) -> None:
        steps.note(ledger, actor="second", verb="x", object_id="y", detail="z", now_ns=1)

    first = PostgresStore(info=info_of(shared), settings=_IMPATIENT)
    second = PostgresStore(info=info_of(shared), settings=SETTINGS)
    try:
        standing = await first.submit(stand_still)
        await asyncio.to_thread(_until, lambda: bool(runs))
        await second.write(write)
        other_wrote.set()
        await standing
        chain = await second.read(lambda ledger: ledger.audit(after=0, limit=9))
        assert [each.actor for each in chain] == ["second", "first"]
        assert audit.verify(chain) is None
        assert len(runs) == 2
    finally:
        await first.close()
        await second.close()


async def test_a_leader_that_stands_still_is_followed_by_another(shared: Database) -> None:
    """Its connection is ended for being idle; when it wakes, it learns that it does not lead any more."""
    first = PostgresStore(info=info_of(shared), settings=_IMPATIENT)
    second = PostgresStore(info=info_of(shared), settings=SETTINGS)
    try:
        assert await first.leads()
        deadline_s = time.monotonic() + 10
        while not await second.leads():
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.01)
        assert not await first.leads()
        assert await second.leads()
    finally:
        await first.close()
        await second.close()


def _until(true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


async def test_a_host_heard_by_another_process_is_not_silent(shared: Database) -> None:
    """The leader hears nothing of it itself; it is silent only when nobody hears it."""
    clock = ManualClock()
    async with opened(shared) as stores:
        leader, other = (desk_of(each, clock) for each in stores)
        await leader.receive(delivery_of(1, heartbeat()))
        for number in range(2, 12):
            clock.advance(10)
            await other.receive(delivery_of(number, heartbeat()))
            await leader.tick()
            await other.tick()
        assert [host.silent for host in await leader.hosts()] == [False]
        for _ in range(4):
            clock.advance(10)
            await leader.tick()
        assert [host.silent for host in await other.hosts()] == [True]
        assert [each.verb for each in await other.audit(after=0, limit=9)].count("host.silent") == 1


async def test_a_database_that_could_not_be_read_makes_no_host_silent(
    shared: Database, cluster: postgres.Cluster
) -> None:
    """Whom others heard while nothing could be read is unknown: every host is expected anew."""
    clock = ManualClock()
    async with opened(shared) as stores:
        leader, other = (desk_of(each, clock) for each in stores)
        await other.receive(delivery_of(1, heartbeat()))
        await leader.prepare()
        await leader.tick()
        clock.advance(100)
        with _nobody_may_connect(cluster, shared), pytest.raises(StoreUnavailable):
            await leader.tick()
        clock.advance(100)
        await asyncio.sleep(1.1)  # the pause after a refused connection
        await leader.tick()
        assert [host.silent for host in await leader.hosts()] == [False]


async def test_the_audit_log_cannot_be_changed_through_the_database(shared: Database) -> None:
    """Updates, deletions and truncation are refused by the schema itself."""
    async with opened(shared, 1) as (store,):
        await store.write(
            lambda ledger: steps.note(ledger, actor="ada", verb="x", object_id="y", detail="z", now_ns=1)
        )
        with psycopg.connect(info_of(shared), autocommit=True) as connection:
            for statement in ("UPDATE audit SET actor = 'eve'", "DELETE FROM audit", "TRUNCATE audit"):
                with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
                    connection.execute(statement)


async def test_processes_that_start_at_once_make_one_schema(shared: Database) -> None:
    """Whoever comes first makes it, the others find it."""
    made = await asyncio.gather(
        *(asyncio.to_thread(PostgresStore, info=info_of(shared), settings=SETTINGS) for _ in range(6))
    )
    for each in made:
        await each.close()
    with psycopg.connect(info_of(shared)) as connection:
        newest = len(postgres_migration.migrations())
        assert connection.execute("SELECT version FROM orchestrator").fetchall() == [(newest,)]


async def test_refuses_what_it_was_not_made_for(shared: Database, cluster: postgres.Cluster) -> None:
    """A newer schema, an older one, somebody else's tables, and another encoding are told apart."""
    async with opened(shared, 1) as (running,):
        with psycopg.connect(info_of(shared), autocommit=True) as connection:
            for version, error in ((7, StoreTooNew), (0, StoreTooOld)):
                connection.execute("UPDATE orchestrator SET version = %s", (version,))
                with pytest.raises(error):
                    await running.write(lambda ledger: ledger.last_audit())
                assert not running.ready()
                if version:
                    with pytest.raises(StoreTooNew, match="version 7, and this program knows"):
                        PostgresStore(info=info_of(shared), settings=SETTINGS)
            newest = len(postgres_migration.migrations())
            connection.execute("UPDATE orchestrator SET version = %s", (newest,))
        await running.write(lambda ledger: ledger.last_audit())
        assert running.ready()
    theirs = cluster.create("theirs")
    with psycopg.connect(theirs, autocommit=True) as connection:
        connection.execute("CREATE TABLE theirs (x integer)")
    with pytest.raises(StoreCorrupt, match="not an orchestrator's database"):
        PostgresStore(info=theirs, settings=SETTINGS)


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The message says which database could not be reached, and nothing else of the connection string."""
    with pytest.raises(StoreUnavailable, match=f"PostgreSQL desk on {tmp_path}"):
        PostgresStore(info=f"postgresql:///desk?host={tmp_path}", settings=SETTINGS)


@contextmanager
def _nobody_may_connect(cluster: postgres.Cluster, database: Database) -> Iterator[None]:
    name = psycopg.conninfo.conninfo_to_dict(info_of(database))["dbname"]
    with psycopg.connect(cluster.info("postgres"), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")  # type: ignore[arg-type]
        end_connections(cluster, database)
        try:
            yield
        finally:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")  # type: ignore[arg-type]
