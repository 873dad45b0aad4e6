"""`host.server_metrics`: the numbers that declared model servers tell of themselves.

Opt-in (`[[metrics_endpoint]]`), and only a second witness: a page of numbers disappears with its server, goes
on answering while the engine behind it hangs, and may say "GPU" of a model that computes on the CPU. Pages
are large and little of them is wanted, so lines are picked by name first and only those are parsed, by the
parser of prometheus-client. Ollama has no such page; its list of loaded models (`/api/ps`) says which share
of them lies in GPU memory.

Names: vLLM `vllm/v1/metrics/loggers.py`; llama.cpp `tools/server/README.md` (it needs `--metrics`); LiteLLM
`integrations/prometheus.py` (its page redirects without the slash at the end, and may want a key, which is
not supported: no secret is kept here); Ray's documented system metrics.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from probes.observation import (
    AskingFailed,
    Instant,
    Observation,
    SensorName,
    ServerKind,
    ServerMetrics,
)
from probes.settings import MetricsEndpoint

NAME: Final = SensorName("host.server_metrics")
_ROUND_S: Final = 2.0
"""For how long one read may ask: what is left waits for the next, because others share the thread."""

_PATHS: Final = {ServerKind.OLLAMA: "/api/ps", ServerKind.LITELLM: "/metrics/"}


@dataclass(slots=True)
class _Endpoint:
    server: ServerKind
    host: str
    port: int
    path: str
    asked_s: float = 0.0


class ServerMetricsSensor:
    """Asks each declared server in turn."""

    name = NAME
    period_s = 15.0

    def __init__(
        self, *, endpoints: Sequence[MetricsEndpoint], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._endpoints = [_endpoint(declared) for declared in endpoints]
        self._monotonic = monotonic

    def __repr__(self) -> str:
        return f"ServerMetricsSensor({NAME}, endpoints={len(self._endpoints)})"

    def open(self) -> None:
        """Ask everybody at the first read; where nobody is declared nothing is missing either."""
        for endpoint in self._endpoints:
            endpoint.asked_s = 0.0

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return what each said, least lately asked first; who cannot be reached is told as such."""
        told: list[Observation] = []
        began_s = self._monotonic()
        for endpoint in sorted(self._endpoints, key=lambda each: each.asked_s):
            endpoint.asked_s = self._monotonic()
            if endpoint.asked_s - began_s >= _ROUND_S:
                break
            told.append(self._asked(endpoint, now))
        return told

    def waiting(self) -> bool:
        """Whether anybody is to be asked."""
        return bool(self._endpoints)

    def settle(self) -> None:
        """Nothing to note: what was told is told again at the next asking."""

    def wakeup_fd(self) -> int | None:
        """Asking waits for its turn."""
        return None

    def close(self) -> None:
        """Hold nothing, let go of nothing."""

    def _asked(self, endpoint: _Endpoint, now: Instant) -> ServerMetrics:
        from probes.host import metrics_page  # noqa: PLC0415 -- see there

        answer = metrics_page.ask(endpoint.server, endpoint.host, endpoint.port, endpoint.path)
        return ServerMetrics(
            sensor=NAME,
            at=now,
            server=endpoint.server,
            port=endpoint.port,
            gauges=() if isinstance(answer, AskingFailed) else answer,
            failure=answer if isinstance(answer, AskingFailed) else None,
        )


def _endpoint(declared: MetricsEndpoint) -> _Endpoint:
    parts = urlsplit(declared.url)
    path = parts.path if parts.path not in {"", "/"} else _PATHS.get(declared.server, "/metrics")
    return _Endpoint(declared.server, parts.hostname or "127.0.0.1", parts.port or 80, path)
