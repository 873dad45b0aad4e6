"""Sockets that begin or stop listening (`listener.bpf.c`), held against the host's own socket table.

The kernel tells of every network namespace; the table shows the host's. A listener that the table has not got
belongs to a container's own namespace (or is gone already). When the same address and port is there but by
another cgroup, both may be true at once, and it is unknown which of them spoke.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from probes.host.clock import at_boot_ns
from probes.host.identity import Batch, Identifier
from probes.host.sockets import ListeningSocket, SocketsUnreadable, canonical, listening_sockets
from probes.kernel.handed import HandedProgram
from probes.kernel.handover import Handover
from probes.kernel.programs import Attachment, KernelProgram
from probes.observation import (
    CgroupId,
    Instant,
    Listener,
    ListenerClosed,
    ListenerOpened,
    Observation,
    SensorName,
)

NAME = SensorName("kernel.listener")
PROGRAM = KernelProgram(
    sensor=NAME,
    stem="listener",
    attachments=(
        Attachment("listener_set_state", "sock:inet_sock_set_state"),
        Attachment("listener_error", "sock:inet_sk_error_report", required=False),
        Attachment("listener_retransmit", "tcp:tcp_retransmit_skb", required=False),
        Attachment("listener_connect_returned", "syscalls:sys_exit_connect", required=False),
    ),
    maps=(
        "listener_events",
        "listener_ledger",
        "listener_peers",
        "listener_clients",
        "listener_reached",
        "listener_peer_ledger",
    ),
    more=("listener_peers",),
)
_AF_INET = 2
_Table = dict[tuple[str, int], set[CgroupId | None]]


class ListenerSensor:
    """Says where something begins to listen, and whether it is the host's own."""

    name = NAME
    period_s = 0.25

    def __init__(
        self,
        *,
        handover: Handover | None,
        identifier: Identifier,
        sockets: Callable[[], tuple[ListeningSocket, ...]] = listening_sockets,
    ) -> None:
        self._program = HandedProgram(sensor=NAME, stem=PROGRAM.stem, handover=handover)
        self._identifier = identifier
        self._sockets = sockets

    def __repr__(self) -> str:
        return f"ListenerSensor({self._program})"

    def open(self) -> None:
        """Take hold of the ring."""
        self._program.open()

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return what changed since the last read; the socket table is read only if anything did."""
        waiting = self._program.gather()
        table = self._table() if waiting else None  # after the events: it shows what they did
        origins = self._identifier.batch()
        found: list[Observation] = [
            self._observation(event, table, origins, now) for event in self._program.records(waiting)
        ]
        return found + list(self._program.losses(now))

    def waiting(self) -> bool:
        """Whether there are events."""
        return self._program.waiting()

    def settle(self) -> None:
        """Note how far the ring is judged and on disk."""
        self._program.settle()

    def wakeup_fd(self) -> int | None:
        """A storm wakes its reader before the ring is full."""
        return self._program.wakeup_fd()

    def close(self) -> None:
        """Let go of the ring."""
        self._program.close()

    def _observation(
        self, event: dict[str, Any], table: _Table | None, origins: Batch, now: Instant
    ) -> ListenerOpened | ListenerClosed:
        width = 4 if event["family"] == _AF_INET else 16
        at, address, port = (
            at_boot_ns(event["time_ns"], now),
            canonical(event["address"][:width]),
            event["port"],
        )
        cgroup_id = CgroupId(event["cgroup_id"])
        listener = Listener(
            address=address,
            port=port,
            origin=origins.origin(event),
        )
        shown = None if table is None else table.get((address, port), set())
        if event["opened"]:
            return ListenerOpened(
                sensor=NAME, at=at, listener=listener, confirmed=_is_shown(shown, cgroup_id)
            )
        return ListenerClosed(
            sensor=NAME, at=at, listener=listener, confirmed=None if shown is None else not shown
        )

    def _table(self) -> _Table | None:
        try:
            sockets = self._sockets()
        except SocketsUnreadable:
            return None
        table: _Table = {}
        for found in sockets:
            table.setdefault((found.address, found.port), set()).add(found.cgroup_id)
        return table


def _is_shown(shown: set[CgroupId | None] | None, cgroup_id: CgroupId) -> bool | None:
    if shown is None:
        return None
    if not shown:
        return False
    return True if cgroup_id in shown or None in shown else None
