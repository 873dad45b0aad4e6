"""F39: a group or a host that spends its time waiting for memory, and what only looks like it."""

from __future__ import annotations

import pytest

from agent.cases import CaseBook
from agent.detector import CgroupLook, World
from agent.detectors.memory_thrashing import Config, MemoryThrashing
from agent.finding import Verdict
from agent.subjects import place_of
from agent.testing import (
    CONTAINER,
    HOST,
    KERNEL_BOOT,
    SURROUNDINGS,
    blind,
    open_case,
    origin,
    present,
    seeing,
    tick,
)
from agent.testing_pressure import group_pressure, pressure, reclaims
from escalation.model import (
    CasePhase,
    FaultClass,
    PressureEvidence,
    ReasonCode,
    Severity,
    Subject,
    SubjectKind,
)

FAULT = FaultClass.MEMORY_THRASHING
GROUP = Subject(SubjectKind.CONTAINER, CONTAINER)
THIS = Subject(SubjectKind.HOST, HOST)


@pytest.fixture
def detector() -> MemoryThrashing:
    """A detector whose sensors see."""
    made = MemoryThrashing.build(Config(), SURROUNDINGS)
    made.observe(seeing(0, "host.pressure"))
    made.observe(seeing(0, "kernel.reclaim"))
    return made


def test_a_group_that_reclaims_and_stalls_is_high(detector: MemoryThrashing) -> None:
    """Both layers for long enough; repeated sightings do not count again."""
    found = present(detector, *(reclaims(s, 400, full=35.0) for s in range(0, 30, 5)))
    assert [one.at for one in found] == [reclaims(s, 1).at for s in (10, 15, 20, 25)]
    assert {(one.subject, one.severity) for one in found} == {(GROUP, Severity.HIGH)}
    assert [one.count for one in found] == [1, 0, 0, 0]
    assert [r.code for r in found[0].reasons] == [
        ReasonCode.TASKS_STALL_FOR_MEMORY,
        ReasonCode.RECLAIMS_DIRECTLY,
    ]
    evidence = found[0].evidence[0]
    assert isinstance(evidence, PressureEvidence)
    assert (evidence.full_percent, evidence.direct_reclaims) == (35.0, 400)


@pytest.mark.parametrize("pressed", [{"stalls": 40}, {"swapped": 900}])
def test_a_host_that_stalls_is_high(detector: MemoryThrashing, pressed: dict[str, int]) -> None:
    """All of its tasks wait, while allocations wait or pages are swapped."""
    found = present(detector, *(pressure(s, memory=20.0, **pressed) for s in range(0, 20, 5)))  # type: ignore[arg-type]  # one count each
    assert {(one.subject, one.severity, one.lifebound) for one in found} == {(THIS, Severity.HIGH, True)}


def test_page_cache_that_is_reclaimed_stays_quiet(detector: MemoryThrashing) -> None:
    """A group that reads more than fits reclaims all the time, and hardly anybody stalls."""
    assert present(detector, *(reclaims(s, 900, full=0.4) for s in range(0, 60, 5))) == []


def test_stalls_that_are_over_soon_stay_quiet(detector: MemoryThrashing) -> None:
    """Five seconds at a start."""
    story = [reclaims(0, 900, full=40.0), reclaims(5, 900, full=30.0), reclaims(10, 0, full=8.0)]
    assert present(detector, *story, *(reclaims(s, 0, full=0.0) for s in range(15, 60, 5))) == []


def test_swap_in_use_without_stalls_stays_quiet(detector: MemoryThrashing) -> None:
    """What was swapped out long ago comes back, and nobody waits."""
    assert present(detector, *(pressure(s, memory=0.5, swapped=500) for s in range(0, 60, 5))) == []


