"""A database of either kind for one test, which can be opened as often as the test wants."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from escalation.server.storage.postgres_settings import PostgresSettings
from escalation.server.storage.postgres_store import PostgresStore
from escalation.server.storage.sqlite_store import SqliteStore
from escalation.server.storage.stores import OpenStore


@dataclass(frozen=True, slots=True)
class Database:
    """An SQLite file at `where`, or the PostgreSQL database of that connection string."""

    where: Path | str

    def open(self, **options: Any) -> OpenStore:
        """Open a store on it."""
        if isinstance(self.where, Path):
            return SqliteStore(path=self.where, **options)
        return PostgresStore(info=self.where, settings=PostgresSettings(), **options)

    @property
    def shared(self) -> bool:
        """Whether several processes may use it."""
        return isinstance(self.where, str)
