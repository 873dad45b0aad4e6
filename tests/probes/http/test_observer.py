"""From segments to facts: every kind of server, whole and streaming."""

from __future__ import annotations

import json

import pytest

from probes.http.facts import Ending, ErrorKind, FinishReason, Route, RouteName
from tests.probes.http.servers import (
    OPENAI_SERVERS,
    THOUGHTS,
    WORDS,
    OpenAiServer,
    ollama_chat,
    ollama_generate,
)
from tests.probes.http.wire import (
    DONE,
    LAST_CHUNK,
    Wire,
    chat,
    chunk,
    observe,
    post,
    response,
    sse,
    stream_head,
)

TEXT = "".join(WORDS)
THOUGHT = "".join(THOUGHTS)
servers = pytest.mark.parametrize("server", OPENAI_SERVERS, ids=lambda server: server.name)


def stream(wire: Wire, *events: bytes, every_s: float = 0.02, end: bytes = LAST_CHUNK) -> Wire:
    """Send the head and then the events, one chunk and segment each."""
    wire.server(stream_head())
    for event in events:
        wire.wait(every_s).server(chunk(event))
    return wire.server(end) if end else wire


@servers
def test_reads_a_stream(server: OpenAiServer) -> None:
    """Every fact of a stream that went well."""
    wire = Wire().opened().client(chat(stream=True, max_tokens=64)).wait(0.5)
    events = [sse(event) for event in server.events(thoughts=THOUGHTS)]
    facts = observe(stream(wire, *events, DONE).segments).one
    assert facts.name == RouteName(8000, Route.CHAT_COMPLETIONS, "qwen3-32b")
    assert (facts.status, facts.ending, facts.finish) == (200, Ending.COMPLETE, FinishReason.STOP)
    assert (facts.error, facts.error_in_answer) == (None, False)
    assert (facts.streamed, facts.stream_asked, facts.tools_asked) == (True, True, False)
    assert facts.max_tokens == 64
    assert facts.chunks == len(events)
    assert sum(facts.gaps) == len(events) - 1
    assert facts.gaps[1] == len(events) - 1
    assert facts.longest_gap_s == pytest.approx(0.02)
    assert facts.first_byte_s == pytest.approx(0.5)
    assert facts.first_token_s == pytest.approx(0.5 + 0.04)  # the first delta is empty
    assert facts.duration_s == pytest.approx(0.5 + 0.02 * (len(events) + 1))
    assert facts.choices_seen
    assert (facts.content_characters, facts.reasoning_characters) == (len(TEXT), len(THOUGHT))
    assert (facts.prompt_tokens, facts.completion_tokens) == (9, 15)
    assert (facts.tool_calls, facts.tool_calls_valid) == (0, None)
    assert facts.cgroup_id == 77


@servers
def test_reads_a_whole_answer(server: OpenAiServer) -> None:
    """Every fact of an answer in one piece."""
    body = json.dumps(server.whole(thoughts=THOUGHTS, finish="length")).encode()
    facts = observe(Wire().client(chat()).wait(1).server(response(body)).segments).one
    assert (facts.status, facts.ending, facts.finish) == (200, Ending.COMPLETE, FinishReason.LENGTH)
    assert (facts.streamed, facts.stream_asked, facts.chunks) == (False, False, 0)
    assert (facts.content_characters, facts.reasoning_characters) == (len(TEXT), len(THOUGHT))
    assert (facts.prompt_tokens, facts.completion_tokens, facts.reasoning_tokens) == (9, 15, len(THOUGHTS))
    assert facts.response_bytes == len(body)
    assert facts.duration_s == pytest.approx(1)


@servers
def test_empty_answers_are_seen_as_empty(server: OpenAiServer) -> None:
    """An answer object was there, and nothing in it."""
    body = json.dumps(server.whole(words=())).encode()
    whole = observe(Wire().client(chat()).server(response(body)).segments).one
    wire = Wire().client(chat(stream=True))
    events = [sse(event) for event in server.events(words=("",))]
    streamed = observe(stream(wire, *events, DONE).segments).one
    for facts in (whole, streamed):
        assert (facts.ending, facts.finish, facts.choices_seen) == (Ending.COMPLETE, FinishReason.STOP, True)
        assert (facts.content_characters, facts.content) == (0, None)


@servers
def test_a_stream_without_its_end_is_unterminated(server: OpenAiServer) -> None:
    """Whole as HTTP, but no [DONE]; or [DONE] and no finish reason."""
    undone = stream(Wire().client(chat(stream=True)), *[sse(event) for event in server.events()])
    unfinished = stream(
        Wire().client(chat(stream=True)), *[sse(event) for event in server.events(finish=None)], DONE
    )
    for wire in (undone, unfinished):
        assert observe(wire.segments).one.ending is Ending.UNTERMINATED


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_reads_ollamas_own_streams(path: str) -> None:
    """NDJSON, one line a chunk, done:true at its end."""
    events = list(ollama_chat(thoughts=THOUGHTS) if path == "/api/chat" else ollama_generate())
    wire = Wire(port=11434).client(
        post(path, b'{"model":"llama3","messages":[],"options":{"num_predict":7}}')
    )
    wire.server(stream_head("application/x-ndjson"))
    for event in events:
        wire.wait(0.02).server(chunk(json.dumps(event).encode() + b"\n"))
    facts = observe(wire.server(LAST_CHUNK).segments).one
    assert facts.name.model == "llama3"
    assert (facts.ending, facts.finish, facts.chunks) == (Ending.COMPLETE, FinishReason.STOP, len(events))
    assert facts.content_characters == len(TEXT)
    assert facts.reasoning_characters == (len(THOUGHT) if path == "/api/chat" else 0)
    assert (facts.prompt_tokens, facts.completion_tokens, facts.max_tokens) == (26, 298, 7)
    assert (facts.stream_asked, facts.streamed) == (True, True)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (
            b'{"error":{"message":"EngineCore died","type":"InternalServerError","code":500}}',
            ErrorKind.SERVER,
        ),
        (b'{"error":"an error was encountered while running the model"}', ErrorKind.OTHER),
        (
            b'{"object":"error","message":"No free slots","type":"InternalError","code":500}',
            ErrorKind.OVERLOADED,
        ),
    ],
)
def test_an_error_inside_a_stream_is_seen(error: bytes, kind: ErrorKind) -> None:
    """The status stays 200, the error is in an event, and a [DONE] may be missing."""
    wire = stream(Wire().client(chat(stream=True)), b"data: " + error + b"\n\n")
    facts = observe(wire.segments).one
    assert (facts.status, facts.error, facts.error_in_answer) == (200, kind, True)
    assert facts.ending is Ending.UNTERMINATED
