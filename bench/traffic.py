"""Mixed traffic of every kind for as long as it is wanted: good and bad answers, cuts, cancels, strangers.

python -m bench.traffic PORT SECONDS SEED [--slowly] [KIND...]   one process serves and asks; prints requests
by kind; slowly is one model and some requests a second instead of forty and some hundred
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

_KINDS: Final = (
    "whole",
    "stream",
    "stream",
    "empty",
    "cut",
    "cancel",
    "error",
    "large",
    "strange",
    "tls",
    "idle",
)
_TOOLS: Final = '"tools":[{"type":"function","function":{"name":"f","parameters":{}}}],'


class Traffic:
    """A server of its own and the clients that ask it."""

    def __init__(
        self,
        *,
        port: int,
        seed: int,
        kinds: Sequence[str] = _KINDS,
        pause_s: float = 0.02,
        models: int = 40,
    ) -> None:
        self._kinds = kinds
        self._pause_s = pause_s
        self._models = models
        self._port = port
        self._random = random.Random(seed)
        self.sent: Counter[str] = Counter()

    async def run(self, seconds: float, *, clients: int = 8) -> None:
        """Serve and ask until the time is over."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        until = time.monotonic() + seconds
        async with server:
            await asyncio.gather(*(self._client(until) for _ in range(clients)))

    async def _client(self, until: float) -> None:
        while time.monotonic() < until:
            kind = self._random.choice(self._kinds)
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._ask(kind)
            self.sent[kind] += 1
            await asyncio.sleep(self._random.random() * self._pause_s)

    async def _ask(self, kind: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            if kind in {"tls", "strange"}:
                hello = b"\x16\x03\x01\x02\x00\x01" if kind == "tls" else b""
                writer.write(hello + self._random.randbytes(self._random.randrange(1, 3000)))
                await writer.drain()
                await asyncio.sleep(0.05)
                return
            for _ in range(self._random.randrange(1, 6)):
                self._request(writer, kind)
                await writer.drain()
                if kind == "cancel":
                    await reader.readexactly(40)
                    return
                if not await self._read_answer(reader):
                    return
        finally:
            writer.close()

    def _request(self, writer: asyncio.StreamWriter, kind: str) -> None:
        size = 200_000 if kind == "large" else self._random.randrange(10, 3000)
        tools = _TOOLS if self._random.random() < 0.3 else ""
        model = f"model-{self._random.randrange(self._models)}"
        body = (
            f'{{"messages":[{{"role":"user","content":"{"w " * (size // 2)}"}}],{tools}'
            f'"model":"{model}","stream":{"true" if kind in {"stream", "cut", "cancel"} else "false"}}}'
        ).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-kind: {kind}\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)

    async def _read_answer(self, reader: asyncio.StreamReader) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"chunked" in head:
            while size := int(await reader.readline() or b"0", 16):
                await reader.readexactly(size + 2)
            return bool(await reader.readline())
        await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        return True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
                if not size.isdigit():
                    break
                await reader.readexactly(int(size))
                kind = head.partition(b"x-kind: ")[2].partition(b"\r\n")[0].decode()
                if not await self._answer(writer, kind):
                    break
        writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, kind: str) -> bool:
        if kind in {"stream", "cut", "cancel"}:
            writer.write(
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: text/event-stream\r\n\r\n"
            )
            for number in range(self._random.randrange(5, 60)):
                event = {"model": "m", "choices": [{"index": 0, "delta": {"content": f" word{number}"}}]}
                self._chunk(writer, b"data: " + json.dumps(event).encode() + b"\n\n")
                await writer.drain()
                await asyncio.sleep(0.002)
            if kind == "cut":
                if self._random.random() < 0.5:
                    writer.transport.abort()
                return False
            last = {"model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
            self._chunk(writer, b"data: " + json.dumps(last).encode() + b"\n\ndata: [DONE]\n\n")
            self._chunk(writer, b"")
            return True
        if kind == "idle":
            await asyncio.sleep(self._random.random() * 5)
        status, text = (
            (500, None) if kind == "error" else (200, "" if kind == "empty" else "An answer. " * 40)
        )
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        body = json.dumps(
            {"error": {"message": "no"}} if status == 500 else {"model": "m", "choices": [choice]}
        )
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        return True

    @staticmethod
    def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(b"%x\r\n%b\r\n" % (len(data), data))


def main() -> int:
    """Run it and say what was sent."""
    port, seconds, seed, *kinds = sys.argv[1:]
    slowly = "--slowly" in kinds
    traffic = Traffic(
        port=int(port),
        seed=int(seed),
        kinds=[kind for kind in kinds if kind != "--slowly"] or _KINDS,
        pause_s=2.0 if slowly else 0.02,
        models=1 if slowly else 40,
    )
    asyncio.run(traffic.run(float(seconds)))
    print(json.dumps(traffic.sent), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
