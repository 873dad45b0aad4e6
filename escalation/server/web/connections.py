"""Who holds a connection to the pages' port, and for how long without having asked anything.

uvicorn counts every connection against `limit_concurrency`, answers 503 above it, and waits for ever for a
request that never comes whole: whoever reaches the port could keep everybody out without a credential. So a
request has to be there whole after some seconds, and one address has a part of the connections at most.

Loopback is not counted by address: a proxy there speaks for everybody. An answer that nobody takes ends by
the socket's own limit (TCP_USER_TIMEOUT, tcp(7)), where `listen` is told so.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from escalation.server.metrics import ConnectionEnd

AT_ONCE: Final = 256
"""How many connections there are; uvicorn answers 503 on what comes above it."""

OF_ONE_ADDRESS: Final = 64
WHOLE_WITHIN_S: Final = 20.0

_TAKEN_WITHIN_S: Final = 60

_ASKING: Final = frozenset({h11.IDLE, h11.SEND_BODY})
"""The peer has not sent all of its next request."""


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it, with an end to waiting and a share for each address."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        ended: Callable[[ConnectionEnd], None],
        whole_within_s: float = WHOLE_WITHIN_S,
    ) -> None:
        """Tell `ended` why a connection was ended; a request has `whole_within_s` to arrive."""
        super().__init__(config, server_state, app_state, _loop)
        self._ended = ended
        self._whole_within_s = whole_within_s
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, unless its address has its share already."""
        super().connection_made(transport)
        if self._is_one_too_many():
            self._end(ConnectionEnd.TOO_MANY)
        else:
            self._wait_anew()

    def data_received(self, data: bytes) -> None:
        """Read on; what comes byte by byte gets no more time for it."""
        super().data_received(data)
        if self.conn.their_state not in _ASKING:
            self._wait_no_more()

    def on_response_complete(self) -> None:
        """Wait for the next request, which may be here already."""
        super().on_response_complete()
        self._wait_anew()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._wait_no_more()
        super().connection_lost(exc)

    def _is_one_too_many(self) -> bool:
        if self.client is None or ipaddress.ip_address(self.client[0].partition("%")[0]).is_loopback:
            return False
        known = (each.client for each in self.connections if isinstance(each, BoundedProtocol))
        return sum(each is not None and each[0] == self.client[0] for each in known) > OF_ONE_ADDRESS

    def _wait_anew(self) -> None:
        self._wait_no_more()
        if self.conn.their_state in _ASKING and not self.transport.is_closing():
            self._deadline = self.loop.call_later(self._whole_within_s, self._end, ConnectionEnd.SLOW)

    def _wait_no_more(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end(self, why: ConnectionEnd) -> None:
        self._ended(why)
        self.transport.abort()


def protocol(
    ended: Callable[[ConnectionEnd], None], *, whole_within_s: float = WHOLE_WITHIN_S
) -> type[asyncio.Protocol]:
    """Return what uvicorn makes one of for each connection."""
    return cast(
        "type[asyncio.Protocol]", partial(BoundedProtocol, ended=ended, whole_within_s=whole_within_s)
    )


def end_what_is_not_taken(listening: socket.socket) -> None:
    """Let the kernel end connections whose peers take nothing of what is sent, where it can (Linux)."""
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None:
        listening.setsockopt(socket.IPPROTO_TCP, option, _TAKEN_WITHIN_S * 1000)
