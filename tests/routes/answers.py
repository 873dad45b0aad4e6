"""What model servers say, byte for byte: the wire shapes of vLLM, Ollama, llama.cpp and TensorRT-LLM.

An answer is a script: what to write in one piece, when to pause, how to end. Every server of `served/` plays
it, so that one table of scenarios is true for all of them.
"""

from __future__ import annotations

import base64
import enum
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

CREATED: Final = 1_700_000_000
PAUSE_MS: Final = 3


class End(enum.StrEnum):
    """How a server leaves an answer."""

    DONE = "done"  # as the protocol says
    FIN = "fin"  # closes the connection in the middle
    RESET = "reset"  # resets it in the middle
    WAIT = "wait"  # says nothing more until the client has gone, for ten seconds at most
    SILENT = "silent"  # the same, and not even a status line


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One response as a script. `declared` is its Content-Length; None is chunked."""

    writes: tuple[bytes, ...]
    status: int = 200
    content_type: str = "application/json"
    declared: int | None = None
    pause_ms: int = 0
    end: End = End.DONE

    def as_json(self) -> dict[str, object]:
        """Return what the servers read."""
        return {
            "status": self.status,
            "content_type": self.content_type,
            "length": self.declared,
            "writes": [base64.b64encode(piece).decode() for piece in self.writes],
            "pause_ms": self.pause_ms,
            "end": self.end.value,
        }


def whole(body: object, *, status: int = 200, ascii_only: bool = True, end: End = End.DONE) -> Answer:
    """A JSON body with its Content-Length; ended in the middle it stops after two thirds."""
    data = json.dumps(body, ensure_ascii=ascii_only).encode()
    kept = data if end is End.DONE else data[: len(data) * 2 // 3]
    return Answer(
        writes=(kept,),
        status=status,
        declared=len(data),
        pause_ms=0 if end is End.DONE else 60,
        end=end,
    )


def usage(prompt: int, completion: int, reasoning: int | None = None) -> dict[str, object]:
    """The usage object of the OpenAI shape."""
    counts: dict[str, object] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if reasoning is not None:
        counts["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return counts


def tool_call(arguments: str, *, index: int = 0, name: str = "get_weather") -> dict[str, object]:
    """A call as an answer holds it; `arguments` is JSON, or should be."""
    function = {"name": name, "arguments": arguments}
    return {"index": index, "id": f"call_{index}", "type": "function", "function": function}


def chat(
    model: str,
    content: str | None,
    finish: str | None = "stop",
    *,
    reasoning: str | None = None,
    reasoning_field: str = "reasoning",
    tool_calls: Sequence[dict[str, object]] | None = None,
    counts: dict[str, object] | None = None,
) -> dict[str, object]:
    """A whole chat completion."""
    message: dict[str, object] = {"role": "assistant", "content": content}
    if reasoning is not None:
        message[reasoning_field] = reasoning
    if tool_calls is not None:
        message["tool_calls"] = list(tool_calls)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish, "stop_reason": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": CREATED,
        "model": model,
        "choices": [choice],
        "usage": counts if counts is not None else usage(17, 5),
    }


def completion(model: str, text: str, finish: str | None = "stop") -> dict[str, object]:
    """A whole text completion."""
    return {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": CREATED,
        "model": model,
        "choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": finish}],
        "usage": usage(9, 4),
    }


def embeddings(model: str) -> dict[str, object]:
    """An embedding: right without any text."""
    return {
        "object": "list",
        "model": model,
        "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5, 0.125]}],
        "usage": {"prompt_tokens": 6, "total_tokens": 6},
    }


def openai_error(message: str, kind: str, code: object) -> dict[str, object]:
    """The error object of vLLM and LiteLLM."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def flat_error(message: str, kind: str, code: int) -> dict[str, object]:
    """The error object of TensorRT-LLM."""
    return {"object": "error", "message": message, "type": kind, "param": None, "code": code}


# --- streams


def chunk(
    model: str, delta: dict[str, object] | None, finish: str | None = None, **more: object
) -> dict[str, object]:
    """One event of a chat stream; no delta is the usage chunk's empty list of choices."""
    choices = (
        [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
    )
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": model,
        "choices": choices,
        **more,
    }


def deltas(model: str, texts: Iterable[str], *, field: str = "content") -> list[dict[str, object]]:
    """The opening chunk with its empty content, then one chunk a text."""
    return [chunk(model, {"role": "assistant", "content": ""}), *(chunk(model, {field: t}) for t in texts)]


def event(data: object, *, ascii_only: bool = True, newline: str = "\n") -> bytes:
    """One server-sent event."""
    return f"data: {json.dumps(data, ensure_ascii=ascii_only)}{newline}{newline}".encode()


DONE: Final = b"data: [DONE]\n\n"


def stream(
    events: Iterable[object],
    *,
    done: bool = True,
    end: End = End.DONE,
    in_one_write: bool = False,
    ascii_only: bool = True,
    newline: str = "\n",
    pause_ms: int = PAUSE_MS,
) -> Answer:
    """A stream of server-sent events, one write an event unless `in_one_write`."""
    pieces = [event(e, ascii_only=ascii_only, newline=newline) for e in events]
    if done:
        pieces.append(DONE.replace(b"\n", newline.encode()))
    writes = (b"".join(pieces),) if in_one_write else tuple(pieces)
    return Answer(writes=writes, content_type="text/event-stream", pause_ms=pause_ms, end=end)


def lines(objects: Iterable[object], *, end: End = End.DONE) -> Answer:
    """Ollama's stream: one JSON object a line."""
    writes = tuple(json.dumps(o, ensure_ascii=False).encode() + b"\n" for o in objects)
    return Answer(writes=writes, content_type="application/x-ndjson", pause_ms=PAUSE_MS, end=end)


# --- Ollama's own shapes


def ollama_message(model: str, content: str, **more: object) -> dict[str, object]:
    """One line of /api/chat, or the whole of it."""
    message = {"role": "assistant", "content": content, **more}
    return {"model": model, "created_at": "2026-01-01T00:00:00Z", "message": message, "done": False}


def ollama_text(model: str, response: str, **more: object) -> dict[str, object]:
    """One line of /api/generate, or the whole of it."""
    return {"model": model, "created_at": "2026-01-01T00:00:00Z", "response": response, "done": False, **more}


def ollama_done(line: dict[str, object], reason: str, prompt: int, completion_: int) -> dict[str, object]:
    """`line` as the last one."""
    return {
        **line,
        "done": True,
        "done_reason": reason,
        "total_duration": 5_000_000,
        "load_duration": 1_000_000,
        "prompt_eval_count": prompt,
        "prompt_eval_duration": 1_000_000,
        "eval_count": completion_,
        "eval_duration": 2_000_000,
    }
