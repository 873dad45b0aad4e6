"""F44: services that command the host, open beyond the mesh; and where they belong."""

from __future__ import annotations

import pytest

from agent.detector import Surroundings
from agent.detectors.control_plane import Config, OpenControlPlane
from agent.finding import Finding, Verdict
from agent.host.exposure import AllowedListener, Mesh
from agent.testing import (
    HOST,
    KERNEL_BOOT,
    SURROUNDINGS,
    at,
    blind,
    closed,
    inventory,
    listener,
    open_case,
    origin,
    present,
    seeing,
    tick,
)
from escalation.model import (
    ControlPlane,
    ControlPlaneEvidence,
    FaultClass,
    ReasonCode,
    Severity,
    Subject,
    SubjectKind,
)
from probes.host.control_services import PORTS
from probes.observation import (
    ControlListener,
    ControlListeners,
    ControlService,
    ListenerInventory,
    ListenerOpened,
    PublishedPorts,
    SensorName,
)

FAULT = FaultClass.EXPOSURE_OPEN_CONTROL_PLANE
SENSOR = SensorName("host.listeners")
LAN = {
    "127.0.0.1": "lo",
    "192.168.1.7": "eth0",
    "100.90.1.2": "tailscale0",
    "172.17.0.1": "docker0",
    "10.10.0.1": "enp1s0f0np0",
}
PUBLIC = {**LAN, "8.8.8.8": "eth1"}
DASHBOARD = Subject(SubjectKind.LISTENER, "0.0.0.0:8265")


def control(
    *,
    service: ControlService = ControlService.RAY_DASHBOARD,
    address: str = "0.0.0.0",
    port: int = 8265,
    recognised: bool | None = True,
    published: bool = False,
    peers: tuple[tuple[str, str], ...] = (),
) -> ControlListener:
    """Return Ray's dashboard on all addresses, unless told otherwise."""
    return ControlListener(
        service=service,
        address=address,
        port=port,
        origin=origin(container=None, unit="ray.service", cgroup_path="/system.slice/ray.service"),
        recognised=recognised,
        published=published,
        peers=peers,
    )


def table(
    seconds: float, *listeners: ControlListener, own: dict[str, str] | None = None
) -> list[ListenerInventory | ControlListeners]:
    """Return what one read of the socket table tells."""
    shown = [listener(one.address, one.port, where=one.origin) for one in listeners]
    told: list[ListenerInventory | ControlListeners] = [inventory(seconds, *shown, addresses=own or LAN)]
    if listeners:
        told.append(ControlListeners(sensor=SENSOR, at=at(seconds), listeners=listeners))
    return told


def published(seconds: float, *, known: bool = True) -> PublishedPorts:
    """Return what the engine publishes, as far as it is known."""
    return PublishedPorts(sensor=SENSOR, at=at(seconds), known=known, ports=())


def codes(found: Finding) -> list[ReasonCode]:
    """Return why."""
    return [reason.code for reason in found.reasons]


def judged(
    *listeners: ControlListener, own: dict[str, str] | None = None, around: Surroundings = SURROUNDINGS
) -> list[Finding]:
    """Return what is found of these listeners by a fresh detector."""
    detector = OpenControlPlane.build(Config(), around)
    return list(present(detector, seeing(0, "host.listeners"), *table(1, *listeners, own=own)))


@pytest.fixture
def detector() -> OpenControlPlane:
    """A detector that has an open case of Ray's dashboard."""
    made = OpenControlPlane.build(Config(), SURROUNDINGS)
    assert len(present(made, seeing(0, "host.listeners"), *table(1, control()))) == 1
    return made


@pytest.mark.parametrize(
    ("own", "severity", "why"),
    [
        (LAN, Severity.HIGH, [ReasonCode.CONTROL_PLANE_REACHABLE, ReasonCode.FIREWALL_NOT_SEEN]),
        (
            PUBLIC,
            Severity.CRITICAL,
            [
                ReasonCode.CONTROL_PLANE_REACHABLE,
                ReasonCode.HOST_HAS_PUBLIC_ADDRESS,
                ReasonCode.FIREWALL_NOT_SEEN,
            ],
        ),
    ],
)
def test_is_graded_by_the_hosts_own_addresses(
    own: dict[str, str], severity: Severity, why: list[ReasonCode]
) -> None:
    """A recognised service on all addresses is as open as the host's most exposed one."""
    (found,) = judged(control(), own=own)
    assert (found.subject, found.severity, codes(found), found.count) == (DASHBOARD, severity, why, 1)
    assert found.target == Subject(SubjectKind.UNIT, "ray.service")
    assert found.evidence == (
        ControlPlaneEvidence(
            plane=ControlPlane.RAY_DASHBOARD,
            address="0.0.0.0",
            port=8265,
            published=False,
            outside_peers=0,
            outside_peer="",
        ),
    )


