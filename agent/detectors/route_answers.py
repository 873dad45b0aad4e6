"""F01 route.empty_completion, F02 route.reasoning_budget_exhausted, F03 route.answer_misrouted, F05
route.degenerate_output: answers with status 200 that are no answers.

Each whole answer is exactly one of good, empty, budget spent, misrouted, degenerate or not to be judged
(`agent.routes.answer`), so one cause opens one case. A single one is a fact; a share of them is a case
(`agent.routes.rates`). Three signs are weighed:

* To an editor that asks for the rest of a line, nothing is a fair answer: on routes that complete text, empty
  answers must be the rule (`completion_share_min`).
* Thinking that stands in the content, with its marks, is how some clients want it, and texts about models
  quote such marks: it must be the rule too (`marked_share_min`).
* An empty answer to a request that holds no more than a greeting counts half.

A text that cannot be meant is read off the text alone. Where the engine's own finish reason agrees (it ran
until the token limit), there are two witnesses; where it does not, the case is a note.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Final, Self

from msgspec import Meta

from agent.detector import DetectorConfig, FaultNote, Surroundings, Tick
from agent.finding import Finding, Hysteresis
from agent.routes.answer import TRIVIAL_BYTES, Answer, answer_of
from agent.routes.direct_answers import NOTHING_TO_READ, DirectAnswers, is_of_ui
from agent.routes.names import COMPLETING, SENSOR
from agent.routes.rates import RateConfig, RouteRates, Rule, Sign
from escalation.model import FaultClass, Reason, ReasonCode, Severity
from probes.http.facts import ErrorKind, ExchangeFacts, FinishReason
from probes.observation import Exchange, Observation

_EMPTY = FaultClass.ROUTE_EMPTY_COMPLETION
_BUDGET = FaultClass.ROUTE_REASONING_BUDGET_EXHAUSTED
_MISROUTED = FaultClass.ROUTE_ANSWER_MISROUTED
_DEGENERATE = FaultClass.ROUTE_DEGENERATE_OUTPUT

_CLEARS: Final = (
    "So many answers in a row are good that the old share cannot still be there (10 divided by it, from "
    "`good_min` to `good_max`), in the mode (streamed or whole) that had failed; or `removed_min` requests "
    "in a row are refused because there is no such model any more."
)


class Config(RateConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When answers that are none become a case."""

    completion_share_min: Annotated[float, Meta(ge=0, le=1)] = 0.6
    marked_share_min: Annotated[float, Meta(ge=0, le=1)] = 0.5


def _degenerate(code: ReasonCode, *, witnessed: bool) -> Sign:
    return Sign(fault=_DEGENERATE, code=code, severity=Severity.CRITICAL, witnessed=witnessed)


_TRIVIAL: Final = "trivial"
_SIGNS: Final[Mapping[tuple[Answer, bool] | str, Sign]] = {
    (Answer.EMPTY, False): Sign(fault=_EMPTY, code=ReasonCode.ANSWERS_EMPTY, severity=Severity.HIGH),
    _TRIVIAL: Sign(fault=_EMPTY, code=ReasonCode.ANSWERS_EMPTY, severity=Severity.HIGH, weight=0.5),
    (Answer.BUDGET, True): Sign(
        fault=_BUDGET, code=ReasonCode.BUDGET_SPENT_ON_REASONING, severity=Severity.MEDIUM
    ),
    (Answer.IN_REASONING, False): Sign(
        fault=_MISROUTED, code=ReasonCode.ANSWER_IN_REASONING_FIELD, severity=Severity.HIGH
    ),
    (Answer.MARKED, False): Sign(
        fault=_MISROUTED, code=ReasonCode.REASONING_MARKS_IN_CONTENT, severity=Severity.HIGH, apart=True
    ),
    (Answer.LOOP, True): _degenerate(ReasonCode.TEXT_REPEATS, witnessed=True),
    (Answer.ONE_CHARACTER, True): _degenerate(ReasonCode.TEXT_IS_ONE_CHARACTER, witnessed=True),
    (Answer.ONE_CHARACTER, False): _degenerate(ReasonCode.TEXT_IS_ONE_CHARACTER, witnessed=False),
    (Answer.BLANK, True): _degenerate(ReasonCode.TEXT_IS_BLANK, witnessed=True),
    (Answer.BLANK, False): _degenerate(ReasonCode.TEXT_IS_BLANK, witnessed=False),
    (Answer.UNDECODABLE, True): _degenerate(ReasonCode.TEXT_UNDECODABLE, witnessed=True),
    (Answer.UNDECODABLE, False): _degenerate(ReasonCode.TEXT_UNDECODABLE, witnessed=False),
}
"""How an answer came out, and whether it ended for its length, to what that is a sign of."""

_NUMBERS: Final[Mapping[tuple[Answer, bool] | str, int]] = {key: n for n, key in enumerate(_SIGNS)}


