"""The page of rules: how often each was right and which are in shadow; the verdict on an entry's page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from escalation.server.decision.rule_desk import RuleDesk
from escalation.server.desk import DeskError, Entry
from escalation.server.web.access import Role
from escalation.server.web.entry_page import EntryPage, Typed, status_of, typed_of
from escalation.server.web.handlers import HTML, Rule, exchange_of, person_of
from escalation.server.web.pages import Pages
from escalation.view.rule import rule_view

_MOST_DAYS: Final = 90

_TOLD: Final = {
    "shadowed": "The rule is in shadow, in your name: what it finds is kept, and neither proposed nor told.",
    "unshadowed": "The rule is out of its shadow, in your name.",
}


class RulePages:
    """A page and its forms."""

    def __init__(self, *, desk: RuleDesk, pages: Pages, card: EntryPage) -> None:
        """Ask of `desk`; a verdict is told on the entry's `card`."""
        self._desk = desk
        self._pages = pages
        self._card = card
        self.rules: tuple[Rule, ...] = (
            Rule("POST", "/q/{id}/verdict", Role.OPERATOR, self._judge, media=HTML),
            Rule("GET", "/rules", Role.VIEWER, self._rules, media=HTML),
            Rule("POST", "/rules/{rule}/shadow", Role.OPERATOR, self._shadow, media=HTML),
            Rule("POST", "/rules/{rule}/unshadow", Role.OPERATOR, self._unshadow, media=HTML),
        )

    async def _judge(self, request: Request) -> Response:
        async def deed(entry: Entry, typed: Typed, person: str) -> str:
            verdict = typed.get("verdict", "")
            if verdict not in {"fault", "not_a_fault"}:
                raise HTTPException(400, "a verdict is fault or not_a_fault")
            await self._desk.judge(
                entry.incident.id,
                person=person,
                fault=verdict == "fault",
                reason=typed.get("reason", ""),
            )
            return "judged"

        return await self._card.decide(request, deed)

    async def _rules(self, request: Request) -> Response:
        return await self._page(request)

    async def _shadow(self, request: Request) -> Response:
        async def deed(rule: str, typed: Typed) -> str:
            person = exchange_of(request).person
            assert person is not None
            await self._desk.shadow(
                rule,
                person=person.name,
                role=person.role,
                reason=typed.get("reason", ""),
                days=_days(typed),
                again=typed.get("again", ""),
            )
            return "shadowed"

        return await self._do(request, deed)

    async def _unshadow(self, request: Request) -> Response:
        async def deed(rule: str, typed: Typed) -> str:
            await self._desk.unshadow(rule, person=person_of(request), reason=typed.get("reason", ""))
            return "unshadowed"

        return await self._do(request, deed)

    async def _do(self, request: Request, deed: Callable[[str, Typed], Awaitable[str]]) -> Response:
        rule, typed = request.path_params["rule"], await typed_of(request)
        try:
            told = await deed(rule, typed)
        except DeskError as error:
            return await self._page(
                request, error=str(error), typed={**typed, "rule": rule}, status=status_of(error)[0]
            )
        return RedirectResponse(f"/rules?told={told}", status_code=303)

    async def _page(
        self, request: Request, *, error: str = "", typed: Typed | None = None, status: int = 200
    ) -> Response:
        person = exchange_of(request).person
        return self._pages.show(
            request,
            "rules.html",
            status=status,
            rules=[rule_view(each) for each in await self._desk.rules()],
            may=person is not None and person.role.may(Role.OPERATOR),
            told="" if error else _TOLD.get(request.query_params.get("told", ""), ""),
            error=error,
            typed=typed or {},
        )


def _days(typed: Typed) -> float:
    """Return the days that a form names; raise HTTPException."""
    text = typed.get("days", "")
    days = int(text) if text.isascii() and text.isdecimal() and len(text) < 4 else 0
    if not 0 < days <= _MOST_DAYS:
        raise HTTPException(400, f"days are a number from 1 to {_MOST_DAYS}")
    return days
