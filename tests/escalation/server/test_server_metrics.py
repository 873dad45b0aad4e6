"""The orchestrator's metrics: every series is there from the start, and none can multiply."""

from __future__ import annotations

import subprocess

import pytest

from escalation.model import State
from escalation.server.metrics import ReportResult, ServerMetrics
from tests.monitoring.programs import found

PROMTOOL = found("promtool")


def test_counts_and_forgets_states_that_are_empty() -> None:
    """Gauges of the queue follow the whole picture, also down to none."""
    metrics = ServerMetrics()
    metrics.reports(ReportResult.DUPLICATE, 3)
    metrics.queue({State.PROPOSED: 5})
    metrics.queue({State.DONE: 1})
    text = metrics.text().decode()
    assert 'nanobot_orchestrator_reports_total{result="duplicate"} 3.0' in text
    assert 'nanobot_orchestrator_queue_entries{state="proposed"} 0.0' in text
    assert 'nanobot_orchestrator_queue_entries{state="done"} 1.0' in text
    assert 'nanobot_orchestrator_reports_total{result="refused"} 0.0' in text


def test_two_servers_in_one_process_do_not_share() -> None:
    """Each object has a registry of its own."""
    first, second = ServerMetrics(), ServerMetrics()
    first.store_error()
    assert "nanobot_orchestrator_store_errors_total 0.0" in second.text().decode()


@pytest.mark.skipif(PROMTOOL is None, reason="needs promtool (package prometheus)")
def test_promtool_finds_nothing_to_say() -> None:
    """The exposition passes Prometheus' own linter."""
    metrics = ServerMetrics()
    metrics.http_request(route="/", method="GET", status=200, seconds=0.01)
    metrics.certificate("agents", lambda: float("inf"))
    assert PROMTOOL is not None
    checked = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=metrics.text(), capture_output=True, check=False, timeout=30
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
