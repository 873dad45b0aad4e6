"""The metrics page: names that Prometheus accepts, labels that are ours, values that are right."""

from __future__ import annotations

import re
import subprocess
import urllib.request
from collections import Counter

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from agent.process.metrics import AgentCollector, MetricsPage, Snapshot
from agent.routes.tally import RouteCounts
from tests.monitoring.programs import found

PROMTOOL = found("promtool")

FULL = Snapshot(
    version="1.2.3",
    started_unix_s=1.0,
    seeing={"kernel.oom_kill": True, "kernel.listener": False},
    observations={"kernel.oom_kill": 7},
    lost={"kernel.oom_kill": 3},
    open_cases={"gpu.access_revoked": 2},
    spool_reports=5,
    spool_oldest_unix_s=9.0,
    connected=True,
    last_ack_unix_s=8.0,
    committed=11,
    routes={("8000", "chat_completions", "qwen3"): RouteCounts(requests=Counter({"2xx": 3}))},
    unobserved={("8000", "tls"): 2},
)


def page(snapshot: Snapshot) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(AgentCollector(snapshot=lambda: snapshot))
    return generate_latest(registry).decode()


@pytest.mark.parametrize(
    "line",
    [
        'nanobot_agent_build_info{version="1.2.3"} 1.0',
        'nanobot_agent_sensor_seeing{sensor="kernel.oom_kill"} 1.0',
        'nanobot_agent_sensor_seeing{sensor="kernel.listener"} 0.0',
        'nanobot_agent_samples_lost_total{sensor="kernel.oom_kill"} 3.0',
        'nanobot_agent_open_cases{fault_class="gpu.access_revoked"} 2.0',
        "nanobot_agent_spool_reports 5.0",
        "nanobot_agent_reports_committed_total 11.0",
        "nanobot_agent_last_ack_seconds 8.0",
    ],
)
def test_shows_the_snapshot(line: str) -> None:
    """Each number stands under its name."""
    assert line in page(FULL).splitlines()


def test_what_never_happened_has_no_value() -> None:
    """No acknowledgement yet is not one at the epoch."""
    text = page(Snapshot(version="1", started_unix_s=1.0, seeing={}))
    assert not re.search(r"^nanobot_agent_last_ack_seconds ", text, re.MULTILINE)


def test_every_name_is_ours() -> None:
    """One prefix, and only labels whose values we choose."""
    for line in page(FULL).splitlines():
        if line.startswith("#"):
            continue
        found = re.fullmatch(r"nanobot_(agent|route)_[a-z_]+(\{(?P<labels>[^}]*)\})? \S+", line)
        assert found is not None, line
        names = tuple(sorted(re.findall(r"(\w+)=\"[^\"]*\"", found["labels"] or "")))
        one = {(), ("sensor",), ("detector",), ("fault_class",), ("version",)}
        assert names in one | {
            ("model", "port", "route"),
            ("model", "port", "route", "status"),
            ("port", "reason"),
        }


@pytest.mark.skipif(PROMTOOL is None, reason="needs promtool (package prometheus)")
def test_promtool_has_nothing_to_say() -> None:
    """Prometheus' linter accepts the page."""
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=page(FULL), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_is_served_until_the_end() -> None:
    """The page answers over HTTP, and its port is free afterwards."""
    collector = AgentCollector(snapshot=lambda: FULL)
    for _ in range(2):
        with MetricsPage(address="127.0.0.1", port=0, collector=collector) as served:
            assert served._server is not None
            url = f"http://127.0.0.1:{served._server.server_port}/metrics"
            with urllib.request.urlopen(url, timeout=5) as answer:
                assert b"nanobot_agent_spool_reports 5.0" in answer.read()
