"""Recorded incidents of a cluster and of a database, judged again with what ships.

The cluster was Ray with two nodes: a raylet was killed, came back, was stopped until it was taken for dead,
came back, and left in order. The database was PostgreSQL with ten connections, filled and emptied again.
"""

from __future__ import annotations

from pathlib import Path

from agent.detector import Detector
from agent.detectors.database_sessions import Config as DatabaseConfig, DatabaseSessions
from agent.detectors.distributed_worker import Config as WorkerConfig, DistributedWorker
from agent.recordings.replay import Replay, Told
from agent.testing import HOST, SURROUNDINGS
from escalation.model import CasePhase, ReasonCode, Severity, Subject, SubjectKind
from probes import recording

INCIDENTS = Path(__file__).parents[1] / "recorded/incidents"
NODE = Subject(SubjectKind.PEER, "127.0.0.13 0")
THIS = Subject(SubjectKind.HOST, HOST)


def _judged(name: str, detector: Detector) -> list[Told]:
    replay = Replay(detectors=[detector], agent_id=HOST)
    told = list(replay.run(recording.read((INCIDENTS / name).read_text().splitlines()), further_s=60))
    assert replay.errors == {}
    return told


def _story(told: list[Told], subject: Subject) -> list[CasePhase]:
    return [
        each.report.phase
        for each in told
        if each.report.subject == subject and each.report.phase is not CasePhase.UPDATED
    ]


def test_a_worker_that_was_killed_and_one_that_was_stopped() -> None:
    """The node is lost and back twice; what it said of itself is a case of its own host; leaving is none."""
    told = _judged("worker_lost.jsonl", DistributedWorker.build(WorkerConfig(), SURROUNDINGS))
    assert _story(told, NODE) == [CasePhase.OPENED, CasePhase.CLEARED] * 2
    assert _story(told, THIS) == [CasePhase.OPENED, CasePhase.CLEARED]
    codes = {reason.code for each in told for reason in each.report.reasons}
    assert codes >= {
        ReasonCode.NODE_MARKED_DEAD,
        ReasonCode.CONNECTIONS_RESET,
        ReasonCode.PROCESS_STOPPED,
        ReasonCode.WORKER_BACK,
    }


def test_signs_that_must_come_together_closely_leave_a_note() -> None:
    """Within a tenth of a second no second layer agrees at first; the note still opens."""
    told = _judged("worker_lost.jsonl", DistributedWorker.build(WorkerConfig(together_s=0.1), SURROUNDINGS))
    first = next(each.report for each in told if each.report.subject == NODE)
    assert first.severity is Severity.NOTE


def test_a_database_without_a_connection_left() -> None:
    """One case of its unit, high by both layers, cleared when its sessions were free again."""
    detector = DatabaseSessions.build(DatabaseConfig(), SURROUNDINGS)
    told = _judged("connections_exhausted.jsonl", detector)
    assert {each.report.subject for each in told} == {Subject(SubjectKind.UNIT, "postgresql.service")}
    assert _story(told, told[0].report.subject) == [CasePhase.OPENED, CasePhase.CLEARED]
    assert Severity.HIGH in {each.report.severity for each in told}
    assert told[-1].report.reasons[-1].code is ReasonCode.SESSIONS_FREE_AGAIN
