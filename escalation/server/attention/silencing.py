"""What silences and maintenance windows make of the ledger: begun, ended by people, and ended by time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from escalation.model import Incident, IncidentId, RecommendationId
from escalation.server import steps
from escalation.server.attention import quiet
from escalation.server.attention.attending import Passed
from escalation.server.attention.maintenance import AUTHOR, Window
from escalation.server.attention.silences import ACTIVE, HELD, OVER, Matcher, Origin, Phase, Silence
from escalation.server.decision.approvals import UNFINISHED
from escalation.server.desk import Expired, NotFound, Refused
from escalation.server.incident import timeline
from escalation.server.incident.timeline import Moment, MomentKind
from escalation.server.notify.notices import Happening
from escalation.server.storage.store import Ledger
from escalation.wording.moments import moment

AT_MOST: Final = 200
"""How many silences may be in force or pending at once."""

_OVER_SHOWN: Final = 200
_SHOWN: Final = 1000


def begin(ledger: Ledger, silence: Silence, *, now_ns: int) -> Silence:
    """Keep a silence; what it covers is counted from now on."""
    known = ledger.records.of(ACTIVE)
    if len(known) >= AT_MOST:
        raise Refused(f"{AT_MOST} silences stand already; expire some")
    _begin(ledger, silence, person=silence.author, now_ns=now_ns)
    if silence.phase(now_ns) is Phase.ACTIVE:
        _hold_all(ledger, [silence], now_ns=now_ns)
    return ledger.records.get(ACTIVE, silence.id) or silence


def end(
    ledger: Ledger, silence_id: str, *, person: str, of_maintenance: bool, now_ns: int
) -> tuple[Silence, Sequence[Happening]]:
    """End a silence, or maintenance, before its time, and return what there is to tell by now."""
    known = ledger.records.get(ACTIVE, silence_id) or ledger.records.get(OVER, silence_id)
    noun = "maintenance" if of_maintenance else "silence"
    if known is None or _noun(known) != noun:
        raise NotFound(f"there is no {noun} of this id")
    if known.phase(now_ns) is Phase.OVER:
        raise Expired(f"this {noun} is over already")
    done = known.ended(person=person, now_ns=now_ns)
    return done, _end(ledger, done, person=person, verb=f"{_noun(done)}.ended", now_ns=now_ns)


def listed(ledger: Ledger, *, now_ns: int) -> Sequence[Silence]:
    """Return the silences that stand, and the newest of those that are over, by when they end."""
    over = list(ledger.records.of(OVER).values())
    found = sorted(
        {each.id: each for each in (*over, *ledger.records.of(ACTIVE).values())}.values(),
        key=lambda each: (each.phase(now_ns) is Phase.OVER, -each.ends_ns, each.id),
    )
    standing = [each for each in found if each.phase(now_ns) is not Phase.OVER]
    return (*standing, *found[len(standing) :][:_OVER_SHOWN])


def covered(ledger: Ledger, silence: Silence) -> Sequence[Incident]:
    """Return the open incidents that `silence` would cover, newest first."""
    found = (each for each in ledger.incidents(limit=_SHOWN) if each.open)
    return [each for each in found if silence.covers(each)]


def entries_under(ledger: Ledger, silence: Silence) -> frozenset[RecommendationId]:
    """Return the unfinished recommendations that `silence` covers."""
    return frozenset(each.id for each in ledger.sketches(UNFINISHED) if silence.covers(each))


def pass_time(ledger: Ledger, *, windows: Sequence[Window], now_ns: int) -> Passed:
    """Begin declared windows, end what is over, and count what is held back."""
    _declare(ledger, windows, now_ns=now_ns)
    happenings: list[Happening] = []
    changed: set[RecommendationId] = set()
    for silence_id, each in ledger.records.of(ACTIVE).items():
        if each.phase(now_ns) is not Phase.OVER:
            continue
        if each.ended_by is None:
            changed |= entries_under(ledger, each)
            happenings += _end(
                ledger, each, person=steps.ORCHESTRATOR, verb=f"{_noun(each)}.expired", now_ns=now_ns
            )
        elif now_ns >= (each.planned_ns or each.ends_ns):
            ledger.records.remove(ACTIVE, silence_id)
    silences = quiet.active(ledger, now_ns=now_ns)
    if silences:
        changed |= _hold_all(ledger, silences, now_ns=now_ns)
    return Passed(frozenset(changed), tuple(happenings))


def _declare(ledger: Ledger, windows: Sequence[Window], *, now_ns: int) -> None:
    """Keep the declared windows that are near, and end those that are declared no longer."""
    known = ledger.records.of(ACTIVE)
    declared = {each.id for each in windows}
    for each in windows:
        due = each.due(now_ns)
        if due is not None and due.id not in known and ledger.records.get(OVER, due.id) is None:
            _begin(ledger, due, person=AUTHOR, now_ns=now_ns)
    for silence in known.values():
        stands = silence.phase(now_ns) is not Phase.OVER
        if stands and silence.origin is Origin.DECLARED and silence.window not in declared:
            done = silence.ended(person=AUTHOR, now_ns=now_ns)
            _end(ledger, done, person=AUTHOR, verb="maintenance.ended", now_ns=now_ns)


def _begin(ledger: Ledger, silence: Silence, *, person: str, now_ns: int) -> None:
    ledger.records.put(ACTIVE, silence.id, silence)
    detail = (
        f"from={moment(silence.starts_ns)} until={moment(silence.ends_ns)} "
        f"matchers={_matchers(silence.matchers)}"
        + (f" also={','.join(silence.also)}" if silence.also else "")
        + f" comment={silence.comment}"
    )
    steps.note(
        ledger,
        actor=person,
        verb=f"{_noun(silence)}.began",
        object_id=silence.id,
        detail=detail,
        now_ns=now_ns,
    )


def _end(ledger: Ledger, silence: Silence, *, person: str, verb: str, now_ns: int) -> Sequence[Happening]:
    """Keep a silence as over and return what it kept from being told.

    One that a person ended stays where the settings are compared with, until it would have ended by itself:
    they would begin it anew otherwise.
    """
    ledger.records.put(OVER, silence.id, silence)
    if silence.origin is Origin.DECLARED and silence.ended_by is not None:
        ledger.records.put(ACTIVE, silence.id, silence)
    else:
        ledger.records.remove(ACTIVE, silence.id)
    detail = f"incidents={silence.incidents} notices={silence.notices}"
    steps.note(ledger, actor=person, verb=verb, object_id=silence.id, detail=detail, now_ns=now_ns)
    for incident_id in ledger.records.of(HELD, owner=silence.id):
        incident = ledger.incident(IncidentId(incident_id))
        if incident is not None and incident.open:
            words = f"{_noun(silence)} of {silence.author} is over"
            timeline.add(ledger, incident.id, Moment(now_ns, MomentKind.UNSILENCED, words, person))
            ledger.put_incident(incident)
    return quiet.let_go(ledger, silence, now_ns=now_ns)


def _hold_all(ledger: Ledger, silences: Sequence[Silence], *, now_ns: int) -> set[RecommendationId]:
    """Count what silences cover and did not before, and return what looks different since."""
    found: set[RecommendationId] = set()
    held = {each.id: set(ledger.records.of(HELD, owner=each.id)) for each in silences}
    for sketch in ledger.sketches(UNFINISHED):
        for each in silences:
            if sketch.incident_id in held[each.id] or not each.covers(sketch):
                continue
            incident = ledger.incident(sketch.incident_id)
            if incident is None:
                continue
            held[each.id].add(incident.id)
            quiet.hold(ledger, each, incident, now_ns=now_ns)
            found.add(sketch.id)
    return found


def _noun(silence: Silence) -> str:
    return "silence" if silence.origin is Origin.SILENCE else "maintenance"


def _matchers(matchers: Sequence[Matcher]) -> str:
    return "; ".join(map(str, matchers))
