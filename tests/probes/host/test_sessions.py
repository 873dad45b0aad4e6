"""How many connections a service holds, on real sockets of this host."""

from __future__ import annotations

import contextlib
import socket
import struct

import pytest
from hypothesis import given, strategies as st

from probes.host.sessions import Session, SessionSensor, parse, sessions_on
from probes.host.sockets import ListeningSocket, SocketsUnreadable, listening_sockets
from probes.observation import BlindReason, CgroupId, Origin, Sessions
from probes.sensor import SensorBlind
from probes.testing import instant

NOW = instant(100)


def _sensor(port: int) -> SessionSensor:
    return SessionSensor(origin=lambda cgroup_id: Origin(cgroup_id=CgroupId(cgroup_id)), ports=(port,))


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_counts_a_prime_number_of_sessions(family: socket.AddressFamily) -> None:
    """Seven connections to a listener are seven sessions of one peer; the clients' ends are none."""
    address = "127.0.0.1" if family == socket.AF_INET else "::1"
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket(family))
        try:
            server.bind((address, 0))
        except OSError:
            pytest.skip(f"{address} is not there")
        server.listen(16)
        port = server.getsockname()[1]
        for _ in range(7):
            stack.enter_context(socket.create_connection((address, port)))
            stack.enter_context(server.accept()[0])
        sensor = _sensor(port)
        sensor.open()

        (told,) = sensor.read(NOW)

        assert isinstance(told, Sessions)
        assert (told.port, told.sessions, told.peers) == (port, 7, 1)
        own = next(each for each in listening_sockets() if each.port == port)
        assert told.origin.cgroup_id == (own.cgroup_id or 0)


def test_sessions_of_a_peer_that_left_are_gone() -> None:
    """A closed connection is not counted, and a service that is gone holds none, told once."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        sensor = _sensor(port)
        client = socket.create_connection(("127.0.0.1", port))
        accepted = server.accept()[0]
        (held,) = sensor.read(NOW)
        client.close()
        accepted.close()
        (left,) = sensor.read(NOW)
    (gone,) = sensor.read(NOW)
    assert [each.sessions for each in (held, left, gone) if isinstance(each, Sessions)] == [1, 0, 0]
    assert sensor.read(NOW) == []


def test_nobody_is_asked_where_nobody_listens() -> None:
    """Without a listener on a watched port there is nothing to count."""
    sensor = SessionSensor(
        origin=lambda _: Origin(),
        listening=lambda: [ListeningSocket("0.0.0.0", 22, None)],
        sessions=lambda _: pytest.fail("asked for the connections"),
    )
    assert sensor.read(NOW) == []


def test_blind_where_the_socket_table_cannot_be_read() -> None:
    """The sensor says so, and why."""

    def refused(*_: int) -> tuple[Session, ...]:
        raise SocketsUnreadable("refused")

    sensor = SessionSensor(
        origin=lambda _: Origin(),
        listening=lambda: [ListeningSocket("127.0.0.1", 5432, None)],
        sessions=refused,
    )
    with pytest.raises(SensorBlind) as blind:
        sensor.read(NOW)
    assert blind.value.blind.reason is BlindReason.READ_FAILED


def test_a_port_that_nobody_has_holds_no_session() -> None:
    """The kernel is asked for one port and answers for that one alone."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        unused = server.getsockname()[1]
    assert sessions_on(unused) == ()


@given(kind=st.integers(0, 64), body=st.binary(max_size=200), port=st.integers(0, 65535))
def test_any_bytes_are_read(kind: int, body: bytes, port: int) -> None:
    """An answer that is none of ours yields nothing, whatever it holds."""
    for session in parse(kind, body, port):
        assert session.peer


def test_a_row_of_another_port_is_passed_over() -> None:
    """A kernel that did not filter changes nothing."""
    row = struct.pack(
        "=BBBB2s2s16s16sI8sIIIII",
        2,
        1,
        0,
        0,
        b"\x15\x38",
        b"\0\1",
        bytes(16),
        bytes(16),
        0,
        bytes(8),
        *[0] * 5,
    )
    assert list(parse(20, row, 5432)) == [Session("0.0.0.0")]
    assert list(parse(20, row, 5433)) == []
