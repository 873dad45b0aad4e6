"""F41: a server that takes no connections, stopped or hanging, and slow ones that do."""

from __future__ import annotations

import pytest

from agent.cases import CaseBook
from agent.detectors.not_answering import Config, NotAnswering
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
from agent.testing_pressure import condition, queue
from escalation.model import (
    CasePhase,
    FaultClass,
    ProcessEvidence,
    ProcessState,
    ReasonCode,
    Severity,
    Subject,
    SubjectKind,
)
from probes.observation import Condition

FAULT = FaultClass.PROCESS_NOT_ANSWERING
SERVER = Subject(SubjectKind.CONTAINER, CONTAINER)
NOWHERE = origin(container=None, cgroup_id=None, cgroup_path="/", pid=None)


@pytest.fixture
def detector() -> NotAnswering:
    """A detector whose sensor sees."""
    made = NotAnswering.build(Config(), SURROUNDINGS)
    made.observe(seeing(0, "host.processes"))
    return made


def test_a_stopped_server_with_connections_waiting_is_high(detector: NotAnswering) -> None:
    """Both layers at the second look, with the process that has to go on."""
    found = present(detector, *(queue(s, 2, float(s), stopped=1) for s in (15, 30)))
    assert [(one.severity, one.subject, one.count) for one in found] == [
        (Severity.HIGH, SERVER, 1),
        (Severity.HIGH, SERVER, 0),
    ]
    assert [r.code for r in found[0].reasons] == [ReasonCode.BACKLOG_NOT_TAKEN, ReasonCode.PROCESS_STOPPED]
    evidence = found[0].evidence[0]
    assert isinstance(evidence, ProcessEvidence)
    assert (evidence.state, evidence.port, evidence.backlog) == (ProcessState.STOPPED, 8000, 2)
    assert (evidence.backlog_limit, evidence.pid) == (128, 4711)


def test_a_server_that_hangs_is_medium(detector: NotAnswering) -> None:
    """It is not stopped and used nothing of the processor for two minutes, while connections waited."""
    found = present(detector, *(queue(s, 3, float(s)) for s in range(15, 136, 15)))
    assert [(one.severity, one.at) for one in found] == [
        (Severity.MEDIUM, queue(120, 1, 1).at),
        (Severity.MEDIUM, queue(135, 1, 1).at),
    ]
    assert found[0].reasons[-1].code is ReasonCode.NO_CPU_PROGRESS


def test_slow_inference_stays_quiet(detector: NotAnswering) -> None:
    """One that computes takes its connections late; that is no hanging."""
    assert present(detector, *(queue(s, 9, float(s), used_s=s * 0.9) for s in range(15, 600, 15))) == []


def test_a_burst_stays_quiet(detector: NotAnswering) -> None:
    """A minute of waiting at a server that waits for something itself."""
    assert present(detector, queue(15, 1, 15.0), queue(30, 1, 30.0), queue(45, 0, 45.0)) == []


def test_a_debuggers_stop_is_a_note_and_only_after_a_while(detector: NotAnswering) -> None:
    """Nobody waits for it."""
    story = [condition(s, Condition.STOPPED, float(s)) for s in (15, 30, 45, 60)]
    (found,) = present(detector, *story)
    assert (found.severity, found.at) == (Severity.NOTE, condition(60, Condition.STOPPED).at)
    assert found.reasons[-1].code is ReasonCode.SECOND_LAYER_UNKNOWN


def test_a_queue_that_nobody_is_known_of_is_a_note(detector: NotAnswering) -> None:
    """Of the socket itself, after the longer time."""
    looks = [
        queue(s, 3, float(s), processes=None, stopped=None, used_s=None, where=NOWHERE)
        for s in range(15, 121, 15)
    ]
    (found,) = present(detector, *looks)
    assert (found.severity, found.subject) == (Severity.NOTE, Subject(SubjectKind.LISTENER, "0.0.0.0 8000"))


def test_a_story_opens_gets_worse_and_clears(detector: NotAnswering) -> None:
    """A note while nobody waits, high with clients, over when they were taken."""
    book = CaseBook(agent_id=HOST, kernel_boot_id=KERNEL_BOOT, hysteresis=detector.hysteresis)
    story = [
        condition(60, Condition.STOPPED, 60.0),
        queue(75, 2, 15.0, stopped=1),
        condition(75, Condition.STOPPED, 75.0),
        condition(90, Condition.RUNS, 90.0),
        queue(90, 0, 30.0),
    ]
    bodies = [body for each in story for body in book.judge(detector.observe(each), each.at).bodies]
    assert [(body.phase, body.severity) for body in bodies] == [
        (CasePhase.OPENED, Severity.NOTE),
        (CasePhase.UPDATED, Severity.HIGH),
        (CasePhase.CLEARED, Severity.HIGH),
    ]
    assert bodies[-1].reasons[0].code is ReasonCode.CONNECTIONS_TAKEN_AGAIN


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (queue(30, 0, 30.0, closed=True), ReasonCode.LISTENER_CLOSED),
        (queue(30, 0, 30.0), ReasonCode.CONNECTIONS_TAKEN_AGAIN),
    ],
)
def test_it_clears_by_the_socket(detector: NotAnswering, end: object, code: ReasonCode) -> None:
    """Taken, or closed."""
    present(detector, queue(15, 2, 15.0, stopped=1))
    (found,) = detector.observe(end)  # type: ignore[arg-type]  # an observation
    assert (found.verdict, found.subject, found.reasons[0].code) == (Verdict.ABSENT, SERVER, code)


def test_a_note_clears_when_the_server_goes_on_or_ends(detector: NotAnswering) -> None:
    """By its state."""
    present(detector, condition(60, Condition.STOPPED, 60.0))
    (found,) = detector.observe(condition(75, Condition.GONE))
    assert (found.verdict, found.reasons[0].code) == (Verdict.ABSENT, ReasonCode.PROCESS_GONE)
    assert detector.observe(condition(90, Condition.RUNS)) == ()


def test_a_case_of_an_earlier_agent_clears_when_nothing_waits(detector: NotAnswering) -> None:
    """A minute of looks that found nothing of it; not while something still waits."""
    (found,) = detector.tick(tick(61, open_case(FAULT, SERVER)))
    assert found.verdict is Verdict.ABSENT
    detector.observe(queue(65, 2, 15.0))
    assert detector.tick(tick(200, open_case(FAULT, SERVER))) == []


def test_keeps_open_when_source_goes_blind(detector: NotAnswering) -> None:
    """Unknown, and nothing of before counts when it sees again."""
    present(detector, queue(15, 2, 15.0, stopped=1))
    detector.observe(blind(20, "host.processes"))
    (found,) = detector.tick(tick(5000, open_case(FAULT, SERVER)))
    assert found.verdict is Verdict.UNKNOWN
    detector.observe(seeing(5000, "host.processes"))
    assert detector.tick(tick(5001, open_case(FAULT, SERVER))) == []


def test_what_it_keeps_in_mind_is_bounded(detector: NotAnswering) -> None:
    """Any number of sockets."""
    for number in range(500):
        detector.observe(queue(1, 1, 1.0, where=origin(container=f"{number:064x}")))
    assert len(detector._subjects) <= 128
