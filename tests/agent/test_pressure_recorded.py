"""A recorded incident of stopped and stuck processes, judged again with what ships.

Recorded on a real host: a model server was stopped with SIGSTOP while two clients had connected, and a
database wrote to a filesystem that was frozen; after a hundred seconds both went on.
"""

from __future__ import annotations

from pathlib import Path

from agent.detectors.not_answering import Config as AnsweringConfig, NotAnswering
from agent.detectors.process_stuck import Config as StuckConfig, ProcessStuck
from agent.recordings.replay import Replay, Told
from agent.testing import HOST, SURROUNDINGS
from escalation.model import (
    CasePhase,
    FaultClass,
    ProcessEvidence,
    ReasonCode,
    Severity,
    Subject,
    SubjectKind,
)
from probes import recording

RECORDING = Path(__file__).parents[1] / "recorded/incidents/stopped_and_stuck.jsonl"


def judged(*, stopped_s: float = 15.0, stuck_s: float = 30.0) -> list[Told]:
    """Return what is told of the incident."""
    replay = Replay(
        detectors=(
            NotAnswering.build(AnsweringConfig(stopped_s=stopped_s, hanging_s=900), SURROUNDINGS),
            ProcessStuck.build(StuckConfig(stuck_s=stuck_s), SURROUNDINGS),
        ),
        agent_id=HOST,
    )
    told = list(replay.run(recording.read(RECORDING.read_text().splitlines()), further_s=120))
    assert replay.errors == {}
    assert replay.still_open() == 0
    return told


def of(told: list[Told], fault: FaultClass) -> list[Told]:
    """Return what is told of one class."""
    return [each for each in told if each.report.fault_class is fault]


def test_a_stopped_server_is_one_case_that_ends_when_it_goes_on() -> None:
    """High at once, naming the process that has to go on; cleared when its connections were taken."""
    told = of(judged(), FaultClass.PROCESS_NOT_ANSWERING)
    first, last = told[0].report, told[-1].report
    assert [first.phase, last.phase] == [CasePhase.OPENED, CasePhase.CLEARED]
    assert {each.report.subject for each in told} == {Subject(SubjectKind.UNIT, "ollama.service")}
    assert first.severity is Severity.HIGH
    (evidence,) = first.evidence
    assert isinstance(evidence, ProcessEvidence)
    assert (evidence.backlog, evidence.used_cpu_s) == (2, 0.0)
    assert first.incarnation is not None
    assert first.incarnation.pid == evidence.pid
    assert last.reasons[0].code is ReasonCode.CONNECTIONS_TAKEN_AGAIN


def test_a_stuck_process_is_a_note_until_the_kernel_says_so_too() -> None:
    """Half a minute alone; high with the watchdog's word; over when it ran again."""
    told = of(judged(), FaultClass.PROCESS_UNINTERRUPTIBLE)
    assert {each.report.subject for each in told} == {Subject(SubjectKind.UNIT, "pgdata.service")}
    said = [(each.report.phase, each.report.severity) for each in told]
    assert said[0] == (CasePhase.OPENED, Severity.NOTE)
    assert (CasePhase.UPDATED, Severity.HIGH) in said
    assert told[-1].report.phase is CasePhase.CLEARED
    assert told[-1].report.reasons[0].code is ReasonCode.PROCESS_RUNS_AGAIN


def test_more_patience_would_have_said_nothing() -> None:
    """Two minutes for either are longer than it lasted."""
    told = judged(stopped_s=120, stuck_s=120)
    assert {each.report.severity for each in told} <= {Severity.NOTE}
    assert of(told, FaultClass.PROCESS_UNINTERRUPTIBLE) == []
