"""What people's attention, and the time that passes, make of the ledger.

Every function is one transaction's work, as in `triage`. Whatever is done is in the audit log and on the
incident's timeline; the records hold only what is in force. `put_incident` is called with an incident that
did not change where other processes have to show an entry anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from escalation.model import SEVERITY_ORDER, Incident, IncidentId, Recommendation, RecommendationId, State
from escalation.server import queue_rows, steps
from escalation.server.attention import quiet
from escalation.server.attention.silences import HELD, Origin
from escalation.server.attention.values import (
    ACKNOWLEDGEMENTS,
    REMARKS,
    REMARKS_AT_MOST,
    SNOOZES,
    TEXT_LIMIT,
    THREADS,
    Acknowledgement,
    Attention,
    Remark,
    Snooze,
    Thread,
    ended,
    seen_of,
    with_remark,
)
from escalation.server.decision.approvals import UNFINISHED
from escalation.server.desk import Entry, NotFound, Refused
from escalation.server.incident import timeline
from escalation.server.incident.timeline import Moment, MomentKind
from escalation.server.notify.notices import Event, Happening
from escalation.server.storage.store import Ledger
from escalation.server.web.queue_page import Shelved
from escalation.wording.moments import moment

NAMED_AT_MOST: Final = 8


@dataclass(frozen=True, slots=True)
class Noted:
    """What became of an entry, and what there is to tell."""

    entry: Entry
    happenings: tuple[Happening, ...] = ()


@dataclass(frozen=True, slots=True)
class Passed:
    """What time did: which recommendations look different now, and what there is to tell."""

    changed: frozenset[RecommendationId]
    happenings: tuple[Happening, ...]


# Reading ----------------------------------------------------------------------------------------------------


def attended(
    ledger: Ledger, entries: Sequence[Entry], *, now_ns: int, whole: bool = False
) -> Sequence[Entry]:
    """Return the entries with the attention that is in force on each; the threads too when `whole`."""
    records = ledger.records
    owned, snoozed, threads = records.of(ACKNOWLEDGEMENTS), records.of(SNOOZES), records.of(THREADS)
    silences = quiet.active(ledger, now_ns=now_ns)

    def attention(entry: Entry) -> Attention:
        incident, state = entry.incident, entry.recommendation.state
        if state not in UNFINISHED:
            remarks = tuple(records.of(REMARKS, owner=incident.id).values()) if whole else ()
            return Attention(remarks=remarks, thread=Thread(len(remarks)))
        seen = seen_of(incident, entry.explains)
        acknowledged, put_off = owned.get(incident.id), snoozed.get(incident.id)
        if acknowledged is not None and ended(acknowledged, seen, now_ns=now_ns) is not None:
            acknowledged = None
        if put_off is not None and ended(put_off, seen, now_ns=now_ns) is not None:
            put_off = None
        return Attention(
            acknowledged=acknowledged,
            snoozed=put_off if state is State.PROPOSED else None,
            thread=threads.get(incident.id, Thread()),
            remarks=tuple(records.of(REMARKS, owner=incident.id).values()) if whole else (),
            silenced_by=tuple(each for each in silences if each.covers(incident)),
        )

    return [replace(each, attention=attention(each)) for each in entries]


def shelved(ledger: Ledger, *, now_ns: int) -> Shelved:
    """Return what is in force on which incidents, of all, from what is kept by their ids.

    What only just broke it is still named here, until time has passed once. An incident that a silence held
    back before is looked at again: it may have become what no silence covers.
    """
    records = ledger.records
    silenced = set()
    for silence in quiet.active(ledger, now_ns=now_ns):
        for incident_id in records.of(HELD, owner=silence.id):
            incident = ledger.incident(IncidentId(incident_id))
            if incident is not None and silence.covers(incident):
                silenced.add(incident.id)
    return Shelved(
        owners={IncidentId(key): each.person for key, each in records.of(ACKNOWLEDGEMENTS).items()},
        snoozed=frozenset(map(IncidentId, records.of(SNOOZES))),
        asked=frozenset(IncidentId(key) for key, each in records.of(THREADS).items() if each.unanswered),
        silenced=frozenset(silenced),
    )


# What people do ---------------------------------------------------------------------------------------------


def acknowledge(ledger: Ledger, entry_id: str, *, person: str, until_ns: int, now_ns: int) -> Noted:
    """Record that `person` has the entry in hand; who had it before is recorded too, and a snooze ends."""
    entry = _standing(ledger, entry_id, "be acknowledged")
    incident = entry.incident
    before = ledger.records.get(ACKNOWLEDGEMENTS, incident.id)
    owner = before.person if before is not None and _why_over(before, entry, now_ns) is None else None
    kept = Acknowledgement(person, now_ns, until_ns, seen_of(incident, entry.explains))
    ledger.records.put(ACKNOWLEDGEMENTS, incident.id, kept)
    ledger.records.remove(SNOOZES, incident.id)
    verb, words = "incident.acknowledged", f"{person} has it in hand until {moment(until_ns)}"
    if owner is not None and owner != person:
        verb, words = "incident.taken_over", f"{person} took it over from {owner}, until {moment(until_ns)}"
    detail = f"until={moment(until_ns)}" + (f" from={owner}" if owner not in {None, person} else "")
    _note(ledger, incident, _Deed(verb, detail, MomentKind.ACKNOWLEDGED, words), actor=person, now_ns=now_ns)
    return _noted(ledger, entry, now_ns=now_ns)


def snooze(ledger: Ledger, entry_id: str, *, person: str, until_ns: int, now_ns: int) -> Noted:
    """Put an undecided entry off; whoever had it in hand has it no longer."""
    entry = _standing(ledger, entry_id, "be snoozed")
    incident = entry.incident
    if entry.recommendation.state is not State.PROPOSED:
        raise Refused(f"it is {entry.recommendation.state.value}: there is nothing left to put off")
    kept = Snooze(person, now_ns, until_ns, seen_of(incident, entry.explains))
    ledger.records.put(SNOOZES, incident.id, kept)
    ledger.records.remove(ACKNOWLEDGEMENTS, incident.id)
    words = f"{person} put it off until {moment(until_ns)}"
    detail = f"until={moment(until_ns)}"
    _note(
        ledger,
        incident,
        _Deed("incident.snoozed", detail, MomentKind.SNOOZED, words),
        actor=person,
        now_ns=now_ns,
    )
    return _noted(ledger, entry, now_ns=now_ns)


def release(ledger: Ledger, entry_id: str, *, person: str, now_ns: int) -> Noted:
    """Give an entry back to the queue: it is nobody's and not put off."""
    entry = queue_rows.entry(ledger, entry_id)
    incident = entry.incident
    owned = ledger.records.get(ACKNOWLEDGEMENTS, incident.id)
    put_off = ledger.records.get(SNOOZES, incident.id)
    if owned is None and put_off is None:
        raise Refused("nobody has it in hand, and it is not put off")
    ledger.records.remove(ACKNOWLEDGEMENTS, incident.id)
    ledger.records.remove(SNOOZES, incident.id)
    of = ", ".join(dict.fromkeys(each.person for each in (owned, put_off) if each is not None))
    words = f"{person} gave it back to the queue"
    _note(
        ledger,
        incident,
        _Deed("incident.released", f"of={of}", MomentKind.RELEASED, words),
        actor=person,
        now_ns=now_ns,
    )
    return _noted(ledger, entry, now_ns=now_ns)


