"""network.retransmission: the share of lost segments by address, and what looks like it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent.detectors.network_retransmission import MESH, PEERS, Config, NetworkRetransmission
from agent.finding import Verdict
from agent.testing import SURROUNDINGS, at, blind, open_case, present, seeing, tick
from escalation.model import FaultClass, PeerEvidence, ReasonCode, Severity, Subject, SubjectKind
from probes.observation import MeshState, MeshStatus, PeerTraffic

PEER = Subject(SubjectKind.PEER, "100.64.0.7 0")


def _detector() -> NetworkRetransmission:
    return NetworkRetransmission.build(Config(), SURROUNDINGS)


def _sent(
    seconds: float,
    segments: int | None,
    again: int | None,
    *,
    address: str = "100.64.0.7",
    counted: int | None = None,
    window_s: float = 10.0,
) -> PeerTraffic:
    return PeerTraffic(
        sensor=PEERS,
        at=at(seconds),
        address=address,
        counted=(again or 0) if counted is None else counted,
        resets=0,
        segments=segments,
        retransmitted=again,
        window_s=window_s,
    )


def _minute(segments: int, again: int, *, begin: float = 0) -> Iterator[PeerTraffic]:
    """Yield six windows of ten seconds."""
    return (_sent(begin + 10 * i, segments, again) for i in range(6))


def test_a_lossy_path_is_present() -> None:
    """Two of a hundred segments are sent again, of more than a thousand: by the sockets and by the kernel."""
    (*_, last) = present(_detector(), *_minute(500, 10))
    assert (last.subject, last.severity) == (PEER, Severity.MEDIUM)
    assert [(r.code, r.count, r.threshold, r.window_s) for r in last.reasons] == [
        (ReasonCode.SEGMENTS_RETRANSMITTED, 60, 2.0, 60.0)
    ]
    (evidence,) = last.evidence
    assert isinstance(evidence, PeerEvidence)
    assert (evidence.segments, evidence.retransmitted, evidence.port) == (3000, 60, 0)


def test_one_layer_alone_is_a_note() -> None:
    """The sockets say that segments were lost, and the kernel's events do not."""
    found = present(_detector(), _sent(0, 2000, 100, counted=0))
    assert [(f.severity, f.reasons[-1].code) for f in found] == [
        (Severity.NOTE, ReasonCode.SECOND_LAYER_UNKNOWN)
    ]


def _mesh(seconds: float, *relayed: str) -> MeshStatus:
    return MeshStatus(
        sensor=MESH,
        at=at(seconds),
        state=MeshState.RUNNING,
        peers_known=True,
        peers_active=2,
        peers_relayed=len(relayed),
        relayed=relayed,
    )


def test_a_peer_behind_a_relay_is_a_note() -> None:
    """The mesh reaches it by a relay alone, which is slow and lossy by itself: the case names the relay."""
    found = present(_detector(), _mesh(0, "100.64.0.7"), _sent(10, 2000, 100))
    assert [(f.severity, f.reasons[-1].code) for f in found] == [(Severity.NOTE, ReasonCode.PEER_IS_RELAYED)]


@pytest.mark.parametrize(
    "status",
    [
        pytest.param(_mesh(0, "100.64.0.8"), id="another peer is relayed"),
        pytest.param(_mesh(-600, "100.64.0.7"), id="long ago"),
    ],
)
def test_a_relay_that_is_none_excuses_nothing(status: MeshStatus) -> None:
    """Only what the mesh says of this peer, and lately, makes a note of it."""
    found = present(_detector(), status, _sent(10, 2000, 100))
    assert [f.severity for f in found] == [Severity.MEDIUM]


@pytest.mark.parametrize(
    "windows",
    [
        pytest.param([_sent(0, 40, 20), _sent(10, 40, 20)], id="an idle connection that repeats itself"),
        pytest.param(list(_minute(50_000, 150)), id="a bulk transfer that loses three of a thousand"),
        pytest.param([_sent(0, 5000, 900, address="127.0.0.1")], id="loopback"),
        pytest.param([_sent(0, 5000, 900, address="::1")], id="loopback of IPv6"),
        pytest.param([_sent(0, None, None, counted=900)], id="sockets that cannot be asked"),
        pytest.param([_sent(0, 600, 60), _sent(70, 600, 60)], id="too few in each minute"),
        pytest.param([_sent(0, 5000, 900, address="no address")], id="what is no address"),
    ],
)
def test_look_alikes_stay_quiet(windows: list[PeerTraffic]) -> None:
    """None of these is a path that loses segments."""
    assert present(_detector(), *windows) == []


def test_addresses_are_judged_apart() -> None:
    """The clean traffic of one peer does not dilute the lossy one of another."""
    found = present(_detector(), _sent(0, 9000, 0, address="100.64.0.8"), _sent(0, 1000, 50))
    assert {f.subject for f in found} == {PEER}


def test_a_path_that_is_clean_again_is_over() -> None:
    """A minute of traffic without loss is positive evidence, once the lossy windows are past."""
    detector = _detector()
    for window in _minute(500, 25):
        detector.observe(window)
    verdicts = [f.verdict for w in _minute(500, 0, begin=60) for f in detector.observe(w)]
    assert verdicts[-1] is Verdict.ABSENT
    assert Verdict.PRESENT in verdicts


def test_a_path_that_is_a_little_lossy_keeps_its_case() -> None:
    """Between the two thresholds nothing is said."""
    detector = _detector()
    assert [f for w in _minute(1000, 5) for f in detector.observe(w)] == []


def test_silence_is_no_recovery() -> None:
    """An address that nothing is sent to any more keeps its case."""
    detector = _detector()
    detector.observe(_sent(0, 5000, 500))
    case = open_case(FaultClass.NETWORK_RETRANSMISSION, PEER)
    assert list(detector.tick(tick(7200, case))) == []
    assert [f for f in detector.observe(_sent(7200, 3, 0)) if f.verdict is Verdict.ABSENT] == []


def test_keeps_open_when_the_source_goes_blind() -> None:
    """A blind sensor makes the case unknown, and what it had seen before does not count afterwards."""
    detector = _detector()
    detector.observe(_sent(0, 900, 0))
    case = open_case(FaultClass.NETWORK_RETRANSMISSION, PEER)
    assert [f.verdict for f in detector.observe(blind(1, PEERS))] == [Verdict.UNKNOWN]
    assert [f.verdict for f in detector.tick(tick(2, case))] == [Verdict.UNKNOWN]
    assert detector.observe(seeing(3, PEERS)) == ()
    assert detector.observe(_sent(4, 900, 0)) == ()


def test_addresses_are_bounded() -> None:
    """Ten thousand peers leave as many in mind as there is room for."""
    detector = _detector()
    for number in range(10_000):
        detector.observe(_sent(number, 5, 1, address=f"10.0.{number // 250}.{number % 250}"))
    assert len(detector._addresses) <= 256
