"""F29: a node that its cluster took for dead, and what only looks like it."""

from __future__ import annotations

import errno
import signal
from typing import Any

import pytest

from agent.detector import CgroupLook, World
from agent.detectors.distributed_worker import Config, DistributedWorker
from agent.finding import Verdict
from agent.testing import (
    CONTAINER,
    HOST,
    SURROUNDINGS,
    at,
    blind,
    death,
    log_line,
    open_case,
    origin,
    present,
    seeing,
    sessions,
    tick,
)
from escalation.model import FaultClass, PeerEvidence, ReasonCode, Severity, Subject, SubjectKind
from probes.observation import (
    Condition,
    ConnectFailures,
    Observation,
    Origin,
    Peer,
    ProcessCondition,
    SensorName,
    ServerGauge,
    ServerKind,
    ServerMetrics,
)
from probes.observed.server_metrics import GaugeRead

FAULT = FaultClass.DISTRIBUTED_WORKER_LOST
WORKER = float(0x0A000002)
PEER = Subject(SubjectKind.PEER, "10.0.0.2 0")
THIS = Subject(SubjectKind.HOST, HOST)
GCS = origin(container=None, unit="ray.service", name="gcs_server", server=ServerKind.RAY)
RAYLET = origin(container=None, unit="ray.service", name="raylet", server=ServerKind.RAY)


@pytest.fixture
def detector() -> DistributedWorker:
    """A detector whose sensors see."""
    made = DistributedWorker.build(Config(), SURROUNDINGS)
    made.observe(seeing(0, "host.logs"))
    return made


def _failures(seconds: float, address: str = "10.0.0.2", code: int = errno.ECONNREFUSED) -> ConnectFailures:
    return ConnectFailures(
        sensor=SensorName("host.peers"),
        at=at(seconds),
        peer=Peer(address, 40000),
        errno=code,
        count=5,
        origin=RAYLET,
        reached_before=True,
        by_route=False,
        window_s=10.0,
    )


def _condition(seconds: float, condition: Condition) -> ProcessCondition:
    return ProcessCondition(
        sensor=SensorName("host.processes"),
        at=at(seconds),
        origin=RAYLET,
        condition=condition,
        lasted_s=30.0,
        used_cpu_s=0.0,
    )


def _nodes(seconds: float, dead: float) -> ServerMetrics:
    return ServerMetrics(
        sensor=SensorName("host.server_metrics"),
        at=at(seconds),
        server=ServerKind.RAY,
        port=8080,
        gauges=(GaugeRead(ServerGauge.NODES_DEAD, dead),),
    )


def test_the_heads_word_alone_is_a_note(detector: DistributedWorker) -> None:
    """The node is named by its address; the second layer is unknown."""
    (found,) = present(detector, log_line(1, "ray.node_dead", address=WORKER))
    assert (found.fault_class, found.subject, found.severity) == (FAULT, PEER, Severity.NOTE)
    assert found.reasons[-1].code is ReasonCode.SECOND_LAYER_UNKNOWN


@pytest.mark.parametrize(
    ("sign", "code"),
    [
        (_failures(3), ReasonCode.CONNECTS_REFUSED),
        (_failures(3, code=errno.ETIMEDOUT), ReasonCode.CONNECTS_TIME_OUT),
        (_failures(3, code=errno.EHOSTUNREACH), ReasonCode.CONNECTS_UNREACHABLE),
        (_condition(3, Condition.STOPPED), ReasonCode.PROCESS_STOPPED),
        (_condition(3, Condition.STUCK), ReasonCode.STUCK_IN_KERNEL),
        (death(3, signal.SIGSEGV, where=RAYLET), ReasonCode.WORKER_PROCESS_ENDED),
    ],
)
@pytest.mark.parametrize("sign_first", [True, False])
def test_two_layers_are_a_case(
    detector: DistributedWorker, sign: Observation, code: ReasonCode, sign_first: bool
) -> None:
    """The cluster's word and one sign of the host, whichever came first."""
    told = log_line(4 if sign_first else 2, "ray.node_dead", address=WORKER)
    found = present(detector, *((sign, told) if sign_first else (told, sign)))
    assert (found[-1].subject, found[-1].severity) == (PEER, Severity.CRITICAL)
    assert code in {reason.code for reason in found[-1].reasons}


