"""F43: listeners that can be reached from off the mesh, and those that cannot."""

from __future__ import annotations

import pytest

from agent.cases import CaseBook
from agent.detector import Surroundings
from agent.detectors.off_mesh_listener import Config, OffMeshListener
from agent.finding import Verdict
from agent.host.exposure import Address, AllowedListener, Mesh, Reachability
from agent.host.port_crowds import CROWDS_MAX, OWN_MAX
from agent.testing import (
    CONTAINER,
    HOST,
    KERNEL_BOOT,
    SURROUNDINGS,
    at,
    blind,
    closed,
    inventory,
    listener,
    open_case,
    opened,
    origin,
    present,
    seeing,
    tick,
)
from escalation.model import (
    FaultClass,
    ListenerEvidence,
    Reach,
    ReasonCode,
    Severity,
    Subject,
    SubjectKind,
)
from probes.observation import Listener, Origin, PublishedPort, PublishedPorts, SensorName

FAULT = FaultClass.EXPOSURE_OFF_MESH_LISTENER
WILDCARD = Subject(SubjectKind.LISTENER, "0.0.0.0:8000")
BOX = Subject(SubjectKind.CONTAINER, CONTAINER)
EACH = Config().ports_each
LAN = {"127.0.0.1": "lo", "192.168.1.7": "eth0", "100.90.1.2": "tailscale0", "fe80::1": "tailscale0"}
PUBLIC = {**LAN, "8.8.8.8": "eth1", "2a00:1450::1": "eth1"}
MESH_ONLY = {"127.0.0.1": "lo", "::1": "lo", "100.90.1.2": "tailscale0", "172.17.0.1": "docker0"}


@pytest.fixture
def detector() -> OffMeshListener:
    """A detector that knows nothing of the host yet."""
    return OffMeshListener.build(Config(), SURROUNDINGS)


@pytest.mark.parametrize(
    ("address", "own", "severity"),
    [
        ("0.0.0.0", PUBLIC, Severity.CRITICAL),
        ("::", PUBLIC, Severity.CRITICAL),
        ("0.0.0.0", LAN, Severity.HIGH),
        ("::", LAN, Severity.HIGH),
        ("8.8.8.8", PUBLIC, Severity.CRITICAL),
        ("::ffff:8.8.8.8", PUBLIC, Severity.CRITICAL),
        ("192.168.1.7", LAN, Severity.HIGH),
    ],
)
def test_is_graded_by_the_hosts_own_addresses(
    detector: OffMeshListener, address: str, own: dict[str, str], severity: Severity
) -> None:
    """A wildcard is as exposed as the most exposed address; both layers agree."""
    (found,) = present(detector, inventory(0, addresses=own), opened(1, address))
    assert found.severity is severity
    assert ReasonCode.SOCKET_TABLE_AGREES in {reason.code for reason in found.reasons}


@pytest.mark.parametrize(
    ("address", "own"),
    [
        ("127.0.0.1", PUBLIC),
        ("127.8.8.8", PUBLIC),
        ("::1", PUBLIC),
        ("::ffff:127.0.0.1", PUBLIC),
        ("100.90.1.2", PUBLIC),
        ("fd7a:115c:a1e0::7", PUBLIC),
        ("fe80::1", LAN),
        ("172.17.0.1", MESH_ONLY),
        ("0.0.0.0", MESH_ONLY),
        ("::", MESH_ONLY),
        ("no address", PUBLIC),
    ],
)
def test_what_cannot_be_reached_stays_quiet(
    detector: OffMeshListener, address: str, own: dict[str, str]
) -> None:
    """Loopback, mesh and container bridges are where a service belongs."""
    assert present(detector, inventory(0, addresses=own), opened(1, address)) == []


@pytest.mark.parametrize(
    ("address", "own"),
    [
        ("100.90.1.2", {"100.90.1.2": "eth0"}),
        ("100.90.1.2", {"100.90.1.2": "eth0", "100.70.1.1": "tailscale0"}),
        ("100.115.92.9", {"100.70.1.1": "tailscale0"}),
    ],
)
def test_providers_nat_range_is_not_the_mesh(
    detector: OffMeshListener, address: str, own: dict[str, str]
) -> None:
    """100.64.0.0/10 without the mesh's own interface, or its ChromeOS part, is somebody else's network."""
    (found,) = present(detector, inventory(0, addresses=own), opened(1, address))
    assert found.severity is Severity.HIGH


