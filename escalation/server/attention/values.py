"""What people do with an entry besides deciding it: own it, put it off, ask about it, silence it.

All of it belongs to the incident, not to one recommendation: a proposal that expires and is made anew finds
its owner and its questions again.

Time only ever takes away, as with approvals: an acknowledgement or a snooze is over when its end has come,
when the clock went back before its beginning, and when what was put off has become something else.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from escalation.model import SEVERITY_ORDER, Incident, Severity
from escalation.server.attention.silences import Origin, Silence
from escalation.server.clock import is_over
from escalation.server.storage.records import Kind

TEXT_LIMIT: Final = 2000
"""How long a question or an answer may be, in characters."""

REMARKS_AT_MOST: Final = 200
"""How many questions and answers an incident may have."""

_TENFOLD: Final = 10

Seconds = Annotated[float, msgspec.Meta(ge=60, le=30 * 86_400)]


class AttentionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[attention]` table: how long an entry may be owned without a decision, or put off.

    `acknowledge_s` is what an acknowledgement lasts when nobody says otherwise.
    """

    acknowledge_s: Seconds = 1800.0
    acknowledge_at_most_s: Seconds = 8 * 3600.0
    snooze_at_most_s: Seconds = 7 * 86_400.0

    def __post_init__(self) -> None:
        """Refuse a default that would not be allowed."""
        if self.acknowledge_s > self.acknowledge_at_most_s:
            raise ValueError("acknowledge_s is longer than acknowledge_at_most_s")


@dataclass(frozen=True, slots=True)
class Seen:
    """How an incident stood when somebody put it off: what is worse than this breaks that.

    `parts` are the incident and those that it explains, each as host, kind and name of its subject.
    """

    severity: Severity
    count: int
    parts: tuple[tuple[str, str, str], ...]

    @property
    def hosts(self) -> frozenset[str]:
        """Return the hosts that take part."""
        return frozenset(host for host, _, _ in self.parts)


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """`person` has it in hand until then."""

    person: str
    at_ns: int
    until_ns: int
    seen: Seen


@dataclass(frozen=True, slots=True)
class Snooze:
    """`person` has put it off until then."""

    person: str
    at_ns: int
    until_ns: int
    seen: Seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """A question or an answer of a person: `to` are who is asked, `answers` is the number of the question."""

    number: int
    person: str
    at_ns: int
    text: str
    to: tuple[str, ...] = ()
    answers: int | None = None

    @property
    def is_question(self) -> bool:
        """Return whether it asks."""
        return self.answers is None


@dataclass(frozen=True, slots=True)
class Thread:
    """How much was said about an incident, and which questions nobody has answered."""

    remarks: int = 0
    unanswered: tuple[int, ...] = ()
    asked: tuple[str, ...] = ()


ACKNOWLEDGEMENTS: Final = Kind("acknowledgement", Acknowledgement)
SNOOZES: Final = Kind("snooze", Snooze)
THREADS: Final = Kind("thread", Thread)
"""By incident id, and only while they are in force: few, and read with the queue."""

REMARKS: Final = Kind("remark", Remark)
"""Owned by the incident's id, by number; for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """What is in force on an entry now; `remarks` are there only where one entry is shown alone."""

    acknowledged: Acknowledgement | None = None
    snoozed: Snooze | None = None
    thread: Thread = Thread()
    remarks: tuple[Remark, ...] = ()
    silenced_by: tuple[Silence, ...] = ()

    @property
    def asked(self) -> bool:
        """Return whether a question waits for its answer."""
        return bool(self.thread.unanswered)

    @property
    def in_maintenance(self) -> bool:
        """Return whether somebody works on its host."""
        return any(each.origin is not Origin.SILENCE for each in self.silenced_by)

    @property
    def put_aside(self) -> bool:
        """Return whether the queue leaves it out and only counts it."""
        return self.snoozed is not None or bool(self.silenced_by)


NOTHING: Final = Attention()
"""Nobody did anything yet."""


class Shelf(enum.StrEnum):
    """The parts of the queue that are asked for by name beside the states."""

    ACKNOWLEDGED = "acknowledged"
    ASKED = "asked"
    SILENCED = "silenced"
    SNOOZED = "snoozed"


def is_on(shelf: Shelf, attention: Attention) -> bool:
    """Return whether an entry with this attention belongs to `shelf`."""
    return {
        Shelf.ACKNOWLEDGED: attention.acknowledged is not None,
        Shelf.ASKED: attention.asked,
        Shelf.SILENCED: bool(attention.silenced_by),
        Shelf.SNOOZED: attention.snoozed is not None,
    }[shelf]


def seen_of(incident: Incident, explains: Iterable[Incident]) -> Seen:
    """Return how an incident stands, with what it explains."""
    parts = {(each.agent_id, each.subject.kind.value, each.subject.name) for each in (incident, *explains)}
    return Seen(incident.severity, incident.count, tuple(sorted(parts)))


def ended(kept: Acknowledgement | Snooze, seen: Seen, *, now_ns: int) -> str | None:
    """Return why it is in force no longer, in words; None while it is."""
    if is_over(started_ns=kept.at_ns, ends_ns=kept.until_ns, now_ns=now_ns):
        return "its time is over"
    before = kept.seen
    if SEVERITY_ORDER.index(seen.severity) > SEVERITY_ORDER.index(before.severity):
        return f"it got worse: {before.severity.value} became {seen.severity.value}"
    if seen.hosts - before.hosts:
        return "another host joined"
    if isinstance(kept, Snooze):
        if set(seen.parts) - set(before.parts):
            return "another subject joined"
        if seen.count >= max(1, before.count) * _TENFOLD:
            return f"it was seen {seen.count} times, after {before.count}"
    return None


def with_remark(thread: Thread, remark: Remark) -> Thread:
    """Return what a thread is after `remark`."""
    unanswered = tuple(each for each in thread.unanswered if each != remark.answers)
    if remark.is_question:
        unanswered = (*unanswered, remark.number)
    asked = tuple(dict.fromkeys((*thread.asked, *remark.to))) if unanswered else ()
    return Thread(remark.number, unanswered, asked)
