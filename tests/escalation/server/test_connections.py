"""Connections to the pages: whoever asks nothing keeps nobody out."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.server import ServerState

from escalation.server.metrics import ConnectionEnd, ServerMetrics
from escalation.server.web import connections
from escalation.server.web.connections import AT_ONCE, OF_ONE_ADDRESS, BoundedProtocol
from tests.escalation.server.site import TOKEN, Site


class _Wire(asyncio.Transport):
    """A connection from an address, which remembers what was written and whether it was ended."""

    def __init__(self, address: str) -> None:
        super().__init__({"peername": (address, 1), "sockname": ("100.64.0.1", 9737)})
        self.written = b""
        self.ended = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.ended

    def abort(self) -> None:
        self.ended = True

    close = abort


def _connect(config: uvicorn.Config, state: ServerState, address: str, said: list[ConnectionEnd]) -> _Wire:
    wire = _Wire(address)
    BoundedProtocol(config, state, {}, asyncio.get_running_loop(), ended=said.append).connection_made(wire)
    return wire


async def test_one_address_has_a_part_of_the_connections() -> None:
    """What comes above its share is ended at once and counted; others and a proxy on loopback still come."""
    config, state, said = uvicorn.Config(Starlette()), ServerState(), list[ConnectionEnd]()
    many = [_connect(config, state, "100.64.0.9", said) for _ in range(OF_ONE_ADDRESS + 2)]
    assert [wire.ended for wire in many] == [False] * OF_ONE_ADDRESS + [True] * 2
    assert not _connect(config, state, "fd7a:115c:a1e0::9", said).ended
    local = [_connect(config, state, address, said) for address in ("127.0.0.1", "::1") for _ in range(90)]
    assert not any(wire.ended for wire in local)
    assert said == [ConnectionEnd.TOO_MANY] * 2
    for each in list(state.connections):
        each.connection_lost(None)  # type: ignore[union-attr]


async def _hello(request: Request) -> Response:
    return PlainTextResponse(await request.body() or b"hello")


@contextlib.asynccontextmanager
async def _served(
    said: list[ConnectionEnd], *, whole_within_s: float, slow: Any = _hello
) -> AsyncIterator[int]:
    """Serve one page as the orchestrator does, with less patience."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    server = uvicorn.Server(
        uvicorn.Config(
            Starlette(routes=[Route("/", _hello, methods=["GET", "POST"]), Route("/slow", slow)]),
            http=connections.protocol(said.append, whole_within_s=whole_within_s),
            log_config=None,
            lifespan="off",
            limit_concurrency=AT_ONCE,
        )
    )
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        listening.close()


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab",
    ],
    ids=["nothing", "half_a_head", "half_a_body"],
)
async def test_whoever_never_asks_whole_keeps_nobody_out(begun: bytes) -> None:
    """All but one are taken by a peer that sends nothing, or half a request: each is ended in time."""
    said = list[ConnectionEnd]()
    async with _served(said, whole_within_s=1.0) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(AT_ONCE - 1)]
        for _, writer in held:
            writer.write(begun)
        for reader, writer in held:
            with contextlib.suppress(ConnectionError):
                await reader.read()  # until it is ended
            writer.close()
        async with httpx2.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}/")).text == "hello"
    assert Counter(said) == {ConnectionEnd.SLOW: AT_ONCE - 1}


async def test_a_byte_after_an_answer_buys_no_time() -> None:
    """A connection that was answered once and then drips is ended as one that was not."""
    said = list[ConnectionEnd]()
    async with _served(said, whole_within_s=1.0) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200")
        writer.write(b"G")
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
    assert said == [ConnectionEnd.SLOW]


async def test_an_answer_may_take_longer_than_its_request() -> None:
    """Whoever has asked waits for as long as it takes, as with a stream of changes."""
    said, late = list[ConnectionEnd](), asyncio.Event()

    async def slow(_: Request) -> Response:
        await late.wait()
        return PlainTextResponse("at last")

    async with _served(said, whole_within_s=1.0, slow=slow) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        silent, other = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(ConnectionError):
            await silent.read()  # it came later, and its time is over
        late.set()
        assert (await reader.read()).endswith(b"at last")
        writer.close()
        other.close()
    assert said == [ConnectionEnd.SLOW]


async def test_the_orchestrator_serves_with_these_bounds(orchestrator: Site) -> None:
    """Its metrics have both reasons, and nothing of what asks as it should was ended."""
    async with httpx2.AsyncClient(
        base_url=orchestrator.url, headers={"Authorization": f"Bearer {TOKEN}"}
    ) as client:
        told = (await client.get("/metrics")).text
    for each in ConnectionEnd:
        assert f'nanobot_orchestrator_http_connections_ended_total{{reason="{each}"}} 0.0' in told


def test_the_kernel_ends_what_nobody_takes() -> None:
    """A connection inherits the listening socket's patience with a peer that takes nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connections.end_what_is_not_taken(listening)
        with socket.create_connection(listening.getsockname()):
            taken, _ = listening.accept()
            with taken:
                option = getattr(socket, "TCP_USER_TIMEOUT", None)
                assert option is None or taken.getsockopt(socket.IPPROTO_TCP, option) == 60_000


def test_every_reason_is_counted() -> None:
    """What was ended is a number of its own for each reason."""
    metrics = ServerMetrics()
    metrics.connection_ended(ConnectionEnd.TOO_MANY)
    assert b'connections_ended_total{reason="too_many"} 1.0' in metrics.text()
