"""What servers tell of themselves, by port: whether tokens come while requests run, and the last numbers.

A second witness only. A server that told nothing lately says nothing here, for better or worse.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from agent.bounded import keep
from escalation.model import Gauge, MetricEvidence, ServerKind
from probes.observation import Instant, ServerGauge, ServerMetrics

_PORTS: Final = 64
FRESH_S: Final = 50.0
"""For how long a number holds; servers are asked every 15 s."""

_TOKENS: Final = (ServerGauge.GENERATED_TOKENS, ServerGauge.PROMPT_TOKENS)


@dataclass(slots=True)
class _Server:
    told: ServerMetrics
    numbers: Mapping[ServerGauge, float] = field(default_factory=dict)
    flat_since: Instant | None = None


class ServerNumbers:
    """The last numbers of each server, and since when its tokens stand still while it works."""

    def __init__(self) -> None:
        self._servers: OrderedDict[int, _Server] = OrderedDict()

    def __repr__(self) -> str:
        return f"ServerNumbers({len(self._servers)} servers)"

    def take(self, told: ServerMetrics) -> bool:
        """Note what a server told; return whether its tokens rose, which only a working engine's do."""
        numbers = {each.gauge: each.value for each in told.gauges}
        known = self._servers.pop(told.port, None)
        server = keep(self._servers, told.port, _Server(told, numbers), limit=_PORTS)
        if known is None or not numbers or told.at.since_s(known.told.at) > FRESH_S:
            return False
        tokens = [gauge for gauge in _TOKENS if gauge in numbers and gauge in known.numbers]
        if not tokens or any(numbers[gauge] < known.numbers[gauge] for gauge in tokens):
            return False  # a server that began anew counts from nothing
        rose = any(numbers[gauge] > known.numbers[gauge] for gauge in tokens)
        busy = min(each.get(ServerGauge.REQUESTS_RUNNING, 0.0) for each in (numbers, known.numbers)) >= 1
        if busy and not rose:
            server.flat_since = known.flat_since or known.told.at
        return rose

    def number(self, port: int, gauge: ServerGauge, now: Instant) -> float | None:
        """Return a number that is fresh, None where there is none."""
        server = self._servers.get(port)
        if server is None or now.since_s(server.told.at) > FRESH_S:
            return None
        return server.numbers.get(gauge)

    def flat_s(self, port: int, now: Instant) -> float:
        """Return for how long requests ran and not one token came, as the server counts; 0 if unknown."""
        server = self._servers.get(port)
        if server is None or server.flat_since is None or now.since_s(server.told.at) > FRESH_S:
            return 0.0
        return server.told.at.since_s(server.flat_since)

    def evidence(
        self, port: int, gauge: ServerGauge, now: Instant, *, window_s: float
    ) -> MetricEvidence | None:
        """Return a number as evidence, with no rise in `window_s`; None where there is none."""
        value = self.number(port, gauge, now)
        if value is None:
            return None
        return MetricEvidence(
            server=ServerKind(self._servers[port].told.server.value),
            port=port,
            gauge=Gauge(gauge.value),
            value=value,
            rise=0.0,
            window_s=round(window_s, 3),
        )
