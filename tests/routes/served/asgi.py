"""The misbehaving upstream as an ASGI application, for uvicorn and granian: plays a model's script."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ctypes
import json
import os
import socket
from pathlib import Path
from typing import Any

_SCRIPTS: dict[str, Any] = json.loads(Path(os.environ["ROUTES_SCRIPTS"]).read_text())
_JOURNAL = os.environ["ROUTES_JOURNAL"]


def _note(path: str, body: bytes, asked: dict[str, Any]) -> None:
    line = {"path": path, "model": asked.get("model"), "bytes": len(body), "stream": asked.get("stream")}
    line["stream_options"] = asked.get("stream_options")
    with Path(_JOURNAL).open("a") as journal:
        journal.write(json.dumps(line) + "\n")


def _connection(client: tuple[str, int]) -> socket.socket:
    """The accepted socket of `client`, by its peer address: servers do not hand theirs to an application."""
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if not entry.is_socket():
                continue
            found = socket.socket(fileno=os.dup(int(entry.name)))
        except OSError:
            continue
        with contextlib.suppress(OSError):
            if found.getpeername()[:2] == tuple(client):
                return found
        found.close()
    raise LookupError(f"no connection from {client}")


def _reset(connection: socket.socket) -> None:
    """Connecting a TCP socket to AF_UNSPEC dissolves its association, which sends a reset."""
    unspecified = bytes(16)
    if ctypes.CDLL(None, use_errno=True).connect(connection.fileno(), unspecified, 16) != 0:
        raise OSError(ctypes.get_errno(), "reset a connection")


async def _gone(receive: Any) -> None:
    async with asyncio.timeout(10):
        while (await receive())["type"] != "http.disconnect":
            pass


async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: C901, PLR0912 - one protocol, one place
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if scope["method"] == "GET":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
        return
    asked = json.loads(body)
    _note(scope["path"], body, asked)
    script = _SCRIPTS[asked["model"]]
    if script["end"] == "silent":
        await _gone(receive)
        return
    headers = [(b"content-type", script["content_type"].encode())]
    if script["length"] is not None:
        headers.append((b"content-length", str(script["length"]).encode()))
    await send({"type": "http.response.start", "status": script["status"], "headers": headers})
    last = len(script["writes"]) - 1
    for position, piece in enumerate(script["writes"]):
        goes_on = position < last or script["end"] != "done" or script["length"] is None
        await send({"type": "http.response.body", "body": base64.b64decode(piece), "more_body": goes_on})
        if script["pause_ms"]:
            await asyncio.sleep(script["pause_ms"] / 1000)
    if script["end"] == "wait":
        await _gone(receive)
    elif script["end"] in ("fin", "reset"):
        with _connection(scope["client"]) as connection:
            if script["end"] == "reset":
                _reset(connection)
            else:
                connection.shutdown(socket.SHUT_RDWR)
        await _gone(receive)
    elif script["length"] is None:
        await send({"type": "http.response.body", "body": b"", "more_body": False})
