"""The pages, and the forms that decide without a script: each is answered from the desk, in HTML."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from escalation.inert import shown
from escalation.model import Condition, Override, Severity, State
from escalation.server import audit
from escalation.server.attention import shelves
from escalation.server.desk import (
    AuditEntry,
    Desk,
    Entry,
    Refused,
)
from escalation.server.web import hosts_page
from escalation.server.web.access import Role
from escalation.server.web.charts import Strip, strip_of
from escalation.server.web.entry_page import EntryPage, Typed
from escalation.server.web.handlers import HTML, Rule, number_of, person_of
from escalation.server.web.pages import Pages
from escalation.server.web.queue_page import Line, Sought
from escalation.view.entry import EntryView, action_view, audit_view, entry_view, host_view, moment

_MOST_PAGES: Final = 10_000
_LINKS: Final = 100
_VERIFIED_AT_ONCE: Final = 5000
_DRAWN: Final = 25
"""How many lines of the queue have a drawing: the first. A hundred would make the page too heavy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """A line of the queue as its page shows it: `mark` says whether it is new to the reader, `news` why."""

    entry: EntryView
    alike: int
    mark: str
    news: str
    news_at: str
    strip: Strip | None


class PageRoutes:
    """Every page and form, and its handler."""

    def __init__(self, *, desk: Desk, pages: Pages, card: EntryPage) -> None:
        """Answer from `desk`, shown by `pages`; an entry is shown and decided on its `card`."""
        self._desk = desk
        self._card = card
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
            lines=[self._line(line, drawn=place < _DRAWN) for place, line in enumerate(found.lines)],
            since=moment(found.since_ns) if found.since_ns else "",
            arranged=found.arranged,
            sought=sought,
            state=state,
            states=shelves.NAMES[2:],
            hosts=hosts,
            silent=[host.host for host in hosts if host.silent],
            blind=sum(not coverage.seeing for host in hosts for coverage in host.coverage),
        )

    def _line(self, line: Line, *, drawn: bool) -> _Shown:
        return _Shown(
            entry=entry_view(line.entry),
            alike=line.alike,
            mark="" if line.news is None else "changed" if line.news.words else "new",
            news=shown(line.news.words) if line.news else "",
            news_at=moment(line.news.at_ns) if line.news else "",
            strip=strip_of(line.entry.incident, now_ns=self._pages.now_ns()) if drawn else None,
        )

    async def _entry(self, request: Request) -> Response:
        return self._card.show(request, await self._desk.entry(request.path_params["id"]))

    async def _hosts(self, request: Request) -> Response:
        page = number_of(request, "page", default=1, most=_MOST_PAGES)
        hosts = [host_view(host) for host in await self._desk.hosts()]
        return self._pages.show(request, "hosts.html", found=hosts_page.arrange(hosts, page=page))

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
        async def decide(entry: Entry, typed: Typed, person: str) -> str:
            if refusal := action_view(entry.recommendation.advice.action, drill=entry.incident.drill).refusal:
                raise Refused(f"it cannot be approved: {refusal}")
            decided = await self._desk.approve(
                entry.recommendation.id,
                person=person,
                reason=typed.get("reason", ""),
                digest=typed.get("digest", ""),
                overrides=_overrides(typed),
            )
            return "approved" if decided.recommendation.state is State.APPROVED else "first"

        return await self._card.decide(request, decide, _approved_already)

    async def _reject(self, request: Request) -> Response:
        async def decide(entry: Entry, typed: Typed, person: str) -> str:
            await self._desk.reject(entry.recommendation.id, person=person, reason=typed.get("reason", ""))
            return "rejected"

        return await self._card.decide(request, decide, _rejected_already)

    async def _done(self, request: Request) -> Response:
        async def decide(entry: Entry, _typed: Typed, person: str) -> str:
            await self._desk.done(entry.recommendation.id, person=person)
            return "done"

        return await self._card.decide(request, decide, _done_already)

    async def _script(self, _request: Request) -> Response:
        return self._pages.script()

    async def _style(self, _request: Request) -> Response:
        return self._pages.style()


def _overrides(typed: Typed) -> list[Override]:
    """Return the conditions that the form sets aside, each with the reason that was typed for it."""
    named = {each: typed.get(f"override.{each.value}", "") for each in Condition}
    return [Override(condition, reason) for condition, reason in named.items() if reason]


def _approved_already(entry: Entry, typed: Typed, person: str) -> str | None:
    standing = entry.recommendation
    if person not in standing.approvers or typed.get("digest") != standing.digest:
        return None
    return {State.PROPOSED: "first", State.APPROVED: "approved"}.get(standing.state)


def _rejected_already(entry: Entry, _typed: Typed, person: str) -> str | None:
    standing = entry.recommendation
    return "rejected" if standing.state is State.REJECTED and standing.decided_by == person else None


def _done_already(entry: Entry, _typed: Typed, person: str) -> str | None:
    standing = entry.recommendation
    return "done" if standing.state is State.DONE and standing.done_by == person else None


def _sought(request: Request, state: str) -> Sought:
    asked = request.query_params
    try:
        part = shelves.part(state)
    except ValueError as error:
        raise HTTPException(400, str(error)) from None
    return replace(
        part,
        host=asked.get("host", "").strip(),
        fault_class=asked.get("class", "").strip(),
        severity=asked.get("severity", "").strip(),
        fold=asked.get("fold", "") != "no",
        page=max(1, number_of(request, "page", default=1, most=_MOST_PAGES)),
    )
