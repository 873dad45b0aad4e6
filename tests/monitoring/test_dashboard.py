"""The Grafana dashboard and the rules ask only for what the real pages have."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from agent.process.metrics import AgentCollector, Snapshot
from agent.routes.tally import RouteCounts
from dev import dashboard
from escalation.server.metrics import ServerMetrics
from tests.monitoring.programs import ROOT

BOARD: dict[str, Any] = json.loads((ROOT / "monitoring/grafana/host-nanobot.json").read_text())
RULES = (ROOT / "monitoring/prometheus/host-nanobot.rules.yml").read_text()
QUERIES = [target["expr"] for panel in BOARD["panels"] for target in panel.get("targets", [])]
SCRAPED = {"instance", "job"}
"""Labels that Prometheus adds to every series."""


def pages() -> str:
    """Return both pages with every series that they can have."""
    counts = RouteCounts(requests=Counter({"2xx": 1}))
    counts.first_token.buckets[0] += 1
    counts.between_tokens.buckets[0] += 1
    snapshot = Snapshot(
        version="1",
        started_unix_s=1.0,
        seeing={"s": True},
        observations={"s": 1},
        lost={"s": 1},
        dropped={"s": 1},
        sensor_errors={"s": 1},
        detector_errors={"d": 1},
        open_cases={"f": 1},
        spool_oldest_unix_s=1.0,
        last_ack_unix_s=1.0,
        routes={("8000", "chat_completions", "m"): counts},
        unobserved={("8000", "tls"): 1},
    )
    registry = CollectorRegistry(auto_describe=False)
    registry.register(AgentCollector(snapshot=lambda: snapshot))
    server = ServerMetrics()
    server.http_request(route="/", method="GET", status=200, seconds=0.1)
    server.receiver("pager")
    server.certificate("orchestrator", lambda: 1.0)
    return generate_latest(registry).decode() + server.text().decode()


def published() -> dict[str, set[str]]:
    """Return every series' name with the labels that it has."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(pages()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def asked(text: str) -> list[tuple[str, set[str]]]:
    """Return each metric that a query names, with the labels by which it selects."""
    return [
        (name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector)))
        for name, selector in re.findall(r"\b(nanobot_[a-z_]+)(?:\{([^}]*)\})?", text)
    ]


@pytest.mark.parametrize("query", QUERIES)
def test_a_panel_asks_for_what_is_published(query: str) -> None:
    """Each metric exists, and each label by which it selects or groups is one of its own."""
    known = published()
    names = asked(query)
    assert names, query
    for name, labels in names:
        assert name in known
        assert labels <= known[name] | SCRAPED
    grouped = {label.strip() for each in re.findall(r"by \(([^)]*)\)", query) for label in each.split(",")}
    assert grouped <= set().union(*(known[name] for name, _ in names)) | SCRAPED


def test_legends_name_labels_that_the_query_keeps() -> None:
    """A legend's label is one by which the query groups, or one of the plain series."""
    known = published()
    for panel in BOARD["panels"]:
        for target in panel.get("targets", []):
            kept = set().union(*(known[name] for name, _ in asked(target["expr"]))) | SCRAPED
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept


def test_rules_ask_for_what_is_published() -> None:
    """Each metric of a rule exists, with the labels by which it selects."""
    known = published()
    expressions = re.findall(r"expr: (?:>-\n)?(.*?)(?=\n\s+(?:for|labels):)", RULES, re.DOTALL)
    assert len(expressions) == RULES.count("- alert:")
    for name, labels in asked("\n".join(expressions)):
        assert name in known
        assert labels <= known[name] | SCRAPED


def test_the_dashboard_can_be_imported_anywhere() -> None:
    """A stable uid, numbered panels that do not overlap, and neither a link nor a data source of one site."""
    assert BOARD["uid"] == dashboard.UID
    text = json.dumps(BOARD)
    assert "://" not in text
    assert BOARD["links"] == []
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(ids) == len(set(ids))
    assert {panel["datasource"]["uid"] for panel in BOARD["panels"] if "datasource" in panel} == {"${source}"}
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
