"""The capture of model servers' traffic on real eBPF: every byte where it belongs, and no packet dropped."""

from __future__ import annotations

import itertools
import json
import os
import re
import select
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from probes.host.clock import now
from probes.http.segment import FIN, RST, SYN, Segment
from probes.kernel import handover
from probes.kernel.http_capture import PROGRAM, HttpCapture
from probes.observation import BlindReason
from probes.sensor import SensorBlind
from tests.kernel import traffic
from tests.kernel.conftest import AS_IN_ITS_UNIT, MAIN, Cgroups
from tests.kernel.traffic import Reading, connections, noise, stream

pytestmark = [pytest.mark.root, pytest.mark.ebpf]

# The programs see every network namespace: another run of these tests on this machine must use other ports.
_FIRST = 10_000 + os.getpid() % 5_000 * 3
_PORTS = (_FIRST, _FIRST + 2, 65535)
_UNLISTED = _FIRST + 1


@pytest.fixture(scope="session")
def handed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[handover.Handover]:
    """The programs, attached with the capabilities of the loader's unit."""
    taken = traffic.load_capture(tmp_path_factory.mktemp("capture"), _PORTS, prefix=AS_IN_ITS_UNIT)
    yield taken
    taken.close()


@pytest.fixture
def capture(handed: handover.Handover) -> Iterator[HttpCapture]:
    """An open capture, what others did before forgotten."""
    opened = HttpCapture(handover=handed)
    opened.open()
    for _ in opened.segments():
        pass
    opened.losses(now())
    yield opened
    opened.close()


@pytest.fixture
def reading(capture: HttpCapture, cgroups: Callable[..., Cgroups]) -> Reading:
    """What a cgroup of the test's own sends and gets."""
    return Reading(lambda: list(capture.segments()), cgroups())


def ended(found: list[Segment]) -> bool:
    """Whether both sides said their last."""
    return {s.to_server for s in found if s.flags & FIN} == {True, False}


_EXCHANGES = """
with listen(given["address"], given["port"]) as listener:
    client = socket.create_connection((given["address"], given["port"]))
    server, _ = listener.accept()
    for number, (asked, answered) in enumerate(given["sizes"]):
        exchange(client, server, 10 * number, asked, answered)
    server.close()
    client.close()
"""


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("port", _PORTS, ids=["free", "free too", "highest"])
def test_every_byte_of_both_directions_is_at_its_place(reading: Reading, address: str, port: int) -> None:
    """Exchanges of all sizes over one connection, on loopback inside a namespace: exact, once, in order."""
    sizes = [(1, 1), (7, 255), (256, 256), (257, 513), (997, 1025), (1400, 4096), (4096, 4097), (2, 60_000)]
    traffic.run(reading.group, _EXCHANGES, address=address, port=port, sizes=sizes)
    found = reading.until(ended)
    assert len(connections(found)) == 1
    assert {(s.port, s.cgroup_id) for s in found} == {(port, reading.group.id)}
    asked, answered = stream(found, to_server=True), stream(found, to_server=False)
    assert asked.data == b"".join(noise(10 * i, size) for i, (size, _) in enumerate(sizes))
    assert answered.data == b"".join(noise(10 * i + 1, size) for i, (_, size) in enumerate(sizes))
    assert (asked.skipped, asked.untold, answered.skipped, answered.untold) == (0, 0, 0, 0)
    assert [s.at_ns for s in found] == sorted(s.at_ns for s in found)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_of_long_segments_the_ends_are_kept_and_the_hole_is_told(reading: Reading, address: str) -> None:
    """Writes of hundreds of kilobytes: captured or told as skipped, to the byte, in pieces of 16 KiB."""
    traffic.run(reading.group, _EXCHANGES, address=address, port=_PORTS[0], sizes=[(400_000, 600_000)])
    found = reading.until(ended)
    asked, answered = stream(found, to_server=True), stream(found, to_server=False)
    assert asked.agrees_with(noise(0, 400_000))
    assert answered.agrees_with(noise(1, 600_000))
    assert (asked.untold, answered.untold) == (0, 0)
    assert asked.skipped > 0
    assert asked.captured + asked.skipped == 400_000
    assert answered.captured + answered.skipped == 600_000
    assert max(len(s.data) for s in found if s.to_server) == 4096
    assert max(len(s.data) for s in found if not s.to_server) == 16_384
    # Where bytes were left out the segment's last 1 KiB follows at once.
    holes = [(s, after) for s, after in itertools.pairwise(found) if s.skipped]
    assert holes
    for before, after in holes:
        assert after.seq == (before.seq + len(before.data) + before.skipped) % (1 << 32)
        assert len(after.data) == 1024


