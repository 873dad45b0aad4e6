"""Connections to a PostgreSQL database: how each is opened, how the ledger uses it, what its errors mean.

Nothing here logs or repeats more of a conninfo than the server's and the database's name.
"""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import conninfo

from escalation.server.storage.postgres_settings import PostgresSettings
from escalation.server.storage.sql_ledger import SqlLedger
from escalation.server.storage.store import (
    ReportRow,
    StoreCorrupt,
    StoreError,
    StoreUnavailable,
)

LOCKS: Final = 0x6E616E6F
"""The first half of our advisory locks' names ("nano"); WRITE, LEAD and MIGRATE are the second halves."""

WRITE, LEAD, MIGRATE = 1, 2, 3

_UNAVAILABLE: Final = frozenset({"08", "25", "40", "53", "55", "57", "58"})
"""Classes of SQLSTATE after which the same may work: connections, transactions, resources, operators."""

_PAUSE_S: Final = (0.05, 1.0)
"""How long nobody tries to connect after a failure: it doubles from the first to the second."""

_COPY_HEAD: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_ROW: Final = struct.Struct("!h iq iq iq iq i")
_COPY_END: Final = struct.pack("!h", -1)


def name_of(info: str) -> str:
    """Return how messages call the database: where it is and its name."""
    parts = conninfo.conninfo_to_dict(info)
    where = parts.get("host") or parts.get("hostaddr") or parts.get("service") or "the default server"
    return f"PostgreSQL {parts.get('dbname') or 'default database'} on {where}"


def connect(info: str, settings: PostgresSettings) -> psycopg.Connection[tuple[Any, ...]]:
    """Open one connection as every one has to be; raise psycopg.Error."""
    connection = psycopg.connect(
        info,
        autocommit=True,
        client_encoding="utf8",
        application_name=settings.application_name,
        connect_timeout=int(settings.connect_timeout_s),
    )
    try:
        options = {
            "statement_timeout": settings.statement_timeout_s,
            "lock_timeout": settings.lock_timeout_s,
            "idle_in_transaction_session_timeout": settings.idle_s,
            "idle_session_timeout": 4 * settings.idle_s,
        }
        for option, seconds in options.items():
            connection.execute("SELECT set_config(%s, %s, false)", (option, f"{int(seconds * 1000)}ms"))
        # What is acknowledged is on disk; an administrator may ask for more than that, not for less.
        connection.execute(
            "SELECT set_config('synchronous_commit', 'on', false) "
            "WHERE current_setting('synchronous_commit') = 'off'"
        )
    except BaseException:
        connection.close()
        raise
    return connection


def explained(error: psycopg.Error, operation: str, name: str) -> StoreError:
    """Return our error for PostgreSQL's, by whether it may work again later."""
    said = str(error).strip().partition("\n")[0]  # what follows may quote the values of a row
    message = f"{operation} {name}: {said or type(error).__name__}"
    state = error.sqlstate
    if state is None and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return StoreUnavailable(message)
    if state is not None and state[:2] in _UNAVAILABLE:
        return StoreUnavailable(message)
    return StoreCorrupt(message) if state in {"XX001", "XX002"} else StoreError(message)


def is_lost(error: psycopg.Error, connection: psycopg.Connection[Any]) -> bool:
    """Return whether the same may work at once: the connection broke, or others were in the way."""
    return connection.closed or connection.broken or (error.sqlstate or "")[:2] == "40"


