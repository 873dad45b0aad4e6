"""What answers hold: tool calls, errors, other dialects, codings, sizes beyond what is carried."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest

from probes.http.errors import kind_of
from probes.http.facts import Ending, ErrorKind, ExchangeFacts, FinishReason, Route, UnobservedReason
from probes.http.observer import Observer
from tests.probes.http.servers import VLLM
from tests.probes.http.wire import (
    DONE,
    LAST_CHUNK,
    Wire,
    chat,
    chunk,
    observe,
    post,
    response,
    seen,
    sse,
    stream_head,
)


def whole(value: Any, *, status: str = "200 OK", path: str = "/v1/chat/completions") -> ExchangeFacts:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return observe(Wire().client(chat(path=path)).server(response(body, status=status)).segments).one


def streamed(*events: bytes, path: str = "/v1/chat/completions", pieces: int = 0) -> ExchangeFacts:
    """The facts of a stream; with `pieces`, in segments of that size."""
    wire = Wire().client(chat(path=path)).server(stream_head())
    data = b"".join(chunk(event) for event in events) + LAST_CHUNK
    size = pieces or len(data)
    return observe(wire.server(*(data[n : n + size] for n in range(0, len(data), size))).segments).one


def delta(**members: Any) -> bytes:
    return sse({"model": "m", "choices": [{"index": 0, "delta": members, "finish_reason": None}]})


def finish(reason: str) -> bytes:
    return sse({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})


def call(arguments: str, *, index: int = 0, name: str | None = None) -> bytes:
    function = {"arguments": arguments} | ({"name": name} if name else {})
    return delta(tool_calls=[{"index": index, "function": function}])


@pytest.mark.parametrize(
    ("arguments", "valid"),
    [
        (['{"city"', ': "Pa', 'ris"}'], True),
        (["{}"], True),
        ([""], True),
        (['{"city": "Paris"'], False),
        (["{'city': 'Paris'}"], False),
        (['{"a": 1} trailing'], False),
        (['{"text": "' + "line\\n" * 3000, '"}'], True),
        (['{"text": "', "line\\n" * 3000 + "\\x" + '"}'], False),
    ],
)
@pytest.mark.parametrize("pieces", [0, 700])
def test_arguments_of_tool_calls_are_checked_as_they_come(
    arguments: list[str], valid: bool, pieces: int
) -> None:
    """Whole or in deltas, small or too large to be carried."""
    events = [call("", name="f"), *(call(one) for one in arguments), finish("tool_calls"), DONE]
    facts = streamed(*events, pieces=pieces)
    assert (facts.tool_calls, facts.tool_calls_valid) == (1, valid)
    assert (facts.finish, facts.content_characters) == (FinishReason.TOOL_CALLS, 0)
    assert facts.first_token_s is not None
    function = {"name": "f", "arguments": "".join(arguments)}
    message = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": function}]}
    facts = whole({"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]})
    assert (facts.tool_calls, facts.tool_calls_valid) == (1, valid)


def test_calls_are_told_apart() -> None:
    """By their numbers in a stream; Ollama's own have none, and are objects."""
    facts = streamed(
        call('{"a"', index=0), call("{", index=1), call(":1}", index=0), call("}", index=1), DONE
    )
    assert (facts.tool_calls, facts.tool_calls_valid) == (2, True)
    calls = [{"function": {"name": "f", "arguments": {"a": 1}}}, {"function": {"name": "g", "arguments": {}}}]
    native = {
        "model": "m",
        "message": {"role": "assistant", "content": "", "tool_calls": calls},
        "done": True,
    }
    facts = whole(native, path="/api/chat")
    assert (facts.tool_calls, facts.tool_calls_valid, facts.finish) == (2, True, FinishReason.STOP)


def test_reasoning_marks_in_content_are_seen() -> None:
    """A stream that cuts the mark in two shows it too."""
    assert streamed(delta(content="<thi"), delta(content="nk>hm"), DONE).reasoning_marks_in_content
    assert not streamed(delta(content="hm"), delta(reasoning="<think>"), DONE).reasoning_marks_in_content


