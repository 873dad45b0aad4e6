"""What happened to an incident, in the order in which it was noted: moments that are added and never changed.

The audit log holds every decision and is what proves it; the timeline is what a person reads at 3 a.m. Each
moment is one sentence, of ours but for names and reasons of people: who shows it makes it inert.

An incident that goes to and fro fills no database: from `FULL` moments on only what a person or the first
end of the incident adds is kept, and the last moment before says so.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from escalation.model import IncidentId
from escalation.server.storage.records import Kind
from escalation.server.storage.store import Ledger

FULL: Final = 200
"""From how many moments on what agents report is not added any more."""

SHOWN: Final = 1000
"""How many moments of an incident are read at most: the newest."""


class MomentKind(enum.StrEnum):
    """What happened. OTHER is what a newer version of this program noted."""

    OTHER = "other"
    OPENED = "opened"
    RECORDED = "recorded"
    UPDATED = "updated"
    NO_DRILL = "no_drill"
    JOINED = "joined"
    LEFT = "left"
    CAUSE_FOUND = "cause_found"
    CAUSE_LOST = "cause_lost"
    FULL = "full"
    PROPOSED = "proposed"
    RESTATED = "restated"
    APPROVED_BY_FIRST = "approved_by_first"
    APPROVAL_VOID = "approval_void"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    LAPSED = "lapsed"
    DONE = "done"
    VERIFIED = "verified"
    NOT_CURED = "not_cured"
    ASKED = "asked"
    ANSWERED = "answered"
    SNOOZED = "snoozed"
    ACKNOWLEDGED = "acknowledged"
    RELEASED = "released"
    SILENCED = "silenced"
    UNSILENCED = "unsilenced"
    JUDGED = "judged"
    SHADOWED = "shadowed"
    CLEARED = "cleared"
    RETURNED = "returned"

    @classmethod
    def _missing_(cls, value: object) -> MomentKind | None:
        return cls.OTHER if isinstance(value, str) else None


_REPEATING: Final = frozenset(
    {
        MomentKind.UPDATED,
        MomentKind.JOINED,
        MomentKind.LEFT,
        MomentKind.CAUSE_FOUND,
        MomentKind.CAUSE_LOST,
        MomentKind.PROPOSED,
        MomentKind.RESTATED,
        MomentKind.EXPIRED,
        MomentKind.WITHDRAWN,
        MomentKind.SHADOWED,
        MomentKind.RETURNED,
    }
)
"""What reports alone can add without end."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One thing that happened: when it was noted, what, in words, and who did it.

    `about` is the id of the other incident, or of the recommendation, that the words speak of; empty if none.
    """

    at_ns: int
    kind: MomentKind
    words: str
    actor: str
    about: str = ""


MOMENT: Final = Kind("moment", Moment)
"""The records of the timeline: owned by their incident, keyed by their number."""


def add(ledger: Ledger, incident_id: IncidentId, moment: Moment) -> None:
    """Add `moment` to the end of an incident's timeline."""
    last = ledger.records.newest(MOMENT, owner=incident_id, limit=1)
    number = 1 + max(map(int, last), default=0)
    if number == FULL:
        words = "more of the same happens than is listed from here on; decisions still are"
        full = Moment(moment.at_ns, MomentKind.FULL, words, moment.actor)
        ledger.records.put(MOMENT, f"{number:08d}", full, owner=incident_id)
        number += 1
    if number > FULL and (moment.kind in _REPEATING or _ends_twice(last.values(), moment)):
        return
    ledger.records.put(MOMENT, f"{number:08d}", moment, owner=incident_id)


def _ends_twice(last: Iterable[Moment], moment: Moment) -> bool:
    """Return whether `moment` is the end of an incident whose end stands last already: it came and went."""
    return moment.kind is MomentKind.CLEARED and any(each.kind is MomentKind.CLEARED for each in last)


def of(ledger: Ledger, incident_id: IncidentId) -> tuple[Moment, ...]:
    """Return the moments of an incident in the order in which they were added."""
    return tuple(ledger.records.newest(MOMENT, owner=incident_id, limit=SHOWN).values())