def test_a_port_alone_is_a_note() -> None:
    """Where no process can be looked at, the second layer is missing."""
    (found,) = judged(control(recognised=None), own=PUBLIC)
    assert (found.severity, codes(found)[-1]) == (Severity.NOTE, ReasonCode.SECOND_LAYER_UNKNOWN)


def test_what_an_engine_publishes_is_known_by_the_containers_port() -> None:
    """The engine's word is the second layer; its own service is not to be restarted for it."""
    made = control(service=ControlService.POSTGRESQL, port=15432, recognised=None, published=True)
    (found,) = judged(made)
    assert (found.severity, found.target) == (Severity.HIGH, None)
    assert ReasonCode.PUBLISHED_BY_PROXY in codes(found)


@pytest.mark.parametrize(
    ("peers", "severity", "outside"),
    [
        ((("192.168.1.7", "192.168.1.50"),), Severity.HIGH, (1, "192.168.1.50")),
        ((("192.168.1.7", "192.168.1.50"), ("192.168.1.7", "1.2.3.4")), Severity.CRITICAL, (2, "1.2.3.4")),
        ((("100.90.1.2", "100.91.0.9"),), Severity.HIGH, (0, "")),
        ((("172.17.0.1", "172.17.0.5"),), Severity.HIGH, (0, "")),
        ((("192.168.1.7", "192.168.1.7"),), Severity.HIGH, (0, "")),
        ((("127.0.0.1", "127.0.0.1"), ("nonsense", "x")), Severity.HIGH, (0, "")),
    ],
)
def test_who_is_connected_from_outside_is_told(
    peers: tuple[tuple[str, str], ...], severity: Severity, outside: tuple[int, str]
) -> None:
    """The mesh, containers and the host itself are inside; a public peer is critical by itself."""
    (found,) = judged(control(peers=peers))
    (evidence,) = found.evidence
    assert isinstance(evidence, ControlPlaneEvidence)
    assert (found.severity, (evidence.outside_peers, evidence.outside_peer)) == (severity, outside)
    assert (ReasonCode.PEER_OFF_MESH in codes(found)) is bool(outside[0])
    assert (ReasonCode.FIREWALL_NOT_SEEN in codes(found)) is not bool(outside[0])


@pytest.mark.parametrize(
    "made",
    [
        control(address="127.0.0.1"),
        control(address="100.90.1.2"),
        control(address="172.17.0.1"),
        control(recognised=False),  # another program on the port
        control(service=ControlService.JUPYTER, port=8888, recognised=None),
        control(service=ControlService.JUPYTER, port=8888, recognised=False),
        control(address="no address"),
    ],
)
def test_look_alikes_stay_quiet(made: ControlListener) -> None:
    """Loopback, mesh and bridges are where it belongs; a port that many use needs its process."""
    assert judged(made, own=PUBLIC) == []


def test_a_declared_link_between_two_nodes_stays_quiet() -> None:
    """Two nodes that serve one model need each other's Ray ports; nobody else does."""
    linked = Surroundings(host=HOST, kernel_boot_id=KERNEL_BOOT, mesh=Mesh(links=("10.10.0.0/30",)))
    ray = control(
        service=ControlService.RAY_GCS, address="10.10.0.1", port=6379, peers=(("10.10.0.1", "10.10.0.2"),)
    )
    assert judged(ray, around=linked) == []
    assert [found.severity for found in judged(ray)] == [Severity.HIGH]
    wide = control(service=ControlService.RAY_GCS, port=6379, peers=(("10.10.0.1", "10.10.0.2"),))
    (found,) = judged(wide, around=linked)
    assert ReasonCode.PEER_OFF_MESH not in codes(found)
    only_linked = {"127.0.0.1": "lo", "100.90.1.2": "tailscale0", "10.10.0.1": "enp1s0f0np0"}
    assert judged(wide, own=only_linked, around=linked) == []


def test_an_allowed_listener_stays_quiet() -> None:
    """What an operator wrote down is meant."""
    allowed = (AllowedListener(port=8265, unit="ray.service"),)
    around = Surroundings(host=HOST, kernel_boot_id=KERNEL_BOOT, allowed_listeners=allowed)
    assert judged(control(), own=PUBLIC, around=around) == []


