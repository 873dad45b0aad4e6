"""The HTTP surface for people and their tools: JSON, pages, metrics and liveness.

Routes are tables of rules, `Surface.rules` and those of other desks; a test walks them with every kind of
credential. A handler translates between HTTP and the desk and does nothing else. Reading never changes state:
whatever changes it is a POST, and here it has a JSON body and needs the role operator.

Longer than other modules because half of it is the table, which is read with the handlers beside it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from escalation.model import Override, Signed
from escalation.server.attention import shelves
from escalation.server.attention.attention_desk import AttentionDesk
from escalation.server.attention.values import Shelf
from escalation.server.clock import Clock
from escalation.server.decision.rule_desk import RuleDesk
from escalation.server.desk import (
    Desk,
    DeskError,
    Entry,
    Refused,
    Unavailable,
)
from escalation.server.incident.incident_desk import IncidentDesk
from escalation.server.metrics import CONTENT_TYPE, ServerMetrics
from escalation.server.model_writer import NoTexts, Texts
from escalation.server.notify.notice_desk import NoReceivers, NoticeDesk
from escalation.server.storage.store import StoreError
from escalation.server.web import openapi, pages
from escalation.server.web.access import Person, Role
from escalation.server.web.attention_pages import AttentionPages
from escalation.server.web.entry_page import EntryPage, status_of
from escalation.server.web.gate import HEADERS, Gate, problem
from escalation.server.web.handlers import (
    EVENTS,
    HTML,
    TEXT,
    Nothing,
    Query,
    Rule,
    SetAside,
    ascii_json,
    body_of,
    exchange_of,
    json_answer,
    number_of,
    person_of,
    refusal_of,
    stale,
)
from escalation.server.web.incident_page import IncidentPage
from escalation.server.web.login.visits import Nobody, SessionKey, Visitors
from escalation.server.web.page_routes import PageRoutes
from escalation.server.web.queue_page import AT_ONCE
from escalation.server.web.rule_pages import RulePages
from escalation.view.entry import (
    NOT_FINISHED,
    EntryView,
    action_view,
    audit_view,
    entry_view,
    host_view,
    incident_view,
)
from escalation.view.listings import (
    AuditHead,
    AuditList,
    HostList,
    IncidentList,
    Me,
    QueuedTest,
    QueueList,
    ReceiverList,
)

MAX_WATCHERS: Final = 64
KEEP_ALIVE_S: Final = 15.0
_STANDS_FOR_S: Final = 1.0
"""How long a session that was found standing counts as one, so that a storm of changes reads it seldom."""

_DEFAULT_LIMIT: Final = 200
_AUDIT_AT_ONCE: Final = 1000
_MAX_AFTER: Final = 2**62

_ID: Final = re.compile(r"[0-9A-Za-z-]{0,64}")

_Limit = Annotated[int, msgspec.Meta(ge=0, le=AT_ONCE)]
_LIMIT: Final = Query("limit", _Limit, f"At most so many; {_DEFAULT_LIMIT} unless said.")
_AUDIT_LIMIT: Final = Query("limit", _Limit, f"At most so many; {_AUDIT_AT_ONCE} unless said.")
_AFTER: Final = Query("after", Annotated[int, msgspec.Meta(ge=0, le=_MAX_AFTER)], "Links numbered above it.")
_AFTER_ID: Final = Query(
    "after",
    Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z-]{0,64}\Z")],
    "Everything, in the order of ids: what follows this one, and an empty one begins.",
)
_STATE: Final = Query(
    "state",
    Literal[shelves.NAMES],
    f"Entries in this state, or put on this shelf; without it {', '.join(sorted(NOT_FINISHED))}, "
    "less what is snoozed or silenced.",
)


class HttpSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[http]` table of orchestrator.toml: where to listen, and by which names it may be called.

    `public_url` is where people open the page. Passkeys and links for people are bound to it, and nothing
    that a request says changes it.
    """

    listen: str = "127.0.0.1:9737"
    hosts: tuple[str, ...] = ()
    public_url: str = ""

    def __post_init__(self) -> None:
        """Refuse a public address that is none, or by which cookies would travel in the clear."""
        if not self.public_url:
            return
        parts = urlsplit(self.public_url)
        local = parts.scheme == "http" and parts.hostname in {"localhost", "127.0.0.1"}
        whole = f"{parts.scheme}://{parts.netloc}"
        if (
            not parts.hostname
            or self.public_url.rstrip("/") != whole
            or not (parts.scheme == "https" or local)
        ):
            raise ValueError("http.public_url is https://NAME or http://localhost:PORT, without a path")

    @property
    def origin(self) -> str:
        """Return the public address as a browser names it, empty when there is none."""
        return self.public_url.rstrip("/").lower()


