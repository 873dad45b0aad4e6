"""One page of the queue: all rows are ordered by little of each, and only what is shown is read whole."""

from __future__ import annotations

from typing import Final

from escalation.model import State
from escalation.server import queue_rows
from escalation.server.attention import attending, last_visits
from escalation.server.desk import Entry
from escalation.server.incident import timeline
from escalation.server.storage.store import Ledger
from escalation.server.web.queue_page import ROWS_AT_MOST, Line, News, QueuePage, Sought, arrange

_MOMENTS: Final = 8
"""How many of an incident's newest moments are looked through for what somebody else did."""


def look(ledger: Ledger, *, sought: Sought, person: str, now_ns: int) -> QueuePage:
    """Return the page that `sought` asks for, as `person` wants it ordered.

    Conditions and prices are not weighed here: that is most of the work, and only an entry's own page says
    them.
    """
    rows = ledger.queue_rows(sought.states or frozenset(State), limit=ROWS_AT_MOST)
    since_ns = last_visits.since(ledger, person)
    shelved = attending.shelved(ledger, now_ns=now_ns)
    arranged = arrange(rows, sought, person=person, shelved=shelved, since_ns=since_ns)
    consequences = queue_rows.consequences_in(ledger)
    found = [(ledger.recommendation(place.id), place.alike) for place in arranged.places]
    whole = [(each, alike) for each, alike in found if each is not None]
    entries = [queue_rows.entry_of(ledger, each, consequences=consequences) for each, _ in whole]
    attended = attending.attended(ledger, entries, now_ns=now_ns)
    alikes = (alike for _, alike in whole)
    news = (_news(ledger, each, person=person, since_ns=since_ns) for each in attended)
    return QueuePage(tuple(map(Line, attended, alikes, news)), arranged, since_ns)


def _news(ledger: Ledger, entry: Entry, *, person: str, since_ns: int) -> News | None:
    """Return what is new of an entry since then: all of it, or the last that `person` did not do."""
    if not since_ns:
        return None
    if entry.recommendation.created_ns > since_ns:
        return News(entry.recommendation.created_ns)
    noted = ledger.records.newest(timeline.MOMENT, owner=entry.incident.id, limit=_MOMENTS).values()
    fresh = [each for each in noted if each.at_ns > since_ns and each.actor != person]
    return News(fresh[-1].at_ns, fresh[-1].words) if fresh else None
