"""What every handler of a route needs: the rule it stands in, who asks, and bodies and answers in JSON.

A module that adds routes gives a tuple of `Rule`; `http.build` puts them beside the others.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Protocol, TypeVar
from urllib.parse import parse_qsl, quote

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from escalation.model import Condition
from escalation.server.web.access import Role
from escalation.server.web.gate import Exchange, page_of, problem

T = TypeVar("T")

MAX_BODY_BYTES: Final = 64 * 1024

JSON: Final = "application/json"
HTML: Final = "text/html"
TEXT: Final = "text/plain"
EVENTS: Final = "text/event-stream"
FORM: Final = "application/x-www-form-urlencoded"

_MAX_FIELDS: Final = 64

SetAside = Annotated[
    dict[Condition, Annotated[str, msgspec.Meta(pattern=r"\S", max_length=2000)]],
    msgspec.Meta(extra_json_schema={"propertyNames": {"enum": [each.value for each in Condition]}}),
]
"""The conditions that somebody sets aside, each with the reason why."""

_NOT_ASCII: Final = re.compile(r"[^\x20-\x7e]")


class Handler(Protocol):
    """What answers one route."""

    async def __call__(self, request: Request, /) -> Response:
        """Answer."""


@dataclass(frozen=True, slots=True)
class Query:
    """A parameter of a query: its name, the type that its text stands for, and what it means."""

    name: str
    type: Any
    says: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """One route: who may use it (None: anybody, without credentials) and what answers.

    With `fresh` the person must have shown lately who they are (`login.fresh_s`).
    The rest is what openapi.py describes it by: `says` is a sentence, `body` what a POST's body is read as,
    `answer` the type of a JSON answer, and `media` the type of another one.
    """

    method: str
    path: str
    role: Role | None
    handler: Handler
    says: str = ""
    body: type | None = None
    answer: Any = None
    query: tuple[Query, ...] = ()
    media: str = JSON
    fresh: bool = False


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of what says nothing but that it is asked."""


def exchange_of(request: Request) -> Exchange:
    """Return what the gate knows of this request."""
    exchange = request.scope["nanobot"]
    assert isinstance(exchange, Exchange)
    return exchange


def person_of(request: Request) -> str:
    """Return the name of who asks, in a route that needs a role."""
    person = exchange_of(request).person
    assert person is not None
    return person.name


def number_of(request: Request, name: str, *, default: int, most: int) -> int:
    """Return a parameter of the query as a number from 0 to `most`; raise HTTPException."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= most):
        raise HTTPException(400, f"{name} is a number from 0 to {most}")
    return int(text)


async def form_of(request: Request) -> Mapping[str, str]:
    """Return the fields of a form, the first of each name; raise HTTPException that says what is wrong.

    What guards a session's forms read it already; then it is that reading.
    """
    exchange = exchange_of(request)
    if exchange.form is None:
        if _content_type(request) != FORM:
            raise HTTPException(415, f"the body is {FORM}")
        try:
            fields = parse_qsl(
                (await _limited(request)).decode(),
                keep_blank_values=True,
                max_num_fields=_MAX_FIELDS,
                errors="strict",
            )
        except ValueError as error:
            raise HTTPException(400, "the form cannot be read") from error
        exchange.form = dict(reversed(fields))
    return exchange.form


async def refusal_of(request: Request, rule: Rule) -> str:
    """Return why this request, which changes something, may not: it is not from a page of this session.

    A session's form has its token in the field `csrf`, everything else in the header X-CSRF-Token. A form of
    somebody without credentials must say that it is from a page of ours, as every browser does.
    """
    exchange = exchange_of(request)
    if rule.role is None or exchange.session is None:
        says_whence = "origin" in request.headers or "sec-fetch-site" in request.headers
        if rule.role is None and _content_type(request) == FORM and not says_whence:
            return "a form is sent by a browser, from a page of this host"
        return ""
    given = request.headers.get("x-csrf-token")
    if given is None and _content_type(request) == FORM:
        given = (await form_of(request)).get("csrf")
    if given is None or not hmac.compare_digest(given.encode(), exchange.csrf.encode()):
        return "this is not of the session that is logged in; read its page again"
    return ""


def stale(request: Request) -> Response:
    """Send somebody who showed too long ago who they are to show it again, and then back."""
    if _content_type(request) != FORM:
        return problem(403, "not_fresh", "this needs that you showed lately who you are: log in again")
    return RedirectResponse(f"/login/again?next={quote(page_of(request.headers), safe='')}", 303)


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def body_of(request: Request, kind: type[T]) -> T:
    """Return the body, read as JSON of this kind; raise HTTPException that says what is wrong with it."""
    if _content_type(request) != JSON:
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


def json_answer(value: object) -> Response:
    """Return `value` as JSON."""
    return Response(ascii_json(value), media_type=JSON)


def ascii_json(value: object) -> bytes:
    """Return JSON in printable ASCII, so that no terminal can be made to act by what it prints of it."""
    encoded = msgspec.json.encode(value)
    if encoded.isascii() and b"\x7f" not in encoded:
        return encoded
    return _NOT_ASCII.sub(_json_escape, encoded.decode()).encode()


def _json_escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
