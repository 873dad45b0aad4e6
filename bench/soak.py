"""The agent's memory under half an hour of mixed traffic: it must end where it began."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.rig import Unavailable, cpu_s, free_ports, proportional_bytes, watched

_WARM_SHARE = 0.2
_SAMPLE_S = 10.0


@dataclass(frozen=True, slots=True)
class Soak:
    """Medians of the first and last fifth after warming up, the slope of all samples, and the traffic."""

    minutes: float
    requests: int
    early_mb: float
    late_mb: float
    growth_mb_per_hour: float
    cpu_share: float


def measure(*, minutes: float, disabled: Sequence[str] = ()) -> Soak:
    """Run traffic for `minutes` and sample the agent's PSS; sensors that are `disabled` do not run."""
    (port,) = free_ports(1)
    with watched(http_ports=(port,), disabled=disabled) as agent:
        command = [sys.executable, "-m", "bench.traffic", str(port), str(minutes * 60), "7"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as traffic:
            assert traffic.stdout is not None
            samples: list[tuple[float, float]] = []
            started, used = time.monotonic(), cpu_s(agent.pid)
            while traffic.poll() is None:
                samples.append((time.monotonic() - started, proportional_bytes(agent.pid) / 1e6))
                time.sleep(_SAMPLE_S)
            sent = json.loads(traffic.stdout.read() or "{}")
        took_s = time.monotonic() - started
        if not sent:
            raise Unavailable("the traffic ended early")
        warm = [sample for sample in samples if sample[0] >= took_s * _WARM_SHARE]
        fifth = max(1, len(warm) // 5)
        slope = statistics.linear_regression(*zip(*warm, strict=True)).slope if len(warm) > 1 else 0.0
        return Soak(
            minutes=took_s / 60,
            requests=sum(sent.values()),
            early_mb=statistics.median(size for _, size in warm[:fifth]),
            late_mb=statistics.median(size for _, size in warm[-fifth:]),
            growth_mb_per_hour=slope * 3600,
            cpu_share=(cpu_s(agent.pid) - used) / took_s,
        )


def table(soak: Soak) -> str:
    """Render it as Markdown."""
    return (
        "| minutes | connections | PSS early, late MB | growth MB/h | agent CPU |\n|---|---|---|---|---|\n"
        f"| {soak.minutes:.0f} | {soak.requests} | {soak.early_mb:.1f}, {soak.late_mb:.1f} "
        f"| {soak.growth_mb_per_hour:.2f} | {soak.cpu_share:.1%} |"
    )
