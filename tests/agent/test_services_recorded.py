"""Recorded incidents of services and of exposure, judged again with what ships.

The loop was recorded on a booted systemd: a service that ends with status 98 a second after each start,
beside one that is restarted twice by hand with a reload between. The control plane was Redis in a network
namespace with a public address: open to everybody, then with a peer from outside, then moved into the mesh.
"""

from __future__ import annotations

from pathlib import Path

from agent.detector import Detector
from agent.detectors.control_plane import Config as ControlConfig, OpenControlPlane
from agent.detectors.off_mesh_listener import Config as ListenerConfig, OffMeshListener
from agent.detectors.restart_loop import Config as LoopConfig, RestartLoop
from agent.recordings.replay import Replay, Told
from agent.testing import HOST, SURROUNDINGS
from escalation.model import (
    CasePhase,
    ControlPlaneEvidence,
    FaultClass,
    ReasonCode,
    Severity,
    Subject,
    SubjectKind,
    UnitEvidence,
    UnitResult,
)
from probes import recording

INCIDENTS = Path(__file__).parents[1] / "recorded/incidents"


def _judged(name: str, *detectors: Detector) -> list[Told]:
    replay = Replay(detectors=detectors, agent_id=HOST)
    told = list(replay.run(recording.read((INCIDENTS / name).read_text().splitlines()), further_s=60))
    assert replay.errors == {}
    return told


def test_a_service_that_its_manager_gave_up() -> None:
    """One case, of that service alone, with both witnesses; open at the end, because nothing ran since."""
    told = _judged("restart_loop.jsonl", RestartLoop.build(LoopConfig(), SURROUNDINGS))
    assert {t.report.subject for t in told} == {Subject(SubjectKind.UNIT, "litellm.service")}
    assert [t.report.phase for t in told if t.report.phase is not CasePhase.UPDATED] == [CasePhase.OPENED]
    assert {t.report.severity for t in told} == {Severity.HIGH}
    codes = [{reason.code for reason in t.report.reasons} for t in told]
    assert all({ReasonCode.LIVES_ARE_SHORT, ReasonCode.CGROUP_COMES_AND_GOES} <= each for each in codes)
    assert ReasonCode.START_LIMIT_HIT in codes[-1]
    evidence = told[-1].report.evidence[0]  # the newest comes first
    assert isinstance(evidence, UnitEvidence)
    assert (evidence.result, evidence.exit_status) == (UnitResult.START_LIMIT_HIT, 98)
    assert evidence.longest_s is not None
    assert 1 <= evidence.longest_s < 2


def test_more_patience_would_have_said_that_it_was_given_up() -> None:
    """Who waits for ten lives still hears that the manager stopped trying."""
    told = _judged("restart_loop.jsonl", RestartLoop.build(LoopConfig(lives=10), SURROUNDINGS))
    assert {ReasonCode.START_LIMIT_HIT in {r.code for r in t.report.reasons} for t in told} == {True}


def test_a_database_that_was_open_and_moved_into_the_mesh() -> None:
    """Two cases of one socket, one with who was connected; both clear when only the mesh has it."""
    told = _judged(
        "open_control_plane.jsonl",
        OpenControlPlane.build(ControlConfig(), SURROUNDINGS),
        OffMeshListener.build(ListenerConfig(), SURROUNDINGS),
    )
    assert {t.report.subject for t in told} == {Subject(SubjectKind.LISTENER, "0.0.0.0:6379")}
    assert {t.report.severity for t in told} == {Severity.CRITICAL}
    for fault in (FaultClass.EXPOSURE_OPEN_CONTROL_PLANE, FaultClass.EXPOSURE_OFF_MESH_LISTENER):
        mine = [t.report for t in told if t.report.fault_class is fault]
        assert (mine[0].phase, mine[-1].phase) == (CasePhase.OPENED, CasePhase.CLEARED)
    peers = [e for t in told for e in t.report.evidence if isinstance(e, ControlPlaneEvidence)]
    assert {(e.outside_peers, e.outside_peer) for e in peers} >= {(1, "8.8.4.9")}
