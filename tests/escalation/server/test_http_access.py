"""Every route with every kind of credential: who may use it, from where, and that nobody breaks it."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings, strategies as st
from starlette.applications import Starlette
from starlette.routing import Route

from escalation.server.testing import ManualClock
from escalation.server.web.access import FailedLogins
from tests.escalation.server.web_house import ROLES, House, bearer, built, token

NOBODY, WRONG = "nobody", "wrong"

# (method, path): the least role, and the answer it gets with an empty JSON body. `open` needs no credentials.
TABLE = {
    ("GET", "/"): ("viewer", 200),
    ("GET", "/api/v1/audit"): ("viewer", 200),
    ("GET", "/api/v1/audit/head"): ("viewer", 200),
    ("GET", "/api/v1/hosts"): ("viewer", 200),
    ("GET", "/api/v1/incidents"): ("viewer", 200),
    ("GET", "/api/v1/incidents/{id}"): ("viewer", 200),
    ("POST", "/api/v1/incidents/{id}/verdict"): ("operator", 400),
    ("GET", "/api/v1/me"): ("scraper", 200),
    ("GET", "/api/v1/me/passkeys"): ("viewer", 200),
    ("GET", "/api/v1/maintenance"): ("viewer", 200),
    ("POST", "/api/v1/maintenance"): ("operator", 400),
    ("POST", "/api/v1/maintenance/{id}/end"): ("operator", 404),
    ("GET", "/api/v1/notify"): ("viewer", 200),
    ("GET", "/api/v1/openapi.json"): ("viewer", 200),
    ("POST", "/api/v1/notify/{id}/test"): ("operator", 404),
    ("GET", "/api/v1/queue"): ("viewer", 200),
    ("GET", "/api/v1/queue/{id}"): ("viewer", 200),
    ("GET", "/api/v1/queue/{id}/approval"): ("viewer", 200),
    ("POST", "/api/v1/queue/{id}/document"): ("operator", 400),
    ("POST", "/api/v1/queue/{id}/acknowledge"): ("operator", 200),
    ("POST", "/api/v1/queue/{id}/answer"): ("operator", 400),
    ("POST", "/api/v1/queue/{id}/approve"): ("operator", 400),
    ("POST", "/api/v1/queue/{id}/ask"): ("operator", 400),
    ("POST", "/api/v1/queue/{id}/done"): ("operator", 409),
    ("POST", "/api/v1/queue/{id}/reject"): ("operator", 400),
    ("POST", "/api/v1/queue/{id}/release"): ("operator", 409),
    ("POST", "/api/v1/queue/{id}/snooze"): ("operator", 409),
    ("GET", "/api/v1/policy/test"): ("viewer", 200),
    ("GET", "/api/v1/rules"): ("viewer", 200),
    ("GET", "/api/v1/rules/{id}"): ("viewer", 404),
    ("POST", "/api/v1/rules/{id}/shadow"): ("operator", 400),
    ("POST", "/api/v1/rules/{id}/unshadow"): ("operator", 400),
    ("GET", "/api/v1/silences"): ("viewer", 200),
    ("POST", "/api/v1/silences"): ("operator", 400),
    ("GET", "/api/v1/silences/preview"): ("viewer", 409),
    ("POST", "/api/v1/silences/{id}/expire"): ("operator", 404),
    ("GET", "/api/v1/topology"): ("viewer", 200),
    ("GET", "/api/v1/watch"): ("viewer", 200),
    ("GET", "/audit"): ("viewer", 200),
    ("GET", "/help"): ("viewer", 200),
    ("GET", "/hosts"): ("viewer", 200),
    ("GET", "/live"): ("viewer", 200),
    ("GET", "/livez"): ("open", 200),
    ("GET", "/metrics"): ("scraper", 200),
    ("GET", "/q/{id}"): ("viewer", 200),
    ("POST", "/q/{id}/approve"): ("operator", 403),
    ("POST", "/q/{id}/done"): ("operator", 403),
    ("POST", "/q/{id}/reject"): ("operator", 403),
    ("GET", "/readyz"): ("open", 200),
    ("GET", "/static/page.js"): ("viewer", 200),
    ("GET", "/static/style.css"): ("open", 200),
}
STREAMS = {"/api/v1/watch", "/live"}


def routes(app: Starlette) -> set[tuple[str, str]]:
    found = set()
    for route in app.routes:
        assert isinstance(route, Route)
        found |= {(method, route.path) for method in (route.methods or set()) - {"HEAD"}}
    return found


async def test_every_route_has_a_row_in_the_table(house: House) -> None:
    """A route that is added without saying who may use it fails here."""
    assert routes(house.app) == set(TABLE)


@pytest.mark.parametrize(
    ("method", "path", "credential"),
    [
        (method, path, credential)
        for method, path in sorted(TABLE)
        for credential in [NOBODY, WRONG, *ROLES]
        # A stream has no end: with good credentials it is read over a real socket, in test_http_watch.
        if path not in STREAMS or credential in {NOBODY, WRONG, "scraper"}
    ],
)
async def test_answers_only_to_the_role_that_the_table_names(
    house: House, method: str, path: str, credential: str
) -> None:
    """Each route, with each kind of credential, gives exactly the status of the table."""
    entry = await house.desk.opened()
    least, answer = TABLE[method, path]
    headers = {"content-type": "application/json"}
    if credential != NOBODY:
        headers |= bearer(credential)
    if least == "open":
        expected = answer
    elif credential in {NOBODY, WRONG}:
        expected = 401
    else:
        expected = answer if ROLES[credential].may(ROLES[least]) else 403
    url = path.replace("{id}", entry.recommendation.id)
    response = await house.client.request(
        method, url, headers=headers, content="{}" if method == "POST" else None
    )
    assert response.status_code == expected, response.text


@pytest.mark.parametrize("path", ["/nothing", "/api/v1/queue/", "/static/../queue", "/q/"])
async def test_even_an_unknown_path_wants_credentials(house: House, path: str) -> None:
    """Nobody learns without credentials which paths there are."""
    assert (await house.client.get(path)).status_code == 401
    assert (await house.get(path)).status_code in {404, 307}


async def test_basic_credentials_need_the_right_name(house: House) -> None:
    """A token with another person's name is refused."""
    for name, status in (("viewer", 200), ("operator", 401)):
        encoded = base64.b64encode(f"{name}:{token('viewer')}".encode()).decode()
        response = await house.client.get("/", headers={"Authorization": f"Basic {encoded}"})
        assert response.status_code == status


