"""Serves the metrics page to whoever may reach its port: one answer a connection, bounded in time and number.

It runs on the agent's own loop, as a scrape takes a few milliseconds. Whatever the path, the page is the
answer, as there is no other.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final, Self

from agent.process.exposition import CONTENT_TYPE

CONNECTIONS_MAX: Final = 16
HEAD_BYTES_MAX: Final = 16 << 10
PATIENCE_S: Final = 5.0


class MetricsServer:
    """Listens and answers. `async with`; entering raises OSError where the port cannot be had."""

    def __init__(self, *, address: str, port: int, page: Callable[[], bytes]) -> None:
        self._address = address
        self._port = port
        self._page = page
        self._server: asyncio.Server | None = None
        self._answering: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"MetricsServer({self._address}:{self.port}, answering={len(self._answering)})"

    @property
    def port(self) -> int:
        """The port that it listens on, which the system chooses where 0 was asked for."""
        return int(self._server.sockets[0].getsockname()[1]) if self._server else self._port

    async def __aenter__(self) -> Self:
        family, _, _, _, place = socket.getaddrinfo(
            self._address, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        listening = socket.create_server((str(place[0]), int(place[1])), family=family, dualstack_ipv6=both)
        self._server = await asyncio.start_server(self._connected, sock=listening, limit=HEAD_BYTES_MAX)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._answering:
            task.cancel()
        if self._answering:
            await asyncio.wait(self._answering)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            if len(self._answering) < CONNECTIONS_MAX:
                self._answering.add(task)
                async with asyncio.timeout(PATIENCE_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._answer(head.split(b" ", 1)[0]))
                    await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asked has gone, is too slow (TimeoutError), or never meant to ask
        finally:
            self._answering.discard(task)
            writer.close()

    def _answer(self, method: bytes) -> bytes:
        if method not in {b"GET", b"HEAD"}:
            return _head("405 Method Not Allowed", "Allow: GET, HEAD", 0)
        body = self._page()
        return _head("200 OK", f"Content-Type: {CONTENT_TYPE}", len(body)) + (
            body if method == b"GET" else b""
        )


def _head(status: str, header: str, length: int) -> bytes:
    return f"HTTP/1.1 {status}\r\n{header}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n".encode()
