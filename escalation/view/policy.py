"""What it takes to approve an action, as people see it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedPerson:
    """Somebody who may not approve it, and why."""

    person: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRow:
    """One kind of action there: who may approve it, what else it takes, and by which tables."""

    kind: str
    host: str
    target: str
    fault_class: str
    may: tuple[str, ...]
    may_not: tuple[RefusedPerson, ...]
    needs: tuple[str, ...]
    policies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PolicyTable:
    """What policy says of what was asked about."""

    rows: tuple[PolicyRow, ...]
