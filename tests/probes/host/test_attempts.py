"""Errors, ends and clients of one window are put together: who failed, and why."""

from __future__ import annotations

import errno

from hypothesis import given, strategies as st

from probes.host.attempts import Failed, Succeeded, failed, succeeded
from probes.kernel.peer_tables import ClientRise, PeerRise
from probes.observation import CgroupId

_COUNT = st.integers(0, 50)


def _peer(**counts: int) -> PeerRise:
    return PeerRise(address="100.64.0.7", port=8000, last_ns=1, reached=False, **counts)


def _client(number: int = 1, **counts: int) -> ClientRise:
    return ClientRise(
        address="100.64.0.7",
        port=8000,
        cgroup_id=CgroupId(number),
        pid=10 + number,
        process=b"python",
        last_ns=1,
        **counts,
    )


def test_refusals_are_dealt_out_to_those_who_tried() -> None:
    """Two clients with five and three failed attempts, of ten refusals: two are nobody's."""
    one, other = _client(1, failed=5), _client(2, failed=3)
    found = list(failed(_peer(refused=10, failed=10), (one, other), unanswered=False))
    refused = errno.ECONNREFUSED
    assert found == [Failed(refused, 5, one), Failed(refused, 3, other), Failed(refused, 2, None)]


def test_errors_of_different_kinds_are_told_apart() -> None:
    """Two refused and one unreachable of three attempts of one client."""
    client = _client(failed=3)
    found = list(failed(_peer(refused=2, unreachable=1, failed=3), (client,), unanswered=False))
    assert found == [Failed(errno.ECONNREFUSED, 2, client), Failed(errno.EHOSTUNREACH, 1, client)]


def test_what_a_program_gave_up_is_a_time_out_only_if_the_peer_was_silent() -> None:
    """An attempt that ended without an error counts where a first segment had stayed unanswered."""
    client = _client(failed=4)
    peer = _peer(failed=4)
    assert list(failed(peer, (client,), unanswered=True)) == [Failed(errno.ETIMEDOUT, 4, client)]
    assert list(failed(peer, (client,), unanswered=False)) == []


def test_an_error_without_an_attempt_ended_a_connection() -> None:
    """A connection that times out after it was made is no attempt that failed."""
    assert list(failed(_peer(timed_out=2), (), unanswered=False)) == []


def test_a_blocking_call_returns_what_its_socket_reported() -> None:
    """EHOSTUNREACH by the network is seen at the socket and at the call, and counts once."""
    client = _client(failed=1, barred=1)
    peer = _peer(unreachable=1, failed=1, barred=1, barred_errno=errno.EHOSTUNREACH)
    assert list(failed(peer, (client,), unanswered=False)) == [Failed(errno.EHOSTUNREACH, 1, client)]


def test_successes_are_dealt_out_as_well() -> None:
    """Of seven successes five are known to be one client's."""
    client = _client(succeeded=5)
    assert list(succeeded(_peer(succeeded=7), (client,))) == [Succeeded(5, client), Succeeded(2, None)]


@given(
    counts=st.fixed_dictionaries(
        dict.fromkeys(("refused", "unreachable", "timed_out", "barred", "failed", "succeeded"), _COUNT)
    ),
    clients=st.lists(st.tuples(_COUNT, _COUNT, _COUNT), max_size=4),
    unanswered=st.booleans(),
)
def test_nothing_is_told_that_was_not_counted(
    counts: dict[str, int], clients: list[tuple[int, int, int]], unanswered: bool
) -> None:
    """Whatever the counts, no more attempts are told than ended, and no client has more than its own."""
    peer = _peer(**counts)
    tried = [_client(i, failed=f, barred=b, succeeded=s) for i, (f, b, s) in enumerate(clients)]
    found = list(failed(peer, tried, unanswered=unanswered))
    assert all(one.count > 0 for one in found)
    assert sum(one.count for one in found if not one.by_route) <= peer.failed
    assert sum(one.count for one in found if one.by_route) <= peer.barred
    for client in tried:
        mine = [one for one in found if one.client is client]
        assert sum(one.count for one in mine if not one.by_route) <= client.failed
        assert sum(one.count for one in mine if one.by_route) <= client.barred
    assert sum(one.count for one in succeeded(peer, tried)) == peer.succeeded