def test_a_recognised_process_that_begins_to_listen_is_told_at_once() -> None:
    """Before the next table; a process that is not recognised, or not confirmed, waits for it."""
    detector = OpenControlPlane.build(Config(), SURROUNDINGS)
    assert present(detector, seeing(0, "host.listeners"), *table(1)) == []
    for name, confirmed, count in (("python3", True, 0), ("gcs_server", False, 0), ("gcs_server", True, 1)):
        where = origin(container=None, unit="ray.service", name=name)
        began = ListenerOpened(
            SensorName("kernel.listener"), at(2), listener("0.0.0.0", 6379, where=where), confirmed
        )
        found = present(detector, began)
        assert [one.severity for one in found] == [Severity.HIGH] * count
    assert present(detector, *table(60, control(service=ControlService.RAY_GCS, port=6379)))[0].count == 0


def test_is_one_event_however_often_the_table_shows_it(detector: OpenControlPlane) -> None:
    """Only the first look counts."""
    assert [found.count for found in present(detector, *table(60, control()))] == [0]


def test_each_new_peer_from_outside_is_an_event(detector: OpenControlPlane) -> None:
    """Who stays connected is told once, who comes back is new."""
    one, two = ("192.168.1.7", "192.168.1.50"), ("192.168.1.7", "192.168.1.51")
    looks = [(one,), (one,), (one, two), (), (one,)]
    told = [
        found.count
        for number, peers in enumerate(looks, start=1)
        for found in present(detector, *table(60 * number, control(peers=peers)))
    ]
    assert told == [1, 0, 1, 0, 1]


def test_clears_when_the_socket_is_closed(detector: OpenControlPlane) -> None:
    """At once by the kernel's word; else by the next table that does not show it."""
    (found,) = detector.observe(closed(30, "0.0.0.0", port=8265))
    assert (found.verdict, found.subject, codes(found)) == (
        Verdict.ABSENT,
        DASHBOARD,
        [ReasonCode.CONTROL_PLANE_CLOSED],
    )
    case = open_case(FAULT, DASHBOARD, last_seen=at(1))
    assert list(detector.tick(tick(50, case))) == []
    assert present(detector, *table(60)) == []
    assert [one.verdict for one in detector.tick(tick(61, case))] == [Verdict.ABSENT]


def test_clears_when_it_is_moved_into_the_mesh(detector: OpenControlPlane) -> None:
    """The wildcard is gone and the mesh's address listens instead."""
    assert present(detector, *table(60, control(address="100.90.1.2"))) == []
    case = open_case(FAULT, DASHBOARD, last_seen=at(1))
    assert [one.verdict for one in detector.tick(tick(61, case))] == [Verdict.ABSENT]


def test_a_publication_without_a_proxy_is_unknown_and_not_closed(detector: OpenControlPlane) -> None:
    """Without a socket there is nothing that could be seen to be gone."""
    evidence = ControlPlaneEvidence(
        plane=ControlPlane.POSTGRESQL,
        address="0.0.0.0",
        port=5432,
        published=True,
        outside_peers=0,
        outside_peer="",
    )
    subject = Subject(SubjectKind.LISTENER, "0.0.0.0:5432")
    case = open_case(FAULT, subject, last_seen=at(1), evidence=(evidence,))
    assert present(detector, published(60, known=False), *table(60)) == []
    assert [one.verdict for one in detector.tick(tick(61, case))] == [Verdict.UNKNOWN]
    assert present(detector, published(120), *table(120)) == []
    assert [one.verdict for one in detector.tick(tick(121, case))] == [Verdict.ABSENT]


def test_keeps_open_when_its_source_goes_blind(detector: OpenControlPlane) -> None:
    """No table, no recovery."""
    (found,) = detector.observe(blind(30, "host.listeners"))
    assert found.verdict is Verdict.UNKNOWN
    case = open_case(FAULT, DASHBOARD, last_seen=at(1))
    assert [one.verdict for one in detector.tick(tick(40, case))] == [Verdict.UNKNOWN]
    detector.observe(seeing(50, "host.listeners"))
    assert list(detector.tick(tick(51, case))) == []


def test_the_words_of_both_sides_are_the_same() -> None:
    """Each service that a sensor may tell has its word in a report, and a port."""
    assert {service.value for service in ControlService} == {p.value for p in ControlPlane} - {
        "unknown",
        "other",
    }
    assert set(PORTS.values()) | {ControlService.REDIS} == set(ControlService)
