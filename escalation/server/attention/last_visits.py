"""When each person was here last, so that the queue can say what is new to them.

A visit goes on while its person asks for something within half an hour of what they asked for before; what a
page asks for by itself is no visit. "Since your last visit" is measured from the end of the visit before this
one. That stands still as long as a visit goes on, so reading a page again takes no mark away, and looking at
it on two devices is one visit.

A button that says "I have seen it all" was rejected: who is tired forgets it, and then everything is new.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from escalation.server.storage.records import Kind
from escalation.server.storage.store import Ledger

ENDS_AFTER_S: Final = 1800.0

_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class LastVisit:
    """When somebody asked for something last, and when the visit before ended (0: there was none)."""

    seen_ns: int
    before_ns: int = 0


VISITS: Final = Kind("visit", LastVisit)
"""By the person's name."""


def note(ledger: Ledger, person: str, *, now_ns: int) -> None:
    """Keep that `person` asks for something now."""
    known = ledger.records.get(VISITS, person)
    if known is None:
        kept = LastVisit(now_ns)
    elif now_ns - known.seen_ns > ENDS_AFTER_S * _NS:
        kept = LastVisit(now_ns, before_ns=known.seen_ns)
    else:
        kept = LastVisit(max(known.seen_ns, now_ns), known.before_ns)
    ledger.records.put(VISITS, person, kept)


def since(ledger: Ledger, person: str) -> int:
    """Return when the visit before this one ended; 0 when this is the first."""
    known = ledger.records.get(VISITS, person)
    return 0 if known is None else known.before_ns
