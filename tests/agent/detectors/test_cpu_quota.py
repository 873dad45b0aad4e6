"""F37: a server that its quota holds back, and quotas that do no harm."""

from __future__ import annotations

import pytest

from agent.cases import CaseBook
from agent.detector import CgroupLook, World
from agent.detectors.cpu_quota import Config, CpuQuota
from agent.finding import Verdict
from agent.subjects import place_of
from agent.testing import (
    CONTAINER,
    HOST,
    KERNEL_BOOT,
    SURROUNDINGS,
    blind,
    exchange,
    in_flight,
    open_case,
    origin,
    present,
    seeing,
    tick,
)
from agent.testing_pressure import group_pressure
from escalation.model import (
    CasePhase,
    FaultClass,
    ReasonCode,
    Severity,
    Subject,
    SubjectKind,
    ThrottleEvidence,
)

FAULT = FaultClass.CPU_QUOTA_THROTTLED
SERVER = Subject(SubjectKind.CONTAINER, CONTAINER)


@pytest.fixture
def detector() -> CpuQuota:
    """A detector whose sensor sees."""
    made = CpuQuota.build(Config(), SURROUNDINGS)
    made.observe(seeing(0, "host.pressure"))
    return made


def test_a_server_that_is_throttled_while_it_serves_is_medium(detector: CpuQuota) -> None:
    """After a whole window, with the numbers of that window."""
    looks = [group_pressure(s, throttled=45) for s in range(0, 60, 5)]
    found = present(detector, looks[0], in_flight(1), *looks[1:])
    assert {(one.subject, one.severity) for one in found} == {(SERVER, Severity.MEDIUM)}
    assert found[0].at == group_pressure(45).at
    assert [one.count for one in found] == [1, 0, 0]
    assert [r.code for r in found[0].reasons] == [ReasonCode.QUOTA_THROTTLES]
    evidence = found[-1].evidence[0]
    assert isinstance(evidence, ThrottleEvidence)
    assert (evidence.periods, evidence.throttled_periods, evidence.quota_cores) == (600, 540, 2.0)
    assert evidence.throttled_s == 27.0


def test_a_server_that_nobody_asks_is_a_note(detector: CpuQuota) -> None:
    """It is held back, and who waits is not known; an answer long ago does not count."""
    looks = [group_pressure(s, throttled=45) for s in range(100, 200, 5)]
    found = present(detector, exchange(0), *looks)
    assert {one.severity for one in found} == {Severity.NOTE}
    assert found[0].reasons[-1].code is ReasonCode.SECOND_LAYER_UNKNOWN


def test_the_burst_of_a_start_stays_quiet(detector: CpuQuota) -> None:
    """A model is loaded and compiled with all that there is."""
    story = [group_pressure(s, throttled=50, up_s=float(s)) for s in range(0, 120, 5)]
    story += [group_pressure(s, throttled=2, up_s=float(s)) for s in range(120, 300, 5)]
    assert present(detector, *story) == []


def test_a_server_of_unknown_age_stays_quiet(detector: CpuQuota) -> None:
    """It may just have been started."""
    assert present(detector, *(group_pressure(s, throttled=50, up_s=None) for s in range(0, 120, 5))) == []


def test_a_quota_that_is_met_now_and_then_stays_quiet(detector: CpuQuota) -> None:
    """One period in six, all the time; and one bad look among good ones."""
    assert present(detector, *(group_pressure(s, throttled=8) for s in range(0, 120, 5))) == []
    looks = [group_pressure(s, throttled=50 if s == 200 else 0) for s in range(150, 300, 5)]
    assert present(detector, *looks) == []


def test_an_idle_group_has_no_share(detector: CpuQuota) -> None:
    """Periods count only while somebody runs; a few of them say nothing."""
    assert present(detector, *(group_pressure(s, periods=1, throttled=1) for s in range(0, 120, 5))) == []


def test_it_clears_when_the_quota_suffices_or_is_lifted(detector: CpuQuota) -> None:
    """A whole window with hardly a throttled period, for as long as the hold says."""
    book = CaseBook(agent_id=HOST, kernel_boot_id=KERNEL_BOOT, hysteresis=detector.hysteresis)
    looks = [group_pressure(s, throttled=45) for s in range(0, 100, 5)]
    looks += [group_pressure(s, throttled=1) for s in range(100, 300, 5)]
    bodies = [body for look in looks for body in book.judge(detector.observe(look), look.at).bodies]
    assert [body.phase for body in bodies] == [CasePhase.OPENED, CasePhase.CLEARED]
    assert bodies[-1].reasons[0].code is ReasonCode.THROTTLING_ENDED
    (found,) = detector.observe(group_pressure(400, quota=None, periods=0))
    assert (found.verdict, found.subject) == (Verdict.ABSENT, SERVER)


def test_a_group_that_is_gone_clears(detector: CpuQuota) -> None:
    """Nobody is held back in there."""
    place = place_of(origin())
    assert place is not None
    world = World(cgroups={place: CgroupLook(exists=True, same=False)})
    (found,) = detector.tick(tick(5, open_case(FAULT, SERVER, place=place), world=world))
    assert (found.verdict, found.reasons[0].code) == (Verdict.ABSENT, ReasonCode.CGROUP_GONE)


def test_keeps_open_when_source_goes_blind(detector: CpuQuota) -> None:
    """Unknown while nobody looks; and what was seen before does not count after."""
    for s in range(0, 40, 5):
        detector.observe(group_pressure(s, throttled=45))
    detector.observe(blind(40, "host.pressure"))
    (found,) = detector.tick(tick(5000, open_case(FAULT, SERVER)))
    assert found.verdict is Verdict.UNKNOWN
    detector.observe(seeing(5000, "host.pressure"))
    assert present(detector, group_pressure(5001, throttled=45)) == []
    assert detector.tick(tick(5002, open_case(FAULT, SERVER))) == []
