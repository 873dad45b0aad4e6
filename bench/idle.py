"""What the agent itself costs on an idle host: memory (PSS), its growth, and CPU seconds a minute."""

from __future__ import annotations

import time
from dataclasses import dataclass

from bench.rig import anonymous_bytes, cpu_s, orchestrator, proportional_bytes, resident_bytes, watched

_SETTLE_S = 15.0


@dataclass(frozen=True, slots=True)
class Idle:
    """All sensors on, connected to an orchestrator, nothing happening."""

    pss_mb: float
    anonymous_mb: float
    rss_mb: float
    growth_mb_per_hour: float
    cpu_s_per_min: float
    seconds: float


def measure(*, seconds: float) -> Idle:
    """Measure one agent for `seconds` after it has settled."""
    with orchestrator(agents=["bench"]) as server, watched(server) as agent:
        time.sleep(_SETTLE_S)
        size, cpu, started = proportional_bytes(agent.pid), cpu_s(agent.pid), time.monotonic()
        time.sleep(seconds)
        passed = time.monotonic() - started
        return Idle(
            pss_mb=proportional_bytes(agent.pid) / 1e6,
            anonymous_mb=anonymous_bytes(agent.pid) / 1e6,
            rss_mb=resident_bytes(agent.pid) / 1e6,
            growth_mb_per_hour=(proportional_bytes(agent.pid) - size) / 1e6 / passed * 3600,
            cpu_s_per_min=(cpu_s(agent.pid) - cpu) / passed * 60,
            seconds=passed,
        )


def table(idle: Idle) -> str:
    """Render it as Markdown."""
    return (
        "| PSS MB | of it no file's | RSS MB | growth MB/h | CPU-s/min | over s |\n"
        "|---|---|---|---|---|---|\n"
        f"| {idle.pss_mb:.1f} | {idle.anonymous_mb:.1f} | {idle.rss_mb:.1f} | {idle.growth_mb_per_hour:.2f} "
        f"| {idle.cpu_s_per_min:.3f} | {idle.seconds:.0f} |"
    )