def ask(ledger: Ledger, entry_id: str, *, person: str, text: str, to: Sequence[str], now_ns: int) -> Noted:
    """Add a question to the thread; `to` are the persons whose answer is wanted."""
    entry = _standing(ledger, entry_id, "be asked about")
    asked = tuple(dict.fromkeys(to))
    if len(asked) > NAMED_AT_MOST:
        raise Refused(f"a question names {NAMED_AT_MOST} persons at most")
    remark = _remark(ledger, entry, person=person, text=text, to=asked, now_ns=now_ns)
    of = f" of {', '.join(asked)}" if asked else ""
    detail = f"number={remark.number}" + (f" of={','.join(asked)}" if asked else "") + f" text={remark.text}"
    words = f"{person} asked question {remark.number}{of}"
    _note(
        ledger,
        entry.incident,
        _Deed("incident.asked", detail, MomentKind.ASKED, words),
        actor=person,
        now_ns=now_ns,
    )
    happening = Happening(Event.ASKED, entry.incident, str(remark.number))
    return _noted(ledger, entry, happening, now_ns=now_ns)


def answer(
    ledger: Ledger, entry_id: str, *, person: str, text: str, question: int | None, now_ns: int
) -> Noted:
    """Add an answer to the thread: to `question`, or to the newest one that has none."""
    entry = queue_rows.entry(ledger, entry_id)
    remarks = ledger.records.of(REMARKS, owner=entry.incident.id).values()
    questions = [each.number for each in remarks if each.is_question]
    answered = {each.answers for each in remarks}
    if question is None:
        question = next((each for each in reversed(questions) if each not in answered), None)
        if question is None:
            raise Refused("no question waits for an answer here")
    if question not in questions:
        raise NotFound(f"there is no question {question} here")
    remark = _remark(ledger, entry, person=person, text=text, answers=question, now_ns=now_ns)
    detail = f"number={remark.number} answers={question} text={remark.text}"
    words = f"{person} answered question {question}"
    _note(
        ledger,
        entry.incident,
        _Deed("incident.answered", detail, MomentKind.ANSWERED, words),
        actor=person,
        now_ns=now_ns,
    )
    return _noted(ledger, entry, now_ns=now_ns)


