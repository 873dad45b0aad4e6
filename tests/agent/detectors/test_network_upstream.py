"""network.upstream_unreachable: servers that cannot reach the server they ask, and what looks like it."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from agent.detector import CgroupLook, World
from agent.detectors.network_upstream import PEERS, Config, NetworkUpstream
from agent.finding import Place, Verdict
from agent.testing import SURROUNDINGS, at, blind, open_case, origin, present, seeing, tick, usage
from escalation.model import FaultClass, PeerEvidence, ReasonCode, Severity, Subject, SubjectKind
from probes.observation import (
    CgroupId,
    ConnectFailures,
    ConnectSuccesses,
    ListenerInventory,
    Origin,
    Peer,
    SensorName,
    ServerKind,
)

ADDRESS = "100.64.0.7"
PEER = Subject(SubjectKind.PEER, f"{ADDRESS} 8000")
ROUTER = origin(container="1" * 64, cgroup_id=77, name="litellm", server=ServerKind.LITELLM, pid=500)
SCRIPT = origin(container=None, unit="nightly.service", cgroup_id=78, name="python3", server=ServerKind.OTHER)
SHELL = origin(container=None, cgroup_id=79, cgroup_path="/user.slice", name="bash", server=ServerKind.OTHER)


def _detector() -> NetworkUpstream:
    return NetworkUpstream.build(Config(), SURROUNDINGS)


def _failed(
    seconds: float,
    count: int = 2,
    *,
    code: int = errno.ECONNREFUSED,
    address: str = ADDRESS,
    port: int = 8000,
    who: Origin = ROUTER,
    reached: bool = False,
    by_route: bool = False,
) -> ConnectFailures:
    return ConnectFailures(
        sensor=PEERS,
        at=at(seconds),
        peer=Peer(address, port),
        errno=code,
        count=count,
        origin=who,
        reached_before=reached,
        by_route=by_route,
        window_s=10.0,
    )


def _succeeded(
    seconds: float, *, who: Origin = ROUTER, address: str = ADDRESS, port: int = 8000
) -> ConnectSuccesses:
    peer = Peer(address, port)
    return ConnectSuccesses(sensor=PEERS, at=at(seconds), peer=peer, count=3, origin=who, window_s=10.0)


def _for_a_minute(**how: object) -> Iterator[ConnectFailures]:
    """Yield failures of seventy seconds."""
    return (_failed(10.0 * i, **how) for i in range(8))  # type: ignore[arg-type]  # whatever a test says


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.ECONNREFUSED, ReasonCode.CONNECTS_REFUSED),
        (errno.ETIMEDOUT, ReasonCode.CONNECTS_TIME_OUT),
        (errno.EHOSTUNREACH, ReasonCode.CONNECTS_UNREACHABLE),
        (errno.EINVAL, ReasonCode.CONNECTS_UNREACHABLE),
    ],
)
def test_a_router_whose_backend_is_away(code: int, reason: ReasonCode) -> None:
    """The errno says how; the case names the peer, and carries who asked."""
    (*_, last) = present(_detector(), *_for_a_minute(code=code))
    assert (last.subject, last.severity) == (PEER, Severity.HIGH)
    assert [(r.code, r.count, r.threshold, r.window_s) for r in last.reasons] == [(reason, 16, 3.0, 70.0)]
    assert last.target is None, "the server is not known, and who asks it is not at fault"
    assert last.incarnation is not None
    assert last.incarnation.container_id == "1" * 64
    (evidence,) = last.evidence
    assert isinstance(evidence, PeerEvidence)
    assert evidence.process_name == "litellm"
    assert (evidence.address, evidence.port, evidence.failed, evidence.errno) == (ADDRESS, 8000, 16, code)


def test_a_service_that_had_reached_its_peer() -> None:
    """A unit of no known kind counts, for less, when the peer had been reached before."""
    found = present(_detector(), *_for_a_minute(who=SCRIPT, reached=True))
    assert {f.severity for f in found} == {Severity.MEDIUM}
    detector = _detector()
    detector.observe(_succeeded(0, who=SCRIPT))
    assert present(detector, *_for_a_minute(who=SCRIPT))


def test_a_ray_node_that_cannot_reach_its_head() -> None:
    """Of Ray's own processes the head is the one upstream."""
    found = present(_detector(), *_for_a_minute(who=origin(server=ServerKind.RAY), port=6379))
    assert {f.severity for f in found} == {Severity.HIGH}


