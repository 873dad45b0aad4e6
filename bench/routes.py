"""What watching model routes costs: the watched server, the agent's CPU and memory, and what is lost.

The server is uvicorn, the client reads 32 event streams. `model pace` is 100 chunks a second on each stream,
which is what a fast model server gives; `flat out` is as fast as the server can, where server, client and
agent fight for the same cores: no model server runs there, and it is shown as the worst case.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx2

from bench.paired import Paired, run_pairs, summarise
from bench.rig import Agent, Unavailable, cpu_s, free_ports, proportional_bytes, watched

_STREAMS = 32
_SETTLE_S = 3.0
_DRAINED_S = 1.5


@dataclass(frozen=True, slots=True)
class Routes:
    """The figures; ratios are on/off, so below 1 is slower when watched (above 1 for the first token)."""

    paced: Paired
    paced_first_token: Paired
    flat_out: Paired
    control: Paired
    cpu_ms_per_1000_chunks: float
    pss_mb_before: float
    pss_mb_with_1000: float
    storm_chunks: int
    storm_seen: int
    storm_lost: int
    storm_per_s: float


def measure(*, pairs: int) -> Routes:
    """Measure everything; `pairs` pairs of runs on against off."""
    (port,) = free_ports(1)
    with _server(port):
        paced = _Runs(port, chunks=400, pace=100)
        flat = _Runs(port, chunks=1500, pace=0)
        paced_pairs = run_pairs(paced.on, paced.off, pairs=pairs)
        firsts = paced.compared("first_p99_s")
        flat_pairs = run_pairs(flat.on, flat.off, pairs=pairs)
        control = run_pairs(flat.off, flat.off, pairs=pairs)
        cpu_ms = _cpu_per_1000(port)
        before, with_1000 = _memory(port)
        sent, seen, lost, rate = _storm(port)
    return Routes(
        paced=paced_pairs,
        paced_first_token=firsts,
        flat_out=flat_pairs,
        control=control,
        cpu_ms_per_1000_chunks=cpu_ms,
        pss_mb_before=before,
        pss_mb_with_1000=with_1000,
        storm_chunks=sent,
        storm_seen=seen,
        storm_lost=lost,
        storm_per_s=rate,
    )


def table(routes: Routes) -> str:
    """Render it as Markdown."""
    rows = [
        ("32 streams at model pace, chunks/s, on/off", str(routes.paced.ratio)),
        ("the same, first token p99, on/off", str(routes.paced_first_token.ratio)),
        ("32 streams flat out, chunks/s, on/off", str(routes.flat_out.ratio)),
        ("flat out, off against off", str(routes.control.ratio)),
        ("pairs", str(routes.paced.pairs)),
        ("agent CPU per 1 000 chunks, ms", f"{routes.cpu_ms_per_1000_chunks:.2f}"),
        ("agent PSS before / with 1 000 connections, MB", _pair(routes)),
        ("chunks at speed: a second, sent, seen", _storm_words(routes)),
        ("records lost meanwhile", str(routes.storm_lost)),
    ]
    return "\n".join(("| what | figure |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)))


def _pair(routes: Routes) -> str:
    return f"{routes.pss_mb_before:.1f} / {routes.pss_mb_with_1000:.1f}"


def _storm_words(routes: Routes) -> str:
    return f"{routes.storm_per_s:.0f}, {routes.storm_chunks}, {routes.storm_seen}"


class _Runs:
    """One shape of load with and without the agent; each run's figures are kept for a second look."""

    def __init__(self, port: int, *, chunks: int, pace: float) -> None:
        self._port, self._chunks, self._pace = port, chunks, pace
        self._seen: dict[str, list[dict[str, float]]] = {"on": [], "off": []}

    def on(self) -> float:
        """Return chunks a second while watched."""
        with watched(http_ports=(self._port,)):
            return self._run("on")

    def off(self) -> float:
        """Return chunks a second without an agent."""
        return self._run("off")

    def compared(self, figure: str) -> Paired:
        """Return another figure of the runs that were made, paired by position."""
        on, off = ([run[figure] for run in self._seen[side]] for side in ("on", "off"))
        return summarise(on, off)

    def _run(self, side: str) -> float:
        figures = _client(self._port, _STREAMS, self._chunks, self._pace)
        self._seen[side].append(figures)
        return figures["chunks_per_s"]


def _cpu_per_1000(port: int) -> float:
    """Return the agent's CPU milliseconds per 1 000 chunks at model pace, its idle life taken off."""
    with watched(http_ports=(port,)) as agent:
        time.sleep(_SETTLE_S)
        used, started = cpu_s(agent.pid), time.monotonic()
        time.sleep(10)
        idle_per_s = (cpu_s(agent.pid) - used) / (time.monotonic() - started)
        used, started = cpu_s(agent.pid), time.monotonic()
        _client(port, _STREAMS, 1000, 100)
        time.sleep(_DRAINED_S)
        busy = cpu_s(agent.pid) - used - idle_per_s * (time.monotonic() - started)
        return busy * 1e3 / (_STREAMS * 1000 / 1000)


def _memory(port: int) -> tuple[float, float]:
    """Return the agent's PSS in MB before, and with 1 000 connections that have all been used."""
    with watched(http_ports=(port,)) as agent:
        time.sleep(_SETTLE_S)
        before = proportional_bytes(agent.pid)
        command = [sys.executable, "-m", "bench.sse", "client", str(port), "1000", "10", "5", "KEEP"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout is not None
            if not client.stdout.readline():
                raise Unavailable("1 000 connections could not be opened (ulimit -n)")
            time.sleep(_DRAINED_S)
            after = proportional_bytes(agent.pid)
            client.communicate()
        return before / 1e6, after / 1e6


def _storm(port: int) -> tuple[int, int, int, float]:
    """Return chunks sent, chunks seen, records lost, and the rate, at 10 000 chunks a second."""
    with watched(http_ports=(port,)) as agent:
        time.sleep(_SETTLE_S)
        chunks, pace = 3200, 320.0
        figures = _client(port, _STREAMS, chunks, pace)
        time.sleep(_DRAINED_S)
        seen, lost = _counted(agent)
    return _STREAMS * chunks, seen, lost, figures["chunks_per_s"]


def _counted(agent: Agent) -> tuple[int, int]:
    page = httpx2.get(agent.metrics_url, timeout=5).text
    # A stream of n events has n-1 gaps.
    gaps = sum(map(float, re.findall(r"^nanobot_route_between_tokens_seconds_count\{.*\} (\S+)", page, re.M)))
    streams = sum(map(float, re.findall(r"^nanobot_route_requests_total\{.*\} (\S+)", page, re.M)))
    lost = sum(
        map(
            float,
            re.findall(r"^nanobot_agent_samples_lost_total\{sensor=\"http.routes\"\} (\S+)", page, re.M),
        )
    )
    return int(gaps + streams), int(lost)


def _client(port: int, streams: int, chunks: int, pace: float) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.sse", "client", *map(str, (port, streams, chunks, pace))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"the client ended with {done.returncode}: {done.stderr[-300:]}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


@contextmanager
def _server(port: int) -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-m", "bench.sse", "server", str(port)]) as server:
        try:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                try:
                    httpx2.post(
                        f"http://127.0.0.1:{port}/v1/chat/completions",
                        json={"max_tokens": 2, "pace": 0},
                        timeout=2,
                    )
                    break
                except httpx2.TransportError:
                    time.sleep(0.1)
            else:
                raise Unavailable("the server did not start")
            yield server.pid
        finally:
            server.terminate()
