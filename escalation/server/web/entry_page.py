"""The page of one entry: shown whole, with the forms of what may be done, and what became of a form.

A form is a POST of the page's own; what it did is told on the page that it leads to (303), so a second press
of reload decides nothing. What was refused is told on the same page, with what was typed still in its place.
Sending the same decision twice is harmless: the second finds it taken, by the same person, and leads there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from escalation.server.desk import (
    Desk,
    DeskError,
    Entry,
    Expired,
    FellBehind,
    NotFound,
    Refused,
    Superseded,
    Unavailable,
)
from escalation.server.model_writer import Texts
from escalation.server.web.access import Role
from escalation.server.web.charts import charts_of, strip_of
from escalation.server.web.handlers import exchange_of, form_of, person_of
from escalation.server.web.pages import Pages
from escalation.view.entry import entry_view

Typed = Mapping[str, str]
"""The fields of a form, each in one line."""

Deed = Callable[[Entry, Typed, str], Awaitable[str]]
"""What a form does with an entry in a person's name; it returns the word for what the page then tells."""

_TOLD: Final = {
    "acknowledged": "It is yours now. If it is still undecided when the time ends, it waits for everybody.",
    "answered": "Your answer stands below.",
    "approved": "Approved in your name. Nothing runs by itself: carry out the command, then mark it done.",
    "asked": "Your question stands below.",
    "done": "Marked done. Recovery is being verified.",
    "first": "Approved in your name, as the first of two. A second person has to approve it too.",
    "judged": "Your verdict is kept; it counts for the rule that found this.",
    "rejected": "Rejected in your name.",
    "released": "It is given back: it waits for everybody.",
    "snoozed": "Put off. The queue only counts it until then, or until it gets worse.",
}
"""What a page says that a form led to; a page never says what stands in its address."""


class EntryPage:
    """Shows entries, and takes what their forms send."""

    def __init__(
        self, *, desk: Desk, pages: Pages, texts: Texts, attended: bool, accounted: bool, judged: bool
    ) -> None:
        """Answer from `desk`, and from `texts` what a model wrote.

        `attended` says whether entries can be acknowledged, put off and asked about here, `accounted` whether
        their incidents have a page, `judged` whether people say here if there was a fault.
        """
        self._desk = desk
        self._pages = pages
        self._texts = texts
        self._attended = attended
        self._accounted = accounted
        self._judged = judged

    def show(
        self,
        request: Request,
        entry: Entry,
        *,
        error: str = "",
        typed: Typed | None = None,
        status: int = 200,
    ) -> Response:
        """Return the page of `entry`; with an `error`, of the form that this request was."""
        exchange = exchange_of(request)
        view = entry_view(entry)
        form = request.url.path.rpartition("/")[2] if error else ""
        return self._pages.show(
            request,
            "entry.html",
            status=status,
            entry=replace(view, model_text=self._texts.of(view)),
            charts=charts_of(entry.incident.evidence),
            strip=strip_of(entry.incident, now_ns=self._pages.now_ns()),
            approved_by_me=person_of(request) in entry.recommendation.approvers,
            may=exchange.person is not None and exchange.person.role.may(Role.OPERATOR),
            attended=self._attended,
            accounted=self._accounted,
            judged=self._judged,
            fresh=exchange.fresh,
            told="" if error else _TOLD.get(request.query_params.get("told", ""), ""),
            error=error,
            typed={form: typed or {}},
        )

    async def decide(
        self, request: Request, deed: Deed, already: Callable[[Entry, Typed, str], str | None] | None = None
    ) -> Response:
        """Do what a form asks, and lead to the page that tells it; or show why it was refused.

        `already` returns what a form led to that was sent before, and None where this one was not.
        """
        person = person_of(request)
        typed = await typed_of(request)
        entry = await self._desk.entry(request.path_params["id"])
        try:
            told = await deed(entry, typed, person)
        except DeskError as error:
            standing = await self._desk.entry(entry.recommendation.id)
            before = already(standing, typed, person) if already and isinstance(error, Refused) else None
            if before is None:
                status = status_of(error)[0]
                return self.show(request, standing, error=str(error), typed=typed, status=status)
            told = before
        return RedirectResponse(f"/q/{quote(entry.recommendation.id)}?told={told}", status_code=303)


async def typed_of(request: Request) -> Typed:
    """Return the fields of a form of ours, each in one line; raise HTTPException.

    A browser says where a form comes from; whoever has no session and does not say it has the API.
    """
    if exchange_of(request).session is None and not {"origin", "sec-fetch-site"} & set(request.headers):
        raise HTTPException(403, "a form has to say which page it stands on; programs use /api/v1")
    return {name: " ".join(value.split()) for name, value in (await form_of(request)).items()}


def status_of(error: DeskError) -> tuple[int, str]:
    """Return the status and the code by which what the desk refused is answered."""
    match error:
        case NotFound():
            return 404, "not_found"
        case Refused():
            return 409, "refused"
        case Superseded():
            return 409, "superseded"
        case Expired():
            return 410, "expired"
        case Unavailable() | FellBehind():
            return 503, "unavailable"
        case _:
            return 409, "conflict"
