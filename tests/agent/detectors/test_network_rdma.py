"""network.rdma_fault: counters, carrier and the ranks' own library, alone and together."""

from __future__ import annotations

import pytest

from agent.detectors.network_rdma import COLLECTIVE_FAILED, LINKS, Config, NetworkRdma
from agent.finding import Verdict
from agent.testing import SURROUNDINGS, at, blind, open_case, origin, present, seeing, tick
from escalation.model import FaultClass, LinkCounter, LinkEvidence, ReasonCode, Severity, Subject, SubjectKind
from probes.host.links import COUNTERS
from probes.logs.patterns import PATTERNS
from probes.observation import InterfaceLink, LogLine, Observation, RdmaPort, SensorName

DEVICE, INTERFACE = "rocep1s0f0", "enp1s0f0np0"
LINK = Subject(SubjectKind.INTERFACE, DEVICE)
TIMEOUTS, SEQUENCE = "local_ack_timeout_err", "out_of_sequence"


def _detector() -> NetworkRdma:
    detector = NetworkRdma.build(Config(), SURROUNDINGS)
    detector.observe(seeing(0, LINKS))
    detector.observe(_port(0))
    return detector


def _port(seconds: float, *rises: tuple[str, int], active: bool = True, device: str = DEVICE) -> RdmaPort:
    return RdmaPort(
        sensor=LINKS,
        at=at(seconds),
        device=device,
        port=1,
        active=active,
        interface=INTERFACE if device == DEVICE else None,
        rises=rises,
        window_s=10.0,
    )


def _carrier(
    seconds: float, changes: int = 1, *, up: bool | None = False, enabled: bool = True, name: str = INTERFACE
) -> InterfaceLink:
    return InterfaceLink(
        sensor=LINKS, at=at(seconds), interface=name, up=up, enabled=enabled, changes=changes, window_s=10.0
    )


def _line(seconds: float, pattern: str = "nccl.ib_error") -> LogLine:
    return LogLine(sensor=SensorName("host.logs"), at=at(seconds), origin=origin(), pattern=pattern)


@pytest.mark.parametrize(
    ("signs", "codes"),
    [
        (
            (_port(10, (TIMEOUTS, 117)), _line(20)),
            [ReasonCode.RDMA_COUNTERS_RISE, ReasonCode.COLLECTIVE_FAILED],
        ),
        (
            (_line(10), _port(20, (TIMEOUTS, 117))),
            [ReasonCode.RDMA_COUNTERS_RISE, ReasonCode.COLLECTIVE_FAILED],
        ),
        (
            (_port(10, ("link_downed", 1)), _carrier(10)),
            [ReasonCode.RDMA_COUNTERS_RISE, ReasonCode.CARRIER_LOST],
        ),
        (
            (_carrier(10), _line(30, "nccl.remote_exited")),
            [ReasonCode.CARRIER_LOST, ReasonCode.COLLECTIVE_FAILED],
        ),
    ],
)
def test_two_layers_are_a_fault(signs: tuple[Observation, ...], codes: list[ReasonCode]) -> None:
    """Counters, carrier and log: any two within two minutes, in either order, and the link is named."""
    (*_, last) = present(_detector(), *signs)
    assert (last.subject, last.severity) == (LINK, Severity.HIGH)
    assert [r.code for r in last.reasons] == codes


def test_the_evidence_names_the_counters() -> None:
    """What rose, by how much, and whether the link is up."""
    found = present(
        _detector(), _port(10, (TIMEOUTS, 100)), _port(20, (TIMEOUTS, 17), ("link_downed", 1)), _carrier(20)
    )
    shown = [e for e in found[-1].evidence if isinstance(e, LinkEvidence)]
    assert [(e.counter, e.rise) for e in shown] == [
        (LinkCounter.LOCAL_ACK_TIMEOUT, 117),
        (LinkCounter.LINK_DOWNED, 1),
        (LinkCounter.CARRIER_CHANGES, 1),
    ]
    assert {(e.device, e.port, e.up) for e in shown} == {(DEVICE, 1, True)}


@pytest.mark.parametrize(
    ("sign", "subject"),
    [
        (_port(10, (TIMEOUTS, 5)), LINK),
        (_carrier(10), LINK),
        (_line(10), Subject(SubjectKind.CONTAINER, origin().container_id or "")),
    ],
)
def test_one_layer_alone_is_a_note(sign: Observation, subject: Subject) -> None:
    """It is said, and that nothing else agrees."""
    (found,) = present(_detector(), sign)
    assert (found.subject, found.severity) == (subject, Severity.NOTE)
    assert found.reasons[-1].code is ReasonCode.SECOND_LAYER_UNKNOWN


