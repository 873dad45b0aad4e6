"""Reads the answer objects of every kind of model server into one account of the answer.

OpenAI's chat and plain completions as vLLM, llama.cpp, LiteLLM, Ollama and TensorRT-LLM send them (with their
three names for the reasoning field), the responses API, Anthropic's messages, and Ollama's own NDJSON. An
object is a whole answer or one event of a stream.
"""

from __future__ import annotations

from typing import Any

from probes.http.content import Content, call_number, number
from probes.http.errors import error_in
from probes.http.json_walk import STREAMED, Passage
from probes.http.request import model_name
from probes.http.watched import REASONING_KEYS


def read(content: Content, document: Any, *, status: int) -> None:
    """Read one answer object or event; what was passed on of it has been taken before."""
    if not isinstance(document, dict):
        return
    if content.model is None:
        content.model = model_name(document.get("model"))
    error = error_in(document)
    if error is None and status >= 400 and document:
        error = document
    if error is not None:
        content.fail(error)
    _usage(content, document.get("usage"))
    choices, kind = document.get("choices"), document.get("type")
    if isinstance(choices, list):
        for position, choice in enumerate(choices):
            if isinstance(choice, dict):
                _choice(content, choice, position)
    elif isinstance(kind, str):
        _typed(content, kind, document)
    elif document.get("object") == "response":
        _whole_response(content, document)
    elif error is None:
        _native(content, document)


def _choice(content: Content, choice: dict[str, Any], position: int) -> None:
    content.answers += 1
    index = number(choice.get("index"), position)
    for name in ("message", "delta"):
        message = choice.get(name)
        if isinstance(message, dict):
            _message(content, message, index)
    content.text(Passage.CONTENT, choice.get("text"))
    content.stop(choice.get("finish_reason"))


def _message(content: Content, message: dict[str, Any], choice: int) -> None:
    said = message.get("content")
    if isinstance(said, list):
        _parts(content, said)
    else:
        content.text(Passage.CONTENT, said)
    for name, value in message.items():
        if name in REASONING_KEYS and isinstance(value, str) and value:
            content.text(Passage.REASONING, value)
            break
    calls = message.get("tool_calls")
    for place, call in enumerate(calls if isinstance(calls, list) else ()):
        if isinstance(call, dict):
            _tool_call(content, call, choice, place)
    single = message.get("function_call")
    if isinstance(single, dict):
        content.arguments(call_number(choice, 0, None, 0), single.get("arguments"))


def _tool_call(content: Content, call: dict[str, Any], choice: int, place: int) -> None:
    function = call.get("function")
    arguments = function.get("arguments") if isinstance(function, dict) else None
    if isinstance(arguments, dict) and "index" not in call:  # Ollama's own: each is whole, and has no number
        content.arguments(call_number(choice, 0, content.tool_calls, 0), None)
    else:
        content.arguments(call_number(choice, 0, call.get("index"), place), arguments)


def _parts(content: Content, parts: list[Any]) -> None:
    for part in parts:
        if not isinstance(part, dict):
            continue
        kind = part.get("type")
        if kind == "tool_use":
            content.arguments(content.tool_calls, None)
        elif kind == "thinking":
            content.text(Passage.REASONING, part.get("thinking"))
        else:
            content.text(Passage.CONTENT, part.get("text"))


def _usage(content: Content, usage: object) -> None:
    if not isinstance(usage, dict):
        return
    details = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
    content.count(
        prompt=usage.get("prompt_tokens", usage.get("input_tokens")),
        completion=usage.get("completion_tokens", usage.get("output_tokens")),
        reasoning=details.get("reasoning_tokens") if isinstance(details, dict) else None,
    )


def _native(content: Content, document: dict[str, Any]) -> None:
    """Ollama's own: /api/chat has `message`, /api/generate `response`."""
    message, response = document.get("message"), document.get("response")
    if isinstance(message, dict):
        content.answers += 1
        _message(content, message, 0)
    elif isinstance(response, str) or response is STREAMED:
        content.answers += 1
        content.text(Passage.CONTENT, response)
        content.text(Passage.REASONING, document.get("thinking"))
    if document.get("done") is True:
        content.done = True
        content.stop(document.get("done_reason") or "stop")
        content.count(prompt=document.get("prompt_eval_count"), completion=document.get("eval_count"))


def _typed(content: Content, kind: str, document: dict[str, Any]) -> None:
    """Anthropic's messages and their events; the events of the responses API."""
    delta = document.get("delta")
    content.extras += kind not in ("content_block_delta", "response.output_text.delta")
    match kind:
        case "message":
            content.answers += 1
            parts = document.get("content")
            _parts(content, parts if isinstance(parts, list) else [])
            content.stop(document.get("stop_reason"))
        case "message_start":
            content.answers += 1
            message = document.get("message")
            if isinstance(message, dict):
                content.model = content.model or model_name(message.get("model"))
                _usage(content, message.get("usage"))
        case "content_block_start":
            block = document.get("content_block")
            if isinstance(block, dict) and block.get("type") == "tool_use":
                content.arguments(number(document.get("index")), None)
        case "content_block_delta" if isinstance(delta, dict):
            if "partial_json" in delta:
                content.arguments(number(document.get("index")), delta["partial_json"])
            content.text(Passage.CONTENT, delta.get("text"))
            content.text(Passage.REASONING, delta.get("thinking"))
        case "message_delta" if isinstance(delta, dict):
            content.stop(delta.get("stop_reason"))
        case "message_stop":
            content.done = True
        case _ if kind.startswith("response."):
            _response_event(content, kind, document)


def _response_event(content: Content, kind: str, document: dict[str, Any]) -> None:
    delta, response = document.get("delta"), document.get("response")
    if kind in ("response.output_text.delta", "response.refusal.delta"):
        content.text(Passage.CONTENT, delta)
    elif kind == "response.function_call_arguments.delta":
        content.arguments(number(document.get("output_index")), delta)
    elif kind.startswith("response.reasoning") and kind.endswith(".delta"):
        content.text(Passage.REASONING, delta)
    elif isinstance(response, dict):
        content.answers += 1
        content.model = content.model or model_name(response.get("model"))
        if kind in ("response.completed", "response.incomplete", "response.failed"):
            content.done = True
            _usage(content, response.get("usage"))
            if response.get("error"):
                content.fail(response["error"])
            _response_stop(content, response)


def _whole_response(content: Content, response: dict[str, Any]) -> None:
    content.answers += 1
    output = response.get("output")
    for place, item in enumerate(output if isinstance(output, list) else ()):
        if not isinstance(item, dict):
            continue
        kind = item.get("type")
        if kind == "function_call":
            content.arguments(place, item.get("arguments"))
        for name in ("summary", "content"):
            parts = item.get(name)
            for part in parts if isinstance(parts, list) else ():
                if isinstance(part, dict):
                    passage = Passage.REASONING if kind == "reasoning" else Passage.CONTENT
                    content.text(passage, part.get("text"))
    _response_stop(content, response)


def _response_stop(content: Content, response: dict[str, Any]) -> None:
    details = response.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    status = response.get("status")
    if status == "completed" and content.tool_calls:
        content.stop("tool_calls")
    elif status in ("completed", "incomplete", "failed", "cancelled"):
        content.stop(reason or status)