def note_maintenance(ledger: Ledger, entry: Entry, *, person: str, now_ns: int) -> None:
    """Record of an approval that it was given while somebody works on the host, and under whose window."""
    for each in quiet.on(ledger, entry.incident, now_ns=now_ns):
        if each.origin is not Origin.SILENCE:
            steps.note(
                ledger,
                actor=person,
                verb="recommendation.approved_in_maintenance",
                object_id=entry.recommendation.id,
                detail=f"maintenance={each.id} until={moment(each.ends_ns)} of={each.author}",
                now_ns=now_ns,
            )


# What time does ---------------------------------------------------------------------------------------------


def pass_time(ledger: Ledger, *, now_ns: int) -> Passed:
    """End what is over or broken: acknowledgements, snoozes, and the threads of what is finished."""
    records = ledger.records
    kept: list[tuple[str, Acknowledgement | Snooze]] = [
        *records.of(ACKNOWLEDGEMENTS).items(),
        *records.of(SNOOZES).items(),
    ]
    changed: set[RecommendationId] = set()
    happenings: list[Happening] = []
    consequences = queue_rows.consequences_in(ledger) if kept else {}
    for incident_id, each in kept:
        owned = isinstance(each, Acknowledgement)
        entry = _newest(ledger, incident_id, consequences)
        waits = entry is not None and entry.recommendation.state is State.PROPOSED
        if entry is None or not (waits or (owned and _is_unfinished(entry))):
            _forget(ledger, each, incident_id)
        elif (why := _why_over(each, entry, now_ns)) is not None:
            _forget(ledger, each, incident_id)
            changed.add(entry.recommendation.id)
            happenings += _waits_again(ledger, entry, each, why, waits=waits, now_ns=now_ns)
    for incident_id in records.of(THREADS):
        entry = _newest(ledger, incident_id, {})
        if entry is None or not _is_unfinished(entry):
            records.remove(THREADS, incident_id)
    return Passed(frozenset(changed), tuple(happenings))


def _forget(ledger: Ledger, kept: Acknowledgement | Snooze, incident_id: str) -> None:
    if isinstance(kept, Acknowledgement):
        ledger.records.remove(ACKNOWLEDGEMENTS, incident_id)
    else:
        ledger.records.remove(SNOOZES, incident_id)


