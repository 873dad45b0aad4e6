"""Conversations that Hypothesis makes up: exchanges of every kind on one connection, one after the other."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from probes.http.segment import FIN, RST
from tests.probes.http.servers import OPENAI_SERVERS, THOUGHTS, ollama_chat, ollama_generate
from tests.probes.http.wire import (
    DONE,
    LAST_CHUNK,
    Wire,
    chat,
    chunk,
    post,
    response,
    sse,
    stream_head,
)

_WORDS = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "a",
                " word",
                '"',
                "\\",
                "\n",
                "data: [DONE]\n\n",
                "HTTP/1.1 200 OK\r\n\r\n",
                '","model":"fake"',
                "ж",
                "\U0001f600",
            ]
        ),
        st.text(max_size=12),
        st.just("long " * 400),
    ),
    max_size=6,
)
_FINISH = st.sampled_from(["stop", "length", "tool_calls", None])
_CALLS = st.one_of(
    st.none(),
    st.lists(
        st.sampled_from(['{"city": "Paris"}', '{"city": ', "", '{"text": "' + "x\n" * 3000 + '"}']).map(
            lambda arguments: {"index": 0, "id": "c1", "function": {"name": "f", "arguments": arguments}}
        ),
        min_size=1,
        max_size=1,
    ),
)
Sender = Callable[[Wire], Wire]


@st.composite
def whole_answers(draw: st.DrawFn) -> Sender:
    """A JSON answer: sized, chunked or packed."""
    server = draw(st.sampled_from(OPENAI_SERVERS))
    words, finish = draw(_WORDS), draw(_FINISH)
    thoughts = draw(st.sampled_from([(), THOUGHTS]))
    ascii_only = draw(st.booleans())
    value = server.whole(words=words, thoughts=thoughts, finish=finish, calls=draw(_CALLS))
    body = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    way = draw(st.sampled_from(["sized", "chunked", "gzip"]))
    request = chat(
        model=draw(st.sampled_from(["m", None])), tools=draw(st.sampled_from([[], [{"type": "x"}]]))
    )

    def send(wire: Wire) -> Wire:
        wire.client(request)
        if way == "sized":
            return wire.server(response(body))
        if way == "gzip":
            return wire.server(response(gzip.compress(body), headers="Content-Encoding: gzip\r\n"))
        half = len(body) // 2
        head = stream_head("application/json")
        return wire.server(head, chunk(body[:half]), chunk(body[half:]), LAST_CHUNK)

    return send


@st.composite
def streams(draw: st.DrawFn) -> Sender:
    """A stream of events, well or badly ended; one chunk an event or all in one."""
    server = draw(st.sampled_from(OPENAI_SERVERS))
    events = [
        sse(event)
        for event in server.events(
            words=draw(_WORDS), thoughts=draw(st.sampled_from([(), THOUGHTS])), finish=draw(_FINISH)
        )
    ]
    if draw(st.booleans()):
        events.insert(draw(st.integers(0, len(events))), b": ping\n\n")
    if draw(st.booleans()):
        events = [event.replace(b"\n", b"\r\n") for event in events]
    if draw(st.integers(0, 9)) == 0:
        events.append(sse({"error": {"message": "died", "code": 500}}))
    if draw(st.integers(0, 3)):
        events.append(DONE)
    in_one = draw(st.booleans())
    padded = chat(stream=True, filler="x" * draw(st.sampled_from([0, 6000])))

    def send(wire: Wire) -> Wire:
        wire.client(padded).server(stream_head())
        for event in [b"".join(events)] if in_one else events:
            if event:
                wire.server(chunk(event))
        return wire.server(LAST_CHUNK)

    return send


@st.composite
def ollama_streams(draw: st.DrawFn) -> Sender:
    """Ollama's own NDJSON."""
    words = draw(_WORDS)
    is_chat = draw(st.booleans())
    done = draw(st.sampled_from(["stop", "length", None]))
    events = list(ollama_chat(words=words, done=done) if is_chat else ollama_generate(words=words, done=done))
    path = "/api/chat" if is_chat else "/api/generate"

    def send(wire: Wire) -> Wire:
        wire.client(post(path, b'{"model":"llama3"}')).server(stream_head("application/x-ndjson"))
        for event in events:
            wire.server(chunk(json.dumps(event).encode() + b"\n"))
        return wire.server(LAST_CHUNK)

    return send


@st.composite
def plain_answers(draw: st.DrawFn) -> Sender:
    """Errors, answers without a body, and routes whose answers nobody judges."""
    kind = draw(st.sampled_from(["error", "html", "head", "204", "embeddings", "continue"]))

    def send(wire: Wire) -> Wire:
        match kind:
            case "error":
                body = b'{"error":{"message":"This model\'s maximum context length is 9 tokens","code":400}}'
                return wire.client(chat()).server(response(body, status="400 Bad Request"))
            case "html":
                page = response(b"<html>nginx</html>", status="502 Bad Gateway", content_type="text/html")
                return wire.client(chat()).server(page)
            case "head":
                wire.client(b"HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n")
                return wire.server(b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n")
            case "204":
                return wire.client(chat()).server(b"HTTP/1.1 204 No Content\r\n\r\n")
            case "embeddings":
                body = json.dumps({"data": [{"embedding": [0.25] * 3000}], "usage": {"prompt_tokens": 3}})
                request = post("/v1/embeddings", b'{"model":"e5","input":"x"}')
                return wire.client(request).server(response(body.encode()))
            case _:
                request = chat(stream=False)
                end = request.index(b"\r\n\r\n") + 4
                wire.client(request[:end]).server(b"HTTP/1.1 100 Continue\r\n\r\n").client(request[end:])
                return wire.server(
                    response(b'{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}]}')
                )

    return send


_CLOSES: dict[str, Callable[[Wire], Any]] = {
    "open": lambda wire: wire,
    "idle": lambda wire: wire.server(flags=FIN).client(flags=FIN),
    "cut": lambda wire: wire.client(chat()).server(stream_head(), chunk(b"data: {}\n\n")).server(flags=FIN),
    "reset": lambda wire: wire.client(chat()).server(stream_head()).server(flags=RST),
    "unanswered": lambda wire: wire.client(chat()).server(flags=FIN),
    "cancelled": lambda wire: wire.client(chat()).server(stream_head()).client(flags=FIN).client(flags=RST),
    "to the end": lambda wire: (
        wire.client(chat())
        .server(
            b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"
            b'{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}]}'
        )
        .server(flags=FIN)
    ),
}


@st.composite
def conversations(draw: st.DrawFn) -> Wire:
    """Some exchanges and how the connection ends. All at one moment, so that durations cannot differ."""
    wire = Wire(
        up_seq=draw(st.sampled_from([1, 0xFFFF_FFF0])), down_seq=draw(st.sampled_from([5, 0xFFFF_FE00]))
    )
    wire.opened()
    kinds = st.one_of(whole_answers(), streams(), ollama_streams(), plain_answers())
    for send in draw(st.lists(kinds, min_size=1, max_size=4)):
        send(wire)
    _CLOSES[draw(st.sampled_from(sorted(_CLOSES)))](wire)
    return wire
