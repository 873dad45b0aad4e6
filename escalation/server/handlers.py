"""What every handler of a route needs: the rule it stands in, who asks, and bodies and answers in JSON.

A module that adds routes gives a tuple of `Rule`; `http.build` puts them beside the others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from escalation.server.access import Role
from escalation.server.gate import Exchange

T = TypeVar("T")

MAX_BODY_BYTES: Final = 64 * 1024

JSON: Final = "application/json"
HTML: Final = "text/html"
TEXT: Final = "text/plain"
EVENTS: Final = "text/event-stream"

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


@dataclass(frozen=True, slots=True)
class Rule:
    """One route: who may use it (None: anybody, without credentials) and what answers.

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


async def body_of(request: Request, kind: type[T]) -> T:
    """Return the body, read as JSON of this kind; raise HTTPException that says what is wrong with it."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
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
