"""The Grafana dashboard, written from one table of panels.

Queries name only what the agent and the orchestrator publish themselves; a test holds each against their real
pages. The data source is a variable of the dashboard, so nothing of one site is in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

UID: Final = "host-nanobot"

_SOURCE: Final = {"type": "prometheus", "uid": "${source}"}
_WIDTH: Final = 24
_GRID_HEIGHT: Final = 7


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: what it shows, in which unit, and the queries with their legends."""

    title: str
    about: str
    queries: Mapping[str, str]
    unit: str = "short"
    kind: str = "timeseries"
    alarm: float | None = None
    """From which value on it is red (stat panels)."""
    words: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """Panels that belong together, side by side."""

    title: str
    panels: Sequence[Panel]


_AGENT: Final = 'instance=~"$agent"'

ROWS: Final = (
    Row(
        "The desk",
        (
            Panel(
                "Waiting for a decision",
                "Entries that nobody has decided on.",
                {"": 'sum(nanobot_orchestrator_queue_entries{state="proposed"})'},
                kind="stat",
                alarm=1,
            ),
            Panel(
                "Oldest one waits for",
                "What nobody approves in time expires.",
                {"": "max(nanobot_orchestrator_queue_waiting_seconds)"},
                kind="stat",
                unit="s",
                alarm=3600,
            ),
            Panel(
                "Silent hosts",
                "Hosts that were heard once and are not heard now. Silence never means healthy.",
                {"": 'max(nanobot_orchestrator_hosts{sight="silent"})'},
                kind="stat",
                alarm=1,
            ),
            Panel(
                "Orchestrator",
                "Whether what is sent now could be kept.",
                {"": "min(nanobot_orchestrator_ready)"},
                kind="stat",
                words={"0": "not ready", "1": "ready"},
            ),
            Panel(
                "Next certificate expires in",
                "The orchestrator's, the authority's, and the next of the connected agents.",
                {"{{holder}}": "min by (holder) (nanobot_orchestrator_certificate_expiry_seconds) - time()"},
                kind="stat",
                unit="s",
            ),
            Panel(
                "Queue",
                "Entries, by state.",
                {"{{state}}": "max by (state) (nanobot_orchestrator_queue_entries)"},
            ),
            Panel(
                "Hosts", "Heard, and silent.", {"{{sight}}": "max by (sight) (nanobot_orchestrator_hosts)"}
            ),
        ),
    ),
    Row(
        "Hosts: what stands open, and what is not seen",
        (
            Panel(
                "Open cases",
                "By fault class, over the chosen agents.",
                {"{{fault_class}}": f"sum by (fault_class) (nanobot_agent_open_cases{{{_AGENT}}}) > 0"},
            ),
            Panel(
                "Blind sensors",
                "How many sensors of each agent do not see; nanobotctl hosts says why.",
                {"{{instance}}": f"count by (instance) (nanobot_agent_sensor_seeing{{{_AGENT}}} == 0)"},
            ),
            Panel(
                "Last acknowledged",
                "How long ago the orchestrator acknowledged anything of an agent: about one heartbeat.",
                {"{{instance}}": f"time() - nanobot_agent_last_ack_seconds{{{_AGENT}}}"},
                unit="s",
            ),
            Panel(
                "Waiting in the spool",
                "Reports on disk that the orchestrator has not taken yet.",
                {"{{instance}}": f"nanobot_agent_spool_reports{{{_AGENT}}}"},
            ),
            Panel(
                "Observations",
                "What sensors said, a second.",
                {"{{sensor}}": f"sum by (sensor) (rate(nanobot_agent_observations_total{{{_AGENT}}}[5m]))"},
                unit="ops",
            ),
            Panel(
                "Lost",
                "What sensors missed (a lower bound) and what a full pipeline dropped, a second.",
                {
                    "{{sensor}} missed": (
                        f"sum by (sensor) (rate(nanobot_agent_samples_lost_total{{{_AGENT}}}[5m]))"
                    ),
                    "{{sensor}} dropped": (
                        f"sum by (sensor) (rate(nanobot_agent_pipeline_drops_total{{{_AGENT}}}[5m]))"
                    ),
                },
                unit="ops",
            ),
            Panel(
                "Defects",
                "Errors of sensors and detectors in half an hour; their tracebacks are in the journal.",
                {
                    "{{sensor}}": (
                        f"sum by (sensor) (increase(nanobot_agent_sensor_errors_total{{{_AGENT}}}[30m]))"
                    ),
                    "{{detector}}": (
                        f"sum by (detector) (increase(nanobot_agent_detector_errors_total{{{_AGENT}}}[30m]))"
                    ),
                },
            ),
        ),
    ),
    Row(
        "Routes",
        (
            Panel(
                "Requests",
                "Requests that ended, a second, by class of status.",
                {
                    "{{model}} {{route}} {{status}}": (
                        f"sum by (model, route, status) (rate(nanobot_route_requests_total{{{_AGENT}}}[5m]))"
                    )
                },
                unit="reqps",
            ),
            Panel(
                "First token, 99th percentile",
                "From a request to the first token of its answer.",
                {
                    "{{model}} {{route}}": (
                        "histogram_quantile(0.99, sum by (le, model, route) "
                        f"(rate(nanobot_route_first_token_seconds_bucket{{{_AGENT}}}[5m])))"
                    )
                },
                unit="s",
            ),
            Panel(
                "Between tokens, 99th percentile",
                "Between two chunks of a streamed answer.",
                {
                    "{{model}} {{route}}": (
                        "histogram_quantile(0.99, sum by (le, model, route) "
                        f"(rate(nanobot_route_between_tokens_seconds_bucket{{{_AGENT}}}[5m])))"
                    )
                },
                unit="s",
            ),
            Panel(
                "Answers that are none",
                "Empty, without their proper end, out of tokens before any text, or errors with status 200.",
                {
                    "{{model}} empty": f"sum by (model) (rate(nanobot_route_empty_total{{{_AGENT}}}[5m]))",
                    "{{model}} cut": f"sum by (model) (rate(nanobot_route_cut_total{{{_AGENT}}}[5m]))",
                    "{{model}} budget": (
                        f"sum by (model) (rate(nanobot_route_budget_exhausted_total{{{_AGENT}}}[5m]))"
                    ),
                    "{{model}} error": (
                        f"sum by (model) (rate(nanobot_route_errors_in_answers_total{{{_AGENT}}}[5m]))"
                    ),
                },
                unit="ops",
            ),
            Panel(
                "Not observed",
                "Traffic of a watched port that could not be judged, by reason.",
                {
                    "{{port}} {{reason}}": (
                        f"sum by (port, reason) (rate(nanobot_route_unobserved_total{{{_AGENT}}}[5m]))"
                    )
                },
                unit="ops",
            ),
        ),
    ),
    Row(
        "The orchestrator",
        (
            Panel(
                "Reports",
                "Reports from hosts, a second, by what became of them.",
                {"{{result}}": "sum by (result) (rate(nanobot_orchestrator_reports_total[5m]))"},
                unit="ops",
            ),
            Panel(
                "Ingest, 99th percentile",
                "From the arrival of a batch to its commit.",
                {
                    "{{instance}}": (
                        "histogram_quantile(0.99, sum by (le, instance) "
                        "(rate(nanobot_orchestrator_ingest_seconds_bucket[5m])))"
                    )
                },
                unit="s",
            ),
            Panel(
                "Store errors",
                "Operations that the database refused, a second.",
                {"{{instance}}": "rate(nanobot_orchestrator_store_errors_total[5m])"},
                unit="ops",
            ),
            Panel(
                "Notifications",
                "By receiver and what became of them, in half an hour.",
                {
                    "{{receiver}} {{outcome}}": (
                        "sum by (receiver, outcome) (increase(nanobot_orchestrator_notifications_total[30m]))"
                    )
                },
            ),
            Panel(
                "HTTP requests",
                "By status, a second.",
                {"{{status}}": "sum by (status) (rate(nanobot_orchestrator_http_requests_total[5m]))"},
                unit="reqps",
            ),
            Panel(
                "Refused logins",
                "Requests with credentials that fit nobody, a second.",
                {"{{instance}}": "rate(nanobot_orchestrator_logins_refused_total[5m])"},
                unit="ops",
            ),
            Panel(
                "Watchers",
                "Open streams of queue changes.",
                {"{{instance}}": "nanobot_orchestrator_watchers"},
            ),
        ),
    ),
)


