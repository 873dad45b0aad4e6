"""F09 route.engine_stalled: requests are under way, and not one byte comes back.

Busy is not dead. Any byte on any request of the port begins its silence anew, and so does every exchange that
ends there, with a refusal, an error or a closed connection too: a server that is loading or gone is not
stalled. How long silence may last is learnt and scaled (`agent.routes.patience`). Health pages are no sign of
life, because a stalled engine goes on answering them.

One silence is one case, however many routes and models wait on the port: it is laid to the first of them, and
the others are its witnesses. One request alone may be at fault itself, so it is a note; that a second one
(under way or given up by its client) has no answer either is the second witness; so is a server whose own
count of tokens stands still while it says that requests run. Tokens that it counts are as good as bytes.

What is not seen is no silence. After a loss, or an exchange that could not be followed, an engine may go on
with streams that the sensor no longer knows of: for `unseen_s` nothing is said of that port.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Final, Self

import msgspec
from msgspec import Meta

from agent.detector import DetectorConfig, FaultNote, Surroundings, Tick
from agent.finding import Finding, Hysteresis, OpenCase, absent
from agent.host.server_numbers import ServerNumbers
from agent.routes.findings import gone_for_long, out_of_sight, present
from agent.routes.names import MODEL_ROUTES, SENSOR, port_of, route_id_of, subject_of_route
from agent.routes.patience import LearntPatience, PatienceConfig, PortMemory
from escalation.model import (
    FaultClass,
    FlightEvidence,
    Reason,
    ReasonCode,
    Severity,
    Subject,
)
from probes.http.facts import UnobservedReason
from probes.observation import (
    Blind,
    Exchange,
    Gap,
    Observation,
    RequestsInFlight,
    SensorName,
    ServerGauge,
    ServerMetrics,
    Unobserved,
)

_FAULT = FaultClass.ROUTE_ENGINE_STALLED
METRICS: Final = SensorName("host.server_metrics")
_PORTS: Final = 64
_SAID: Final = 256
_NOBODYS: Final = frozenset({UnobservedReason.TLS, UnobservedReason.NOT_HTTP})
"""What a server of plain HTTP does not answer: nothing of the engine's work is hidden there."""


