"""The routes of attention: own an entry, put it off, ask about it, silence, and say where somebody works."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from escalation.model import FaultClass
from escalation.server.attention.attention_desk import AttentionDesk, Until
from escalation.server.attention.silences import (
    COMMENT_LIMIT,
    LONGEST_S,
    MATCHER_PATTERN,
    MATCHERS_AT_MOST,
    Matcher,
    Origin,
    parse,
)
from escalation.server.attention.values import TEXT_LIMIT
from escalation.server.web.access import Role
from escalation.server.web.handlers import Nothing, Query, Rule, body_of, json_answer, person_of
from escalation.view.attention import SilenceView, silence_view
from escalation.view.entry import EntryView, entry_view, incident_view
from escalation.view.listings import PreviewView, SilenceList
from escalation.wording.moments import read_moment

T = TypeVar("T")

_Seconds = Annotated[float, msgspec.Meta(ge=60, le=LONGEST_S)]
_Time = Annotated[str, msgspec.Meta(max_length=40, extra_json_schema={"format": "date-time"})]
_Text = Annotated[str, msgspec.Meta(pattern=r"\S", max_length=TEXT_LIMIT)]
_Comment = Annotated[str, msgspec.Meta(pattern=r"\S", max_length=COMMENT_LIMIT)]
_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")]
# Described, and read by `silences.parse`, which says what is wrong with one.
_Matcher = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": MATCHER_PATTERN})]
_Matchers = Annotated[tuple[_Matcher, ...], msgspec.Meta(min_length=1, max_length=MATCHERS_AT_MOST)]

_MATCH: Final = Query(
    "match",
    _Matchers,
    "A matcher such as host=spark-1 or fault_class~gpu.*; may be given several times.",
    required=True,
)


class _Until(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    for_s: _Seconds | None = None
    until: _Time | None = None


class _Ask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: _Text
    to: Annotated[tuple[_Name, ...], msgspec.Meta(max_length=8)] = ()


class _Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: _Text
    question: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None


class _Silence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    matchers: _Matchers
    comment: _Comment
    starts: _Time | None = None
    for_s: _Seconds | None = None
    until: _Time | None = None


class _Maintain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    host: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    comment: _Comment
    for_s: _Seconds | None = None
    until: _Time | None = None
    also: Annotated[tuple[FaultClass, ...], msgspec.Meta(max_length=8)] = ()


class AttentionRoutes:
    """Translates between HTTP and the attention desk."""

    def __init__(self, *, desk: AttentionDesk) -> None:
        """Answer from `desk`."""
        self._desk = desk
        self.rules: tuple[Rule, ...] = (
            *self._of_entries(),
            *self._of_silences(),
            *self._of_maintenance(),
        )

    def _of_entries(self) -> tuple[Rule, ...]:
        entry = "/api/v1/queue/{id}"
        asked = (
            ("acknowledge", self._acknowledge, "Have it in hand until then.", _Until),
            ("answer", self._answer, "Answer a question; the newest one unless said.", _Answer),
            ("ask", self._ask, "Ask about it.", _Ask),
            ("release", self._release, "Give it back to the queue.", Nothing),
            ("snooze", self._snooze, "Put it off until then, or until it is something else.", _Until),
        )
        return tuple(
            Rule("POST", f"{entry}/{verb}", Role.OPERATOR, handler, says, body=body, answer=EntryView)
            for verb, handler, says, body in asked
        )

    def _of_silences(self) -> tuple[Rule, ...]:
        every = "/api/v1/silences"
        return (
            Rule("GET", every, Role.VIEWER, self._silences, "Silences: those that stand first.",
                 answer=SilenceList),
            Rule("POST", every, Role.OPERATOR, self._silence, "Silence what all matchers fit.",
                 body=_Silence, answer=SilenceView),
            Rule("GET", f"{every}/preview", Role.VIEWER, self._preview, "What matchers would cover now.",
                 answer=PreviewView, query=(_MATCH,)),
            Rule("POST", f"{every}/{{id}}/expire", Role.OPERATOR, self._expire, "End it before its time.",
                 body=Nothing, answer=SilenceView),
        )  # fmt: skip

    def _of_maintenance(self) -> tuple[Rule, ...]:
        every = "/api/v1/maintenance"
        return (
            Rule("GET", every, Role.VIEWER, self._windows, "Maintenance: what stands first.",
                 answer=SilenceList),
            Rule("POST", every, Role.OPERATOR, self._maintain, "Say that somebody works on a host.",
                 body=_Maintain, answer=SilenceView),
            Rule("POST", f"{every}/{{id}}/end", Role.OPERATOR, self._end, "Say that it is done.",
                 body=Nothing, answer=SilenceView),
        )  # fmt: skip

    async def _acknowledge(self, request: Request) -> Response:
        until = _until(await body_of(request, _Until))
        entry = await self._desk.acknowledge(_id(request), person=person_of(request), until=until)
        return json_answer(entry_view(entry))

    async def _snooze(self, request: Request) -> Response:
        until = _until(await body_of(request, _Until))
        entry = await self._desk.snooze(_id(request), person=person_of(request), until=until)
        return json_answer(entry_view(entry))

    async def _release(self, request: Request) -> Response:
        await body_of(request, Nothing)
        return json_answer(entry_view(await self._desk.release(_id(request), person=person_of(request))))

    async def _ask(self, request: Request) -> Response:
        asked = await body_of(request, _Ask)
        entry = await self._desk.ask(_id(request), person=person_of(request), text=asked.text, to=asked.to)
        return json_answer(entry_view(entry))

    async def _answer(self, request: Request) -> Response:
        said = await body_of(request, _Answer)
        entry = await self._desk.answer(
            _id(request), person=person_of(request), text=said.text, question=said.question
        )
        return json_answer(entry_view(entry))

    async def _silences(self, _request: Request) -> Response:
        return await self._listed(lambda origin: origin is Origin.SILENCE)

    async def _windows(self, _request: Request) -> Response:
        return await self._listed(lambda origin: origin is not Origin.SILENCE)

    async def _preview(self, request: Request) -> Response:
        found = await self._desk.preview(_matchers(request.query_params.getlist("match")))
        views = tuple(map(incident_view, found.incidents))
        matchers = tuple(silence_view(found.silence, now_ns=self._desk.now_ns()).matchers)
        return json_answer(PreviewView(matchers, views))

    async def _silence(self, request: Request) -> Response:
        asked = await body_of(request, _Silence)
        begun = await self._desk.silence(
            _matchers(asked.matchers),
            person=person_of(request),
            comment=asked.comment,
            starts_ns=_time(asked.starts),
            until=_until(asked),
        )
        return json_answer(silence_view(begun, now_ns=self._desk.now_ns()))

    async def _maintain(self, request: Request) -> Response:
        asked = await body_of(request, _Maintain)
        begun = await self._desk.maintain(
            asked.host,
            person=person_of(request),
            comment=asked.comment,
            until=_until(asked),
            also=asked.also,
        )
        return json_answer(silence_view(begun, now_ns=self._desk.now_ns()))

    async def _expire(self, request: Request) -> Response:
        return await self._ended(request, maintenance=False)

    async def _end(self, request: Request) -> Response:
        return await self._ended(request, maintenance=True)

    async def _ended(self, request: Request, *, maintenance: bool) -> Response:
        await body_of(request, Nothing)
        done = await self._desk.end(_id(request), person=person_of(request), maintenance=maintenance)
        return json_answer(silence_view(done, now_ns=self._desk.now_ns()))

    async def _listed(self, wanted: Callable[[Origin], bool]) -> Response:
        now_ns = self._desk.now_ns()
        found = [each for each in await self._desk.silences() if wanted(each.origin)]
        return json_answer(SilenceList(tuple(silence_view(each, now_ns=now_ns) for each in found)))


def _id(request: Request) -> str:
    found = request.path_params["id"]
    assert isinstance(found, str)
    return found


def _until(asked: _Until | _Silence | _Maintain) -> Until:
    if asked.for_s is not None and asked.until is not None:
        raise HTTPException(400, "either for_s or until, not both")
    return Until(asked.for_s, _time(asked.until))


def _time(text: str | None) -> int | None:
    if text is None:
        return None
    return _read(lambda: read_moment(text))


def _matchers(texts: tuple[str, ...] | list[str]) -> list[Matcher]:
    return _read(lambda: [parse(each) for each in texts])


def _read(reading: Callable[[], T]) -> T:
    """Return what was read; raise HTTPException that says what is wrong with it."""
    try:
        return reading()
    except (ValueError, OverflowError) as error:
        raise HTTPException(400, str(error)) from error