def test_a_host_with_hundreds_of_containers_is_graded_once(
    detector: OffMeshListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has an interface, and each published port is a wildcard: no address is graded for every port."""
    graded: list[object] = []
    of_address = Reachability.of_address

    def counted(self: Reachability, address: Address) -> Reach | None:
        graded.append(address)
        return of_address(self, address)

    monkeypatch.setattr(Reachability, "of_address", counted)
    own = LAN | {f"fe80::{number:x}": f"veth{number:x}" for number in range(2, 302)}
    ports = [
        listener(wildcard, 20000 + port, where=origin(container=f"{port:064x}"))
        for port in range(100)
        for wildcard in ("0.0.0.0", "::")
    ]
    found = present(detector, inventory(0, *ports, addresses=own))
    assert [one.severity for one in found] == [Severity.HIGH] * 200
    assert len(graded) == len(own)


def flood(ports: int, *, address: str = "0.0.0.0", where: Origin | None = None) -> list[Listener]:
    """Return what a program listens on that opens many ports."""
    return [listener(address, 20000 + port, where=where) for port in range(ports)]


def test_thousands_of_ports_of_one_holder_are_its_first_and_one_case_of_the_rest(
    detector: OffMeshListener,
) -> None:
    """The rest is told with its number and its first ports; the book keeps its places for other faults."""
    book = CaseBook(agent_id=HOST, kernel_boot_id=KERNEL_BOOT, hysteresis=detector.hysteresis)
    found = present(detector, inventory(0, *flood(5000)))
    assert len(book.judge(found, at(0)).bodies) == EACH + 1
    assert book.turned_away == 0
    *own, together = found
    assert {one.subject.kind for one in own if one.subject} == {SubjectKind.LISTENER}
    assert (together.subject, together.severity, together.count) == (BOX, Severity.HIGH, 5000 - EACH)
    assert together.reasons[0].count == 5000 - EACH
    ports = [(one.port, one.further) for one in together.evidence if isinstance(one, ListenerEvidence)]
    first = 20000 + EACH
    assert ports == [(first, 5000 - EACH - 4), (first + 1, 0), (first + 2, 0), (first + 3, 0)]


def test_ports_that_are_opened_one_after_the_other_join_their_holders_case(
    detector: OffMeshListener,
) -> None:
    """Each counts once; the table that follows counts nothing again, and a case keeps its own port."""
    events = [opened(1, "0.0.0.0", port=20000 + port) for port in range(EACH + 3)]
    found = present(detector, inventory(0), *events)
    assert [one.subject == BOX for one in found] == [False] * EACH + [True] * 3
    again = present(detector, inventory(30, *reversed(flood(EACH + 4))))
    assert [one.count for one in again if one.subject != BOX] == [0] * EACH
    assert [(one.count, one.reasons[0].count) for one in again if one.subject == BOX] == [(1, 4)]


@pytest.mark.parametrize(
    ("address", "own"), [("127.0.0.1", PUBLIC), ("100.90.1.2", PUBLIC), ("0.0.0.0", MESH_ONLY)]
)
def test_any_number_of_ports_that_nobody_can_reach_stays_quiet(
    detector: OffMeshListener, address: str, own: dict[str, str]
) -> None:
    """The workers of a cluster hold many ports on loopback and in the mesh."""
    assert present(detector, inventory(0, *flood(500, address=address), addresses=own)) == []


def test_allowed_ports_of_a_holder_are_none_of_its_crowd() -> None:
    """Only what is beyond the range counts, and has a case of its own as long as it is little."""
    allowed = AllowedListener(port=20000, last_port=20499)
    made = OffMeshListener.build(
        Config(), Surroundings(host=HOST, kernel_boot_id=KERNEL_BOOT, allowed_listeners=(allowed,))
    )
    (found,) = present(made, inventory(0, *flood(501)))
    assert found.subject == Subject(SubjectKind.LISTENER, "0.0.0.0:20500")


def test_a_holders_case_clears_when_none_of_its_further_ports_is_open(detector: OffMeshListener) -> None:
    """By the last event, or by a table that no longer shows them; also for one that knows the case alone."""
    case = open_case(FAULT, BOX, last_seen=at(0))
    detector.observe(inventory(0, *flood(EACH + 2)))
    assert detector.tick(tick(1, case)) == []
    over = [
        one.subject
        for port in (EACH, EACH + 1)
        for one in detector.observe(closed(2, "0.0.0.0", port=20000 + port))
        if one.subject and one.subject.kind is not SubjectKind.LISTENER
    ]
    assert over == [BOX]
    for made in (detector, OffMeshListener.build(Config(), SURROUNDINGS)):
        made.observe(inventory(30, *flood(EACH)))
        assert [(one.verdict, one.subject) for one in made.tick(tick(31, case))] == [(Verdict.ABSENT, BOX)]


def test_a_place_that_is_free_again_is_given_to_a_port_of_the_crowd(detector: OffMeshListener) -> None:
    """What closed has left it; what was told with others is told by itself from then on."""
    detector.observe(inventory(0, *flood(EACH + 2)))
    found = present(detector, inventory(30, *flood(EACH + 2)[1:]))
    assert [one.count for one in found] == [0] * (EACH - 1) + [1, 0]
    assert found[-1].reasons[0].count == 1


def test_many_holders_of_many_ports_leave_places_for_other_faults(detector: OffMeshListener) -> None:
    """However many there are, what has no place is told of the host, where no unit is to be acted on."""
    ports = [
        listener("0.0.0.0", 1000 + port, where=origin(container=f"{port // 2:064x}")) for port in range(1200)
    ]
    unknown = flood(100, address="192.168.1.7", where=Origin())
    found = present(detector, inventory(0, *ports, *unknown))
    assert len(found) == len({one.subject for one in found}) == OWN_MAX + CROWDS_MAX + 1
    (host,) = [one for one in found if one.subject == Subject(SubjectKind.HOST, HOST)]
    assert (host.target, host.place, host.incarnation) == (None, None, None)
    assert sum(one.count for one in found) == 1300


def test_a_mesh_that_is_down_exposes_nobody(detector: OffMeshListener) -> None:
    """Its daemon restarts: the sockets stand, their address is gone with the interface, none reaches them."""
    up, down = MESH_ONLY | {"192.168.1.7": "eth0"}, {"127.0.0.1": "lo", "192.168.1.7": "eth0"}
    serves = (listener("100.90.1.2"), listener("fd7a:115c:a1e0::7"))
    before, meanwhile = inventory(0, *serves, addresses=up), inventory(60, *serves, addresses=down)
    assert present(detector, before, meanwhile) == []


def test_a_service_that_follows_the_mesh_up_stays_quiet(detector: OffMeshListener) -> None:
    """It listens before the host's addresses are read again; a provider's range shows at the next look."""
    down = {"127.0.0.1": "lo", "192.168.1.7": "eth0"}
    assert present(detector, inventory(0, addresses=down), opened(5, "100.90.1.2")) == []
    nat = inventory(60, listener("100.90.1.2"), addresses=down | {"100.90.1.2": "eth1"})
    assert [found.severity for found in present(detector, nat)] == [Severity.HIGH]


@pytest.mark.parametrize(
    ("allowed", "quiet"),
    [
        (AllowedListener(port=8000), True),
        (AllowedListener(port=8000, address="0.0.0.0", process="VLLM::EngineCor"), True),
        (AllowedListener(port=8001), False),
        (AllowedListener(port=7000, last_port=8000), True),
        (AllowedListener(port=8000, last_port=8000), True),
        (AllowedListener(port=7000, last_port=7999), False),
        (AllowedListener(port=8001, last_port=9000), False),
        (AllowedListener(port=8000, unit="nginx.service"), False),
        (AllowedListener(port=8000, address="192.168.1.7"), False),
    ],
)
def test_allow_list_must_match_whole(allowed: AllowedListener, quiet: bool) -> None:
    """A port that is meant to be open stays quiet, and only that one."""
    made = OffMeshListener.build(
        Config(), Surroundings(host=HOST, kernel_boot_id=KERNEL_BOOT, allowed_listeners=(allowed,))
    )
    assert (present(made, inventory(0, addresses=LAN), opened(1, "0.0.0.0")) == []) is quiet


def test_socket_of_another_namespace_stays_quiet(detector: OffMeshListener) -> None:
    """An event that the host's socket table contradicts is a container's own affair."""
    assert present(detector, inventory(0), opened(1, "0.0.0.0", confirmed=False)) == []


def test_unread_socket_table_leaves_a_note(detector: OffMeshListener) -> None:
    """One layer alone is not enough for more than a note."""
    (found,) = present(detector, inventory(0), opened(1, "0.0.0.0", confirmed=None))
    assert found.severity is Severity.NOTE
    assert ReasonCode.SECOND_LAYER_UNKNOWN in {reason.code for reason in found.reasons}


def test_event_before_the_first_inventory_waits_for_it(detector: OffMeshListener) -> None:
    """Without the host's addresses nothing can be graded; the inventory then has the listener itself."""
    assert present(detector, opened(1, "0.0.0.0")) == []
    (found,) = present(detector, inventory(2, listener("0.0.0.0"), addresses=PUBLIC))
    assert found.severity is Severity.CRITICAL


def test_blind_inventory_turns_waiting_events_into_notes(detector: OffMeshListener) -> None:
    """Where the addresses can never be known, the event is still said, with what it is worth."""
    (found,) = present(detector, opened(1, "0.0.0.0"), blind(2, "host.listeners"))
    assert (found.severity, found.evidence[0].reach) == (Severity.NOTE, Reach.ALL_INTERFACES)  # type: ignore[union-attr]


def test_a_listener_that_goes_on_is_counted_once(detector: OffMeshListener) -> None:
    """A state is not an event: the next inventory sees it again without counting it."""
    first = present(detector, inventory(0, listener("0.0.0.0")))
    second = present(detector, inventory(30, listener("0.0.0.0")))
    assert [found.count for found in (*first, *second)] == [1, 0]


def test_clears_when_closed(detector: OffMeshListener) -> None:
    """The event and the table agree that it is gone."""
    (over,) = detector.observe(closed(5, "0.0.0.0"))
    assert (over.verdict, over.subject) == (Verdict.ABSENT, WILDCARD)
    assert over.reasons[0].code is ReasonCode.LISTENER_CLOSED


def test_close_that_the_table_contradicts_is_no_recovery(detector: OffMeshListener) -> None:
    """Another socket still holds the port; and an unread table makes it unknown."""
    assert detector.observe(closed(5, "0.0.0.0", confirmed=False)) == ()
    assert [found.verdict for found in detector.observe(closed(5, "0.0.0.0", confirmed=None))] == [
        Verdict.UNKNOWN
    ]


def test_clears_what_a_later_inventory_no_longer_shows(detector: OffMeshListener) -> None:
    """The table was read after the case was last seen, and it is not in there."""
    case = open_case(FAULT, WILDCARD, last_seen=at(5))
    detector.observe(inventory(4))
    assert detector.tick(tick(6, case)) == []
    detector.observe(inventory(30))
    assert [found.verdict for found in detector.tick(tick(31, case))] == [Verdict.ABSENT]
    detector.observe(blind(40, "host.listeners"))
    assert [found.verdict for found in detector.tick(tick(41, case))] == [Verdict.UNKNOWN]


def test_sight_of_another_sensor_changes_nothing(detector: OffMeshListener) -> None:
    """Only the inventory's own sight decides about grading."""
    assert detector.observe(seeing(1, "kernel.oom_kill")) == ()


def test_a_port_that_an_engine_publishes_names_no_unit_to_restart(detector: OffMeshListener) -> None:
    """The socket is the engine's own proxy; restarting the engine would end every container."""
    engine = origin(container=None, unit="docker.service", cgroup_path="/system.slice/docker.service")
    one = PublishedPort(address="0.0.0.0", port=5432, container_address="172.17.0.2", container_port=5432)
    told = PublishedPorts(sensor=SensorName("host.listeners"), at=at(0), known=True, ports=(one,))
    shown = [listener("0.0.0.0", port, where=engine) for port in (5432, 2375)]
    proxied, own = present(detector, told, inventory(0, *shown, addresses=LAN))
    assert ReasonCode.PUBLISHED_BY_PROXY in {reason.code for reason in proxied.reasons}
    assert proxied.target is None
    assert ReasonCode.PUBLISHED_BY_PROXY not in {reason.code for reason in own.reasons}
    assert own.target == Subject(SubjectKind.UNIT, "docker.service")


def test_a_listener_that_the_host_never_had_is_told_as_new() -> None:
    """After the days of learning, also by an agent that was restarted; old ones are as grave, and not new."""
    first = OffMeshListener.build(Config(learn_s=100), SURROUNDINGS)
    (old,) = present(first, inventory(0, listener("0.0.0.0", 8000), addresses=LAN))
    second = OffMeshListener.build(Config(learn_s=100), SURROUNDINGS)
    assert second.recall(first.memory()) == 0
    shown = [listener("0.0.0.0", port) for port in (8000, 9000)]
    known, new = present(second, inventory(1000, *shown, addresses=LAN))
    said = [{reason.code for reason in found.reasons} for found in (old, known, new)]
    assert [ReasonCode.NOT_EXPECTED_HERE in codes for codes in said] == [False, False, True]
    assert {found.severity for found in (old, known, new)} == {Severity.HIGH}
    assert second.recall({"expected": b"nonsense"}) == 1
    assert second.recall({}) == 0


def test_a_declared_link_between_two_hosts_is_inside() -> None:
    """Two nodes that serve one model have a wire of their own."""
    linked = Surroundings(host=HOST, kernel_boot_id=KERNEL_BOOT, mesh=Mesh(links=("10.10.0.0/30",)))
    own = {"127.0.0.1": "lo", "10.10.0.1": "enp1s0f0np0"}
    for address in ("10.10.0.1", "0.0.0.0"):
        made = OffMeshListener.build(Config(), linked)
        assert present(made, inventory(0, addresses=own), opened(1, address)) == []