@pytest.mark.parametrize(
    "attempts",
    [
        pytest.param([_failed(10.0 * i) for i in range(5)], id="a restart within the patience"),
        pytest.param([_failed(0, 1), _failed(300, 1)], id="two in five minutes"),
        pytest.param([_failed(700.0 * i, 1) for i in range(9)], id="one in ten minutes"),
        pytest.param(list(_for_a_minute(who=SCRIPT)), id="a service whose peer was never there"),
        pytest.param(list(_for_a_minute(who=SHELL, reached=True)), id="a person at a shell"),
        pytest.param(
            list(_for_a_minute(who=origin(unit="probe.service", container=None, name="curl"), reached=True)),
            id="a probe by curl",
        ),
        pytest.param(
            [_failed(i / 10, 1, port=i, who=SCRIPT) for i in range(1, 1000)], id="a scan of many ports"
        ),
        pytest.param(
            list(_for_a_minute(address="2606:4700::1", code=errno.ENETUNREACH, by_route=True)),
            id="IPv6 on a host without it",
        ),
        pytest.param(list(_for_a_minute(who=Origin(), reached=True)), id="nobody known"),
        pytest.param(
            list(_for_a_minute(who=origin(server=ServerKind.RAY), port=10_012, reached=True)),
            id="a port of a Ray worker that is gone",
        ),
        pytest.param(
            list(_for_a_minute(who=origin(server=ServerKind.RAY), port=41_234)),
            id="a worker's port that the kernel chose",
        ),
    ],
)
def test_look_alikes_stay_quiet(attempts: list[ConnectFailures]) -> None:
    """None of these is a server that cannot reach its upstream."""
    assert present(_detector(), *attempts) == []


def test_a_success_in_between_begins_anew() -> None:
    """A backend that flaps within the patience is no case."""
    detector, found = _detector(), []
    for second in range(0, 300, 50):
        found += present(detector, _failed(second), _failed(second + 30))
        detector.observe(_succeeded(second + 40))
    assert found == []


def test_a_local_server_that_loads_its_model_is_a_note() -> None:
    """Refused is not crashed: the process lives, and listens when its weights are loaded."""
    detector = _detector()
    server = origin(pid=4711)
    found = []
    for second in range(0, 100, 10):
        detector.observe(usage(second, 1.5, port=8000, started=0, where=server))
        found += present(detector, _failed(second, address="127.0.0.1"))
    assert {f.severity for f in found} == {Severity.NOTE}
    assert {f.reasons[-1].code for f in found} == {ReasonCode.SERVER_IS_LOADING}


def test_a_load_that_never_ends_is_no_note_any_more() -> None:
    """After half an hour the patience with the load is over."""
    detector = _detector()
    found = []
    for second in range(1800, 1900, 10):
        detector.observe(usage(second, 1.5, port=8000, started=0))
        found += present(detector, _failed(second, address="127.0.0.1"))
    assert {f.severity for f in found} == {Severity.HIGH}


def test_a_local_server_that_is_gone_does_not_load() -> None:
    """Its last sign of life is old, so nobody is there who could begin to listen."""
    detector = _detector()
    detector.observe(usage(0, 1.5, port=8000, started=0))
    found = present(detector, *(_failed(60.0 + 10 * i, address="127.0.0.1") for i in range(8)))
    assert {f.severity for f in found} == {Severity.HIGH}


def test_the_host_s_own_address_is_local_too() -> None:
    """A router that asks by the mesh address of its own host meets the same server."""
    detector = _detector()
    detector.observe(
        ListenerInventory(
            sensor=SensorName("host.listeners"),
            at=at(0),
            listeners=(),
            host_addresses=((ADDRESS, "tailscale0"),),
        )
    )
    found = []
    for second in range(0, 100, 10):
        detector.observe(usage(second, 1.5, port=8000, started=0))
        found += present(detector, _failed(second))
    assert {f.severity for f in found} == {Severity.NOTE}