def _waits_again(
    ledger: Ledger, entry: Entry, kept: Acknowledgement | Snooze, why: str, *, waits: bool, now_ns: int
) -> list[Happening]:
    """Note that what was kept is over; tell it where a decision is wanted and nothing else told it."""
    incident = entry.incident
    owned = isinstance(kept, Acknowledgement)
    what = "acknowledgement" if owned else "snooze"
    verb = "incident.reopened" if waits else f"incident.{what}_ended"
    detail = f"{what} of={kept.person} why={why}"
    words = f"the {what} of {kept.person} ended: {why}"
    _note(
        ledger,
        incident,
        _Deed(verb, detail, MomentKind.RELEASED, words),
        actor=steps.ORCHESTRATOR,
        now_ns=now_ns,
    )
    if not waits or _rank(incident) > SEVERITY_ORDER.index(kept.seen.severity):
        return []  # that it got worse is told as that
    return [Happening(Event.REOPENED, incident, str(kept.at_ns))]


def _why_over(kept: Acknowledgement | Snooze, entry: Entry, now_ns: int) -> str | None:
    return ended(kept, seen_of(entry.incident, entry.explains), now_ns=now_ns)


def _rank(incident: Incident) -> int:
    return SEVERITY_ORDER.index(incident.severity)


def _is_unfinished(entry: Entry) -> bool:
    return entry.recommendation.state in UNFINISHED


def _newest(ledger: Ledger, incident_id: str, consequences: queue_rows.Consequences) -> Entry | None:
    """Return the newest entry of an incident itself, not of its cause."""
    found: Sequence[Recommendation] = ledger.recommendations(IncidentId(incident_id))
    return queue_rows.entry_of(ledger, found[-1], consequences=consequences) if found else None


def _standing(ledger: Ledger, entry_id: str, what: str) -> Entry:
    entry = queue_rows.entry(ledger, entry_id)
    if not _is_unfinished(entry):
        raise Refused(f"it is {entry.recommendation.state.value} and cannot {what}")
    return entry


def _remark(
    ledger: Ledger,
    entry: Entry,
    *,
    person: str,
    text: str,
    to: tuple[str, ...] = (),
    answers: int | None = None,
    now_ns: int,
) -> Remark:
    said = text.strip()
    if not said:
        raise Refused("there is nothing in it")
    if "\0" in said:
        raise Refused("it holds a character that not every database can keep (NUL)")
    if len(said) > TEXT_LIMIT:
        raise Refused(f"it is longer than {TEXT_LIMIT} characters")
    incident = entry.incident
    remarks = ledger.records.of(REMARKS, owner=incident.id)
    if len(remarks) >= REMARKS_AT_MOST:
        raise Refused(f"{REMARKS_AT_MOST} questions and answers are enough for one incident")
    remark = Remark(number=len(remarks) + 1, person=person, at_ns=now_ns, text=said, to=to, answers=answers)
    ledger.records.put(REMARKS, f"{remark.number:08d}", remark, owner=incident.id)
    if _is_unfinished(entry):
        thread = ledger.records.get(THREADS, incident.id) or Thread()
        ledger.records.put(THREADS, incident.id, with_remark(thread, remark))
    return remark


@dataclass(frozen=True, slots=True)
class _Deed:
    """What is noted of one thing that was done: for the audit log, and for the timeline."""

    verb: str
    detail: str
    kind: MomentKind
    words: str


def _note(ledger: Ledger, incident: Incident, deed: _Deed, *, actor: str, now_ns: int) -> None:
    steps.note(ledger, actor=actor, verb=deed.verb, object_id=incident.id, detail=deed.detail, now_ns=now_ns)
    timeline.add(ledger, incident.id, Moment(now_ns, deed.kind, deed.words, actor))
    ledger.put_incident(incident)


def _noted(ledger: Ledger, entry: Entry, *happenings: Happening, now_ns: int) -> Noted:
    return Noted(attended(ledger, [entry], now_ns=now_ns, whole=True)[0], happenings)
