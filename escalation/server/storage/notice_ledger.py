"""The part of a ledger that is the outbox of what people are to be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from escalation.model import IncidentId
from escalation.server.notify.notices import Notice, NoticeState


class NoticeLedger(Protocol):
    """What one transaction can read and write of the outbox."""

    def add(self, notice: Notice) -> bool:
        """Keep a notice to be sent; False when it is kept already, whatever has become of it."""

    def settle(self, notice: Notice, state: NoticeState) -> None:
        """Keep what has become of a notice."""

    def due(self, receiver: str, *, now_ns: int, limit: int) -> Sequence[Notice]:
        """Return the oldest notices that wait to be sent to `receiver` and may be."""

    def of(self, incident_id: IncidentId) -> Sequence[Notice]:
        """Return what was or is to be told about an incident, oldest first."""

    def standing(self, receiver: str, *, limit: int) -> Sequence[Notice]:
        """Return the newest word that `receiver` has on each incident of which it has not heard the end."""

    def last_test(self, receiver: str) -> Notice | None:
        """Return the newest test of a receiver."""

    def counts(self) -> Mapping[tuple[str, NoticeState], int]:
        """Return how many notices of each receiver are in each state."""

    def forget(self, *, created_before_ns: int, limit: int) -> int:
        """Delete old notices of incidents that are over, at most `limit`, and return how many."""
