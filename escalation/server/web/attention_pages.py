"""The forms of attention on an entry's page, and the page of silences and maintenance."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from escalation.server.attention.attention_desk import AttentionDesk, Until
from escalation.server.attention.silences import Origin, parse
from escalation.server.desk import DeskError, Entry
from escalation.server.web.access import Role
from escalation.server.web.entry_page import EntryPage, Typed, status_of, typed_of
from escalation.server.web.handlers import HTML, Rule, exchange_of, person_of
from escalation.server.web.pages import Pages
from escalation.view.attention import SilenceView, silence_view
from escalation.view.entry import incident_view

_HOUR_S: Final = 3600
_LONGEST_H: Final = 24 * 30

_TOLD: Final = {
    "silenced": "The silence stands, in your name.",
    "maintained": "Everybody sees that somebody works there.",
    "ended": "It is ended, in your name.",
}
_MATCHERS: Final = ("host", "fault_class", "subject_kind", "subject_name", "severity")


class AttentionPages:
    """Forms and a page for what people do besides deciding."""

    def __init__(self, *, desk: AttentionDesk, pages: Pages, card: EntryPage) -> None:
        """Ask of `desk`; what is about an entry is told on its `card`."""
        self._desk = desk
        self._pages = pages
        self._card = card
        self.rules: tuple[Rule, ...] = (
            Rule("POST", "/maintenance", Role.OPERATOR, self._maintain, media=HTML),
            Rule("POST", "/maintenance/{id}/end", Role.OPERATOR, self._end, media=HTML),
            Rule("POST", "/q/{id}/acknowledge", Role.OPERATOR, self._acknowledge, media=HTML),
            Rule("POST", "/q/{id}/answer", Role.OPERATOR, self._answer, media=HTML),
            Rule("POST", "/q/{id}/ask", Role.OPERATOR, self._ask, media=HTML),
            Rule("POST", "/q/{id}/release", Role.OPERATOR, self._release, media=HTML),
            Rule("POST", "/q/{id}/snooze", Role.OPERATOR, self._snooze, media=HTML),
            Rule("GET", "/silences", Role.VIEWER, self._silences, media=HTML),
            Rule("POST", "/silences", Role.OPERATOR, self._silence, media=HTML),
            Rule("POST", "/silences/{id}/expire", Role.OPERATOR, self._expire, media=HTML),
        )

    async def _acknowledge(self, request: Request) -> Response:
        async def deed(entry: Entry, typed: Typed, person: str) -> str:
            until = Until(_seconds(typed), None)
            await self._desk.acknowledge(entry.recommendation.id, person=person, until=until)
            return "acknowledged"

        return await self._card.decide(request, deed)

    async def _snooze(self, request: Request) -> Response:
        async def deed(entry: Entry, typed: Typed, person: str) -> str:
            until = Until(_seconds(typed), None)
            await self._desk.snooze(entry.recommendation.id, person=person, until=until)
            return "snoozed"

        return await self._card.decide(request, deed)

    async def _release(self, request: Request) -> Response:
        async def deed(entry: Entry, _typed: Typed, person: str) -> str:
            await self._desk.release(entry.recommendation.id, person=person)
            return "released"

        return await self._card.decide(request, deed, _released_already)

    async def _ask(self, request: Request) -> Response:
        async def deed(entry: Entry, typed: Typed, person: str) -> str:
            to = typed.get("to", "").replace(",", " ").split()
            await self._desk.ask(entry.recommendation.id, person=person, text=typed.get("text", ""), to=to)
            return "asked"

        return await self._card.decide(request, deed)

    async def _answer(self, request: Request) -> Response:
        async def deed(entry: Entry, typed: Typed, person: str) -> str:
            number = typed.get("question", "")
            question = int(number) if number.isascii() and number.isdecimal() and len(number) < 6 else None
            text = typed.get("text", "")
            await self._desk.answer(entry.recommendation.id, person=person, text=text, question=question)
            return "answered"

        return await self._card.decide(request, deed)

    async def _silences(self, request: Request) -> Response:
        matchers = [text for text in request.query_params.getlist("match") if text.strip()]
        return await self._page(request, typed={"matchers": " ".join(matchers)})

    async def _silence(self, request: Request) -> Response:
        async def deed(typed: Typed, person: str) -> str:
            matchers = [parse(text) for text in typed.get("matchers", "").split()]
            until, comment = Until(_seconds(typed), None), typed.get("comment", "")
            await self._desk.silence(matchers, person=person, comment=comment, starts_ns=None, until=until)
            return "silenced"

        return await self._do(request, deed)

    async def _maintain(self, request: Request) -> Response:
        async def deed(typed: Typed, person: str) -> str:
            until, comment = Until(_seconds(typed), None), typed.get("comment", "")
            await self._desk.maintain(
                typed.get("host", ""), person=person, comment=comment, until=until, also=()
            )
            return "maintained"

        return await self._do(request, deed)

    async def _expire(self, request: Request) -> Response:
        return await self._ended(request, maintenance=False)

    async def _end(self, request: Request) -> Response:
        return await self._ended(request, maintenance=True)

    async def _ended(self, request: Request, *, maintenance: bool) -> Response:
        async def deed(_typed: Typed, person: str) -> str:
            await self._desk.end(request.path_params["id"], person=person, maintenance=maintenance)
            return "ended"

        return await self._do(request, deed)

    async def _do(self, request: Request, deed: Callable[[Typed, str], Awaitable[str]]) -> Response:
        typed = await typed_of(request)
        try:
            told = await deed(typed, person_of(request))
        except DeskError as error:
            return await self._page(request, typed=typed, error=str(error), status=status_of(error)[0])
        except ValueError as error:  # a matcher that cannot be read
            return await self._page(request, typed=typed, error=str(error), status=400)
        return RedirectResponse(f"/silences?told={told}", status_code=303)

    async def _page(self, request: Request, *, typed: Typed, error: str = "", status: int = 200) -> Response:
        """Show what is silenced, and what the matchers that were typed would cover now."""
        person = exchange_of(request).person
        now_ns = self._desk.now_ns()
        covered = None
        if request.method == "GET" and typed.get("matchers"):
            try:
                found = await self._desk.preview([parse(each) for each in typed["matchers"].split()])
                covered = [incident_view(each) for each in found.incidents]
            except ValueError as wrong:
                error, status = str(wrong), 400
        listed: dict[bool, list[SilenceView]] = {True: [], False: []}
        for each in await self._desk.silences():
            listed[each.origin is Origin.SILENCE].append(silence_view(each, now_ns=now_ns))
        return self._pages.show(
            request,
            "silences.html",
            status=status,
            silences=listed[True],
            windows=listed[False],
            may=person is not None and person.role.may(Role.OPERATOR),
            told="" if error else _TOLD.get(request.query_params.get("told", ""), ""),
            error=error,
            typed=typed,
            covered=covered,
            fields=_MATCHERS,
        )


def _seconds(typed: Typed) -> float:
    """Return the time that a form names in hours; raise HTTPException."""
    hours = typed.get("for", "")
    try:
        value = float(hours)
    except ValueError:
        value = 0.0
    if not 0 < value <= _LONGEST_H:
        raise HTTPException(400, f"the time is in hours, up to {_LONGEST_H}")
    return value * _HOUR_S


def _released_already(entry: Entry, _typed: Typed, _person: str) -> str | None:
    held = entry.attention
    return "released" if held.acknowledged is None and held.snoozed is None else None
