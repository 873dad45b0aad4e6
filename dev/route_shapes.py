"""Every way in which the traffic of a route can look: what is right, what is wrong, what only looks wrong.

A shape is a stream of observations after a time in which all was well, and the faults that it must open: no
more and no fewer. Where a shape is what one answer looks like, its name is that of the scenario which real
servers play in the tests of the route observer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agent.testing import CONTAINER, exchange, in_flight, origin, text
from escalation.model import FaultClass
from probes.http.facts import Ending, ErrorKind, FinishReason, Route
from probes.observation import Observation, ServerKind

_EMPTY: Final = FaultClass.ROUTE_EMPTY_COMPLETION
_BUDGET: Final = FaultClass.ROUTE_REASONING_BUDGET_EXHAUSTED
_MISROUTED: Final = FaultClass.ROUTE_ANSWER_MISROUTED
_BROKEN: Final = FaultClass.ROUTE_BROKEN_STREAM
_DEGENERATE: Final = FaultClass.ROUTE_DEGENERATE_OUTPUT
_SIZE: Final = FaultClass.ROUTE_FAILS_REAL_TRAFFIC
_OVERFLOW: Final = FaultClass.ROUTE_CONTEXT_OVERFLOW
_STALLED: Final = FaultClass.ROUTE_ENGINE_STALLED
_COOLDOWN: Final = FaultClass.ROUTE_ROUTER_COOLDOWN
_SATURATED: Final = FaultClass.ROUTE_SATURATED

_KNOWN: Final = 24
_SHOWN: Final = 30
_STEP_S: Final = 10.0
_START_S: Final = _KNOWN * _STEP_S
"""When the good time is over and the shape begins."""

_OLLAMA: Final = origin(container=CONTAINER, server=ServerKind.OLLAMA, name="ollama")


@dataclass(frozen=True, slots=True)
class Shape:
    """One way that traffic looks, and which faults it must open."""

    name: str
    about: str
    opens: frozenset[FaultClass]
    says: Callable[[], Sequence[Observation]]


def _well(**facts: Any) -> list[Observation]:
    """Return the good time before: streamed and whole answers in turn."""
    return [exchange((n + 1) * _STEP_S, **{"streamed": bool(n % 2), **facts}) for n in range(_KNOWN)]


def _place(facts: dict[str, Any]) -> dict[str, Any]:
    return {key: facts[key] for key in ("port", "route", "model", "where") if key in facts}


def _answers(
    name: str, about: str, *opens: FaultClass, every: int = 1, shown: int = _SHOWN, **facts: Any
) -> Shape:
    """Return a shape of like answers, each `every`-th of those that come."""

    def says() -> Sequence[Observation]:
        said = _well(**_place(facts))
        for n in range(shown):
            differs = facts if n % every == 0 else _place(facts)
            said.append(exchange(_START_S + (n + 1) * _STEP_S, **differs))
        return said

    return Shape(name, about, frozenset(opens), says)


def _story(name: str, about: str, *opens: FaultClass, of: Callable[[], Iterable[Observation]]) -> Shape:
    """Return a shape of its own course."""
    return Shape(name, about, frozenset(opens), lambda: [*_well(), *of()])


_NOTHING: Final[dict[str, Any]] = {"content_characters": 0, "completion_tokens": 0}
_UNSEEN: Final[dict[str, Any]] = {**_NOTHING, "completion_tokens": 40}
_ERROR: Final[dict[str, Any]] = {
    **_NOTHING,
    "choices_seen": False,
    "completion_tokens": None,
    "prompt_tokens": None,
    "finish": FinishReason.NONE,
}
_LOOP: Final[dict[str, Any]] = {
    "content_characters": 1600,
    "completion_tokens": 400,
    "finish": FinishReason.LENGTH,
    "content": text(1600, repeated=0.97),
}
_STREAM: Final[dict[str, Any]] = {"streamed": True}
_CUT: Final[dict[str, Any]] = {"ending": Ending.CUT, "finish": FinishReason.NONE, "completion_tokens": None}
_BIG: Final = 256 * 1024


def _thinks(characters: int, **facts: Any) -> dict[str, Any]:
    return {
        **_UNSEEN,
        "reasoning_characters": characters,
        "reasoning": text(characters),
        "completion_tokens": 4096,
        **facts,
    }


def _stalled(**facts: Any) -> Iterable[Observation]:
    """Requests wait and nothing comes, told every 5 s for 20 minutes."""
    oldest = facts.pop("up_to_s", 1e9)
    for n in range(1, 241):
        yield in_flight(_START_S + n * 5, **{"oldest_s": min(oldest, n * 5.0), **facts})


def _busy() -> Iterable[Observation]:
    """Requests wait for 20 minutes behind others that are answered one after another."""
    for n in range(1, 241):
        yield in_flight(_START_S + n * 5, requests=40, waiting=39, oldest_s=n * 5.0, silent_s=0.1)
        if n % 4 == 0:
            yield exchange(_START_S + n * 5 + 1, streamed=True, duration_s=n * 5.0, first_token_s=n * 4.0)


def _long_prefill() -> Iterable[Observation]:
    """One prompt of 400 KB is read in for eight minutes, and then answered."""
    for n in range(1, 97):
        yield in_flight(_START_S + n * 5, requests=1, oldest_s=n * 5.0, largest_request_bytes=400_000)
    yield exchange(
        _START_S + 485, streamed=True, request_bytes=400_000, duration_s=485.0, first_token_s=480.0
    )


def _loading() -> Iterable[Observation]:
    """Clients wait while a model loads, and are told so each minute."""
    for n in range(1, 121):
        yield in_flight(_START_S + n * 5, oldest_s=n * 5.0)
        if n % 12 == 0:
            yield exchange(_START_S + n * 5 + 1, status=503, error=ErrorKind.LOADING, **_ERROR)


def _restart() -> Iterable[Observation]:
    """An engine is restarted with forty streams under way; all is well before and after."""
    for n in range(40):
        yield exchange(_START_S + 5 + n * 0.01, streamed=True, duration_s=4.0 + n, **_CUT)
    for n in range(40):
        yield exchange(_START_S + 60 + n, streamed=True)


def _cut_after_silence() -> Iterable[Observation]:
    """A stalled engine is restarted: what had waited is cut."""
    yield from _stalled(requests=12, waiting=4, silent_s=600.0)
    for n in range(12):
        yield exchange(_START_S + 1203 + n * 0.01, streamed=True, duration_s=1200.0, **_CUT)


def _large_fail(**failure: Any) -> Callable[[], Iterable[Observation]]:
    def says() -> Iterable[Observation]:
        for n in range(20):
            yield exchange(_START_S + n * 20, streamed=True)
            yield exchange(_START_S + n * 20 + 10, streamed=True, request_bytes=_BIG, **failure)

    return says


def _outage_of_large() -> Iterable[Observation]:
    """The server is down for a while in which only large requests come."""
    for n in range(20):
        yield exchange(_START_S + n, status=500, error=ErrorKind.SERVER, request_bytes=_BIG, **_ERROR)
    for n in range(20):
        yield exchange(_START_S + 100 + n, request_bytes=_BIG, streamed=True)


def _silently_cut() -> Iterable[Observation]:
    """Different long prompts all count 4096 tokens."""
    for n in range(20):
        yield _ollama(n, request_bytes=60_000 + 3_000 * n, prompt_tokens=4096)


def _cached() -> Iterable[Observation]:
    """A session grows; its cached beginning is not counted."""
    for n in range(20):
        yield _ollama(n, request_bytes=60_000 + 3_000 * n, prompt_tokens=700 + 17 * (n % 7))


def _pictures() -> Iterable[Observation]:
    """Pictures of many bytes and always as many tokens, and now and then a longer text."""
    for n in range(20):
        yield _ollama(n, request_bytes=200_000 + 9_000 * n, prompt_tokens=1536)
        if n % 3 == 0:
            yield _ollama(n + 0.5, request_bytes=9_000, prompt_tokens=2_100)


def _same_again() -> Iterable[Observation]:
    """One request of many bytes and few tokens is sent again and again."""
    for n in range(20):
        yield _ollama(n, request_bytes=90_000, prompt_tokens=4096)


def _ollama(n: float, **facts: Any) -> Observation:
    return exchange(
        _START_S + n * _STEP_S, port=11434, route=Route.OLLAMA_CHAT, model="gemma3", where=_OLLAMA, **facts
    )


def _unknown_model() -> Iterable[Observation]:
    for n in range(_SHOWN):
        yield exchange(_START_S + n, model="qwen3-32", status=429, error=ErrorKind.NO_DEPLOYMENTS, **_ERROR)


GOOD: Final = (
    _answers("whole-ok", "a whole answer"),
    _answers("stream-ok", "a streamed answer, with a chunk of usage that has no choices", **_STREAM),
    _answers(
        "whole-length", "cut off at the token limit, with something to read", finish=FinishReason.LENGTH
    ),
    _answers(
        "whole-tool-valid",
        "tool calls, and no content",
        finish=FinishReason.TOOL_CALLS,
        tool_calls=1,
        tool_calls_valid=True,
        tools_asked=True,
        **_UNSEEN,
    ),
    _answers("whole-reasoning-and-answer", "thinking and an answer", reasoning_characters=900),
    _answers("embeddings-ok", "a route that answers no text", route=Route.EMBEDDINGS, **_NOTHING),
    _answers("transcriptions-ok", "another one", route=Route.TRANSCRIPTIONS, **_NOTHING),
    _answers("sound-short", "the answer is a single word", content_characters=3, content=text(3)),
)

BAD: Final = (
    _answers("whole-empty", "no content, and nothing else", _EMPTY, **_NOTHING),
    _answers("stream-empty", "the same, streamed", _EMPTY, **_NOTHING, **_STREAM),
    _answers("whole-null", "tokens were made, and nothing can be read", _EMPTY, **_UNSEEN),
    _answers(
        "whole-no-choices", "an answer with usage and no choice", _EMPTY, **_NOTHING, choices_seen=False
    ),
    _answers(
        "whole-blank-short",
        "no more than a line break",
        _EMPTY,
        content_characters=2,
        content=text(2, whitespace=1.0),
    ),
    _answers("empty-one-in-four", "every fourth answer is empty", _EMPTY, every=4, shown=80, **_NOTHING),
    _answers(
        "text-all-empty",
        "text completion, always empty",
        _EMPTY,
        route=Route.COMPLETIONS,
        shown=60,
        **_NOTHING,
    ),
    _answers(
        "whole-reasoning-length",
        "thought until the token limit",
        _BUDGET,
        **_thinks(9000, finish=FinishReason.LENGTH),
    ),
    _answers(
        "stream-reasoning-length",
        "the same, streamed, with no word of the thinking: only its count",
        _BUDGET,
        **_thinks(0, finish=FinishReason.LENGTH, reasoning=None, reasoning_tokens=4096),
        **_STREAM,
    ),
    _answers(
        "budget-unseen",
        "all allowed tokens were used, and nothing can be read",
        _BUDGET,
        finish=FinishReason.LENGTH,
        **{**_NOTHING, "completion_tokens": 4096},
    ),
    _answers("whole-reasoning-stop", "the answer stands in the reasoning", _MISROUTED, **_thinks(900)),
    _answers("whole-marks", "the thinking stands in the answer", _MISROUTED, reasoning_marks_in_content=True),
    _answers("stream-cut", "the server closes inside a stream", _BROKEN, **_CUT, **_STREAM),
    _answers("whole-cut", "the server closes inside a whole answer", _BROKEN, **_CUT),
    _answers(
        "stream-no-finish",
        "a stream that just ends",
        _BROKEN,
        ending=Ending.UNTERMINATED,
        finish=FinishReason.NONE,
        **_STREAM,
    ),
    _answers(
        "stream-no-done",
        "a stream without its last mark (a note)",
        _BROKEN,
        ending=Ending.UNTERMINATED,
        **_STREAM,
    ),
    _answers(
        "stream-error",
        "an error inside a stream with status 200",
        _BROKEN,
        ending=Ending.UNTERMINATED,
        error=ErrorKind.UPSTREAM,
        error_in_answer=True,
        **{**_ERROR, **_STREAM},
    ),
    _answers(
        "whole-error-in-200",
        "an error as a whole answer with status 200",
        _BROKEN,
        error=ErrorKind.SERVER,
        error_in_answer=True,
        **_ERROR,
    ),
    _answers("degenerate-loop", "one sentence until the token limit", _DEGENERATE, **_LOOP),
    _answers(
        "degenerate-marks",
        "`!!!!` until the token limit",
        _DEGENERATE,
        **{**_LOOP, "content": text(1600, longest_run=1600, repeated=1.0)},
    ),
    _answers(
        "degenerate-blank",
        "blank until the token limit",
        _DEGENERATE,
        **{**_LOOP, "content": text(1600, whitespace=1.0)},
    ),
    _answers(
        "degenerate-undecodable",
        "characters that are none",
        _DEGENERATE,
        **{**_LOOP, "content": text(1600, undecodable=0.6)},
    ),
    _answers(
        "degenerate-thinking",
        "thinking in a loop until the token limit",
        _DEGENERATE,
        **_thinks(9000, finish=FinishReason.LENGTH, reasoning=text(9000, repeated=0.98)),
    ),
    _answers(
        "whole-context",
        "prompts refused as longer than the context",
        _OVERFLOW,
        status=400,
        error=ErrorKind.CONTEXT_OVERFLOW,
        **_ERROR,
    ),
    _answers(
        "stream-context",
        "the same, inside a stream with status 200",
        _OVERFLOW,
        error=ErrorKind.CONTEXT_OVERFLOW,
        error_in_answer=True,
        **{**_ERROR, **_STREAM},
    ),
    _story("prompts-cut", "different long prompts all count 4096 tokens", _OVERFLOW, of=_silently_cut),
    _answers(
        "whole-no-deployments",
        "a router has no deployment for a model that it served",
        _COOLDOWN,
        status=429,
        error=ErrorKind.NO_DEPLOYMENTS,
        **_ERROR,
    ),
    _answers("whole-busy", "a full queue", _SATURATED, status=503, error=ErrorKind.OVERLOADED, **_ERROR),
    _answers(
        "whole-429", "a rate limit (a note)", _SATURATED, status=429, error=ErrorKind.RATE_LIMITED, **_ERROR
    ),
    _story("stalled-waiting", "requests wait, nothing comes", _STALLED, of=_stalled),
    _story(
        "stalled-stream",
        "streams had begun and fall silent",
        _STALLED,
        of=lambda: (
            in_flight(_START_S + n * 5, requests=3, waiting=0, oldest_s=n * 5.0 + 9, silent_s=n * 5.0)
            for n in range(1, 60)
        ),
    ),
    _story("stalled-then-cut", "a stalled engine is restarted", _STALLED, of=_cut_after_silence),
    _story("large-cut", "large requests are cut, small ones are not", _SIZE, of=_large_fail(**_CUT)),
    _story(
        "large-500",
        "large requests end with status 500",
        _SIZE,
        of=_large_fail(status=500, error=ErrorKind.SERVER, **_ERROR),
    ),
    _story(
        "large-given-up",
        "clients give large requests up",
        _SIZE,
        of=_large_fail(ending=Ending.CANCELLED, status=0, response_bytes=0, duration_s=300.0, **_ERROR),
    ),
)

LOOKALIKES: Final = (
    _answers("one-empty", "one empty answer among thirty", every=30, **_NOTHING),
    _answers("some-empty", "every thirtieth of many answers is empty", every=30, shown=600, **_NOTHING),
    _answers(
        "whole-tool-invalid",
        "tool calls that are no JSON, and no content",
        finish=FinishReason.TOOL_CALLS,
        tool_calls=1,
        tool_calls_valid=False,
        **_UNSEEN,
    ),
    _answers(
        "text-some-empty",
        "an editor is offered nothing, every third time",
        route=Route.COMPLETIONS,
        every=3,
        shown=90,
        **_NOTHING,
    ),
    _answers("filtered", "refused by a content filter", finish=FinishReason.CONTENT_FILTER, **_NOTHING),
    _answers(
        "model-loaded",
        "Ollama is only told to load a model",
        route=Route.OLLAMA_GENERATE,
        finish=FinishReason.OTHER,
        **_NOTHING,
    ),
    _answers(
        "probe-length",
        "a health probe of one token, to a model that thinks first",
        **_thinks(4, finish=FinishReason.LENGTH, completion_tokens=1, max_tokens=1),
    ),
    _answers("one-budget", "one spent budget", every=30, **_thinks(9000, finish=FinishReason.LENGTH)),
    _answers(
        "quoted-marks", "every fifth answer quotes such marks", every=5, reasoning_marks_in_content=True
    ),
    _answers(
        "sound-table",
        "a table that repeats itself and stops",
        content_characters=4000,
        content=text(4000, repeated=0.9, longest_run=12),
    ),
    _answers(
        "json-at-limit",
        "JSON of like items, cut off at the token limit",
        finish=FinishReason.LENGTH,
        content_characters=6000,
        content=text(6000, repeated=0.73, longest_run=8, whitespace=0.48),
    ),
    _answers(
        "sound-ruler",
        "rulers of 80 dashes in a text",
        content_characters=2400,
        content=text(2400, longest_run=80),
    ),
    _answers(
        "sound-indented",
        "deeply indented code",
        content_characters=3000,
        content=text(3000, whitespace=0.7, longest_run=60),
    ),
    _answers("one-loop", "one loop among thirty answers", every=30, **_LOOP),
    _answers("stream-left", "clients leave before the end", ending=Ending.CANCELLED, **_STREAM),
    _answers("stream-idle", "streams that the observer no longer waits for", ending=Ending.IDLE, **_STREAM),
    _answers(
        "closed-before",
        "the server closes an idle connection as the request comes",
        ending=Ending.CUT,
        status=0,
        response_bytes=0,
        **_ERROR,
    ),
    _story("restart", "an engine is restarted with forty streams under way", of=_restart),
    _answers("one-cut", "one stream is cut", every=30, **_CUT, **_STREAM),
    _answers(
        "whole-500", "every answer is an error with status 500", status=500, error=ErrorKind.SERVER, **_ERROR
    ),
    _answers("whole-400", "bad requests", status=400, error=ErrorKind.BAD_REQUEST, **_ERROR),
    _answers(
        "one-context",
        "one prompt is too long",
        every=30,
        status=400,
        error=ErrorKind.CONTEXT_OVERFLOW,
        **_ERROR,
    ),
    _story("prompts-cached", "a prefix cache lowers the count of a growing session", of=_cached),
    _story("prompts-with-pictures", "pictures: many bytes, always as many tokens", of=_pictures),
    _story("prompts-again", "the same long prompt again and again", of=_same_again),
    _story("unknown-model", "a typing mistake in the model's name, again and again", of=_unknown_model),
    _story("busy", "a long queue that moves", of=_busy),
    _story("long-prefill", "one large prompt is read in for minutes", of=_long_prefill),
    _story("loading", "a model is loading, and the server says so", of=_loading),
    _story(
        "one-minute",
        "nothing comes for a minute",
        of=lambda: (
            in_flight(_START_S + n * 5, requests=3, waiting=1, oldest_s=n * 5.0) for n in range(1, 13)
        ),
    ),
    _answers(
        "whole-loading", "answers that the model is loading", status=503, error=ErrorKind.LOADING, **_ERROR
    ),
    _story("large-outage", "an outage in which only large requests come", of=_outage_of_large),
    _story("large-well", "large requests that succeed", of=_large_fail()),
)

SHAPES: Final = (*GOOD, *BAD, *LOOKALIKES)
