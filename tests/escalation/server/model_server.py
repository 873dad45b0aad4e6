"""Model servers on loopback that answer as a test wants, and the orchestrator's part that asks them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from escalation.server.desk import Entry
from escalation.server.metrics import ServerMetrics
from escalation.server.model_writer import ModelWriter, TriageTextSettings
from escalation.server.testing import FakeDesk

Answers = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

TOKEN = "token-that-reads"
GOOD = {"likely_cause": "unknown", "notes": "It stopped at once.", "follow_up": [0]}


def completion(content: object) -> bytes:
    text = content if isinstance(content, str) else json.dumps(content)
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


def response(body: bytes, *, status: str = "200 OK", headers: str = "") -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    )
    return head.encode() + body


@dataclass
class Server:
    """A model server of a test: answers each connection as it is told, and keeps what it was asked."""

    answers: Answers
    port: int = 0
    connections: int = 0
    at_once: int = 0
    most_at_once: int = 0
    asked: list[bytes] = field(default_factory=list)
    met: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.met.set()
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.partition(b":")[2])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length")
            )
            self.asked.append(head + await reader.readexactly(length))
            await self.answers(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.at_once -= 1
            writer.close()


def says(body: bytes) -> Answers:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(body)
        await writer.drain()

    return answer


async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Answer nothing until the other end gives up."""
    await reader.read()


def endless(first: bytes, piece: bytes) -> Answers:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while True:
            writer.write(piece)
            await writer.drain()

    return answer


@asynccontextmanager
async def listening(answers: Answers) -> AsyncIterator[Server]:
    server = Server(answers)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, limit=1024 * 1024)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()


@asynccontextmanager
async def writing(
    desk: FakeDesk,
    port: int,
    *,
    changes: Callable[[], AsyncIterator[Entry]] | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[ModelWriter, ServerMetrics]]:
    """Ask the server at `port` about what `desk` proposes."""
    metrics = ServerMetrics()
    chosen = TriageTextSettings(url=f"http://127.0.0.1:{port}/v1", model="qwen3", **settings)
    writer = ModelWriter(settings=chosen, clock=desk.clock, metrics=metrics)
    task = asyncio.create_task(writer.run(changes or desk.changes))
    try:
        yield writer, metrics
    finally:
        task.cancel()
        await asyncio.wait({task})
        await writer.aclose()


def counted(metrics: ServerMetrics, outcome: str) -> float:
    name = "nanobot_orchestrator_model_texts_total"
    return metrics.registry.get_sample_value(name, {"outcome": outcome}) or 0.0
