"""What judging a route costs: microseconds of each detector for one exchange, and memory when all is full."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass

from agent.detector import Detector
from agent.detectors.registry import DETECTORS
from agent.testing import SURROUNDINGS, exchange, in_flight as flight
from probes.observation import Observation

_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of traffic: the cost of one observation, in all and of the dearest detector."""

    name: str
    total_us: float
    dearest: str
    dearest_us: float


@dataclass(frozen=True, slots=True)
class Judging:
    """The measured costs, and the memory of all detectors that know as many routes as they keep."""

    rows: tuple[Row, ...]
    memory_mb: float


def measure(*, exchanges: int = 20_000) -> Judging:
    """Time each detector alone, the best of five rounds of its own CPU time."""
    traffic: tuple[tuple[str, list[Observation]], ...] = (
        (
            "good answers, 40 models",
            [exchange(n / 10, streamed=bool(n % 2), model=f"m{n % 40}") for n in range(exchanges)],
        ),
        (
            "good answers, 300 models",
            [exchange(exchanges + n / 10, model=f"m{n % 300}") for n in range(exchanges)],
        ),
        (
            "empty answers, a case open",
            [exchange(2 * exchanges + n / 10, content_characters=0) for n in range(exchanges)],
        ),
        ("requests in flight", [flight(3 * exchanges + n / 10) for n in range(exchanges)]),
    )
    detectors = _detectors()
    return Judging(tuple(_row(name, seen, detectors) for name, seen in traffic), _memory_mb())


def table(judging: Judging) -> str:
    """Return the figures as Markdown."""
    lines = ["| traffic | all route detectors, us | the dearest, us |", "|---|---|---|"]
    lines += [
        f"| {row.name} | {row.total_us:.1f} | `{row.dearest}` {row.dearest_us:.1f} |" for row in judging.rows
    ]
    lines += ["", f"Memory with every table full: {judging.memory_mb:.1f} MB."]
    return "\n".join(lines)


def _detectors() -> Sequence[Detector]:
    kinds = (kind for kind in DETECTORS if kind.NAME.startswith("route_"))
    return [kind.build(kind.SETTINGS(), SURROUNDINGS) for kind in kinds]


def _row(name: str, seen: Sequence[Observation], detectors: Sequence[Detector]) -> Row:
    costs = {}
    for detector in detectors:
        best_s = float("inf")
        for _ in range(_ROUNDS):
            began_s = time.process_time()
            for observation in seen:
                detector.observe(observation)
            best_s = min(best_s, time.process_time() - began_s)
        costs[detector.NAME] = best_s / len(seen) * 1e6
    dearest = max(costs, key=lambda each: costs[each])
    return Row(name, sum(costs.values()), dearest, costs[dearest])


def _memory_mb() -> float:
    detectors = _detectors()
    tracemalloc.start()
    for n in range(600):
        for differs in ({}, {"streamed": True}, {"content_characters": 0}, {"status": 500}):
            for detector in detectors:
                detector.observe(exchange(n / 10, model=f"model-{n}", **differs))
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return used / 1e6
