"""Who the tailnet says is there, from a stand-in for tailscaled that answers as its documentation does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx2
import pytest
from hypothesis import given, settings as bounds, strategies as st

from escalation.server.config import Config, GrpcSettings
from escalation.server.web.http import HttpSettings
from escalation.server.web.login.refusals import LoginRefused
from escalation.server.web.login.settings import LoginSettings
from escalation.server.web.login.tailnet import Tailnet, TailscaleSettings, is_tailnet
from tests.escalation.server.login.conftest import House, built, csrf, person

ADA = person("ada", tailscale=("ada@works.example",))
BOT = person("bob", tailscale=("tag:console",))
PEER = ("100.101.102.103", 41234)


def whois(login: str = "ada@works.example", tags: list[str] | None = None, **said: Any) -> dict[str, Any]:
    """Return what LocalAPI answers about a peer (apitype.WhoIsResponse)."""
    node: dict[str, Any] = {
        "ID": 1,
        "StableID": "nABC",
        "Name": "laptop.tail1234.ts.net.",
        "Addresses": ["100.101.102.103/32"],
        "Hostinfo": {"OS": "linux"},
    }
    profile = {"ID": 5, "LoginName": login, "DisplayName": "Ada", "ProfilePicURL": ""}
    return {"Node": node | ({"Tags": tags} if tags else {}), "UserProfile": profile, "CapMap": None} | said


@dataclass
class StandIn:
    """A tailscaled that answers each question with `status` and `body`, and keeps what was asked."""

    status: int = 200
    body: bytes = json.dumps(whois()).encode()
    hangs_up: bool = False
    asked: list[str] = field(default_factory=list)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one question."""
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(unquote(request.split(" ")[1]))
        if not self.hangs_up:
            head = (
                f"HTTP/1.1 {self.status} X\r\nContent-Length: {len(self.body)}\r\nConnection: close\r\n\r\n"
            )
            writer.write(head.encode() + self.body)
            await writer.drain()
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def tailscaled(folder: Path, **fields: Any) -> AsyncIterator[tuple[StandIn, TailscaleSettings]]:
    """Run a stand-in on a Unix socket while inside."""
    stand_in, path = StandIn(**fields), folder / "tailscaled.sock"
    server = await asyncio.start_unix_server(stand_in.answer, path)
    try:
        yield stand_in, TailscaleSettings(socket=path)
    finally:
        server.close()
        await server.wait_closed()


async def tries(house: House, peer: tuple[str, int] = PEER, **headers: str) -> httpx2.Response:
    """Press the button, from `peer`."""
    client = house.browser(client=peer)
    answer = await client.post("/login/tailscale", data={"next": "/account"}, headers=headers)
    return answer if answer.status_code != 303 else await client.get("/account")


async def test_a_member_of_the_tailnet_is_let_in_as_our_person(tmp_path: Path) -> None:
    """tailscaled is asked for the address and port of the socket's own peer; its login names our person."""
    async with (
        tailscaled(tmp_path) as (stand_in, settings),
        built(ADA, BOT, settings=LoginSettings(tailscale=settings)) as house,
    ):
        shown = await tries(house)
        assert "<bdi>ada</bdi>" in shown.text
        assert stand_in.asked == ["/localapi/v0/whois?addr=100.101.102.103:41234"]
        assert ("ada", "session.opened", "ada") in await house.audited()
        await tries(house, ("fd7a:115c:a1e0::7", 5))
        assert stand_in.asked[-1] == "/localapi/v0/whois?addr=[fd7a:115c:a1e0::7]:5"


@pytest.mark.parametrize(
    ("said", "page"),
    [
        (whois("tagged-devices", ["tag:console", "tag:other"]), "<bdi>bob</bdi>"),
        (whois("tagged-devices", ["tag:other"]), "Not logged in"),
        (whois("ada@works.example", ["tag:other"]), "Not logged in"),
        (whois("tagged-devices"), "Not logged in"),
        (whois("tag:console"), "Not logged in"),
        (whois("mallory@works.example"), "Not logged in"),
        (whois("ADA@works.example"), "Not logged in"),
    ],
)
async def test_tags_name_machines_and_logins_people(tmp_path: Path, said: dict[str, Any], page: str) -> None:
    """A tagged machine is whom its tag says, whoever once logged it in; a login counts letter by letter."""
    async with (
        tailscaled(tmp_path, body=json.dumps(said).encode()) as (_, settings),
        built(ADA, BOT, settings=LoginSettings(tailscale=settings)) as house,
    ):
        assert page in (await tries(house)).text


async def test_whoever_fits_two_persons_is_neither(tmp_path: Path) -> None:
    """A machine with the tags of two persons is not clear, which lets nobody in."""
    said = json.dumps(whois("tagged-devices", ["tag:console", "tag:desk"])).encode()
    async with (
        tailscaled(tmp_path, body=said) as (_, settings),
        built(
            BOT, person("ada", tailscale=("tag:desk",)), settings=LoginSettings(tailscale=settings)
        ) as house,
    ):
        assert (await tries(house)).status_code == 422


