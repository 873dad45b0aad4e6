"""F38: a server whose threads wait because a neighbour has the processors, and busy hosts without that."""

from __future__ import annotations

import pytest

from agent.cases import CaseBook
from agent.detector import CgroupLook, World
from agent.detectors.cpu_contention import Config, CpuContention
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
from agent.testing_pressure import delay, pressure
from escalation.model import (
    CasePhase,
    FaultClass,
    PressureEvidence,
    ReasonCode,
    RunDelayEvidence,
    Severity,
    Subject,
    SubjectKind,
)
from probes.observation import Observation

FAULT = FaultClass.CPU_CONTENTION
SERVER = Subject(SubjectKind.CONTAINER, CONTAINER)
CALM = [delay(s, 0.000064, waited_s=0.001, host=0.5, neighbours=()) for s in (0, 5, 10)]


@pytest.fixture
def detector() -> CpuContention:
    """A detector whose sensors see."""
    made = CpuContention.build(Config(), SURROUNDINGS)
    made.observe(seeing(0, "host.pressure"))
    made.observe(seeing(0, "kernel.run_delay"))
    return made


def waiting(
    start: int, end: int, p99_s: float = 0.016384, *, cpu: float = 60.0, waited_s: float = 1.0
) -> list[Observation]:
    """A host that waits and a server that does."""
    return [
        each
        for s in range(start, end, 5)
        for each in (pressure(s, cpu=cpu), delay(s, p99_s, host=cpu, waited_s=waited_s))
    ]


def test_a_server_that_waits_beside_a_neighbour_that_grew_is_medium(detector: CpuContention) -> None:
    """Both layers for long enough, with what is usual and who has the processors."""
    found = present(detector, *CALM, *waiting(20, 50))
    assert {(one.subject, one.severity) for one in found} == {(SERVER, Severity.MEDIUM)}
    assert found[0].at == delay(30, 1).at
    assert [one.count for one in found] == [1, 0, 0, 0]
    assert [r.code for r in found[0].reasons] == [
        ReasonCode.TASKS_WAIT_FOR_CPU,
        ReasonCode.SERVER_THREADS_WAIT,
        ReasonCode.NEIGHBOUR_GROWS,
    ]
    evidence, host = found[0].evidence
    assert isinstance(evidence, RunDelayEvidence)
    assert isinstance(host, PressureEvidence)
    assert (evidence.p99_s, evidence.baseline_s, evidence.waits) == (0.016384, 0.000064, 500)
    assert (evidence.neighbour, evidence.neighbour_cores) == ("/system.slice/backup.service", 3.0)
    assert host.some_percent == 60.0


def test_without_a_neighbour_it_is_a_note(detector: CpuContention) -> None:
    """The server's own threads may wait for each other."""
    story = [
        each
        for s in range(0, 30, 5)
        for each in (pressure(s, cpu=60.0), delay(s, 0.016, neighbours=(("/small", 0.1, 0.1),)))
    ]
    found = present(detector, *story)
    assert {one.severity for one in found} == {Severity.NOTE}
    evidence = found[0].evidence[0]
    assert isinstance(evidence, RunDelayEvidence)
    assert (evidence.neighbour, evidence.baseline_s) == ("", None)


def test_a_busy_host_whose_servers_do_not_wait_stays_quiet(detector: CpuContention) -> None:
    """Short waits, or hardly any; others may wait as they like."""
    assert present(detector, *CALM, *waiting(20, 80, 0.000512)) == []
    assert present(detector, *waiting(100, 160, waited_s=0.01)) == []


def test_a_server_that_always_waits_like_this_stays_quiet(detector: CpuContention) -> None:
    """What is long for others is usual for it."""
    usual = [delay(s, 0.008192, waited_s=0.5, host=0.5) for s in range(0, 15, 5)]
    assert present(detector, *usual, *waiting(20, 80, 0.016384)) == []


def test_a_server_that_waits_on_a_host_that_does_not_stays_quiet(detector: CpuContention) -> None:
    """Pinned to one processor by somebody, or throttled by its quota: other faults, other detectors."""
    assert present(detector, *CALM, *waiting(20, 80, cpu=8.0)) == []


def test_a_burst_stays_quiet(detector: CpuContention) -> None:
    """Two windows, and then a rest."""
    story = [*waiting(20, 30), *waiting(30, 40, 0.0001, waited_s=0.01), *waiting(40, 50)]
    assert present(detector, *CALM, *story) == []


def test_pressure_that_is_old_counts_for_nothing(detector: CpuContention) -> None:
    """One layer alone opens nothing."""
    detector.observe(pressure(0, cpu=80.0))
    assert present(detector, *(delay(s, 0.016) for s in range(40, 100, 5))) == []


