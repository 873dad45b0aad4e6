"""What remote ends of connections had, on real eBPF, real sockets and network namespaces."""

from __future__ import annotations

import errno
import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest

from probes import registry
from probes.host.clock import now
from probes.host.peers import PeerSensor
from probes.host.traffic import accounts
from probes.kernel.peer_tables import PeerTables
from probes.observation import ConnectFailures, ConnectSuccesses, Instant, Observation, PeerTraffic
from tests.kernel.conftest import Cgroups, LoadRun, Watch
from tests.kernel.two_hosts import PYTHON, TwoHosts

pytestmark = [pytest.mark.root, pytest.mark.ebpf]


def _failures(found: list[Observation], port: int) -> list[ConnectFailures]:
    return [o for o in found if isinstance(o, ConnectFailures) and o.peer.port == port]


def _successes(found: list[Observation], port: int) -> list[ConnectSuccesses]:
    return [o for o in found if isinstance(o, ConnectSuccesses) and o.peer.port == port]


def _traffic(found: list[Observation], address: str) -> list[PeerTraffic]:
    return [o for o in found if isinstance(o, PeerTraffic) and o.address == address]


def _unused_port(family: int = socket.AF_INET, address: str = "127.0.0.1") -> int:
    with socket.socket(family) as sock:
        sock.bind((address, 0))
        return int(sock.getsockname()[1])


def _tries(address: str, port: int, times: int, *, patience_s: float | None = None) -> str:
    """Return code that connects so often, blocking unless it gives up after a time."""
    family = "AF_INET6" if ":" in address else "AF_INET"
    return (
        f"import socket\nfor _ in range({times}):\n    s = socket.socket(socket.{family})\n"
        f"    s.settimeout({patience_s})\n    s.connect_ex(('{address}', {port}))\n    s.close()\n"
    )


@pytest.mark.parametrize("patience_s", [None, 5.0], ids=["blocking", "non-blocking"])
@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_counts_a_prime_number_of_refusals(
    watch: Callable[[str], Watch],
    cgroups: Callable[..., Cgroups],
    family: int,
    address: str,
    patience_s: float | None,
) -> None:
    """503 refused attempts are 503: the first of them nobody's, the others of the cgroup that tried."""
    watching, group, port = watch("host.peers"), cgroups(), _unused_port(family, address)
    group.python(_tries(address, port, 503, patience_s=patience_s))
    found = _failures(watching.during(0.1), port)
    assert {(f.errno, f.peer.address, f.by_route) for f in found} == {(errno.ECONNREFUSED, address, False)}
    assert {f.origin.cgroup_path: f.count for f in found} == {None: 1, group.name: 502}


def test_a_server_that_comes_back_is_told_by_its_connections(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups]
) -> None:
    """Seven connections to a peer that had refused two are seven successes of the cgroup that made them."""
    watching, group, port = watch("host.peers"), cgroups(), _unused_port()
    group.python(_tries("127.0.0.1", port, 2))
    failed = _failures(watching.during(0.1), port)
    with socket.create_server(("127.0.0.1", port), backlog=16):
        group.python(_tries("127.0.0.1", port, 7))
        found = watching.during(0.1)
    assert sum(f.count for f in failed) == 2
    assert not any(f.reached_before for f in failed)
    assert [(s.count, s.origin.cgroup_path) for s in _successes(found, port)] == [(7, group.name)]
    assert _failures(found, port) == []
    group.python(_tries("127.0.0.1", port, 3))
    assert {f.reached_before for f in _failures(watching.during(0.1), port)} == {True}


def test_what_failed_once_is_forgotten_and_what_failed_often_is_not(watch: Callable[[str], Watch]) -> None:
    """Ten minutes later the table keeps the peer whose recovery somebody may wait for."""
    watching, (once, often) = watch("host.peers"), (_unused_port(), _unused_port())
    for port, times in ((once, 1), (often, 3)):
        for _ in range(times):
            with socket.socket() as sock:
                sock.connect_ex(("127.0.0.1", port))
    present = now()
    later = Instant(present.boot_ns + 700_000_000_000, present.unix_ns + 700_000_000_000)
    watching.sensor.read(later)
    for port in (once, often):
        with socket.create_server(("127.0.0.1", port)):
            socket.create_connection(("127.0.0.1", port)).close()
    found = list(watching.sensor.read(later))
    assert [s.count for s in _successes(found, often)] == [1]
    assert _successes(found, once) == []


def test_a_server_that_never_failed_is_known_to_have_been_reached(watch: Callable[[str], Watch]) -> None:
    """Of many connections some are noted, so that a later refusal is known to be news."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as server:
        port = server.getsockname()[1]
        watching = watch("host.peers")
        for _ in range(300):
            socket.create_connection(("127.0.0.1", port)).close()
        assert _successes(watching.during(0.1), port) == []
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
    assert [f.reached_before for f in _failures(watching.during(0.1), port)] == [True]


@pytest.mark.parametrize(
    ("route", "code"),
    [("unreachable", errno.EHOSTUNREACH), ("blackhole", errno.EINVAL), ("prohibit", errno.EACCES)],
)
def test_a_route_that_refuses_is_told_with_its_error(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups], hosts: TwoHosts, route: str, code: int
) -> None:
    """What the host's own routes refuse is told with who asked, from the first attempt on."""
    watching, group = watch("host.peers"), cgroups()
    hosts.ip("route", "add", route, "203.0.113.7/32")
    group.run(hosts.exec_here(*PYTHON, _tries("203.0.113.7", 8000, 5)))
    found = _failures(watching.during(0.1), 8000)
    assert [(f.peer.address, f.errno, f.count, f.by_route) for f in found] == [("203.0.113.7", code, 5, True)]
    assert found[0].origin.cgroup_path == group.name


