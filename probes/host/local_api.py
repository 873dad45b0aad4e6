"""One question to an HTTP server of this host, with an end in time and in size.

HTTP/1.0, so that the answer is neither chunked nor kept open: it ends where the server hangs up. The standard
library's client has no end in time, only between two bytes, so that a server (or whoever has taken its port)
could hold the asker up for hours, and it costs 2 MB for its parser of mail headers.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from typing import Final

_HEAD_BYTES: Final = 64 << 10


class NoServer(Exception):
    """There is no such socket, or nobody listens on it."""


class NotAnswered(Exception):
    """The server did not finish its answer in time."""


class AnswerUnreadable(Exception):
    """What came is no answer to the question; the message says why and holds nothing of it."""


class Refused(AnswerUnreadable):
    """The server answered with another status than 200."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the server answered with status {status}")
        self.status = status


class AnswerTooLong(AnswerUnreadable):
    """The answer is longer than it may be."""


def ask(
    server: str | tuple[str, int],
    target: str,
    *,
    host: str,
    max_bytes: int,
    timeout_s: float = 2.0,
    first_line: bool = False,
    monotonic: Callable[[], float] = time.monotonic,
) -> bytes:
    """Return the body of the answer to GET `target`, or only its first line where the body has no end.

    `server` is the path of a Unix socket, or an address of this host with its port.
    Raises NoServer, NotAnswered, AnswerUnreadable, and OSError for what the system refuses.
    """
    end_s = monotonic() + timeout_s
    with contextlib.ExitStack() as stack:
        try:
            link = stack.enter_context(_connected(server, timeout_s))
            link.sendall(f"GET {target} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NoServer(f"connect to {server}: {error.strerror}") from error
        except TimeoutError as error:
            raise NotAnswered(f"connect to {server}: no answer in {timeout_s:g} s") from error
        received = bytearray()
        body_at: int | None = None
        for piece in _pieces(link, end_s, monotonic):
            received += piece
            if body_at is None:
                body_at = _body_at(received)
            if body_at is not None:
                if len(received) - body_at > max_bytes:
                    raise AnswerTooLong(f"more than {max_bytes} bytes")
                if first_line and received.find(b"\n", body_at) >= 0:
                    break
    if body_at is None:
        raise AnswerUnreadable("no whole head of an answer")
    body = bytes(received[body_at:])
    return body.partition(b"\n")[0] if first_line else body


def _connected(server: str | tuple[str, int], timeout_s: float) -> socket.socket:
    if not isinstance(server, str):
        return socket.create_connection(server, timeout_s)
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link.settimeout(timeout_s)
    try:
        link.connect(server)
    except OSError:
        link.close()
        raise
    return link


def _pieces(link: socket.socket, end_s: float, monotonic: Callable[[], float]) -> Iterator[bytes]:
    while True:
        left_s = end_s - monotonic()
        if left_s <= 0:
            raise NotAnswered("the answer did not end in time")
        link.settimeout(left_s)
        try:
            piece = link.recv(1 << 16)
        except TimeoutError as error:
            raise NotAnswered("the answer did not end in time") from error
        if not piece:
            return
        yield piece


def _body_at(received: bytearray) -> int | None:
    """Return where the body begins, once the head is whole; raise Refused for another status than 200."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        if len(received) > _HEAD_BYTES:
            raise AnswerUnreadable("no end of the head")
        return None
    version, _, rest = bytes(received[: received.find(b"\r\n")]).partition(b" ")
    status = rest[:3]
    if not version.startswith(b"HTTP/1.") or len(status) != 3 or not status.isdigit():
        raise AnswerUnreadable("no HTTP answer")
    if status != b"200":
        raise Refused(int(status))
    return end + 4