class PostgresDatabase:
    """A connection as the ledger uses it; new reports are held back and copied in at once."""

    def __init__(self, *, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        """Run everything on `connection`."""
        self._connection = connection
        self._statements: dict[str, str] = {}
        self._new: list[bytes] = []
        self.writes = 0

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> psycopg.Cursor[tuple[Any, ...]]:
        """Run one statement."""
        if statement.startswith("SELECT") and any(isinstance(each, str) and "\0" in each for each in values):
            # No text here can hold it, so nothing can be found by it; the server would refuse the question.
            values = tuple(each.replace("\0", "\ufffe") if isinstance(each, str) else each for each in values)
        return self._connection.execute(self._translated(statement), values)

    def execute_each(self, statement: str, rows: Iterable[Sequence[Any]], /) -> None:
        """Run one statement for each row of values, without waiting for each."""
        self._connection.cursor().executemany(self._translated(statement), rows)

    def add_new(self, boot: int, rows: Sequence[ReportRow], *, received_ns: int) -> None:
        """Keep reports of which none is kept yet; they are copied in when something has to see them."""
        self.writes += 1
        pack = _COPY_ROW.pack
        for sequence, created_ns, payload in rows:
            head = pack(5, 8, boot, 8, sequence, 8, created_ns, 8, received_ns, len(payload))
            self._new += (head, payload)

    def add_some(self, boot: int, rows: Sequence[ReportRow], *, received_ns: int) -> set[int]:
        """Keep the reports that are not kept yet, and return their numbers."""
        self.flush()
        self.writes += 1
        sequences, created_ns, payloads = (list(column) for column in zip(*rows, strict=True))
        found = self._connection.execute(
            "INSERT INTO reports SELECT %s, sequence, created_ns, %s, payload "
            "FROM unnest(%s::bigint[], %s::bigint[], %s::bytea[]) AS new (sequence, created_ns, payload) "
            "ON CONFLICT DO NOTHING RETURNING sequence",
            (boot, received_ns, sequences, created_ns, payloads),
        )
        return {sequence for (sequence,) in found}

    def forget_reports(self, *, received_before_ns: int, limit: int) -> int:
        """Delete the oldest reports, at most `limit`, and return how many."""
        self.flush()
        return self.execute(
            "DELETE FROM reports WHERE ctid = ANY(ARRAY(SELECT ctid FROM reports "
            "WHERE received_ns < ? ORDER BY received_ns LIMIT ?))",
            (received_before_ns, limit),
        ).rowcount

    def flush(self) -> None:
        """Copy in the new reports that were held back."""
        if not self._new:
            return
        data = b"".join((_COPY_HEAD, *self._new, _COPY_END))
        self._new.clear()
        with self._connection.cursor().copy("COPY reports FROM STDIN (FORMAT BINARY)") as copy:
            copy.write(data)

    def forget(self) -> None:
        """Drop what was held back: the transaction was undone."""
        self._new.clear()

    def _translated(self, statement: str) -> str:
        """Return the statement with psycopg's marks, and count it when it writes."""
        if not statement.startswith("SELECT"):
            self.writes += 1
        known = self._statements.get(statement)
        if known is None:
            known = self._statements[statement] = statement.replace("?", "%s")
        return known


@dataclass(slots=True)
class Link:
    """One connection, and the ledger on it."""

    connection: psycopg.Connection[tuple[Any, ...]]
    database: PostgresDatabase
    ledger: SqlLedger


class Dialler:
    """Opens connections, and after a failure lets nobody try again for a moment that grows."""

    def __init__(self, *, info: str, settings: PostgresSettings) -> None:
        """Connect to what `info` names."""
        self._info = info
        self._settings = settings
        self._pause_s = 0.0
        self._not_before_s = 0.0
        self._failure = ""
        self.name = name_of(info)

    def dial(self) -> Link:
        """Return a new connection; raise a StoreError."""
        if time.monotonic() < self._not_before_s:
            raise StoreUnavailable(self._failure)
        try:
            connection = connect(self._info, self._settings)
        except psycopg.Error as error:
            low_s, high_s = _PAUSE_S
            self._pause_s = min(high_s, max(low_s, 2 * self._pause_s))
            self._not_before_s = time.monotonic() + self._pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
            failure = explained(error, "open", self.name)
            self._failure = str(failure)
            raise failure from error
        self._pause_s = 0.0
        database = PostgresDatabase(connection=connection)
        return Link(connection, database, SqlLedger(database=database))
