"""Which members of an answer object are wanted when it is too large to be parsed whole: see `shapes`."""

from __future__ import annotations

from typing import Final

from probes.http.json_walk import Passage, Watch

REASONING_KEYS: Final = ("reasoning", "reasoning_content", "thinking")

_LEAF: Final = Watch()
_CONTENT: Final = Watch(Passage.CONTENT)
_THOUGHT: Final = Watch(Passage.REASONING)
_ARGUMENTS: Final = Watch(Passage.ARGUMENTS)
_PART: Final = Watch(members={"type": _LEAF, "text": _CONTENT, "thinking": _THOUGHT, "id": _LEAF})
_FUNCTION: Final = Watch(members={"arguments": _ARGUMENTS})
_CALL: Final = Watch(members={"index": _LEAF, "function": _FUNCTION})
_MESSAGE: Final = Watch(
    members={
        "content": Watch(Passage.CONTENT, elements=_PART),
        **dict.fromkeys(REASONING_KEYS, _THOUGHT),
        "tool_calls": Watch(elements=_CALL),
        "function_call": _FUNCTION,
    }
)
_CHOICE: Final = Watch(
    members={"message": _MESSAGE, "delta": _MESSAGE, "text": _CONTENT, "finish_reason": _LEAF, "index": _LEAF}
)
_DETAILS: Final = Watch(members={"reasoning_tokens": _LEAF})
_USAGE: Final = Watch(
    members={
        **dict.fromkeys(("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens"), _LEAF),
        "completion_tokens_details": _DETAILS,
        "output_tokens_details": _DETAILS,
    }
)
_ERROR: Final = Watch(members=dict.fromkeys(("message", "type", "code", "detail"), _LEAF))
_SUMMARY: Final = Watch(elements=Watch(members={"type": _LEAF, "text": _THOUGHT}))
_ITEM: Final = Watch(
    members={
        "type": _LEAF,
        "id": _LEAF,
        "content": Watch(elements=Watch(members={"type": _LEAF, "text": _CONTENT})),
        "summary": _SUMMARY,
        "arguments": _ARGUMENTS,
    }
)
_STATUS: Final = {"status": _LEAF, "incomplete_details": Watch(members={"reason": _LEAF}), "usage": _USAGE}
ANSWER: Final = Watch(
    members={
        **dict.fromkeys(("model", "object", "type", "code", "detail", "stop_reason"), _LEAF),
        **dict.fromkeys(("done", "done_reason", "prompt_eval_count", "eval_count", "index"), _LEAF),
        **_STATUS,
        "choices": Watch(elements=_CHOICE),
        "error": _ERROR,
        "message": _MESSAGE,
        "response": Watch(Passage.CONTENT, members={**_STATUS, "model": _LEAF, "error": _ERROR}),
        "thinking": _THOUGHT,
        "content": Watch(elements=_PART),
        "output": Watch(elements=_ITEM),
        "delta": Watch(
            Passage.CONTENT,
            members={
                "type": _LEAF,
                "text": _CONTENT,
                "thinking": _THOUGHT,
                "partial_json": _ARGUMENTS,
                "stop_reason": _LEAF,
            },
        ),
    }
)
