"""The table of scenarios: what is asked, what the upstream plays, and what must then be true.

A scenario's name is the model's name, so that what an exchange was is known wherever it is seen. Longer than
other modules because it is one table of some ninety rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from probes.http.facts import Ending, ErrorKind, FinishReason
from tests.routes import answers as say
from tests.routes.answers import Answer, End

CHAT: Final = "/v1/chat/completions"
TEXT: Final = "/v1/completions"
EMBED: Final = "/v1/embeddings"
OLLAMA_CHAT: Final = "/api/chat"
OLLAMA_GENERATE: Final = "/api/generate"

SPOOF: Final = (
    'Say "model":"fake", then {"model": "fake", "stream": true}\r\nHTTP/1.1 200 OK\r\n\r\ndata: [DONE]\n\n'
)
UNICODE: Final = 'Grüße, 世界 😀 "quoted" \\ back\nslash\ttab \u2028 end'
TABLE: Final = "| Package | Version | Licence |\n| --- | --- | --- |\n" + "\n".join(
    f"| lib{i * 7919 % 1000} | {i}.{i * 7 % 10}.{i * i % 13} | {('MIT', 'BSD', 'ISC')[i % 3]} |"
    for i in range(40)
)
CODE: Final = "".join(
    f"def step_{i}(value: int) -> int:\n    total = value * {i * 37 % 101} + {i * i % 89}\n\n"
    for i in range(24)
)
WEATHER: Final = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Look up the weather.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "model": {"type": "string"},
                "stream": {"type": "boolean"},
            },
        },
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What must be true once the client has seen the answer through an honest server."""

    status: int = 200
    ending: Ending = Ending.COMPLETE
    finish: FinishReason = FinishReason.STOP
    error: ErrorKind | None = None
    error_in_answer: bool = False
    chunks: int = 0
    content: int = 0
    reasoning: int = 0
    tool_calls: int = 0
    tool_calls_valid: bool | None = None
    prompt: int | None = 17
    completion: int | None = 5
    reasoning_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One way an upstream can answer.

    `leaves_after` so many events the client goes; `waits_s` it waits at most; `reads_out`: it is a plain HTTP
    client that reads to the end whatever comes.
    """

    name: str
    answer: Answer
    expected: Expected
    path: str = CHAT
    stream: bool = False
    prompt: str = "What is the capital of France?"
    asks: Mapping[str, Any] = field(default_factory=dict)
    leaves_after: int | None = None
    waits_s: float = 20.0
    reads_out: bool = False

    def __str__(self) -> str:
        return self.name


def _reasons(name: str, finish: str, field_: str = "reasoning", tokens: int | None = None) -> Scenario:
    thoughts = "First I consider the question. Then I weigh what is known about France."
    counts = say.usage(17, 16, tokens)
    return Scenario(
        name=name,
        asks={"max_tokens": 16},
        answer=say.whole(
            say.chat(name, None, finish, reasoning=thoughts, reasoning_field=field_, counts=counts)
        ),
        expected=Expected(
            finish=FinishReason(finish), reasoning=len(thoughts), completion=16, reasoning_tokens=tokens
        ),
    )


def _text(name: str, content: str, finish: str = "stop") -> Scenario:
    return Scenario(
        name=name,
        answer=say.whole(say.chat(name, content, finish, counts=say.usage(17, 200))),
        expected=Expected(finish=FinishReason(finish), content=len(content), completion=200),
    )


def _error(name: str, status: int, body: object, kind: ErrorKind, *, in_answer: bool = False) -> Scenario:
    return Scenario(
        name=name,
        answer=say.whole(body, status=status),
        expected=Expected(
            status=status,
            finish=FinishReason.NONE,
            error=kind,
            error_in_answer=in_answer,
            prompt=None,
            completion=None,
        ),
    )


OVERFLOW: Final = (
    "This model's maximum context length is 8192 tokens. However, you requested 9001 tokens in the messages. "
    "Please reduce the length of the messages."
)
BIG: Final = "lorem ipsum dolor sit amet " * 15_000  # 405 000 bytes
LONG: Final = "".join(f"{i} is followed by {i + 1}. " for i in range(11_000))[:300_000]
ANSWER: Final = "The capital of France is Paris."


WHOLE: Final = (
    Scenario(
        name="whole-ok",
        answer=say.whole(say.chat("whole-ok", ANSWER)),
        expected=Expected(content=len(ANSWER)),
    ),
    Scenario(
        name="whole-escaped",
        answer=say.whole(say.chat("whole-escaped", UNICODE)),
        expected=Expected(content=len(UNICODE)),
    ),
    Scenario(
        name="whole-utf8",
        answer=say.whole(say.chat("whole-utf8", UNICODE), ascii_only=False),
        expected=Expected(content=len(UNICODE)),
    ),
    Scenario(name="whole-empty", answer=say.whole(say.chat("whole-empty", "")), expected=Expected()),
    Scenario(name="whole-null", answer=say.whole(say.chat("whole-null", None)), expected=Expected()),
    Scenario(
        name="whole-no-choices",
        answer=say.whole({**say.chat("whole-no-choices", ""), "choices": []}),
        expected=Expected(finish=FinishReason.NONE),
    ),
    Scenario(
        name="whole-no-finish",
        answer=say.whole(say.chat("whole-no-finish", ANSWER, None)),
        expected=Expected(finish=FinishReason.NONE, content=len(ANSWER)),
    ),
    _reasons("whole-reasoning-length", "length", tokens=16),
    _reasons("whole-reasoning-stop", "stop"),
    _reasons("whole-reasoning-content-length", "length", "reasoning_content"),
    Scenario(
        name="whole-reasoning-and-answer",
        answer=say.whole(say.chat("whole-reasoning-and-answer", ANSWER, reasoning="Easy: it is Paris.")),
        expected=Expected(content=len(ANSWER), reasoning=18),
    ),
    Scenario(
        name="whole-tool-valid",
        asks={"tools": [WEATHER]},
        answer=say.whole(
            say.chat("whole-tool-valid", None, "tool_calls", tool_calls=[say.tool_call('{"city": "Paris"}')])
        ),
        expected=Expected(finish=FinishReason.TOOL_CALLS, tool_calls=1, tool_calls_valid=True),
    ),
    Scenario(
        name="whole-tool-invalid",
        asks={"tools": [WEATHER]},
        answer=say.whole(
            say.chat("whole-tool-invalid", None, "tool_calls", tool_calls=[say.tool_call('{"city": "Par')])
        ),
        expected=Expected(finish=FinishReason.TOOL_CALLS, tool_calls=1, tool_calls_valid=False),
    ),
    Scenario(
        name="whole-tools-not-called",
        asks={"tools": [WEATHER]},
        answer=say.whole(say.chat("whole-tools-not-called", ANSWER, tool_calls=[])),
        expected=Expected(content=len(ANSWER)),
    ),
    _text("whole-length", "The capital of France is", "length"),
    _text("whole-300k", LONG),
    _text("whole-spoofing", SPOOF + '{"finish_reason":"length","error":{"message":"no"},"content":""}'),
    _text("whole-marks", "<think>Paris, I believe.</think>Paris."),
    _error(
        "whole-429",
        429,
        say.openai_error("Rate limit reached", "rate_limit_error", 429),
        ErrorKind.RATE_LIMITED,
    ),
    _error(
        "whole-500",
        500,
        say.openai_error("Internal Server Error", "InternalServerError", 500),
        ErrorKind.SERVER,
    ),
    _error(
        "whole-context", 400, say.openai_error(OVERFLOW, "BadRequestError", 400), ErrorKind.CONTEXT_OVERFLOW
    ),
    _error(
        "whole-flat-context",
        400,
        say.flat_error(OVERFLOW, "BadRequestError", 400),
        ErrorKind.CONTEXT_OVERFLOW,
    ),
    _error(
        "whole-loading",
        503,
        {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
        ErrorKind.LOADING,
    ),
    _error(
        "whole-error-in-200",
        200,
        say.openai_error("Internal Server Error", "InternalServerError", 500),
        ErrorKind.SERVER,
        in_answer=True,
    ),
    Scenario(
        name="whole-big-request",
        prompt=BIG,
        answer=say.whole(say.chat("whole-big-request", ANSWER)),
        expected=Expected(content=len(ANSWER)),
    ),
    Scenario(
        name="whole-spoofed",
        prompt=SPOOF,
        answer=say.whole(say.chat("whole-spoofed", ANSWER)),
        expected=Expected(content=len(ANSWER)),
    ),
    Scenario(
        name="whole-cut",
        answer=say.whole(say.chat("whole-cut", ANSWER), end=End.FIN),
        expected=Expected(ending=Ending.CUT, finish=FinishReason.NONE, prompt=None, completion=None),
    ),
    Scenario(
        name="whole-reset",
        answer=say.whole(say.chat("whole-reset", ANSWER), end=End.RESET),
        expected=Expected(ending=Ending.CUT, finish=FinishReason.NONE, prompt=None, completion=None),
    ),
    Scenario(
        name="whole-silent",
        waits_s=0.5,
        answer=Answer(writes=(), end=End.SILENT),
        expected=Expected(
            status=0, ending=Ending.CANCELLED, finish=FinishReason.NONE, prompt=None, completion=None
        ),
    ),
    Scenario(
        name="text-ok",
        path=TEXT,
        answer=say.whole(say.completion("text-ok", " Paris.")),
        expected=Expected(content=7, prompt=9, completion=4),
    ),
    Scenario(
        name="text-empty",
        path=TEXT,
        prompt=CODE[:400],
        answer=say.whole(say.completion("text-empty", "")),
        expected=Expected(prompt=9, completion=4),
    ),
    Scenario(
        name="embeddings-ok",
        path=EMBED,
        answer=say.whole(say.embeddings("embeddings-ok")),
        expected=Expected(finish=FinishReason.NONE, prompt=6, completion=None),
    ),
)

DEGENERATE: Final = (
    _text("degenerate-loop", "the answer is the answer is " * 60, "length"),
    _text("degenerate-marks", "!" * 900, "length"),
    _text("degenerate-blank", "\n \n" * 300, "length"),
    _text("degenerate-fragments", "'s't's't" * 120, "length"),
    _text("sound-table", TABLE),
    _text("sound-code", CODE),
    _text("sound-exclaims", "Yes!!! Paris it is!!! " + ANSWER),
    _text(
        "sound-indented",
        "{\n" + "".join(f'        "key_{i * 7919 % 1000}": {i * i},\n' for i in range(60)) + "}",
    ),
    _text("sound-short", "4"),
)


def _stream(
    name: str,
    events: list[dict[str, object]],
    expected: Expected,
    *,
    asks: Mapping[str, Any] | None = None,
    prompt: str = "What is the capital of France?",
    path: str = CHAT,
    leaves_after: int | None = None,
    waits_s: float = 20.0,
    reads_out: bool = False,
    **how: Any,
) -> Scenario:
    return Scenario(
        name=name,
        stream=True,
        path=path,
        asks=asks or {},
        prompt=prompt,
        answer=say.stream(events, **how),
        expected=expected,
        leaves_after=leaves_after,
        waits_s=waits_s,
        reads_out=reads_out,
    )


WORDS: Final = ("The", " capital", " of", " France", " is", " Paris", ".")


def _plain(name: str, words: tuple[str, ...] = WORDS, finish: str | None = "stop") -> list[dict[str, object]]:
    return [*say.deltas(name, words), *([say.chunk(name, {}, finish)] if finish else [])]


def _told(chunks: int, content: int = 31, **more: Any) -> Expected:
    return Expected(chunks=chunks, content=content, **{"prompt": None, "completion": None, **more})


def _failed(chunks: int, *, ending: Ending) -> Expected:
    return _told(
        chunks, ending=ending, finish=FinishReason.NONE, error=ErrorKind.SERVER, error_in_answer=True
    )


def _tool_chunks(name: str, pieces: tuple[str, ...]) -> list[dict[str, object]]:
    first = say.tool_call("")
    rest = [{"index": 0, "function": {"arguments": piece}} for piece in pieces]
    return [
        say.chunk(name, {"role": "assistant", "content": None}),
        say.chunk(name, {"tool_calls": [first]}),
        *(say.chunk(name, {"tool_calls": [piece]}) for piece in rest),
        say.chunk(name, {}, "tool_calls"),
    ]


_BURST = tuple(f" {i}" for i in range(198))
_UNICODE_WORDS = tuple(UNICODE[i : i + 3] for i in range(0, len(UNICODE), 3))
_USAGE = say.chunk("stream-usage", None, usage=say.usage(17, 7))
_IN_BAND = say.openai_error("EngineCore encountered an issue", "InternalServerError", 500)


def _split_in_characters() -> Answer:
    whole = say.stream(_plain("stream-split", _UNICODE_WORDS), ascii_only=False)
    body = b"".join(whole.writes)
    pieces = tuple(body[i : i + 101] for i in range(0, len(body), 101))
    return Answer(writes=pieces, content_type=whole.content_type, pause_ms=2)


def _with_comments() -> Answer:
    plain = say.stream(_plain("stream-comments"))
    writes = tuple(piece for write in plain.writes for piece in (b": ping\n\n", write))
    return Answer(writes=writes, content_type=plain.content_type, pause_ms=2)


STREAMS: Final = (
    _stream("stream-ok", _plain("stream-ok"), _told(9)),
    _stream(
        "stream-usage",
        [*_plain("stream-usage"), _USAGE],
        _told(10, prompt=17, completion=7),
        asks={"stream_options": {"include_usage": True}},
    ),
    _stream(
        "stream-escaped",
        _plain("stream-escaped", _UNICODE_WORDS),
        _told(len(_UNICODE_WORDS) + 2, len(UNICODE)),
    ),
    Scenario(
        name="stream-split",
        stream=True,
        answer=_split_in_characters(),
        expected=_told(len(_UNICODE_WORDS) + 2, len(UNICODE)),
    ),
    Scenario(name="stream-comments", stream=True, answer=_with_comments(), expected=_told(9)),
    _stream("stream-crlf", _plain("stream-crlf"), _told(9), newline="\r\n"),
    _stream("stream-empty", _plain("stream-empty", ()), _told(2, 0)),
    _stream("stream-length", _plain("stream-length", WORDS, "length"), _told(9, finish=FinishReason.LENGTH)),
    _stream(
        "stream-reasoning",
        [
            *say.deltas("stream-reasoning", ("Let", " me", " see."), field="reasoning"),
            *say.deltas("stream-reasoning", WORDS)[1:],
            say.chunk("stream-reasoning", {}, "stop"),
        ],
        _told(12, reasoning=11),
    ),
    _stream(
        "stream-reasoning-length",
        [
            *say.deltas("stream-reasoning-length", ("Let", " me", " see."), field="reasoning_content"),
            say.chunk("stream-reasoning-length", {}, "length"),
        ],
        _told(5, 0, reasoning=11, finish=FinishReason.LENGTH),
        asks={"max_tokens": 3},
    ),
    _stream(
        "stream-reasoning-stop",
        [
            *say.deltas("stream-reasoning-stop", ("It", " is", " Paris."), field="reasoning_content"),
            say.chunk("stream-reasoning-stop", {}, "stop"),
        ],
        _told(5, 0, reasoning=12),
    ),
    _stream(
        "stream-tools",
        _tool_chunks("stream-tools", ('{"ci', 'ty": "P', 'aris"}')),
        _told(6, 0, finish=FinishReason.TOOL_CALLS, tool_calls=1, tool_calls_valid=True),
        asks={"tools": [WEATHER]},
    ),
    _stream(
        "stream-tools-invalid",
        _tool_chunks("stream-tools-invalid", ('{"ci', 'ty": "P')),
        _told(5, 0, finish=FinishReason.TOOL_CALLS, tool_calls=1, tool_calls_valid=False),
        asks={"tools": [WEATHER]},
    ),
    _stream("stream-no-done", _plain("stream-no-done"), _told(9, ending=Ending.UNTERMINATED), done=False),
    _stream(
        "stream-no-finish",
        _plain("stream-no-finish", WORDS, None),
        _told(8, ending=Ending.UNTERMINATED, finish=FinishReason.NONE),
    ),
    _stream(
        "stream-burst",
        _plain("stream-burst", _BURST),
        _told(200, sum(map(len, _BURST))),
        in_one_write=True,
    ),
    _stream(
        "stream-cut",
        _plain("stream-cut", WORDS, None),
        _told(8, ending=Ending.CUT, finish=FinishReason.NONE),
        done=False,
        end=End.FIN,
        pause_ms=10,
        reads_out=True,
    ),
    _stream(
        "stream-reset",
        _plain("stream-reset", WORDS, None),
        _told(8, ending=Ending.CUT, finish=FinishReason.NONE),
        done=False,
        end=End.RESET,
        pause_ms=10,
        reads_out=True,
    ),
    _stream(
        "stream-error",
        [*_plain("stream-error", WORDS, None), _IN_BAND],
        _failed(9, ending=Ending.UNTERMINATED),
        reads_out=True,
    ),
    _stream(
        "stream-error-no-done",
        [*_plain("stream-error-no-done", WORDS, None), _IN_BAND],
        _failed(9, ending=Ending.UNTERMINATED),
        reads_out=True,
        done=False,
    ),
    _stream(  # the openai client raises on the error event and closes at once, without reading to the end
        "stream-error-left",
        [*_plain("stream-error-left", WORDS, None), _IN_BAND],
        _failed(9, ending=Ending.CANCELLED),
        done=False,
        end=End.WAIT,
    ),
    _stream(
        "stream-cancelled",
        say.deltas("stream-cancelled", WORDS),
        _told(8, ending=Ending.CANCELLED, finish=FinishReason.NONE),
        done=False,
        end=End.WAIT,
        leaves_after=8,
    ),
    _stream(
        "stream-hangs",
        say.deltas("stream-hangs", ("The",)),
        _told(2, 3, ending=Ending.CANCELLED, finish=FinishReason.NONE),
        done=False,
        end=End.WAIT,
        waits_s=0.5,
    ),
    _stream("stream-big-request", _plain("stream-big-request"), _told(9), prompt=BIG),
    _stream("stream-spoofed", _plain("stream-spoofed"), _told(9), prompt=SPOOF),
    _stream(
        "stream-spoofing",
        _plain("stream-spoofing", (SPOOF, '"finish_reason":"length"', "data: [DONE]\n\n")),
        _told(5, len(SPOOF) + 38),
    ),
    _stream(
        "stream-degenerate",
        _plain("stream-degenerate", (" no",) * 400, "length"),
        _told(402, 1200, finish=FinishReason.LENGTH),
        pause_ms=1,
        reads_out=True,
    ),
    _stream(
        "stream-text",
        [
            {
                "id": "cmpl-1",
                "object": "text_completion",
                "created": say.CREATED,
                "model": "stream-text",
                "choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": finish}],
            }
            for text, finish in ((" Par", None), ("is.", None), ("", "stop"))
        ],
        _told(3, 7),
        path=TEXT,
    ),
)


def _ollama(name: str, answer: Answer, expected: Expected, **more: Any) -> Scenario:
    return Scenario(name=name, answer=answer, expected=expected, **{"path": OLLAMA_CHAT, **more})


def _counted(chunks: int, content: int, **more: Any) -> Expected:
    return Expected(**{"chunks": chunks, "content": content, "prompt": 11, "completion": 8, **more})


def _lines(name: str, end: dict[str, object] | None = None) -> list[dict[str, object]]:
    closing = [] if end is None else [end]
    return [*(say.ollama_message(name, word) for word in WORDS), *closing]


def _last(name: str, reason: str = "stop") -> dict[str, object]:
    return say.ollama_done(say.ollama_message(name, ""), reason, 11, 8)


OLLAMA: Final = (
    _ollama(
        "ollama-stream",
        say.lines(_lines("ollama-stream", _last("ollama-stream"))),
        _counted(8, 31),
        stream=True,
    ),
    _ollama(
        "ollama-whole",
        say.whole(say.ollama_done(say.ollama_message("ollama-whole", ANSWER), "stop", 11, 8)),
        _counted(0, 31),
    ),
    _ollama(
        "ollama-empty",
        say.whole(say.ollama_done(say.ollama_message("ollama-empty", ""), "stop", 11, 8)),
        _counted(0, 0),
    ),
    _ollama(
        "ollama-length",
        say.lines(_lines("ollama-length", _last("ollama-length", "length"))),
        _counted(8, 31, finish=FinishReason.LENGTH),
        stream=True,
        asks={"options": {"num_predict": 8}},
    ),
    _ollama(
        "ollama-thinking",
        say.lines(
            [
                *(say.ollama_message("ollama-thinking", "", thinking=t) for t in ("Let", " me", " see.")),
                *_lines("ollama-thinking", _last("ollama-thinking")),
            ]
        ),
        _counted(11, 31, reasoning=11),
        stream=True,
    ),
    _ollama(
        "ollama-tools",
        say.lines(
            [
                say.ollama_message(
                    "ollama-tools",
                    "",
                    tool_calls=[{"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}],
                ),
                _last("ollama-tools"),
            ]
        ),
        _counted(2, 0, tool_calls=1, tool_calls_valid=True),
        stream=True,
        asks={"tools": [WEATHER]},
    ),
    _ollama(
        "ollama-error",
        say.lines([*_lines("ollama-error"), {"error": "an error was encountered while running the model"}]),
        _counted(
            8,
            31,
            ending=Ending.UNTERMINATED,
            finish=FinishReason.NONE,
            error=ErrorKind.OTHER,  # it has neither a status nor a code
            error_in_answer=True,
            prompt=None,
            completion=None,
        ),
        stream=True,
    ),
    _ollama(
        "ollama-not-done",
        say.lines(_lines("ollama-not-done")),
        _counted(7, 31, ending=Ending.UNTERMINATED, finish=FinishReason.NONE, prompt=None, completion=None),
        stream=True,
    ),
    _ollama(
        "ollama-cut",
        say.lines(_lines("ollama-cut"), end=End.FIN),
        _counted(7, 31, ending=Ending.CUT, finish=FinishReason.NONE, prompt=None, completion=None),
        stream=True,
    ),
    _ollama(
        "ollama-busy",
        say.whole({"error": "server busy, please try again.  maximum pending requests exceeded"}, status=503),
        _counted(
            0,
            0,
            status=503,
            finish=FinishReason.NONE,
            error=ErrorKind.OVERLOADED,
            prompt=None,
            completion=None,
        ),
    ),
    _ollama(
        "ollama-generate-stream",
        say.lines(
            [
                *(say.ollama_text("ollama-generate-stream", word) for word in WORDS),
                say.ollama_done(say.ollama_text("ollama-generate-stream", ""), "stop", 11, 8),
            ]
        ),
        _counted(8, 31),
        stream=True,
        path=OLLAMA_GENERATE,
    ),
    _ollama(
        "ollama-generate-whole",
        say.whole(say.ollama_done(say.ollama_text("ollama-generate-whole", ANSWER), "stop", 11, 8)),
        _counted(0, 31),
        path=OLLAMA_GENERATE,
    ),
)


# What LiteLLM makes of an answer before its client sees it, where that differs from what stands behind it. It
# repairs what ended badly, refuses what it cannot read, and ends a loop of a hundred equal chunks by itself.
THROUGH_LITELLM: Final[Mapping[str, Mapping[str, object]]] = {
    "whole-no-finish": {"finish": FinishReason.STOP},
    "whole-marks": {"content_characters": 6, "reasoning_characters": 17},
    "whole-error-in-200": {"status": 500, "error_in_answer": False},
    "whole-cut": {"status": 500, "ending": Ending.COMPLETE},
    "whole-reset": {"status": 500, "ending": Ending.COMPLETE},
    "embeddings-ok": {"completion_tokens": 0},
    "stream-usage": {"reasoning_tokens": 0},
    "stream-text": {"prompt_tokens": 0, "completion_tokens": 0},
    "stream-no-done": {"ending": Ending.COMPLETE},
    "stream-no-finish": {"ending": Ending.COMPLETE, "finish": FinishReason.STOP, "chunks": 9},
    "stream-cut": {"ending": Ending.UNTERMINATED, "error_in_answer": True, "chunks": 9},
    "stream-reset": {"ending": Ending.UNTERMINATED, "error_in_answer": True, "chunks": 9},
    "stream-degenerate": {
        "ending": Ending.UNTERMINATED,
        "finish": FinishReason.NONE,
        "error_in_answer": True,
        "chunks": 102,
        "content_characters": 300,
    },
}


def _real(name: str, finish: FinishReason, *, stream: bool = False, **asks: Any) -> Scenario:
    return Scenario(
        name=name,
        stream=stream,
        asks={"temperature": 0, "max_tokens": 24, **asks},
        answer=Answer(writes=()),
        expected=Expected(finish=finish),
    )


# A real engine answers as it will: only what was asked for is known beforehand.
LLAMACPP: Final = (
    _real("tiny-whole", FinishReason.LENGTH),
    _real("tiny-stopped", FinishReason.STOP, stop=["é"]),
    _real("tiny-stream", FinishReason.LENGTH, stream=True),
    _real("tiny-stream-usage", FinishReason.LENGTH, stream=True, stream_options={"include_usage": True}),
    _real("tiny-stream-stopped", FinishReason.STOP, stream=True, stop=["é"]),
    Scenario(
        name="tiny-overflow",
        prompt="x" * 3000,
        answer=Answer(writes=()),
        expected=Expected(status=400, finish=FinishReason.NONE, error=ErrorKind.CONTEXT_OVERFLOW),
    ),
)

# Words that occur nowhere else, one for each place where a text can stand.
CANARIES: Final = {
    "prompt": "zanzibar-prompt-1b9e44",
    "answer": "zanzibar-answer-72c0d1",
    "thought": "zanzibar-thought-c35f08",
    "call": "zanzibar-call-9ad217",
    "error": "zanzibar-error-5e60bb",
}
_SAID: Final = f"The word is {CANARIES['answer']}, and again {CANARIES['answer']}."
_THOUGHT: Final = f"Perhaps {CANARIES['thought']}?"
_ARGUMENTS: Final = json.dumps({"city": CANARIES["call"]})
_SAYS: Final = {
    "saying-whole": say.whole(say.chat("saying-whole", _SAID, reasoning=_THOUGHT)),
    "saying-call": say.whole(
        say.chat("saying-call", None, "tool_calls", tool_calls=[say.tool_call(_ARGUMENTS)])
    ),
    "saying-error": say.whole(
        say.openai_error(f"no such thing as {CANARIES['error']}", "BadRequestError", 400), status=400
    ),
    "saying-stream": say.stream(
        [
            *say.deltas("saying-stream", (_THOUGHT,), field="reasoning"),
            *say.deltas("saying-stream", (_SAID, " ", _SAID))[1:],
            say.chunk("saying-stream", {}, "stop"),
        ]
    ),
}
SAYING: Final = tuple(
    Scenario(
        name=name,
        stream=answer.content_type == "text/event-stream",
        prompt=f"Tell me about {CANARIES['prompt']}. {CANARIES['prompt']}!",
        answer=answer,
        expected=Expected(),
    )
    for name, answer in _SAYS.items()
)

SLOW: Final = _stream("stream-slow", _plain("stream-slow"), _told(9), pause_ms=300)

SCENARIOS: Final = WHOLE + DEGENERATE + STREAMS + OLLAMA
BY_NAME: Final = {scenario.name: scenario for scenario in (*SCENARIOS, SLOW, *SAYING)}


def scripts() -> str:
    """Return the answers of all scenarios as the servers read them."""
    return json.dumps({scenario.name: scenario.answer.as_json() for scenario in BY_NAME.values()})
