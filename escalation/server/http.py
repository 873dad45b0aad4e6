"""The HTTP surface for people and their tools: JSON, a read-only web page, metrics and liveness.

Routes are one table, `Surface.rules`; a test walks it with every kind of credential. A handler translates
between HTTP and the desk and does nothing else. Reading never changes state: whatever changes it is a POST
with a JSON body, and needs the role operator.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Protocol, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from escalation.model import State
from escalation.server import pages
from escalation.server.access import Person, Role
from escalation.server.clock import Clock
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
from escalation.server.gate import HEADERS, Exchange, Gate, problem
from escalation.server.metrics import CONTENT_TYPE, ServerMetrics
from escalation.server.notice_desk import NoReceivers, NoticeDesk
from escalation.view import (
    NOT_FINISHED,
    action_view,
    audit_view,
    entry_view,
    host_view,
    incident_view,
)

T = TypeVar("T")

MAX_BODY_BYTES: Final = 64 * 1024
MAX_WATCHERS: Final = 64
KEEP_ALIVE_S: Final = 15.0

_DEFAULT_LIMIT: Final = 200
_MAX_LIMIT: Final = 1000
_PAGE_LIMIT: Final = 100
_PAGES: Final = frozenset({"/", "/hosts", "/q/{id}"})
_NOT_ASCII: Final = re.compile(r"[^\x20-\x7e]")


class HttpSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[http]` table of orchestrator.toml: where to listen, and by which names it may be called."""

    listen: str = "127.0.0.1:9737"
    hosts: tuple[str, ...] = ()


class _Approve(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: Annotated[str, msgspec.Meta(pattern=r"\S", max_length=2000)]
    digest: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8,128}\Z")]


class _Reject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: Annotated[str, msgspec.Meta(pattern=r"\S", max_length=2000)]


