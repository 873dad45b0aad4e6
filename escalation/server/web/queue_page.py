"""Which entries stand on a page of the queue, and in which order: by little of each, so that ten thousand
cost no more than a look.

The order is what waits for the reader first, then the worst, then the oldest; what is over comes newest
first. It never depends on when a fault was seen last, so a row does not move because it was seen again.
Entries of one class on one host that stand alike are folded into one of them, which says how many there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from escalation.model import (
    SEVERITY_ORDER,
    AgentId,
    FaultClass,
    Incident,
    IncidentId,
    Recommendation,
    RecommendationId,
    Severity,
    State,
)
from escalation.server.attention.values import Shelf

if TYPE_CHECKING:
    from escalation.server.desk import Entry

ROWS_AT_MOST: Final = 20_000
"""How many entries are ordered at most: the newest."""

PAGE_ROWS: Final = 100

AT_ONCE: Final = 1000
"""How many entries or incidents one answer to a program holds at most: those that come first."""

_ALIKE: Final = 3
"""From how many on entries that stand alike are folded."""

_PLACES: Final = {State.PROPOSED: 0, State.APPROVED: 0, State.DONE: 1}
_OVER: Final = 2

_NONE: Final[frozenset[Shelf]] = frozenset()

_ASIDE: Final = frozenset({Shelf.SILENCED, Shelf.SNOOZED})


@dataclass(frozen=True, slots=True)
class QueueRow:
    """What of an entry decides where it stands."""

    id: RecommendationId
    incident_id: IncidentId
    state: State
    host: AgentId
    fault_class: FaultClass
    fault_number: int | None
    severity: Severity
    drill: bool
    created_ns: int
    approvers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shelved:
    """Which incidents somebody has in hand, put off, asked about or silenced."""

    owners: Mapping[IncidentId, str] = field(default_factory=dict)
    snoozed: frozenset[IncidentId] = frozenset()
    asked: frozenset[IncidentId] = frozenset()
    silenced: frozenset[IncidentId] = frozenset()

    def on(self, row: QueueRow) -> frozenset[Shelf]:
        """Return the shelves that `row` is on."""
        if row.state not in _PLACES or not (self.owners or self.snoozed or self.asked or self.silenced):
            return _NONE
        held = {
            Shelf.ACKNOWLEDGED: row.incident_id in self.owners,
            Shelf.ASKED: row.incident_id in self.asked,
            Shelf.SILENCED: row.incident_id in self.silenced,
            Shelf.SNOOZED: row.incident_id in self.snoozed and row.state is State.PROPOSED,
        }
        return frozenset(shelf for shelf, holds in held.items() if holds)


@dataclass(frozen=True, slots=True)
class Sought:
    """What is looked for: an empty value is any. `states` None: all of them. `page` counts from one.

    `aside` says whether what was put aside is left out; `shelf` that only what is on it is wanted.
    """

    states: frozenset[State] | None
    aside: bool = False
    shelf: Shelf | None = None
    host: str = ""
    fault_class: str = ""
    severity: str = ""
    fold: bool = True
    page: int = 1


@dataclass(frozen=True, slots=True)
class Place:
    """One line of a page; `alike` are how many more entries it stands for."""

    id: RecommendationId
    alike: int = 0


@dataclass(frozen=True, slots=True)
class Arranged:
    """One page's places, and what the whole of what was sought holds.

    `hosts`, `classes` and `severities` count what the states hold before the other filters, for choosing;
    `aside` counts what was left out, `fresh` what is new since the reader was here last.
    """

    places: tuple[Place, ...]
    total: int
    waiting: int
    lines: int
    page: int
    pages: int
    fresh: int = 0
    hosts: Mapping[str, int] = field(default_factory=dict)
    classes: Mapping[str, int] = field(default_factory=dict)
    severities: Mapping[str, int] = field(default_factory=dict)
    aside: Mapping[Shelf, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class News:
    """What of an entry the reader has not seen: all of it, or what `words` say was noted last, at `at_ns`."""

    at_ns: int
    words: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """An entry on the page; `alike` are how many more it stands for, `news` what is new to the reader."""

    entry: Entry
    alike: int
    news: News | None = None


@dataclass(frozen=True, slots=True)
class QueuePage:
    """One page of the queue; `since_ns` is when its reader was here last before now (0: never)."""

    lines: tuple[Line, ...]
    arranged: Arranged
    since_ns: int = 0


def row_of(recommendation: Recommendation, incident: Incident) -> QueueRow:
    """Return the row of an entry that is at hand whole."""
    return QueueRow(
        id=recommendation.id,
        incident_id=incident.id,
        state=recommendation.state,
        host=incident.agent_id,
        fault_class=incident.fault_class,
        fault_number=incident.fault_number,
        severity=incident.severity,
        drill=incident.drill,
        created_ns=recommendation.created_ns,
        approvers=recommendation.approvers,
    )


def arrange(
    rows: Iterable[QueueRow], sought: Sought, *, person: str, shelved: Shelved, since_ns: int = 0
) -> Arranged:
    """Return the page that `sought` asks for, as `person`, who was here at `since_ns`, wants it ordered."""
    looked = [_Looked(row, shelved, person) for row in rows]
    aside = Counter(shelf for each in looked if sought.aside for shelf in each.shelves & _ASIDE)
    kept = [each for each in looked if _on_shelf(each, sought)]
    found = sorted(_wanted(kept, sought), key=attrgetter("standing"))
    places = _folded(found) if sought.fold else [Place(each.row.id) for each in found]
    pages = max(1, -(-len(places) // PAGE_ROWS))
    page = min(sought.page, pages)
    return Arranged(
        places=tuple(places[(page - 1) * PAGE_ROWS : page * PAGE_ROWS]),
        total=len(found),
        waiting=sum(each.waits for each in kept),
        lines=len(places),
        page=page,
        pages=pages,
        fresh=sum(each.row.created_ns > since_ns for each in found) if since_ns else 0,
        hosts=_counted(each.row.host for each in kept),
        classes=_counted(each.row.fault_class for each in kept),
        severities=_counted(each.row.severity for each in kept),
        aside=dict(sorted(aside.items())),
    )


def first(rows: Iterable[QueueRow], *, shelved: Shelved, most: int) -> list[RecommendationId]:
    """Return the `most` entries that come first, for nobody in particular; what is put aside comes last."""
    looked = (_Looked(row, shelved, "") for row in rows)
    found = sorted(looked, key=lambda each: (bool(each.shelves & _ASIDE), *each.standing, each.row.id))
    return [each.row.id for each in found[:most]]


class _Looked:
    """A row as one person sees it: whether it waits for them, and where it stands.

    What they have in hand themselves waits for them; what somebody else has in hand does not.
    """

    __slots__ = ("row", "shelves", "standing", "waits")

    def __init__(self, row: QueueRow, shelved: Shelved, person: str) -> None:
        self.row = row
        self.shelves = shelved.on(row)
        place = _PLACES.get(row.state, _OVER)
        in_hand = Shelf.ACKNOWLEDGED in self.shelves and shelved.owners[row.incident_id] != person
        approved = row.state is State.PROPOSED and person in row.approvers
        self.waits = place == 0 and not in_hand and not approved
        self.standing = (
            (_OVER, 0, False, -row.created_ns, row.id)
            if place == _OVER
            else (
                0 if self.waits else 1,
                -SEVERITY_ORDER.index(row.severity),
                row.drill,
                row.created_ns,
                row.id,
            )
        )


def _on_shelf(each: _Looked, sought: Sought) -> bool:
    if sought.shelf is not None:
        return sought.shelf in each.shelves
    return not (sought.aside and each.shelves & _ASIDE)


def _wanted(kept: Sequence[_Looked], sought: Sought) -> Sequence[_Looked]:
    if sought.host:
        kept = [each for each in kept if each.row.host == sought.host]
    if sought.fault_class:
        kept = [each for each in kept if each.row.fault_class == sought.fault_class]
    if sought.severity:
        kept = [each for each in kept if each.row.severity == sought.severity]
    return kept


def _folded(found: Sequence[_Looked]) -> list[Place]:
    groups: dict[object, list[RecommendationId]] = {}
    for each in found:
        row = each.row
        key = (row.host, row.fault_class, row.fault_number, row.state, row.severity, row.drill, each.shelves)
        groups.setdefault((*key, each.waits), []).append(row.id)
    places: dict[RecommendationId, int] = {}
    for alike in groups.values():
        if len(alike) < _ALIKE:
            places |= dict.fromkeys(alike, 0)
        else:
            places[alike[0]] = len(alike) - 1
    return [Place(each.row.id, places[each.row.id]) for each in found if each.row.id in places]


def _counted(values: Iterable[str]) -> Mapping[str, int]:
    return {str(value): count for value, count in sorted(Counter(values).items())}
