"""A working double of the outbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from escalation.model import IncidentId
from escalation.server.notify.notices import RAISING, Event, Notice, NoticeState


class MemoryNotices:
    """The outbox in a dictionary, for tests; all incidents count as over."""

    def __init__(self) -> None:
        """Start empty."""
        self.kept: dict[str, Notice] = {}

    def copy(self) -> MemoryNotices:
        """Return an outbox that holds the same and changes by itself."""
        twin = MemoryNotices()
        twin.kept = dict(self.kept)
        return twin

    def add(self, notice: Notice) -> bool:
        """Keep a notice to be sent; False when it is kept already, whatever has become of it."""
        return self.kept.setdefault(notice.id, notice) is notice

    def settle(self, notice: Notice, state: NoticeState) -> None:
        """Keep what has become of a notice."""
        self.kept[notice.id] = replace(notice, state=state)

    def due(self, receiver: str, *, now_ns: int, limit: int) -> Sequence[Notice]:
        """Return the oldest notices that wait to be sent to `receiver` and may be."""
        waiting = (each for each in self._to(receiver) if each.state is NoticeState.WAITING)
        return [each for each in waiting if each.due_ns <= now_ns][:limit]

    def of(self, incident_id: IncidentId) -> Sequence[Notice]:
        """Return what was or is to be told about an incident, oldest first."""
        return [each for each in self.kept.values() if each.incident_id == incident_id]

    def standing(self, receiver: str, *, limit: int) -> Sequence[Notice]:
        """Return the newest word that `receiver` has on each incident of which it has not heard the end."""
        sent = [each for each in self._to(receiver) if each.state is NoticeState.SENT]
        newest = {each.incident_id: each for each in sent if each.event in RAISING | {Event.CLEARED}}
        found = [each for each in newest.values() if each.event is not Event.CLEARED]
        order = list(self.kept)
        return sorted(found, key=lambda each: -order.index(each.id))[:limit]

    def last_test(self, receiver: str) -> Notice | None:
        """Return the newest test of a receiver."""
        tests = [each for each in self._to(receiver) if each.event is Event.TEST]
        return tests[-1] if tests else None

    def counts(self) -> Mapping[tuple[str, NoticeState], int]:
        """Return how many notices of each receiver are in each state."""
        found: dict[tuple[str, NoticeState], int] = {}
        for each in self.kept.values():
            key = (each.receiver, each.state)
            found[key] = found.get(key, 0) + 1
        return found

    def forget(self, *, created_before_ns: int, limit: int) -> int:
        """Delete old notices, at most `limit`, and return how many."""
        old = [each.id for each in self.kept.values() if each.created_ns < created_before_ns][:limit]
        for each in old:
            del self.kept[each]
        return len(old)

    def _to(self, receiver: str) -> list[Notice]:
        return [each for each in self.kept.values() if each.receiver == receiver]
