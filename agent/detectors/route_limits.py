"""F08 route.context_overflow: prompts that are longer than the model's context.

A server that says so is believed (`context_overflow` as the error of an answer); a share of such answers is a
case, because one long session of one client is not.

Ollama does not say so: it drops the middle of the prompt and answers. Then different large requests all count
exactly the same number of prompt tokens, far fewer than their bytes hold, that number is a context's (near a
multiple of 512), and no request of the route ever counts more. Its count leaves out what the prefix cache
held, but a cache leaves a different rest each time, and equal requests are no witness, so sizes must differ.
Pictures in a prompt cost many bytes and few tokens, also the same number each time; they stay below a context
or away from a round number, and a single longer text ends the suspicion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Self

from msgspec import Meta

from agent.detector import DetectorConfig, FaultNote, Surroundings, Tick
from agent.finding import Finding, Hysteresis
from agent.routes.names import GENERATING, MODEL_ROUTES, SENSOR
from agent.routes.rates import RateConfig, RouteRates, Rule, Sign
from agent.routes.window import RouteTable
from escalation.model import FaultClass, ReasonCode, Severity, Subject
from probes.http.facts import Ending, ErrorKind, ExchangeFacts, Route, RouteName
from probes.observation import Exchange, Observation, ServerKind

_FAULT = FaultClass.ROUTE_CONTEXT_OVERFLOW
_SIGNS: Final = (
    Sign(fault=_FAULT, code=ReasonCode.PROMPTS_TOO_LONG, severity=Severity.MEDIUM),
    Sign(fault=_FAULT, code=ReasonCode.PROMPTS_CUT_SILENTLY, severity=Severity.MEDIUM, apart=True),
)
_REJECTED, _CUT = range(2)
_NEVER: Final = Rule(affected_min=2**31, share_min=1.0)
_OLLAMA: Final = frozenset({Route.OLLAMA_CHAT, Route.OLLAMA_GENERATE})

_CONTEXT_MIN: Final = 1024
_CONTEXT_STEP: Final = 512
_CONTEXT_SLACK: Final = 16
_SPREAD: Final = 1.25
"""How much larger the largest request of a plateau is than the smallest: they are different requests."""


class Config(RateConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When prompts beyond the context become a case."""

    bytes_per_token_min: Annotated[float, Meta(gt=0)] = 8.0


@dataclass(slots=True)
class _Plateau:
    """The largest count of prompt tokens of one route, and the large requests that had exactly it."""

    name: RouteName
    subject: Subject
    used_ns: int = 0
    tokens: int = 0
    requests: int = 0
    smallest_bytes: int = 0
    largest_bytes: int = 0


class RouteLimits:
    """Says which routes refuse prompts as too long, or cut them without a word."""

    NAME: ClassVar[str] = "route_limits"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_FAULT,
            severity=(Severity.MEDIUM,),
            sensors=(SENSOR,),
            opens="Answers that refuse the prompt as longer than the context: at least `affected_min` in "
            "`window_s`, and certainly `share_min` of all. Or, on Ollama, `affected_min` large requests of "
            "different size (`bytes_per_token_min`) that count exactly the same, round number of prompt "
            "tokens, which no request exceeds.",
            quiet="One client that sends too much now and then; counts that a prefix cache lowers; the same "
            "request again; pictures; other bad requests.",
            clears="So many prompts in a row fit that the old share cannot still be there (10 divided by "
            "it, from `good_min` to `good_max`).",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._rates = RouteRates(config=config, surroundings=surroundings, signs=_SIGNS)
        self._plateaus: RouteTable[_Plateau] = RouteTable(_Plateau)
        self._cut_rule = Rule(affected_min=config.affected_min, share_min=0.0)

    def __repr__(self) -> str:
        return f"RouteLimits({self._rates!r})"

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """The counting is done in the rates."""
        return self._rates.hysteresis

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Judge whether one prompt fitted."""
        if isinstance(observation, Exchange):
            found = self._judge(observation)
            return (found,) if found else ()
        return self._rates.unseen(observation)

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Clear the cases of routes whose prompts fit again."""
        return self._rates.tick(tick)

    def _judge(self, exchange: Exchange) -> Finding | None:
        facts = exchange.facts
        if facts.error is ErrorKind.UNKNOWN_MODEL:
            self._rates.unknown(exchange)
            return None
        if facts.name.route not in MODEL_ROUTES:
            return None
        if facts.error is ErrorKind.CONTEXT_OVERFLOW:
            return self._rates.bad(exchange, _REJECTED)
        if facts.status != 200 or facts.ending is not Ending.COMPLETE or facts.error_in_answer:
            return None
        if _may_cut(exchange):
            return self._maybe_cut(exchange)
        self._rates.good(exchange)
        return None

    def _maybe_cut(self, exchange: Exchange) -> Finding | None:
        """Judge an answer that does not say whether it read the whole prompt.

        That a short prompt fits says nothing of a long one: only what counts as many tokens as a context
        might have, and about as many as its bytes hold, is good.
        """
        facts = exchange.facts
        tokens = facts.prompt_tokens or 0
        plateau = self._plateaus.of(facts.name, exchange.at.boot_ns)
        if self._on_plateau(plateau, facts):
            rule = self._cut_rule if self._is_limit(plateau) else _NEVER
            return self._rates.bad(exchange, _CUT, rule=rule)
        in_full = facts.request_bytes < tokens * self._config.bytes_per_token_min
        beyond = tokens >= plateau.tokens or not self._is_limit(plateau)
        if tokens >= _CONTEXT_MIN and in_full and beyond:
            self._rates.good(exchange)
        return None

    def _on_plateau(self, plateau: _Plateau, facts: ExchangeFacts) -> bool:
        """Note one count of tokens; return whether it is the plateau's and too small for its bytes."""
        tokens = facts.prompt_tokens or 0
        large = facts.request_bytes >= tokens * self._config.bytes_per_token_min
        if tokens > plateau.tokens:
            plateau.tokens = tokens
            plateau.requests = 0
            plateau.smallest_bytes = plateau.largest_bytes = facts.request_bytes
        if tokens < plateau.tokens or not large or not _is_context(tokens):
            return False
        plateau.requests += 1
        plateau.smallest_bytes = min(plateau.smallest_bytes, facts.request_bytes)
        plateau.largest_bytes = max(plateau.largest_bytes, facts.request_bytes)
        return True

    def _is_limit(self, plateau: _Plateau) -> bool:
        return (
            plateau.requests >= self._config.affected_min
            and plateau.largest_bytes >= _SPREAD * plateau.smallest_bytes
        )


def _may_cut(exchange: Exchange) -> bool:
    """Whether the server is one that cuts prompts without a word."""
    route = exchange.facts.name.route
    return route in _OLLAMA or (exchange.origin.server is ServerKind.OLLAMA and route in GENERATING)


def _is_context(tokens: int) -> bool:
    """Whether `tokens` is a number that contexts have: 1024 or more, and next to a multiple of 512."""
    off = (tokens + _CONTEXT_SLACK) % _CONTEXT_STEP
    return tokens >= _CONTEXT_MIN and off <= 2 * _CONTEXT_SLACK
