"""The metrics page: names that Prometheus accepts, labels that are ours, values that are right."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
from collections import Counter

import httpx2
import pytest
from hypothesis import given, strategies as st
from prometheus_client.parser import text_string_to_metric_families

from agent.process import metrics
from agent.process.exposition import Family, Kind, Sample, text
from agent.process.metrics import Snapshot
from agent.process.metrics_server import CONNECTIONS_MAX, HEAD_BYTES_MAX, MetricsServer
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
    return metrics.page(snapshot).decode()


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


@given(st.text(), st.floats())
def test_is_read_back_as_it_was_written(label: str, value: float) -> None:
    """Any text of a label and any number are for Prometheus' own reader what they were."""
    family = Family("name", Kind.GAUGE, "About.", (Sample((("model", label),), value),))
    (read,) = text_string_to_metric_families(text([family]).decode())
    (sample,) = read.samples
    assert sample.labels == {"model": label}
    assert repr(sample.value) == repr(value)


async def asked(question: bytes, port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(question)
    answer = await reader.read()
    writer.close()
    return answer


async def test_is_served_until_the_end() -> None:
    """The page answers over HTTP, and its port is free afterwards."""
    port = 0
    for _ in range(2):
        async with MetricsServer(address="127.0.0.1", port=port, page=lambda: b"numbers") as served:
            port = served.port
            async with httpx2.AsyncClient(timeout=5) as client:
                answer = await client.get(f"http://127.0.0.1:{port}/metrics")
            assert (answer.status_code, answer.content) == (200, b"numbers")
            assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


async def test_a_port_that_is_taken_is_told() -> None:
    """Entering raises, so that the agent can go on without the page."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = MetricsServer(address="127.0.0.1", port=taken.getsockname()[1], page=bytes)
        with pytest.raises(OSError, match="in use"):
            await server.__aenter__()


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (b"HEAD / HTTP/1.0\r\n\r\n", b"HTTP/1.1 200 OK"),
        (b"POST / HTTP/1.1\r\n\r\n", b"HTTP/1.1 405 Method Not Allowed"),
        (b"x" * HEAD_BYTES_MAX * 2, b""),
    ],
)
async def test_any_other_question_ends_its_connection(question: bytes, answer: bytes) -> None:
    """Only the page's head, a refusal, or nothing: and the next one who asks is answered."""
    async with MetricsServer(address="127.0.0.1", port=0, page=lambda: b"numbers") as served:
        try:
            told = await asked(question, served.port)
        except ConnectionResetError:
            told = b""  # what was sent and not read resets the connection
        assert told.split(b"\r\n")[0] == answer
        assert (await asked(b"GET / HTTP/1.1\r\n\r\n", served.port)).endswith(b"numbers")


async def test_who_keeps_connections_open_is_bounded_and_holds_no_stop_up() -> None:
    """A connection beyond the bound is closed at once; those that wait are closed with the page."""
    async with MetricsServer(address="127.0.0.1", port=0, page=lambda: b"numbers") as served:
        silent = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(CONNECTIONS_MAX)]
        assert await asked(b"", served.port) == b""
    for reader, writer in silent:
        assert await reader.read() == b""
        writer.close()
