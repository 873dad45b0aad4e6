"""The agent as Prometheus sees it: read at scrape time from one snapshot, with bounded labels.

Labels are names of sensors, detectors, fault classes and kinds of loss, which are all ours. The one exception
is the model of a route: made inert, and only so many of them (`agent/routes/tally.py`). A collector reads a
snapshot instead of keeping counters, so that the work loop pays nothing for being measured.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from agent.routes.tally import FIRST_TOKEN_BOUNDS_S, Labels, RouteCounts, Spread
from probes.http.facts import GAP_BOUNDS_S

_ROUTE = ("port", "route", "model")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that is shown, as it stood at one moment."""

    version: str
    started_unix_s: float
    seeing: Mapping[str, bool]
    observations: Mapping[str, int] = field(default_factory=dict)
    lost: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    sensor_errors: Mapping[str, int] = field(default_factory=dict)
    detector_errors: Mapping[str, int] = field(default_factory=dict)
    open_cases: Mapping[str, int] = field(default_factory=dict)
    cases_turned_away: int = 0
    pipeline_depth: int = 0
    committed: int = 0
    acknowledged: int = 0
    commit_failures: int = 0
    uncommitted: int = 0
    spool_open: bool = False
    spool_reports: int = 0
    spool_bytes: int = 0
    spool_oldest_unix_s: float | None = None
    connected: bool = False
    last_ack_unix_s: float | None = None
    handovers_refused: int = 0
    routes: Mapping[Labels, RouteCounts] = field(default_factory=dict)
    unobserved: Mapping[tuple[str, str], int] = field(default_factory=dict)


class AgentCollector(Collector):
    """Turns a snapshot into metric families."""

    def __init__(self, *, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """Yield every family; a label value appears from the start, at 0."""
        now = self._snapshot()
        yield InfoMetricFamily("nanobot_agent_build", "The agent's version.", value={"version": now.version})
        yield _gauge("start_time_seconds", "When the agent started, Unix time.", now.started_unix_s)
        yield _gauges("sensor_seeing", "Whether a sensor sees (1) or is blind (0).", "sensor", now.seeing)
        yield _counters("observations", "What sensors said.", "sensor", now.observations)
        yield _counters("samples_lost", "What sensors missed, a lower bound.", "sensor", now.lost)
        yield _counters("pipeline_drops", "Observations dropped by a full pipeline.", "sensor", now.dropped)
        yield _counters("sensor_errors", "Defects of a sensor.", "sensor", now.sensor_errors)
        yield _counters("detector_errors", "Defects of a detector.", "detector", now.detector_errors)
        yield _gauge("pipeline_observations", "Observations that wait to be judged.", now.pipeline_depth)
        yield _gauges("open_cases", "Cases that stand open.", "fault_class", now.open_cases)
        yield _counter("cases_turned_away", "Cases not opened: too many stood open.", now.cases_turned_away)
        yield _counter("reports_committed", "Reports committed to the spool.", now.committed)
        yield _counter("reports_acknowledged", "Reports that the orchestrator committed.", now.acknowledged)
        yield _counter("commit_failures", "Commits that the spool refused.", now.commit_failures)
        yield _gauge("reports_uncommitted", "Reports kept in memory: no room on disk.", now.uncommitted)
        yield _gauge("spool_open", "Whether the spool is open and answers.", float(now.spool_open))
        yield _gauge("spool_reports", "Reports that wait in the spool.", now.spool_reports)
        yield _gauge("spool_bytes", "Bytes of the reports that wait.", now.spool_bytes)
        yield _gauge(
            "spool_oldest_seconds", "When the oldest waiting report was made.", now.spool_oldest_unix_s
        )
        yield _gauge("uplink_connected", "Whether a stream to the orchestrator is up.", float(now.connected))
        yield _gauge("last_ack_seconds", "When the orchestrator last acknowledged.", now.last_ack_unix_s)
        yield _counter("handovers_refused", "Handovers of descriptors refused.", now.handovers_refused)
        yield from _of_routes(now.routes)
        unobserved = CounterMetricFamily(
            "nanobot_route_unobserved", "Traffic that could not be judged.", labels=("port", "reason")
        )
        for labels, count in now.unobserved.items():
            unobserved.add_metric(labels, count)
        yield unobserved


class MetricsPage:
    """Serves /metrics. `with`-managed; a port that is taken costs the page, not the agent."""

    def __init__(self, *, address: str, port: int, collector: Collector) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(collector)
        self._address = address
        self._port = port
        self._server: WSGIServer | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._server, self._thread = start_http_server(self._port, self._address, self._registry)
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join(timeout=5)
            self._server = self._thread = None


def _of_routes(routes: Mapping[Labels, RouteCounts]) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "nanobot_route_requests", "Requests that ended, by class of status.", labels=(*_ROUTE, "status")
    )
    counted = {
        "empty": CounterMetricFamily(
            "nanobot_route_empty", "Whole answers with status 200 and nothing in them.", labels=_ROUTE
        ),
        "budget_exhausted": CounterMetricFamily(
            "nanobot_route_budget_exhausted", "Answers whose tokens ran out before any text.", labels=_ROUTE
        ),
        "cut": CounterMetricFamily("nanobot_route_cut", "Answers without their proper end.", labels=_ROUTE),
        "errors_in_answers": CounterMetricFamily(
            "nanobot_route_errors_in_answers", "Errors inside an answer with a good status.", labels=_ROUTE
        ),
    }
    first = HistogramMetricFamily(
        "nanobot_route_first_token_seconds", "From a request to the first token.", labels=_ROUTE
    )
    between = HistogramMetricFamily(
        "nanobot_route_between_tokens_seconds", "Between two chunks of a stream.", labels=_ROUTE
    )
    for labels, counts in routes.items():
        for status, count in list(counts.requests.items()):
            requests.add_metric((*labels, status), count)
        for name, family in counted.items():
            family.add_metric(labels, getattr(counts, name))
        _spread(first, labels, counts.first_token, FIRST_TOKEN_BOUNDS_S)
        _spread(between, labels, counts.between_tokens, GAP_BOUNDS_S)
    yield from (requests, *counted.values(), first, between)


def _spread(
    family: HistogramMetricFamily, labels: Labels, spread: Spread, bounds_s: tuple[float, ...]
) -> None:
    below, buckets = 0, []
    for bound, count in zip((*map(str, bounds_s), "+Inf"), spread.buckets, strict=True):
        below += count
        buckets.append((bound, float(below)))
    if below:
        family.add_metric(labels, buckets, spread.total_s)


def _gauge(name: str, about: str, value: float | None) -> Metric:
    family = GaugeMetricFamily(f"nanobot_agent_{name}", about)
    if value is not None:
        family.add_metric([], value)
    return family


def _gauges(name: str, about: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"nanobot_agent_{name}", about, labels=[label])
    for key, value in values.items():
        family.add_metric([key], float(value))
    return family


def _counter(name: str, about: str, value: float) -> Metric:
    family = CounterMetricFamily(f"nanobot_agent_{name}", about)
    family.add_metric([], value)
    return family


def _counters(name: str, about: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(f"nanobot_agent_{name}", about, labels=[label])
    for key, value in values.items():
        family.add_metric([key], float(value))
    return family