@pytest.mark.parametrize("value", ["Bearer", "Bearer ", "Basic !!!", "Basic /w==", "Digest x", "\x80", ""])
async def test_odd_credentials_are_refused(house: House, value: str) -> None:
    """Malformed Authorization headers are refused like wrong ones."""
    response = await house.client.get("/api/v1/queue", headers={"Authorization": value.encode("latin-1")})
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "unauthenticated"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9737", 200),
        ("localhost", 200),
        ("[::1]:9737", 200),
        ("queue.example:9737", 200),
        ("QUEUE.example.", 200),
        ("evil.example", 400),
        ("127.0.0.1.evil.example", 400),
        ("127.0.0.1:9737@evil.example", 400),
        ("[::1]evil", 400),
        ("", 400),
    ],
)
async def test_answers_only_by_its_own_names(house: House, host: str, status: int) -> None:
    """A page that points its own name at this address (DNS rebinding) gets nothing."""
    assert (await house.get("/api/v1/queue", Host=host)).status_code == status


async def test_another_origin_decides_nothing(house: House) -> None:
    """A browser that carries credentials for a foreign page is refused; its own origin and tools are not."""
    entry = await house.desk.opened()
    path = f"/api/v1/queue/{entry.recommendation.id}/reject"
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
        assert (await house.post(path, {"reason": "no"}, **headers)).status_code == 403
    form = await house.client.post(path, data={"reason": "no"}, headers=bearer("operator"))
    assert form.status_code == 415
    assert (await house.post(path, {"reason": "no"}, Origin="http://127.0.0.1:9737")).status_code == 200


async def test_every_answer_has_the_headers(house: House) -> None:
    """Pages, errors and refusals alike forbid framing, sniffing, scripts and caching, and carry an id."""
    for response in (
        await house.get("/"),
        await house.client.get("/"),
        await house.get("/nothing"),
        await house.get("/livez", Host="evil"),
    ):
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-request-id"])


@settings(max_examples=60)
@given(
    st.sampled_from(sorted(TABLE)),
    st.text(min_size=1, max_size=40),
    st.dictionaries(st.sampled_from(["state", "limit", "after", "x"]), st.text(max_size=30), max_size=3),
    st.binary(max_size=200) | st.recursive(st.none() | st.text() | st.integers(), st.lists),
)
def test_no_request_makes_the_orchestrator_fail(
    route: tuple[str, str], name: str, query: dict[str, str], body: object
) -> None:
    """Whatever ids, parameters and bodies are sent, the answer is a refusal or a view, never a failure."""
    method, path = route
    if path in STREAMS:
        return

    async def ask() -> int:
        async with built() as house:
            await house.desk.opened()
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            url = path.replace("{id}", quote(name, safe=""))
            headers = bearer("operator") | {"content-type": "application/json"}
            answer = await house.client.request(
                method, url, params=query, headers=headers, content=content if method == "POST" else None
            )
            return answer.status_code

    assert asyncio.run(ask()) < 500


async def test_reading_changes_nothing(house: House) -> None:
    """After every GET route was read, the ledger holds what it held."""
    entry = await house.desk.opened()
    before = house.desk.store.ledger
    for method, path in TABLE:
        if method == "GET" and path not in STREAMS:
            await house.get(path.replace("{id}", entry.recommendation.id), as_="operator")
    assert house.desk.store.ledger is before


async def test_failed_logins_are_limited_but_lock_nobody_out(house: House) -> None:
    """After ten failures an address hears 429, yet a right token passes; later it is forgiven."""
    statuses = [(await house.client.get("/", headers=bearer(WRONG))).status_code for _ in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    assert (await house.get("/")).status_code == 200
    house.clock.advance(5)
    assert (await house.client.get("/", headers=bearer(WRONG))).status_code == 401


def test_a_flood_of_addresses_costs_no_memory() -> None:
    """Only so many addresses are remembered."""
    failures = FailedLogins(clock=ManualClock())
    assert all(failures.allow(f"10.0.{number // 256}.{number % 256}") for number in range(3000))
    assert repr(failures) == "FailedLogins(addresses=1024)"


async def test_liveness_is_a_bare_word(house: House) -> None:
    """What answers without credentials says one word."""
    assert (await house.client.get("/livez")).text == "ok\n"
    assert (await house.client.get("/readyz")).text == "ready\n"
    house.ready[0] = False
    unready = await house.client.get("/readyz")
    assert (unready.status_code, unready.text) == (503, "unready\n")


def test_every_route_stands_in_the_reference() -> None:
    """The reference page names each route with its least role."""
    page = (Path(__file__).parents[3] / "docs/reference/http-api.md").read_text()
    rows = set(re.findall(r"^\| `(GET|POST) (\S+)` \| (\S+) \|", page, re.MULTILINE))
    assert rows >= {
        (method, path, "-" if role == "open" else role) for (method, path), (role, _) in TABLE.items()
    }
