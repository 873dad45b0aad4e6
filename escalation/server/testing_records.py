"""A working double of the records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from escalation.server.storage.records import Kind

T = TypeVar("T")


class MemoryRecords:
    """The records in a dictionary, for tests."""

    def __init__(self) -> None:
        """Start empty."""
        self._kept: dict[tuple[str, str, str], Any] = {}

    def copy(self) -> MemoryRecords:
        """Return records that are the same and change by themselves."""
        twin = MemoryRecords()
        twin._kept = dict(self._kept)
        return twin

    def get(self, kind: Kind[T], key: str, *, owner: str = "") -> T | None:
        """Return the record, or None."""
        found: T | None = self._kept.get((kind.name, owner, key))
        return found

    def of(self, kind: Kind[T], *, owner: str = "") -> Mapping[str, T]:
        """Return an owner's records of one kind by key, in the order of their keys."""
        mine = (at for at in sorted(self._kept) if at[:2] == (kind.name, owner))
        return {at[2]: self._kept[at] for at in mine}

    def newest(self, kind: Kind[T], *, owner: str = "", limit: int) -> Mapping[str, T]:
        """Return the `limit` records of one kind and owner whose keys come last, in order of keys."""
        found = self.of(kind, owner=owner)
        return {key: found[key] for key in list(found)[max(0, len(found) - limit) :]}

    def owners(self, kind: Kind[T]) -> Mapping[tuple[str, str], T]:
        """Return all records of one kind by (owner, key)."""
        return {at[1:]: self._kept[at] for at in sorted(self._kept) if at[0] == kind.name}

    def put(self, kind: Kind[T], key: str, value: T, *, owner: str = "") -> None:
        """Keep the record as it now is."""
        self._kept[kind.name, owner, key] = value

    def remove(self, kind: Kind[T], key: str, *, owner: str = "") -> bool:
        """Remove the record, and return whether there was one."""
        return self._kept.pop((kind.name, owner, key), None) is not None
