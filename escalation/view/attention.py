"""What people and their tools see of attention and of silences: texts inert, times RFC 3339 UTC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from escalation.inert import shown
from escalation.server.attention.silences import Matcher, Silence
from escalation.server.attention.values import Attention, Remark
from escalation.wording.moments import moment


@dataclass(frozen=True, slots=True, kw_only=True)
class RemarkView:
    """A question or an answer; `answers` is the number of the question, and None for a question."""

    number: int
    at: str
    person: str
    text: str
    to: tuple[str, ...]
    answers: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SilenceView:
    """A silence or a maintenance window; `matchers` read as they are written."""

    id: str
    origin: str
    state: str
    matchers: tuple[str, ...]
    also: tuple[str, ...]
    author: str
    comment: str
    created_at: str
    starts_at: str
    ends_at: str
    ended_by: str | None
    incidents: int
    notices: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SilencedBy:
    """What silences an entry, and why."""

    id: str
    origin: str
    author: str
    comment: str
    ends_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionView:
    """Who has an entry in hand, until when it is put off, what is asked about it, what silences it.

    `remarks` counts what was said; `thread` holds it where one entry is shown alone. `asked` says that a
    question waits for its answer, `asked_of` whose.
    """

    owner: str | None = None
    acknowledged_at: str | None = None
    acknowledged_until: str | None = None
    snoozed_by: str | None = None
    snoozed_until: str | None = None
    asked: bool = False
    asked_of: tuple[str, ...] = ()
    remarks: int = 0
    thread: tuple[RemarkView, ...] = ()
    silenced_by: tuple[SilencedBy, ...] = ()
    in_maintenance: bool = False


NO_ATTENTION: Final = AttentionView()
"""Nobody did anything yet."""


def attention_view(attention: Attention) -> AttentionView:
    """Return what a person sees of what others do about an entry."""
    owned, snoozed = attention.acknowledged, attention.snoozed
    return AttentionView(
        owner=None if owned is None else shown(owned.person),
        acknowledged_at=None if owned is None else moment(owned.at_ns),
        acknowledged_until=None if owned is None else moment(owned.until_ns),
        snoozed_by=None if snoozed is None else shown(snoozed.person),
        snoozed_until=None if snoozed is None else moment(snoozed.until_ns),
        asked=attention.asked,
        asked_of=tuple(map(shown, attention.thread.asked)),
        remarks=attention.thread.remarks,
        thread=tuple(map(remark_view, attention.remarks)),
        silenced_by=tuple(
            SilencedBy(
                id=shown(each.id),
                origin=each.origin.value,
                author=shown(each.author),
                comment=shown(each.comment),
                ends_at=moment(each.ends_ns),
            )
            for each in attention.silenced_by
        ),
        in_maintenance=attention.in_maintenance,
    )


def remark_view(remark: Remark) -> RemarkView:
    """Return a question or an answer as a person sees it."""
    return RemarkView(
        number=remark.number,
        at=moment(remark.at_ns),
        person=shown(remark.person),
        text=shown(remark.text),
        to=tuple(map(shown, remark.to)),
        answers=remark.answers,
    )


def silence_view(silence: Silence, *, now_ns: int) -> SilenceView:
    """Return a silence as it stands."""
    return SilenceView(
        id=shown(silence.id),
        origin=silence.origin.value,
        state=silence.phase(now_ns).value,
        matchers=tuple(_matcher(each) for each in silence.matchers),
        also=tuple(each.value for each in silence.also),
        author=shown(silence.author),
        comment=shown(silence.comment),
        created_at=moment(silence.created_ns),
        starts_at=moment(silence.starts_ns),
        ends_at=moment(silence.ends_ns),
        ended_by=None if silence.ended_by is None else shown(silence.ended_by),
        incidents=silence.incidents,
        notices=silence.notices,
    )


def _matcher(matcher: Matcher) -> str:
    return shown(str(matcher))
