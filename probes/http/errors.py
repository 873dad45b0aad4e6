"""What kind of error an answer reports: from its type and code, well-known words, and the status.

The words are those that vLLM, llama.cpp, Ollama, LiteLLM and TensorRT-LLM send. They are looked for in the
first `WORDS` characters of the message only, because a validation error may quote the request behind them.
LiteLLM sends one and the same text for a model group whose deployments all cool down and for one that it does
not know: both are NO_DEPLOYMENTS.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from probes.http.facts import ErrorKind

WORDS: Final = 400

_BY_NAME: Final[Mapping[str, ErrorKind]] = {
    "authentication_error": ErrorKind.UNAUTHORIZED,
    "authenticationerror": ErrorKind.UNAUTHORIZED,
    "context_length_exceeded": ErrorKind.CONTEXT_OVERFLOW,
    "contextwindowexceedederror": ErrorKind.CONTEXT_OVERFLOW,
    "exceed_context_size_error": ErrorKind.CONTEXT_OVERFLOW,
    "insufficient_quota": ErrorKind.RATE_LIMITED,
    "model_not_found": ErrorKind.UNKNOWN_MODEL,
    "overloaded_error": ErrorKind.OVERLOADED,
    "permission_error": ErrorKind.UNAUTHORIZED,
    "rate_limit_error": ErrorKind.RATE_LIMITED,
    "rate_limit_exceeded": ErrorKind.RATE_LIMITED,
    "timeout_error": ErrorKind.TIMEOUT,
}

_BY_WORDS: Final[tuple[tuple[ErrorKind, tuple[str, ...]], ...]] = (
    (ErrorKind.NO_DEPLOYMENTS, ("no deployments available", "no healthy deployment", "cooldown_list")),
    (
        ErrorKind.CONTEXT_OVERFLOW,
        (
            "maximum context length",
            "maximum model length",
            "max_model_len",
            "context length exceeded",
            "context_length_exceeded",
            "exceeds the available context size",
            "exceed_context_size",
            "exceeds the context window",
            "contextwindowexceeded",
            "prompt is too long",
            "input is too long",
            "maximum input length",
            "max_num_tokens",
        ),
    ),
    (
        ErrorKind.UNKNOWN_MODEL,
        (
            "model not found",
            "invalid model name",
            "try pulling it first",
            "model_not_found",
            "no such model",
            "unknown model",
        ),
    ),
    (ErrorKind.LOADING, ("loading model", "model is loading", "still loading", "model is not ready")),
    (
        ErrorKind.OVERLOADED,
        (
            "server busy",
            "maximum pending requests",
            "no slot",
            "no free slots",
            "overloaded",
            "queue is full",
        ),
    ),
    (ErrorKind.RATE_LIMITED, ("ratelimiterror", "rate limit", "too many requests")),
    (ErrorKind.TIMEOUT, ("timed out", "timeout")),
    (
        ErrorKind.UPSTREAM,
        (
            "apiconnectionerror",
            "bad gateway",
            "cannot connect to host",
            "connection error",
            "connection refused",
            "server disconnected",
            "connection reset",
            "midstreamfallbackerror",
        ),
    ),
    (ErrorKind.UNAUTHORIZED, ("authenticationerror", "invalid api key", "incorrect api key")),
)

_BY_STATUS: Final[Mapping[int, ErrorKind]] = {
    401: ErrorKind.UNAUTHORIZED,
    403: ErrorKind.UNAUTHORIZED,
    404: ErrorKind.OTHER,
    405: ErrorKind.OTHER,
    408: ErrorKind.TIMEOUT,
    429: ErrorKind.RATE_LIMITED,
    502: ErrorKind.UPSTREAM,
    503: ErrorKind.OVERLOADED,
    504: ErrorKind.TIMEOUT,
}


def error_in(document: Mapping[str, Any]) -> object | None:
    """Return the error that an answer or an event holds: under `error`, or flat as TensorRT-LLM sends it.

    FastAPI's `detail` is one only under an error status, which the caller knows.
    """
    error = document.get("error")
    if error:
        return error if isinstance(error, Mapping) else {"message": error}
    kind = document.get("type")
    if document.get("object") == "error" or kind == "error":
        return document
    return None


def kind_of(status: int, error: object, text: str = "") -> ErrorKind:
    """Classify an error by what it holds, or an error answer that is no JSON by its `text` and status."""
    message, names, code = text, [], None
    if isinstance(error, Mapping):
        message = _string(error.get("message")) or _string(error.get("detail")) or text
        names = [_string(error.get("type")), _string(error.get("code"))]
        code = _code(error.get("code"))
    elif isinstance(error, str):
        message = error
    for name in names:
        kind = _BY_NAME.get(name.lower())
        if kind is not None:
            return kind
    words = message[:WORDS].lower()
    for kind, phrases in _BY_WORDS:
        if any(phrase in words for phrase in phrases):
            return kind
    number = code if status < 400 and code is not None else status
    if "model" in words and ("not found" in words or "does not exist" in words):
        return ErrorKind.UNKNOWN_MODEL
    return _of_status(number)


def _of_status(status: int) -> ErrorKind:
    kind = _BY_STATUS.get(status)
    if kind is not None:
        return kind
    if status >= 500:
        return ErrorKind.SERVER
    return ErrorKind.BAD_REQUEST if status >= 400 else ErrorKind.OTHER


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def _code(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    if isinstance(value, str) and not (len(value) == 3 and value.isascii() and value.isdigit()):
        return None
    number = int(value)
    return number if 400 <= number <= 599 else None
