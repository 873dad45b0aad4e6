"""What was found when somebody approved, and what they set aside: kept with the recommendation for ever."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from escalation.model import RecommendationId, Weighed
from escalation.server.storage.records import Kind
from escalation.server.storage.store import Ledger

WEIGHED: Final = Kind("weighed", Weighed)
"""Owned by the recommendation's id, in order."""


def add(ledger: Ledger, recommendation_id: RecommendationId, weighed: Weighed) -> None:
    """Keep it after those that are there."""
    number = len(ledger.records.of(WEIGHED, owner=recommendation_id)) + 1
    ledger.records.put(WEIGHED, f"{number:04d}", weighed, owner=recommendation_id)


def of(ledger: Ledger, recommendation_id: RecommendationId) -> Sequence[Weighed]:
    """Return all that was weighed for a recommendation, in order."""
    return tuple(ledger.records.of(WEIGHED, owner=recommendation_id).values())
