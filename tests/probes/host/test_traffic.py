"""What each connection sent: the kernel's own answers, and bytes that are none."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given, strategies as st

from probes.host.traffic import Account, Connection, accounts, parse, sent_between


@pytest.mark.skipif(not hasattr(socket, "AF_NETLINK"), reason="sock_diag is Linux's")
def test_a_real_connection_has_an_account() -> None:
    """Both ends of a loopback connection are shown, and what one sends is on its account."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as one,
    ):
        other, _ = server.accept()
        with other:
            before = accounts()
            for _ in range(7):
                one.sendall(b"x" * 10)
                other.recv(100)
            after = accounts()
            port = one.getsockname()[1].to_bytes(2, "big")
    mine = {c: a for c, a in after.items() if c.ports[:2] == port}
    assert [c.address for c in mine] == ["127.0.0.1"]
    assert sent_between({c: before[c] for c in mine}, mine)["127.0.0.1"].segments >= 7


@given(st.integers(0, 40), st.binary(max_size=400))
def test_bytes_that_are_no_answer_give_nothing_or_an_account(kind: int, body: bytes) -> None:
    """Whatever comes, no error comes of it, and numbers stay in their range."""
    for connection, account in parse(kind, body):
        assert connection.address
        assert 0 <= account.retransmitted < 1 << 32


def _one(address: str, number: int) -> Connection:
    return Connection(address, b"1234", number.to_bytes(8, "big"))


def test_what_was_sent_is_summed_by_address() -> None:
    """A connection that is new counts whole, one that was there by its rise, one that ended not at all."""
    before = {_one("a", 1): Account(100, 5), _one("b", 2): Account(50, 0)}
    after = {_one("a", 1): Account(300, 9), _one("a", 3): Account(20, 1)}
    assert sent_between(before, after) == {"a": Account(220, 5)}


def test_a_counter_that_wraps_goes_on() -> None:
    """The kernel's counters have 32 bits."""
    before = {_one("a", 1): Account(0xFFFFFFF0, 0)}
    assert sent_between(before, {_one("a", 1): Account(16, 0)}) == {"a": Account(32, 0)}


def test_a_dump_that_was_cut_off_says_nothing_of_the_rest() -> None:
    """A connection that the earlier dump had no room for may be old: its whole life is no rise."""
    after = {_one("a", 1): Account(3, 0), _one("b", 2): Account(9000, 80)}
    assert sent_between({_one("a", 1): Account(1, 0)}, after, limit=1) == {"a": Account(2, 0)}
