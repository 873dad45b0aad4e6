"""The two directions of a connection: what the client sends are requests, what the server sends are answers.

Both are `MessageReader`s and tell their connection what they meet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from probes.http.exchange import Exchange
from probes.http.facts import UnobservedReason
from probes.http.head import METHODS, NO_BODY, REQUEST_LINE, STATUS_LINE, request_head, response_head
from probes.http.message import BLIND

if TYPE_CHECKING:
    from probes.http.connection import Connection

_BEGUN: Final = (*METHODS, b"PRI")  # HTTP/2 begins like a request, RFC 9113, 3.4
_STATUS_BEGUN: Final = b"HTTP/1."
_HTTP2: Final = b"PRI * HTTP/2"


class RequestReader:
    """A `MessageReader` of what the client sends."""

    __slots__ = ("_connection", "_current")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._current: Exchange | None = None

    def plausible(self, begun: bytes) -> bool:
        method, blank, _ = begun.partition(b" ")
        return method in _BEGUN if blank else any(one.startswith(method) for one in _BEGUN)

    def strange(self, begun: bytes, at_ns: int) -> bool:
        connection = self._connection
        if _is_tls(begun):
            connection.go_blind(UnobservedReason.TLS, at_ns)
        elif begun.startswith(_HTTP2):
            connection.go_blind(UnobservedReason.HTTP2, at_ns)
        elif connection.is_first():
            connection.go_blind(UnobservedReason.NOT_HTTP, at_ns)
        return not connection.blind

    def resumes(self, begun: bytes, at_ns: int) -> bool:  # noqa: ARG002 - a request needs nothing before it
        return REQUEST_LINE.match(begun) is not None

    def ends_here(self, at_ns: int) -> bool:  # noqa: ARG002 - an answer to a missing request is noticed
        return True

    def head(self, raw: bytes, at_ns: int, begun_ns: int) -> int:
        connection = self._connection
        head = request_head(raw)
        if head.method == "CONNECT":
            connection.go_blind(UnobservedReason.NOT_HTTP, at_ns)
            return BLIND
        exchange = Exchange(
            head=head, port=connection.port, cgroup_id=connection.cgroup_id, begun_ns=begun_ns
        )
        self._current = exchange
        connection.request_begun(exchange)
        return head.body

    def body(self, data: bytes, at_ns: int) -> None:  # noqa: ARG002  # an answer's reader needs the time
        if self._current is not None:
            self._current.request.body(data)

    def hole(self, size: int) -> None:
        if self._current is not None:
            self._current.request.hole(size)

    def end(self, at_ns: int) -> None:  # noqa: ARG002  # an answer's reader needs the time
        if self._current is not None:
            self._current.request.end()
        self._current = None

    def lost(self, at_ns: int) -> None:
        exchange, self._current = self._current, None
        self._connection.request_lost(exchange, at_ns)

    def closed(self, at_ns: int, *, reset: bool) -> None:
        self._connection.client_closed(at_ns, reset=reset)


class AnswerReader:
    """A `MessageReader` of what the server sends."""

    __slots__ = ("_connection", "_current", "_interim")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._current: Exchange | None = None
        self._interim = False

    def plausible(self, begun: bytes) -> bool:
        return begun[: len(_STATUS_BEGUN)] == _STATUS_BEGUN[: len(begun)]

    def strange(self, begun: bytes, at_ns: int) -> bool:
        connection = self._connection
        if _is_tls(begun):
            connection.go_blind(UnobservedReason.TLS, at_ns)
        elif connection.pending:
            connection.unseen(at_ns, UnobservedReason.NOT_HTTP)
        return not connection.blind

    def resumes(self, begun: bytes, at_ns: int) -> bool:
        found = STATUS_LINE.match(begun)
        if found is None or found[2][:1] == b"1":
            return False
        return self._connection.answering_after_a_loss(self._current, at_ns)

    def ends_here(self, at_ns: int) -> bool:
        return all(one is self._current or one.begun_ns > at_ns for one in self._connection.pending)

    def head(self, raw: bytes, at_ns: int, begun_ns: int) -> int:
        connection = self._connection
        exchange = connection.answering(begun_ns)
        head = response_head(raw, exchange.method)
        if head.status == 101:
            websocket = head.headers.upgrade != "h2c"
            reason = UnobservedReason.WEBSOCKET if websocket else UnobservedReason.HTTP2
            connection.go_blind(reason, at_ns)
            return BLIND
        self._interim = head.status < 200
        if self._interim:
            return NO_BODY
        exchange.heard_ns = at_ns
        exchange.answered(head, begun_ns)
        self._current = exchange
        return head.body

    def body(self, data: bytes, at_ns: int) -> None:
        exchange = self._current
        if exchange is not None and exchange.answer is not None:
            exchange.heard_ns = at_ns
            exchange.answer.body(data, at_ns)

    def hole(self, size: int) -> None:
        if self._current is not None and self._current.answer is not None:
            self._current.answer.hole(size)

    def end(self, at_ns: int) -> None:
        if self._interim:
            self._interim = False
            return
        exchange, self._current = self._current, None
        if exchange is not None and self._connection.pending and self._connection.pending[0] is exchange:
            self._connection.finished(None, at_ns)

    def lost(self, at_ns: int) -> None:
        self._current = None
        self._interim = False
        self._connection.unseen(at_ns)

    def closed(self, at_ns: int, *, reset: bool) -> None:  # noqa: ARG002 - the server's FIN ends it too
        self._connection.server_closed(at_ns)


def _is_tls(begun: bytes) -> bool:
    """Whether these bytes begin a TLS record (RFC 8446, 5.1)."""
    return 0x14 <= begun[0] <= 0x17 and begun[1:2] in (b"", b"\x03")
