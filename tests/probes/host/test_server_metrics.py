"""`host.server_metrics` against real servers on loopback: pages good, large, slow, broken or missing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given, strategies as st

from probes.host.metrics_page import BYTES_MAX, PageInvalid, gauges_of
from probes.host.server_metrics import NAME, ServerMetricsSensor
from probes.observation import AskingFailed, GaugeRead, ServerGauge, ServerKind, ServerMetrics
from probes.settings import MetricsEndpoint
from probes.testing import instant

VLLM_PAGE = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a"} 2.0
vllm:num_requests_running{engine="1",model_name="a"} 1.0
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="a"} 1200.0
vllm:generation_tokens_total{engine="1",model_name="a"} 34.0
vllm:generation_tokens_created{engine="0",model_name="a"} 1.7e+09
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="a"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="a"} 0.75
# TYPE vllm:e2e_request_latency_seconds histogram
vllm:e2e_request_latency_seconds_bucket{le="0.3",model_name="a"} 7.0
python_info{version="3.12"} 1.0
"""


class _Page(BaseHTTPRequestHandler):
    answer: Callable[[_Page], None]

    def do_GET(self) -> None:
        type(self).answer(self)

    def log_message(self, *args: object) -> None:
        """Say nothing: a test's output is its own."""


def _giving(body: bytes, status: int = 200) -> Callable[[_Page], None]:
    def answer(page: _Page) -> None:
        page.send_response(status)
        page.send_header("Content-Length", str(len(body)))
        page.end_headers()
        page.wfile.write(body)

    return answer


def _trickling(page: _Page) -> None:
    page.send_response(200)
    page.end_headers()
    _drop_by_drop(page)


def _trickling_head(page: _Page) -> None:
    page.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    _drop_by_drop(page)


def _drop_by_drop(page: _Page) -> None:
    try:
        while True:
            page.wfile.write(b"#")
            page.wfile.flush()
            time.sleep(0.1)
    except OSError:
        return  # the asker has hung up


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[_Page], None]], int]]:
    """Return what serves a page on a free port of loopback."""
    servers = []

    def start(answer: Callable[[_Page], None]) -> int:
        kind = type("Page", (_Page,), {"answer": staticmethod(answer)})
        server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        servers.append((server, thread))
        return int(server.server_address[1])

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join(5)


def asked(kind: ServerKind, port: int, path: str = "") -> ServerMetrics:
    """Return what one asking told."""
    endpoint = MetricsEndpoint(server=kind, url=f"http://127.0.0.1:{port}{path}")
    sensor = ServerMetricsSensor(endpoints=(endpoint,))
    sensor.open()
    (told,) = sensor.read(instant(5))
    assert isinstance(told, ServerMetrics)
    assert (told.sensor, told.server, told.port) == (NAME, kind, port)
    return told


def test_adds_up_the_engines_of_a_server(serve: Callable[[Callable[[_Page], None]], int]) -> None:
    """Requests and tokens of all engines are summed, the fullest cache is told, other metrics are not."""
    told = asked(ServerKind.VLLM, serve(_giving(VLLM_PAGE)))
    assert told.failure is None
    assert told.gauges == (
        GaugeRead(ServerGauge.CACHE_USED, 0.75),
        GaugeRead(ServerGauge.GENERATED_TOKENS, 1234.0),
        GaugeRead(ServerGauge.REQUESTS_RUNNING, 3.0),
    )


