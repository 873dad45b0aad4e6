"""F49 ui.blank_answers: people see nothing, and the model server behind the page answers well.

A user interface reads the answer from a field whose name it knows, and versions disagree about names. Its own
route then ends with nothing to read while the same host's model servers, asked in the same minutes, answer
with text: two witnesses. Where the servers behind it answer with nothing too, or are on another host, the
fault is not shown to be the page's, and `route.empty_completion` judges its route like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, Self

from agent.detector import DetectorConfig, FaultNote, Surroundings, Tick
from agent.finding import Finding, Hysteresis
from agent.routes.answer import Answer, answer_of
from agent.routes.direct_answers import NOTHING_TO_READ, DirectAnswers, is_of_ui
from agent.routes.names import SENSOR
from agent.routes.rates import RateConfig, RouteRates, Sign
from escalation.model import FaultClass, Reason, ReasonCode, Severity
from probes.observation import Exchange, Observation

_FAULT: Final = FaultClass.UI_BLANK_ANSWERS


class Config(RateConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When blank pages become a case."""


class UiAnswers:
    """Says which user interfaces show nothing of answers that are there."""

    NAME: ClassVar[str] = "ui_answers"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_FAULT,
            severity=(Severity.NOTE,),
            sensors=(SENSOR,),
            opens="Answers of a user interface's own route (Open WebUI) with nothing to read: `affected_min` "
            "in `window_s`, and certainly `share_min` of them, while the host's other model ports gave at "
            "least five good answers, four of five good.",
            quiet="Servers behind it that answer with nothing too, or that were not asked: that is theirs, "
            "or unknown; a few blank answers among many.",
            clears="So many good answers in a row that the old share cannot still be there (10 divided by "
            "it, from `good_min` to `good_max`).",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        sign = Sign(fault=_FAULT, code=ReasonCode.UI_ANSWERS_BLANK, severity=Severity.NOTE)
        self._rates = RouteRates(config=config, surroundings=surroundings, signs=(sign,))
        self._behind = DirectAnswers(window_s=config.window_s)

    def __repr__(self) -> str:
        return f"UiAnswers({self._rates!r}, {self._behind!r})"

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """The counting is done in the rates."""
        return self._rates.hysteresis

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Judge one answer of a user interface; count the others."""
        if isinstance(observation, Exchange):
            self._behind.take(observation)
            found = self._judge(observation) if is_of_ui(observation) else None
            return (found,) if found else ()
        return self._rates.unseen(observation)

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Clear the cases of pages that show answers again."""
        return self._rates.tick(tick)

    def _judge(self, exchange: Exchange) -> Finding | None:
        answer = answer_of(exchange.facts)
        if answer is Answer.GOOD:
            self._rates.good(exchange)
        if answer not in NOTHING_TO_READ:
            return None
        good = self._behind.good_behind(exchange.facts.name, exchange.at.boot_ns)
        if not good:
            return None
        also = (Reason(ReasonCode.BACKEND_ANSWERS_GOOD, count=good, window_s=self._config.window_s),)
        return self._rates.bad(exchange, 0, also=also)
