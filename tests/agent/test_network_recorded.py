"""Recorded incidents of a real network, judged again with what ships.

Both were recorded between two network namespaces joined by a cable: in one a router's backend refused for
ninety seconds and then listened, in the other the cable dropped one packet of twenty for fifty seconds.
"""

from __future__ import annotations

import errno
from pathlib import Path

from agent.detectors.network_retransmission import Config as RetransmissionConfig, NetworkRetransmission
from agent.detectors.network_upstream import Config as UpstreamConfig, NetworkUpstream
from agent.recordings.replay import Replay, Told
from agent.testing import HOST, SURROUNDINGS
from escalation.model import CasePhase, FaultClass, PeerEvidence, ReasonCode, Severity, Subject, SubjectKind
from probes import recording

INCIDENTS = Path(__file__).parents[1] / "recorded/incidents"


def _judged(name: str, *, patience_s: float = 60.0, open_percent: float = 2.0) -> list[Told]:
    replay = Replay(
        detectors=(
            NetworkRetransmission.build(RetransmissionConfig(open_percent=open_percent), SURROUNDINGS),
            NetworkUpstream.build(UpstreamConfig(patience_s=patience_s), SURROUNDINGS),
        ),
        agent_id=HOST,
    )
    told = list(replay.run(recording.read((INCIDENTS / name).read_text().splitlines()), further_s=120))
    assert replay.errors == {}
    return told


def test_a_backend_that_refused_and_came_back() -> None:
    """One case after a minute of refusals, naming the peer and who asked, and cleared by connections."""
    told = _judged("upstream_refused.jsonl")
    first, last = told[0], told[-1]
    assert [t.report.phase for t in (first, last)] == [CasePhase.OPENED, CasePhase.CLEARED]
    assert {t.report.fault_class for t in told} == {FaultClass.NETWORK_UPSTREAM_UNREACHABLE}
    assert first.report.subject == Subject(SubjectKind.PEER, "198.18.2.2 8000")
    assert first.report.severity is Severity.HIGH
    (evidence,) = first.report.evidence
    assert isinstance(evidence, PeerEvidence)
    assert (evidence.process_name, evidence.errno) == ("litellm", errno.ECONNREFUSED)
    assert 60 <= first.after_s < 90
    assert last.report.reasons[-1].code is ReasonCode.CONNECTS_SUCCEED_AGAIN


def test_a_longer_patience_would_have_said_nothing() -> None:
    """Who gives a backend two minutes hears nothing of this incident."""
    assert _judged("upstream_refused.jsonl", patience_s=120) == []


def test_a_cable_that_lost_packets_and_was_mended() -> None:
    """One case of the address, by its share, and cleared when a minute was clean."""
    told = _judged("lossy_path.jsonl")
    first, last = told[0], told[-1]
    assert [t.report.phase for t in (first, last)] == [CasePhase.OPENED, CasePhase.CLEARED]
    assert {t.report.subject for t in told} == {Subject(SubjectKind.PEER, "198.18.1.2 0")}
    assert first.report.severity is Severity.MEDIUM
    assert last.report.reasons[-1].code is ReasonCode.PATH_CLEAN_AGAIN


def test_a_higher_share_would_have_said_nothing() -> None:
    """The cable lost about five of a hundred."""
    assert _judged("lossy_path.jsonl", open_percent=20.0) == []