def test_failed_connections_are_evidence(detector: DistributedWorker) -> None:
    """The case says how many attempts failed, and how."""
    *_, found = present(detector, _failures(1), log_line(2, "ray.node_dead", address=WORKER))
    (peer,) = [each for each in found.evidence if isinstance(each, PeerEvidence)]
    assert (peer.address, peer.failed, peer.errno) == ("10.0.0.2", 5, errno.ECONNREFUSED)


def test_fewer_sessions_of_the_head_are_a_sign(detector: DistributedWorker) -> None:
    """A node holds several connections to the head; they are gone together, or a peer is."""
    *_, found = present(
        detector,
        sessions(1, 11, port=6379, where=RAYLET),
        log_line(5, "ray.node_dead", address=WORKER),
        sessions(11, 7, port=6379, where=RAYLET),
    )
    assert (found.severity, found.reasons[-1].count) == (Severity.CRITICAL, 4)


def test_a_client_of_the_head_that_leaves_is_no_sign(detector: DistributedWorker) -> None:
    """One connection comes and goes with every command; the database's are nobody's business here."""
    found = present(
        detector,
        sessions(1, 11, port=6379, where=RAYLET),
        sessions(1, 100),
        log_line(5, "ray.node_dead", address=WORKER),
        sessions(11, 10, port=6379, where=RAYLET),
        sessions(11, 2),
    )
    assert [each.severity for each in found] == [Severity.NOTE]


def test_the_clusters_own_count_is_a_sign(detector: DistributedWorker) -> None:
    """One dead node more than before."""
    *_, found = present(
        detector, _nodes(1, 0), log_line(5, "ray.node_dead", address=WORKER), _nodes(6, 0), _nodes(16, 1)
    )
    assert (found.severity, found.reasons[-1].code) == (Severity.CRITICAL, ReasonCode.METRICS_AGREE)


def test_a_node_that_was_taken_for_dead_says_so_itself(detector: DistributedWorker) -> None:
    """On the worker's own host the case is the host's, and what would be restarted is its unit."""
    *_, found = present(
        detector, log_line(1, "ray.marked_dead_itself", times=5), death(2, signal.SIGABRT, where=RAYLET)
    )
    assert (found.subject, found.severity) == (THIS, Severity.CRITICAL)
    assert found.target == Subject(SubjectKind.UNIT, "ray.service")


def test_a_clean_stop_stays_quiet(detector: DistributedWorker) -> None:
    """`ray stop` ends a node with SIGTERM: the head calls that expected, and connections end."""
    found = present(
        detector,
        sessions(1, 11, port=6379),
        log_line(2, "ray.node_ended", reason="EXPECTED_TERMINATION"),
        sessions(11, 7, port=6379),
        _failures(12),
    )
    assert found == []


@pytest.mark.parametrize(
    "seen",
    [
        log_line(1, "ray.health_check_failed", remaining=2, status=4),
        log_line(1, "ray.gcs_unreachable", address=WORKER),
        _failures(1),
        _condition(1, Condition.STOPPED),
        death(1, signal.SIGSEGV, where=RAYLET),
        death(1, signal.SIGSEGV),
        _nodes(1, 4),
    ],
)
def test_a_sign_without_the_clusters_word_stays_quiet(detector: DistributedWorker, seen: Observation) -> None:
    """Health checks that may still pass, a head that is not there yet, trouble of other classes."""
    assert present(detector, seen, seen, tick(100)) == []


