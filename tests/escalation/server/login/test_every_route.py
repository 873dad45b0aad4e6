"""Every route of the whole application, with every kind of credential: the table says who may use it.

A slice that adds routes adds a line each here; without one the first test fails.
"""

from __future__ import annotations

import re
from pathlib import Path

import httpx2
import pytest
from starlette.routing import Route

from escalation.server.login.settings import LoginSettings
from tests.escalation.server.login.conftest import LOCAL, ROLES, House, built, csrf, token

OPEN = "-"

# Route: the least role that may use it ("-": anybody).
TABLE = {
    "GET /": "viewer",
    "GET /account": "viewer",
    "POST /account/sessions/end": "viewer",
    "POST /account/sessions/{id}/end": "viewer",
    "GET /api/v1/audit": "viewer",
    "GET /api/v1/audit/head": "viewer",
    "GET /api/v1/hosts": "viewer",
    "GET /api/v1/incidents": "viewer",
    "GET /api/v1/incidents/{id}": "viewer",
    "GET /api/v1/me": "scraper",
    "GET /api/v1/notify": "viewer",
    "POST /api/v1/notify/{id}/test": "operator",
    "GET /api/v1/openapi.json": "viewer",
    "GET /api/v1/queue": "viewer",
    "GET /api/v1/queue/{id}": "viewer",
    "POST /api/v1/queue/{id}/approve": "operator",
    "POST /api/v1/queue/{id}/done": "operator",
    "POST /api/v1/queue/{id}/reject": "operator",
    "GET /api/v1/watch": "viewer",
    "GET /hosts": "viewer",
    "GET /livez": OPEN,
    "GET /login": OPEN,
    "POST /login": OPEN,
    "GET /login/again": "viewer",
    "POST /login/again": "viewer",
    "POST /logout": "scraper",
    "GET /metrics": "scraper",
    "GET /q/{id}": "viewer",
    "GET /readyz": OPEN,
    "GET /static/login.css": OPEN,
    "GET /static/login.js": OPEN,
    "GET /static/style.css": OPEN,
}
STREAMS = {"/api/v1/watch", "/events"}
"""What has no end: read over real sockets elsewhere; here only its refusals."""

NEED = ("scraper", "viewer", "operator", "admin")
PEOPLE = {"sue": "scraper", "vera": "viewer", "ada": "operator", "root": "admin"}
REFUSED = {401, 403}


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


async def test_every_route_stands_in_the_reference_with_its_role(house: House) -> None:
    """docs/reference/http-api.md names each route and the least role that may use it."""
    page = (Path(__file__).parents[4] / "docs/reference/http-api.md").read_text()
    rows = re.findall(r"^\| `((?:GET|POST) \S+)` \| (\S+) \|", page, re.MULTILINE)
    assert dict(rows) == TABLE


@pytest.mark.parametrize("route", sorted(TABLE))
async def test_a_token_reaches_what_its_role_may_and_nothing_else(house: House, route: str) -> None:
    """Nobody and wrong tokens are 401, a lesser role is 403, and the role of the table is neither."""
    await house.desk.opened()
    client = house.browser()
    least, path = TABLE[route], route.split(" ")[1]
    for headers in ({}, {"authorization": "Bearer wrong"}):
        status = (await ask(house, client, route, page=False, **headers)).status_code
        assert (status == 401) is (least != OPEN), (route, headers, status)
    for name, role in PEOPLE.items():
        may = least == OPEN or NEED.index(role) >= NEED.index(least)
        if may and path in STREAMS:
            continue
        status = (await ask(house, client, route, authorization=f"Bearer {token(name)}")).status_code
        assert (status == 403) is not may, (route, name, status)
        assert status < 500


@pytest.mark.parametrize("route", sorted(TABLE))
async def test_a_session_reaches_what_its_role_may_and_writes_only_with_its_token(
    house: House, route: str
) -> None:
    """With a cookie a read needs the role alone; a write needs the session's own form token too."""
    await house.desk.opened()
    least, (method, path) = TABLE[route], route.split(" ")
    for name, role in PEOPLE.items():
        if role == "scraper":
            continue  # shown below to have no page
        may = least == OPEN or NEED.index(role) >= NEED.index(least)
        if may and path in STREAMS:
            continue
        client = await house.enters(name)
        guard = {"x-csrf-token": await csrf(client)} if method == "POST" else {}
        if method == "POST" and least != OPEN:
            for wrong in ({}, {"x-csrf-token": "wrong"}, {"x-csrf-token": guard["x-csrf-token"][:-1]}):
                assert (await ask(house, client, route, **wrong)).status_code == 403, (route, name, wrong)
        status = (await ask(house, client, route, **guard)).status_code
        assert (status == 403) is not may, (route, name, status)
        assert status < 500


@pytest.mark.parametrize("route", sorted(TABLE))
async def test_an_expired_session_reaches_nothing(route: str) -> None:
    """After the idle time a cookie is nobody's: pages lead to the login, everything else is 401."""
    async with built(settings=LoginSettings(idle_s=60)) as house:
        await house.desk.opened()
        client = await house.enters("root")
        guard = await csrf(client)
        house.desk.clock.advance(61)
        method = route.split(" ", maxsplit=1)[0]
        if TABLE[route] == OPEN:
            assert (await ask(house, client, route)).status_code not in REFUSED - {401}
            return
        answer = await ask(house, client, route, **{"x-csrf-token": guard})
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/login")
        assert (await ask(house, client, route, page=False)).status_code == 401, method


async def test_a_scraper_has_no_page(house: House) -> None:
    """A scraper's token opens a session that reads the metrics and no page."""
    client = await house.enters("sue")
    assert (await client.get("/metrics")).status_code == 200
    assert (await client.get("/account")).status_code == 403
    assert (await client.get("/")).status_code == 403


@pytest.mark.parametrize("route", sorted(route for route in TABLE if route.startswith("POST")))
@pytest.mark.parametrize("header", [{"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}])
async def test_another_site_writes_nothing(house: House, route: str, header: dict[str, str]) -> None:
    """Even with the cookie and the right token, what a page of another origin sends is refused."""
    await house.desk.opened()
    client = await house.enters("root")
    guard = {"x-csrf-token": await csrf(client)}
    before = house.desk.store.ledger
    assert (await ask(house, client, route, **guard, **header)).status_code == 403
    assert house.desk.store.ledger is before


@pytest.mark.parametrize("route", sorted(route for route in TABLE if route.startswith("GET")))
async def test_reading_writes_nothing(house: House, route: str) -> None:
    """GET and HEAD of each route leave the ledger as it was."""
    if route.split(" ")[1] in STREAMS:
        return
    await house.desk.opened()
    client = await house.enters("root")
    before = house.desk.store.ledger
    await ask(house, client, route)
    await ask(house, client, route.replace("GET", "HEAD"))
    assert house.desk.store.ledger is before


def test_the_people_here_have_all_roles() -> None:
    """Each role is tried."""
    assert {role.value for role in ROLES.values()} == set(NEED)
    assert LOCAL.startswith("http://127.0.0.1")