def test_a_health_check_of_one_s_own_container_stays_quiet() -> None:
    """A container that asks its own server while it loads is the server's own patience."""
    detector, found = _detector(), []
    for second in range(0, 200, 10):
        detector.observe(usage(second, 1.5, port=8000, started=0))
        found += present(detector, _failed(second, address="127.0.0.1", who=origin(name="python3", pid=9)))
    assert found == []


def test_a_connection_that_succeeds_ends_it() -> None:
    """The peer is reached again."""
    detector = _detector()
    assert present(detector, *_for_a_minute())
    (found,) = detector.observe(_succeeded(90))
    assert (found.verdict, found.subject) == (Verdict.ABSENT, PEER)
    assert [r.code for r in found.reasons] == [ReasonCode.CONNECTS_SUCCEED_AGAIN]


def test_another_client_s_success_does_not_end_it() -> None:
    """A loopback address means another server in each network: who still fails keeps the case."""
    detector = _detector()
    assert present(detector, *_for_a_minute(address="127.0.0.1"))
    assert detector.observe(_succeeded(90, who=SCRIPT, address="127.0.0.1")) == ()
    assert len(detector.observe(_succeeded(95, address="127.0.0.1"))) == 1


def test_a_success_after_a_restart_of_the_agent_ends_a_case_that_it_never_saw() -> None:
    """The case is remembered by the book; the success is evidence enough."""
    assert [f.verdict for f in _detector().observe(_succeeded(0))] == [Verdict.ABSENT]


def test_a_client_that_is_gone_asks_no_more() -> None:
    """The container that failed was removed: its case is over; while it stands, silence keeps the case."""
    place = Place(cgroup_id=None, cgroup_path="/system.slice/litellm.service")
    case = open_case(FaultClass.NETWORK_UPSTREAM_UNREACHABLE, PEER, place=place)
    detector = _detector()
    for stands in (CgroupLook(exists=True), CgroupLook(exists=True, same=True)):
        assert detector.tick(tick(7200, case, world=World(cgroups={place: stands}))) == []
    (found,) = detector.tick(tick(7200, case, world=World(cgroups={place: CgroupLook(exists=False)})))
    assert (found.verdict, found.reasons[0].code) == (Verdict.ABSENT, ReasonCode.CGROUP_GONE)


def test_a_client_that_was_started_anew_is_another() -> None:
    """A router whose unit is restarted with another upstream in its settings never asks the old one again."""
    place = Place(cgroup_id=CgroupId(7), cgroup_path="/system.slice/litellm.service")
    case = open_case(FaultClass.NETWORK_UPSTREAM_UNREACHABLE, PEER, place=place)
    anew = World(cgroups={place: CgroupLook(exists=True, populated=True, same=False)})
    assert [found.verdict for found in _detector().tick(tick(60, case, world=anew))] == [Verdict.ABSENT]


def test_keeps_open_when_the_source_goes_blind() -> None:
    """A blind sensor makes every case unknown, and its last failures count no more."""
    detector = _detector()
    for attempt in _for_a_minute():
        detector.observe(attempt)
    case = open_case(FaultClass.NETWORK_UPSTREAM_UNREACHABLE, PEER)
    assert [f.verdict for f in detector.observe(blind(80, PEERS))] == [Verdict.UNKNOWN]
    assert [f.verdict for f in detector.tick(tick(81, case))] == [Verdict.UNKNOWN]
    assert detector.observe(seeing(82, PEERS)) == ()
    assert present(detector, _failed(83)) == []


def test_peers_and_clients_are_bounded() -> None:
    """A scan of everything by everybody leaves as many in mind as there is room for."""
    detector = _detector()
    for number in range(5000):
        detector.observe(_failed(number / 100, port=1 + number % 1000))
        detector.observe(_failed(number / 100, who=origin(container=f"{number:064x}", cgroup_id=number)))
    assert len(detector._peers) <= 256
    assert all(len(peer.clients) <= 16 for peer in detector._peers.values())
