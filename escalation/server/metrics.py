"""The orchestrator's Prometheus surface: `nanobot_orchestrator_*`, with labels that cannot grow.

Label values are enums, route templates and status classes; nothing that a host or a request chooses becomes
a label, so no number of hosts or hostile requests grows the number of series.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from escalation.model import State

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

_INGEST_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_HTTP_BUCKETS_S: Final = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5)


class ReportResult(enum.StrEnum):
    """What became of a report that arrived."""

    INGESTED = "ingested"
    DUPLICATE = "duplicate"
    REFUSED = "refused"


class NoticeOutcome(enum.StrEnum):
    """What became of an attempt to tell somebody."""

    SENT = "sent"
    FOLDED = "folded"
    FAILED = "failed"
    GIVEN_UP = "given_up"


class ModelTextOutcome(enum.StrEnum):
    """What became of asking a model about an entry."""

    WRITTEN = "written"
    NOT_BELIEVED = "not_believed"
    UNREACHABLE = "unreachable"
    SLOW = "slow"
    NOT_ASKED = "not_asked"
    FAILED = "failed"


class ConnectionEnd(enum.StrEnum):
    """Why a connection to the pages was ended before it had asked anything whole."""

    SLOW = "slow"
    TOO_MANY = "too_many"


class ServerMetrics:
    """Counts what the orchestrator does; one object, given to whoever counts."""

    def __init__(self) -> None:
        """Start with every series at zero, in a registry of its own."""
        self.registry = CollectorRegistry()
        self._reports = Counter(
            "nanobot_orchestrator_reports",
            "Reports from hosts, by what became of them.",
            ["result"],
            registry=self.registry,
        )
        self._ingest = Histogram(
            "nanobot_orchestrator_ingest_seconds",
            "Time from the arrival of a batch of reports to its commit.",
            buckets=_INGEST_BUCKETS_S,
            registry=self.registry,
        )
        self._queue = Gauge(
            "nanobot_orchestrator_queue_entries",
            "Entries of the queue, by state.",
            ["state"],
            registry=self.registry,
        )
        self._hosts = Gauge(
            "nanobot_orchestrator_hosts",
            "Hosts that were ever heard, by whether they are heard now.",
            ["sight"],
            registry=self.registry,
        )
        self._store_errors = Counter(
            "nanobot_orchestrator_store_errors",
            "Operations that the database refused.",
            registry=self.registry,
        )
        self._requests = Counter(
            "nanobot_orchestrator_http_requests",
            "HTTP requests, by route and status.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self._request_seconds = Histogram(
            "nanobot_orchestrator_http_request_seconds",
            "Time to answer an HTTP request; streams are not counted.",
            buckets=_HTTP_BUCKETS_S,
            registry=self.registry,
        )
        self._connections_ended = Counter(
            "nanobot_orchestrator_http_connections_ended",
            "HTTP connections ended because no whole request came in time, or their address had too many.",
            ["reason"],
            registry=self.registry,
        )
        for each in ConnectionEnd:
            self._connections_ended.labels(each)
        self._logins_refused = Counter(
            "nanobot_orchestrator_logins_refused",
            "HTTP requests with credentials that fit nobody.",
            registry=self.registry,
        )
        self._watchers = Gauge(
            "nanobot_orchestrator_watchers", "Open streams of queue changes.", registry=self.registry
        )
        self._notices = Counter(
            "nanobot_orchestrator_notifications",
            "Notices to receivers, by what became of each attempt: sent, folded, failed or given_up.",
            ["receiver", "outcome"],
            registry=self.registry,
        )
        self._model_texts = Counter(
            "nanobot_orchestrator_model_texts",
            "Entries that a model was asked about, by what became of it; not_asked had no room in the queue.",
            ["outcome"],
            registry=self.registry,
        )
        self._waiting = Gauge(
            "nanobot_orchestrator_queue_waiting_seconds",
            "How long the oldest entry that waits for a decision has waited; 0 when none waits.",
            registry=self.registry,
        )
        self._ready = Gauge(
            "nanobot_orchestrator_ready",
            "Whether what is sent now could be kept (1) or not (0).",
            registry=self.registry,
        )
        self._certificates = Gauge(
            "nanobot_orchestrator_certificate_expiry_seconds",
            "When the next certificate of a holder expires, Unix time; 0 when it cannot be read.",
            ["holder"],
            registry=self.registry,
        )
        for result in ReportResult:
            self._reports.labels(result.value)
        self.queue({})
        self.hosts(seeing=0, silent=0)

    def reports(self, result: ReportResult, count: int = 1) -> None:
        """Count reports that arrived."""
        self._reports.labels(result.value).inc(count)

    def ingested_in(self, seconds: float) -> None:
        """Note how long a batch took from arrival to commit."""
        self._ingest.observe(seconds)

    def store_error(self) -> None:
        """Count an operation that the database refused."""
        self._store_errors.inc()

    def queue(self, entries: Mapping[State, int]) -> None:
        """Set how many entries stand in each state; states that are not named have none."""
        for state in State:
            self._queue.labels(state.value).set(entries.get(state, 0))

    def hosts(self, *, seeing: int, silent: int) -> None:
        """Set how many hosts are heard, and how many fell silent."""
        self._hosts.labels("seeing").set(seeing)
        self._hosts.labels("silent").set(silent)

    def http_request(self, *, route: str, method: str, status: int, seconds: float | None) -> None:
        """Count an answered request by its route's template; `seconds` is None for a stream."""
        self._requests.labels(route, method, str(status)).inc()
        if seconds is not None:
            self._request_seconds.observe(seconds)

    def connection_ended(self, why: ConnectionEnd) -> None:
        """Count a connection that was ended by the orchestrator."""
        self._connections_ended.labels(why).inc()

    def login_refused(self) -> None:
        """Count credentials that fit nobody."""
        self._logins_refused.inc()

    def watchers(self, count: int) -> None:
        """Set how many streams of changes are open."""
        self._watchers.set(count)

    def receiver(self, name: str) -> None:
        """Start the series of a receiver at zero."""
        for outcome in NoticeOutcome:
            self._notices.labels(name, outcome.value)

    def notices(self, receiver: str, outcome: NoticeOutcome, count: int = 1) -> None:
        """Count notices to `receiver`, a name of the settings."""
        self._notices.labels(receiver, outcome.value).inc(count)

    def model_text(self, outcome: ModelTextOutcome) -> None:
        """Count an entry that a model was asked about."""
        self._model_texts.labels(outcome.value).inc()

    def waiting(self, seconds: float) -> None:
        """Set how long the oldest entry that waits for a decision has waited."""
        self._waiting.set(seconds)

    def ready(self, ask: Callable[[], bool]) -> None:
        """Ask at each scrape whether what is sent then could be kept."""
        self._ready.set_function(lambda: float(ask()))

    def certificate(self, holder: str, expiry_unix_s: Callable[[], float]) -> None:
        """Ask at each scrape when the certificate of `holder`, a name of ours, expires."""
        self._certificates.labels(holder).set_function(expiry_unix_s)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)
