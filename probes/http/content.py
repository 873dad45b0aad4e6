"""The account of one answer: what it says of itself, and measures of its text and its tool calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeGuard

from probes.http.errors import kind_of
from probes.http.facts import ErrorKind, FinishReason
from probes.http.json_check import JsonCheck
from probes.http.json_walk import Passage
from probes.http.passage import PassageDecoder
from probes.http.text import TextMeter
from probes.http.watched import REASONING_KEYS

CALLS_MAX: Final = 128
_CALLS_OF_A_CHOICE: Final = 1000  # calls are numbered within their choice

_FINISH: Final[Mapping[str, FinishReason]] = {
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "eos_token": FinishReason.STOP,
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "completed": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "max_output_tokens": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "tool_use": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
    "refusal": FinishReason.CONTENT_FILTER,
    "abort": FinishReason.ABORT,
    "cancelled": FinishReason.ABORT,
    "error": FinishReason.ERROR,
    "failed": FinishReason.ERROR,
}


class Content:
    """What an answer held, so far. A `PassageTaker` for objects that are walked."""

    __slots__ = (
        "_calls",
        "_decoder",
        "_reasoning_key",
        "_status",
        "_taken",
        "answers",
        "completion_tokens",
        "content",
        "done",
        "error",
        "extras",
        "finish",
        "last_passage",
        "model",
        "prompt_tokens",
        "reasoning",
        "reasoning_tokens",
        "texts",
    )

    def __init__(self, status: int) -> None:
        self._status = status
        self._calls: dict[int, JsonCheck] = {}
        self._decoder: PassageDecoder | None = None
        self._reasoning_key: str | None = None
        self._taken: TextMeter | JsonCheck | None = None
        self.answers = 0  # answer objects of any shape
        self.model: str | None = None
        self.finish = FinishReason.NONE
        self.done = False  # the stream said that it is over
        self.error: ErrorKind | None = None
        self.content = TextMeter()
        self.reasoning = TextMeter()
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None
        self.reasoning_tokens: int | None = None
        self.texts = 0  # in the last object: texts that were not empty, and tool calls
        self.extras = 0  # and whatever else it said
        self.last_passage = Passage.CONTENT

    @property
    def held_bytes(self) -> int:
        """Text that waits to be measured, and what the checks of arguments hold."""
        calls = sum(call.held_bytes for call in self._calls.values())
        return self.content.held_bytes + self.reasoning.held_bytes + calls

    @property
    def tool_calls(self) -> int:
        """How many tool calls there were, at most `CALLS_MAX`."""
        return len(self._calls)

    @property
    def calls_valid(self) -> bool | None:
        """Whether the arguments of all tool calls are JSON; None without calls."""
        return all(call.valid for call in self._calls.values()) if self._calls else None

    def begin_object(self) -> None:
        """Forget the last object: before each object and its passages."""
        self.texts = self.extras = 0
        self._reasoning_key = None

    def text(self, passage: Passage, value: object) -> None:
        """Measure a piece of text; one that was passed on is measured already."""
        if isinstance(value, str) and value:
            (self.content if passage is Passage.CONTENT else self.reasoning).add(value)
            self.texts += 1
            self.last_passage = passage

    def arguments(self, call: int, arguments: object) -> None:
        """Check a piece of a tool call's arguments; an object instead of a text is valid as it is."""
        self.texts += 1
        self.extras += 1
        check = self._check(call)
        if isinstance(arguments, str) and check is not None:
            check.feed(arguments)

    def fail(self, error: object) -> None:
        """Hear of an error; the first one counts."""
        self.extras += 1
        if self.error is None:
            self.error = kind_of(self._status, error)

    def stop(self, reason: object) -> None:
        """Hear why the engine stopped."""
        if isinstance(reason, str) and reason:
            self.extras += 1
            self.finish = _FINISH.get(reason, FinishReason.OTHER)

    def count(self, *, prompt: object = None, completion: object = None, reasoning: object = None) -> None:
        """Hear how many tokens it took; what is no count changes nothing."""
        self.extras += 1
        if _is_count(prompt):
            self.prompt_tokens = prompt
        if _is_count(completion):
            self.completion_tokens = completion
        if _is_count(reasoning):
            self.reasoning_tokens = reasoning

    def begin(self, passage: Passage, key: str, path: Sequence[Any]) -> None:
        """See PassageTaker."""
        self._decoder = PassageDecoder()
        self._taken = None
        if key == "delta" and len(path) == 1:
            kind = path[0].get("type")
            if kind == "response.function_call_arguments.delta":
                passage = Passage.ARGUMENTS
            elif kind not in ("response.output_text.delta", "response.refusal.delta"):
                passage = Passage.REASONING
        elif passage is Passage.CONTENT and _is_thought(path):
            passage = Passage.REASONING
        if passage is Passage.ARGUMENTS:
            self._taken = self._check(_call_of(path))
            return
        if passage is Passage.REASONING and key in REASONING_KEYS:
            if self._reasoning_key not in (None, key):
                return  # the same text under its other name
            self._reasoning_key = key
        self.last_passage = passage
        self._taken = self.content if passage is Passage.CONTENT else self.reasoning

    def piece(self, raw: bytes) -> None:
        """See PassageTaker."""
        if self._decoder is not None:
            self._pass(self._decoder.feed(raw))

    def finish_passage(self) -> None:
        """See PassageTaker."""
        if self._decoder is not None:
            self._pass(self._decoder.finish())
        self._decoder = self._taken = None

    def _pass(self, text: str) -> None:
        if not text or self._taken is None:
            return
        self.texts += 1
        if isinstance(self._taken, TextMeter):
            self._taken.add(text)
        else:
            self._taken.feed(text)

    def _check(self, call: int) -> JsonCheck | None:
        check = self._calls.get(call)
        if check is None and len(self._calls) < CALLS_MAX:
            check = self._calls[call] = JsonCheck()
        return check


def call_number(choice: object, position: int, call: object, place: int) -> int:
    """Number a tool call by its choice's index and its own; where they are not given, by their places."""
    return number(choice, position) * _CALLS_OF_A_CHOICE + number(call, place)


def number(value: object, otherwise: int = 0) -> int:
    """Return a whole number that is one."""
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53


def _call_of(path: Sequence[Any]) -> int:
    """Return the number of the call that a walked passage belongs to."""
    match path:
        case [_, list() as choices, dict() as choice, dict(), list() as calls, dict() as call, dict()]:
            return call_number(choice.get("index"), len(choices) - 1, call.get("index"), len(calls) - 1)
        case [dict(), dict(), list() as calls, dict() as call, dict()]:
            return call_number(None, 0, call.get("index"), len(calls) - 1)
        case [dict(), list() as items, dict()]:
            return len(items) - 1
        case [dict() as event, *_]:
            return number(event.get("index", event.get("output_index")))
        case _:
            return 0


def _is_thought(path: Sequence[Any]) -> bool:
    """Whether the part or the item that a walked passage lies in has said that it is reasoning."""
    return any(
        isinstance(value, dict) and (value.get("type") in ("reasoning", "thinking") or "summary" in value)
        for value in path[1:]
    )
