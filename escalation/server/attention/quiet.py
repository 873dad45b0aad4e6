"""What is not told now, and of whom: silences hold back what machines report, never what people do.

What a silence held back is remembered, so that it is told when the silence ends and the fault is still there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from escalation.model import Incident, IncidentId
from escalation.server.attention.silences import ACTIVE, HELD, HeldBack, Origin, Phase, Silence
from escalation.server.attention.values import ACKNOWLEDGEMENTS, SNOOZES, ended, seen_of
from escalation.server.incident import timeline
from escalation.server.incident.timeline import Moment, MomentKind
from escalation.server.notify.notices import RAISING, Event, Happening, Notice
from escalation.server.storage.store import Ledger
from escalation.wording.moments import moment

_OF_MACHINES: Final = frozenset(
    {
        Event.OPENED,
        Event.HOST_SILENT,
        Event.RETURNED,
        Event.WORSENED,
        Event.WAITING,
        Event.EXPIRED,
        Event.REOPENED,
    }
)
_TOLD_LATER: Final = RAISING | {Event.REOPENED}
_UNTOLD_AT_MOST: Final = 8


def active(ledger: Ledger, *, now_ns: int) -> Sequence[Silence]:
    """Return the silences in force, in the order of their ids."""
    return [each for each in ledger.records.of(ACTIVE).values() if each.phase(now_ns) is Phase.ACTIVE]


def on(ledger: Ledger, incident: Incident, *, now_ns: int) -> Sequence[Silence]:
    """Return the silences in force that cover `incident`."""
    return [each for each in active(ledger, now_ns=now_ns) if each.covers(incident)]


def holds_back(ledger: Ledger, happening: Happening, *, now_ns: int) -> bool:
    """Return whether `happening` is not to be told now; what a silence holds back it remembers."""
    if happening.event not in _OF_MACHINES:
        return False
    covering = on(ledger, happening.incident, now_ns=now_ns)
    for each in covering:
        hold(ledger, each, happening.incident, now_ns=now_ns, happening=happening)
    return bool(covering) or _is_in_hand(ledger, happening, now_ns=now_ns)


def hold(
    ledger: Ledger, silence: Silence, incident: Incident, *, now_ns: int, happening: Happening | None = None
) -> None:
    """Count that `silence` holds `incident` back, and what would have been told of it."""
    known = ledger.records.get(HELD, incident.id, owner=silence.id)
    held = known or HeldBack(now_ns)
    if happening is not None and happening.event in _TOLD_LATER:
        untold = dict.fromkeys((*held.untold, (happening.event.value, happening.occasion)))
        held = replace(held, untold=tuple(untold)[:_UNTOLD_AT_MOST])
    if held != known:
        ledger.records.put(HELD, incident.id, held, owner=silence.id)
    if known is None:
        noun = "a silence" if silence.origin is Origin.SILENCE else "maintenance"
        words = f"{noun} of {silence.author} covers it until {moment(silence.ends_ns)}"
        timeline.add(ledger, incident.id, Moment(now_ns, MomentKind.SILENCED, words, silence.author))
        ledger.put_incident(incident)
    if known is None or happening is not None:
        now = ledger.records.get(ACTIVE, silence.id) or silence
        counted = replace(
            now,
            incidents=now.incidents + (known is None),
            notices=now.notices + (happening is not None),
        )
        ledger.records.put(ACTIVE, silence.id, counted)


def let_go(ledger: Ledger, silence: Silence, *, now_ns: int) -> list[Happening]:
    """Return what `silence`, which is over, kept from being told and is still so."""
    found: list[Happening] = []
    for incident_id, held in ledger.records.of(HELD, owner=silence.id).items():
        incident = ledger.incident(IncidentId(incident_id))
        if incident is None or not incident.open or incident.explained_by is not None:
            continue
        for event, occasion in held.untold:
            happening = Happening(Event(event), incident, occasion)
            if not holds_back(ledger, happening, now_ns=now_ns):
                found.append(happening)
                if happening.event in {Event.OPENED, Event.HOST_SILENT}:
                    break  # it says how bad it is by now
    return found


def audible(ledger: Ledger, notices: Sequence[Notice], *, now_ns: int) -> list[Notice]:
    """Return those notices whose incidents no silence covers now."""
    silences = active(ledger, now_ns=now_ns)
    if not silences:
        return list(notices)
    found = ((each, ledger.incident(each.incident_id)) for each in notices)
    return [
        notice
        for notice, incident in found
        if incident is None or not any(silence.covers(incident) for silence in silences)
    ]


def _is_in_hand(ledger: Ledger, happening: Happening, *, now_ns: int) -> bool:
    """Return whether somebody has it in hand, or put it off, so that nobody needs to be reminded."""
    if happening.event not in {Event.WAITING, Event.EXPIRED}:
        return False
    seen = seen_of(happening.incident, ())
    snoozed = ledger.records.get(SNOOZES, happening.incident.id)
    if snoozed is not None and ended(snoozed, seen, now_ns=now_ns) is None:
        return True
    owned = ledger.records.get(ACKNOWLEDGEMENTS, happening.incident.id)
    return (
        happening.event is Event.WAITING and owned is not None and ended(owned, seen, now_ns=now_ns) is None
    )
