"""Builds what goes over a connection, as segments: both sides' bytes in order, with their times."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from probes.http.facts import ExchangeFacts, UnobservedFacts, UnobservedReason
from probes.http.observer import Observer
from probes.http.segment import FIN, SYN, Segment

PORT = 8000
MS = 1_000_000
S = 1000 * MS


@dataclass
class Wire:
    """One connection. Every call adds segments to `segments`; `wait` lets time pass before the next."""

    connection: int = 1
    port: int = PORT
    at_ns: int = 10 * S
    up_seq: int = 1000
    down_seq: int = 0xFFFF_FF00  # wraps early
    segments: list[Segment] = field(default_factory=list)

    def wait(self, seconds: float) -> Wire:
        self.at_ns += round(seconds * S)
        return self

    def opened(self) -> Wire:
        self._add(b"", to_server=True, flags=SYN)
        self._add(b"", to_server=False, flags=SYN)
        return self

    def client(self, *pieces: bytes, flags: int = 0, skipped: int = 0) -> Wire:
        for piece in pieces or (b"",):
            self._add(piece, to_server=True, flags=flags, skipped=skipped)
        return self

    def server(self, *pieces: bytes, flags: int = 0, skipped: int = 0) -> Wire:
        for piece in pieces or (b"",):
            self._add(piece, to_server=False, flags=flags, skipped=skipped)
        return self

    def _add(self, data: bytes, *, to_server: bool, flags: int = 0, skipped: int = 0) -> None:
        seq = self.up_seq if to_server else self.down_seq
        moved = len(data) + skipped + bool(flags & SYN) + bool(flags & FIN)
        self.segments.append(
            Segment(self.connection, self.at_ns, self.port, to_server, seq, data, skipped, flags, 77)
        )
        if to_server:
            self.up_seq = (seq + moved) % (1 << 32)
        else:
            self.down_seq = (seq + moved) % (1 << 32)


@dataclass(frozen=True)
class Seen:
    """What an observer made of it."""

    exchanges: list[ExchangeFacts]
    unobserved: dict[UnobservedReason, int]

    @property
    def one(self) -> ExchangeFacts:
        assert len(self.exchanges) == 1, self
        assert not self.unobserved, self
        return self.exchanges[0]


def observe(segments: Sequence[Segment], *, observer: Observer | None = None, later_s: float = 5.0) -> Seen:
    """Feed all of it, let a little time pass, and take what came out."""
    observer = observer or Observer()
    for segment in segments:
        observer.feed(segment)
    observer.advance(max(one.at_ns for one in segments) + round(later_s * S))
    return seen(observer)


def seen(observer: Observer) -> Seen:
    """Take what came out."""
    exchanges, unobserved = [], {}
    for facts in observer.take():
        if isinstance(facts, UnobservedFacts):
            unobserved[facts.reason] = unobserved.get(facts.reason, 0) + facts.count
        else:
            exchanges.append(facts)
    return Seen(exchanges, unobserved)


def post(path: str, body: bytes, *, headers: str = "", content_type: str = "application/json") -> bytes:
    """A request with a sized body."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: node:8000\r\nAuthorization: Bearer sk-secret\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    )
    return head.encode() + body


def chat(*, model: str | None = "qwen3-32b", path: str = "/v1/chat/completions", **more: Any) -> bytes:
    """A chat request as the official client orders it: the messages first."""
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "Tell me a story."}]}
    if model is not None:
        asked["model"] = model
    return post(path, json.dumps(asked | more).encode())


def response(
    body: bytes, *, status: str = "200 OK", content_type: str = "application/json", headers: str = ""
) -> bytes:
    """A response with a sized body."""
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    )
    return head.encode() + body


def chunk(data: bytes) -> bytes:
    """One chunk."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def stream_head(content_type: str = "text/event-stream; charset=utf-8", headers: str = "") -> bytes:
    """The head of a chunked response."""
    return (
        f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n{headers}Transfer-Encoding: chunked\r\n\r\n"
    ).encode()


LAST_CHUNK = b"0\r\n\r\n"


def sse(event: object) -> bytes:
    """One event with JSON data."""
    return b"data: " + json.dumps(event).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def cut_anew(segments: Sequence[Segment], sizes: Sequence[int]) -> list[Segment]:
    """The same bytes in other segments: neighbours of one direction are joined, then cut into these sizes."""
    joined: list[Segment] = []
    for segment in segments:
        before = joined[-1] if joined else None
        if (
            before is not None
            and before.data
            and segment.data
            and before.to_server == segment.to_server
            and not (before.flags or before.skipped or segment.flags & SYN)
        ):
            joined[-1] = segment._replace(seq=before.seq, data=before.data + segment.data)
        else:
            joined.append(segment)
    cut: list[Segment] = []
    for segment in joined:
        seq, rest = segment.seq, segment.data
        while sizes and rest:
            size = sizes[len(cut) % len(sizes)]
            if size >= len(rest):
                break
            cut.append(segment._replace(seq=seq, data=rest[:size], skipped=0, flags=0))
            seq, rest = (seq + size) % (1 << 32), rest[size:]
        cut.append(segment._replace(seq=seq, data=rest))
    return cut
