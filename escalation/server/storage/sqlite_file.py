"""One SQLite file of ours: opened, locked, migrated, copied, and its errors told apart."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.resources
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from escalation.server.storage.store import ReportRow, StoreCorrupt, StoreError, StoreTooNew, StoreUnavailable

APPLICATION_ID: Final = 0x6E616E6F
"""SQLite's mark of whose file it is: "nano"."""

_MIGRATION: Final = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_UNAVAILABLE: Final = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
    }
)


def lock(path: Path) -> int:
    """Hold the right to write beside the file: the ledger's cache allows for one process only."""
    beside = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Made before SQLite opens it: its log and index files take over this one's mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnavailable(f"open {error.filename or beside}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StoreUnavailable(f"open {path}: another orchestrator is using it") from error
    return descriptor


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold that right while inside."""
    descriptor = lock(path)
    try:
        yield
    finally:
        os.close(descriptor)


def connect(path: Path) -> sqlite3.Connection:
    """Open the file as every connection to it has to be: WAL, and on disk before COMMIT returns."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        connection.execute("PRAGMA page_size = 8192")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        connection.execute("PRAGMA trusted_schema = OFF")
    except BaseException:
        connection.close()
        raise
    return connection


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the schema up to date, each step in a transaction; refuse a newer or a foreign database."""
    scripts = migrations()
    newest = len(scripts)
    version = version_of(connection, path)
    if version > newest:
        raise StoreTooNew(
            f"open {path}: its schema is version {version}, and this program knows {newest} at most; "
            "run the newer orchestrator that wrote it, or restore the copy made before the upgrade"
        )
    for number in range(version + 1, newest + 1):
        script = scripts[number - 1]
        connection.executescript(
            f"BEGIN IMMEDIATE; PRAGMA application_id = {APPLICATION_ID}; {script}\n"
            f"PRAGMA user_version = {number}; COMMIT;"
        )


def version_of(connection: sqlite3.Connection, path: Path) -> int:
    """Return the schema's version, 0 for an empty file; raise StoreCorrupt for somebody else's."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    owner = int(connection.execute("PRAGMA application_id").fetchone()[0])
    empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if not empty and owner != APPLICATION_ID:
        raise StoreCorrupt(f"open {path}: this is not an orchestrator's database")
    return version


def copy(connection: sqlite3.Connection, to: Path) -> None:
    """Copy the database into the file `to`, which is not there yet, for the owner alone."""
    try:
        to.touch(mode=0o600, exist_ok=False)
    except OSError as error:
        raise StoreUnavailable(f"copy to {to}: {error.strerror}") from error
    try:
        connection.execute("VACUUM INTO ?", (str(to),))
    except sqlite3.Error:
        to.unlink(missing_ok=True)  # half a copy would be taken for one
        raise


def migrations() -> list[str]:
    """Return the scripts in order; a hole in their numbers is a packaging fault."""
    folder = importlib.resources.files("escalation.server.storage") / "migrations"
    found = {
        int(matched[1]): each.read_text(encoding="utf-8")
        for each in folder.iterdir()
        if (matched := _MIGRATION.fullmatch(each.name))
    }
    numbers = sorted(found)
    if numbers != list(range(1, len(numbers) + 1)):
        raise StoreError(f"the migrations are not numbered without a hole: {numbers}")
    return [found[number] for number in numbers]


def roll_back(connection: sqlite3.Connection) -> None:
    """Undo the transaction that is open, if one is."""
    if connection.in_transaction:
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            # SQLite has undone the transaction by itself (disk full, I/O error): that is what was wanted.
            return


def explained(error: sqlite3.Error, operation: str, path: Path) -> StoreError:
    """Return our error for SQLite's, by whether it may work again later."""
    code = getattr(error, "sqlite_errorcode", None)
    message = f"{operation} {path}: {error}"
    if isinstance(code, int) and code & 0xFF in _UNAVAILABLE:
        return StoreUnavailable(message)
    if isinstance(code, int) and code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return StoreCorrupt(message)
    return StoreError(message)


class SqliteDatabase:
    """A connection as the ledger uses it."""

    def __init__(self, *, connection: sqlite3.Connection) -> None:
        """Run everything on `connection`."""
        self._connection = connection

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> sqlite3.Cursor:
        """Run one statement."""
        return self._connection.execute(statement, values)

    def execute_each(self, statement: str, rows: Iterable[Sequence[Any]], /) -> None:
        """Run one statement for each row of values."""
        self._connection.executemany(statement, rows)

    def add_new(self, boot: int, rows: Sequence[ReportRow], *, received_ns: int) -> None:
        """Keep reports of which none is kept yet."""
        self._connection.executemany(
            "INSERT INTO reports (boot, sequence, created_ns, received_ns, payload) VALUES (?, ?, ?, ?, ?)",
            [(boot, sequence, created_ns, received_ns, payload) for sequence, created_ns, payload in rows],
        )

    def add_some(self, boot: int, rows: Sequence[ReportRow], *, received_ns: int) -> set[int]:
        """Keep the reports that are not kept yet, and return their numbers."""
        fresh = set()
        for sequence, created_ns, payload in rows:
            inserted = self._connection.execute(
                "INSERT OR IGNORE INTO reports (boot, sequence, created_ns, received_ns, payload) "
                "VALUES (?, ?, ?, ?, ?)",
                (boot, sequence, created_ns, received_ns, payload),
            )
            if inserted.rowcount:
                fresh.add(sequence)
        return fresh

    def forget_reports(self, *, received_before_ns: int, limit: int) -> int:
        """Delete the oldest reports, at most `limit`, and return how many."""
        # The number follows the order of arrival, and finding the oldest by it reads no other row.
        deleted = self._connection.execute(
            "DELETE FROM reports WHERE id IN "
            "(SELECT id FROM (SELECT id, received_ns FROM reports ORDER BY id LIMIT ?) "
            "WHERE received_ns < ?)",
            (limit, received_before_ns),
        )
        return deleted.rowcount

    def flush(self) -> None:
        """Do nothing: nothing is held back."""

    def forget(self) -> None:
        """Do nothing: nothing is held back."""
