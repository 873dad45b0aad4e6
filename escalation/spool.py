"""The spool's file: opened sound, or moved aside and begun anew, and never silently shorter than it was.

SQLite finds most damage by itself, but it takes a cut or flipped write-ahead log for an unfinished write and
leaves out what follows. So a small file beside the spool (the mark) says after every commit how far the
numbering had come. It is written without a sync: it survives the death of the process, and after a power
loss it can only be older than the spool, which raises no alarm. Rejected: reading the log's frames
ourselves (a cut at a frame's end cannot be told from an end).

The file is locked for as long as it is open: two agents on one spool would give one number to two reports.

Error tree: `OutboxError` > `OutboxFull` (over its limit), `OutboxUnwritable` (disk full, no permission,
I/O error, in use) > `SpoolDamaged` (handled by whoever opens it).
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from escalation.numbering import Mark

KEPT_QUARANTINED: Final = 3

_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE boots (
    boot INTEGER PRIMARY KEY, boot_id TEXT NOT NULL, next_sequence INTEGER NOT NULL, acked INTEGER NOT NULL,
    checksum INTEGER NOT NULL
) STRICT;
CREATE TABLE reports (
    row INTEGER PRIMARY KEY, created_ns INTEGER NOT NULL, replaces TEXT, payload BLOB NOT NULL,
    checksum INTEGER NOT NULL
) STRICT;
CREATE TABLE set_aside (
    number INTEGER PRIMARY KEY AUTOINCREMENT, row INTEGER NOT NULL, why TEXT NOT NULL, payload BLOB
) STRICT;
CREATE TABLE notes (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, checksum INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""
_OUR_TABLES: Final = {"meta", "boots", "reports", "set_aside", "notes"}
_ENVIRONMENT: Final = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM,
}
_MARK: Final = struct.Struct("<36sQQQI")


class OutboxError(Exception):
    """Anything that the outbox cannot do; the message names the spool and why."""


class OutboxFull(OutboxError):
    """The spool is at its limit for reports of this kind; nothing was kept."""


class OutboxUnwritable(OutboxError):
    """The disk is full, read-only, failing, or the spool is in use; nothing was kept."""


class SpoolDamaged(OutboxUnwritable):
    """The spool's file is torn or altered."""


def connect(path: Path) -> sqlite3.Connection:
    """Return a sound spool at `path`, made when absent; raise SpoolDamaged or OutboxUnwritable."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise OutboxUnwritable(f"open spool {path}: {error.strerror}") from error
    with contextlib.ExitStack() as undo:
        with translated(path, "open"):
            database = sqlite3.connect(path, isolation_level=None, timeout=0)
            undo.callback(database.close)
            database.text_factory = lambda raw: raw.decode(errors="replace")
            for pragma in (
                "locking_mode=EXCLUSIVE",
                "auto_vacuum=INCREMENTAL",
                "journal_mode=WAL",
                "synchronous=FULL",
                "journal_size_limit=1048576",
                "cache_size=-1024",
                "trusted_schema=OFF",
            ):
                database.execute(f"PRAGMA {pragma}").fetchall()
            if not _tables(database):
                database.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version={_VERSION}; COMMIT;")
            verdict = database.execute("PRAGMA integrity_check(1)").fetchone()
            version = database.execute("PRAGMA user_version").fetchone()
            journal = database.execute("PRAGMA journal_mode").fetchone()
        if verdict != ("ok",) or version != (_VERSION,) or not _tables(database) >= _OUR_TABLES:
            raise SpoolDamaged(f"open spool {path}: {verdict[0] if verdict else 'unreadable'}")
        if journal != ("wal",):
            raise OutboxUnwritable(f"open spool {path}: no write-ahead log on this file system")
        undo.pop_all()
        return database


def _tables(database: sqlite3.Connection) -> set[str]:
    return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def quarantine(path: Path) -> int:
    """Move the spool at `path` aside, keep the newest few such; return how many reports it still shows."""
    try:
        numbers = sorted(
            int(found[1])
            for each in path.parent.glob(f"{path.name}.quarantined-*")
            if (found := re.fullmatch(r".*\.quarantined-(\d+)", each.name))
        )
        number = numbers[-1] + 1 if numbers else 1
        aside = path.with_name(f"{path.name}.quarantined-{number}")
        for old in numbers[: max(0, len(numbers) + 1 - KEPT_QUARANTINED)]:
            for suffix in ("", "-wal"):
                path.with_name(f"{path.name}.quarantined-{old}{suffix}").unlink(missing_ok=True)
        path.replace(aside)
        wal = path.with_name(f"{path.name}-wal")
        if wal.exists():
            wal.replace(aside.with_name(f"{aside.name}-wal"))
        sync_folder(path.parent)
    except OSError as error:
        raise OutboxUnwritable(f"move damaged spool {path} aside: {error.strerror}") from error
    try:
        with contextlib.closing(
            sqlite3.connect(f"{aside.absolute().as_uri()}?immutable=1", uri=True)
        ) as database:
            return int(database.execute("SELECT count(*) FROM reports").fetchone()[0])
    except (sqlite3.Error, UnicodeError):
        return 0


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def translated(path: Path, operation: str) -> Iterator[None]:
    """Raise OutboxUnwritable for what the environment refuses and SpoolDamaged for every other failure."""
    try:
        yield
    except UnicodeError as error:  # SQLite quotes altered bytes in its message, which Python cannot read
        raise SpoolDamaged(f"{operation} spool {path}: holds bytes that are no text") from error
    except (sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise  # a defect of ours, and no reason to move anybody's spool aside
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in _ENVIRONMENT or (code == sqlite3.SQLITE_READONLY and not _writable(path)):
            reason = "in use by another process" if code == sqlite3.SQLITE_BUSY else str(error)
            raise OutboxUnwritable(f"{operation} spool {path}: {reason}") from error
        raise SpoolDamaged(f"{operation} spool {path}: {error}") from error


def _writable(path: Path) -> bool:
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


class MarkFile:
    """The mark beside a spool; a mark that cannot be read or written is as good as none."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(f"{path.name}.mark")
        self._descriptor: int | None = None

    def read(self) -> Mark | None:
        """Return the mark, None when there is none that is whole."""
        try:
            raw = self._path.read_bytes()
        except OSError:
            return None
        if len(raw) != _MARK.size or zlib.crc32(raw[:-4]) != int.from_bytes(raw[-4:], "little"):
            return None
        spool_id, boot, next_sequence, acked, _ = _MARK.unpack(raw)
        return Mark(spool_id.decode(errors="replace"), boot, next_sequence, acked)

    def write(self, mark: Mark) -> None:
        """Replace the mark in place, without a sync; a file system that refuses leaves the older one."""
        body = _MARK.pack(mark.spool_id.encode(), mark.boot, mark.next_sequence, mark.acked, 0)[:-4]
        raw = body + zlib.crc32(body).to_bytes(4, "little")
        try:
            if self._descriptor is None:
                flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
                self._descriptor = os.open(self._path, flags, 0o600)
            os.pwrite(self._descriptor, raw, 0)
        except OSError:
            return

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
