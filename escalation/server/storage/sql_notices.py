"""The outbox in a database, by statements that SQLite and PostgreSQL share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from escalation.model import IncidentId
from escalation.server.notify.notices import RAISING, Event, Notice, NoticeState
from escalation.server.storage import rows

_RAISING: Final = ", ".join(f"'{each}'" for each in sorted(RAISING))


class Database(Protocol):
    """One connection in a transaction; a question mark stands for a value."""

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Any:
        """Run one statement."""


class SqlNotices:
    """The outbox in SQL."""

    def __init__(self, *, database: Database) -> None:
        """Read and write on `database`; nothing is cached."""
        self._db = database

    def __repr__(self) -> str:
        return "SqlNotices()"

    def add(self, notice: Notice) -> bool:
        """Keep a notice to be sent; False when it is kept already, whatever has become of it."""
        added = self._db.execute(
            "INSERT INTO notices (id, receiver, incident_id, event, state, created_ns, due_ns, value) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING RETURNING id",
            (
                notice.id,
                notice.receiver,
                notice.incident_id,
                notice.event,
                notice.state,
                notice.created_ns,
                notice.due_ns,
                rows.dump(notice),
            ),
        )
        return added.fetchone() is not None

    def settle(self, notice: Notice, state: NoticeState) -> None:
        """Keep what has become of a notice."""
        self._db.execute(
            "UPDATE notices SET state = ?, value = ? WHERE id = ?",
            (state, rows.dump(replace(notice, state=state)), notice.id),
        )

    def due(self, receiver: str, *, now_ns: int, limit: int) -> Sequence[Notice]:
        """Return the oldest notices that wait to be sent to `receiver` and may be."""
        return self._notices(
            "SELECT value FROM notices WHERE state = 'waiting' AND receiver = ? AND due_ns <= ? "
            "ORDER BY number LIMIT ?",
            (receiver, now_ns, limit),
        )

    def of(self, incident_id: IncidentId) -> Sequence[Notice]:
        """Return what was or is to be told about an incident, oldest first."""
        return self._notices(
            "SELECT value FROM notices WHERE incident_id = ? ORDER BY number", (incident_id,)
        )

    def standing(self, receiver: str, *, limit: int) -> Sequence[Notice]:
        """Return the newest word that `receiver` has on each incident of which it has not heard the end."""
        return self._notices(
            "SELECT value FROM notices WHERE number IN (SELECT max(number) FROM notices "  # noqa: S608 - constants
            f"WHERE receiver = ? AND state = 'sent' AND event IN ('cleared', {_RAISING}) "
            "GROUP BY incident_id) AND event <> 'cleared' ORDER BY number DESC LIMIT ?",
            (receiver, limit),
        )

    def last_test(self, receiver: str) -> Notice | None:
        """Return the newest test of a receiver."""
        found = self._notices(
            "SELECT value FROM notices WHERE receiver = ? AND event = ? ORDER BY number DESC LIMIT 1",
            (receiver, Event.TEST),
        )
        return found[0] if found else None

    def counts(self) -> Mapping[tuple[str, NoticeState], int]:
        """Return how many notices of each receiver are in each state."""
        found = self._db.execute("SELECT receiver, state, count(*) FROM notices GROUP BY receiver, state")
        return {(receiver, NoticeState(state)): count for receiver, state, count in found.fetchall()}

    def forget(self, *, created_before_ns: int, limit: int) -> int:
        """Delete notices that are old and over, at most `limit`, and return how many.

        What was told of an incident that is still open stays: its end is to be told to the same receivers.
        """
        deleted = self._db.execute(
            "DELETE FROM notices WHERE number IN (SELECT number FROM notices WHERE created_ns < ? "
            "AND incident_id NOT IN (SELECT id FROM incidents WHERE open = 1) "
            "ORDER BY number LIMIT ?) RETURNING number",
            (created_before_ns, limit),
        )
        return len(deleted.fetchall())

    def _notices(self, statement: str, values: Sequence[Any]) -> Sequence[Notice]:
        return [rows.load_notice(value) for (value,) in self._db.execute(statement, values).fetchall()]