def test_failures_to_another_address_do_not_agree(detector: DistributedWorker) -> None:
    """Somebody else cannot be reached."""
    found = present(detector, _failures(1, "10.0.0.9"), log_line(2, "ray.node_dead", address=WORKER))
    assert [each.severity for each in found] == [Severity.NOTE]


def test_other_programs_deaths_do_not_agree(detector: DistributedWorker) -> None:
    """An engine that dies is another class; a stopped database too."""
    found = present(
        detector,
        death(1, signal.SIGSEGV),
        death(1, signal.SIGSEGV, where=origin(name="python3", server=ServerKind.OTHER)),
        log_line(2, "ray.node_dead", address=WORKER),
    )
    assert [each.severity for each in found] == [Severity.NOTE]


def test_old_signs_do_not_agree(detector: DistributedWorker) -> None:
    """What happened long before has its own reason."""
    found = present(detector, _failures(1), log_line(500, "ray.node_dead", address=WORKER))
    assert [each.severity for each in found] == [Severity.NOTE]


def test_clears_when_the_node_is_back(detector: DistributedWorker) -> None:
    """A node that registers at that address later; another address is another node."""
    present(detector, log_line(2, "ray.node_dead", address=WORKER))
    case = open_case(FAULT, PEER, last_seen=at(2))
    detector.observe(log_line(3, "ray.node_registered", address=WORKER + 1, where=GCS))
    assert detector.tick(tick(4, case)) == []
    detector.observe(log_line(5, "ray.node_registered", address=WORKER, where=GCS))
    (over,) = detector.tick(tick(6, case))
    assert (over.verdict, over.subject) == (Verdict.ABSENT, PEER)
    assert over.reasons[0].code is ReasonCode.WORKER_BACK


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(
    ("told", "back", "clears"),
    [
        (RAYLET, {"where": origin(container=None, unit="x.service", name="python3")}, False),
        (RAYLET, {"where": origin(container=None, unit="ray.service", name="python3")}, True),
        (RAYLET, {"where": origin(container=None, unit="ray-head.service", name="gcs_server")}, True),
        (RAYLET, {"where": origin(container=None, unit="x.service", name="raylet")}, False),
        (RAYLET, {"where": Origin()}, False),
        (RAYLET, {"sensor": "host.log_files"}, True),
        (origin(name=None), {"where": Origin(container_id=CONTAINER)}, True),
        (origin(name=None), {"where": Origin(container_id="f" * 64)}, False),
        (Origin(), {"where": Origin()}, False),
    ],
    ids=[
        "another unit's python",
        "python of the unit that told",
        "the head's own program",
        "a program that writes no such line",
        "nobody knows who",
        "a followed file",
        "the container that told",
        "another container",
        "nobody told, nobody writes",
    ],
)
def test_only_the_clusters_own_word_brings_a_node_back(
    detector: DistributedWorker, told: Origin, back: dict[str, Any], clears: bool, restarted: bool
) -> None:
    """Any program may write a line like Ray's into the journal; so it is after a restart of the agent."""
    (found,) = present(detector, log_line(2, "ray.node_dead", address=WORKER, where=told))
    case = open_case(FAULT, PEER, last_seen=at(2), target=found.target)
    if restarted:
        detector = DistributedWorker.build(Config(), SURROUNDINGS)
        detector.observe(seeing(3, "host.logs"))
    assert detector.tick(tick(4, case)) == []
    detector.observe(log_line(5, "ray.node_registered", address=WORKER, **back))
    assert [over.verdict for over in detector.tick(tick(6, case))] == [Verdict.ABSENT] * clears