class RouteAnswers:
    """Says which routes answer with nothing, with thinking alone, or with what cannot be meant."""

    NAME: ClassVar[str] = "route_answers"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_EMPTY,
            severity=(Severity.HIGH,),
            sensors=(SENSOR,),
            opens="Whole answers with status 200 that hold no content, no tool call and no reasoning: at "
            "least `affected_min` in `window_s`, and certainly `share_min` of the answers "
            "(`completion_share_min` on routes that complete text).",
            quiet="Tool calls without content; embeddings, audio and other routes that answer no text; the "
            "empty first chunk of a stream; refusals of a content filter; requests that only load a model; "
            "probes of at most 8 tokens; a few empty answers among many; greetings count half; a user "
            "interface whose servers answer well (`ui.blank_answers`).",
            clears=_CLEARS,
        ),
        FaultNote(
            fault_class=_BUDGET,
            severity=(Severity.MEDIUM,),
            sensors=(SENSOR,),
            opens="Answers that end for their length with nothing to read, while reasoning was shown or "
            "counted or all allowed tokens were used: `affected_min` and `share_min` as above.",
            quiet="Ordinary truncation (`length` with content); probes of at most 8 tokens.",
            clears=_CLEARS,
        ),
        FaultNote(
            fault_class=_MISROUTED,
            severity=(Severity.HIGH,),
            sensors=(SENSOR,),
            opens="Answers that stop by themselves with reasoning and no content (`share_min`), or with the "
            "marks of reasoning in their content (`marked_share_min`).",
            quiet="Reasoning that ended for its length (that is a spent budget); reasoning beside content or "
            "tool calls; texts that quote such marks now and then.",
            clears=_CLEARS,
        ),
        FaultNote(
            fault_class=_DEGENERATE,
            severity=(Severity.NOTE, Severity.CRITICAL),
            sensors=(SENSOR,),
            opens="Texts that repeat themselves until the token limit (80 % of at least 400 characters), are "
            "one character for the better part (64 or more in a row), blank (95 %), or no text (20 % "
            "undecodable): `affected_min` and `share_min`. A note where most of them stopped by themselves.",
            quiet="Lists, tables, code and JSON, which repeat and then stop; rulers and padding inside a "
            "text; short answers; one loop among many answers.",
            clears=_CLEARS,
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._rates = RouteRates(config=config, surroundings=surroundings, signs=tuple(_SIGNS.values()))
        self._behind = DirectAnswers(window_s=config.window_s)
        self._often = Rule(affected_min=config.affected_min, share_min=config.share_min)
        self._completing = Rule(affected_min=config.affected_min, share_min=config.completion_share_min)
        self._marked = Rule(affected_min=config.affected_min, share_min=config.marked_share_min)

    def __repr__(self) -> str:
        return f"RouteAnswers({self._rates!r})"

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """The counting is done in the rates."""
        return self._rates.hysteresis

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Judge one answer."""
        if isinstance(observation, Exchange):
            found = self._judge(observation)
            return (found,) if found else ()
        return self._rates.unseen(observation)

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Clear the cases of routes whose answers are good again."""
        return self._rates.tick(tick)

    def _judge(self, exchange: Exchange) -> Finding | None:
        facts = exchange.facts
        if facts.error is ErrorKind.UNKNOWN_MODEL:
            self._rates.unknown(exchange)
            return None
        answer = answer_of(facts)
        self._behind.take(exchange)
        if answer is Answer.UNJUDGED or self._is_the_pages(exchange, answer):
            return None
        if answer is Answer.GOOD:
            self._rates.good(exchange)
            return None
        return self._rates.bad(
            exchange, _number(answer, facts), rule=self._rule(answer, facts), also=_usage(answer, facts)
        )

    def _is_the_pages(self, exchange: Exchange, answer: Answer) -> bool:
        """Whether a user interface shows nothing of answers that are there: `ui.blank_answers` says it."""
        if answer not in NOTHING_TO_READ or not is_of_ui(exchange):
            return False
        return self._behind.good_behind(exchange.facts.name, exchange.at.boot_ns) > 0

    def _rule(self, answer: Answer, facts: ExchangeFacts) -> Rule:
        if answer is Answer.MARKED:
            return self._marked
        if answer is Answer.EMPTY and facts.name.route in COMPLETING:
            return self._completing
        return self._often


def _number(answer: Answer, facts: ExchangeFacts) -> int:
    if answer is Answer.EMPTY and 0 < facts.request_bytes <= TRIVIAL_BYTES:
        return _NUMBERS[_TRIVIAL]
    key = (answer, facts.finish is FinishReason.LENGTH)
    return _NUMBERS[key] if key in _NUMBERS else _NUMBERS[answer, not key[1]]


def _usage(answer: Answer, facts: ExchangeFacts) -> Sequence[Reason]:
    """Return what the server's own count of tokens says to it, where it gave one."""
    agrees = {
        Answer.EMPTY: facts.completion_tokens is not None,
        Answer.BUDGET: facts.completion_tokens is not None and facts.completion_tokens > 0,
    }.get(answer, False)
    return (Reason(ReasonCode.USAGE_AGREES, count=facts.completion_tokens or 0),) if agrees else ()
