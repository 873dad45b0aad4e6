"""The audit log's chain: each entry's digest covers its own fields and the digest before it.

Whoever keeps the newest digest elsewhere can tell whether anything before it was changed, removed or slipped
in. The chain does not hide anything and needs no key: it is evidence, not access control.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from escalation.server.desk import AuditEntry

GENESIS: Final = "0" * 64
"""The digest that the first entry follows."""


@dataclass(frozen=True, slots=True)
class Break:
    """Where a chain stops being whole, and what is wrong there."""

    number: int
    problem: str


def follow(
    previous: AuditEntry | None, *, at_ns: int, actor: str, verb: str, object_id: str, detail: str
) -> AuditEntry:
    """Return the entry that comes after `previous` (None: the first of all)."""
    number = 1 if previous is None else previous.number + 1
    before = GENESIS if previous is None else previous.digest
    unsealed = AuditEntry(
        number=number,
        at_ns=at_ns,
        actor=actor,
        verb=verb,
        object_id=object_id,
        detail=detail,
        previous=before,
        digest="",
    )
    return replace(unsealed, digest=_digest(unsealed))


def verify(entries: Iterable[AuditEntry], *, start: AuditEntry | None = None) -> Break | None:
    """Return the first break in `entries`, which follow `start`; None when the chain is whole."""
    number = 0 if start is None else start.number
    before = GENESIS if start is None else start.digest
    for entry in entries:
        number += 1
        if entry.number != number:
            return Break(number, f"entry {number} is missing; entry {entry.number} stands in its place")
        if entry.previous != before:
            return Break(number, f"entry {number} does not follow the entry before it")
        if _digest(entry) != entry.digest:
            return Break(number, f"entry {number} was changed after it was written")
        before = entry.digest
    return None


def _digest(entry: AuditEntry) -> str:
    covered = [
        entry.number,
        entry.at_ns,
        entry.actor,
        entry.verb,
        entry.object_id,
        entry.detail,
        entry.previous,
    ]
    canonical = json.dumps(covered, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
