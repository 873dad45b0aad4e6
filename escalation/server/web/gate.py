"""The gate that every HTTP request passes: host name, credentials, origin, headers, request id, counting.

A plain ASGI middleware, so that it holds for unknown paths and errors as well: a route cannot forget it.
Roles are checked behind it, where the route is known, and so is the token of a session's forms.

Who somebody is comes from an Authorization header (tools) or from the cookie of a session (people), never
from another header or from a body. The cookie is SameSite=Strict, so a browser that follows a link from a
mail does not send it: such a request is answered with a page that loads itself again, which then does.
"""

from __future__ import annotations

import html
import ipaddress
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from escalation.inert import guarded, shown
from escalation.server.clock import Clock
from escalation.server.metrics import ServerMetrics
from escalation.server.storage.store import StoreError
from escalation.server.web.access import FailedLogins, Person, authenticate, presented
from escalation.server.web.login.visits import SessionKey, Visitors

_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_METHODS: Final = frozenset({"GET", "HEAD", "POST"})

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer, under which a browser sends a form of our own with the origin "null" (Fetch, 3.1).
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""What every answer carries."""


LOGIN_PATH: Final = "/login"

UNATTENDED: Final = "x-unattended"
"""The header by which our script says that nobody asked: it keeps a page fresh."""


@dataclass(slots=True)
class Exchange:
    """What the gate and the routes tell each other about one request.

    `fresh` says whether the person showed lately who they are, at `proven_ns`; a token shows it with each
    request. `csrf` is the token that the forms of this session carry, empty without a session. `form` is a
    form that was read to look for it. `public` says that it came by the public address, `secure` that this is
    https.
    """

    request_id: str
    person: Person | None = None
    route: str = "unmatched"
    streams: bool = False
    session: SessionKey | None = None
    csrf: str = ""
    fresh: bool = False
    proven_ns: int = 0
    public: bool = False
    secure: bool = False
    form: Mapping[str, str] | None = None


def problem(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    """Return an error as the API words it; pages send the same, with a status a browser understands."""
    body = {"error": {"code": code, "message": guarded(message)}}
    return Response(json.dumps(body), status_code=status, media_type="application/json", headers=headers)


class Gate:
    """Let a request through to `app` once it named its host, its person and its origin."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        persons: Sequence[Person],
        hosts: frozenset[str],
        metrics: ServerMetrics,
        clock: Clock,
        visitors: Visitors,
        open_paths: frozenset[str],
        public_url: str = "",
    ) -> None:
        """Guard `app`; `hosts` are the names besides loopback and that of `public_url` that it answers to.

        `visitors` know the cookies; only `open_paths` answer to whoever asks.
        """
        self._app = app
        self._persons = tuple(persons)
        public = urlsplit(public_url)
        self._public_host = public.hostname or ""
        self._https = public.scheme == "https"
        self._hosts = _LOOPBACK_NAMES | {host.lower() for host in hosts} | {self._public_host} - {""}
        self._visitors = visitors
        self._open_paths = open_paths
        self._metrics = metrics
        self._clock = clock
        self._failures = FailedLogins(clock=clock)
        self._log = structlog.get_logger("nanobot.orchestrator.http")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or refuse it; either way with the headers, and counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(request_id=uuid.uuid4().hex)
        scope["nanobot"] = exchange
        started = self._clock.steady_s()
        status = 500

        async def answering(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers["X-Request-Id"] = exchange.request_id
            await send(message)

        try:
            refusal = await self._refusal(scope, exchange)
            await (refusal or self._app)(scope, receive, answering)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else "other"
            seconds = None if exchange.streams else self._clock.steady_s() - started
            self._metrics.http_request(route=exchange.route, method=method, status=status, seconds=seconds)
            if method == "POST" and exchange.person:
                self._log.info(
                    "decision_asked",
                    path=shown(scope["path"], limit=200),
                    person=exchange.person.name,
                    status=status,
                    request_id=exchange.request_id,
                )

    async def _refusal(self, scope: Scope, exchange: Exchange) -> Response | None:
        headers = Headers(scope=scope)
        host = _bare_host(headers.get("host", ""))
        if host not in self._hosts:
            return problem(
                400,
                "bad_request",
                "this host name is not one of the orchestrator's; its settings list them (http.hosts)",
            )
        exchange.public = bool(host) and host == self._public_host
        exchange.secure = exchange.public and self._https
        is_open = scope["path"] in self._open_paths
        authorization = headers.get("authorization")
        refusal = None
        if authorization is None:
            refusal = await self._visitor(scope, headers, exchange)
            if refusal is None and exchange.person is None and not is_open:
                refusal = self._stranger(scope, headers)
        elif not is_open:
            refusal = self._unknown_person(scope, authorization, exchange)
        if refusal:
            return refusal
        if scope["method"] not in {"GET", "HEAD"} and _foreign(headers, secure=exchange.secure):
            return problem(403, "forbidden", "a page of another origin may not decide anything")
        return None

    async def _visitor(self, scope: Scope, headers: Headers, exchange: Exchange) -> Response | None:
        cookie = cookie_parser(headers.get("cookie", "")).get(cookie_name(secure=exchange.secure))
        if cookie is None:
            return None
        try:
            visit = await self._visitors.visit(cookie, attended=_is_attended(headers))
        except StoreError as error:
            self._log.warning("session_not_read", error=str(error), request_id=exchange.request_id)
            if scope["path"] in self._open_paths:
                return None
            return problem(503, "unavailable", "who this session is of cannot be read now")
        if visit is not None:
            exchange.person = visit.person
            exchange.session = visit.key
            exchange.csrf = visit.csrf
            exchange.fresh = visit.fresh
            exchange.proven_ns = visit.proven_ns
        return None

    def _stranger(self, scope: Scope, headers: Headers) -> Response:
        """Send a person to the login, and a tool away."""
        path = scope["path"]
        reads_pages = "text/html" in headers.get("accept", "")
        if scope["method"] == "POST" and reads_pages:
            return RedirectResponse(f"{LOGIN_PATH}?next={quote(page_of(headers), safe='')}", 303)
        if scope["method"] == "GET" and reads_pages:
            query = scope.get("query_string", b"").decode("latin-1")
            here = own_path(f"{quote(path)}?{query}" if query else quote(path))
            if headers.get("sec-fetch-site") == "cross-site":
                return HTMLResponse(_AGAIN.format(here=html.escape(here)))
            return RedirectResponse(f"{LOGIN_PATH}?next={quote(here, safe='')}", 303)
        # At "Basic" a browser asks its person for a name, even where only an open page wants to be fresh.
        is_tools = path.startswith(("/api/", "/metrics")) or not _is_attended(headers)
        ask = {"WWW-Authenticate": f'{"Bearer" if is_tools else "Basic"} realm="nanobot"'}
        return problem(401, "unauthenticated", "credentials are needed: a bearer token, or name:token", ask)

    def _unknown_person(self, scope: Scope, authorization: str, exchange: Exchange) -> Response | None:
        challenge = "Bearer" if scope["path"].startswith(("/api/", "/metrics")) else "Basic"
        ask = {"WWW-Authenticate": f'{challenge} realm="nanobot"'}
        credentials = presented(authorization)
        exchange.person = authenticate(credentials, self._persons) if credentials else None
        if exchange.person:
            exchange.fresh = True
            exchange.proven_ns = self._clock.wall_ns()
            return None
        self._metrics.login_refused()
        address = scope["client"][0] if scope.get("client") else "unknown"
        if not self._failures.allow(address):
            return problem(
                429, "too_many_attempts", "too many failed attempts from this address", {"Retry-After": "5"}
            )
        self._log.warning("login_refused", address=address, request_id=exchange.request_id)
        return problem(401, "unauthenticated", "these credentials fit nobody", ask)


_AGAIN: Final = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>Host Nanobot</title>'
    '<meta http-equiv="refresh" content="0; url={here}"><p><a href="{here}">Go on</a></p>'
)


