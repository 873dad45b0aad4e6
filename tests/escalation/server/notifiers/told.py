"""Receivers for tests: one in memory, and one that really listens."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from escalation.server.notify.notices import Event, Message
from escalation.server.notify.notifiers.receiver import NotifyError


@dataclass
class Mailbox:
    """A receiver that keeps what it is sent, and fails as often as it is told to."""

    name: str = "pager"
    events: frozenset[Event] = frozenset(Event)
    batch: int = 1
    repeat_s: float | None = None
    failures: list[Exception] = field(default_factory=list)
    sent: list[Message] = field(default_factory=list)

    async def send(self, messages: Sequence[Message], *, now_ns: int) -> None:
        assert now_ns > 0
        if self.failures:
            raise self.failures.pop(0)
        self.sent.extend(messages)

    async def close(self) -> None:
        self.failures.append(NotifyError("it is closed"))


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes


class Listening:
    """An HTTP server that keeps what it is asked and answers with `status`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.status = 200
        self.location = ""
        self.asked: list[Asked] = []
        self.came = threading.Condition()

    def wait(self, count: int) -> list[Asked]:
        """Return what was asked, once it is `count` requests."""
        with self.came:
            assert self.came.wait_for(lambda: len(self.asked) >= count, timeout=30), self.asked
            return list(self.asked)


@contextmanager
def listening() -> Iterator[Listening]:
    """Listen on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            with held.came:
                held.asked.append(Asked(self.path, dict(self.headers.items()), body))
                held.came.notify_all()
            self.send_response(held.status)
            if held.location:
                self.send_header("Location", held.location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the library
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    held = Listening(f"http://127.0.0.1:{server.server_port}/hook")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield held
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
