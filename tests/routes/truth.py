"""What is true about one exchange, by the names of `ExchangeFacts`, and how the client's bytes tell it.

The driver keeps every byte that it saw and parses it here with the standard library's JSON parser, whole and
at leisure: nothing is shared with the observer that is held against it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from probes.http.facts import Ending, ErrorKind, ExchangeFacts, FinishReason, Route

Json = Mapping[str, Any]

ROUTES = {
    "/v1/chat/completions": Route.CHAT_COMPLETIONS,
    "/v1/completions": Route.COMPLETIONS,
    "/v1/embeddings": Route.EMBEDDINGS,
    "/api/chat": Route.OLLAMA_CHAT,
    "/api/generate": Route.OLLAMA_GENERATE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """One exchange, as told by whoever cannot be wrong about it."""

    route: Route
    model: str
    status: int
    ending: Ending
    finish: FinishReason = FinishReason.NONE
    error_in_answer: bool = False
    streamed: bool = False
    stream_asked: bool | None = None
    tools_asked: bool = False
    max_tokens: int | None = None
    request_bytes: int = 0
    chunks: int = 0
    content_characters: int = 0
    reasoning_characters: int = 0
    tool_calls: int = 0
    tool_calls_valid: bool | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None


@dataclass
class Recorded:
    """One exchange as the client's own socket saw it."""

    path: str
    request: bytes
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    ended: str = "left"  # "whole", "broken" by the server, or "left" by the client
    duration_s: float = 0.0

    def text(self) -> bytes:
        """Return the body without its content coding, as far as it came."""
        if self.headers.get("content-encoding") == "gzip":
            return zlib.decompressobj(wbits=31).decompress(bytes(self.body))
        return bytes(self.body)

    def truth(self) -> Truth:
        """Say what was true of it."""
        asked = json.loads(self.request)
        media = self.headers.get("content-type", "")
        streamed = media.partition(";")[0] in ("text/event-stream", "application/x-ndjson")
        told = _Told()
        done = False
        for data in events(self.text(), media):
            if data == b"[DONE]":
                done = True
                continue
            told.chunks += streamed
            try:
                done |= told.take(json.loads(data))
            except ValueError:
                continue  # the rest of a cut body
        return Truth(
            route=ROUTES[self.path],
            model=asked["model"],
            status=self.status,
            ending=self._ending(streamed=streamed, done=done, finished=told.finish is not None),
            finish=FinishReason(told.finish) if told.finish else FinishReason.NONE,
            error_in_answer=told.error and self.status < 400,
            streamed=streamed,
            stream_asked=asked.get("stream", False),
            tools_asked=bool(asked.get("tools")),
            max_tokens=asked.get("max_tokens", asked.get("options", {}).get("num_predict")),
            request_bytes=len(self.request),
            chunks=told.chunks,
            content_characters=told.content,
            reasoning_characters=told.reasoning,
            tool_calls=told.calls,
            tool_calls_valid=told.calls_valid,
            prompt_tokens=told.prompt_tokens,
            completion_tokens=told.completion_tokens,
            reasoning_tokens=told.reasoning_tokens,
        )

    def _ending(self, *, streamed: bool, done: bool, finished: bool) -> Ending:
        if self.ended == "broken":
            return Ending.CUT
        if self.ended == "left" and not (done and finished):
            return Ending.CANCELLED
        return Ending.COMPLETE if not streamed or (done and finished) else Ending.UNTERMINATED


class _Told:
    """The sum of an answer's objects."""

    def __init__(self) -> None:
        self.chunks = 0
        self.content = 0
        self.reasoning = 0
        self.finish: str | None = None
        self.error = False
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None
        self.reasoning_tokens: int | None = None
        self._arguments: dict[int, str] = {}
        self._objects = 0  # Ollama's calls, whose arguments are objects and cannot be invalid

    @property
    def calls(self) -> int:
        return len(self._arguments) + self._objects

    @property
    def calls_valid(self) -> bool | None:
        if self.calls == 0:
            return None
        try:
            for arguments in self._arguments.values():
                json.loads(arguments)
        except ValueError:
            return False
        return True

    def take(self, said: Json) -> bool:
        """Add one object; True when it says that it was the last."""
        self.error |= said.get("error") is not None or said.get("object") == "error"
        for choice in said.get("choices", ()):
            self._message(choice.get("message") or choice.get("delta") or {})
            self.content += len(choice.get("text") or "")
            self.finish = choice.get("finish_reason") or self.finish
        if isinstance(said.get("message"), dict):
            self._message(said["message"])
        self.content += len(said.get("response") or "")
        self.reasoning += len(said.get("thinking") or "")
        self.finish = said.get("done_reason") or self.finish
        counts = said.get("usage") or {}
        self.prompt_tokens = counts.get("prompt_tokens", said.get("prompt_eval_count", self.prompt_tokens))
        self.completion_tokens = counts.get(
            "completion_tokens", said.get("eval_count", self.completion_tokens)
        )
        details = counts.get("completion_tokens_details") or {}
        self.reasoning_tokens = details.get("reasoning_tokens", self.reasoning_tokens)
        return bool(said.get("done"))

    def _message(self, message: Json) -> None:
        self.content += len(message.get("content") or "")
        reasoning = (message.get(name) for name in ("reasoning", "reasoning_content", "thinking"))
        self.reasoning += len(next((text for text in reasoning if text), ""))
        for position, call in enumerate(message.get("tool_calls") or ()):
            arguments = call["function"].get("arguments")
            if isinstance(arguments, dict):
                self._objects += 1
            else:
                index = call.get("index", position)
                self._arguments[index] = self._arguments.get(index, "") + (arguments or "")


def events(body: bytes, media: str) -> Iterator[bytes]:
    """Return the data of a stream's events, or the whole body where it is no stream."""
    if media.startswith("application/x-ndjson"):
        yield from (line for line in body.split(b"\n")[:-1] if line)
    elif media.startswith("text/event-stream"):
        *events, _ = body.replace(b"\r\n", b"\n").split(b"\n\n")
        for event in events:
            data = [
                line.removeprefix(b"data:").strip() for line in event.split(b"\n") if line[:5] == b"data:"
            ]
            if data:
                yield b"\n".join(data)
    elif body:
        yield body


@dataclass(frozen=True, slots=True)
class Difference:
    """Where facts and truth part."""

    model: str
    name: str
    true: object
    said: object


def differences(truth: Truth, facts: ExchangeFacts, *, but: frozenset[str] = frozenset()) -> list[Difference]:
    """Hold `facts` against `truth`, field by field."""
    said = {
        "route": facts.name.route,
        "model": facts.name.model,
        **{f.name: getattr(facts, f.name) for f in fields(Truth) if f.name not in ("route", "model")},
    }
    return [
        Difference(truth.model, name, getattr(truth, name), said[name])
        for name in said
        if name not in but and getattr(truth, name) != said[name]
    ]


__all__ = ["ROUTES", "Difference", "ErrorKind", "Recorded", "Truth", "differences"]