def test_a_head_that_is_gone_for_a_day_misses_nobody(detector: DistributedWorker) -> None:
    """The cluster was made anew without that node, in another container: nobody will ever see it join."""
    (found,) = present(detector, log_line(0, "ray.node_dead", address=WORKER, where=RAYLET))
    assert found.place is not None
    case = open_case(FAULT, PEER, last_seen=at(0), place=found.place)
    gone = World(cgroups={found.place: CgroupLook(exists=False)})
    stands = World(cgroups={found.place: CgroupLook(exists=True, same=False)})
    assert detector.tick(tick(86399, case, world=gone)) == []
    assert detector.tick(tick(86400, case, world=stands)) == []
    (over,) = detector.tick(tick(86400, case, world=gone))
    assert (over.verdict, over.reasons[0].code) == (Verdict.ABSENT, ReasonCode.CGROUP_GONE)


def test_a_loss_whose_end_may_have_been_missed_ends_a_day_later(detector: DistributedWorker) -> None:
    """Read without a break, the logs would have told that it is back; lost lines or a restart may hide it."""
    present(detector, log_line(2, "ray.node_dead", address=WORKER))
    case = open_case(FAULT, PEER, last_seen=at(2))
    assert detector.tick(tick(1e6, case)) == []
    successor = DistributedWorker.build(Config(), SURROUNDINGS)
    for since, judge, sight in (
        (50, detector, seeing(50, "host.logs", lost=1)),
        (90, successor, seeing(90, "host.log_files")),
    ):
        judge.observe(sight)
        assert judge.tick(tick(since + 86399, case)) == []
        (over,) = judge.tick(tick(since + 86400, case))
        assert (over.verdict, over.reasons[0].code) == (Verdict.ABSENT, ReasonCode.NOT_SEEN_SINCE)


def test_a_node_that_was_there_before_is_not_back(detector: DistributedWorker) -> None:
    """It registered, then it was lost."""
    detector.observe(log_line(1, "ray.node_registered", address=WORKER, where=GCS))
    present(detector, log_line(2, "ray.node_dead", address=WORKER))
    assert detector.tick(tick(3, open_case(FAULT, PEER, last_seen=at(2)))) == []


def test_this_host_is_back_with_its_raylet(detector: DistributedWorker) -> None:
    """The node's own part starts again."""
    present(detector, log_line(1, "ray.marked_dead_itself", times=5))
    detector.observe(log_line(9, "ray.raylet_started", where=RAYLET))
    (over,) = detector.tick(tick(10, open_case(FAULT, THIS, last_seen=at(1))))
    assert over.verdict is Verdict.ABSENT


def test_keeps_open_when_source_goes_blind(detector: DistributedWorker) -> None:
    """Neither silence nor blindness says that a node is back."""
    present(detector, log_line(2, "ray.node_dead", address=WORKER))
    (unknown,) = detector.observe(blind(3, "host.logs"))
    assert unknown.verdict is Verdict.UNKNOWN
    assert detector.tick(tick(1e6, open_case(FAULT, PEER, last_seen=at(2)))) == []


def test_what_is_remembered_is_bounded(detector: DistributedWorker) -> None:
    """Addresses come out of a log."""
    for number in range(1000):
        detector.observe(log_line(number, "ray.node_dead", address=float(number)))
        detector.observe(log_line(number, "ray.node_registered", address=float(number + 5000), where=GCS))
        detector.observe(_failures(number, f"10.1.{number // 256}.{number % 256}"))
    assert max(len(detector._lost), len(detector._back), len(detector._signs)) <= 64


@pytest.mark.parametrize("number", [0.0, float(2**32 - 1)])
def test_any_address_is_a_subject(detector: DistributedWorker, number: float) -> None:
    """The first and the last of all addresses."""
    (found,) = present(detector, log_line(1, "ray.node_dead", address=number))
    assert found.subject is not None
    assert found.subject.kind is SubjectKind.PEER


@pytest.mark.parametrize("number", [-1.0, float(2**32), float("nan"), float("inf")])
def test_a_number_that_is_no_address_is_the_hosts(detector: DistributedWorker, number: float) -> None:
    """A recording may hold what no log does."""
    (found,) = present(detector, log_line(1, "ray.node_dead", address=number))
    assert found.subject == THIS
