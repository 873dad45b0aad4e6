"""F10 route.router_cooldown, F11 route.saturated: requests that are turned away, though none is broken.

A router that answers "no deployments available" has put every deployment of the model into cooldown, or knows
no such model: the text is the same. It counts only for a model that this route has served before, so a
client's typing mistake never opens a case, however often it is tried; after a restart of the agent the model
must be served once first.

A server is saturated when it refuses requests as busy. Being slow or full without refusing is no fault. A
refusal for a rate limit is a limit that somebody set, doing its work; where most of them are such, the case
is a note. Where the server's own numbers (LiteLLM's deployments, a queue) can be asked and agree, they say
so.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, Self

from agent.bounded import keep
from agent.detector import DetectorConfig, FaultNote, Surroundings, Tick
from agent.finding import Finding, Hysteresis
from agent.host.server_numbers import ServerNumbers
from agent.routes.names import MODEL_ROUTES, SENSOR
from agent.routes.rates import RateConfig, RouteRates, Sign
from escalation.model import FaultClass, Reason, ReasonCode, Severity
from probes.http.facts import Ending, ErrorKind, ExchangeFacts
from probes.observation import (
    Exchange,
    Instant,
    Observation,
    RequestsInFlight,
    SensorName,
    ServerGauge,
    ServerMetrics,
)

METRICS: Final = SensorName("host.server_metrics")
_COOLDOWN = FaultClass.ROUTE_ROUTER_COOLDOWN
_SATURATED = FaultClass.ROUTE_SATURATED
_SIGNS: Final = (
    Sign(fault=_COOLDOWN, code=ReasonCode.DEPLOYMENTS_COOLING, severity=Severity.MEDIUM),
    Sign(fault=_SATURATED, code=ReasonCode.REFUSED_AS_BUSY, severity=Severity.MEDIUM),
    Sign(fault=_SATURATED, code=ReasonCode.REFUSED_AS_BUSY, severity=Severity.MEDIUM, witnessed=False),
)
_NO_DEPLOYMENTS, _BUSY, _LIMITED = range(3)
_PORTS: Final = 64
_FRESH_S: Final = 15.0
"""For how long a word about waiting requests holds; the sensor tells every 5 s."""


class Config(RateConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When refusals become a case."""

    window_s: float = 900.0


class RouteRefusals:
    """Says which models a router has no deployment for, and which servers turn requests away as busy."""

    NAME: ClassVar[str] = "route_refusals"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_COOLDOWN,
            severity=(Severity.MEDIUM,),
            sensors=(SENSOR, METRICS),
            opens="A router answers that no deployment is available for a model that it has served before: "
            "at least `affected_min` in `window_s`, and certainly `share_min` of all.",
            quiet="A model that was never served here: a typing mistake gets the same answer.",
            clears="So many good answers in a row that the old share cannot still be there (10 divided by "
            "it, from `good_min` to `good_max`).",
        ),
        FaultNote(
            fault_class=_SATURATED,
            severity=(Severity.NOTE, Severity.MEDIUM),
            sensors=(SENSOR, METRICS),
            opens="A server refuses requests as busy: at least `affected_min` in `window_s`, and certainly "
            "`share_min` of all. A note where most refusals are for a rate limit.",
            quiet="A full server that refuses nothing; slow answers; a model that is loading; a refusal now "
            "and then.",
            clears="The same.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._rates = RouteRates(config=config, surroundings=surroundings, signs=_SIGNS)
        self._waiting: OrderedDict[int, tuple[Instant, int]] = OrderedDict()
        self._numbers = ServerNumbers()

    def __repr__(self) -> str:
        return f"RouteRefusals({self._rates!r})"

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """The counting is done in the rates."""
        return self._rates.hysteresis

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Judge one answer, or note how many wait."""
        if isinstance(observation, Exchange):
            found = self._judge(observation)
            return (found,) if found else ()
        if isinstance(observation, RequestsInFlight):
            port = observation.facts.name.port
            keep(self._waiting, port, (observation.at, observation.facts.waiting), limit=_PORTS)
        elif isinstance(observation, ServerMetrics):
            self._numbers.take(observation)
        else:
            return self._rates.unseen(observation)
        return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Clear the cases of routes that answer again."""
        return self._rates.tick(tick)

    def _judge(self, exchange: Exchange) -> Finding | None:
        facts = exchange.facts
        if facts.error is ErrorKind.UNKNOWN_MODEL:
            self._rates.unknown(exchange)
            return None
        if facts.name.route not in MODEL_ROUTES:
            return None
        match facts.error:
            case ErrorKind.NO_DEPLOYMENTS:
                if not self._rates.was_good(facts.name):
                    return None
                also = self._told(exchange, ServerGauge.DEPLOYMENT_STATE)
                return self._rates.bad(exchange, _NO_DEPLOYMENTS, also=also)
            case ErrorKind.OVERLOADED:
                return self._rates.bad(exchange, _BUSY, also=self._queue(exchange))
            case ErrorKind.RATE_LIMITED:
                return self._rates.bad(exchange, _LIMITED, also=self._queue(exchange))
            case None if _served(facts):
                self._rates.good(exchange)
        return None

    def _queue(self, exchange: Exchange) -> Sequence[Reason]:
        """Return how many requests were last said to wait for their first byte, if that was just now."""
        told = self._waiting.get(exchange.facts.name.port)
        agrees = self._told(exchange, ServerGauge.REQUESTS_WAITING)
        if told is None or told[1] < 2 or exchange.at.since_s(told[0]) > _FRESH_S:
            return agrees
        return (Reason(ReasonCode.REQUESTS_QUEUE, count=told[1]), *agrees)

    def _told(self, exchange: Exchange, gauge: ServerGauge) -> tuple[Reason, ...]:
        """Return that the server's own number agrees, where it is more than nothing."""
        number = self._numbers.number(exchange.facts.name.port, gauge, exchange.at) or 0.0
        return (Reason(ReasonCode.METRICS_AGREE, count=int(number)),) if number >= 1 else ()


def _served(facts: ExchangeFacts) -> bool:
    """Whether the request was let in and answered, well or badly."""
    ended = facts.ending in {Ending.COMPLETE, Ending.UNTERMINATED}
    return ended and facts.status == 200 and not facts.error_in_answer
