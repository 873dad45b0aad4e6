"""Which store the configuration asks for: opened, or brought up to date with a copy made before."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from escalation.server.config import StoreSettings
from escalation.server.storage import sqlite_file
from escalation.server.storage.sqlite_store import SqliteStore
from escalation.server.storage.store import Store, StoreTooNew


class OpenStore(Store, Protocol):
    """A store that somebody has to close."""

    async def close(self) -> None:
        """Commit what was accepted and let go of the database; a second call does nothing."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a database stands: its schema's version (0: empty), and the newest one that is known."""

    name: str
    version: int
    newest: int

    @property
    def pending(self) -> int:
        """How many migrations are to be done."""
        return self.newest - self.version


def open_store(settings: StoreSettings) -> OpenStore:
    """Open the store that `settings` name; raise a StoreError."""
    if settings.postgres is None:
        return SqliteStore(path=settings.path)
    from escalation.server.storage.postgres_store import PostgresStore  # noqa: PLC0415 - an extra

    return PostgresStore(info=settings.postgres, settings=settings.postgresql)


def standing(settings: StoreSettings) -> Standing:
    """Return how the database stands, and change nothing; raise a StoreError."""
    if settings.postgres is None:
        return _sqlite_standing(settings.path)
    from escalation.server.storage import postgres_migration  # noqa: PLC0415 - an extra

    name, version, newest = postgres_migration.standing(settings.postgres, settings.postgresql)
    return _checked(Standing(name, version, newest))


def migrate(
    settings: StoreSettings, *, copy_to: Callable[[int], Path] | None
) -> tuple[Standing, Path | None]:
    """Bring the database up to date; return how it stood, and where the copy of it is.

    `copy_to` names a file for a copy of a database of this version, which has to be there before anything is
    changed; None makes none. An empty database is not copied.
    """
    before = standing(settings)
    copy = copy_to(before.version) if copy_to is not None and before.version and before.pending else None
    if settings.postgres is None:
        _migrate_sqlite(settings.path, copy)
    elif before.pending:
        from escalation.server.storage import postgres_migration  # noqa: PLC0415 - an extra

        postgres_migration.migrate(settings.postgres, settings.postgresql, copy)
    return before, copy


def _sqlite_standing(path: Path) -> Standing:
    newest = len(sqlite_file.migrations())
    if not path.exists():
        return Standing(str(path), 0, newest)
    try:
        connection = sqlite_file.connect(path)
        try:
            return _checked(Standing(str(path), sqlite_file.version_of(connection, path), newest))
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise sqlite_file.explained(error, "open", path) from error


def _migrate_sqlite(path: Path, copy: Path | None) -> None:
    with sqlite_file.locked(path):
        try:
            connection = sqlite_file.connect(path)
            try:
                if copy is not None:
                    sqlite_file.copy(connection, copy)
                sqlite_file.migrate(connection, path)
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise sqlite_file.explained(error, "migrate", path) from error


def _checked(found: Standing) -> Standing:
    if found.pending < 0:
        raise StoreTooNew(
            f"open {found.name}: its schema is version {found.version}, and this program knows "
            f"{found.newest} at most"
        )
    return found