@pytest.mark.parametrize(
    "peer", [("127.0.0.1", 5), ("::1", 5), ("192.168.1.7", 5), ("100.128.0.1", 5), ("", 0)]
)
async def test_who_does_not_come_over_the_tailnet_is_not_asked_about(
    tmp_path: Path, peer: tuple[str, int]
) -> None:
    """No header makes a peer on loopback, behind a proxy or elsewhere, somebody of the tailnet."""
    async with (
        tailscaled(tmp_path) as (stand_in, settings),
        built(ADA, settings=LoginSettings(tailscale=settings)) as house,
    ):
        headers = {
            "Tailscale-User-Login": "ada@works.example",
            "X-Forwarded-For": "100.101.102.103",
            "Forwarded": "for=100.101.102.103",
        }
        assert (await tries(house, peer, **headers)).status_code == 422
        assert stand_in.asked == []


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"status": 404, "body": b"no match for IP:port"}, 422),
        ({"status": 403, "body": b"whois access denied"}, 503),
        ({"status": 500}, 503),
        ({"hangs_up": True}, 503),
        ({"body": b""}, 503),
        ({"body": b"null"}, 503),
        ({"body": b"[" * 100_000}, 503),
        ({"body": b"x" * 300_000}, 503),
        ({"body": b'{"Node": null, "UserProfile": {"LoginName": "ada@works.example"}}'}, 503),
        ({"body": b'{"Node": {}, "UserProfile": null}'}, 503),
        ({"body": b'{"Node": {"Tags": "tag:console"}, "UserProfile": {"LoginName": "x"}}'}, 503),
        ({"body": b'{"Node": {}, "UserProfile": {"LoginName": ""}}'}, 503),
    ],
)
async def test_whatever_goes_wrong_lets_nobody_in(
    tmp_path: Path, fields: dict[str, Any], status: int
) -> None:
    """An unknown peer is refused; a tailscaled that fails or answers oddly is named, and other ways stay."""
    async with (
        tailscaled(tmp_path, **fields) as (_, settings),
        built(ADA, BOT, settings=LoginSettings(tailscale=settings)) as house,
    ):
        assert (await tries(house)).status_code == status
        assert await house.enters("ada")


async def test_without_tailscaled_nobody_comes_in_by_it(tmp_path: Path) -> None:
    """A socket that is not there is said on the page."""
    settings = TailscaleSettings(socket=tmp_path / "nothing")
    async with built(ADA, settings=LoginSettings(tailscale=settings)) as house:
        answer = await tries(house)
        assert answer.status_code == 503
        assert "tailscaled does not answer" in answer.text


@pytest.mark.parametrize(("fresh", "status"), [(False, 403), (True, 200)])
async def test_a_device_alone_approves_nothing_unless_the_settings_say_so(
    tmp_path: Path, fresh: bool, status: int
) -> None:
    """Whoever holds the device is logged in by it; approving wants more than that."""
    async with tailscaled(tmp_path) as (_, socket):
        settings = LoginSettings(tailscale=TailscaleSettings(socket=socket.socket, fresh=fresh))
        async with built(ADA, settings=settings) as house:
            entry = await house.desk.opened()
            client = house.browser(client=PEER)
            await client.post("/login/tailscale", data={"next": "/"})
            body = {"reason": "quiet", "digest": entry.recommendation.digest}
            answer = await client.post(
                f"/api/v1/queue/{entry.recommendation.id}/approve",
                json=body,
                headers={"x-csrf-token": await csrf(client)},
            )
            assert answer.status_code == status


async def test_the_button_is_shown_to_who_comes_over_the_tailnet_alone(tmp_path: Path) -> None:
    """Elsewhere it would only refuse."""
    async with built(ADA, settings=LoginSettings(tailscale=TailscaleSettings())) as house:
        assert "tailnet" in (await house.browser(client=PEER).get("/login")).text
        assert "tailnet" not in (await house.browser().get("/login")).text


@pytest.mark.parametrize(
    ("listen", "fits"), [("127.0.0.1:9737", False), ("0.0.0.0:9737", False), ("100.64.0.1:9737", True)]
)
def test_the_listener_is_on_the_tailnet(listen: str, fits: bool) -> None:
    """On another address the way in is refused when the settings are read."""
    nowhere = Path("/nonexistent")

    def read() -> Config:
        return Config(
            grpc=GrpcSettings(certificate=nowhere, key=nowhere, clients_ca=nowhere),
            http=HttpSettings(listen=listen),
            login=LoginSettings(tailscale=TailscaleSettings()),
        )

    if fits:
        assert read().login.tailscale is not None
    else:
        with pytest.raises(ValueError, match="of the tailnet"):
            read()


@bounds(max_examples=100)
@given(st.binary(max_size=300) | st.sampled_from([b"{}", b'{"Node": {"Tags": [7]}}']))
def test_no_answer_makes_the_login_fail(body: bytes) -> None:
    """Whatever is answered, it is a person or a refusal."""

    class Answering(Tailnet):
        async def _ask(self, address: str) -> bytes:
            return body

    async def ask() -> None:
        with pytest.raises(LoginRefused):
            await Answering(settings=TailscaleSettings(), persons=[ADA]).person(*PEER)

    asyncio.run(ask())


@given(st.text(max_size=50))
def test_no_text_is_taken_for_an_address_of_the_tailnet(host: str) -> None:
    """Text is an address of the tailnet or it is not."""
    assert is_tailnet(host) is False or host.count(".") == 3 or ":" in host
