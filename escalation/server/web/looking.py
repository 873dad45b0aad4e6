"""One page of the queue: all rows are ordered by little of each, and only what is shown is read whole."""

from __future__ import annotations

from escalation.model import State
from escalation.server import triage
from escalation.server.attention import attending
from escalation.server.storage.store import Ledger
from escalation.server.web.queue_page import ROWS_AT_MOST, Line, QueuePage, Sought, arrange


def look(ledger: Ledger, *, sought: Sought, person: str, now_ns: int) -> QueuePage:
    """Return the page that `sought` asks for, as `person` wants it ordered.

    Conditions and prices are not weighed here: that is most of the work, and only an entry's own page says
    them.
    """
    rows = ledger.queue_rows(sought.states or frozenset(State), limit=ROWS_AT_MOST)
    arranged = arrange(rows, sought, person=person, shelved=attending.shelved(ledger, now_ns=now_ns))
    consequences = triage.consequences_in(ledger)
    found = [(ledger.recommendation(place.id), place.alike) for place in arranged.places]
    whole = [(each, alike) for each, alike in found if each is not None]
    entries = [triage.entry_of(ledger, each, consequences=consequences) for each, _ in whole]
    attended = attending.attended(ledger, entries, now_ns=now_ns)
    alikes = (alike for _, alike in whole)
    return QueuePage(tuple(map(Line, attended, alikes)), arranged)
