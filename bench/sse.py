"""A model server that streams at a set pace, and a client that reads many streams: two processes.

python -m bench.sse server PORT                             uvicorn, until it is ended
python -m bench.sse client PORT STREAMS CHUNKS PACE [KEEP]  one line of JSON; PACE in chunks a second and
                                                            stream, 0 is as fast as possible; with KEEP the
                                                            connections stay open until stdin ends
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn

from bench.paired import percentile

Message = MutableMapping[str, Any]

_CHUNK = (
    b'data: {"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1760000000,'
    b'"model":"bench-model","choices":[{"index":0,"delta":{"content":" word%d"},"logprobs":null,'
    b'"finish_reason":null}]}\n\n'
)
_LAST = (
    b'data: {"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1760000000,'
    b'"model":"bench-model","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)


async def application(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Stream as many chunks as the request asks for (`max_tokens`), at its `pace`."""
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    asked = json.loads(body)
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    pause_s = 1 / asked["pace"] if asked["pace"] else 0.0
    due = time.monotonic()
    for number in range(asked["max_tokens"] - 1):
        await send({"type": "http.response.body", "body": _CHUNK % number, "more_body": True})
        due += pause_s
        await asyncio.sleep(max(0.0, due - time.monotonic()) if pause_s else 0)
    await send({"type": "http.response.body", "body": _LAST})


async def stream(port: int, chunks: int, pace: float) -> tuple[float, int, asyncio.StreamWriter]:
    """Ask for one stream and read it; return seconds to its first chunk, bytes, and the open connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps(
        {
            "messages": [{"role": "user", "content": "x" * 2000}],
            "model": "bench-model",
            "stream": True,
            "max_tokens": chunks,
            "pace": pace,
        }
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    started = time.perf_counter()
    writer.write(head.encode() + body)
    size, tail, first_s = 0, b"", 0.0
    while not tail.endswith(b"0\r\n\r\n"):
        piece = await reader.read(65536)
        if not piece:
            raise SystemExit("the server closed a stream")
        if b"data: " in piece and not first_s:
            first_s = time.perf_counter() - started
        size += len(piece)
        tail = (tail + piece)[-16:]
    return first_s, size, writer


async def read_streams(port: int, streams: int, chunks: int, pace: float) -> list[asyncio.StreamWriter]:
    """Read all streams at once and print what it took."""
    started = time.perf_counter()
    done = await asyncio.gather(*(stream(port, chunks, pace) for _ in range(streams)))
    took_s = time.perf_counter() - started
    firsts = [first for first, _, _ in done]
    figures = {
        "chunks_per_s": streams * chunks / took_s,
        "first_p50_s": percentile(firsts, 0.5),
        "first_p99_s": percentile(firsts, 0.99),
        "took_s": took_s,
    }
    print(json.dumps(figures), flush=True)
    return [writer for _, _, writer in done]


async def _client(port: int, streams: int, chunks: int, pace: float, *, keep: bool) -> None:
    writers = await read_streams(port, streams, chunks, pace)
    if keep:
        await asyncio.to_thread(sys.stdin.read)
    for writer in writers:
        writer.close()


def main() -> int:
    """Run one side."""
    role, port = sys.argv[1], int(sys.argv[2])
    if role == "server":
        uvicorn.run(application, port=port, log_level="error", access_log=False, timeout_keep_alive=600)
        return 0
    streams, chunks, pace = int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
    asyncio.run(_client(port, streams, chunks, pace, keep="KEEP" in sys.argv[6:]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
