"""F28 distributed.rank_stall, as one host sees it: a rank waits for another for ever, and no token comes.

vLLM's engine logs each minute that no worker takes its message. The line comes some minutes before its own
timeout, and is as common while workers compile or load: so it counts only while requests are under way on
this host and not one byte comes back, which is the second layer. The engine's own numbers, tokens that stand
still while requests run, are a third. The orchestrator says the same of two hosts that stall together.

Look-alikes stay quiet: the line without a request under way (weights, compilation, a warm-up), or with
requests whose answers move; a stall without the line is `route.engine_stalled` alone. A case clears on good
answers of the same port.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final, Self

from msgspec import Meta

from agent.detector import DetectorConfig, FaultNote, Surroundings, Tick
from agent.finding import Finding, Hysteresis, OpenCase, absent
from agent.host.log_evidence import log_evidence
from agent.routes.findings import gone_for_long, out_of_sight, present
from agent.routes.names import MODEL_ROUTES, SENSOR, port_of, route_id_of, subject_of_route
from escalation.model import FaultClass, FlightEvidence, Reason, ReasonCode, Severity, Subject
from probes.http.facts import Ending, ExchangeFacts
from probes.observation import (
    Blind,
    Exchange,
    Gap,
    Instant,
    LogLine,
    Observation,
    Origin,
    RequestsInFlight,
    SensorName,
    ServerGauge,
    ServerKind,
    ServerMetrics,
)

JOURNAL: Final = SensorName("host.logs")
FILES: Final = SensorName("host.log_files")
_FAULT: Final = FaultClass.DISTRIBUTED_RANK_STALL
_BLOCKED: Final = frozenset({"trtllm.hang", "vllm.broadcast_blocked", "vllm.rpc_timeout"})
_FLAT: Final = "vllm.throughput_zero"
_PORTS: Final = 64
_LINES: Final = 64
_SAID: Final = 256
_ENGINES: Final = frozenset({ServerKind.OTHER, ServerKind.RAY, ServerKind.TENSORRT_LLM, ServerKind.VLLM})
"""Whose requests may wait for a rank; a router's own are the engine's, seen a second time."""


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long nothing comes back before the line counts, and how old a line may be."""

    silent_s: Annotated[float, Meta(gt=0)] = 30.0
    together_s: Annotated[float, Meta(gt=0)] = 150.0
    flight_fresh_s: Annotated[float, Meta(gt=0)] = 20.0
    metrics_fresh_s: Annotated[float, Meta(gt=0)] = 45.0
    good_min: Annotated[int, Meta(ge=1)] = 2
    clear_hold_s: Annotated[float, Meta(ge=0)] = 30.0
    gone_clear_after_s: Annotated[float, Meta(gt=0)] = 86400.0


@dataclass(frozen=True, slots=True)
class _Flat:
    """The server's own numbers: requests run, and not one token more than at the look before."""

    at: Instant
    running: int


@dataclass(slots=True)
class _Port:
    """What one port does: the last word of requests under way, and good answers since a case was seen."""

    flight: RequestsInFlight | None = None
    good: int = 0
    answered_at: Instant | None = None
    tokens: float | None = None
    flat: _Flat | None = None


@dataclass(slots=True)
class _Log:
    """Lines of late that speak of ranks that wait."""

    blocked: deque[LogLine] = field(default_factory=lambda: deque(maxlen=_LINES))
    flat: deque[LogLine] = field(default_factory=lambda: deque(maxlen=_LINES))