class _Approve(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: Annotated[str, msgspec.Meta(pattern=r"\S", max_length=2000)]
    digest: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8,128}\Z")]
    signed: Signed | None = None
    set_aside: SetAside = {}


class _Reject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: Annotated[str, msgspec.Meta(pattern=r"\S", max_length=2000)]


def build(
    *,
    desk: Desk,
    persons: Sequence[Person],
    metrics: ServerMetrics,
    ready: Callable[[], bool],
    clock: Clock,
    hosts: frozenset[str] = frozenset(),
    notices: NoticeDesk | None = None,
    attention: AttentionDesk | None = None,
    incidents: IncidentDesk | None = None,
    judged: RuleDesk | None = None,
    texts: Texts | None = None,
    more: Sequence[Rule] = (),
    visitors: Visitors | None = None,
    public_url: str = "",
) -> Starlette:
    """Return the application; `hosts` are the names besides loopback that it may be called by.

    `attention`, `incidents` and `judged` rules have pages beside those of `desk` when they are given.
    `more` are the routes of other desks, which stand beside those of `desk`; `visitors` know the cookies of
    who logged in.
    """
    shown = pages.Pages(clock=clock)
    told = texts or NoTexts()
    known = visitors or Nobody()
    surface = Surface(
        desk=desk,
        metrics=metrics,
        ready=ready,
        shown=shown,
        notices=notices or NoReceivers(),
        texts=told,
        clock=clock,
        visitors=known,
    )
    card = EntryPage(
        desk=desk,
        pages=shown,
        texts=told,
        attended=attention is not None,
        accounted=incidents is not None,
        judged=judged is not None,
    )
    web = [*PageRoutes(desk=desk, pages=shown, card=card).rules]
    if attention is not None:
        web += AttentionPages(desk=attention, pages=shown, card=card).rules
    if incidents is not None:
        web += IncidentPage(desk=incidents, pages=shown).rules
    if judged is not None:
        web += RulePages(desk=judged, pages=shown, card=card).rules
    rules = openapi.with_description((*surface.rules, *web, *more))
    surface.pages = frozenset(rule.path for rule in rules if rule.media == HTML)
    return Starlette(
        routes=_routes(rules),
        middleware=[
            Middleware(
                Gate,
                persons=persons,
                hosts=hosts,
                metrics=metrics,
                clock=clock,
                visitors=known,
                open_paths=frozenset(rule.path for rule in rules if rule.role is None),
                public_url=public_url,
            )
        ],
        exception_handlers={
            DeskError: surface.desk_error,
            HTTPException: surface.http_error,
            StoreError: surface.store_error,
            Exception: surface.defect,
        },
    )


