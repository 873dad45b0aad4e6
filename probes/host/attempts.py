"""From counts to what happened: which attempts to connect failed, why, and whose they were.

Errors, ends of attempts and who made them come from three different events of the kernel, so those of one
window are dealt out to each other. An attempt that ended without an error was given up by its own program:
a time-out where the peer had left a first segment unanswered, else one side of a race between addresses
(RFC 8305) that the other side won, which is no failure. An error without an attempt ended an established
connection.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from probes.kernel.peer_tables import ClientRise, PeerRise


@dataclass(frozen=True, slots=True)
class Failed:
    """`count` attempts of one client (None: unknown whose) that failed with `errno`."""

    errno: int
    count: int
    client: ClientRise | None
    by_route: bool = False


@dataclass(frozen=True, slots=True)
class Succeeded:
    """`count` attempts of one client (None: unknown whose) that did not fail."""

    count: int
    client: ClientRise | None


def failed(peer: PeerRise, clients: Sequence[ClientRise], *, unanswered: bool) -> Iterator[Failed]:
    """Yield the failed attempts of one window; `unanswered` says that the peer left first segments so."""
    barred = max(
        0, peer.barred - peer.unreachable
    )  # a blocking call returns what its socket reported as well
    for client, count in _dealt(barred, [(c, c.barred) for c in clients]):
        yield Failed(peer.barred_errno, count, client, by_route=True)
    left = [(client, client.failed) for client in clients]
    ended = peer.failed
    for code, errors in (
        (errno.ECONNREFUSED, peer.refused),
        (errno.EHOSTUNREACH, peer.unreachable),
        (errno.ETIMEDOUT, peer.timed_out),
        (errno.ETIMEDOUT, peer.failed if unanswered else 0),
    ):
        count = min(errors, ended)
        ended -= count
        for client, part in _dealt(count, left):
            yield Failed(code, part, client)
            left = [(c, have - part if c is client else have) for c, have in left]


def succeeded(peer: PeerRise, clients: Sequence[ClientRise]) -> Iterator[Succeeded]:
    """Yield the successful attempts of one window."""
    for client, count in _dealt(peer.succeeded, [(c, c.succeeded) for c in clients]):
        yield Succeeded(count, client)


def _dealt(count: int, have: Sequence[tuple[ClientRise, int]]) -> Iterator[tuple[ClientRise | None, int]]:
    """Deal `count` out to who has some, and the rest to nobody."""
    for client, most in have:
        part = min(count, most)
        if part > 0:
            yield client, part
            count -= part
    if count > 0:
        yield None, count