class Config(PatienceConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When silence becomes a case, and what ends it."""

    waited_min_s: Annotated[float, Meta(ge=0)] = 30.0
    unseen_s: Annotated[float, Meta(ge=0)] = 600.0
    good_min: Annotated[int, Meta(ge=1)] = 2
    clear_hold_s: Annotated[float, Meta(ge=0)] = 30.0
    gone_clear_after_s: Annotated[float, Meta(gt=0)] = 86400.0


class RouteStall:
    """Says which engines have stopped answering while requests wait."""

    NAME: ClassVar[str] = "route_stall"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_FAULT,
            severity=(Severity.NOTE, Severity.CRITICAL),
            sensors=(SENSOR, METRICS),
            opens="Requests are under way and no byte came on any request of the port for longer than its "
            "patience: `patience_s`, `times_slowest` the slowest good answer, and the time to read the "
            "largest request (`prefill_bytes_per_s`); more while nothing is known of the port, after an idle "
            "time, and where whole answers are asked for. A note while only one request shows it, and the "
            "server's own count of tokens does not agree.",
            quiet="The time after something could not be seen (`unseen_s`); long prefill; a queue behind "
            "requests that move; a model that is loading; a server that refuses connections or closes them; "
            "an idle port.",
            clears="`good_min` good answers on the port since.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._around = surroundings
        self._unseen_ns = int(config.unseen_s * 1e9)
        self._ports: OrderedDict[int, PortMemory] = OrderedDict()
        self._said: OrderedDict[Subject, None] = OrderedDict()
        self._numbers = ServerNumbers()

    def __repr__(self) -> str:
        return f"RouteStall({len(self._ports)} ports)"

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """Open at the first finding; the patience was waited for here."""
        return {_FAULT: Hysteresis(clear_hold_s=self._config.clear_hold_s)}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Follow what each port does."""
        match observation:
            case Exchange():
                if observation.facts.name.route in MODEL_ROUTES:
                    self._port(observation.facts.name.port).ended(observation.facts)
            case RequestsInFlight():
                if observation.facts.name.route in MODEL_ROUTES:
                    return self._waiting(observation)
            case ServerMetrics():
                if self._numbers.take(observation):
                    self._port(observation.port).works(observation.at.boot_ns)
            case Unobserved():
                if observation.facts.reason not in _NOBODYS:
                    memory = self._port(observation.facts.port)
                    memory.forget_silence(observation.at.boot_ns + self._unseen_ns)
            case Gap() if observation.sensor == SENSOR:
                return self._sight(observation)
            case _:
                pass
        return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Clear the cases of engines that answer again."""
        found = (self._over(case, tick) for case in tick.open_cases)
        return [finding for finding in found if finding]

    def memory(self) -> dict[str, bytes]:
        """Return how slow each port was when all was well, to be kept across a restart."""
        learnt = {str(port): memory.learnt for port, memory in self._ports.items()}
        return {key: msgspec.json.encode(each) for key, each in learnt.items() if each is not None}

    def recall(self, memory: Mapping[str, bytes]) -> int:
        """Take up what `memory` returned before; return how many entries could not be read."""
        unreadable = 0
        for key, raw in list(memory.items())[:_PORTS]:
            try:
                learnt = msgspec.json.decode(raw, type=LearntPatience)
                self._ports[int(key)] = PortMemory.recalled(learnt)
            except ValueError:
                unreadable += 1
        return unreadable

    def _port(self, port: int) -> PortMemory:
        memory = self._ports.get(port)
        if memory is None:
            memory = self._ports[port] = PortMemory()
            while len(self._ports) > _PORTS:
                self._ports.popitem(last=False)
        return memory

    def _sight(self, gap: Gap) -> Sequence[Finding]:
        if gap.lost or isinstance(gap.coverage, Blind):
            for memory in self._ports.values():
                memory.forget_silence(gap.at.boot_ns + self._unseen_ns)
                if isinstance(gap.coverage, Blind):
                    memory.good_since = 0
        return out_of_sight((_FAULT,), gap)

    def _waiting(self, told: RequestsInFlight) -> Sequence[Finding]:
        memory = self._port(told.facts.name.port)
        memory.waits(told.facts)
        silent_s = memory.silent_s(told.facts.at_ns)
        if silent_s < self._config.patience_s or told.facts.oldest_s < self._config.waited_min_s:
            return ()
        patience_s = memory.patience_s(told.origin.server, self._config)
        if silent_s < patience_s or not memory.lays_stall_to(told.facts.name):
            return ()
        memory.good_since = 0
        return (self._stalled(told, memory, silent_s, patience_s),)

    def _stalled(
        self, told: RequestsInFlight, memory: PortMemory, silent_s: float, patience_s: float
    ) -> Finding:
        flight = told.facts
        subject = subject_of_route(flight.name)
        known = subject in self._said
        self._said[subject] = None
        while len(self._said) > _SAID:
            self._said.popitem(last=False)
        flat_s = self._numbers.flat_s(flight.name.port, told.at)
        certain = memory.witnesses() > 1 or flat_s > 0
        reasons = [
            Reason(
                ReasonCode.NO_BYTES_WHILE_IN_FLIGHT,
                count=memory.witnesses(),
                threshold=round(patience_s, 3),
                window_s=round(silent_s, 3),
            )
        ]
        if flat_s:
            reasons.append(Reason(ReasonCode.TOKEN_COUNTERS_FLAT, window_s=round(flat_s, 3)))
        if not certain:
            reasons.append(Reason(ReasonCode.SECOND_LAYER_UNKNOWN))
        running = self._numbers.evidence(
            flight.name.port, ServerGauge.REQUESTS_RUNNING, told.at, window_s=flat_s
        )
        return present(
            _FAULT,
            subject,
            at=told.at,
            origin=told.origin,
            around=self._around,
            severity=Severity.CRITICAL if certain else Severity.NOTE,
            count=0 if known else 1,
            reasons=reasons,
            evidence=FlightEvidence(
                id=route_id_of(flight.name, told.origin),
                requests=flight.requests,
                waiting=flight.waiting,
                oldest_s=round(flight.oldest_s, 3),
                silent_s=round(silent_s, 3),
                patience_s=round(patience_s, 3),
                largest_request_bytes=flight.largest_request_bytes,
            ),
            also=() if running is None else (running,),
            lifebound=True,
        )

    def _over(self, case: OpenCase, tick: Tick) -> Finding | None:
        port = port_of(case.subject)
        memory = self._ports.get(port) if port is not None else None
        if memory is None or memory.good_since < self._config.good_min:
            return gone_for_long(case, tick, self._config.gone_clear_after_s)
        self._said.pop(case.subject, None)
        reason = Reason(
            ReasonCode.ENGINE_ANSWERS_AGAIN, count=memory.good_since, threshold=self._config.good_min
        )
        return absent(case.fault_class, case.subject, tick.now, reason)
