"""Who is at the other end of a connection over the tailnet, as the tailscaled of this host says.

Asked is LocalAPI's `whois` for the address and port of the socket's own peer. The `Tailscale-User-*` headers
that a proxy adds are never read: whoever reaches the listener can write them. So a peer on loopback, such as
`tailscale serve`, is nobody. Whatever goes wrong, nobody is let in.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final

import httpx2
import msgspec

from escalation.server.web.access import Person
from escalation.server.web.login.refusals import LoginBusy, WrongCredentials

TAILNET: Final = (ipaddress.ip_network("100.64.0.0/10"), ipaddress.ip_network("fd7a:115c:a1e0::/48"))

_TIMEOUT_S: Final = 3.0
_LONGEST_BYTES: Final = 256 * 1024
_TAGGED: Final = "tagged-devices"


class TailscaleSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[login.tailscale]` table: where tailscaled listens.

    With `fresh` such a login counts as having shown who one is, though only a device says it; without it,
    approving wants a passkey or a password besides.
    """

    socket: Path = Path("/run/tailscale/tailscaled.sock")
    fresh: bool = False


class _Node(msgspec.Struct, frozen=True):
    tags: tuple[str, ...] | None = msgspec.field(name="Tags", default=None)


class _Profile(msgspec.Struct, frozen=True):
    login_name: Annotated[str, msgspec.Meta(min_length=1)] = msgspec.field(name="LoginName")


class _Whois(msgspec.Struct, frozen=True):
    """What is read of `apitype.WhoIsResponse`."""

    node: _Node = msgspec.field(name="Node")
    profile: _Profile = msgspec.field(name="UserProfile")


class Tailnet:
    """The tailnet, as one tailscaled knows it."""

    def __init__(self, *, settings: TailscaleSettings, persons: Iterable[Person]) -> None:
        """Ask at the socket of `settings`; know `persons`."""
        self._settings = settings
        self._persons = tuple(persons)

    def __repr__(self) -> str:
        return f"Tailnet(socket={str(self._settings.socket)!r})"

    async def person(self, host: str, port: int) -> Person:
        """Return our person at this end of a connection; raise LoginRefused."""
        if not is_tailnet(host):
            raise WrongCredentials("you do not come over the tailnet")
        body = await self._ask(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        try:
            found = msgspec.json.decode(body, type=_Whois)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise LoginBusy("tailscaled answers something else than expected") from error
        # A tagged machine is nobody's: what it is called then is a tag, never a login.
        if found.node.tags:
            names = frozenset(each for each in found.node.tags if each.startswith("tag:"))
        else:
            login = found.profile.login_name
            names = frozenset() if login == _TAGGED or login.startswith("tag:") else frozenset({login})
        known = [person for person in self._persons if not names.isdisjoint(person.tailscale)]
        if len(known) != 1:
            raise WrongCredentials("the tailnet knows you, and nobody here is called so")
        return known[0]

    async def _ask(self, address: str) -> bytes:
        try:
            async with (
                httpx2.AsyncClient(
                    transport=httpx2.AsyncHTTPTransport(uds=str(self._settings.socket)),
                    base_url="http://local-tailscaled.sock",
                    timeout=_TIMEOUT_S,
                    trust_env=False,
                ) as client,
                client.stream("GET", "/localapi/v0/whois", params={"addr": address}) as answer,
            ):
                body = bytearray()
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > _LONGEST_BYTES:
                        raise LoginBusy("tailscaled answers at too great length")
        except (httpx2.HTTPError, OSError) as error:
            raise LoginBusy("tailscaled does not answer") from error
        if answer.status_code == httpx2.codes.NOT_FOUND:
            raise WrongCredentials("the tailnet does not know you")
        if answer.status_code != httpx2.codes.OK:
            raise LoginBusy("tailscaled does not answer")
        return bytes(body)


def is_tailnet(host: str) -> bool:
    """Return whether this is an address of a tailnet."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in TAILNET)
