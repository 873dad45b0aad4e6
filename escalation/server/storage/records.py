"""What people and the orchestrator note beside incidents and recommendations: one keyed table for all of it.

A silence, a verdict, an acknowledgement, an account: each kind is a frozen dataclass or a msgspec Struct, and
a `Kind` says what it is called in the database. A record is found by its kind, its owner (an incident's id, a
rule's name, nothing) and its key. What has to be tamper-evident is written to the audit log besides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """One kind of record: its name in the database, and the type that its values are read as."""

    name: str
    type: type[T]


class Records(Protocol):
    """The records, in the same transaction as the rest of the ledger."""

    def get(self, kind: Kind[T], key: str, *, owner: str = "") -> T | None:
        """Return the record, or None."""

    def of(self, kind: Kind[T], *, owner: str = "") -> Mapping[str, T]:
        """Return an owner's records of one kind by key, in the order of their keys."""

    def newest(self, kind: Kind[T], *, owner: str = "", limit: int) -> Mapping[str, T]:
        """Return the `limit` records of one kind and owner whose keys come last, in order of keys."""

    def owners(self, kind: Kind[T]) -> Mapping[tuple[str, str], T]:
        """Return all records of one kind by (owner, key); for kinds of which there are few."""

    def put(self, kind: Kind[T], key: str, value: T, *, owner: str = "") -> None:
        """Keep the record as it now is."""

    def remove(self, kind: Kind[T], key: str, *, owner: str = "") -> bool:
        """Remove the record, and return whether there was one."""
