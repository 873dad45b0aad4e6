"""The other way to capture, by a packet socket, on the real kernel: the same bytes, in the host's network."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from probes.host.clock import now
from probes.http.segment import FIN, SYN, Segment
from probes.kernel import handover
from probes.kernel.capture import capture_of
from probes.kernel.http_capture import NAME
from probes.kernel.packet_capture import PacketCapture
from probes.kernel.packet_socket import in_a_network_of_its_own
from probes.observation import BlindReason
from tests.kernel import traffic
from tests.kernel.conftest import AS_IN_ITS_UNIT, Cgroups
from tests.kernel.traffic import noise, stream

pytestmark = [pytest.mark.root, pytest.mark.ebpf]

# In the host's own network, where other tests may run: a port of this process's own.
_PORT = 20_000 + os.getpid() % 10_000
_WITH_RAW = [word.replace("+net_admin", "+net_admin,+net_raw") for word in AS_IN_ITS_UNIT]
_EXCHANGE = """
with listen(given["address"], given["port"]) as listener:
    client = socket.create_connection((given["address"], given["port"]))
    server, _ = listener.accept()
    for number, (asked, answered) in enumerate(given["sizes"]):
        exchange(client, server, 10 * number, asked, answered)
    server.close()
    client.close()
"""


@pytest.fixture
def handed(tmp_path: Path) -> Iterator[handover.Handover]:
    """A packet socket of the real loader's, with the capabilities of its unit and CAP_NET_RAW."""
    if in_a_network_of_its_own():
        pytest.skip("needs the host's own network")
    taken = traffic.load_capture(tmp_path, [_PORT, 1], prefix=_WITH_RAW, way="packet")
    yield taken
    taken.close()


@pytest.fixture
def capture(handed: handover.Handover) -> Iterator[PacketCapture]:
    """An open capture."""
    opened = capture_of(handed)
    assert isinstance(opened, PacketCapture)
    opened.open()
    yield opened
    opened.close()


def until_ended(capture: PacketCapture) -> list[Segment]:
    """Read until both sides said their last."""
    found: list[Segment] = []
    while {s.to_server for s in found if s.flags & FIN} != {True, False}:
        found.extend(capture.segments())
    return found


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_same_bytes_as_by_the_programs(
    capture: PacketCapture, cgroups: Callable[..., Cgroups], address: str
) -> None:
    """Small and long exchanges over loopback: every byte of both directions at its place, once."""
    sizes = [(1, 1), (300, 5000), (100_000, 300_000)]
    before = now().boot_ns
    assert capture.waiting() is False
    traffic.run(cgroups(), _EXCHANGE, apart=False, address=address, port=_PORT, sizes=sizes)
    assert capture.waiting() is True
    found = until_ended(capture)
    assert {(s.port, s.cgroup_id) for s in found} == {(_PORT, 0)}
    assert len({s.connection for s in found}) == 1
    assert [s.to_server for s in found if s.flags & SYN] == [True, False]
    asked, answered = stream(found, to_server=True), stream(found, to_server=False)
    assert asked.data == b"".join(noise(10 * i, size) for i, (size, _) in enumerate(sizes))
    assert answered.data == b"".join(noise(10 * i + 1, size) for i, (_, size) in enumerate(sizes))
    assert (asked.untold, asked.skipped, answered.untold, answered.skipped) == (0, 0, 0, 0)
    carried = sum(len(s.data) for s in found)
    assert carried == len(asked.data) + len(answered.data), "loopback's packets were read twice"
    assert all(before <= s.at_ns <= now().boot_ns for s in found)
    assert capture.losses(now()) == []


def test_other_ports_are_not_seen(capture: PacketCapture, cgroups: Callable[..., Cgroups]) -> None:
    """The kernel's filter lets nothing else reach the reader."""
    traffic.run(cgroups(), _EXCHANGE, apart=False, address="127.0.0.1", port=_PORT + 10_000, sizes=[(9, 9)])
    assert capture.waiting() is False
    assert list(capture.segments()) == []


def test_what_did_not_fit_is_counted_and_told_once(
    capture: PacketCapture, cgroups: Callable[..., Cgroups]
) -> None:
    """Nobody reads for 100 MB."""
    sizes = [(10, 20_000_000)] * 5
    traffic.run(cgroups(), _EXCHANGE, apart=False, address="127.0.0.1", port=_PORT, sizes=sizes)
    (gap,) = capture.losses(now())
    assert gap.lost > 0
    assert capture.losses(now()) == []


def test_what_it_does_not_do_is_noted(tmp_path: Path, handed: handover.Handover) -> None:
    """The manifest says by which way it sees, its ports, and that libraries are not watched in that way."""
    taken = traffic.load_capture(tmp_path, [1], prefix=_WITH_RAW, way="packet", libraries=["/lib/libssl.so"])
    with_library, entry = taken.entry(NAME), handed.entry(NAME)
    taken.close()
    assert entry is not None
    assert with_library is not None
    assert (entry.notes, entry.ports) == (("by a packet socket",), (_PORT, 1))
    assert with_library.notes[1:] == ("/lib/libssl.so: is watched with http.capture = cgroup alone",)


def test_its_filter_cannot_be_taken_off(handed: handover.Handover) -> None:
    """Whoever reads it sees the watched ports and nothing else, even as root."""
    (handed_socket,) = handed.maps(NAME).values()
    with socket.fromfd(handed_socket.fd, socket.AF_PACKET, socket.SOCK_DGRAM) as opened:
        with pytest.raises(PermissionError):
            opened.setsockopt(socket.SOL_SOCKET, 27, 0)  # SO_DETACH_FILTER
        with pytest.raises(PermissionError):
            opened.setsockopt(socket.SOL_SOCKET, 44, 0)  # SO_LOCK_FILTER


@pytest.mark.parametrize(
    ("prefix", "reason", "errno"),
    [
        (AS_IN_ITS_UNIT, BlindReason.NO_PRIVILEGE, 1),
        (["unshare", "--net", *_WITH_RAW], BlindReason.ATTACH_FAILED, None),
    ],
    ids=["without CAP_NET_RAW", "in a network of its own"],
)
def test_where_it_sees_nothing_it_names_the_drop_in(
    tmp_path: Path, prefix: list[str], reason: BlindReason, errno: int | None
) -> None:
    """The unit as it is shipped cannot do it: the reason says what can be done."""
    taken = traffic.load_capture(tmp_path, [_PORT], prefix=prefix, way="packet")
    entry = taken.entry(NAME)
    taken.close()
    assert entry is not None
    assert entry.blind is not None
    assert (entry.blind.reason, entry.errno) == (reason, errno)
    assert "packet-capture.conf" in entry.blind.detail