def test_text_is_measured_however_it_is_escaped() -> None:
    """Escapes, pairs of surrogates and UTF-8 are one text; in events that have been seen before as well."""
    text = 'é\n"\\\U0001f600'
    plain = b'data: {"choices":[{"index":0,"delta":{"content":"%s"},"finish_reason":null}]}\n\n'
    raws = [b"x", 'é\\n\\"\\\\\U0001f600'.encode(), b'\\u00e9\\n\\"\\\\\\ud83d\\ude00', b"\\u00E9"]
    facts = streamed(*(plain % raw for raw in raws), finish("stop"), DONE)
    assert facts.content_characters == 1 + len(text) * 2 + 1
    assert facts.ending is Ending.COMPLETE


def test_an_event_of_the_same_shape_that_lies_is_parsed() -> None:
    """A string that ends early is not taken for text."""
    liar = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"length","x":{"y":"b"},'
    liar += b'"finish_reason":null}]}\n\n'
    twist = b'data: {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": null}], "error": '
    twist += b'{"z": [{"content": "b"}, "finish_reason": null}]}\n\n'
    usual = [
        b'data: {"choices": [{"index": 0, "delta": {"content": "%s"}, "finish_reason": null}]}\n\n' % word
        for word in (b"one", b"two")
    ]
    facts = streamed(*usual, liar, twist, DONE)
    assert facts.content_characters == len("onetwoa")
    assert facts.chunks == 4