def test_ends_of_a_connection_are_told_once_and_in_their_direction(reading: Reading) -> None:
    """SYN begins both directions, FIN ends both, and neither stands on a piece in the middle."""
    traffic.run(reading.group, _EXCHANGES, address="127.0.0.1", port=_PORTS[0], sizes=[(10_000, 100_000)])
    found = reading.until(ended)
    for to_server in (True, False):
        flags = [s.flags for s in found if s.to_server is to_server]
        assert flags[0] == SYN
        assert flags[-1] == FIN
        assert set(flags[1:-1]) <= {0}


_RESET = """
with listen("127.0.0.1", given["port"]) as listener:
    client = socket.create_connection(("127.0.0.1", given["port"]))
    server, _ = listener.accept()
    exchange(client, server, 0, 100, 100)
    ending = server if given["by_server"] else client
    ending.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    ending.close()
"""


@pytest.mark.parametrize("by_server", [True, False])
def test_a_reset_is_told_with_who_reset(reading: Reading, by_server: bool) -> None:
    """RST goes in the direction of the one who is at its receiving end."""
    traffic.run(reading.group, _RESET, port=_PORTS[0], by_server=by_server)
    found = reading.until(lambda s: any(piece.flags & RST for piece in s))
    assert [s.to_server for s in found if s.flags & RST] == [not by_server]


def test_a_connection_from_before_is_seen_in_the_middle(
    tmp_path: Path, cgroups: Callable[..., Cgroups]
) -> None:
    """What was open when the programs were attached has no SYN, and from then on every byte."""
    code = (
        'listener = listen("127.0.0.1", given["port"])\n'
        'client = socket.create_connection(("127.0.0.1", given["port"]))\n'
        "server, _ = listener.accept()\n"
        'exchange(client, server, 0, 100, 100)\nprint("ready", flush=True)\nsys.stdin.readline()\n'
        "exchange(client, server, 10, 5000, 5000)\n"
    )
    group = cgroups()
    with traffic.start(group, code, port=_PORTS[0]) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        taken = traffic.load_capture(tmp_path, _PORTS, prefix=AS_IN_ITS_UNIT)
        capture = HttpCapture(handover=taken)
        capture.open()
        print(file=child.stdin, flush=True)
        child.stdin.close()
        assert child.wait(20) == 0
        found = Reading(lambda: list(capture.segments()), group).until(
            lambda seen: any(s.flags & (FIN | RST) for s in seen)
        )
        capture.close()
        taken.close()
    assert not [s for s in found if s.flags & SYN]
    for to_server, seed in ((True, 10), (False, 11)):
        mine = [s for s in found if s.to_server is to_server]
        assert stream(mine, to_server=to_server, first=mine[0].seq).agrees_with(noise(seed, 5000))


def test_the_manifest_says_which_ports_are_watched(handed: handover.Handover) -> None:
    """As they were loaded, so that a later change of the configuration shows."""
    entry = handed.entry(PROGRAM.sensor)
    assert entry is not None
    assert entry.ports == _PORTS
    assert handover.Manifest.from_bytes(handed.manifest.to_bytes()) == handed.manifest


def test_other_ports_are_not_seen(reading: Reading) -> None:
    """Neither a server on another port nor the client's own side of a connection."""
    code = 'run = given.pop("run")\n' + "\n".join(
        f'given["port"] = {port}\n{_EXCHANGES}' for port in (_UNLISTED, _PORTS[0] - 1, _PORTS[1] + 1, 1)
    )
    traffic.run(reading.group, code, run=1, address="127.0.0.1", sizes=[(10, 10)])
    traffic.run(reading.group, _EXCHANGES, address="127.0.0.1", port=_PORTS[1], sizes=[(3, 5)])
    found = reading.until(ended)
    assert {s.port for s in found} == {_PORTS[1]}
    assert len(connections(found)) == 1
    assert sum(len(s.data) for s in found) == 8


