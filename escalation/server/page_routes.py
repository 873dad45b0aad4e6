"""The pages, and the forms that decide without a script: each is answered from the desk, in HTML.

A form is a POST of the page's own; what it did is told on the page that it leads to (303), so a second press
of reload decides nothing. What was refused is told on the same page, with what was typed still in its place.
Sending the same decision twice is harmless: the second finds it taken, by the same person, and leads there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from escalation.model import Severity, State
from escalation.server import audit, shelves
from escalation.server.access import Role
from escalation.server.attention import Shelf
from escalation.server.charts import charts_of
from escalation.server.desk import (
    AuditEntry,
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
from escalation.server.handlers import HTML, Rule, exchange_of, form_of, number_of, person_of
from escalation.server.model_writer import Texts
from escalation.server.pages import Pages
from escalation.server.queue_page import Sought
from escalation.view import action_view, audit_view, entry_view, host_view

PAGES: Final = frozenset(
    {"/", "/audit", "/help", "/hosts", "/q/{id}", "/q/{id}/approve", "/q/{id}/done", "/q/{id}/reject"}
)
"""The routes of pages and their forms, whose errors are pages too."""

_MOST_PAGES: Final = 10_000
_LINKS: Final = 100
_VERIFIED_AT_ONCE: Final = 5000

_TOLD: Final = {
    "approved": "Approved in your name. Nothing runs by itself: carry out the command, then mark it done.",
    "first": "Approved in your name, as the first of two. A second person has to approve it too.",
    "rejected": "Rejected in your name.",
    "done": "Marked done. Recovery is being verified.",
}
"""What a page says that a form led to; a page never says what stands in its address."""

_FIELDS: Final = frozenset({"reason", "digest"})


class PageRoutes:
    """Every page and form, and its handler."""

    def __init__(self, *, desk: Desk, pages: Pages, texts: Texts) -> None:
        """Answer from `desk`, and from `texts` what a model wrote; shown by `pages`."""
        self._desk = desk
        self._texts = texts
        self._pages = pages
        self._verified: AuditEntry | None = None
        self._break: audit.Break | None = None
        self.rules: tuple[Rule, ...] = (
            Rule("GET", "/", Role.VIEWER, self._queue, media=HTML),
            Rule("GET", "/audit", Role.VIEWER, self._audit, media=HTML),
            Rule("GET", "/help", Role.VIEWER, self._help, media=HTML),
            Rule("GET", "/hosts", Role.VIEWER, self._hosts, media=HTML),
            Rule("GET", "/q/{id}", Role.VIEWER, self._entry, media=HTML),
            Rule("POST", "/q/{id}/approve", Role.OPERATOR, self._approve, media=HTML, fresh=True),
            Rule("POST", "/q/{id}/done", Role.OPERATOR, self._done, media=HTML),
            Rule("POST", "/q/{id}/reject", Role.OPERATOR, self._reject, media=HTML),
            Rule("GET", "/static/page.js", Role.VIEWER, self._script, media="text/javascript"),
            Rule("GET", "/static/style.css", None, self._style, media="text/css"),
        )

    async def _queue(self, request: Request) -> Response:
        state = request.query_params.get("state", "")
        sought = _sought(request, state)
        found = await self._desk.look(sought, person=person_of(request))
        hosts = [host_view(host) for host in await self._desk.hosts()]
        return self._pages.show(
            request,
            "queue.html",
            lines=[(entry_view(line.entry), line.alike) for line in found.lines],
            arranged=found.arranged,
            sought=sought,
            state=state,
            states=shelves.NAMES[2:],
            hosts=hosts,
            silent=[host.host for host in hosts if host.silent],
            blind=sum(not coverage.seeing for host in hosts for coverage in host.coverage),
        )

    async def _entry(self, request: Request) -> Response:
        told = _TOLD.get(request.query_params.get("told", ""), "")
        return self._card(request, await self._desk.entry(request.path_params["id"]), told=told)

    async def _hosts(self, request: Request) -> Response:
        return self._pages.show(
            request, "hosts.html", hosts=[host_view(host) for host in await self._desk.hosts()]
        )

    async def _help(self, request: Request) -> Response:
        return self._pages.show(request, "help.html", states=tuple(State), severities=tuple(Severity))

    async def _audit(self, request: Request) -> Response:
        """Show the newest links first; each look verifies some more of the chain, from its beginning."""
        head = await self._desk.audit_head()
        length = 0 if head is None else head.number
        pages = max(1, -(-length // _LINKS))
        page = min(max(1, number_of(request, "page", default=1, most=_MOST_PAGES * _LINKS)), pages)
        newest = length - (page - 1) * _LINKS
        links = (
            await self._desk.audit(after=max(0, newest - _LINKS), limit=min(_LINKS, newest)) if newest else ()
        )
        await self._verify()
        return self._pages.show(
            request,
            "audit.html",
            links=[audit_view(link) for link in reversed(links)],
            head=head,
            page=page,
            pages=pages,
            verified=0 if self._verified is None else self._verified.number,
            broken=self._break,
        )

    async def _verify(self) -> None:
        after = 0 if self._verified is None else self._verified.number
        links = await self._desk.audit(after=after, limit=_VERIFIED_AT_ONCE)
        self._break = audit.verify(links, start=self._verified)
        if links and self._break is None:
            self._verified = links[-1]

    async def _approve(self, request: Request) -> Response:
        async def decide(entry: Entry, typed: dict[str, str], person: str) -> str:
            if refusal := action_view(entry.recommendation.advice.action, drill=entry.incident.drill).refusal:
                raise Refused(f"it cannot be approved: {refusal}")
            decided = await self._desk.approve(
                entry.recommendation.id, person=person, reason=typed["reason"], digest=typed["digest"]
            )
            return "approved" if decided.recommendation.state is State.APPROVED else "first"

        return await self._decide(request, decide, _approved_already)

    async def _reject(self, request: Request) -> Response:
        async def decide(entry: Entry, typed: dict[str, str], person: str) -> str:
            await self._desk.reject(entry.recommendation.id, person=person, reason=typed["reason"])
            return "rejected"

        return await self._decide(request, decide, _rejected_already)

    async def _done(self, request: Request) -> Response:
        async def decide(entry: Entry, _typed: dict[str, str], person: str) -> str:
            await self._desk.done(entry.recommendation.id, person=person)
            return "done"

        return await self._decide(request, decide, _done_already)

    async def _decide(
        self,
        request: Request,
        decide: Callable[[Entry, dict[str, str], str], Awaitable[str]],
        already: Callable[[Entry, dict[str, str], str], str | None],
    ) -> Response:
        """Take a form's decision, and lead to the page that tells it; or show why it was refused."""
        person = person_of(request)
        exchange = exchange_of(request)
        if exchange.session is None and not {"origin", "sec-fetch-site"} & set(request.headers):
            raise HTTPException(403, "a form has to say which page it stands on; programs use /api/v1")
        sent = await form_of(request)
        typed = {name: " ".join(sent.get(name, "").split()) for name in _FIELDS}
        entry = await self._desk.entry(request.path_params["id"])
        try:
            told = await decide(entry, typed, person)
        except DeskError as error:
            standing = await self._desk.entry(entry.recommendation.id)
            if isinstance(error, Refused) and (done := already(standing, typed, person)):
                told = done
            else:
                return self._card(
                    request, standing, error=str(error), typed=typed, status=status_of(error)[0]
                )
        return RedirectResponse(f"/q/{quote(entry.recommendation.id)}?told={told}", status_code=303)

    def _card(
        self,
        request: Request,
        entry: Entry,
        *,
        told: str = "",
        error: str = "",
        typed: dict[str, str] | None = None,
        status: int = 200,
    ) -> Response:
        exchange = exchange_of(request)
        may = exchange.person is not None and exchange.person.role.may(Role.OPERATOR)
        form = request.url.path.rpartition("/")[2] if error else ""
        view = entry_view(entry)
        return self._pages.show(
            request,
            "entry.html",
            status=status,
            entry=replace(view, model_text=self._texts.of(view)),
            charts=charts_of(entry.incident.evidence),
            approved_by_me=person_of(request) in entry.recommendation.approvers,
            may=may,
            fresh=exchange.fresh,
            told=told,
            error=error,
            typed={form: typed or {}},
        )

    async def _script(self, _request: Request) -> Response:
        return self._pages.script()

    async def _style(self, _request: Request) -> Response:
        return self._pages.style()


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


def _approved_already(entry: Entry, typed: dict[str, str], person: str) -> str | None:
    standing = entry.recommendation
    if person not in standing.approvers or typed["digest"] != standing.digest:
        return None
    return {State.PROPOSED: "first", State.APPROVED: "approved"}.get(standing.state)


def _rejected_already(entry: Entry, _typed: dict[str, str], person: str) -> str | None:
    standing = entry.recommendation
    return "rejected" if standing.state is State.REJECTED and standing.decided_by == person else None


def _done_already(entry: Entry, _typed: dict[str, str], person: str) -> str | None:
    standing = entry.recommendation
    return "done" if standing.state is State.DONE and standing.done_by == person else None


def _sought(request: Request, state: str) -> Sought:
    asked = request.query_params
    try:
        states = shelves.states_of(state)
    except ValueError as error:
        raise HTTPException(400, str(error)) from None
    return Sought(
        states=states,
        aside=not state,
        shelf=Shelf(state) if state in set(Shelf) else None,
        host=asked.get("host", "").strip(),
        fault_class=asked.get("class", "").strip(),
        severity=asked.get("severity", "").strip(),
        fold=asked.get("fold", "") != "no",
        page=max(1, number_of(request, "page", default=1, most=_MOST_PAGES)),
    )
