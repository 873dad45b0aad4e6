"""Evidence of what model servers answer."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class ServerKind(enum.StrEnum):
    """Which software answers a route."""

    UNKNOWN = "unknown"
    VLLM = "vllm"
    TENSORRT_LLM = "tensorrt_llm"
    OLLAMA = "ollama"
    LLAMA_CPP = "llama_cpp"
    LITELLM = "litellm"
    OPEN_WEBUI = "open_webui"
    RAY = "ray"
    WHISPER = "whisper"
    POSTGRESQL = "postgresql"
    OTHER = "other"


class RouteKind(enum.StrEnum):
    """Which endpoint of a model server; paths that are none of them are OTHER."""

    UNKNOWN = "unknown"
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


@dataclass(frozen=True, slots=True)
class RouteId:
    """One endpoint and model behind one port. `model` is a name from outside, empty where none was given."""

    port: int
    route: RouteKind
    model: str
    server: ServerKind


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteEvidence:
    """Exchanges of one route in a window: how many, how many of them affected, how many could not be judged.

    The numbers of tokens, generated and allowed, are medians of the affected. `baseline` is what is usual on
    this route for whatever the case is about (a share, or seconds), `measured` what it is now.
    """

    id: RouteId
    window_s: float
    exchanges: int
    affected: int
    affected_streamed: int
    unobserved: int
    completion_tokens: int | None = None
    max_tokens: int | None = None
    measured: float | None = None
    baseline: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlightEvidence:
    """Requests of one route that are under way while nothing comes back; `patience_s` is what was allowed."""

    id: RouteId
    requests: int
    waiting: int
    oldest_s: float
    silent_s: float
    patience_s: float
    largest_request_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSizeEvidence:
    """How exchanges ended by the size of their request: below `split_bytes` and from there on."""

    id: RouteId
    window_s: float
    split_bytes: int
    small: int
    small_failed: int
    large: int
    large_failed: int