def test_no_packet_is_ever_dropped(reading: Reading, capture: HttpCapture) -> None:
    """Traffic flows while nobody reads and the ring has long been full, and so does what is no TCP."""
    code = _EXCHANGES + (
        "a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); a.bind(('127.0.0.1', given['port']))\n"
        "b = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); b.bind(('127.0.0.1', 0)); got = 0\n"
        "for _ in range(997):\n"
        "    for here, there in ((a, b), (b, a)):\n"
        "        here.sendto(b'x' * 999, there.getsockname())\n"
        "        got += len(there.recv(2000, socket.MSG_DONTWAIT)) == 999\n"
        "print(got)\n"
    )
    given = {"address": "127.0.0.1", "port": _PORTS[0], "sizes": [(70_000, 2_000_000)] * 5}
    assert traffic.run(reading.group, code, **given) == "1994\n"
    assert sum(gap.lost for gap in capture.losses(now())) > 0


def test_the_programs_can_only_let_pass() -> None:
    """Of the functions that the kernel calls, and what they return, no path ends in anything but 1."""
    text = PROGRAM.source
    for attachment in PROGRAM.attachments:
        body = re.search(
            rf"int {attachment.function}\(struct __sk_buff \*skb\)\n{{\n(.*?)\n}}", text, re.DOTALL
        )
        assert body is not None
        assert re.fullmatch(r"    return http_capture_packet\(skb, [01]\);", body[1])
    packet = text.partition("static __always_inline int http_capture_packet(")[2].partition("\n}\n")[0]
    assert set(re.findall(r"return\b([^;]*);", packet)) == {" 1"}


_EARLY = """
open("/proc/sys/net/ipv4/tcp_fastopen", "w").write(str(0x607))  # both sides, and data in the first SYN
with listen("127.0.0.1", given["port"]) as listener:
    client = socket.socket()
    client.sendto(b"early data", socket.MSG_FASTOPEN, listener.getsockname())
    server, _ = listener.accept()
    assert read(server, 10) == b"early data"
    server.close(); client.close()
"""


def test_data_in_a_syn_comes_after_it(reading: Reading) -> None:
    """TCP Fast Open (RFC 7413): the SYN is a segment without data, and what it carried begins one further."""
    traffic.run(reading.group, _EARLY, port=_PORTS[0])
    found = reading.until(ended)
    begun, early = [s for s in found if s.to_server][:2]
    assert (begun.flags, begun.data) == (SYN, b"")
    assert (early.flags, early.data) == (0, b"early data")
    assert early.seq == (begun.seq + 1) % (1 << 32)
    assert early.connection == begun.connection == next(s.connection for s in found if not s.to_server)


_REQUESTS = """
with listen("127.0.0.1", given["port"]) as listener:
    client = socket.create_connection(("127.0.0.1", given["port"]))
    server, _ = listener.accept()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(given["count"]):
        client.send(b"x" * given["size"])
        assert len(read(server, given["size"])) == given["size"]
"""


def test_a_full_ring_counts_every_record_that_did_not_fit(reading: Reading, capture: HttpCapture) -> None:
    """Nobody reads: what is seen afterwards and what is counted as lost add up to what was sent."""
    count = 10_007
    traffic.run(reading.group, _REQUESTS, port=_PORTS[0], count=count, size=200)
    found = reading.until(lambda _: True)
    lost = sum(gap.lost for gap in capture.losses(now()))
    assert lost > 0
    data = sum(1 for s in found if s.data)
    # Beside the data: two SYN and two FIN. Others on this machine use none of these ports at the same time.
    assert data + lost in range(count, count + 5)
    assert capture.losses(now()) == []


def test_wakes_its_reader_at_a_quarter_of_the_ring(reading: Reading, capture: HttpCapture) -> None:
    """Below it nobody is woken; above it the descriptor becomes readable, before anything is lost."""
    descriptor = capture.wakeup_fd()
    assert descriptor is not None
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    poller.poll(0)
    # A record of 200 bytes takes 304 of the ring: 600 are 178 KiB, 1000 are 297 KiB.
    traffic.run(reading.group, _REQUESTS, port=_PORTS[0], count=600, size=200)
    assert poller.poll(0) == []
    traffic.run(reading.group, _REQUESTS, port=_PORTS[0], count=400, size=200)
    assert poller.poll(2000) != []
    assert len([s for s in reading.now() if s.data]) == 1000
    assert capture.losses(now()) == []


def test_a_storm_whose_reader_comes_when_woken_loses_nothing(reading: Reading, capture: HttpCapture) -> None:
    """Burst after burst of a third of the ring: each wakes the reader, and nothing is lost."""
    descriptor = capture.wakeup_fd()
    assert descriptor is not None
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    code = _REQUESTS.replace("for _ in range(given", "for number in range(given") + (
        "        if number % 599 == 598:\n            print(number, flush=True); sys.stdin.readline()\n"
    )
    found: list[Segment] = []
    with traffic.start(reading.group, code, port=_PORTS[0], count=20 * 599, size=333) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        for _ in range(20):
            assert poller.poll(20_000) != []
            assert child.stdout.readline() != ""
            found.extend(reading.now())
            poller.poll(0)
            print(file=child.stdin, flush=True)
    found.extend(reading.now())
    assert child.returncode == 0
    assert capture.losses(now()) == []
    assert sum(len(s.data) for s in found) == 20 * 599 * 333


