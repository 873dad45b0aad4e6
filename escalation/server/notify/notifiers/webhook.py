"""A JSON POST to any URL, signed with a shared secret.

The signature is `X-Nanobot-Signature: sha256=HEX`, the HMAC of `TIMESTAMP.BODY` where TIMESTAMP is what
`X-Nanobot-Timestamp` says: who checks both can refuse what was made up, and what was recorded and sent again.
The `id` of the body is the same when a message comes twice.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from escalation.server.notify.notice_routes import ReceiverName
from escalation.server.notify.notices import Event, Message
from escalation.server.notify.notifiers.receiver import checked_url, http_client, post, read_secret

EVENTS: Final = frozenset(Event)


class WebhookSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[notify.webhook]]`: where to, and the file with the secret that signs (mode 0600)."""

    name: ReceiverName
    url: str
    secret_file: Path
    ca_file: Path | None = None

    def __post_init__(self) -> None:
        """Refuse a URL that is none, or is not private."""
        checked_url(self.url)

    def events(self) -> frozenset[Event]:
        """Return what can be told this way."""
        return EVENTS

    def build(self) -> Webhook:
        """Return the receiver; raise ValueError when its files cannot be used."""
        return Webhook(settings=self)


class Webhook:
    """Sends each message by itself."""

    batch = 1
    repeat_s: float | None = None
    events = EVENTS

    def __init__(self, *, settings: WebhookSettings) -> None:
        """Read the secret; it is kept out of every `repr`."""
        self.name: str = settings.name
        self._url = settings.url
        self._secret = read_secret(settings.secret_file).encode()
        self._client = http_client(settings.ca_file)

    def __repr__(self) -> str:
        return f"Webhook({self.name!r})"

    async def send(self, messages: Sequence[Message], *, now_ns: int) -> None:
        """Post the message."""
        for message in messages:
            body = payload(message)
            timestamp = str(now_ns // 1_000_000_000)
            headers = {
                "X-Nanobot-Timestamp": timestamp,
                "X-Nanobot-Signature": f"sha256={signature(self._secret, timestamp, body)}",
            }
            await post(self._client, self._url, body, headers)

    async def close(self) -> None:
        """Close connections."""
        await self._client.aclose()


def payload(message: Message) -> bytes:
    """Return the body, in printable ASCII."""
    return msgspec.json.encode({"version": 1, **msgspec.to_builtins(message)})


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """Return what the signature header has to hold."""
    return hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
