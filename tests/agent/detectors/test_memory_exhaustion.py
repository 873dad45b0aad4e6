"""F23: a host that runs out of memory, and everything that only looks like it."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from agent.cases import CaseBook
from agent.detectors.memory_exhaustion import Config, MemoryExhaustion
from agent.finding import Verdict
from agent.testing import (
    CONTAINER,
    HOST,
    KERNEL_BOOT,
    SURROUNDINGS,
    at,
    blind,
    memory,
    open_case,
    origin,
    present,
    seeing,
    tick,
    usage,
)
from escalation.model import CasePhase, FaultClass, MemoryEvidence, ReasonCode, Severity, Subject, SubjectKind
from probes.observation import MemoryState

SENSOR = "host.memory"
FAULT = FaultClass.MEMORY_UNIFIED_EXHAUSTION
THIS = Subject(SubjectKind.HOST, HOST)
GIB = 1 << 30


@pytest.fixture
def detector() -> MemoryExhaustion:
    """A detector whose sensor sees: floor 8 GiB on a host of 128 GiB."""
    made = MemoryExhaustion.build(Config(), SURROUNDINGS)
    made.observe(seeing(0, SENSOR))
    return made


def falling(start_gib: float, gib_per_s: float, *, until_s: int) -> list[MemoryState]:
    """Looks every two seconds at a host that loses memory evenly."""
    return [memory(s, max(0.1, start_gib - gib_per_s * s)) for s in range(0, until_s + 1, 2)]


def test_too_little_memory_under_pressure_is_critical(detector: MemoryExhaustion) -> None:
    """Both layers: below the floor for a while, and all tasks stall."""
    story = [memory(s, 3, full=20.0 if s >= 6 else 0.0) for s in range(0, 8, 2)]
    (found,) = present(detector, *story)
    assert (found.severity, found.subject, found.lifebound) == (Severity.CRITICAL, THIS, True)
    assert [reason.code for reason in found.reasons] == [
        ReasonCode.MEMORY_BELOW_FLOOR,
        ReasonCode.TASKS_STALL_FOR_MEMORY,
    ]
    evidence = found.evidence[0]
    assert isinstance(evidence, MemoryEvidence)
    assert (evidence.available_bytes, evidence.floor_bytes) == (3 * GIB, 8 * GIB)
    assert (evidence.stalled_percent, evidence.empty_in_s) == (20.0, None)


@pytest.mark.parametrize("pressure", [{"stalls": 4}, {"swapped_in": 100}])
def test_a_kernel_without_pressure_accounting_has_other_signs(
    detector: MemoryExhaustion, pressure: dict[str, int]
) -> None:
    """Allocations that wait, and pages that come back from swap, are the second layer as well."""
    story = [memory(s, 3, full=None, **pressure) for s in range(0, 8, 2)]  # type: ignore[arg-type]  # as above
    (found,) = present(detector, *story)
    assert found.severity is Severity.CRITICAL
    assert ReasonCode.ALLOCATIONS_STALL in {reason.code for reason in found.reasons}


def test_memory_that_runs_out_is_told_before_it_is_gone(detector: MemoryExhaustion) -> None:
    """Below the floor and falling: high, with the time that is left, and without a second layer."""
    found = present(detector, *falling(9, 0.1, until_s=24))
    first = found[0]
    assert (first.severity, first.reasons[1].code) == (Severity.HIGH, ReasonCode.MEMORY_FALLS)
    assert first.reasons[-1].code is ReasonCode.SECOND_LAYER_UNKNOWN
    evidence = first.evidence[0]
    assert isinstance(evidence, MemoryEvidence)
    assert evidence.empty_in_s is not None
    assert evidence.empty_in_s == pytest.approx(evidence.available_bytes / (0.1 * GIB), rel=0.01)
    assert [one.count for one in found] == [1] + [0] * (len(found) - 1)


def test_a_host_that_is_filled_on_purpose_is_a_note(detector: MemoryExhaustion) -> None:
    """Steadily below the floor, nothing stalls, nothing falls: one sign, so no more than a note."""
    found = present(detector, *(memory(s, 5) for s in range(0, 70, 2)))
    assert {one.severity for one in found} == {Severity.NOTE}
    assert found[0].at == at(60)
    assert found[0].reasons[-1].code is ReasonCode.SECOND_LAYER_UNKNOWN


def test_page_cache_that_fills_stays_quiet(detector: MemoryExhaustion) -> None:
    """Free memory is nearly gone, and none of it is missing."""
    assert present(detector, *(memory(s, 60, free_gib=max(0.3, 50 - s)) for s in range(0, 100, 2))) == []


def test_a_dip_stays_quiet(detector: MemoryExhaustion) -> None:
    """A model load that touches the floor for a moment, stalls included, is over before it lasts."""
    story = [memory(0, 20), memory(2, 7, full=30.0), memory(4, 6, stalls=9), memory(6, 20), memory(8, 20)]
    assert present(detector, *story) == []


def test_a_load_that_stops_above_the_floor_stays_quiet(detector: MemoryExhaustion) -> None:
    """However fast it falls: 10 GiB a second down to 12 GiB, and there it stays."""
    story = [memory(s, max(12, 110 - 10 * s), full=3.0) for s in range(0, 60, 2)]
    assert present(detector, *story) == []


def test_swap_in_use_without_pressure_stays_quiet(detector: MemoryExhaustion) -> None:
    """What was swapped out long ago is no want of memory; nor is what comes back while memory is left."""
    assert present(detector, *(memory(s, 40, swapped_in=5) for s in range(0, 60, 2))) == []


def test_a_page_now_and_then_from_swap_is_no_pressure(detector: MemoryExhaustion) -> None:
    """On a host that is filled on purpose somebody touches what was swapped out: a note, as without."""
    found = present(detector, *(memory(s, 5, swapped_in=99) for s in range(0, 70, 2)))
    assert {one.severity for one in found} == {Severity.NOTE}
    assert ReasonCode.ALLOCATIONS_STALL not in {reason.code for one in found for reason in one.reasons}
    (worse,) = present(detector, memory(70, 5, swapped_in=100))
    assert worse.severity is Severity.CRITICAL


def test_a_control_group_at_its_own_limit_stays_quiet(detector: MemoryExhaustion) -> None:
    """Its tasks stall the whole time, and the host has memory: another fault, another detector."""
    assert present(detector, *(memory(s, 90, full=80.0, stalls=50) for s in range(0, 60, 2))) == []


def test_the_floor_of_a_small_host_is_a_share(detector: MemoryExhaustion) -> None:
    """A host of 16 GiB with 5 GiB available is well; with one of them it is not."""
    assert present(detector, *(memory(s, 5, total_gib=16, full=10.0) for s in range(0, 20, 2))) == []
    assert present(detector, *(memory(s, 1, total_gib=16, full=10.0) for s in range(20, 40, 2))) != []


def test_clears_when_memory_is_there_and_nothing_stalls(detector: MemoryExhaustion) -> None:
    """Just above the floor is not enough, and neither is memory while tasks still stall."""
    assert detector.observe(memory(0, 9)) == ()
    assert detector.observe(memory(2, 50, full=9.0)) == ()
    (over,) = detector.observe(memory(4, 50))
    assert (over.verdict, over.reasons[0].code) == (Verdict.ABSENT, ReasonCode.MEMORY_AVAILABLE_AGAIN)


def test_keeps_open_when_source_goes_blind(detector: MemoryExhaustion) -> None:
    """Blindness is unknown, and what was seen before it does not count as lasting."""
    case = open_case(FAULT, THIS)
    present(detector, *(memory(s, 3, full=20.0) for s in range(0, 10, 2)))
    assert [one.verdict for one in detector.observe(blind(10, SENSOR))] == [Verdict.UNKNOWN]
    assert [one.verdict for one in detector.tick(tick(11, case))] == [Verdict.UNKNOWN]
    detector.observe(seeing(20, SENSOR))
    assert detector.tick(tick(21, case)) == ()
    assert present(detector, memory(21, 3, full=20.0)) == []


def test_silence_of_the_sensor_breaks_the_row(detector: MemoryExhaustion) -> None:
    """Two looks an hour apart, as around a sleep of the host, say nothing of the hour between."""
    assert present(detector, memory(0, 3, full=20.0), memory(3600, 3, full=20.0)) == []


def test_the_only_model_server_is_the_target(detector: MemoryExhaustion) -> None:
    """With one server it is what an action would act on; with two, or an old one, nobody is named."""
    low = [memory(s, 3, full=20.0) for s in range(0, 10, 2)]
    (first, *_) = present(detector, usage(0, 1), *low)
    assert first.target == Subject(SubjectKind.CONTAINER, CONTAINER)
    other = usage(10, 1, where=origin(container="d" * 64))
    (second, *_) = present(detector, usage(10, 1), other, memory(10, 3, full=20.0))
    assert second.target is None
    (third,) = present(detector, usage(31, 1), *(memory(s, 3, full=20.0) for s in (12, 31)))[-1:]
    assert third.target is None
    (fourth,) = present(detector, usage(50, 1), *(memory(s, 3, full=20.0) for s in (40, 50)))[-1:]
    assert fourth.target == Subject(SubjectKind.CONTAINER, CONTAINER)


def test_a_server_that_has_started_too_often_is_no_target(detector: MemoryExhaustion) -> None:
    """Three starts in an hour did not help; an hour later it may be tried again."""
    for start in (0, 300, 600):
        detector.observe(usage(start + 30, 1, started=start))
    low = [memory(s, 3, full=20.0) for s in range(632, 642, 2)]
    assert {one.target for one in present(detector, *low)} == {None}
    later = [memory(s, 3, full=20.0) for s in range(3700, 3710, 2)]
    found = present(detector, usage(3700, 1, started=600), *later)
    assert found[-1].target == Subject(SubjectKind.CONTAINER, CONTAINER)


def test_a_story_is_one_case_that_gets_worse_and_clears(detector: MemoryExhaustion) -> None:
    """Note, high and critical are one case; it clears once, after its hold."""
    book = CaseBook(agent_id=HOST, kernel_boot_id=KERNEL_BOOT, hysteresis=detector.hysteresis)
    levels = [5.0] * 40 + [5 - 0.15 * n for n in range(1, 20)]
    looks = [memory(2 * n, level) for n, level in enumerate(levels)]
    end = 2 * len(levels)
    looks += [memory(end + 2 * n, 1, full=40.0) for n in range(5)]
    looks += [memory(end + 10 + 2 * n, 60) for n in range(60)]
    bodies = [body for look in looks for body in book.judge(detector.observe(look), look.at).bodies]
    said = [(body.phase, body.severity) for body in bodies]
    assert said[0] == (CasePhase.OPENED, Severity.NOTE)
    assert (CasePhase.UPDATED, Severity.HIGH) in said
    assert (CasePhase.UPDATED, Severity.CRITICAL) in said
    assert [phase for phase, _ in said].count(CasePhase.CLEARED) == 1
    assert len({body.case_id for body in bodies}) == 1


@given(
    st.lists(
        st.tuples(st.floats(0, 128), st.none() | st.floats(0, 100), st.integers(0, 5), st.floats(0.1, 5)),
        max_size=60,
    )
)
def test_nothing_is_said_of_a_host_that_keeps_above_the_floor_and_all_is_bounded(
    looks: list[tuple[float, float | None, int, float]],
) -> None:
    """Whatever the levels, a finding speaks of a level below the floor, and memory does not grow."""
    detector = MemoryExhaustion.build(Config(), SURROUNDINGS)
    detector.observe(seeing(0, SENSOR))
    now = 0.0
    for available, full, stalls, step in looks:
        now += step
        for found in detector.observe(memory(now, available, full=full, stalls=stalls)):
            if found.verdict is Verdict.PRESENT:
                assert available < 8
            else:
                assert available >= 10
    assert len(detector._levels) <= 64