def page() -> str:
    """Return the dashboard as Grafana imports it."""
    panels: list[object] = []
    top = 0
    for row in ROWS:
        panels.append(
            {
                "type": "row",
                "id": len(panels) + 1,
                "title": row.title,
                "collapsed": False,
                "gridPos": {"h": 1, "w": _WIDTH, "x": 0, "y": top},
                "panels": [],
            }
        )
        top += 1
        left = height = 0
        for panel in row.panels:
            width, tall = (4, 4) if panel.kind == "stat" else (8, _GRID_HEIGHT)
            if left + width > _WIDTH or (tall != height and height):
                left, top = 0, top + height
            height = tall
            place = {"h": tall, "w": width, "x": left, "y": top}
            panels.append(_panel(panel, number=len(panels) + 1, place=place))
            left += width
        top += height
    return json.dumps(_dashboard(panels), indent=2) + "\n"


def _panel(panel: Panel, *, number: int, place: Mapping[str, int]) -> dict[str, object]:
    steps: list[dict[str, object]] = [{"color": "green", "value": None}]
    if panel.alarm is not None:
        steps.append({"color": "red", "value": panel.alarm})
    if panel.words is not None:
        steps = [{"color": "red", "value": None}, {"color": "green", "value": 1}]
    mappings = []
    if panel.words is not None:
        mappings.append(
            {"type": "value", "options": {value: {"text": word} for value, word in panel.words.items()}}
        )
    return {
        "type": panel.kind,
        "id": number,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "mappings": mappings,
                "thresholds": {"mode": "absolute", "steps": steps},
            },
            "overrides": [],
        },
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
            for place, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def _dashboard(panels: Sequence[object]) -> dict[str, object]:
    return {
        "uid": UID,
        "title": "Host Nanobot",
        "description": "What the monitor sees, what it cannot see, and what waits for a decision.",
        "tags": ["host-nanobot"],
        "schemaVersion": 38,
        "version": 1,
        "editable": False,
        "timezone": "browser",
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "links": [],
        "annotations": {"list": []},
        "templating": {
            "list": [
                {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
                {
                    "name": "agent",
                    "label": "Agent",
                    "type": "query",
                    "datasource": _SOURCE,
                    "query": {"query": "label_values(nanobot_agent_build_info, instance)", "refId": "agents"},
                    "refresh": 2,
                    "includeAll": True,
                    "multi": True,
                    "current": {"text": "All", "value": "$__all"},
                },
            ]
        },
        "panels": panels,
    }
