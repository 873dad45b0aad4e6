"""What kind of answer an exchange was: good, or bad in one of the ways that a status of 200 hides.

The order decides where two would fit: broken text before a spent budget (a model that thinks in a loop is not
cured by more tokens), a spent budget before a misrouted answer, that before an empty one. What the facts do
not show is UNJUDGED, and counts for nothing.

Never bad: no content beside tool calls, routes whose answer is no text, `length` with something to read, a
refusal of the content filter, an aborted answer, Ollama's answer to a request that only loads or unloads, and
the tiny budgets of health probes.
"""

from __future__ import annotations

import enum
from typing import Final

from agent.routes.names import GENERATING
from probes.http.facts import Ending, ExchangeFacts, FinishReason, TextMeasure

PROBE_TOKENS: Final = 8
"""A budget of at most this many tokens is a probe's: nobody expects a whole answer from it."""

TRIVIAL_BYTES: Final = 80
"""A request that is not longer holds no more than a greeting, and silence may be the answer to it."""

_LOOP_CHARACTERS: Final = 400
_LOOP_REPEATED: Final = 0.8
"""JSON and lists of like items that the token limit cut were measured at 0.58 to 0.73, loops above 0.85."""

_RUN: Final = 64
_RUN_SHARE: Final = 0.5
_BLANK: Final = 0.95
_UNDECODABLE: Final = 0.2
_UNDECODABLE_CHARACTERS: Final = 40
_SPENT: Final = 0.9
"""A budget is spent on thinking when this share of the tokens is."""

_NO_ANSWER_EXPECTED: Final = frozenset(
    {FinishReason.CONTENT_FILTER, FinishReason.ABORT, FinishReason.ERROR, FinishReason.OTHER}
)


class Answer(enum.Enum):
    """How an answer came out."""

    GOOD = "good"
    UNJUDGED = "unjudged"
    EMPTY = "empty"
    BUDGET = "budget"
    IN_REASONING = "in_reasoning"  # the answer stands where only thinking should
    MARKED = "marked"  # thinking stands in the answer, with its marks
    LOOP = "loop"
    ONE_CHARACTER = "one_character"
    BLANK = "blank"
    UNDECODABLE = "undecodable"


def answer_of(facts: ExchangeFacts) -> Answer:
    """Return how the answer of `facts` came out."""
    if (
        facts.status != 200
        or facts.ending is not Ending.COMPLETE
        or facts.name.route not in GENERATING
        or facts.error_in_answer
        or facts.error is not None
    ):
        return Answer.UNJUDGED
    if facts.tool_calls:
        return Answer.UNJUDGED if facts.tool_calls_valid is False else Answer.GOOD
    if not facts.choices_seen and facts.completion_tokens is None:
        return Answer.UNJUDGED
    text = facts.content
    if facts.content_characters:
        if text is None:
            return Answer.GOOD
        broken = _broken(text, facts.finish)
        if broken is not None:
            return broken
        if text.whitespace < 1.0:
            return Answer.MARKED if facts.reasoning_marks_in_content else Answer.GOOD
    return _nothing_to_read(facts)


def _nothing_to_read(facts: ExchangeFacts) -> Answer:
    if facts.finish in _NO_ANSWER_EXPECTED:
        return Answer.UNJUDGED
    if facts.finish is not FinishReason.LENGTH:
        return Answer.IN_REASONING if facts.reasoning_characters else Answer.EMPTY
    if facts.max_tokens is not None and facts.max_tokens <= PROBE_TOKENS:
        return Answer.UNJUDGED
    if facts.reasoning is not None and (broken := _broken(facts.reasoning, facts.finish)) is not None:
        return broken
    return Answer.BUDGET if _spent_on_thinking(facts) else Answer.EMPTY


def _spent_on_thinking(facts: ExchangeFacts) -> bool:
    """Whether the tokens went into thinking, shown or told or (where neither is) all used up unseen."""
    if facts.reasoning_characters:
        return True
    spent = facts.completion_tokens
    if not spent:
        return False
    if facts.reasoning_tokens is not None:
        return facts.reasoning_tokens >= _SPENT * spent
    return facts.max_tokens is not None and spent >= facts.max_tokens


def _broken(text: TextMeasure, finish: FinishReason) -> Answer | None:
    """Return in which way `text` cannot be meant, None where it may be.

    Lists, tables and JSON repeat themselves and then stop: a loop is what never stops by itself.
    """
    if text.characters >= _RUN and text.whitespace >= _BLANK:
        return Answer.BLANK
    if text.longest_run >= _RUN and text.longest_run >= _RUN_SHARE * text.characters:
        return Answer.ONE_CHARACTER
    if text.characters >= _UNDECODABLE_CHARACTERS and text.undecodable >= _UNDECODABLE:
        return Answer.UNDECODABLE
    if (
        finish is FinishReason.LENGTH
        and text.characters >= _LOOP_CHARACTERS
        and text.repeated >= _LOOP_REPEATED
    ):
        return Answer.LOOP
    return None
