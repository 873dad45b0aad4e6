"""Reads the heads of requests and responses (RFC 9112): the route, and the headers that frame.

Nothing else of a head outlives this module: no path, no host, no credentials. It is lenient where servers and
clients are (bare line feeds, folded lines, blanks around values), and raises `BadHead` where going on would
mean guessing where the message ends.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from probes.http.facts import Route

METHODS: Final = (b"POST", b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"PATCH", b"TRACE", b"CONNECT")
REQUEST_LINE: Final = re.compile(rb"(" + b"|".join(METHODS) + rb") +(\S+) +HTTP/1\.[0-9] *\r?\n")
STATUS_LINE: Final = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?:[ \t][^\r\n]*)?\r?\n")
HEAD_END: Final = re.compile(rb"\r?\n\r?\n")
_FOLDED: Final = re.compile(rb"\r?\n[ \t]+")
_HEADER: Final = re.compile(
    rb"^(content-length|transfer-encoding|content-encoding|content-type|upgrade)[ \t]*:[ \t]*([^\r\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_OF_TWO: Final = {
    ("chat", "completions"): Route.CHAT_COMPLETIONS,
    ("audio", "transcriptions"): Route.TRANSCRIPTIONS,
    ("audio", "translations"): Route.TRANSCRIPTIONS,
    ("audio", "speech"): Route.SPEECH,
    ("api", "chat"): Route.OLLAMA_CHAT,
    ("api", "generate"): Route.OLLAMA_GENERATE,
    ("api", "embed"): Route.OLLAMA_EMBED,
    ("api", "embeddings"): Route.OLLAMA_EMBED,
    ("v1", "messages"): Route.MESSAGES,
    ("", "messages"): Route.MESSAGES,
}
_OF_ONE: Final = {
    "completions": Route.COMPLETIONS,
    "responses": Route.RESPONSES,
    "embeddings": Route.EMBEDDINGS,
    "rerank": Route.RERANK,
}
NO_BODY: Final = -1
TO_THE_END: Final = -2  # of the connection
CHUNKED: Final = -3


class BadHead(Exception):
    """A head that does not say where its message ends, or is none."""


@dataclass(frozen=True, slots=True)
class Headers:
    """The headers that frame a body and tell what it is; lower case, empty where absent."""

    length: int | None
    chunked: bool
    coded: bool  # a transfer coding other than chunked
    encoding: str
    content_type: str
    boundary: bytes
    upgrade: str


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request's first part. `body` is its length in bytes, NO_BODY or CHUNKED."""

    method: str
    route: Route
    body: int
    headers: Headers


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """A response's first part. `body` is its length in bytes, NO_BODY, CHUNKED or TO_THE_END."""

    status: int
    body: int
    headers: Headers


def request_head(raw: bytes) -> RequestHead:
    """Read a request's head; raises BadHead."""
    found = REQUEST_LINE.match(raw)
    if found is None:
        raise BadHead("no request line")
    headers = _headers(raw, found.end())
    if headers.chunked:
        body = CHUNKED
    elif headers.coded:
        raise BadHead("a transfer coding without chunks")
    else:
        body = headers.length if headers.length else NO_BODY
    method = found[1].decode("ascii")
    route = _route(found[2]) if method == "POST" else Route.OTHER
    return RequestHead(method, route, body, headers)


def response_head(raw: bytes, method: str) -> ResponseHead:
    """Read the head of the response to a request of that method; raises BadHead."""
    found = STATUS_LINE.match(raw)
    if found is None:
        raise BadHead("no status line")
    headers = _headers(raw, found.end())
    status = int(found[2])
    if status < 200 or status in (204, 304) or method == "HEAD":
        body = NO_BODY
    elif headers.chunked:
        body = CHUNKED
    elif headers.length is not None and not headers.coded:
        body = headers.length or NO_BODY
    else:
        body = TO_THE_END
    return ResponseHead(status, body, headers)


def _headers(raw: bytes, start: int) -> Headers:
    lines = raw[start:]
    if b"\n " in lines or b"\n\t" in lines:
        lines = _FOLDED.sub(b" ", lines)
    length: int | None = None
    transfer = encoding = content_type = upgrade = b""
    for name, padded in _HEADER.findall(lines):
        value = padded.rstrip()
        match name.lower():
            case b"content-length":
                length = _length(value, length)
            case b"transfer-encoding":
                transfer = value.lower() if not transfer else transfer + b"," + value.lower()
            case b"content-encoding":
                encoding = value.lower()
            case b"content-type":
                content_type = value
            case _:
                upgrade = value.lower()
    chunked = transfer.rpartition(b",")[2].strip() == b"chunked"
    media, _, parameters = content_type.partition(b";")
    return Headers(
        length=length,
        chunked=chunked,
        coded=bool(transfer) and transfer.strip() != b"identity",
        encoding=encoding.decode("latin-1")[:32],
        content_type=media.strip().lower().decode("latin-1")[:64],
        boundary=_boundary(parameters),
        upgrade=upgrade.decode("latin-1")[:32],
    )


def _length(value: bytes, before: int | None) -> int:
    first, *others = (part.strip() for part in value.split(b","))
    if any(other != first for other in others) or _DIGITS.fullmatch(first) is None:
        raise BadHead("a content length that is no number")
    length = int(first)
    if before is not None and before != length:
        raise BadHead("two content lengths")
    return length


def _boundary(parameters: bytes) -> bytes:
    for part in parameters.split(b";"):
        name, _, value = part.strip().partition(b"=")
        if name.lower() == b"boundary":
            return value.strip(b'"')[:70]
    return b""


def _route(target: bytes) -> Route:
    path = target.partition(b"?")[0]
    if path[:7].lower() == b"http://":
        path = b"/" + path[7:].partition(b"/")[2]
    parts = path.decode("latin-1").rstrip("/").rsplit("/", 2)
    if len(parts) < 2:
        return Route.OTHER
    before, last = (parts[-2], parts[-1])
    found = _OF_TWO.get((before, last))
    return found if found is not None else _OF_ONE.get(last, Route.OTHER)