def test_a_closed_port_of_another_host_is_refused(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups], hosts: TwoHosts
) -> None:
    """A reset that comes over a cable, in an interrupt, is told with who had tried."""
    watching, group = watch("host.peers"), cgroups()
    group.run(hosts.exec_here(*PYTHON, _tries(hosts.its_address, 8000, 11, patience_s=5.0)))
    found = [f for f in _failures(watching.during(0.1), 8000) if f.peer.address == hosts.its_address]
    assert {f.errno for f in found} == {errno.ECONNREFUSED}
    assert {f.origin.cgroup_path: f.count for f in found} == {None: 1, group.name: 10}


def test_a_client_that_loses_patience_with_a_silent_host_has_timed_out(
    watch: Callable[[str], Watch], cgroups: Callable[..., Cgroups], hosts: TwoHosts
) -> None:
    """Nothing answers and the program gives up after a while: a time-out, though no socket says so."""
    watching, group = watch("host.peers"), cgroups()
    hosts.lose(100)
    group.run(hosts.exec_here(*PYTHON, _tries(hosts.its_address, 8000, 2, patience_s=1.5)))
    found = [f for f in _failures(watching.during(0.1), 8000) if f.peer.address == hosts.its_address]
    assert {(f.errno, f.by_route) for f in found} == {(errno.ETIMEDOUT, False)}
    assert sum(f.count for f in found) == 2


def test_a_neighbour_that_is_not_there_is_unreachable(watch: Callable[[str], Watch], hosts: TwoHosts) -> None:
    """An address of the cable that nobody has: the kernel itself says so after a few seconds."""
    watching = watch("host.peers")
    subprocess.run(hosts.exec_here(*PYTHON, _tries(hosts.nobodys_address, 8000, 1)), check=True, timeout=20)
    found = [f for f in _failures(watching.during(0.1), 8000) if f.peer.address == hosts.nobodys_address]
    assert [(f.errno, f.count, f.by_route) for f in found] == [(errno.EHOSTUNREACH, 1, False)]


def test_a_lost_race_between_addresses_is_no_failure(watch: Callable[[str], Watch], hosts: TwoHosts) -> None:
    """An attempt that its program drops at once, as the slower side of a race, failed nobody."""
    watching = watch("host.peers")
    hosts.lose(100)
    subprocess.run(
        hosts.exec_here(*PYTHON, _tries(hosts.its_address, 8000, 5, patience_s=0.05)), check=True, timeout=20
    )
    assert _failures(watching.during(0.1), 8000) == []


def test_a_stopped_server_is_another_fault(watch: Callable[[str], Watch]) -> None:
    """Its kernel still takes connections: who connects succeeds, and nothing is told."""
    code = (
        "import os, signal, socket\n"
        "s = socket.create_server(('127.0.0.1', 0), backlog=64)\nprint(s.getsockname()[1], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGSTOP)\n"
    )
    server = subprocess.Popen([*PYTHON, code], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        watching = watch("host.peers")
        for _ in range(20):
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        found = watching.during(0.1)
        assert (_failures(found, port), _successes(found, port)) == ([], [])
    finally:
        server.kill()
        server.wait(10)
        assert server.stdout is not None
        server.stdout.close()


@pytest.fixture
def transfer(hosts: TwoHosts) -> Iterator[Callable[[], None]]:
    """A connection from here to there; each call sends two megabytes."""
    with hosts.transfer() as send:
        yield send


@pytest.fixture
def peers_here(loaded: LoadRun, hosts: TwoHosts) -> Iterator[Watch]:
    """The sensor, asking the sockets of the namespace here."""
    identifier = registry.surroundings(None).identifier
    sensor = PeerSensor(
        tables=PeerTables(handover=loaded.handover),
        identifier=identifier,
        traffic=lambda: hosts.ask_here(accounts),
    )
    sensor.open()
    watching = Watch(sensor)
    watching.drop()
    yield watching
    sensor.close()


def test_lost_packets_are_a_share_of_the_segments(
    peers_here: Watch, hosts: TwoHosts, transfer: Callable[[], None]
) -> None:
    """Of twenty packets one is dropped: the kernel's events and the sockets' own account both say so."""
    transfer()
    hosts.lose(5)
    transfer()
    first = _traffic(list(peers_here.sensor.read(now())), hosts.its_address)
    transfer()
    (second,) = _traffic(list(peers_here.sensor.read(now())), hosts.its_address)
    assert [t.counted > 3 for t in first] == [True]
    assert second.segments is not None
    assert second.retransmitted is not None
    assert second.segments > 20
    assert second.retransmitted / second.segments > 0.02
    assert second.counted > 0


def test_a_reset_from_another_host_is_counted(watch: Callable[[str], Watch], hosts: TwoHosts) -> None:
    """Three connections that the other side throws away are three resets by its address."""
    code = (
        "import socket, struct\n"
        "s = socket.create_server(('', 5002))\nprint('ready', flush=True)\n"
        "for _ in range(3):\n    c, _ = s.accept()\n"
        "    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); c.close()\n"
    )
    watching = watch("host.peers")
    client = (
        "import socket\nfor _ in range(3):\n"
        f"    s = socket.create_connection(('{hosts.its_address}', 5002))\n"
        "    try: s.recv(1)\n    except OSError: pass\n"
    )
    server = subprocess.Popen(hosts.exec_there(*PYTHON, code), stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    subprocess.run(hosts.exec_here(*PYTHON, client), check=True, timeout=20)
    server.wait(10)
    server.stdout.close()
    assert sum(t.resets for t in _traffic(watching.during(0.1), hosts.its_address)) == 3
