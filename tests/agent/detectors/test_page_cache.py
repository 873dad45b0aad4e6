"""F24: vLLM that is refused memory which is only cached files, and restarts that have other causes."""

from __future__ import annotations

import signal

import pytest

from agent.detectors.page_cache import Config, PageCache
from agent.finding import Verdict
from agent.testing import (
    CONTAINER,
    SURROUNDINGS,
    blind,
    death,
    gpu_absent,
    gpu_state,
    memory,
    oom_kill,
    open_case,
    origin,
    present,
    seeing,
    tick,
    usage,
)
from escalation.model import FaultClass, MemoryEvidence, ReasonCode, Severity, Subject, SubjectKind
from probes.gpu.facts import Absence, Unread
from probes.observation import GpuState, MemoryState, Observation, ServerKind

IN_CONTAINER = Subject(SubjectKind.CONTAINER, CONTAINER)
FAULT = FaultClass.MEMORY_PAGE_CACHE_REFUSAL
GIB = 1 << 30


def made() -> PageCache:
    """A detector whose sensors see."""
    detector = PageCache.build(Config(), SURROUNDINGS)
    for sensor in ("host.memory", "host.servers"):
        detector.observe(seeing(0, sensor))
    return detector


def spark(seconds: float) -> GpuState:
    """A GB10: it has no memory of its own, and says so with a code."""
    return gpu_state(seconds, unread=(Unread("memory_total_bytes", 3),))


def cached(seconds: float) -> MemoryState:
    """Hardly anything is free, and nearly half of all memory could be had."""
    return memory(seconds, 52, free_gib=2.8)


def starts(
    *began: float,
    state: MemoryState | None = None,
    gpu: Observation | None = None,
    kind: ServerKind = ServerKind.VLLM,
) -> list[Observation]:
    """Lives of a server that begin at these moments and are measured 30 s later."""
    server = origin(server=kind)
    return [
        each
        for start in began
        for each in (
            gpu or spark(start),
            state or cached(start + 1),
            usage(start + 30, 1, started=start, where=server),
        )
    ]


def test_starts_under_a_full_page_cache_are_a_refusal() -> None:
    """The third start in a row: both signs, and the memory as it stands."""
    (found,) = present(made(), *starts(0, 60, 120))
    assert (found.severity, found.subject, found.count) == (Severity.MEDIUM, IN_CONTAINER, 3)
    assert [reason.code for reason in found.reasons] == [
        ReasonCode.SERVER_STARTS_REPEATEDLY,
        ReasonCode.FREE_MEMORY_IS_CACHE,
    ]
    evidence = found.evidence[0]
    assert isinstance(evidence, MemoryEvidence)
    assert evidence.available_bytes == 52 * GIB


def test_each_further_start_counts_once() -> None:
    """Measured every few seconds, a life is one start."""
    detector = made()
    counts = [found.count for found in present(detector, *starts(0, 60, 120), usage(155, 1, started=120))]
    assert counts == [3, 0]
    assert [found.count for found in present(detector, *starts(180))] == [1]


@pytest.mark.parametrize(
    "story",
    [
        starts(0, 60),
        starts(0, 700, 1400),
        starts(0, 60, 120, state=memory(121, 6, free_gib=2)),
        starts(0, 60, 120, state=memory(121, 100, free_gib=95)),
        starts(0, 60, 120, gpu=gpu_state(120, memory_total_bytes=32 * GIB)),
        starts(0, 60, 120, gpu=gpu_state(120)),
        starts(0, 60, 120, gpu=gpu_absent(120, Absence.NO_DEVICE)),
        starts(0, 60, 120, kind=ServerKind.OLLAMA),
        [*starts(0, 60), death(110, signal.SIGSEGV), *starts(120)],
        [*starts(0, 60), oom_kill(110), *starts(120)],
        starts(0, 60, 120, state=memory(20, 52, free_gib=2.8)),
    ],
    ids=[
        "one-restart",
        "long-lives",
        "really-full",
        "really-free",
        "own-memory",
        "memory-unknown",
        "no-gpu",
        "ollama",
        "crash",
        "killed",
        "old-look",
    ],
)
def test_restarts_with_another_cause_stay_quiet(story: list[Observation]) -> None:
    """Each lacks one of the signs, or has a cause of its own."""
    assert present(made(), *story) == []


def test_clears_when_the_server_stays_up() -> None:
    """Ten minutes of one life; less proves nothing."""
    detector = made()
    present(detector, *starts(0, 60, 120))
    assert [one.verdict for one in detector.observe(usage(700, 1, started=120))] != [Verdict.ABSENT]
    (over,) = detector.observe(usage(721, 1, started=120))
    assert (over.verdict, over.reasons[0].code) == (Verdict.ABSENT, ReasonCode.SERVER_STAYS_UP)


@pytest.mark.parametrize("sensor", ["host.memory", "host.servers"])
def test_keeps_open_when_source_goes_blind(sensor: str) -> None:
    """Unknown, until both are seen again."""
    detector = made()
    assert [one.verdict for one in detector.observe(blind(5, sensor))] == [Verdict.UNKNOWN]
    assert [one.verdict for one in detector.tick(tick(6, open_case(FAULT, IN_CONTAINER)))] == [
        Verdict.UNKNOWN
    ]
    detector.observe(seeing(7, sensor))
    assert detector.tick(tick(8, open_case(FAULT, IN_CONTAINER))) == ()


def test_remembers_a_bounded_number_of_servers() -> None:
    """A thousand containers that all start for ever cost a fixed amount of memory."""
    detector = made()
    for number in range(1000):
        detector.observe(usage(number + 1, 1, started=number, where=origin(container=f"{number:064x}")))
        detector.observe(usage(number + 1, 1, started=number))
    assert len(detector._servers) == 64
    assert max(len(server.starts) for server in detector._servers.values()) == 32