class Surface:
    """Every route and its handler."""

    def __init__(
        self,
        *,
        desk: Desk,
        metrics: ServerMetrics,
        ready: Callable[[], bool],
        shown: pages.Pages,
        notices: NoticeDesk,
        texts: Texts,
        clock: Clock,
        visitors: Visitors,
    ) -> None:
        """Answer from `desk`, from `notices` about who is told what, from `texts` what a model wrote.

        `visitors` know by `clock` when a session ends whose stream is open.
        """
        self._desk = desk
        self._texts = texts
        self._notices = notices
        self._metrics = metrics
        self._ready = ready
        self._pages = shown
        self._clock = clock
        self._visitors = visitors
        self.pages: frozenset[str] = frozenset()
        self._watchers = 0
        self.rules: tuple[Rule, ...] = (
            Rule(
                "GET",
                "/api/v1/audit",
                Role.VIEWER,
                self._audit,
                "Links of the audit chain, in order.",
                answer=AuditList,
                query=(_AFTER, _AUDIT_LIMIT),
            ),
            Rule(
                "GET",
                "/api/v1/audit/head",
                Role.VIEWER,
                self._audit_head,
                "The newest link of the audit chain.",
                answer=AuditHead,
            ),
            Rule(
                "GET",
                "/api/v1/hosts",
                Role.VIEWER,
                self._hosts,
                "Hosts: last heard, coverage, losses.",
                answer=HostList,
            ),
            Rule(
                "GET",
                "/api/v1/incidents",
                Role.VIEWER,
                self._incidents,
                "Incidents, open ones first, newest first.",
                answer=IncidentList,
                query=(_LIMIT, _AFTER_ID),
            ),
            Rule("GET", "/api/v1/me", Role.SCRAPER, self._me, "Who asks, and what they may.", answer=Me),
            Rule(
                "GET",
                "/api/v1/notify",
                Role.VIEWER,
                self._receivers,
                "Receivers of notifications, and how they are.",
                answer=ReceiverList,
            ),
            Rule(
                "POST",
                "/api/v1/notify/{id}/test",
                Role.OPERATOR,
                self._test_receiver,
                "Send a test to the receiver of this name.",
                body=Nothing,
                answer=QueuedTest,
            ),
            Rule(
                "GET",
                "/api/v1/queue",
                Role.VIEWER,
                self._queue,
                "Entries of the queue, worst first, then oldest first.",
                answer=QueueList,
                query=(_STATE, _LIMIT, _AFTER_ID),
            ),
            Rule(
                "GET",
                "/api/v1/queue/{id}",
                Role.VIEWER,
                self._entry,
                "One entry, by its id or by its incident's.",
                answer=EntryView,
            ),
            Rule(
                "POST",
                "/api/v1/queue/{id}/approve",
                Role.OPERATOR,
                self._approve,
                "Approve exactly what the digest names.",
                fresh=True,
                body=_Approve,
                answer=EntryView,
            ),
            Rule(
                "POST",
                "/api/v1/queue/{id}/done",
                Role.OPERATOR,
                self._done,
                "Say that what was approved is carried out.",
                body=Nothing,
                answer=EntryView,
            ),
            Rule(
                "POST",
                "/api/v1/queue/{id}/reject",
                Role.OPERATOR,
                self._reject,
                "Reject it, with a reason.",
                body=_Reject,
                answer=EntryView,
            ),
            Rule(
                "GET",
                "/api/v1/watch",
                Role.VIEWER,
                self._watch,
                "Server-sent events: `queue` with an entry for each change.",
                media=EVENTS,
            ),
            Rule("GET", "/live", Role.VIEWER, self._watch, media=EVENTS),
            Rule("GET", "/livez", None, self._livez, "Whether the process lives.", media=TEXT),
            Rule("GET", "/metrics", Role.SCRAPER, self._metrics_text, "Prometheus text.", media=TEXT),
            Rule("GET", "/readyz", None, self._readyz, "Whether it takes reports and decisions.", media=TEXT),
        )

    async def _livez(self, _request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _readyz(self, _request: Request) -> Response:
        return PlainTextResponse("ready\n") if self._ready() else PlainTextResponse("unready\n", 503)

    async def _metrics_text(self, _request: Request) -> Response:
        return Response(self._metrics.text(), media_type=CONTENT_TYPE)

    async def _queue(self, request: Request) -> Response:
        name, after = request.query_params.get("state", ""), _after_of(request)
        limit = number_of(request, "limit", default=_DEFAULT_LIMIT, most=AT_ONCE)
        try:
            sought = shelves.part(name)
        except ValueError as error:
            raise HTTPException(400, str(error)) from None
        if after is not None:
            if name not in {"", "all"}:
                raise Refused("with after everything is told: state is all, or left out")
            views = tuple(map(entry_view, await self._desk.entries_after(after, limit=limit)))
            return json_answer(QueueList(views, (await self._desk.holdings()).entries))
        entries = await self._desk.queue(sought.states)
        found = shelves.shown(entries, name)
        views = tuple(map(entry_view, found.entries[:limit]))
        if len(entries) < AT_ONCE:
            return json_answer(QueueList(views, len(found.entries), found.snoozed, found.silenced))
        arranged = (await self._desk.look(sought, person=person_of(request))).arranged  # there may be more
        aside = (arranged.aside.get(each, 0) for each in (Shelf.SNOOZED, Shelf.SILENCED))
        return json_answer(QueueList(views, arranged.total, *aside))

    async def _entry(self, request: Request) -> Response:
        return json_answer(await self._whole(request))

    async def _whole(self, request: Request) -> EntryView:
        """Return an entry with what a model wrote about it, which is looked up and never waited for."""
        view = entry_view(await self._desk.entry(request.path_params["id"]))
        return replace(view, model_text=self._texts.of(view))

    async def _approve(self, request: Request) -> Response:
        asked = await body_of(request, _Approve)
        entry = await self._desk.entry(request.path_params["id"])
        if refusal := action_view(entry.recommendation.advice.action, drill=entry.incident.drill).refusal:
            raise Refused(f"it cannot be approved: {refusal}")
        decided = await self._desk.approve(
            entry.recommendation.id,
            person=person_of(request),
            reason=asked.reason.strip(),
            digest=asked.digest,
            signed=asked.signed,
            overrides=[Override(each, why.strip()) for each, why in sorted(asked.set_aside.items())],
        )
        return json_answer(entry_view(decided))

    async def _reject(self, request: Request) -> Response:
        asked = await body_of(request, _Reject)
        decided = await self._desk.reject(
            request.path_params["id"], person=person_of(request), reason=asked.reason.strip()
        )
        return json_answer(entry_view(decided))

    async def _done(self, request: Request) -> Response:
        await body_of(request, Nothing)
        return json_answer(
            entry_view(await self._desk.done(request.path_params["id"], person=person_of(request)))
        )

    async def _incidents(self, request: Request) -> Response:
        after = _after_of(request)
        limit = number_of(request, "limit", default=_DEFAULT_LIMIT, most=AT_ONCE)
        if after is None:
            incidents = (await self._desk.incidents())[:limit]
        else:
            incidents = await self._desk.incidents_after(after, limit=limit)
        total = (await self._desk.holdings()).incidents
        return json_answer(IncidentList(tuple(map(incident_view, incidents)), total))

    async def _hosts(self, _request: Request) -> Response:
        return json_answer(HostList(tuple(map(host_view, await self._desk.hosts()))))

    async def _me(self, request: Request) -> Response:
        person = exchange_of(request).person
        assert person is not None
        return json_answer(Me(person.name, person.role.value, person.role.may(Role.OPERATOR)))

    async def _receivers(self, _request: Request) -> Response:
        return json_answer(ReceiverList(tuple(await self._notices.receivers())))

    async def _test_receiver(self, request: Request) -> Response:
        await body_of(request, Nothing)
        notice_id = await self._notices.test(request.path_params["id"], person=person_of(request))
        return json_answer(QueuedTest(notice_id))

    async def _audit(self, request: Request) -> Response:
        after = number_of(request, "after", default=0, most=_MAX_AFTER)
        limit = number_of(request, "limit", default=_AUDIT_AT_ONCE, most=AT_ONCE)
        entries = await self._desk.audit(after=after, limit=limit)
        return json_answer(AuditList(tuple(map(audit_view, entries))))

    async def _audit_head(self, _request: Request) -> Response:
        newest = await self._desk.audit_head()
        return json_answer(AuditHead(None if newest is None else audit_view(newest)))

    async def _watch(self, request: Request) -> Response:
        if request.method == "HEAD":
            return Response(media_type=EVENTS)
        if self._watchers >= MAX_WATCHERS:
            raise Unavailable(f"{MAX_WATCHERS} streams of changes are open already")
        changes = self._desk.changes()
        exchange = exchange_of(request)
        exchange.streams = True
        return StreamingResponse(self._events(changes, exchange.session), media_type=EVENTS)

    async def _events(
        self, changes: AsyncIterator[Entry], session: SessionKey | None
    ) -> AsyncIterator[bytes]:
        """Yield each change, until the session ends in whose name they are told."""
        self._watchers += 1
        self._metrics.watchers(self._watchers)
        following: asyncio.Future[Entry] = asyncio.ensure_future(anext(changes))
        try:
            yield b": watching\n\n"
            asked_s = self._clock.steady_s()
            while True:
                finished, _ = await asyncio.wait({following}, timeout=KEEP_ALIVE_S)
                if session is not None and self._clock.steady_s() - asked_s >= _STANDS_FOR_S:
                    asked_s = self._clock.steady_s()
                    if not await self._stands(session):
                        return
                if not finished:
                    yield b": still here\n\n"
                    continue
                try:
                    entry = following.result()
                except (StopAsyncIteration, DeskError):
                    return  # the stream ends; who watches reads the queue again and reconnects
                yield b"event: queue\ndata: " + ascii_json(entry_view(entry)) + b"\n\n"
                following = asyncio.ensure_future(anext(changes))
        finally:
            following.cancel()
            self._watchers -= 1
            self._metrics.watchers(self._watchers)

    async def _stands(self, session: SessionKey) -> bool:
        """Return whether a session has not ended; one that cannot be read counts as ended."""
        try:
            return await self._visitors.stands(session)
        except StoreError:
            return False

    async def desk_error(self, request: Request, error: Exception) -> Response:
        """Answer with what the desk refused."""
        assert isinstance(error, DeskError)
        status, code = status_of(error)
        return self._problem(request, status, code, str(error))

    async def store_error(self, request: Request, _error: Exception) -> Response:
        """Answer when the storage cannot do what a desk beside the queue asks; it works again later."""
        return self._problem(request, 503, "unavailable", "nothing can be kept or read now")

    async def http_error(self, request: Request, error: Exception) -> Response:
        """Answer a request that is wrong in itself."""
        assert isinstance(error, HTTPException)
        code = {404: "not_found", 403: "forbidden"}.get(error.status_code, "bad_request")
        return self._problem(request, error.status_code, code, error.detail, dict(error.headers or {}))

    async def defect(self, request: Request, _error: Exception) -> Response:
        """Answer when the orchestrator itself failed; what failed is for its log only."""
        answer = self._problem(
            request, 500, "failed", "the orchestrator failed here; its log has the details"
        )
        answer.headers.update(
            HEADERS | {"X-Request-Id": exchange_of(request).request_id}
        )  # sent past the gate
        return answer

    def _problem(
        self, request: Request, status: int, code: str, message: str, headers: dict[str, str] | None = None
    ) -> Response:
        """Return an error as a page to a browser's page, as JSON to everything else."""
        if exchange_of(request).route in self.pages:
            return self._pages.problem(request, status, message)
        return problem(status, code, message, headers)


def _after_of(request: Request) -> str | None:
    after = request.query_params.get("after")
    if after is not None and _ID.fullmatch(after) is None:
        raise HTTPException(400, "after is an id, the beginning of one, or empty")
    return after


def _routes(rules: Sequence[Rule]) -> list[Route]:
    """Return one route for each path, so that another method is answered with all that the path has."""
    of_path: dict[str, dict[str, Callable[[Request], Awaitable[Response]]]] = {}
    for rule in rules:
        of_path.setdefault(rule.path, {})[rule.method] = _checked(rule)
    return [Route(path, _by_method(methods), methods=list(methods)) for path, methods in of_path.items()]


def _by_method(
    methods: Mapping[str, Callable[[Request], Awaitable[Response]]],
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await methods["GET" if request.method == "HEAD" else request.method](request)

    return endpoint


def _checked(rule: Rule) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        exchange = exchange_of(request)
        exchange.route = rule.path
        if rule.role is not None:
            person = exchange.person
            if person is None or not person.role.may(rule.role):
                raise HTTPException(403, f"this needs the role {rule.role.value}")
        if rule.method == "POST":
            if refusal := await refusal_of(request, rule):
                raise HTTPException(403, refusal)
            if rule.fresh and not exchange.fresh:
                return stale(request)
        return await rule.handler(request)

    return endpoint
