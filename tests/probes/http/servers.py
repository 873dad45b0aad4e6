"""What each kind of model server answers, whole and as a stream, as the events or the body it sends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Event = dict[str, Any]

WORDS = ("Once", " upon", " a", " time", " there", " was", " a", " small", ' "quoted" \n', " städtchen.")
THOUGHTS = ("The", " user", " wants", " a", " story.")


@dataclass(frozen=True)
class OpenAiServer:
    """The differences between those that speak OpenAI's chat completions."""

    name: str
    reasoning: tuple[str, ...]  # the names of the field
    extra: Event  # in every object
    choice: Event  # in every choice
    usage_apart: bool  # in an event of its own, with no choices
    finish_apart: bool  # the finish reason has an event of its own

    def events(
        self,
        *,
        words: Sequence[str] = WORDS,
        thoughts: Sequence[str] = (),
        finish: str | None = "stop",
        usage: bool = True,
    ) -> Iterator[Event]:
        yield self._event({"role": "assistant", "content": ""}, None)
        for thought in thoughts:
            yield self._event(dict.fromkeys(self.reasoning, thought), None)
        last = words[-1:] if not self.finish_apart and finish else ()
        for word in words[: len(words) - len(last)]:
            yield self._event({"content": word}, None)
        counts = {"prompt_tokens": 9, "completion_tokens": 15, "total_tokens": 24}
        if finish is not None:
            event = self._event({"content": last[0]} if last else {}, finish)
            if usage and not self.usage_apart:
                event["usage"] = counts
            yield event
        if usage and self.usage_apart:
            yield {**self._object("chat.completion.chunk"), "choices": [], "usage": counts}

    def whole(
        self,
        *,
        words: Sequence[str] = WORDS,
        thoughts: Sequence[str] = (),
        finish: str | None = "stop",
        calls: list[Event] | None = None,
    ) -> Event:
        message: Event = {"role": "assistant", "content": "".join(words) or None}
        if thoughts:
            message |= dict.fromkeys(self.reasoning, "".join(thoughts))
        if calls is not None:
            message["tool_calls"] = calls
        return {
            **self._object("chat.completion"),
            "choices": [{"index": 0, "message": message, "finish_reason": finish, **self.choice}],
            "usage": {
                "prompt_tokens": 9,
                "completion_tokens": 15,
                "total_tokens": 24,
                "completion_tokens_details": {"reasoning_tokens": len(thoughts)},
            },
        }

    def _object(self, kind: str) -> Event:
        return {
            "id": "chatcmpl-0a1b2c",
            "object": kind,
            "created": 1763769600,
            "model": "qwen3-32b",
        } | self.extra

    def _event(self, delta: Event, finish: str | None) -> Event:
        return {
            **self._object("chat.completion.chunk"),
            "choices": [{"index": 0, "delta": delta, **self.choice, "finish_reason": finish}],
        }


VLLM = OpenAiServer("vllm", ("reasoning",), {}, {"logprobs": None}, usage_apart=True, finish_apart=False)
OLD_VLLM = OpenAiServer(
    "old vllm", ("reasoning_content",), {}, {"logprobs": None}, usage_apart=True, finish_apart=True
)
OLLAMA = OpenAiServer(
    "ollama", ("reasoning",), {"system_fingerprint": "fp_ollama"}, {}, usage_apart=True, finish_apart=True
)
LITELLM = OpenAiServer(
    "litellm", ("reasoning_content",), {}, {"provider": None}, usage_apart=True, finish_apart=True
)
LLAMA_CPP = OpenAiServer(
    "llama.cpp",
    ("reasoning_content",),
    {"system_fingerprint": "b6000-abc", "timings": {"predicted_ms": 12.5}},
    {},
    usage_apart=False,
    finish_apart=True,
)
TENSORRT_LLM = OpenAiServer(
    "tensorrt-llm",
    ("reasoning_content", "reasoning"),
    {},
    {"stop_reason": None},
    usage_apart=True,
    finish_apart=True,
)
OPENAI_SERVERS = (VLLM, OLD_VLLM, OLLAMA, LITELLM, LLAMA_CPP, TENSORRT_LLM)


def ollama_chat(
    *,
    words: Sequence[str] = WORDS,
    thoughts: Sequence[str] = (),
    done: str | None = "stop",
) -> Iterator[Event]:
    """Ollama's own /api/chat as it streams."""
    for n, (field, piece) in enumerate([("thinking", t) for t in thoughts] + [("content", w) for w in words]):
        message = {"role": "assistant", "content": "", field: piece}
        yield {"model": "llama3", "created_at": _date(n), "message": message, "done": False}
    if done is not None:
        yield {
            "model": "llama3",
            "created_at": _date(99),
            "message": {"role": "assistant", "content": ""},
            "done": True,
            "done_reason": done,
            "total_duration": 5_191_566_416,
            "prompt_eval_count": 26,
            "eval_count": 298,
        }


def ollama_generate(*, words: Sequence[str] = WORDS, done: str | None = "stop") -> Iterator[Event]:
    """Ollama's own /api/generate as it streams."""
    for n, word in enumerate(words):
        yield {"model": "llama3", "created_at": _date(n), "response": word, "done": False}
    if done is not None:
        yield {
            "model": "llama3",
            "created_at": _date(99),
            "response": "",
            "done": True,
            "done_reason": done,
            "context": [1, 2, 3],
            "prompt_eval_count": 26,
            "eval_count": 298,
        }


def _date(n: int) -> str:
    return f"2026-11-21T23:59:{n % 60:02d}.{(n * 7919) % 1000000}Z"


Build = Callable[..., Iterator[Event]]