def test_the_pages_of_the_ring_are_in_no_core_dump(capture: HttpCapture) -> None:
    """The kernel marks them (VM_DONTDUMP): text still in the ring does not reach a disk that way."""
    kept = [
        flags
        for place, flags in re.findall(
            r"^\S+ \S+ \S+ \S+ \S+ +(\S*).*?^VmFlags: ([^\n]*)", _smaps(), re.M | re.S
        )
        if "bpf-map" in place
    ]
    assert kept
    assert all("dd" in flags.split() for flags in kept)


def _smaps() -> str:
    return Path("/proc/self/smaps").read_text()


def test_a_reader_without_privilege_sees_everything(
    handed: handover.Handover, cgroups: Callable[..., Cgroups]
) -> None:
    """uid 65534 without a capability reads the segments through what it was handed."""
    group = cgroups()
    outcome, answer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            capture = HttpCapture(handover=handed)
            capture.open()
            for _ in capture.segments():
                pass
            os.write(answer, b"ready\n")
            found = Reading(lambda: list(capture.segments()), group).until(ended, 20)
            text = stream(found, to_server=False)
            status = Path("/proc/self/status").read_text().splitlines()
            held = [line for line in status if line.startswith("CapEff")]
            told = [os.getuid(), text.data.hex(), text.untold, held]
            os.write(answer, json.dumps(told).encode())
        except BaseException as error:  # noqa: BLE001 - told to the parent, which fails on it
            os.write(answer, json.dumps(repr(error)).encode())
        finally:
            os._exit(0)
    os.close(answer)
    with os.fdopen(outcome, "rb") as result:
        assert result.readline() == b"ready\n"
        traffic.run(group, _EXCHANGES, address="127.0.0.1", port=_PORTS[0], sizes=[(50, 7000)])
        told = json.loads(result.read())
    os.waitpid(child, 0)
    assert told == [65534, noise(1, 7000).hex(), 0, ["CapEff:\t0000000000000000"]]


def test_without_net_admin_it_alone_is_blind() -> None:
    """CAP_BPF and CAP_PERFMON attach every tracepoint; the links on the cgroup root get an EPERM.

    The tracepoint of a driver that may not be loaded here is left out, and so is the gate of a scope that
    nobody declared.
    """
    code = (
        "import json, sys\nsys.path.insert(0, sys.argv[1])\n"
        "from probes.kernel.http_capture import PROGRAM\nfrom probes.kernel.loader import load\n"
        "from probes.registry import programs\n"
        "others = [p for p in programs() if p.sensor not in (PROGRAM.sensor, 'kernel.xid', 'kernel.scope')]\n"
        "loaded = load((*others, PROGRAM))\n"
        "print(json.dumps([[e.sensor, e.blind and [e.blind.reason, e.blind.detail], e.errno]"
        " for e in loaded.manifest.sensors]))"
    )
    prefix = [word.replace(",+net_admin", "") for word in AS_IN_ITS_UNIT]
    done = subprocess.run(
        [*prefix, "/usr/bin/python3", "-I", "-c", code, str(MAIN.parents[2])],
        capture_output=True, text=True, check=True, timeout=50,
    )  # fmt: skip
    *others, (name, blind, errno) = json.loads(done.stdout)
    assert len(others) >= 4
    assert [told for _, told, _ in others] == [None] * len(others)
    assert (name, blind[0], errno) == (PROGRAM.sensor, BlindReason.NO_PRIVILEGE, 1)
    assert "CAP_NET_ADMIN" in blind[1]


def test_without_a_handover_it_is_blind() -> None:
    """Nothing handed over is a reason of its own, and what is not open says so."""
    capture = HttpCapture(handover=None)
    with pytest.raises(SensorBlind) as caught:
        capture.open()
    assert caught.value.blind.reason is BlindReason.NOT_HANDED_OVER
    with pytest.raises(SensorBlind, match="not open"):
        next(capture.segments())
    assert (capture.waiting(), capture.wakeup_fd(), capture.losses(now())) == (False, None, [])
    capture.close()