class DistributedRank:
    """Says that an engine waits for one of its ranks while requests wait for it."""

    NAME: ClassVar[str] = "distributed_rank"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_FAULT,
            severity=(Severity.CRITICAL,),
            sensors=(JOURNAL, FILES, SENSOR, SensorName("host.server_metrics")),
            opens="The engine logs that a rank does not take its messages or does not answer "
            "(`vllm.broadcast_blocked`, `vllm.rpc_timeout`, `trtllm.hang`) within `together_s` of requests "
            "that are under way, with not one byte for `silent_s`. The orchestrator makes the same of two "
            "hosts that stall together ([decisions](../explanation/decisions.md#incidents-with-one-cause)).",
            quiet="The line while weights load or kernels compile, without a request under way; while "
            "answers move; a stall without the line; a router that waits for the engine.",
            clears="`good_min` good answers on that port, with none bad between; or its cgroup is gone for "
            "`gone_clear_after_s`.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._around = surroundings
        self._ports: OrderedDict[int, _Port] = OrderedDict()
        self._log = _Log()
        self._said: OrderedDict[Subject, None] = OrderedDict()

    def __repr__(self) -> str:
        return f"DistributedRank({len(self._ports)} ports, {len(self._log.blocked)} lines)"

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """Open at the first finding: both layers have waited already."""
        return {_FAULT: Hysteresis(clear_hold_s=self._config.clear_hold_s)}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Follow requests under way, answers, and what the engine logs."""
        match observation:
            case RequestsInFlight() if observation.facts.name.route in MODEL_ROUTES:
                self._port(observation.facts.name.port).flight = observation
                return self._judged(observation.facts.name.port, observation.at)
            case Exchange() if observation.facts.name.route in MODEL_ROUTES:
                self._ended(observation)
            case LogLine(pattern=pattern) if pattern in _BLOCKED:
                self._log.blocked.append(observation)
                return [found for port in self._ports for found in self._judged(port, observation.at)]
            case LogLine(pattern=pattern) if pattern == _FLAT:
                self._log.flat.append(observation)
            case ServerMetrics() if observation.server in _ENGINES:
                self._told_numbers(observation)
            case Gap() if observation.sensor == SENSOR:
                if observation.lost or isinstance(observation.coverage, Blind):
                    self._ports.clear()
                return out_of_sight((_FAULT,), observation)
            case _:
                pass
        return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Clear the cases of engines that answer again."""
        return [over for case in tick.open_cases if (over := self._over(case, tick)) is not None]

    def _port(self, port: int) -> _Port:
        known = self._ports.get(port)
        if known is None:
            known = self._ports[port] = _Port()
            while len(self._ports) > _PORTS:
                self._ports.popitem(last=False)
        return known

    def _ended(self, told: Exchange) -> None:
        port = self._port(told.facts.name.port)
        port.answered_at = told.at
        port.good = port.good + 1 if _is_good(told.facts) else 0

    def _told_numbers(self, told: ServerMetrics) -> None:
        gauges = {each.gauge: each.value for each in told.gauges}
        tokens = gauges.get(ServerGauge.GENERATED_TOKENS)
        running = gauges.get(ServerGauge.REQUESTS_RUNNING, 0.0)
        port = self._port(told.port)
        stands_still = tokens is not None and tokens == port.tokens and running >= 1
        port.flat = _Flat(told.at, int(running)) if stands_still else None
        port.tokens = tokens

    def _judged(self, number: int, at: Instant) -> Sequence[Finding]:
        port = self._ports[number]
        flight = port.flight
        if flight is None or flight.origin.server not in _ENGINES:
            return ()
        facts = flight.facts
        waited_s = at.since_s(flight.at)
        answered = port.answered_at is not None and port.answered_at.boot_ns > flight.at.boot_ns
        if waited_s > self._config.flight_fresh_s or facts.silent_s < self._config.silent_s or answered:
            return ()
        lines = [line for line in self._log.blocked if self._belongs(line, flight.origin, at)]
        if not lines:
            return ()
        port.good = 0
        return (self._finding(flight, lines),)

    def _belongs(self, line: LogLine, origin: Origin, at: Instant) -> bool:
        """Whether a line is of late and of this engine, as far as both are known."""
        if not 0 <= at.since_s(line.at) <= self._config.together_s:
            return False
        theirs = line.origin.container_id or line.origin.unit
        ours = origin.container_id or origin.unit
        return theirs is None or ours is None or theirs == ours

    def _finding(self, flight: RequestsInFlight, lines: Sequence[LogLine]) -> Finding:
        facts, last = flight.facts, lines[-1]
        subject = subject_of_route(facts.name)
        known = subject in self._said
        self._said[subject] = None
        while len(self._said) > _SAID:
            self._said.popitem(last=False)
        count = sum(line.count for line in lines)
        reasons = [
            Reason(ReasonCode.BROADCAST_BLOCKED, count=count, window_s=self._config.together_s),
            Reason(
                ReasonCode.NO_BYTES_WHILE_IN_FLIGHT,
                count=facts.requests,
                threshold=self._config.silent_s,
                window_s=round(facts.silent_s, 3),
            ),
        ]
        flat = [line for line in self._log.flat if self._belongs(line, flight.origin, flight.at)]
        if flat:
            running = int(flat[-1].number("running") or 0)
            reasons.append(
                Reason(ReasonCode.TOKEN_COUNTERS_FLAT, count=running, window_s=self._config.together_s)
            )
        numbers = self._ports[facts.name.port].flat
        if numbers is not None and flight.at.since_s(numbers.at) <= self._config.metrics_fresh_s:
            reasons.append(Reason(ReasonCode.METRICS_AGREE, count=numbers.running))
        return present(
            _FAULT,
            subject,
            at=max(flight.at, last.at, key=lambda at: at.boot_ns),
            origin=flight.origin,
            around=self._around,
            severity=Severity.CRITICAL,
            count=0 if known else 1,
            reasons=reasons,
            evidence=log_evidence(last, count=count, window_s=self._config.together_s),
            also=(
                FlightEvidence(
                    id=route_id_of(facts.name, flight.origin),
                    requests=facts.requests,
                    waiting=facts.waiting,
                    oldest_s=round(facts.oldest_s, 3),
                    silent_s=round(facts.silent_s, 3),
                    patience_s=self._config.silent_s,
                    largest_request_bytes=facts.largest_request_bytes,
                ),
            ),
            lifebound=True,
        )

    def _over(self, case: OpenCase, tick: Tick) -> Finding | None:
        number = port_of(case.subject)
        port = self._ports.get(number) if number is not None else None
        if port is not None and port.good >= self._config.good_min and port.answered_at is not None:
            if port.answered_at.boot_ns > case.last_seen.boot_ns:
                self._said.pop(case.subject, None)
                reason = Reason(
                    ReasonCode.ENGINE_ANSWERS_AGAIN, count=port.good, threshold=self._config.good_min
                )
                return absent(case.fault_class, case.subject, tick.now, reason)
            return None
        return gone_for_long(case, tick, self._config.gone_clear_after_s)


def _is_good(facts: ExchangeFacts) -> bool:
    return (
        0 < facts.status < 400
        and facts.ending is Ending.COMPLETE
        and facts.error is None
        and not facts.error_in_answer
    )
