"""What was found when it was proposed, and when somebody approved, with what they set aside.

Kept with the recommendation for ever. What was found at the proposal is there so that a person sees at once
what has changed since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from escalation.model import Check, RecommendationId, Weighed
from escalation.server.storage.records import Kind
from escalation.server.storage.store import Ledger

WEIGHED: Final = Kind("weighed", Weighed)
"""Owned by the recommendation's id, in order."""


@dataclass(frozen=True, slots=True)
class Found:
    """The conditions as they were found once."""

    checks: tuple[Check, ...]


AT_PROPOSAL: Final = Kind("found_at_proposal", Found)
"""By the recommendation's id: as it was when what stands there was proposed."""


def note_proposal(ledger: Ledger, recommendation_id: RecommendationId, checks: tuple[Check, ...]) -> None:
    """Keep what was found at the proposal, in place of what was found of one that was restated."""
    if checks:
        ledger.records.put(AT_PROPOSAL, recommendation_id, Found(checks))


def at_proposal(ledger: Ledger, recommendation_id: RecommendationId) -> tuple[Check, ...]:
    """Return what was found at the proposal; nothing where it was proposed before that was kept."""
    found = ledger.records.get(AT_PROPOSAL, recommendation_id)
    return () if found is None else found.checks


def add(ledger: Ledger, recommendation_id: RecommendationId, weighed: Weighed) -> None:
    """Keep it after those that are there."""
    number = len(ledger.records.of(WEIGHED, owner=recommendation_id)) + 1
    ledger.records.put(WEIGHED, f"{number:04d}", weighed, owner=recommendation_id)


def of(ledger: Ledger, recommendation_id: RecommendationId) -> Sequence[Weighed]:
    """Return all that was weighed for a recommendation, in order."""
    return tuple(ledger.records.of(WEIGHED, owner=recommendation_id).values())
