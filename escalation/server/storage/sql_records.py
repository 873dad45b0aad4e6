"""The records in SQL; what the same transaction asks for twice is read once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from escalation.server.storage import rows
from escalation.server.storage.records import Kind

if TYPE_CHECKING:
    from escalation.server.storage.sql_ledger import Database

T = TypeVar("T")


class SqlRecords:
    """Reads and writes the records of one transaction at a time on `database`."""

    def __init__(self, *, database: Database) -> None:
        """Start with nothing held."""
        self._database = database
        self._held: dict[tuple[str, str], dict[str, Any]] = {}

    def __repr__(self) -> str:
        return f"SqlRecords(held={len(self._held)})"

    def get(self, kind: Kind[T], key: str, *, owner: str = "") -> T | None:
        """Return the record, or None."""
        held = self._held.get((kind.name, owner))
        if held is not None:
            return held.get(key)
        row = self._database.execute(
            "SELECT value FROM records WHERE kind = ? AND owner = ? AND key = ?", (kind.name, owner, key)
        ).fetchone()
        return None if row is None else rows.load_record(row[0], kind)

    def of(self, kind: Kind[T], *, owner: str = "") -> Mapping[str, T]:
        """Return an owner's records of one kind by key, in the order of their keys."""
        held = self._held.get((kind.name, owner))
        if held is None:
            found = self._database.execute(
                "SELECT key, value FROM records WHERE kind = ? AND owner = ?", (kind.name, owner)
            )
            held = {key: rows.load_record(value, kind) for key, value in found}
            self._held[kind.name, owner] = held
        return {key: held[key] for key in sorted(held)}

    def newest(self, kind: Kind[T], *, owner: str = "", limit: int) -> Mapping[str, T]:
        """Return the `limit` records of one kind and owner whose keys come last, in order of keys."""
        found = self._database.execute(
            "SELECT key, value FROM records WHERE kind = ? AND owner = ? ORDER BY key DESC LIMIT ?",
            (kind.name, owner, limit),
        ).fetchall()
        return {key: rows.load_record(value, kind) for key, value in reversed(found)}

    def owners(self, kind: Kind[T]) -> Mapping[tuple[str, str], T]:
        """Return all records of one kind by (owner, key)."""
        found = self._database.execute(
            "SELECT owner, key, value FROM records WHERE kind = ? ORDER BY owner, key", (kind.name,)
        )
        return {(owner, key): rows.load_record(value, kind) for owner, key, value in found}

    def put(self, kind: Kind[T], key: str, value: T, *, owner: str = "") -> None:
        """Keep the record as it now is."""
        self._database.execute(
            "INSERT INTO records VALUES (?, ?, ?, ?) "
            "ON CONFLICT (kind, owner, key) DO UPDATE SET value = excluded.value",
            (kind.name, owner, key, rows.dump(value)),
        )
        held = self._held.get((kind.name, owner))
        if held is not None:
            held[key] = value

    def remove(self, kind: Kind[T], key: str, *, owner: str = "") -> bool:
        """Remove the record, and return whether there was one."""
        row = self._database.execute(
            "DELETE FROM records WHERE kind = ? AND owner = ? AND key = ? RETURNING key",
            (kind.name, owner, key),
        ).fetchone()
        held = self._held.get((kind.name, owner))
        if held is not None:
            held.pop(key, None)
        return row is not None

    # The ledger's side --------------------------------------------------------------------------------

    def forget(self) -> None:
        """Drop what is held: the transaction was undone, or somebody else may have written."""
        self._held.clear()

    def trim(self, limit: int) -> None:
        """Drop what is held when it is of more than `limit` owners; to be called between transactions."""
        if len(self._held) > limit:
            self._held.clear()