def test_a_group_that_thrashes_is_not_told_of_the_host_as_well(detector: MemoryThrashing) -> None:
    """Its stalls and its swapping show in the host's account; the host's allocations do not wait."""
    story = [
        each
        for s in range(0, 30, 5)
        for each in (reclaims(s, 400, full=35.0), pressure(s, memory=30.0, swapped=100))
    ]
    assert {one.subject for one in present(detector, *story)} == {GROUP}


def test_an_unknown_share_is_no_share(detector: MemoryThrashing) -> None:
    """A kernel without pressure accounting does not tell whether anybody stalls."""
    assert present(detector, *(reclaims(s, 900, full=None) for s in range(0, 60, 5))) == []
    assert present(detector, *(pressure(s, memory=None, stalls=9) for s in range(60, 90, 5))) == []


def test_without_the_kernel_program_a_server_that_stalls_is_a_note(detector: MemoryThrashing) -> None:
    """One layer says so and the other cannot be seen."""
    story = [group_pressure(s, memory=30.0) for s in range(0, 20, 5)]
    assert present(detector, *story) == []
    detector.observe(blind(20, "kernel.reclaim"))
    found = present(detector, *(group_pressure(s, memory=30.0) for s in range(20, 40, 5)))
    assert {(one.subject, one.severity) for one in found} == {(GROUP, Severity.NOTE)}
    assert found[0].reasons[-1].code is ReasonCode.SECOND_LAYER_UNKNOWN


def test_it_clears_when_a_minute_was_calm(detector: MemoryThrashing) -> None:
    """One case, opened once, cleared once, by the share of the last minute."""
    book = CaseBook(agent_id=HOST, kernel_boot_id=KERNEL_BOOT, hysteresis=detector.hysteresis)
    looks = [reclaims(s, 400, full=35.0) for s in range(0, 30, 5)]
    looks += [reclaims(s, 0, full=0.0, full_minute=max(0.0, 30.0 - s / 3)) for s in range(30, 120, 5)]
    bodies = [body for look in looks for body in book.judge(detector.observe(look), look.at).bodies]
    assert [body.phase for body in bodies] == [CasePhase.OPENED, CasePhase.CLEARED]
    assert bodies[-1].reasons[0].code is ReasonCode.MEMORY_STALLS_ENDED


def test_the_host_clears_when_a_minute_was_calm(detector: MemoryThrashing) -> None:
    """A calm look at the host says so of the host alone."""
    (found,) = detector.observe(pressure(0, memory=0.2))
    assert (found.verdict, found.subject) == (Verdict.ABSENT, THIS)
    assert detector.observe(pressure(5, memory=0.2, memory_minute=4.0)) == ()


def test_a_group_that_is_gone_clears(detector: MemoryThrashing) -> None:
    """Nothing thrashes in there any more."""
    place = place_of(origin())
    assert place is not None
    case = open_case(FAULT, GROUP, place=place)
    (found,) = detector.tick(tick(5, case, world=World(cgroups={place: CgroupLook(exists=False)})))
    assert (found.verdict, found.reasons[0].code) == (Verdict.ABSENT, ReasonCode.CGROUP_GONE)


def test_keeps_open_when_source_goes_blind(detector: MemoryThrashing) -> None:
    """Unknown, however long nothing is seen; quiet counts from when it sees again."""
    detector.observe(blind(5, "kernel.reclaim"))
    (found,) = detector.tick(tick(5000, open_case(FAULT, GROUP)))
    assert found.verdict is Verdict.UNKNOWN
    detector.observe(seeing(5000, "kernel.reclaim"))
    assert detector.tick(tick(5500, open_case(FAULT, GROUP))) == []
    (found,) = detector.tick(tick(5601, open_case(FAULT, GROUP)))
    assert found.verdict is Verdict.ABSENT


def test_what_it_keeps_in_mind_is_bounded(detector: MemoryThrashing) -> None:
    """A host may have any number of groups."""
    for number in range(1000):
        detector.observe(reclaims(1, 99, full=50.0, where=origin(container=f"{number:064x}")))
    assert len(detector._known) <= 128
