"""F27: a process that waits in the kernel for something that does not come."""

from __future__ import annotations

import pytest

from agent.cases import CaseBook
from agent.detectors.process_stuck import Config, ProcessStuck
from agent.finding import Verdict
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
from agent.testing_pressure import condition, hung, pressure
from escalation.model import (
    CasePhase,
    FaultClass,
    PressureEvidence,
    ProcessEvidence,
    ProcessState,
    ReasonCode,
    Resource,
    Severity,
    Subject,
    SubjectKind,
)
from probes.observation import Condition

FAULT = FaultClass.PROCESS_UNINTERRUPTIBLE
SERVER = Subject(SubjectKind.CONTAINER, CONTAINER)


@pytest.fixture
def detector() -> ProcessStuck:
    """A detector whose sensor sees."""
    made = ProcessStuck.build(Config(), SURROUNDINGS)
    made.observe(seeing(0, "host.processes"))
    return made


def stuck(*looks: int) -> list[object]:
    """The same process at several looks, stuck since 0."""
    return [condition(s, Condition.STUCK, float(s)) for s in looks]


def test_a_process_that_the_watchdog_found_is_high(detector: ProcessStuck) -> None:
    """Both layers, from the moment that the second one speaks."""
    found = present(detector, *stuck(15, 30), hung(40), *stuck(45))
    assert [(one.severity, one.count) for one in found] == [(Severity.NOTE, 1), (Severity.HIGH, 0)]
    assert {(one.subject, one.lifebound) for one in found} == {(SERVER, True)}
    assert [r.code for r in found[1].reasons] == [
        ReasonCode.STUCK_IN_KERNEL,
        ReasonCode.NO_CPU_PROGRESS,
        ReasonCode.KERNEL_REPORTS_HANG,
    ]
    evidence = found[1].evidence[0]
    assert isinstance(evidence, ProcessEvidence)
    assert (evidence.state, evidence.lasted_s, evidence.pid) == (ProcessState.UNINTERRUPTIBLE, 45.0, 4711)


def test_disks_that_stall_are_a_second_sign(detector: ProcessStuck) -> None:
    """With the share of time as evidence; an old one counts for nothing."""
    (found,) = present(detector, pressure(28, io=45.0), *stuck(30))
    assert (found.severity, found.reasons[-1].code) == (Severity.HIGH, ReasonCode.TASKS_STALL_FOR_IO)
    stalls = found.evidence[1]
    assert isinstance(stalls, PressureEvidence)
    assert (stalls.resource, stalls.full_percent) == (Resource.IO, 45.0)
    (found,) = present(detector, *stuck(200))
    assert found.severity is Severity.NOTE


def test_alone_it_is_a_note(detector: ProcessStuck) -> None:
    """The watchdog found another process, and the disks do not stall."""
    (found,) = present(detector, hung(20, where=origin(pid=99)), pressure(29, io=1.0), *stuck(30))
    assert (found.severity, found.reasons[-1].code) == (Severity.NOTE, ReasonCode.SECOND_LAYER_UNKNOWN)


def test_brief_waits_stay_quiet(detector: ProcessStuck) -> None:
    """Half of the time that it takes."""
    assert present(detector, *stuck(15)) == []


def test_a_stopped_process_is_another_fault(detector: ProcessStuck) -> None:
    """However long."""
    assert present(detector, condition(900, Condition.STOPPED, 900.0)) == []


@pytest.mark.parametrize(
    ("how", "code"),
    [(Condition.RUNS, ReasonCode.PROCESS_RUNS_AGAIN), (Condition.GONE, ReasonCode.PROCESS_GONE)],
)
def test_it_clears_when_the_last_of_its_processes_does(
    detector: ProcessStuck, how: Condition, code: ReasonCode
) -> None:
    """One case of a container with two stuck processes."""
    book = CaseBook(agent_id=HOST, kernel_boot_id=KERNEL_BOOT, hysteresis=detector.hysteresis)
    other = origin(pid=4712)
    story = [
        condition(30, Condition.STUCK),
        condition(30, Condition.STUCK, where=other),
        condition(45, how),
        condition(60, Condition.STUCK, 60.0, where=other),
        condition(75, how, where=other),
    ]
    bodies = [
        (each.at, body) for each in story for body in book.judge(detector.observe(each), each.at).bodies
    ]
    assert [(moment, body.phase) for moment, body in bodies if body.phase is not CasePhase.UPDATED] == [
        (story[0].at, CasePhase.OPENED),
        (story[-1].at, CasePhase.CLEARED),
    ]
    assert bodies[-1][1].reasons[0].code is code


def test_a_case_of_an_earlier_agent_clears_when_nobody_is_found_stuck(detector: ProcessStuck) -> None:
    """The sensor tells at every look who is stuck; a minute of looks without is an answer."""
    assert detector.tick(tick(50, open_case(FAULT, SERVER))) == []
    (found,) = detector.tick(tick(61, open_case(FAULT, SERVER)))
    assert (found.verdict, found.reasons[0].code) == (Verdict.ABSENT, ReasonCode.PROCESS_RUNS_AGAIN)


def test_keeps_open_when_source_goes_blind(detector: ProcessStuck) -> None:
    """Unknown, however long; and quiet counts from when it sees again."""
    detector.observe(blind(5, "host.processes"))
    (found,) = detector.tick(tick(5000, open_case(FAULT, SERVER)))
    assert found.verdict is Verdict.UNKNOWN
    detector.observe(seeing(5000, "host.processes"))
    assert detector.tick(tick(5001, open_case(FAULT, SERVER))) == []


def test_what_it_keeps_in_mind_is_bounded(detector: ProcessStuck) -> None:
    """A dead disk may hold any number of processes."""
    for number in range(1000):
        detector.observe(hung(1, where=origin(pid=number)))
        detector.observe(condition(1, Condition.STUCK, where=origin(container=f"{number:064x}")))
        detector.observe(condition(1, Condition.STUCK, where=origin(pid=number)))
    assert len(detector._hangs) <= 256
    assert len(detector._subjects) <= 128
    assert max(len(each.pids) for each in detector._subjects.values()) <= 64