def test_a_tcp_link_with_a_failed_collective_is_a_fault() -> None:
    """Ranks that meet over TCP have no RDMA port; the carrier of their interface and their log agree."""
    found = present(_detector(), _carrier(10, name="eth7"), _line(20, "nccl.connection_closed"))
    assert [(f.subject, f.severity) for f in found] == [
        (Subject(SubjectKind.INTERFACE, "eth7"), Severity.HIGH)
    ]


@pytest.mark.parametrize(
    "signs",
    [
        pytest.param([_port(10, active=False)], id="a port that nothing uses"),
        pytest.param([_port(10, (SEQUENCE, 40))], id="a few sequence errors of a busy fabric"),
        pytest.param([_carrier(10, name="wlan0")], id="a cable without RDMA"),
        pytest.param([_carrier(10, 2, enabled=False)], id="an interface that was switched off"),
        pytest.param([_carrier(10, 0, up=True)], id="a steady link"),
        pytest.param([_line(10, "nccl.remote_exited")], id="a rank that ended"),
        pytest.param([_line(10, "ray.node_dead")], id="another line"),
        pytest.param([_carrier(10, name="wlan0"), _line(300, "nccl.remote_exited")], id="far apart"),
    ],
)
def test_look_alikes_stay_quiet(signs: list[Observation]) -> None:
    """None of these is a link that fails."""
    assert present(_detector(), *signs) == []


def test_many_small_rises_add_up() -> None:
    """A hundred sequence errors within two minutes are worth a note, as ten at a time."""
    found = present(_detector(), *(_port(10.0 * i, (SEQUENCE, 15)) for i in range(1, 9)))
    assert [f.severity for f in found][-1:] == [Severity.NOTE]
    assert present(_detector(), *(_port(300.0 * i, (SEQUENCE, 15)) for i in range(1, 9))) == []


def test_a_link_that_is_up_and_quiet_is_over() -> None:
    """Five minutes without a rise while the sensor looked, and the port is active."""
    detector = _detector()
    detector.observe(_port(10, (TIMEOUTS, 9)))
    detector.observe(_port(200))
    case = open_case(FaultClass.NETWORK_RDMA_FAULT, LINK, last_seen=at(10))
    assert detector.tick(tick(300, case)) == []
    (found,) = detector.tick(tick(320, case))
    assert (found.verdict, found.reasons[0].code) == (Verdict.ABSENT, ReasonCode.LINK_STEADY_AGAIN)


def test_a_link_that_is_down_stays_open() -> None:
    """Counters of a dead link stand still, which is no recovery."""
    detector = _detector()
    detector.observe(_port(10, ("link_downed", 1), active=False))
    case = open_case(FaultClass.NETWORK_RDMA_FAULT, LINK, last_seen=at(10))
    assert detector.tick(tick(7200, case)) == []


def test_a_link_that_is_no_longer_there_stays_open() -> None:
    """Of a device that nobody shows nothing is known to be well."""
    gone = Subject(SubjectKind.INTERFACE, "mlx5_9")
    case = open_case(FaultClass.NETWORK_RDMA_FAULT, gone, last_seen=at(10))
    assert _detector().tick(tick(7200, case)) == []


def test_keeps_open_when_the_source_goes_blind() -> None:
    """A blind sensor makes the case unknown, and the time before does not count as quiet."""
    detector = _detector()
    case = open_case(FaultClass.NETWORK_RDMA_FAULT, LINK, last_seen=at(10))
    assert [f.verdict for f in detector.observe(blind(20, LINKS))] == [Verdict.UNKNOWN]
    assert [f.verdict for f in detector.tick(tick(900, case))] == [Verdict.UNKNOWN]
    detector.observe(seeing(1000, LINKS))
    assert detector.tick(tick(1100, case)) == []
    assert [f.verdict for f in detector.tick(tick(1310, case))] == [Verdict.ABSENT]


def test_devices_are_bounded() -> None:
    """A host that invents device names leaves as many in mind as there is room for."""
    detector = _detector()
    for number in range(2000):
        detector.observe(_port(number, (TIMEOUTS, 1), device=f"mlx5_{number}"))
        detector.observe(_carrier(number, name=f"eth{number}"))
    assert len(detector._ports) <= 128
    assert len(detector._devices) <= 128


def test_it_knows_the_lines_and_counters_by_the_names_that_the_sensors_give_them() -> None:
    """A pattern or a counter that is renamed where it is read fails here."""
    assert {pattern.id for pattern in PATTERNS} >= COLLECTIVE_FAILED
    assert {path.partition("/")[2] for path in COUNTERS} <= {counter.value for counter in LinkCounter}