def test_it_clears_when_waits_are_usual_again(detector: CpuContention) -> None:
    """One case; it ends after the hold, by the server's own windows."""
    book = CaseBook(agent_id=HOST, kernel_boot_id=KERNEL_BOOT, hysteresis=detector.hysteresis)
    looks = [*CALM, *waiting(20, 50)]
    looks += [delay(s, 0.000128, waited_s=0.002, host=3.0, neighbours=()) for s in range(50, 150, 5)]
    bodies = [body for look in looks for body in book.judge(detector.observe(look), look.at).bodies]
    assert [body.phase for body in bodies] == [CasePhase.OPENED, CasePhase.CLEARED]
    assert bodies[-1].reasons[0].code is ReasonCode.CPU_FREE_AGAIN


def test_a_host_where_hardly_anybody_waits_clears(detector: CpuContention) -> None:
    """Its own account is enough, when the programs sleep again."""
    detector.observe(pressure(100, cpu=1.0))
    (found,) = detector.tick(tick(110, open_case(FAULT, SERVER)))
    assert (found.verdict, found.reasons[0].code) == (Verdict.ABSENT, ReasonCode.CPU_FREE_AGAIN)
    assert detector.tick(tick(500, open_case(FAULT, SERVER))) == []


def test_a_server_without_threads_says_nothing(detector: CpuContention) -> None:
    """It ended while it waited; that is no sign that the processor is free."""
    assert detector.observe(delay(5, None, waited_s=0.0, threads=0)) == ()


def test_a_group_that_is_gone_clears(detector: CpuContention) -> None:
    """Nobody waits in there."""
    place = place_of(origin())
    assert place is not None
    world = World(cgroups={place: CgroupLook(exists=False)})
    (found,) = detector.tick(tick(5, open_case(FAULT, SERVER, place=place), world=world))
    assert (found.verdict, found.reasons[0].code) == (Verdict.ABSENT, ReasonCode.CGROUP_GONE)


@pytest.mark.parametrize("sensor", ["host.pressure", "kernel.run_delay"])
def test_keeps_open_when_source_goes_blind(detector: CpuContention, sensor: str) -> None:
    """Either of them: unknown."""
    detector.observe(blind(5, sensor))
    (found,) = detector.tick(tick(5000, open_case(FAULT, SERVER)))
    assert found.verdict is Verdict.UNKNOWN


def test_what_it_keeps_in_mind_is_bounded(detector: CpuContention) -> None:
    """A host may have had any number of servers."""
    for number in range(500):
        detector.observe(delay(1, 0.02, where=origin(container=f"{number:064x}")))
    assert len(detector._servers) <= 64


def test_what_is_usual_is_known_after_a_restart(detector: CpuContention) -> None:
    """A server that always waits like this stays quiet from the first minute on; nonsense counts."""
    for each in [delay(s, 0.008192, waited_s=0.5, host=0.5) for s in range(0, 500, 5)]:
        detector.observe(each)
    second_life = CpuContention.build(Config(), SURROUNDINGS)
    nonsense = {"unit/x": b"[-1.0]", "unit/y": b"[1e999]", "strange/z": b"[]", "unit": b"\xff"}
    assert second_life.recall(detector.memory() | nonsense) == len(nonsense)
    assert second_life.memory() == detector.memory()
    assert present(second_life, *waiting(520, 580, 0.016384)) == []
    assert present(CpuContention.build(Config(), SURROUNDINGS), *waiting(520, 580, 0.016384)) != []


def test_a_restart_on_a_host_that_waits_already_teaches_nothing(detector: CpuContention) -> None:
    """What is usual stays what it was before, and the waits of the next life are judged against it."""
    present(detector, *CALM)
    second_life = CpuContention.build(Config(), SURROUNDINGS)
    second_life.recall(detector.memory())
    found = present(second_life, *waiting(20, 50))
    evidence = found[-1].evidence[0]
    assert isinstance(evidence, RunDelayEvidence)
    assert evidence.baseline_s == 0.000064
    assert second_life.memory() == detector.memory()


def test_what_it_recalls_is_bounded(detector: CpuContention) -> None:
    """A memory that somebody else wrote may be of any size."""
    waits = b"[" + b",".join([b"0.001"] * 500) + b"]"
    assert detector.recall({f"unit/{number}": waits for number in range(500)}) == 0
    kept = detector.memory()
    assert len(kept) == 64
    assert {raw.count(b",") for raw in kept.values()} == {31}
