"""Exchanges counted by route and model, for the metrics page; judged by nobody here.

Names of models come from outside, so there are only so many series: what comes after them is counted under
the model `(others)`, and a name is made inert and cut before it becomes a label.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from escalation.inert import shown
from probes.http.facts import GAP_BOUNDS_S, Ending, ExchangeFacts, FinishReason, Route, RouteName
from probes.observation import Exchange, Observation, Unobserved

FIRST_TOKEN_BOUNDS_S: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
SERIES: Final = 64
OTHERS: Final = "(others)"

GENERATING: Final = frozenset(
    {
        Route.CHAT_COMPLETIONS,
        Route.COMPLETIONS,
        Route.RESPONSES,
        Route.MESSAGES,
        Route.OLLAMA_CHAT,
        Route.OLLAMA_GENERATE,
    }
)
"""The routes whose answers are text."""

Labels = tuple[str, str, str]
"""Port, route, model."""


@dataclass(slots=True)
class Spread:
    """A histogram: how many values fell into each bucket, the last one open, and their sum."""

    buckets: list[int]
    total_s: float = 0.0


@dataclass(slots=True)
class RouteCounts:
    """What happened on one route with one model."""

    requests: Counter[str] = field(default_factory=Counter)
    empty: int = 0
    budget_exhausted: int = 0
    cut: int = 0
    errors_in_answers: int = 0
    first_token: Spread = field(default_factory=lambda: Spread([0] * (len(FIRST_TOKEN_BOUNDS_S) + 1)))
    between_tokens: Spread = field(default_factory=lambda: Spread([0] * (len(GAP_BOUNDS_S) + 1)))


class RouteTally:
    """Counts on the work loop; the metrics page reads from its own thread."""

    def __init__(self) -> None:
        self.routes: dict[Labels, RouteCounts] = {}
        self.unobserved: Counter[tuple[str, str]] = Counter()

    def __repr__(self) -> str:
        return f"RouteTally({len(self.routes)} series)"

    def take(self, observations: Iterable[Observation]) -> None:
        """Count what concerns routes."""
        for observation in observations:
            if isinstance(observation, Exchange):
                self._exchange(observation.facts)
            elif isinstance(observation, Unobserved):
                facts = observation.facts
                self.unobserved[str(facts.port), facts.reason.value] += facts.count

    def copy(self) -> Mapping[Labels, RouteCounts]:
        """Return the series as they stand, safe to walk while the loop goes on."""
        return dict(self.routes)

    def _exchange(self, facts: ExchangeFacts) -> None:
        counts = self._series(facts.name)
        counts.requests[_outcome(facts)] += 1
        if facts.ending is Ending.CUT or facts.ending is Ending.UNTERMINATED:
            counts.cut += 1
        if facts.error_in_answer:
            counts.errors_in_answers += 1
        if _is_silent(facts):
            if facts.finish is FinishReason.LENGTH:
                counts.budget_exhausted += 1
            else:
                counts.empty += 1
        if facts.first_token_s is not None:
            spread = counts.first_token
            spread.buckets[bisect_left(FIRST_TOKEN_BOUNDS_S, facts.first_token_s)] += 1
            spread.total_s += facts.first_token_s
        if facts.gaps:
            spread = counts.between_tokens
            for index, count in enumerate(facts.gaps):
                spread.buckets[index] += count
            spread.total_s += max(0.0, facts.duration_s - (facts.first_byte_s or 0.0))

    def _series(self, name: RouteName) -> RouteCounts:
        model = "" if name.model is None else shown(name.model)
        labels = (str(name.port), name.route.value, model)
        if labels not in self.routes and len(self.routes) >= SERIES:
            labels = (str(name.port), name.route.value, OTHERS)
            if labels not in self.routes and len(self.routes) >= 2 * SERIES:
                labels = ("0", Route.OTHER.value, OTHERS)
        return self.routes.setdefault(labels, RouteCounts())


def _is_silent(facts: ExchangeFacts) -> bool:
    """Whether a generating route gave a whole good answer in which there is nothing to see."""
    return (
        facts.name.route in GENERATING
        and facts.status == 200
        and facts.ending is Ending.COMPLETE
        and facts.error is None
        and facts.choices_seen
        and not facts.content_characters
        and not facts.tool_calls
    )


def _outcome(facts: ExchangeFacts) -> str:
    """Return the status by its class, or how it ended without one."""
    return f"{facts.status // 100}xx" if 100 <= facts.status < 600 else "none"
