"""The shared store: one PostgreSQL database under any number of orchestrators.

Each process writes on one connection, in groups as the embedded store does (ADR 0006), and reads on others.
A transaction takes one advisory lock of the database before it looks at anything, so the work of all
processes is done one group after the other, each seeing all that was committed before it (ADR 0011).

A process whose connection breaks opens another one and runs the group again: nothing of it was kept. When the
answer to COMMIT itself is lost, the row that each transaction leaves about its writer tells which it was.
"""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import psycopg
import structlog

from escalation import failpoints
from escalation.model import RecommendationId
from escalation.server.decision.approvals import UNFINISHED
from escalation.server.storage import postgres_connection, postgres_migration, rows
from escalation.server.storage.postgres_connection import (
    LEAD,
    LOCKS,
    WRITE,
    Dialler,
    Link,
)
from escalation.server.storage.postgres_settings import PostgresSettings
from escalation.server.storage.sql_ledger import SqlLedger
from escalation.server.storage.store import (
    NOTHING_ELSEWHERE,
    Elsewhere,
    Ledger,
    StoreError,
    StoreTooNew,
    StoreTooOld,
    StoreUnavailable,
)
from escalation.server.storage.work_queue import QUEUE_BYTES, Outcome, Piece, WorkQueue

T = TypeVar("T")

_ATTEMPTS: Final = 3
"""How often a group is tried before those who wait for it are told that it was not kept."""

_PAUSE_S: Final = 0.05

_FIND_OUT_S: Final = 10.0
"""How long is waited for the database to say what became of a COMMIT."""

_CHANGES_AT_ONCE: Final = 1000

_BEGIN: Final = (
    f"BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock({LOCKS}, {WRITE}); "  # noqa: S608 - numbers
    "SELECT version, number, set_config('nanobot.number', (number + 1)::text, true) FROM orchestrator"
)
_BEGIN_READING: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_END: Final = (
    "WITH mine AS (INSERT INTO writers (writer, number) VALUES (%s, %s) "
    "ON CONFLICT (writer) DO UPDATE SET number = excluded.number, written_at = now()) "
    "UPDATE orchestrator SET number = %s"
)
_CHANGED: Final = (
    "SELECT true, agent_id FROM hosts WHERE changed > %(since)s "
    "UNION ALL SELECT false, id FROM incidents WHERE changed > %(since)s "
    "UNION ALL SELECT false, incident_id FROM recommendations WHERE changed > %(since)s LIMIT %(limit)s"
)
_LAST_OF_WRITER: Final = "SELECT number FROM writers WHERE writer = %s"

_log = structlog.get_logger("nanobot.orchestrator")


class _Again(Exception):
    """Nothing of the group was kept, and trying it again may help; `failure` is what to say if not."""

    def __init__(self, failure: StoreError) -> None:
        super().__init__(str(failure))
        self.failure = failure


