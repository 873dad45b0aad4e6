"""One SQLite file of ours: opened, locked, migrated, and its errors told apart."""

from __future__ import annotations

import fcntl
import importlib.resources
import os
import re
import sqlite3
from pathlib import Path
from typing import Final

from escalation.server.store import StoreCorrupt, StoreError, StoreTooNew, StoreUnavailable

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
    migrations = _migrations()
    newest = len(migrations)
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    owner = int(connection.execute("PRAGMA application_id").fetchone()[0])
    empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if not empty and owner != APPLICATION_ID:
        raise StoreCorrupt(f"open {path}: this is not an orchestrator's database")
    if version > newest:
        raise StoreTooNew(
            f"open {path}: its schema is version {version}, and this program knows {newest} at most; "
            "run the newer orchestrator that wrote it, or restore the copy made before the upgrade"
        )
    for number in range(version + 1, newest + 1):
        script = migrations[number - 1]
        connection.executescript(
            f"BEGIN IMMEDIATE; PRAGMA application_id = {APPLICATION_ID}; {script}\n"
            f"PRAGMA user_version = {number}; COMMIT;"
        )


def _migrations() -> list[str]:
    """Return the scripts in order; a hole in their numbers is a packaging fault."""
    folder = importlib.resources.files("escalation.server") / "migrations"
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
