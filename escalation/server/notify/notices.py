"""What people are told, and when: one notice for each thing that happened and each receiver of it.

A notice holds names of ours and numbers only: no evidence, no name that a host has chosen, nothing to press.
Who wants to know more follows its link and logs in.
"""

from __future__ import annotations

import enum
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NewType
from urllib.parse import quote

from escalation.model import (
    SEVERITY_ORDER,
    AgentId,
    FaultClass,
    Incident,
    IncidentId,
    Recommendation,
    Severity,
    State,
    SubjectKind,
)
from escalation.wording.codes import headline, marked

NoticeId = NewType("NoticeId", str)

_NOTICES: Final = uuid.UUID("6c1c2ac1-2f9a-5d40-9d0c-6f0f3a3c9b51")
_ACTIVE: Final = re.compile(r"[^A-Za-z0-9 .,:;%/'()+-]")


class Event(enum.StrEnum):
    """What happened."""

    OPENED = "opened"
    HOST_SILENT = "host_silent"
    RETURNED = "returned"
    WORSENED = "worsened"
    WAITING = "waiting"
    APPROVED = "approved"
    EXPIRED = "expired"
    LAPSED = "lapsed"
    NOT_CURED = "not_cured"
    CLEARED = "cleared"
    REOPENED = "reopened"
    ASKED = "asked"
    TEST = "test"


WORDS: Final[Mapping[Event, str]] = {
    Event.OPENED: "new",
    Event.HOST_SILENT: "a host is silent",
    Event.RETURNED: "it is back",
    Event.WORSENED: "it got worse",
    Event.WAITING: "still waits for a decision",
    Event.APPROVED: "approved",
    Event.EXPIRED: "expired undecided",
    Event.LAPSED: "approved, and not carried out in time",
    Event.NOT_CURED: "the remedy did not help",
    Event.CLEARED: "cleared",
    Event.REOPENED: "it waits again: nobody decided in time, or it changed",
    Event.ASKED: "somebody asks about it",
    Event.TEST: "a test",
}

RAISING: Final = frozenset({Event.OPENED, Event.HOST_SILENT, Event.RETURNED, Event.WORSENED})
"""The events after which something stands open."""

_OF_STATE: Final[Mapping[State, Event]] = {
    State.APPROVED: Event.APPROVED,
    State.EXPIRED: Event.EXPIRED,
    State.LAPSED: Event.LAPSED,
    State.NOT_CURED: Event.NOT_CURED,
}


class NoticeState(enum.StrEnum):
    """Where a notice stands. FOLDED: it went out as one of "and N more", or was overtaken unsent."""

    WAITING = "waiting"
    SENT = "sent"
    FOLDED = "folded"
    GIVEN_UP = "given_up"


@dataclass(frozen=True, slots=True)
class Happening:
    """Something to tell; `occasion` tells two of one kind and incident apart."""

    event: Event
    incident: Incident
    occasion: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One happening for one receiver."""

    id: NoticeId
    receiver: str
    incident_id: IncidentId
    event: Event
    severity: Severity
    fault_class: FaultClass
    fault_number: int | None
    agent_id: AgentId
    drill: bool
    since_ns: int
    created_ns: int
    due_ns: int
    state: NoticeState = NoticeState.WAITING


def of(happening: Happening, *, receiver: str, now_ns: int, due_ns: int) -> Notice:
    """Return the notice of `happening` for `receiver`; the same again has the same id."""
    incident = happening.incident
    return Notice(
        id=id_of(incident.id, happening.event, happening.occasion, receiver),
        receiver=receiver,
        incident_id=incident.id,
        event=happening.event,
        severity=incident.severity,
        fault_class=incident.fault_class,
        fault_number=incident.fault_number,
        agent_id=incident.agent_id,
        drill=incident.drill,
        since_ns=incident.first_seen_ns,
        created_ns=now_ns,
        due_ns=due_ns,
    )


def id_of(incident_id: IncidentId, event: Event, occasion: str, receiver: str) -> NoticeId:
    """Return the id, which is what makes telling twice visible: here, and to whoever is told."""
    return NoticeId(str(uuid.uuid5(_NOTICES, f"{incident_id}\n{event}\n{occasion}\n{receiver}")))


def of_incident(before: Incident | None, after: Incident) -> Happening | None:
    """Return what is to be told of an incident that was `before` and is `after`.

    A consequence is not told: its cause is. It is when it comes to stand alone. Nor is what a rule in shadow
    found, until it leaves the shadow. What turns out to be no drill is told anew.
    """
    if not after.open:
        occasion = str(after.returns) if after.returns else ""
        return Happening(Event.CLEARED, after, occasion) if before is not None and before.open else None
    if after.explained_by is not None or after.shadow:
        return None
    if before is not None and not before.open:
        return Happening(Event.RETURNED, after, str(after.returns))
    if before is None or before.explained_by is not None or before.shadow:
        silent = after.fault_class is FaultClass.MONITOR_BLIND and after.subject.kind is SubjectKind.HOST
        return Happening(Event.HOST_SILENT if silent else Event.OPENED, after)
    if before.drill and not after.drill:
        return Happening(Event.OPENED, after, "no drill")
    if _rank(after.severity) > _rank(before.severity):
        return Happening(Event.WORSENED, after, after.severity)
    return None


def of_recommendation(before: Recommendation | None, after: Recommendation) -> Event | None:
    """Return what is to be told of a recommendation that was `before` and is `after`."""
    if before is not None and before.state is after.state:
        return None
    return _OF_STATE.get(after.state)


def _rank(severity: Severity) -> int:
    return SEVERITY_ORDER.index(severity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A notice as it goes out: every text is inert, whatever reads it.

    `more` is how many others this one stands for.
    """

    id: str
    event: Event
    title: str
    headline: str
    severity: str
    host: str
    fault_class: str
    incident_id: str
    url: str
    drill: bool
    since: str
    created: str
    more: int = 0

    @property
    def text(self) -> str:
        """Return what a person reads: a line, and the link."""
        return f"{self.title}\n{self.url}"


def message(notice: Notice, *, url: str, more: int = 0) -> Message:
    """Return `notice` as it goes out; `url` is where the desk is."""
    words = inert(marked(headline(notice.fault_class, notice.fault_number), drill=notice.drill))
    host = inert(notice.agent_id)
    title = f"{notice.severity.upper()} on {host}: {words} ({WORDS[notice.event]})"
    link = f"{url.rstrip('/')}/q/{quote(notice.incident_id, safe='')}"
    if notice.event is Event.TEST:
        words = title = f"Host Nanobot: {WORDS[Event.TEST]}, nothing happened"
        link = f"{url.rstrip('/')}/"
    if more:
        title = f"{title}, and {more} more"
        link = f"{url.rstrip('/')}/"
    return Message(
        id=notice.id,
        event=notice.event,
        title=title,
        headline=words,
        severity=notice.severity.value,
        host=host,
        fault_class=notice.fault_class.value,
        incident_id=inert(notice.incident_id),
        url=link,
        drill=notice.drill,
        since=rfc3339(notice.since_ns),
        created=rfc3339(notice.created_ns),
        more=more,
    )


def inert(text: str) -> str:
    """Return `text` with everything replaced that a mail, a chat, a shell or a header could act on."""
    return _ACTIVE.sub("?", text[:200])


def rfc3339(unix_ns: int) -> str:
    """Return the time as RFC 3339, UTC, to the second; what lies outside of its years, at their end."""
    seconds = max(0, min(unix_ns // 1_000_000_000, 253_402_300_799))
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
