"""What every receiver is: it takes messages, or says whether trying again makes sense.

Error tree: `NotifyError` > `Unreachable` (try again), `Rejected` (never will).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

import httpx2

from escalation.server.notify.notices import Event, Message

TIMEOUT_S: Final = 10.0
WHOLE_S: Final = 20.0
"""How long one attempt may take, from the first to the last byte."""

_SECRET_BYTES: Final = 64 * 1024
_RETRIED: Final = frozenset({408, 425, 429})


class NotifyError(Exception):
    """Anything that keeps a message from its receiver; the text holds no secret and nothing of an answer."""


class Unreachable(NotifyError):
    """It did not work now; it may work later."""


class Rejected(NotifyError):
    """The receiver does not want this, and will not want it later."""


class Receiver(Protocol):
    """Takes messages."""

    name: str
    events: frozenset[Event]
    batch: int
    """How many messages it takes at once; of one that takes one, many are folded into "and N more"."""

    repeat_s: float | None
    """How often what still stands has to be told again; None when once is enough."""

    async def send(self, messages: Sequence[Message], *, now_ns: int) -> None:
        """Hand over `messages`, all or none; raise NotifyError."""

    async def close(self) -> None:
        """Let go of connections."""


def checked_url(url: str) -> str:
    """Return `url`; raise ValueError unless it is https, or http to this machine, and holds no password."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in {"http", "https"} or not host or parts.port == 0:
        raise ValueError("a URL is https://host[:port]/path")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL holds no user name and no password")
    if parts.fragment:
        raise ValueError("a URL holds no fragment")
    if parts.scheme == "http" and not _loopback(host):
        raise ValueError("a URL is https; http is for this machine alone")
    return url


def read_secret(path: Path) -> str:
    """Return what is in a file that only its owner may read; raise ValueError naming the file."""
    try:
        if path.stat().st_mode & 0o077:
            raise ValueError(f"{path}: others may read it (chmod 600)")
        with path.open("rb") as file:
            content = file.read(_SECRET_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        text = ""
    if not text or len(content) > _SECRET_BYTES:
        raise ValueError(f"{path}: is empty, too long, or no text")
    return text


def http_client(ca_file: Path | None) -> httpx2.AsyncClient:
    """Return a client that verifies, follows nothing, and takes nothing from the environment."""
    trust = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    return httpx2.AsyncClient(
        verify=trust,
        timeout=TIMEOUT_S,
        follow_redirects=False,
        trust_env=False,
        headers={"User-Agent": "host-nanobot"},
    )


async def post(client: httpx2.AsyncClient, url: str, body: bytes, headers: Mapping[str, str]) -> None:
    """Send `body`; what is answered is not read beyond its status."""
    with _mapped():
        async with asyncio.timeout(WHOLE_S), _answer(client, url, body, headers) as answer:
            status = answer.status_code
    if 200 <= status < 300:
        return
    if status >= 500 or status in _RETRIED:
        raise Unreachable(f"it answers {status}")
    raise Rejected(f"it answers {status}")


@contextlib.asynccontextmanager
async def _answer(
    client: httpx2.AsyncClient, url: str, body: bytes, headers: Mapping[str, str]
) -> AsyncIterator[httpx2.Response]:
    content = {"Content-Type": "application/json", **headers}
    async with client.stream("POST", url, content=body, headers=content) as answer:
        yield answer


@contextlib.contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise Unreachable(f"it takes longer than {WHOLE_S:.0f} seconds") from error
    except (httpx2.HTTPError, httpx2.InvalidURL, ssl.SSLError) as error:
        raise Unreachable(type(error).__name__) from error


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