class PostgresStore:
    """Uses the database that `info` names until `close`, beside other processes that do the same."""

    def __init__(self, *, info: str, settings: PostgresSettings, queue_bytes: int = QUEUE_BYTES) -> None:
        """Connect, make the schema in an empty database, and start the threads.

        Raises StoreTooNew, StoreTooOld, StoreCorrupt or StoreUnavailable, naming the database.
        """
        self._me = uuid.uuid4()
        self._write_dialler = Dialler(info=info, settings=settings)
        self._name = self._write_dialler.name
        self._newest = len(postgres_migration.migrations())
        self._known = -1
        """The number of the last transaction that this process's cache has seen."""
        self._seen = 0
        self._mine: set[int] = set()
        self._mine_lock = threading.Lock()
        self._leading: Link | None = None
        self._writer: Link | None = self._write_dialler.dial()
        try:
            self._prepare(self._writer.connection)
        except psycopg.Error as error:
            self._writer.connection.close()
            raise postgres_connection.explained(error, "open", self._name) from error
        except BaseException:
            self._writer.connection.close()
            raise
        self._ready = True
        self._fell_s: float | None = None
        self.commits = 0
        self.failures = 0
        self._reading = threading.local()
        self._readers: list[Link] = []
        self._read_dialler = Dialler(info=info, settings=settings)
        self._queue = WorkQueue(
            name=self._name,
            commit=self._commit,
            answer=self._answer,
            readers=settings.read_connections,
            queue_bytes=queue_bytes,
        )

    def __repr__(self) -> str:
        return (
            f"PostgresStore({self._name!r}, ready={self._ready}, {self._queue!r}, commits={self.commits}, "
            f"failures={self.failures}, leading={self._leading is not None})"
        )

    async def submit(self, work: Callable[[Ledger], T], *, cost_bytes: int = 0) -> asyncio.Future[T]:
        """Return once there is room for `work`; what it returned, after the commit, is in the future."""
        return await self._queue.submit(work, cost_bytes=cost_bytes)

    async def write(self, work: Callable[[Ledger], T]) -> T:
        """Run `work` in a transaction and return what it returned, after the commit."""
        return await (await self._queue.submit(work))

    async def read(self, work: Callable[[Ledger], T]) -> T:
        """Run `work`, which writes nothing, on a consistent view."""
        return await self._queue.read(work)

    async def leads(self) -> bool:
        """Return whether this process holds the lead; it is held for as long as the writing connection.

        Asked of the database each time: whoever stood still for long may have lost it and not know.
        """
        return await self.write(self._try_to_lead)

    async def elsewhere(self) -> Elsewhere:
        """Return what other processes wrote since the last call; never what this one wrote."""
        return await self._queue.read(self._look_elsewhere)

    def ready(self) -> bool:
        """Return whether the last attempt to write worked."""
        return self._ready and not self._queue.closed

    async def close(self) -> None:
        """Commit what was accepted, end the threads and the connections; a second call does nothing."""
        if self._queue.closed:
            return
        if await self._queue.close():
            for link in (*self._readers, *filter(None, (self._writer,))):
                link.connection.close()

    def _prepare(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        scripts = postgres_migration.migrations()
        postgres_migration.apply(connection, self._name, scripts=scripts, only_if_empty=True)
        connection.execute("DELETE FROM writers WHERE written_at < now() - interval '1 day'")
        self._seen = _first(connection.execute("SELECT number FROM orchestrator"))
        if connection.execute("SHOW fsync").fetchone() == ("off",):
            _log.warning("database_keeps_nothing_when_power_fails", database=self._name)

    # On the writing thread ----------------------------------------------------------------------------

    def _commit(self, group: Sequence[Piece]) -> Sequence[Outcome]:
        outcomes = self._commit_together(group)
        if outcomes is not None:
            return outcomes
        alone = (self._commit_together([piece]) for piece in group)
        return [outcome for outcomes in alone for outcome in outcomes or ()]

    def _commit_together(self, group: Sequence[Piece]) -> list[Outcome] | None:
        """Return what became of `group`, or None when one piece raised and nothing was kept."""
        failure = StoreError(f"write {self._name}: not tried")
        for _ in range(_ATTEMPTS):
            try:
                return self._attempt(group)
            except _Again as again:
                failure = again.failure
            except StoreError as error:
                failure = error
                break
        self._failed(failure)
        return [Outcome(piece, error=failure) for piece in group]

    def _attempt(self, group: Sequence[Piece]) -> list[Outcome] | None:
        """Run `group` in one transaction; raise _Again or a StoreError when all of it was undone."""
        link = self._writing()
        try:
            number = self._begin(link) + 1
            before = link.database.writes
            outcomes = [Outcome(piece, piece.work(link.ledger)) for piece in group]
            link.ledger.flush()
            changed = link.database.writes != before or not self._ready
            if changed:
                link.connection.execute(_END, (self._me, number, number))
                failpoints.reach("server.before_commit")
        except psycopg.Error as error:
            lost = postgres_connection.is_lost(error, link.connection)
            self._undo(link)
            failure = postgres_connection.explained(error, "write", self._name)
            if lost:
                raise _Again(failure) from error
            if isinstance(error, psycopg.IntegrityError | psycopg.DataError):
                # One piece's values, not the database: the others are not to suffer for it.
                return [Outcome(group[0], error=failure)] if len(group) == 1 else None
            raise failure from error
        except (StoreTooNew, StoreTooOld):
            self._undo(link)
            raise
        except Exception as error:  # noqa: BLE001 - a piece of work's own error, handed to whoever asked for it
            self._undo(link)
            return [Outcome(group[0], error=error)] if len(group) == 1 else None
        except BaseException:
            self._undo(link)
            raise
        self._finish(link, number if changed else None)
        if changed:
            failpoints.reach("server.after_commit")
            self._known = number
        self.commits += changed
        link.ledger.trim()
        self._recovered()
        return outcomes

    def _begin(self, link: Link) -> int:
        """Wait for the turn, and return the number of the last transaction that wrote."""
        cursor = link.connection.cursor()
        cursor.execute(_BEGIN, prepare=False)
        while cursor.nextset():
            pass
        version, number, _ = cursor.fetchone() or (0, 0, "")
        if version != self._newest:
            # It was migrated under us: nothing here knows how to write to it.
            postgres_migration.check_version(version, self._newest, self._name)
        if number != self._known:
            self._forget_changed(link)
            self._known = number
        return int(number)

    def _forget_changed(self, link: Link) -> None:
        """Drop from the cache what others wrote since it was right."""
        if self._known < 0:
            link.ledger.forget()
            return
        found = link.connection.execute(
            _CHANGED, {"since": self._known, "limit": _CHANGES_AT_ONCE + 1}
        ).fetchall()
        if len(found) > _CHANGES_AT_ONCE:
            link.ledger.forget()
            return
        link.ledger.forget_changed(
            hosts={each for is_host, each in found if is_host},
            incidents={each for is_host, each in found if not is_host},
        )

    def _finish(self, link: Link, number: int | None) -> None:
        """Commit; raise _Again when it was not kept, StoreUnavailable when nobody can tell."""
        if number is None:
            try:
                link.connection.execute("COMMIT")
            except psycopg.Error as error:
                self._undo(link)
                raise _Again(postgres_connection.explained(error, "write", self._name)) from error
            return
        with self._mine_lock:
            self._mine.add(number)  # before it can be seen, so that nobody takes it for another's
        try:
            said = link.connection.execute("COMMIT").statusmessage
            kept, failure = said == "COMMIT", StoreError(f"write {self._name}: it was undone")
        except psycopg.Error as error:
            is_known = not postgres_connection.is_lost(error, link.connection)
            self._undo(link)
            kept = not is_known and self._was_kept(number)
            failure = postgres_connection.explained(error, "write", self._name)
        if not kept:
            with self._mine_lock:
                self._mine.discard(number)
            raise _Again(failure)

    def _was_kept(self, number: int) -> bool:
        """Return whether the transaction whose COMMIT was not answered is in the database."""
        deadline_s = time.monotonic() + _FIND_OUT_S
        while True:
            try:
                link = self._writing()
                # Once it is our turn, whoever wrote for us before has come to an end, this way or that.
                self._begin(link)
                kept = _first(link.connection.execute(_LAST_OF_WRITER, (self._me,))) == number
                self._undo(link)
            except (psycopg.Error, StoreError) as error:
                if time.monotonic() > deadline_s:
                    raise StoreUnavailable(
                        f"write {self._name}: the connection was lost while it was written, and nobody can "
                        "say yet whether it was kept; look before it is tried again"
                    ) from error
                self._drop()
                time.sleep(_PAUSE_S)
            else:
                return kept

    def _writing(self) -> Link:
        if self._writer is None:
            self._writer = self._write_dialler.dial()
            self._known = -1
        return self._writer

    def _undo(self, link: Link) -> None:
        link.ledger.forget()
        self._known = -1
        try:
            link.connection.rollback()
        except psycopg.Error:
            self._drop()
        if link.connection.closed:
            self._drop()

    def _drop(self) -> None:
        """Let go of the writing connection, and of the lead, which went with it."""
        link, self._writer, self._leading = self._writer, None, None
        if link is not None:
            link.connection.close()

    def _failed(self, failure: StoreError) -> None:
        self._ready = False
        self.failures += 1
        if self._fell_s is None:
            self._fell_s = time.monotonic()
            _log.warning("database_lost", error=str(failure))

    def _recovered(self) -> None:
        self._ready = True
        if self._fell_s is not None:
            _log.info("database_back", after_s=round(time.monotonic() - self._fell_s, 1))
            self._fell_s = None

    def _try_to_lead(self, _: Ledger) -> bool:
        link = self._writing()
        if self._leading is link:
            return True  # this transaction was begun on the connection that holds it
        got = bool(_first(link.connection.execute("SELECT pg_try_advisory_lock(%s, %s)", (LOCKS, LEAD))))
        if got:
            self._leading = link
        return got

    # On a reading thread ------------------------------------------------------------------------------

    def _answer(self, piece: Piece) -> Outcome:
        failure = StoreError(f"read {self._name}: not tried")
        for _ in range(_ATTEMPTS):
            try:
                link = self._reader()
            except StoreError as error:
                return Outcome(piece, error=error)
            try:
                link.connection.execute(_BEGIN_READING)
                return Outcome(piece, piece.work(link.ledger))
            except psycopg.Error as error:
                failure = postgres_connection.explained(error, "read", self._name)
                if not postgres_connection.is_lost(error, link.connection):
                    break
            except Exception as error:  # noqa: BLE001 - handed to whoever asked
                return Outcome(piece, error=error)
            finally:
                self._end_reading(link)
        return Outcome(piece, error=failure)

    def _reader(self) -> Link:
        link: Link | None = getattr(self._reading, "link", None)
        if link is None:
            link = self._reading.link = self._read_dialler.dial()
            self._readers.append(link)
        return link

    def _end_reading(self, link: Link) -> None:
        link.ledger.forget()
        try:
            link.connection.rollback()
        except psycopg.Error:
            link.connection.close()
        if link.connection.closed:
            self._reading.link = None
            self._readers.remove(link)

    def _look_elsewhere(self, ledger: Ledger) -> Elsewhere:
        if not isinstance(ledger, SqlLedger):
            raise TypeError(f"this store reads with its own ledger, not with {type(ledger).__name__}")
        database, since = ledger.database, self._seen
        number = int(database.execute("SELECT number FROM orchestrator").fetchone()[0])
        with self._mine_lock:
            mine = {each for each in self._mine if since < each <= number}
        if number - since <= len(mine):
            self._have_seen(number)
            return NOTHING_ELSEWHERE
        unfinished = sorted(UNFINISHED)
        changed = database.execute(
            "SELECT id, changed FROM recommendations WHERE changed > ? UNION ALL "  # noqa: S608 - question marks only
            "SELECT recommendations.id, incidents.changed FROM incidents "
            "JOIN recommendations ON recommendations.incident_id = incidents.id "
            f"WHERE incidents.changed > ? AND state IN ({', '.join('?' * len(unfinished))}) "
            "ORDER BY 2, 1 LIMIT ?",
            (since, since, *unfinished, _CHANGES_AT_ONCE),
        ).fetchall()
        hosts = database.execute("SELECT value, changed FROM hosts WHERE changed > ?", (since,)).fetchall()
        others = dict.fromkeys(RecommendationId(each) for each, at in changed if at not in mine)
        heard = [rows.load_host(value) for value, at in hosts if at not in mine]
        self._have_seen(number)
        return Elsewhere(tuple(others), tuple(each for each in heard if not each.silent))

    def _have_seen(self, number: int) -> None:
        self._seen = number
        with self._mine_lock:
            self._mine = {each for each in self._mine if each > number}


def _first(found: psycopg.Cursor[tuple[Any, ...]]) -> int:
    row = found.fetchone()
    return 0 if row is None else int(row[0])