@pytest.mark.parametrize(
    ("models", "share"),
    [
        (b'{"models":[{"size":100,"size_vram":100},{"size":100,"size_vram":0}]}', 0.5),
        (b'{"models":[{"size":100,"size_vram":0}]}', 0.0),
        (b'{"models":[{"size":100,"size_vram":400},{"size":"x"},7]}', None),
        (b'{"models":[]}', None),
    ],
)
def test_reads_how_much_of_the_models_lies_on_a_gpu(
    serve: Callable[[Callable[[_Page], None]], int], models: bytes, share: float | None
) -> None:
    """Ollama's list gives one share; without loaded models, or with impossible sizes, there is none."""
    told = asked(ServerKind.OLLAMA, serve(_giving(models)))
    expected = () if share is None else (GaugeRead(ServerGauge.MODEL_ON_GPU_SHARE, share),)
    assert (told.gauges, told.failure) == (expected, None)


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (_giving(b"", status=401), AskingFailed.REFUSED),
        (_giving(b"", status=307), AskingFailed.REFUSED),
        (_giving(b"x" * (BYTES_MAX + 1)), AskingFailed.TOO_LARGE),
        (_giving(b'vllm:num_requests_running{engine="0"} many\n'), AskingFailed.UNREADABLE),
        (_giving(b"vllm:num_requests_running \xff\n"), AskingFailed.UNREADABLE),
        (_trickling, AskingFailed.SLOW),
        (_trickling_head, AskingFailed.SLOW),
        (lambda page: page.wfile.write(b"SSH-2.0-x\r\n\r\n"), AskingFailed.UNREACHABLE),
    ],
    ids=["key wanted", "moved", "too large", "garbled", "not text", "drop by drop", "no head", "no HTTP"],
)
def test_says_why_a_server_told_nothing(
    serve: Callable[[Callable[[_Page], None]], int],
    answer: Callable[[_Page], None],
    failure: AskingFailed,
) -> None:
    """Each way to tell nothing is told apart, and none of them raises."""
    assert asked(ServerKind.VLLM, serve(answer)).failure is failure


def test_a_server_that_is_not_there_is_unreachable(serve: Callable[[Callable[[_Page], None]], int]) -> None:
    """A closed port is a fact about the server, not blindness of the sensor."""
    port = serve(_giving(b""))
    closed = asked(ServerKind.VLLM, 1) if port != 1 else None
    assert closed is not None
    assert closed.failure is AskingFailed.UNREACHABLE


def test_without_a_declaration_nothing_is_asked() -> None:
    """No endpoint, no observation, no blindness."""
    sensor = ServerMetricsSensor(endpoints=())
    sensor.open()
    assert list(sensor.read(instant(1))) == []
    assert not sensor.waiting()


def test_asks_who_was_asked_least_lately_when_time_is_short() -> None:
    """A read that has used up its time leaves the rest to the next, which begins with them."""
    clock = iter([0.0, 1.0, 3.0, 10.0, 10.1, 10.2])
    ports = (1, 2)
    sensor = ServerMetricsSensor(
        endpoints=[MetricsEndpoint(server=ServerKind.VLLM, url=f"http://127.0.0.1:{port}") for port in ports],
        monotonic=lambda: next(clock),
    )
    sensor.open()
    first = [told.port for told in sensor.read(instant(1)) if isinstance(told, ServerMetrics)]
    then = [told.port for told in sensor.read(instant(16)) if isinstance(told, ServerMetrics)]
    assert (first, then) == ([1], [1, 2])


@given(st.sampled_from(list(ServerKind)), st.binary(max_size=2000))
def test_no_page_does_harm(kind: ServerKind, page: bytes) -> None:
    """Whatever the bytes, the numbers are finite or the page is refused by name."""
    try:
        gauges = gauges_of(kind, page)
    except PageInvalid:
        return
    assert all(abs(each.value) < float("inf") for each in gauges)


@given(
    st.lists(
        st.sampled_from(
            [
                b"vllm:num_requests_running",
                b"{",
                b"}",
                b'"',
                b"=",
                b",",
                b" ",
                b"1",
                b"NaN",
                b"1e999",
                b"\n",
                b"#",
            ]
        ),
        max_size=30,
    )
)
def test_no_line_of_a_wanted_metric_does_harm(parts: list[bytes]) -> None:
    """The same for lines that get past the choice by name."""
    try:
        gauges = gauges_of(ServerKind.VLLM, b"vllm:num_requests_running" + b"".join(parts))
    except PageInvalid:
        return
    assert all(abs(each.value) < float("inf") for each in gauges)
