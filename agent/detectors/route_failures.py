"""F04 route.broken_stream, F07 route.fails_real_traffic: answers that break off, large requests that fail.

A stream is broken when the server's side cut it, when it ended without saying so, or when an error came
inside a status of 200; a client that went away is none of these. A stream that named its finish reason and
only lacks the last mark (`[DONE]`) may be a server's dialect: alone that is a note.

Two things cut streams that are no fault of the stream, and are not counted here: an engine that had fallen
silent before (that is route.engine_stalled), and what ended together with the first cut of a port. A process
that dies takes all its streams along; that is one event, judged when `together_s` is over, and laid to the
largest request among them.

Where failures come with the size of the request (`agent.routes.sizes`), that is the case, and large requests
that break off are not counted as broken streams as well. Failures there are also answers with status 500 and
above, and clients that gave up after a long silence; a refusal as busy, loading or too long is none.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Self

from msgspec import Meta

from agent.bounded import keep
from agent.detector import DetectorConfig, FaultNote, Surroundings, Tick
from agent.finding import Finding, Hysteresis
from agent.routes.findings import out_of_sight
from agent.routes.names import MODEL_ROUTES, SENSOR
from agent.routes.rates import RouteRates, Sign
from agent.routes.sizes import FAULT as _SIZE, PromptSizes, SizeConfig
from escalation.model import FaultClass, ReasonCode, Severity
from probes.http.facts import Ending, ErrorKind, ExchangeFacts, FinishReason
from probes.observation import Exchange, Gap, Observation, RequestsInFlight, Unobserved

_BROKEN = FaultClass.ROUTE_BROKEN_STREAM
_PORTS: Final = 64

_SERVERS_OWN: Final = frozenset(
    {None, ErrorKind.TIMEOUT, ErrorKind.UPSTREAM, ErrorKind.SERVER, ErrorKind.OTHER}
)
"""Errors that are the server's fault and no other detector's."""

_SIGNS: Final = (
    Sign(fault=_BROKEN, code=ReasonCode.STREAMS_CUT, severity=Severity.HIGH),
    Sign(fault=_BROKEN, code=ReasonCode.STREAMS_WITHOUT_END, severity=Severity.HIGH),
    Sign(fault=_BROKEN, code=ReasonCode.STREAMS_WITHOUT_END, severity=Severity.HIGH, witnessed=False),
    Sign(fault=_BROKEN, code=ReasonCode.ERRORS_IN_ANSWERS, severity=Severity.HIGH),
)
_CUT, _NO_END, _NO_MARK, _ERROR = range(4)


class Config(SizeConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When answers that break off, or requests that fail, become a case."""

    silence_s: Annotated[float, Meta(gt=0)] = 30.0
    together_s: Annotated[float, Meta(ge=0)] = 2.0
    gave_up_after_s: Annotated[float, Meta(gt=0)] = 60.0


@dataclass(slots=True)
class _Death:
    """What was cut together on a port: when the first was, and the largest request so far, to be judged."""

    at_ns: int
    laid_to: Exchange
    silent: bool  # the engine had been silent before
    judged: bool = False