def cookie_name(*, secure: bool) -> str:
    """Return what the cookie of a session is called; a browser binds `__Host-` to https and to our host."""
    return "__Host-nanobot" if secure else "nanobot"


def own_path(asked: str) -> str:
    """Return `asked` when it is a path of our own, as a browser reads it, and the queue's path otherwise."""
    harmless = asked.startswith("/") and not asked.startswith("//") and "\\" not in asked
    return asked if harmless and len(asked) <= 2000 and asked.isascii() and asked.isprintable() else "/"


def _bare_host(value: str) -> str:
    """Return the host of a Host header, lower-case, without port and brackets; empty when malformed."""
    host, closed, port = value.rpartition("]")
    if closed:
        host = host.removeprefix("[")
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            return ""
    else:
        host, _, port = value.partition(":")
        port = f":{port}" if port else ""
    if port and not port.removeprefix(":").isdecimal():
        return ""
    return host.lower().rstrip(".")


def page_of(headers: Headers) -> str:
    """Return the path of the page that a request says it stands on, and the queue's where it says none."""
    try:
        return own_path(urlsplit(headers.get("referer", "")).path)
    except ValueError:
        return own_path("")


def _is_attended(headers: Headers) -> bool:
    """Return whether a person may have asked for this: not a page that keeps itself fresh."""
    return UNATTENDED not in headers and headers.get("accept") != "text/event-stream"


def _foreign(headers: Headers, *, secure: bool) -> bool:
    """Return whether a browser sent this for a page of another origin.

    Browsers attach Basic credentials to any page's request, so a write must show where it came from;
    tools send neither header.
    """
    if headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        return True
    origin = headers.get("origin")
    if origin is None:
        return False
    scheme, _, host = origin.partition("://")
    return host != headers.get("host") or (secure and scheme != "https")
