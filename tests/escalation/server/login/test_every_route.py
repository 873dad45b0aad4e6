"""Every route of the whole application, with every kind of credential.

The table of who may use it is the one that people read, docs/reference/http-api.md: a route that is added
without a line there fails the first test, and one whose line says another role fails the others.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio
from starlette.routing import Route

from escalation.server.web.login.oidc import OidcSettings
from escalation.server.web.login.settings import LoginSettings
from escalation.server.web.login.tailnet import TailscaleSettings
from tests.escalation.server.login.conftest import LOCAL, ROLES, House, built, csrf, token

OPEN = "-"

PAGE = Path(__file__).parents[4] / "docs/reference/http-api.md"

# Route: the least role that may use it ("-": anybody), as people read it.
TABLE = dict(re.findall(r"^\| `((?:GET|POST) \S+)` \| (\S+) \|", PAGE.read_text(), re.MULTILINE))
STREAMS = {"/api/v1/watch", "/live"}
"""What has no end: read over real sockets elsewhere; here only its refusals."""

EVERYTHING = LoginSettings(
    idle_s=60,
    fresh_s=60,
    oidc=OidcSettings(issuer="http://127.0.0.1:1", client_id="nanobot"),
    tailscale=TailscaleSettings(socket=Path("/nonexistent")),
)
"""Settings with which every route is there; what they ask elsewhere does not answer."""

NEED = ("scraper", "viewer", "operator", "admin")
PEOPLE = {"sue": "scraper", "vera": "viewer", "ada": "operator", "root": "admin"}


@pytest_asyncio.fixture
async def house() -> AsyncIterator[House]:
    """The application with all its routes, and a person of each role."""
    async with built(settings=EVERYTHING) as house:
        yield house


def routes(house: House) -> dict[str, Route]:
    """Return every route of the application."""
    found = {}
    for route in house.app.routes:
        assert isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}:
            found[f"{method} {route.path}"] = route
    return found


async def ask(
    house: House, client: httpx2.AsyncClient, route: str, *, page: bool = True, **headers: str
) -> httpx2.Response:
    """Ask for a route with an id that exists and a body that says nothing."""
    method, path = route.split(" ")
    entry = await house.desk.queue(None)
    url = re.sub(r"\{\w+\}", entry[0].recommendation.id, path)
    kind = "application/json" if path.startswith("/api/") else "application/x-www-form-urlencoded"
    content = {"POST": b"{}" if path.startswith("/api/") else b""}.get(method)
    sent = {"accept": "text/html" if page else "application/json", **headers}
    if method == "POST":
        sent["content-type"] = kind
    return await client.request(method, url, headers=sent, content=content)


async def test_every_route_has_a_line(house: House) -> None:
    """A route that is added without saying who may use it fails here."""
    assert set(routes(house)) == set(TABLE)


def permits(role: str, route: str) -> bool:
    """Return whether the table lets `role` use `route`."""
    least = TABLE[route]
    return least == OPEN or NEED.index(role) >= NEED.index(least)


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}])
async def test_nobody_reaches_only_what_is_open(house: House, headers: dict[str, str]) -> None:
    """Without credentials, and with wrong ones, everything is 401 but what the table opens to anybody."""
    await house.desk.opened()
    for route, least in TABLE.items():
        status = (await ask(house, house.browser(), route, page=False, **headers)).status_code
        assert (status in {401, 429}) is (least != OPEN), (route, status)


@pytest.mark.parametrize("name", sorted(PEOPLE))
async def test_a_token_reaches_what_its_role_may_and_nothing_else(house: House, name: str) -> None:
    """Of every route, a lesser role is 403, and the role of the table is not."""
    await house.desk.opened()
    client = house.browser()
    for route in TABLE:
        may = permits(PEOPLE[name], route)
        if may and route.split(" ")[1] in STREAMS:
            continue
        status = (await ask(house, client, route, authorization=f"Bearer {token(name)}")).status_code
        assert (status == 403) is not may, (route, status)
        assert status != 500, route


@pytest.mark.parametrize("name", sorted(set(PEOPLE) - {"sue"}))
async def test_a_session_reaches_what_its_role_may_and_writes_only_with_its_token(
    house: House, name: str
) -> None:
    """With a cookie a read needs the role alone; a write needs the form token of its own session too."""
    await house.desk.opened()
    others = await csrf(await house.enters("bob"))
    for route, least in TABLE.items():
        method, path = route.split(" ")
        may = permits(PEOPLE[name], route)
        if may and path in STREAMS:
            continue
        client = await house.enters(name)
        own = await csrf(client)
        if method == "POST" and least != OPEN:
            for wrong in ({}, *({"x-csrf-token": each} for each in ("", "wrong", own[:-1], others))):
                assert (await ask(house, client, route, **wrong)).status_code == 403, (route, wrong)
        status = (await ask(house, client, route, **{"x-csrf-token": own})).status_code
        assert (status == 403) is not may, (route, status)
        assert status != 500, route


async def test_an_expired_session_reaches_only_what_is_open() -> None:
    """After the idle time a cookie is nobody's: pages lead to the login, everything else is 401."""
    async with built(settings=EVERYTHING) as house:
        await house.desk.opened()
        client = await house.enters("root")
        guard = {"x-csrf-token": await csrf(client)}
        cookies = dict(client.cookies)
        house.desk.clock.advance(61)
        for route, least in TABLE.items():
            client = house.browser()
            client.cookies.update(cookies)
            if least == OPEN:
                assert (await ask(house, client, route)).status_code not in {401, 403}, route
                continue
            answer = await ask(house, client, route, **guard)
            assert answer.status_code == 303, route
            assert answer.headers["location"].startswith("/login"), route
            assert (await ask(house, client, route, page=False)).status_code == 401, route


async def test_a_scraper_has_no_page(house: House) -> None:
    """A scraper's token opens a session that reads the metrics and no page."""
    client = await house.enters("sue")
    assert (await client.get("/metrics")).status_code == 200
    assert (await client.get("/account")).status_code == 403
    assert (await client.get("/")).status_code == 403


@pytest.mark.parametrize(
    "header", [{"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}]
)
async def test_another_site_writes_nothing(house: House, header: dict[str, str]) -> None:
    """Even with the cookie and the right token, what a page of another origin sends is refused."""
    await house.desk.opened()
    client = await house.enters("root")
    guard = {"x-csrf-token": await csrf(client)}
    before = house.desk.store.ledger
    for route in TABLE:
        if route.startswith("POST"):
            assert (await ask(house, client, route, **guard, **header)).status_code == 403, route
    assert house.desk.store.ledger is before


async def test_reading_writes_nothing(house: House) -> None:
    """GET and HEAD of each route leave the ledger as it was."""
    await house.desk.opened()
    client = await house.enters("root")
    before = house.desk.store.ledger
    for route in TABLE:
        if route.startswith("GET") and route.split(" ")[1] not in STREAMS:
            await ask(house, client, route)
            await ask(house, client, route.replace("GET", "HEAD"))
            assert house.desk.store.ledger is before, route


def test_the_people_here_have_all_roles() -> None:
    """Each role is tried."""
    assert {role.value for role in ROLES.values()} == set(NEED)
    assert LOCAL.startswith("http://127.0.0.1")