@pytest.mark.parametrize("characters", [3000, 100_000, 400_000])
def test_a_large_answer_is_walked_in_bounded_memory(characters: int) -> None:
    """The same facts as of a small one, and never more than a few KiB held."""
    message = {"role": "assistant", "reasoning_content": "why " * 10, "content": "é" * characters}
    value = {
        "id": "x",
        "choices": [{"index": 0, "message": message, "logprobs": {"content": [{"a": [1]}] * 500}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
    }
    value["choices"][0]["finish_reason"] = "length"  # type: ignore[index]
    body = json.dumps(value, ensure_ascii=False).encode()
    data = response(body)
    observer = Observer()
    wire = Wire().client(chat()).server(*(data[n : n + 1460] for n in range(0, len(data), 1460)))
    for segment in wire.segments:
        observer.feed(segment)
        assert observer.held_bytes < 8192
    facts = seen(observer).one
    assert (facts.content_characters, facts.reasoning_characters) == (characters, 40)
    assert (facts.finish, facts.prompt_tokens, facts.completion_tokens) == (FinishReason.LENGTH, 3, 4)


def test_a_large_event_is_walked_too() -> None:
    """Between small ones, and in any segments."""
    events = [delta(content="a"), delta(content="b" * 30_000), delta(content="c"), finish("stop"), DONE]
    facts = [streamed(*events, pieces=pieces) for pieces in (0, 1, 1000)]
    assert facts[0].content_characters == 30_002
    assert facts[0] == facts[1] == facts[2]


def test_events_of_every_form_are_read() -> None:
    """Comments, names, several lines of data, no blank behind the colon, every line end."""
    value = json.dumps({"choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}]}, indent=1)
    forms = [
        b": ping\n\n",
        b"event: message\ndata: " + value.replace("\n", "").encode() + b"\nid: 1\n\n",
        b"".join(b"data:" + line.encode() + b"\n" for line in value.split("\n")) + b"\n",
        b"data:" + value.replace("\n", "").encode() + b"\r\n\r\n",
        b"data: " + value.replace("\n", "").encode() + b"\r\r",
        b"\n\n\ndata: [DONE]\n",
    ]
    for pieces in (0, 1, 5):
        facts = streamed(*forms, pieces=pieces)
        assert (facts.chunks, facts.content_characters, facts.ending) == (4, 8, Ending.COMPLETE)


ANTHROPIC = [
    {"type": "message_start", "message": {"model": "c", "usage": {"input_tokens": 5, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hel"}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "lo"}},
    {
        "type": "content_block_start",
        "index": 2,
        "content_block": {"type": "tool_use", "name": "f", "input": {}},
    },
    {
        "type": "content_block_delta",
        "index": 2,
        "delta": {"type": "input_json_delta", "partial_json": '{"a":'},
    },
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "1}"}},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
    {"type": "message_stop"},
]


def test_reads_anthropics_messages() -> None:
    """As a stream and whole."""
    facts = streamed(*(sse(event) for event in ANTHROPIC), path="/v1/messages")
    value = {
        "type": "message",
        "model": "c",
        "content": [
            {"type": "thinking", "thinking": "hm"},
            {"type": "text", "text": "Hello"},
            {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 5, "output_tokens": 9},
    }
    padded = value | {"id": "x" * 5000}
    for one in (facts, whole(value, path="/v1/messages"), whole(padded, path="/v1/messages")):
        assert one.name.route is Route.MESSAGES
        assert (one.ending, one.finish) == (Ending.COMPLETE, FinishReason.TOOL_CALLS)
        assert (one.content_characters, one.reasoning_characters) == (5, 2)
        assert (one.tool_calls, one.tool_calls_valid) == (1, True)
        assert (one.prompt_tokens, one.completion_tokens) == (5, 9)


RESPONSE = {
    "object": "response",
    "model": "r",
    "status": "incomplete",
    "incomplete_details": {"reason": "max_output_tokens"},
    "error": None,
    "output": [
        {"id": "1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"id": "2", "content": [{"type": "output_text", "text": "Hello"}], "type": "message"},
    ],
    "usage": {"input_tokens": 5, "output_tokens": 9, "output_tokens_details": {"reasoning_tokens": 4}},
}


def test_reads_the_responses_api() -> None:
    """As a stream, whose last event repeats all of it, and whole."""
    events = [
        {"type": "response.created", "response": RESPONSE | {"status": "in_progress", "output": []}},
        {"type": "response.reasoning_summary_text.delta", "delta": "hm"},
        {"type": "response.output_text.delta", "delta": "Hel"},
        {"type": "response.output_text.delta", "delta": "lo"},
        {"type": "response.output_text.done", "text": "Hello"},
    ]
    small = {"type": "response.incomplete", "response": RESPONSE}
    large = {"type": "response.incomplete", "response": RESPONSE | {"instructions": "x" * 9000}}
    every = [
        streamed(*(sse(event) for event in [*events, small]), path="/v1/responses"),
        streamed(*(sse(event) for event in [*events, large]), path="/v1/responses"),
        whole(RESPONSE, path="/v1/responses"),
        whole(RESPONSE | {"instructions": "x" * 9000}, path="/v1/responses"),
    ]
    for facts in every:
        assert (facts.ending, facts.finish) == (Ending.COMPLETE, FinishReason.LENGTH)
        assert (facts.content_characters, facts.reasoning_characters) == (5, 2)
        assert (facts.prompt_tokens, facts.completion_tokens, facts.reasoning_tokens) == (5, 9, 4)
        assert facts.choices_seen


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (
            400,
            {"error": {"message": "This model's maximum context length is 4096 tokens."}},
            "context_overflow",
        ),
        (
            400,
            {"error": {"code": 400, "message": "x", "type": "exceed_context_size_error"}},
            "context_overflow",
        ),
        (
            400,
            {"object": "error", "message": "longer than the maximum model length of 8"},
            "context_overflow",
        ),
        (
            429,
            {"error": {"message": "No deployments available for selected model, Try again in 5 seconds."}},
            "no_deployments",
        ),
        (429, {"error": {"message": "Rate limit reached", "type": "x"}}, "rate_limited"),
        (503, {"error": "server busy, please try again.  maximum pending requests exceeded"}, "overloaded"),
        (503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}, "loading"),
        (
            404,
            {"error": {"message": "The model `x` does not exist.", "type": "NotFoundError"}},
            "unknown_model",
        ),
        (404, {"error": "model 'x' not found"}, "unknown_model"),
        (404, {"detail": "Not Found"}, "other"),
        (401, {"error": {"message": "no", "type": "auth_error"}}, "unauthorized"),
        (422, {"detail": [{"loc": ["body"], "msg": "Field required"}]}, "bad_request"),
        (408, {"error": {"message": "litellm.Timeout: x"}}, "timeout"),
        (500, {"error": {"message": "litellm.APIConnectionError: x"}}, "upstream"),
        (500, {"error": {"message": "boom"}}, "server"),
        (502, b"<html><h1>502 Bad Gateway</h1></html>", "upstream"),
        (504, b"", "timeout"),
        (500, b"{broken", "server"),
    ],
)
def test_error_answers_are_classified(status: int, body: Any, kind: str) -> None:
    """By type and code, by the words that servers use, by status."""
    facts = whole(body, status=f"{status} Bad")
    assert (facts.status, facts.error, facts.error_in_answer) == (status, ErrorKind(kind), False)
    assert facts.ending is Ending.COMPLETE
    assert not facts.choices_seen


def test_words_of_a_quoted_prompt_do_not_classify() -> None:
    """They stand far behind the message's own."""
    quoted = "Validation failed: " + "x" * 500 + " maximum context length"
    assert kind_of(400, {"message": quoted}) is ErrorKind.BAD_REQUEST


@pytest.mark.parametrize("error", [{"message": "died"}, "died", {"code": "500"}])
def test_an_error_object_under_a_status_of_success_is_seen(error: object) -> None:
    """In an answer that is no stream."""
    facts = whole({"error": error})
    assert (facts.status, facts.error_in_answer, facts.choices_seen) == (200, True, False)


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda body: (one := zlib.compressobj(wbits=-15)).compress(body) + one.flush()),
    ],
    ids=["gzip", "deflate", "raw deflate"],
)
@pytest.mark.parametrize("size", [1, 9, 10_000])
def test_packed_answers_are_unpacked(coding: str, packed: Any, size: int) -> None:
    """As they come; whole answers and streams."""
    body = json.dumps(VLLM.whole()).encode()
    events = b"".join(sse(event) for event in VLLM.events()) + DONE
    for raw, media in ((body, "application/json"), (events, "text/event-stream")):
        data = response(packed(raw), content_type=media, headers=f"Content-Encoding: {coding}\r\n")
        wire = Wire().client(chat()).server(*(data[n : n + size] for n in range(0, len(data), size)))
        facts = observe(wire.segments).one
        assert (facts.ending, facts.finish, facts.completion_tokens) == (
            Ending.COMPLETE,
            FinishReason.STOP,
            15,
        )
        assert facts.content_characters > 0


def test_what_cannot_be_unpacked_is_unobserved_unless_it_is_an_error() -> None:
    """br and zstd, broken data, and more than is sane."""
    for coding, body in (("br", b"x" * 50), ("zstd", b"x" * 50), ("gzip", b"no gzip")):
        answer = response(body, headers=f"Content-Encoding: {coding}\r\n")
        result = observe(Wire().client(chat()).server(answer).segments)
        assert (result.exchanges, result.unobserved) == ([], {UnobservedReason.ENCODING: 1})
        error = response(body, status="503 Busy", headers=f"Content-Encoding: {coding}\r\n")
        facts = observe(Wire().client(chat()).server(error).segments).one
        assert (facts.status, facts.error) == (503, ErrorKind.OVERLOADED)


def test_a_bomb_is_not_unpacked_to_its_end() -> None:
    """A megabyte that holds a gigabyte costs no memory."""
    bomb = gzip.compress(b'{"choices":[{"message":{"content":"' + b"a" * 80_000_000)
    observer = Observer()
    wire = Wire().client(chat()).server(response(bomb, headers="Content-Encoding: gzip\r\n"))
    for segment in wire.segments:
        observer.feed(segment)
        assert observer.held_bytes < 10_000
    assert seen(observer).unobserved == {UnobservedReason.ENCODING: 1}


def test_answers_that_nobody_judges_are_counted_and_not_read() -> None:
    """Embeddings are long; their size and time are facts all the same."""
    body = json.dumps({"data": [{"embedding": [0.5] * 5000}], "model": "e5"}).encode()
    facts = observe(Wire().client(post("/v1/embeddings", b"{}")).server(response(body)).segments).one
    assert (facts.name.route, facts.ending, facts.response_bytes) == (
        Route.EMBEDDINGS,
        Ending.COMPLETE,
        len(body),
    )
    assert not facts.choices_seen
