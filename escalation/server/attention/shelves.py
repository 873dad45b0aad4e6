"""Which part of the queue is asked for, and what of it is left out: a state, a shelf, or what waits.

Without a name the queue is what asks something of somebody, less what is put off or silenced; that is counted
beside it, so that nobody takes a quiet queue for a healthy fleet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from escalation.model import State
from escalation.server.attention.values import Shelf, is_on
from escalation.server.desk import Entry
from escalation.server.web.queue_page import Sought
from escalation.view.entry import NOT_FINISHED

NAMES: Final = ("", "all", *(state.value for state in State), *(shelf.value for shelf in Shelf))
"""What can be asked for."""


@dataclass(frozen=True, slots=True)
class Shown:
    """The entries that are shown, and how many are only counted."""

    entries: tuple[Entry, ...]
    snoozed: int
    silenced: int


def states_of(name: str) -> frozenset[State] | None:
    """Return the states that a part of the queue is looked for in (None: all); raise ValueError."""
    if name not in NAMES:
        raise ValueError(f"state is one of {', '.join(NAMES[1:])}")
    if name == "all":
        return None
    return frozenset({State(name)}) if name in set(State) else NOT_FINISHED


def part(name: str) -> Sought:
    """Return the part of the queue of this name as what is looked for in it; raise ValueError."""
    shelf = Shelf(name) if name in set(Shelf) else None
    return Sought(states=states_of(name), aside=not name, shelf=shelf)


def shown(entries: Sequence[Entry], name: str) -> Shown:
    """Return what of `entries` belongs to the part of this name."""
    kept = tuple(entries)
    if not name:
        kept = tuple(each for each in entries if not each.attention.put_aside)
    elif name in set(Shelf):
        kept = tuple(each for each in entries if is_on(Shelf(name), each.attention))
    return Shown(
        kept,
        snoozed=sum(each.attention.snoozed is not None for each in entries),
        silenced=sum(bool(each.attention.silenced_by) for each in entries),
    )
