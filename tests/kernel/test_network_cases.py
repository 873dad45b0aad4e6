"""From a fault of a real network to its case and back: sensor, detector and book, on real eBPF."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from agent.cases import CaseBook
from agent.detectors.network_rdma import Config as RdmaConfig, NetworkRdma
from agent.detectors.network_retransmission import Config as RetransmissionConfig, NetworkRetransmission
from agent.detectors.network_upstream import Config as UpstreamConfig, NetworkUpstream
from agent.finding import Finding
from agent.testing import HOST, KERNEL_BOOT, SURROUNDINGS, origin
from escalation.model import CasePhase, CaseReport, FaultClass, ReasonCode, Severity, Subject, SubjectKind
from probes import registry
from probes.host.clock import now
from probes.host.links import LinksSensor
from probes.host.peers import PeerSensor
from probes.host.traffic import accounts
from probes.kernel.peer_tables import PeerTables
from probes.observation import Instant, LogLine, SensorName
from probes.sensor import Sensor
from tests.kernel.conftest import Cgroups, LoadRun
from tests.kernel.two_hosts import PYTHON, TwoHosts

pytestmark = [pytest.mark.root, pytest.mark.ebpf]

# A process that calls itself as LiteLLM's does, and connects so often.
ROUTER = (
    "import ctypes, socket, sys\n"
    "ctypes.CDLL(None).prctl(15, b'litellm', 0, 0, 0)\n"
    "address, port, times = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])\n"
    "for _ in range(times):\n"
    "    s = socket.socket(); s.settimeout(5)\n    s.connect_ex((address, port)); s.close()\n"
)


@dataclass
class Judged:
    """A detector and its book, fed by a sensor."""

    sensor: Sensor
    detector: Any
    reports: list[CaseReport] = field(default_factory=list)
    ahead_s: float = 0.0

    def __post_init__(self) -> None:
        self.book = CaseBook(agent_id=HOST, kernel_boot_id=KERNEL_BOOT, hysteresis=self.detector.hysteresis)
        self.sensor.open()
        self.read()

    def now(self) -> Instant:
        """Return the moment, ahead of the real one by what a test let pass."""
        moment, ahead_ns = now(), int(self.ahead_s * 1e9)
        return Instant(moment.boot_ns + ahead_ns, moment.unix_ns + ahead_ns)

    def read(self, *, later_s: float = 0.0) -> Sequence[CaseReport]:
        """Let time pass, read the sensor once, judge, and return the new reports."""
        self.ahead_s += later_s
        return self.judge([f for o in self.sensor.read(self.now()) for f in self.detector.observe(o)])

    def judge(self, findings: Sequence[Finding]) -> Sequence[CaseReport]:
        """Give findings to the book."""
        reports = self.book.judge(findings, self.now()).bodies
        self.reports += reports
        return reports


@pytest.fixture
def peers(loaded: LoadRun, hosts: TwoHosts) -> Iterator[PeerSensor]:
    """The sensor of peers, as an agent on the host here would have it."""
    sensor = PeerSensor(
        tables=PeerTables(handover=loaded.handover),
        identifier=registry.surroundings(None).identifier,
        traffic=lambda: hosts.ask_here(accounts),
    )
    yield sensor
    sensor.close()


def _asks(group: Cgroups, hosts: TwoHosts, address: str, times: int) -> None:
    done = group.run(hosts.exec_here(*PYTHON, ROUTER, address, "8000", str(times)))
    assert done.returncode == 0, done.stderr


def _upstream(sensor: Sensor) -> Judged:
    config = UpstreamConfig(patience_s=0.0, clear_hold_s=0.0)
    return Judged(sensor, NetworkUpstream.build(config, SURROUNDINGS))


def test_a_backend_that_is_away_and_comes_back(
    peers: PeerSensor, hosts: TwoHosts, cgroups: Callable[..., Cgroups]
) -> None:
    """A router is refused by another host, then its connections succeed: one case, opened and cleared."""
    judged, group = _upstream(peers), cgroups()
    for _ in range(2):
        _asks(group, hosts, hosts.its_address, 5)
        judged.read()
    (opened,) = [r for r in judged.reports if r.phase is CasePhase.OPENED]
    assert opened.fault_class is FaultClass.NETWORK_UPSTREAM_UNREACHABLE
    assert opened.subject == Subject(SubjectKind.PEER, f"{hosts.its_address} 8000")
    assert opened.severity is Severity.HIGH
    assert [r.code for r in opened.reasons] == [ReasonCode.CONNECTS_REFUSED]
    with hosts.listening_there(8000):
        _asks(group, hosts, hosts.its_address, 3)
        (cleared,) = judged.read()
    assert cleared.phase is CasePhase.CLEARED
    assert cleared.subject == opened.subject


@pytest.mark.parametrize("route", ["unreachable", "blackhole"])
def test_a_backend_that_no_route_leads_to(
    peers: PeerSensor, hosts: TwoHosts, cgroups: Callable[..., Cgroups], route: str
) -> None:
    """A route that refuses opens the case of the peer behind it; without the route it clears."""
    judged, group = _upstream(peers), cgroups()
    hosts.ip("route", "add", route, f"{hosts.its_address}/32")
    _asks(group, hosts, hosts.its_address, 5)
    (opened,) = judged.read()
    assert opened.subject == Subject(SubjectKind.PEER, f"{hosts.its_address} 8000")
    assert [r.code for r in opened.reasons] == [ReasonCode.CONNECTS_UNREACHABLE]


def test_a_restart_within_the_patience_is_no_case(
    peers: PeerSensor, hosts: TwoHosts, cgroups: Callable[..., Cgroups]
) -> None:
    """A backend that refuses for half a minute and then listens again is left alone."""
    judged, group = Judged(peers, NetworkUpstream.build(UpstreamConfig(), SURROUNDINGS)), cgroups()
    for _ in range(3):
        _asks(group, hosts, hosts.its_address, 5)
        judged.read(later_s=10)
    with hosts.listening_there(8000):
        _asks(group, hosts, hosts.its_address, 3)
        judged.read(later_s=10)
    for _ in range(3):
        _asks(group, hosts, hosts.its_address, 5)
        judged.read(later_s=10)
    assert judged.reports == []


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(
            "for port in range(9000, 9211):\n"
            "    s = socket.socket(); s.connect_ex((address, port)); s.close()\n",
            id="a scan of 211 ports",
        ),
        pytest.param(
            "ctypes.CDLL(None).prctl(15, b'curl', 0, 0, 0)\n"
            "for _ in range(53):\n    s = socket.socket(); s.connect_ex((address, 8000)); s.close()\n",
            id="a probe by curl",
        ),
        pytest.param(
            "for _ in range(53):\n    s = socket.socket(); s.connect_ex((address, 8000)); s.close()\n",
            id="a script whose peer was never there",
        ),
    ],
)
def test_who_asks_decides(
    peers: PeerSensor, hosts: TwoHosts, cgroups: Callable[..., Cgroups], code: str
) -> None:
    """Refusals of those who need no upstream open nothing, without any patience."""
    judged, group = _upstream(peers), cgroups()
    asks = f"import ctypes, socket\naddress = '{hosts.its_address}'\n{code}"
    for _ in range(2):
        assert group.run(hosts.exec_here(*PYTHON, asks)).returncode == 0
        judged.read(later_s=10)
    assert judged.reports == []


def test_a_cable_that_loses_and_is_mended(peers: PeerSensor, hosts: TwoHosts) -> None:
    """Of twenty packets one is lost: one case of that address, which clears when the cable is whole."""
    config = RetransmissionConfig(clear_hold_s=0.0)
    judged = Judged(peers, NetworkRetransmission.build(config, SURROUNDINGS))
    with hosts.transfer() as send:
        send()
        hosts.lose(5)
        for _ in range(4):
            send()
            judged.read(later_s=10)
        hosts.lose(0)
        for _ in range(30):
            send()
            judged.read(later_s=10)
            if any(report.phase is CasePhase.CLEARED for report in judged.reports):
                break
    (opened,) = [r for r in judged.reports if r.phase is CasePhase.OPENED]
    assert opened.subject == Subject(SubjectKind.PEER, f"{hosts.its_address} 0")
    assert (opened.severity, opened.reasons[0].code) == (
        Severity.MEDIUM,
        ReasonCode.SEGMENTS_RETRANSMITTED,
    )
    assert [r.reasons[0].code for r in judged.reports if r.phase is CasePhase.CLEARED] == [
        ReasonCode.PATH_CLEAN_AGAIN
    ]


def test_a_clean_transfer_is_quiet(peers: PeerSensor, hosts: TwoHosts) -> None:
    """Sixteen megabytes over a whole cable are no case, whatever the machine's own load repeats."""
    judged = Judged(peers, NetworkRetransmission.build(RetransmissionConfig(), SURROUNDINGS))
    with hosts.transfer() as send:
        for _ in range(8):
            send()
            judged.read(later_s=10)
        sent = hosts.ask_here(accounts)
    assert judged.reports == []
    assert sum(account.segments for account in sent.values()) > 100


def test_a_carrier_that_is_lost_while_ranks_meet_over_it(hosts: TwoHosts) -> None:
    """The other end goes down and the ranks' library says that a connection closed: the link is named."""
    with hosts.sysfs_here() as sysfs:
        sensor = LinksSensor(sys_=sysfs, counts=lambda folder: folder.endswith("/cable"))
        judged = Judged(sensor, NetworkRdma.build(RdmaConfig(), SURROUNDINGS))
        subprocess.run(["ip", "-n", hosts.there, "link", "set", "cable", "down"], check=True, timeout=20)
        assert judged.read() == ()
        line = LogLine(
            sensor=SensorName("host.logs"), at=now(), origin=origin(), pattern="nccl.connection_closed"
        )
        (opened,) = judged.judge(judged.detector.observe(line))
    assert opened.subject == Subject(SubjectKind.INTERFACE, "cable")
    assert [r.code for r in opened.reasons] == [ReasonCode.CARRIER_LOST, ReasonCode.COLLECTIVE_FAILED]
