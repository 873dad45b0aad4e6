"""The gate that every HTTP request passes: host name, credentials, origin, headers, request id, counting.

A plain ASGI middleware, so that it holds for unknown paths and errors as well: a route cannot forget it.
Roles are checked behind it, where the route is known.
"""

from __future__ import annotations

import ipaddress
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from escalation.inert import guarded, shown
from escalation.server.access import FailedLogins, Person, authenticate, presented
from escalation.server.clock import Clock
from escalation.server.metrics import ServerMetrics

OPEN_PATHS: Final = frozenset({"/livez", "/readyz"})
"""The only paths that answer without credentials."""

_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_METHODS: Final = frozenset({"GET", "HEAD", "POST"})

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""What every answer carries."""


@dataclass(slots=True)
class Exchange:
    """What the gate and the routes tell each other about one request."""

    request_id: str
    person: Person | None = None
    route: str = "unmatched"
    streams: bool = False


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
    ) -> None:
        """Guard `app`; `hosts` are the names besides loopback by which it may be called."""
        self._app = app
        self._persons = tuple(persons)
        self._hosts = _LOOPBACK_NAMES | {host.lower() for host in hosts}
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
            refusal = self._refusal(scope, exchange)
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

    def _refusal(self, scope: Scope, exchange: Exchange) -> Response | None:
        headers = Headers(scope=scope)
        if _bare_host(headers.get("host", "")) not in self._hosts:
            return problem(
                400,
                "bad_request",
                "this host name is not one of the orchestrator's; its settings list them (http.hosts)",
            )
        if scope["path"] in OPEN_PATHS:
            return None
        if refusal := self._unknown_person(scope, headers, exchange):
            return refusal
        if scope["method"] not in {"GET", "HEAD"} and _foreign(headers):
            return problem(403, "forbidden", "a page of another origin may not decide anything")
        return None

    def _unknown_person(self, scope: Scope, headers: Headers, exchange: Exchange) -> Response | None:
        challenge = "Bearer" if scope["path"].startswith(("/api/", "/metrics")) else "Basic"
        ask = {"WWW-Authenticate": f'{challenge} realm="nanobot"'}
        authorization = headers.get("authorization")
        if authorization is None:
            return problem(
                401, "unauthenticated", "credentials are needed: a bearer token, or name:token", ask
            )
        credentials = presented(authorization)
        exchange.person = authenticate(credentials, self._persons) if credentials else None
        if exchange.person:
            return None
        self._metrics.login_refused()
        address = scope["client"][0] if scope.get("client") else "unknown"
        if not self._failures.allow(address):
            return problem(
                429, "too_many_attempts", "too many failed attempts from this address", {"Retry-After": "5"}
            )
        self._log.warning("login_refused", address=address, request_id=exchange.request_id)
        return problem(401, "unauthenticated", "these credentials fit nobody", ask)


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


def _foreign(headers: Headers) -> bool:
    """Return whether a browser sent this for a page of another origin.

    Browsers attach Basic credentials to any page's request, so a write must show where it came from;
    tools send neither header.
    """
    if headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        return True
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2] != headers.get("host")
