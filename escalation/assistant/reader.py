"""The orchestrator's API for who only reads: one method, GET, and a token that may do no more.

Error tree: `ReadError`, whose message is a sentence for whoever asked.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import httpx2
import msgspec

from escalation.cli.connection import Connection, trust
from escalation.inert import guarded
from escalation.view.listings import Me

T = TypeVar("T")

_TIMEOUT_S: Final = 20.0
_LARGEST_ANSWER_BYTES: Final = 16 * 1024 * 1024
_AT_ONCE: Final = 4


class ReadError(Exception):
    """Something could not be read; the message says what and why."""


class Reader:
    """One connection; an asynchronous context manager."""

    def __init__(self, connection: Connection, *, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        """Talk to `connection`; nothing is sent before the first call. Tests give a `transport`."""
        self._url = connection.url
        self._http = httpx2.AsyncClient(
            base_url=connection.url,
            headers={"Authorization": f"Bearer {connection.token}", "Accept": "application/json"},
            verify=trust(connection),
            timeout=_TIMEOUT_S,
            limits=httpx2.Limits(max_connections=_AT_ONCE),
            transport=transport,
            trust_env=False,  # a proxy of the environment would see the token
        )

    def __repr__(self) -> str:
        return f"Reader({self._url!r})"

    async def __aenter__(self) -> Reader:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._http.aclose()

    async def get(self, path: str, kind: type[T], **query: str | int) -> T:
        """Return what is at `path`, read as `kind`; what this version does not know of it is left out."""
        body = await self._body(path, query)
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ReadError(f"{path} was answered in words that are not the orchestrator's") from error

    async def readable(self) -> Me:
        """Return who we are; raise ReadError unless the token's role is the one that only reads."""
        me = await self.get("/api/v1/me", Me)
        if me.may_decide or me.role != "viewer":
            raise ReadError(
                f"the token of {guarded(me.name)} has the role {guarded(me.role)}; "
                "an assistant gets one that reads and can do nothing else: role viewer"
            )
        return me

    async def _body(self, path: str, query: dict[str, Any]) -> bytes:
        body = bytearray()
        try:
            async with self._http.stream("GET", path, params=query) as response:
                async for piece in response.aiter_bytes():
                    body += piece
                    if len(body) > _LARGEST_ANSWER_BYTES:
                        raise ReadError(f"the answer to {path} is too long; ask for fewer")
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ReadError(f"the orchestrator cannot be asked: {type(error).__name__}") from error
        if response.status_code != 200:
            raise ReadError(_refusal(path, response.status_code, bytes(body)))
        return bytes(body)


def _refusal(path: str, status: int, body: bytes) -> str:
    try:
        message = guarded(str(msgspec.json.decode(body)["error"]["message"]))
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
        message = "in words that are not the orchestrator's"
    return f"the orchestrator refused {path} ({status}): {message}"
