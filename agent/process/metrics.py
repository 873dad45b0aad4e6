"""The agent as Prometheus sees it: read at scrape time from one snapshot, with bounded labels.

Labels are names of sensors, detectors, fault classes and kinds of loss, which are all ours. The one exception
is the model of a route: made inert, and only so many of them (`agent/routes/tally.py`). A collector reads a
snapshot instead of keeping counters, so that the work loop pays nothing for being measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from agent.process.exposition import Family, Kind, Sample, text
from agent.routes.tally import FIRST_TOKEN_BOUNDS_S, Labels, RouteCounts, Spread
from probes.http.facts import GAP_BOUNDS_S

_ROUTE = ("port", "route", "model")
_COUNTED = {
    "empty": "Whole answers with status 200 and nothing in them.",
    "budget_exhausted": "Answers whose tokens ran out before any text.",
    "cut": "Answers without their proper end.",
    "errors_in_answers": "Errors inside an answer with a good status.",
}


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


def page(now: Snapshot) -> bytes:
    """Return the whole page; a label value appears from the start, at 0."""
    return text(_families(now))


def _families(now: Snapshot) -> Iterator[Family]:
    build = Sample((("version", now.version),), 1.0)
    yield Family("nanobot_agent_build_info", Kind.GAUGE, "The agent's version.", (build,))
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
    yield _gauge("spool_oldest_seconds", "When the oldest waiting report was made.", now.spool_oldest_unix_s)
    yield _gauge("uplink_connected", "Whether a stream to the orchestrator is up.", float(now.connected))
    yield _gauge("last_ack_seconds", "When the orchestrator last acknowledged.", now.last_ack_unix_s)
    yield _counter("handovers_refused", "Handovers of descriptors refused.", now.handovers_refused)
    yield from _of_routes(now.routes)
    yield Family(
        "nanobot_route_unobserved_total",
        Kind.COUNTER,
        "Traffic that could not be judged.",
        tuple(
            Sample((("port", port), ("reason", reason)), count)
            for (port, reason), count in now.unobserved.items()
        ),
    )


def _of_routes(routes: Mapping[Labels, RouteCounts]) -> Iterator[Family]:
    yield Family(
        "nanobot_route_requests_total",
        Kind.COUNTER,
        "Requests that ended, by class of status.",
        tuple(
            Sample((*_route(labels), ("status", status)), count)
            for labels, counts in routes.items()
            for status, count in counts.requests.items()
        ),
    )
    for name, about in _COUNTED.items():
        samples = (Sample(_route(labels), getattr(counts, name)) for labels, counts in routes.items())
        yield Family(f"nanobot_route_{name}_total", Kind.COUNTER, about, tuple(samples))
    yield Family(
        "nanobot_route_first_token_seconds",
        Kind.HISTOGRAM,
        "From a request to the first token.",
        tuple(
            sample
            for labels, counts in routes.items()
            for sample in _spread(labels, counts.first_token, FIRST_TOKEN_BOUNDS_S)
        ),
    )
    yield Family(
        "nanobot_route_between_tokens_seconds",
        Kind.HISTOGRAM,
        "Between two chunks of a stream.",
        tuple(
            sample
            for labels, counts in routes.items()
            for sample in _spread(labels, counts.between_tokens, GAP_BOUNDS_S)
        ),
    )


def _route(labels: Labels) -> tuple[tuple[str, str], ...]:
    return tuple(zip(_ROUTE, labels, strict=True))


def _spread(labels: Labels, spread: Spread, bounds_s: tuple[float, ...]) -> Iterator[Sample]:
    if not sum(spread.buckets):
        return
    below = 0
    for bound, count in zip((*map(str, bounds_s), "+Inf"), spread.buckets, strict=True):
        below += count
        yield Sample((*_route(labels), ("le", bound)), below, "_bucket")
    yield Sample(_route(labels), below, "_count")
    yield Sample(_route(labels), spread.total_s, "_sum")


def _gauge(name: str, about: str, value: float | None) -> Family:
    samples = () if value is None else (Sample((), value),)
    return Family(f"nanobot_agent_{name}", Kind.GAUGE, about, samples)


def _gauges(name: str, about: str, label: str, values: Mapping[str, float]) -> Family:
    samples = (Sample(((label, key),), value) for key, value in values.items())
    return Family(f"nanobot_agent_{name}", Kind.GAUGE, about, tuple(samples))


def _counter(name: str, about: str, value: float) -> Family:
    return Family(f"nanobot_agent_{name}_total", Kind.COUNTER, about, (Sample((), value),))


def _counters(name: str, about: str, label: str, values: Mapping[str, float]) -> Family:
    samples = (Sample(((label, key),), value) for key, value in values.items())
    return Family(f"nanobot_agent_{name}_total", Kind.COUNTER, about, tuple(samples))