class RouteFailures:
    """Says which routes break their answers off, and where that depends on the size of the request."""

    NAME: ClassVar[str] = "route_failures"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_BROKEN,
            severity=(Severity.NOTE, Severity.HIGH),
            sensors=(SENSOR,),
            opens="Answers with status 200 that the server's side cut, that ended without saying so, or that "
            "held an error: at least `affected_min` in `window_s`, and certainly `share_min` of all. A note "
            "where most of them lacked only the last mark.",
            quiet="Clients that go away; a chunk with usage and no choices; an engine that had been silent "
            "for `silence_s`; the streams that end together when a process ends (one event); a connection "
            "that closes before any answer; requests that were too long, or refused as busy.",
            clears="So many whole answers in a row that the old share cannot still be there (10 divided by "
            "it, from `good_min` to `good_max`), in the mode that had failed.",
        ),
        FaultNote(
            fault_class=_SIZE,
            severity=(Severity.HIGH,),
            sensors=(SENSOR,),
            opens="Large requests fail, small ones do not: a size from which at least `large_failed_min` "
            "failed and certainly `large_share_min` do, below which `small_min` certainly do better, in "
            "`rounds_min` alternations.",
            quiet="Failures of every size; an outage in which only large requests came; prompts beyond the "
            "context limit (route.context_overflow); clients that cancel early.",
            clears="So many requests of the split and above succeed in a row: 10 divided by the share "
            "that had failed.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._rates = RouteRates(config=config, surroundings=surroundings, signs=_SIGNS)
        self._sizes = PromptSizes(config=config, surroundings=surroundings)
        self._silent_ns: OrderedDict[int, int] = OrderedDict()
        self._deaths: OrderedDict[int, _Death] = OrderedDict()

    def __repr__(self) -> str:
        return f"RouteFailures({self._rates!r}, {self._sizes!r})"

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """The counting is done in the rates and sizes."""
        return {**self._rates.hysteresis, _SIZE: Hysteresis(clear_hold_s=self._config.clear_hold_s)}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Judge how one exchange ended."""
        if isinstance(observation, Exchange):
            found = self._judge(observation)
            return (found,) if found else ()
        if isinstance(observation, RequestsInFlight):
            if observation.facts.silent_s >= self._config.silence_s:
                keep(self._silent_ns, observation.facts.name.port, observation.at.boot_ns, limit=_PORTS)
        elif isinstance(observation, Unobserved):
            self._rates.unobserved(observation)
        elif isinstance(observation, Gap) and observation.sensor == SENSOR:
            self._sizes.sight(observation)
            return [*self._rates.sight(observation), *out_of_sight((_SIZE,), observation)]
        return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Judge the cuts that are complete, and clear the cases of routes whose answers are whole again."""
        together_ns = self._config.together_s * 1e9
        found = [
            self._judged(death)
            for death in self._deaths.values()
            if tick.now.boot_ns - death.at_ns > together_ns
        ]
        return [*(each for each in found if each), *self._rates.tick(tick), *self._sizes.tick(tick)]

    def _judge(self, exchange: Exchange) -> Finding | None:
        facts = exchange.facts
        if facts.error is ErrorKind.UNKNOWN_MODEL:
            self._rates.unknown(exchange)
            return None
        if facts.name.route not in MODEL_ROUTES:
            return None
        if facts.ending is Ending.CUT:
            return self._cut(exchange)
        sign = _sign_of(facts)
        if sign is not None:
            return self._sizes.failed(exchange) or self._rates.bad(exchange, sign)
        if self._failed(facts):
            return self._sizes.failed(exchange)
        if facts.ending is Ending.COMPLETE and facts.status == 200 and not facts.error_in_answer:
            self._rates.good(exchange)
            self._sizes.good(exchange)
        return None

    def _cut(self, exchange: Exchange) -> Finding | None:
        """Take note of a cut. It is judged when what was cut with it has been seen too."""
        facts = exchange.facts
        port = facts.name.port
        death = self._deaths.get(port)
        if death is not None and self._together(death, facts):
            if facts.request_bytes > death.laid_to.facts.request_bytes and not death.judged:
                death.laid_to = exchange
            return None
        found = self._judged(death) if death is not None else None
        keep(self._deaths, port, _Death(facts.at_ns, exchange, self._was_silent(exchange)), limit=_PORTS)
        return found

    def _judged(self, death: _Death) -> Finding | None:
        if death.judged:
            return None
        death.judged = True
        found = self._sizes.failed(death.laid_to)
        if found is None and 200 <= death.laid_to.facts.status < 400 and not death.silent:
            return self._rates.bad(death.laid_to, _CUT)
        return found

    def _together(self, death: _Death, facts: ExchangeFacts) -> bool:
        """Whether the request was under way when the first was cut, and ended with it."""
        began_ns = facts.at_ns - int(facts.duration_s * 1e9)
        return began_ns <= death.at_ns and facts.at_ns - death.at_ns <= self._config.together_s * 1e9

    def _failed(self, facts: ExchangeFacts) -> bool:
        """Whether the request failed in another way than by a broken answer."""
        if facts.ending is Ending.CANCELLED:
            return facts.response_bytes == 0 and facts.duration_s >= self._config.gave_up_after_s
        return facts.status >= 500 and facts.error in _SERVERS_OWN

    def _was_silent(self, exchange: Exchange) -> bool:
        silent_ns = self._silent_ns.get(exchange.facts.name.port)
        return silent_ns is not None and exchange.at.boot_ns - silent_ns <= self._config.silence_s * 1e9


def _sign_of(facts: ExchangeFacts) -> int | None:
    """Return in which way an answer that had begun well was broken, though nobody cut it."""
    if not 200 <= facts.status < 400:
        return None
    if facts.error_in_answer or facts.finish is FinishReason.ERROR:
        return _ERROR if facts.error in _SERVERS_OWN else None
    if facts.ending is Ending.UNTERMINATED:
        return _NO_END if facts.finish is FinishReason.NONE else _NO_MARK
    return None
