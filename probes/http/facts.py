"""What is said about an exchange once its text is gone: sizes, times, enums, ratios. Never text.

The one string is the model's name as the request or the answer gives it: an identifier that an operator
configured, cut to `MODEL_BYTES`, and hostile like every name from outside.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

MODEL_BYTES: Final = 200

GAP_BOUNDS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the buckets of `ExchangeFacts.gaps`; one more bucket holds what is longer."""


class Route(enum.StrEnum):
    """Which endpoint: the paths that model servers share; any other is OTHER, so that no path is kept."""

    CHAT_COMPLETIONS = "chat_completions"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    MESSAGES = "messages"
    EMBEDDINGS = "embeddings"
    RERANK = "rerank"
    TRANSCRIPTIONS = "transcriptions"
    SPEECH = "speech"
    OLLAMA_CHAT = "ollama_chat"
    OLLAMA_GENERATE = "ollama_generate"
    OLLAMA_EMBED = "ollama_embed"
    OTHER = "other"


class FinishReason(enum.StrEnum):
    """Why the engine says it stopped. NONE: the answer ended without saying so."""

    NONE = "none"
    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    ABORT = "abort"
    ERROR = "error"
    OTHER = "other"


class Ending(enum.StrEnum):
    """How the exchange ended on the wire."""

    COMPLETE = "complete"  # the response is whole as HTTP, and a stream said that it is done
    UNTERMINATED = "unterminated"  # whole as HTTP, but a stream without [DONE] or done:true
    CUT = "cut"  # the server's side closed or reset inside the response, or before it
    CANCELLED = "cancelled"  # the client's side closed or reset first
    IDLE = "idle"  # still open when the observer's own patience ended


class ErrorKind(enum.StrEnum):
    """What an error answer says, from its status, type, code and well-known words."""

    CONTEXT_OVERFLOW = "context_overflow"
    NO_DEPLOYMENTS = "no_deployments"  # LiteLLM: every deployment of the model cools down, or there is none
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"  # a full queue: Ollama's "server busy", llama.cpp's no slot, vLLM's 503
    LOADING = "loading"  # the model is not in memory yet
    UNKNOWN_MODEL = "unknown_model"
    UNAUTHORIZED = "unauthorized"
    BAD_REQUEST = "bad_request"
    TIMEOUT = "timeout"
    UPSTREAM = "upstream"  # a gateway could not reach what is behind it
    SERVER = "server"
    OTHER = "other"


class UnobservedReason(enum.StrEnum):
    """Why traffic of a watched port could not be judged."""

    TLS = "tls"
    HTTP2 = "http2"
    WEBSOCKET = "websocket"
    NOT_HTTP = "not_http"
    LOST = "lost"  # bytes were lost on the way to the observer
    MID_STREAM = "mid_stream"  # it was under way when the observer began
    ENCODING = "encoding"  # a content coding that cannot be looked into (br, zstd)
    TOO_MANY = "too_many"  # more connections than the observer holds
    EVICTED = "evicted"  # forgotten after a long idle time, or to make room


@dataclass(frozen=True, slots=True)
class RouteName:
    """What is judged apart: one endpoint and model behind one port. `model` is None where none was named."""

    port: int
    route: Route
    model: str | None


@dataclass(frozen=True, slots=True)
class TextMeasure:
    """What an answer's text looks like, without the text. Ratios lie in 0..1.

    `repeated` is the share of word 4-grams (of character 8-grams where there are no words) seen before in the
    same answer; `longest_run` the longest row of one character; `distinct` how many different characters per
    character, at most 1; `entropy_bits` per character (Shannon).
    """

    characters: int
    repeated: float
    longest_run: int
    whitespace: float
    distinct: float
    entropy_bits: float
    undecodable: float  # replacement and control characters


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeFacts:
    """One request and its answer. None is unknown; a count is of what was seen.

    Durations are on the wire at the server's socket, from the first byte of the request.
    """

    name: RouteName
    at_ns: int  # boot clock, end of the exchange
    cgroup_id: int
    status: int  # 0: no response at all
    ending: Ending
    finish: FinishReason = FinishReason.NONE
    error: ErrorKind | None = None
    error_in_answer: bool = False  # an error object under a status below 400
    streamed: bool = False  # the response was an event stream or NDJSON
    stream_asked: bool | None = None
    tools_asked: bool | None = None
    max_tokens: int | None = None
    request_bytes: int = 0
    response_bytes: int = 0
    duration_s: float = 0.0
    first_byte_s: float | None = None
    first_token_s: float | None = None  # first visible content, reasoning or tool call of a stream
    longest_gap_s: float = 0.0  # between two chunks of a stream
    gaps: tuple[int, ...] = ()  # how many gaps between chunks fell into each bucket of GAP_BOUNDS_S
    chunks: int = 0  # events of a stream, without [DONE]
    choices_seen: bool = False  # an answer object of the route's shape was there at all
    content_characters: int = 0
    reasoning_characters: int = 0
    tool_calls: int = 0
    tool_calls_valid: bool | None = None  # whether every call's arguments are JSON
    reasoning_marks_in_content: bool = False  # a literal <think> or <|channel|>: no parser took it out
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    content: TextMeasure | None = None
    reasoning: TextMeasure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlightFacts:
    """The requests of one route that have not been answered in full, at one moment.

    `silent_s` is how long no byte came from the server on any of them; `oldest_s` how long the oldest waits
    since its first byte; `waiting` how many have had no byte of their answer yet.
    """

    name: RouteName
    at_ns: int
    cgroup_id: int
    requests: int
    waiting: int
    oldest_s: float
    silent_s: float
    largest_request_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnobservedFacts:
    """`count` exchanges (connections for TLS, HTTP2, NOT_HTTP, TOO_MANY) of a port that were not judged."""

    port: int
    reason: UnobservedReason
    count: int
    at_ns: int
    cgroup_id: int = 0


Facts = ExchangeFacts | FlightFacts | UnobservedFacts
