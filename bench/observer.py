"""What reading an exchange costs: microseconds a segment, beside two parsers that frame alone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import h11
import httptools

from probes.http.observer import Observer
from probes.http.segment import Segment

_ROUNDS = 9
_CHUNKS = 4096
_PAIRS = 400
_PORT = 8000
_TEXT = "the cache holds every prefix that was seen once and is not needed again before tomorrow"
_WORDS = tuple(_TEXT.split())
_REQUEST = json.dumps({"model": "qwen3-32b", "stream": True, "messages": []})
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class Row:
    """One way of reading one kind of traffic."""

    name: str
    us_per_segment: float
    us_per_chunk: float


def measure() -> tuple[Row, ...]:
    """Time each way alone, the best of nine rounds of its own CPU time."""
    rows = []
    for chunks in (1, 8, 64):
        segments = list(_stream(chunks))
        counted = _CHUNKS // chunks
        name = f"{chunks} chunk{'s' * (chunks > 1)} of 250 B a segment"
        rows.append(_row(f"observer, {name}", _observed, segments, counted, chunks))
        if chunks == 1:
            rows.append(_row(f"httptools 0.9 (framing alone), {name}", _by_httptools, segments, counted, 1))
            rows.append(_row(f"h11 0.16 (framing alone), {name}", _by_h11, segments, counted, 1))
    for name, path, media, event in (
        ("Ollama's own, a new date in each", "/api/chat", b"application/x-ndjson", _dated),
        ("parsed, as there is usage in each", "/v1/chat/completions", b"text/event-stream", _counted),
    ):
        segments = list(_stream(1, path=path, media=media, event=event))
        rows.append(_row(f"observer, 1 chunk a segment, {name}", _observed, segments, _CHUNKS, 1))
    rows.append(_row("observer, a whole request and answer", _observed, list(_pairs()), _PAIRS, 1))
    return tuple(rows)


def table(rows: tuple[Row, ...]) -> str:
    """Return the figures as Markdown."""
    lines = ["| what is read | us | us a chunk |", "|---|---|---|"]
    lines += [f"| {row.name} | {row.us_per_segment:.2f} | {row.us_per_chunk:.2f} |" for row in rows]
    return "\n".join(lines)


def _row(
    name: str, read: Callable[[list[Segment]], None], segments: list[Segment], counted: int, chunks: int
) -> Row:
    best_s = float("inf")
    for _ in range(_ROUNDS):
        began_s = time.process_time()
        read(segments)
        best_s = min(best_s, time.process_time() - began_s)
    return Row(name, best_s / counted * 1e6, best_s / counted / chunks * 1e6)


def _observed(segments: list[Segment]) -> None:
    observer = Observer()
    feed = observer.feed
    for segment in segments:
        feed(segment)
    observer.take()


def _by_httptools(segments: list[Segment]) -> None:
    parser = httptools.HttpResponseParser(object())
    for segment in segments:
        if not segment.to_server:
            parser.feed_data(segment.data)


def _by_h11(segments: list[Segment]) -> None:
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method="GET", target="/", headers=[("Host", "node")]))
    reader.send(h11.EndOfMessage())
    for segment in segments:
        if not segment.to_server:
            reader.receive_data(segment.data)
            while reader.next_event() is not h11.NEED_DATA:
                pass


def _stream(
    chunks: int,
    *,
    path: str = "/v1/chat/completions",
    media: bytes = b"text/event-stream",
    event: Callable[[int], bytes] | None = None,
) -> Iterator[Segment]:
    """A stream of words, some of them escaped, as vLLM sends it or as `event` does; it does not end."""
    head = _STREAM_HEAD.replace(b"text/event-stream", media)
    yield from _segments([(True, _post(_REQUEST, path)), (False, head)])
    seq = 1 + len(head)
    for n in range(_CHUNKS // chunks):
        data = b"".join(_chunk((event or _plain)(n * chunks + one)) for one in range(chunks))
        yield Segment(1, 1_000_000_000 + n * 20_000_000, _PORT, False, seq, data, 0, 0, 1)  # noqa: FBT003
        seq += len(data)


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _word(n: int) -> str:
    return f" {_WORDS[n * n % len(_WORDS)]}" if n % 16 else "\n"


def _event(n: int) -> dict[str, object]:
    return {
        "id": "chatcmpl-0a1b2c3d4e5f60718293a4b5c6d7e8f9",
        "object": "chat.completion.chunk",
        "created": 1763769600,
        "model": "qwen3-32b",
        "choices": [{"index": 0, "delta": {"content": _word(n)}, "logprobs": None, "finish_reason": None}],
    }


def _plain(n: int) -> bytes:
    return b"data: " + json.dumps(_event(n)).encode() + b"\n\n"


def _counted(n: int) -> bytes:
    usage = {"prompt_tokens": 90, "completion_tokens": n}
    return b"data: " + json.dumps(_event(n) | {"usage": usage}).encode() + b"\n\n"


def _dated(n: int) -> bytes:
    date = f"2026-11-21T23:59:{n % 60:02d}.{n * 7919 % 1_000_000:06d}Z"
    message = {"role": "assistant", "content": _word(n)}
    event = {"model": "llama3.1:8b", "created_at": date, "message": message, "done": False}
    return json.dumps(event).encode() + b"\n"


def _pairs() -> Iterator[Segment]:
    """Requests of some 450 bytes and answers of some 600, one after the other."""
    message = {"role": "assistant", "content": _TEXT}
    answer = {
        "id": "chatcmpl-0a1b2c3d4e5f60718293a4b5c6d7e8f9",
        "object": "chat.completion",
        "created": 1763769600,
        "model": "qwen3-32b",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 90, "completion_tokens": 17, "total_tokens": 107},
    }
    body = json.dumps(answer).encode()
    response = (
        b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n" % len(body)
    ) + body
    asked = {
        "messages": [{"role": "user", "content": _TEXT}],
        "model": "qwen3-32b",
        "max_tokens": 512,
    }
    request = _post(json.dumps(asked))
    yield from _segments([(True, request), (False, response)] * _PAIRS)


def _post(body: str, path: str = "/v1/chat/completions") -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: node:8000\r\nAccept: application/json\r\n"
        "User-Agent: OpenAI/Python 2.54.0\r\nAuthorization: Bearer none\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def _segments(messages: list[tuple[bool, bytes]]) -> Iterator[Segment]:
    seqs = {True: 1, False: 1}
    for n, (to_server, data) in enumerate(messages):
        yield Segment(1, n * 1_000_000, _PORT, to_server, seqs[to_server], data, 0, 0, 1)
        seqs[to_server] += len(data)