class _Done(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Handler(Protocol):
    """What answers one route."""

    async def __call__(self, request: Request, /) -> Response:
        """Answer."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One route: who may use it (None: anybody, without credentials) and what answers."""

    method: str
    path: str
    role: Role | None
    handler: Handler


def build(
    *,
    desk: Desk,
    persons: Sequence[Person],
    metrics: ServerMetrics,
    ready: Callable[[], bool],
    clock: Clock,
    hosts: frozenset[str] = frozenset(),
    notices: NoticeDesk | None = None,
) -> Starlette:
    """Return the application; `hosts` are the names besides loopback that it may be called by."""
    surface = Surface(desk=desk, metrics=metrics, ready=ready, clock=clock, notices=notices or NoReceivers())
    return Starlette(
        routes=[Route(rule.path, _checked(rule), methods=[rule.method]) for rule in surface.rules],
        middleware=[Middleware(Gate, persons=persons, hosts=hosts, metrics=metrics, clock=clock)],
        exception_handlers={
            DeskError: surface.desk_error,
            HTTPException: surface.http_error,
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
        clock: Clock,
        notices: NoticeDesk,
    ) -> None:
        """Answer from `desk`, and from `notices` about who is told what."""
        self._desk = desk
        self._notices = notices
        self._metrics = metrics
        self._ready = ready
        self._pages = pages.Pages(clock=clock)
        self._head = 0
        self._watchers = 0
        self.rules: tuple[Rule, ...] = (
            Rule("GET", "/", Role.VIEWER, self._page_queue),
            Rule("GET", "/api/v1/audit", Role.VIEWER, self._audit),
            Rule("GET", "/api/v1/audit/head", Role.VIEWER, self._audit_head),
            Rule("GET", "/api/v1/hosts", Role.VIEWER, self._hosts),
            Rule("GET", "/api/v1/incidents", Role.VIEWER, self._incidents),
            Rule("GET", "/api/v1/notify", Role.VIEWER, self._receivers),
            Rule("POST", "/api/v1/notify/{id}/test", Role.OPERATOR, self._test_receiver),
            Rule("GET", "/api/v1/queue", Role.VIEWER, self._queue),
            Rule("GET", "/api/v1/queue/{id}", Role.VIEWER, self._entry),
            Rule("POST", "/api/v1/queue/{id}/approve", Role.OPERATOR, self._approve),
            Rule("POST", "/api/v1/queue/{id}/done", Role.OPERATOR, self._done),
            Rule("POST", "/api/v1/queue/{id}/reject", Role.OPERATOR, self._reject),
            Rule("GET", "/api/v1/watch", Role.VIEWER, self._watch),
            Rule("GET", "/hosts", Role.VIEWER, self._page_hosts),
            Rule("GET", "/livez", None, self._livez),
            Rule("GET", "/metrics", Role.SCRAPER, self._metrics_text),
            Rule("GET", "/q/{id}", Role.VIEWER, self._page_entry),
            Rule("GET", "/readyz", None, self._readyz),
            Rule("GET", "/static/style.css", Role.VIEWER, self._style),
        )

    async def _livez(self, _request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _readyz(self, _request: Request) -> Response:
        return PlainTextResponse("ready\n") if self._ready() else PlainTextResponse("unready\n", 503)

    async def _metrics_text(self, _request: Request) -> Response:
        return Response(self._metrics.text(), media_type=CONTENT_TYPE)

    async def _queue(self, request: Request) -> Response:
        entries = await self._desk.queue(_states(request))
        limit = _number(request, "limit", default=_DEFAULT_LIMIT, most=_MAX_LIMIT)
        return _json({"entries": [entry_view(entry) for entry in entries[:limit]], "total": len(entries)})

    async def _entry(self, request: Request) -> Response:
        return _json(entry_view(await self._desk.entry(request.path_params["id"])))

    async def _approve(self, request: Request) -> Response:
        asked = await _body(request, _Approve)
        entry = await self._desk.entry(request.path_params["id"])
        if refusal := action_view(entry.recommendation.advice.action, drill=entry.incident.drill).refusal:
            raise Refused(f"it cannot be approved: {refusal}")
        decided = await self._desk.approve(
            entry.recommendation.id, person=_person(request), reason=asked.reason.strip(), digest=asked.digest
        )
        return _json(entry_view(decided))

    async def _reject(self, request: Request) -> Response:
        asked = await _body(request, _Reject)
        decided = await self._desk.reject(
            request.path_params["id"], person=_person(request), reason=asked.reason.strip()
        )
        return _json(entry_view(decided))

    async def _done(self, request: Request) -> Response:
        await _body(request, _Done)
        return _json(entry_view(await self._desk.done(request.path_params["id"], person=_person(request))))

    async def _incidents(self, request: Request) -> Response:
        incidents = await self._desk.incidents()
        limit = _number(request, "limit", default=_DEFAULT_LIMIT, most=_MAX_LIMIT)
        views = [incident_view(incident) for incident in incidents[:limit]]
        return _json({"incidents": views, "total": len(incidents)})

    async def _hosts(self, _request: Request) -> Response:
        return _json({"hosts": [host_view(host) for host in await self._desk.hosts()]})

    async def _receivers(self, _request: Request) -> Response:
        return _json({"receivers": await self._notices.receivers()})

    async def _test_receiver(self, request: Request) -> Response:
        await _body(request, _Done)
        notice_id = await self._notices.test(request.path_params["id"], person=_person(request))
        return _json({"id": notice_id})

    async def _audit(self, request: Request) -> Response:
        after = _number(request, "after", default=0, most=2**62)
        limit = _number(request, "limit", default=1000, most=_MAX_LIMIT)
        entries = await self._desk.audit(after=after, limit=limit)
        return _json({"entries": [audit_view(entry) for entry in entries]})

    async def _audit_head(self, _request: Request) -> Response:
        """Answer with the newest link; where it was last time is remembered, so the walk is short."""
        after = max(0, self._head - 1)
        newest = None
        while page := await self._desk.audit(after=after, limit=1000):
            newest = page[-1]
            after = self._head = newest.number
        return _json({"head": None if newest is None else audit_view(newest)})

    async def _watch(self, request: Request) -> Response:
        if self._watchers >= MAX_WATCHERS:
            raise Unavailable(f"{MAX_WATCHERS} streams of changes are open already")
        changes = self._desk.changes()
        _exchange(request).streams = True
        return StreamingResponse(self._events(changes), media_type="text/event-stream")

    async def _events(self, changes: AsyncIterator[Entry]) -> AsyncIterator[bytes]:
        self._watchers += 1
        self._metrics.watchers(self._watchers)
        following: asyncio.Future[Entry] = asyncio.ensure_future(anext(changes))
        try:
            yield b": watching\n\n"
            while True:
                finished, _ = await asyncio.wait({following}, timeout=KEEP_ALIVE_S)
                if not finished:
                    yield b": still here\n\n"
                    continue
                try:
                    entry = following.result()
                except (StopAsyncIteration, DeskError):
                    return  # the stream ends; who watches reads the queue again and reconnects
                yield b"event: queue\ndata: " + _ascii(entry_view(entry)) + b"\n\n"
                following = asyncio.ensure_future(anext(changes))
        finally:
            following.cancel()
            self._watchers -= 1
            self._metrics.watchers(self._watchers)

    async def _page_queue(self, request: Request) -> Response:
        entries = await self._desk.queue(_states(request))
        return self._pages.queue(
            [entry_view(entry) for entry in entries[:_PAGE_LIMIT]],
            total=len(entries),
            state=request.query_params.get("state", ""),
            hosts=[host_view(host) for host in await self._desk.hosts()],
        )

    async def _page_entry(self, request: Request) -> Response:
        return self._pages.entry(entry_view(await self._desk.entry(request.path_params["id"])))

    async def _page_hosts(self, _request: Request) -> Response:
        return self._pages.hosts([host_view(host) for host in await self._desk.hosts()])

    async def _style(self, _request: Request) -> Response:
        return self._pages.style()

    async def desk_error(self, request: Request, error: Exception) -> Response:
        """Answer with what the desk refused."""
        status, code = 409, "conflict"
        match error:
            case NotFound():
                status, code = 404, "not_found"
            case Refused():
                status, code = 409, "refused"
            case Superseded():
                status, code = 409, "superseded"
            case Expired():
                status, code = 410, "expired"
            case Unavailable() | FellBehind():
                status, code = 503, "unavailable"
        return self._problem(request, status, code, str(error))

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
        answer.headers.update(HEADERS | {"X-Request-Id": _exchange(request).request_id})  # sent past the gate
        return answer

    def _problem(
        self, request: Request, status: int, code: str, message: str, headers: dict[str, str] | None = None
    ) -> Response:
        """Return an error as a page to a browser's page, as JSON to everything else."""
        if request.method == "GET" and _exchange(request).route in _PAGES:
            return self._pages.problem(status, message)
        return problem(status, code, message, headers)


def _checked(rule: Rule) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        exchange = _exchange(request)
        exchange.route = rule.path
        if rule.role is not None:
            person = exchange.person
            if person is None or not person.role.may(rule.role):
                return problem(403, "forbidden", f"this needs the role {rule.role.value}")
        return await rule.handler(request)

    return endpoint


def _exchange(request: Request) -> Exchange:
    exchange = request.scope["nanobot"]
    assert isinstance(exchange, Exchange)
    return exchange


def _person(request: Request) -> str:
    person = _exchange(request).person
    assert person is not None
    return person.name


def _states(request: Request) -> frozenset[State] | None:
    asked = request.query_params.get("state", "")
    if not asked:
        return NOT_FINISHED
    if asked == "all":
        return None
    try:
        return frozenset({State(asked)})
    except ValueError:
        known = ", ".join(state.value for state in State)
        raise HTTPException(400, f"state is one of all, {known}") from None


def _number(request: Request, name: str, *, default: int, most: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= most):
        raise HTTPException(400, f"{name} is a number from 0 to {most}")
    return int(text)


async def _body(request: Request, kind: type[T]) -> T:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "the body is application/json")
    try:
        return msgspec.json.decode(await _limited(request), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HTTPException(400, f"the body cannot be read: {error}") from error


async def _limited(request: Request) -> bytes:
    """Return the body, read no further than the limit.

    Not Starlette's own limit: that one answers before the gate, so a stranger would hear something else than
    that credentials are needed.
    """
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"the body is longer than {MAX_BODY_BYTES} bytes")
    return bytes(body)


def _json(value: object) -> Response:
    return Response(_ascii(value), media_type="application/json")


def _ascii(value: object) -> bytes:
    """Return JSON in printable ASCII, so that no terminal can be made to act by what it prints of it."""
    encoded = msgspec.json.encode(value)
    if encoded.isascii() and b"\x7f" not in encoded:
        return encoded
    return _NOT_ASCII.sub(_json_escape, encoded.decode()).encode()


def _json_escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
