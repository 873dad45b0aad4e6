"""The HTTP API over a working desk: every route with every kind of credential, and every refusal."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest
import pytest_asyncio
from hypothesis import given, settings, strategies as st
from starlette.applications import Starlette
from starlette.routing import Route

from escalation.model import (
    CasePhase,
    FaultClass,
    FlightEvidence,
    OomEvidence,
    OomScope,
    RouteId,
    RouteKind,
    ServerKind,
    State,
    Subject,
    SubjectKind,
)
from escalation.server.attention.attention_desk import Until
from escalation.server.attention.silences import parse
from escalation.server.decision.approval_desk import StoredApprovals
from escalation.server.decision.approvals import Policy
from escalation.server.incident.incident_desk import StoredIncidents
from escalation.server.metrics import ServerMetrics
from escalation.server.notify.notifier import Notifier
from escalation.server.notify.notifiers.registry import NotifySettings
from escalation.server.testing import FakeDesk, ManualClock, case_report, heartbeat
from escalation.server.web.access import FailedLogins, Person, Role
from escalation.server.web.approval_routes import ApprovalRoutes
from escalation.server.web.attention_routes import AttentionRoutes
from escalation.server.web.handlers import MAX_BODY_BYTES
from escalation.server.web.http import build
from escalation.server.web.incident_routes import IncidentRoutes
from escalation.server.web.policy_routes import PolicyRoutes
from escalation.server.web.queue_page import AT_ONCE
from escalation.server.web.rule_routes import RuleRoutes
from tests.escalation.server.crowd import crowd
from tests.escalation.server.notifiers.told import Mailbox

HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e\u200b\n'\"&"
ROLES = {"scraper": Role.SCRAPER, "viewer": Role.VIEWER, "operator": Role.OPERATOR}
SCRIPT = '<script src="/static/page.js" defer>'
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


def token(name: str) -> str:
    return f"token-of-{name}"


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(name)}"}


def person(name: str) -> Person:
    return Person(name=name, role=ROLES[name], token_sha256=hashlib.sha256(token(name).encode()).hexdigest())


@dataclass
class House:
    desk: FakeDesk
    app: Starlette
    metrics: ServerMetrics
    clock: ManualClock
    client: httpx2.AsyncClient
    ready: list[bool]

    async def get(self, path: str, *, as_: str = "viewer", **headers: str) -> httpx2.Response:
        return await self.client.get(path, headers=bearer(as_) | headers)

    async def post(
        self, path: str, body: object, *, as_: str = "operator", **headers: str
    ) -> httpx2.Response:
        return await self.client.post(path, json=body, headers=bearer(as_) | headers)


@contextlib.asynccontextmanager
async def built() -> AsyncIterator[House]:
    desk = FakeDesk()
    metrics = ServerMetrics()
    ready = [True]
    app = build(
        desk=desk,
        persons=[person(name) for name in ROLES],
        metrics=metrics,
        ready=lambda: ready[0],
        clock=desk.clock,
        hosts=frozenset({"queue.example"}),
        more=(
            *ApprovalRoutes(desk=StoredApprovals(store=desk.store, policy=Policy())).rules,
            *AttentionRoutes(desk=desk.attention).rules,
            *IncidentRoutes(desk=StoredIncidents(store=desk.store, clock=desk.clock)).rules,
            *PolicyRoutes(policy=Policy(), persons=lambda: [person(name) for name in ROLES]).rules,
            *RuleRoutes(desk=desk.rules).rules,
        ),
    )
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:9737") as client:
        yield House(desk, app, metrics, desk.clock, client, ready)


@pytest_asyncio.fixture
async def house() -> AsyncIterator[House]:
    async with built() as house:
        yield house


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


async def test_an_entry_is_approved_carried_out_and_shown(house: House) -> None:
    """The way of a decision over HTTP: shown, approved by a named person, done."""
    entry = await house.desk.opened()
    path = f"/api/v1/queue/{entry.recommendation.id}"
    shown = (await house.get(path)).json()
    assert shown["state"] == "proposed"
    assert (await house.get(f"/api/v1/queue/{shown['incident_id']}")).json() == shown
    approved = await house.post(f"{path}/approve", {"reason": "quiet hour", "digest": shown["digest"]})
    assert approved.status_code == 200
    assert {key: approved.json()[key] for key in ("state", "decided_by", "decision_reason")} == {
        "state": "approved",
        "decided_by": "operator",
        "decision_reason": "quiet hour",
    }
    done = await house.post(f"{path}/done", {})
    assert done.json()["state"] == "done"
    actors = [link["actor"] for link in (await house.get("/api/v1/audit")).json()["entries"]]
    assert "operator" in actors


async def test_what_the_desk_refuses_keeps_its_meaning(house: House) -> None:
    """Not found, refused, superseded and expired each have their status and code."""
    entry = await house.desk.opened()
    path = f"/api/v1/queue/{entry.recommendation.id}"
    digest = entry.recommendation.digest
    cases = [
        (await house.get("/api/v1/queue/nothing"), 404, "not_found"),
        (await house.post("/api/v1/queue/nothing/done", {}), 404, "not_found"),
        (await house.post(f"{path}/done", {}), 409, "refused"),
        (await house.post(f"{path}/approve", {"reason": "x", "digest": "0" * 64}), 409, "superseded"),
    ]
    house.clock.advance(30 * 86_400)
    cases.append((await house.post(f"{path}/approve", {"reason": "x", "digest": digest}), 410, "expired"))
    for response, status, code in cases:
        assert (response.status_code, response.json()["error"]["code"]) == (status, code), response.text
        assert response.json()["error"]["message"]


async def test_a_full_disk_is_told_as_unavailable(house: House) -> None:
    """When nothing can be kept, a decision answers 503 and is not taken."""
    entry = await house.desk.opened()
    house.desk.store.writable = False
    response = await house.post(f"/api/v1/queue/{entry.recommendation.id}/reject", {"reason": "no"})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"reason": "x"}',
        b'{"reason": "x", "digest": "zz"}',
        b'{"reason": " ", "digest": "00000000"}',
        b'{"reason": 1, "digest": "00000000"}',
        b'{"reason": "x", "digest": "00000000", "force": true}',
        b'{"reason": "x", "digest": "00000000\\n"}',
        b'{"reason": "\xff", "digest": "00000000"}',
        b"{" * 5000,
        b'{"reason": "' + b"x" * 2001 + b'", "digest": "00000000"}',
    ],
)
async def test_a_body_that_is_not_exactly_right_is_refused(house: House, body: bytes) -> None:
    """Missing, extra, mistyped or broken fields are refused with a sentence, and nothing is decided."""
    entry = await house.desk.opened()
    response = await house.client.post(
        f"/api/v1/queue/{entry.recommendation.id}/approve",
        content=body,
        headers=bearer("operator") | {"content-type": "application/json"},
    )
    assert (response.status_code, response.json()["error"]["code"]) == (400, "bad_request")
    assert (await house.desk.entry(entry.recommendation.id)).recommendation == entry.recommendation


async def test_a_body_over_the_limit_is_not_read(house: House) -> None:
    """A body of more than 64 KiB is refused, announced or not."""
    entry = await house.desk.opened()
    path = f"/api/v1/queue/{entry.recommendation.id}/reject"
    headers = bearer("operator") | {"content-type": "application/json"}
    big = b'{"reason": "' + b"x" * MAX_BODY_BYTES + b'"}'

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(big), 8192):
            yield big[at : at + 8192]

    for content in (big, pieces()):
        refused = await house.client.post(path, content=content, headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "bad_request")
    assert (await house.client.post(path, content=big)).status_code == 401


@pytest.mark.parametrize("query", ["state=odd", "limit=-1", "limit=x", "limit=1001", "limit=٣", "limit=1e3"])
async def test_a_query_that_is_wrong_says_what_is_right(house: House, query: str) -> None:
    """A wrong parameter is a bad request that names it."""
    response = await house.get(f"/api/v1/queue?{query}")
    assert response.status_code == 400
    assert query.partition("=")[0] in response.json()["error"]["message"]


async def test_the_queue_is_limited_and_says_how_many_there_are(house: House) -> None:
    """A long queue is cut to the limit, with the total beside it."""
    for number in range(7):
        await house.desk.opened(
            case_id=f"case-{number}", subject=Subject(SubjectKind.UNIT, f"u{number}.service")
        )
    answer = (await house.get("/api/v1/queue?limit=3")).json()
    assert (len(answer["entries"]), answer["total"]) == (3, 7)
    assert (await house.get("/api/v1/queue?state=approved")).json() == {
        "entries": [], "total": 0, "snoozed": 0, "silenced": 0
    }  # fmt: skip


async def test_the_worst_stands_first_however_many_are_newer(house: House) -> None:
    """An answer holds a thousand of them, those that come first, and its totals count all."""
    worst = await house.desk.opened()
    await house.desk.store.write(lambda ledger: crowd(ledger, worst, count=AT_ONCE + 2))
    answer = (await house.get("/api/v1/queue?limit=2")).json()
    assert answer["entries"][0]["id"] == worst.recommendation.id
    assert answer["total"] == AT_ONCE + 3
    incidents = (await house.get("/api/v1/incidents?limit=1000")).json()
    assert (len(incidents["incidents"]), incidents["total"]) == (AT_ONCE, AT_ONCE + 3)
    await house.desk.attention.silence(
        [parse("subject_kind=unit")], person="ada", comment="x", starts_ns=None, until=Until(for_s=60)
    )
    quiet = (await house.get("/api/v1/queue")).json()
    assert [each["id"] for each in quiet["entries"]] == [worst.recommendation.id]
    assert (quiet["total"], quiet["silenced"]) == (1, AT_ONCE + 2)


@pytest.mark.parametrize(("path", "name"), [("queue", "entries"), ("incidents", "incidents")])
async def test_everything_can_be_read_page_by_page(house: House, path: str, name: str) -> None:
    """With `after` each stands on one page, finished ones too, and what is no id is refused."""
    for number in range(5):
        opened = await house.desk.opened(
            case_id=f"case-{number}", subject=Subject(SubjectKind.UNIT, f"u{number}.service")
        )
    await house.desk.reject(opened.recommendation.id, person="ada", reason="known")
    seen: list[str] = []
    while page := (await house.get(f"/api/v1/{path}?limit=2&after={seen[-1] if seen else ''}")).json()[name]:
        assert len(page) <= 2
        seen += [each["id"] for each in page]
    assert seen == sorted(set(seen))
    assert len(seen) == 5
    assert (await house.get(f"/api/v1/{path}?after=a%00b")).status_code == 400
    if path == "queue":
        assert (await house.get("/api/v1/queue?after=&state=done")).status_code == 409


async def test_reading_changes_nothing(house: House) -> None:
    """After every GET route was read, the ledger holds what it held."""
    entry = await house.desk.opened()
    before = house.desk.store.ledger
    for method, path in TABLE:
        if method == "GET" and path not in STREAMS:
            await house.get(path.replace("{id}", entry.recommendation.id), as_="operator")
    assert house.desk.store.ledger is before


@pytest.mark.parametrize(
    "path", ["/api/v1/queue", "/api/v1/incidents", "/", "/audit", "/q/{id}", "/hosts", "/metrics"]
)
async def test_hostile_names_are_inert_everywhere(house: House, path: str) -> None:
    """A script tag, escape sequences and invisible characters in names from a host reach nobody as such."""
    entry = await house.desk.opened(
        subject=Subject(SubjectKind.PROCESS, HOSTILE),
        evidence=(OomEvidence(OomScope.CGROUP, HOSTILE, 1, None, None, None),),
    )
    await house.desk.report(replace(heartbeat(), agent_version=HOSTILE))
    response = await house.get(path.replace("{id}", entry.recommendation.id))
    text = response.text
    assert response.status_code == 200
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202e]", text)
    if response.headers["content-type"].startswith("text/html"):
        assert text.count("<script") == text.count(SCRIPT) == 1
        assert "alert(1)" not in text or "&lt;script&gt;alert(1)" in text
    elif path != "/metrics":
        assert text.isascii()
        assert "\\\\x1b[31m\\\\u202e\\\\u200b\\\\x0a" in text
    else:
        assert "script" not in text


async def test_the_audit_log_keeps_exact_values_in_inert_bytes(house: House) -> None:
    """Audit entries verify after a round trip, and their bytes hold no active character."""
    entry = await house.desk.opened()
    await house.post(
        f"/api/v1/queue/{entry.recommendation.id}/reject", {"reason": HOSTILE + "\x7f\U0001f600"}
    )
    response = await house.get("/api/v1/audit")
    assert re.fullmatch(r"[\x20-\x7e]*", response.text)
    assert any("\u202e" in link["detail"] for link in response.json()["entries"])
    head = (await house.get("/api/v1/audit/head")).json()["head"]
    assert head == response.json()["entries"][-1] == (await house.get("/api/v1/audit/head")).json()["head"]


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


async def test_a_defect_is_told_without_its_details(house: House) -> None:
    """An unexpected failure answers 500 in the API's words, and shows nothing of its inside."""
    house.desk.service = None  # type: ignore[assignment]
    response = await house.get("/api/v1/queue")
    assert response.status_code == 500
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert response.json() == {
        "error": {"code": "failed", "message": "the orchestrator failed here; its log has the details"}
    }


async def test_a_page_that_cannot_be_shown_is_still_a_page(house: House) -> None:
    """A person with a browser gets an unknown entry and a wrong state in words, with the right status."""
    missing = await house.get("/q/%1b%5b31m%3Cscript%3E")
    assert (missing.status_code, missing.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert missing.text.count("<script") == missing.text.count(SCRIPT) == 1
    assert "\x1b" not in missing.text
    assert (await house.get("/?state=odd")).status_code == 400


async def test_a_page_is_small_and_asks_nobody_else(house: House) -> None:
    """Pages, their style and their script stay far under 100 kB and name no other origin."""
    for number in range(20):
        await house.desk.opened(
            case_id=f"case-{number}", subject=Subject(SubjectKind.UNIT, f"u{number}.service")
        )
    style = len((await house.get("/static/style.css")).content)
    page = await house.get("/")
    script = len((await house.get("/static/page.js")).content)
    assert style + script + len(page.content) < 100_000
    assert not re.search(r"https?://|//[a-z]|<script|\son[a-z]+=|style=", page.text.replace(SCRIPT, ""))


async def test_consequences_and_their_cause_name_each_other(house: House) -> None:
    """The page of a stall over two hosts names both, and each of theirs leads to it."""
    route = RouteId(8000, RouteKind.CHAT_COMPLETIONS, "m<b>", ServerKind.VLLM)
    stall = FlightEvidence(
        id=route,
        requests=1,
        waiting=1,
        oldest_s=9.0,
        silent_s=9.0,
        patience_s=5.0,
        largest_request_bytes=9,
    )
    for host in ("spark-1", "spark-2"):
        body = case_report(
            case_id=host,
            fault_class=FaultClass.ROUTE_ENGINE_STALLED,
            subject=Subject(SubjectKind.ROUTE, "8000/chat_completions m<b>"),
            evidence=(stall,),
        )
        await house.desk.report(body, host=host)
    (entry,) = await house.desk.queue(frozenset({State.PROPOSED}))
    page = (await house.get(f"/q/{entry.recommendation.id}")).text
    assert page.count("route.engine_stalled") == 2
    assert "m<b>" not in page
    api = (await house.get(f"/api/v1/queue/{entry.recommendation.id}")).json()
    assert [each["host"] for each in api["explains"]] == ["spark-1", "spark-2"]
    first = await house.get(f"/q/{api['explains'][0]['incident_id']}")
    assert f'href="/q/{entry.incident.id}"' in first.text


async def test_the_page_says_what_cannot_be_seen(house: House) -> None:
    """An empty queue of a fleet that nobody hears is not shown as health."""
    assert "No host was heard yet" in (await house.get("/")).text
    await house.desk.report(heartbeat())
    await house.desk.advance(3600)
    assert "silent" in (await house.get("/hosts")).text
    assert "Not everything is seen" in (await house.get("/")).text


async def test_only_template_paths_become_labels(house: House) -> None:
    """However many paths are asked for, the metrics know the routes and `unmatched`."""
    for number in range(20):
        await house.get(f"/q/{number}")
        await house.get(f"/odd/{number}")
    await house.client.request("BREW", "/", headers=bearer("viewer"))
    found = set(re.findall(r'route="([^"]*)"', house.metrics.text().decode()))
    assert found == {"/q/{id}", "unmatched"}
    assert json.dumps(sorted(found))


async def test_a_page_asks_who_carried_out_what_cleared_by_itself(house: House) -> None:
    """The form is there for who may, until somebody has said so."""
    recommendation = (await house.desk.opened()).recommendation
    await house.desk.approve(recommendation.id, person="ada", reason="x", digest=recommendation.digest)
    await house.desk.cleared()
    path = f"/q/{recommendation.id}"
    assert 'id="done"' in (await house.get(path, as_="operator")).text
    assert 'id="done"' not in (await house.get(path)).text
    await house.desk.done(recommendation.id, person="operator")
    assert 'id="done"' not in (await house.get(path, as_="operator")).text


async def test_a_cleared_case_is_shown_in_history(house: House) -> None:
    """What is over leaves the queue and stays in the history."""
    await house.desk.opened()
    await house.desk.report(case_report(CasePhase.CLEARED))
    assert (await house.get("/api/v1/queue")).json()["entries"] == []
    assert (await house.get("/api/v1/queue?state=all")).json()["total"] == 1


def test_every_route_stands_in_the_reference() -> None:
    """The reference page names each route with its least role."""
    page = (Path(__file__).parents[3] / "docs/reference/http-api.md").read_text()
    rows = set(re.findall(r"^\| `(GET|POST) (\S+)` \| (\S+) \|", page, re.MULTILINE))
    assert rows >= {
        (method, path, "-" if role == "open" else role) for (method, path), (role, _) in TABLE.items()
    }


async def test_a_drill_is_marked_on_every_page_and_in_the_api(house: House) -> None:
    """Whoever looks sees that it is one, and is offered no approval; a real fault has no such mark."""
    entry = await house.desk.opened(drill=True)
    entry_id = entry.recommendation.id
    for path in ("/", f"/q/{entry_id}"):
        page = await house.get(path)
        assert '<span class="drill">DRILL</span>' in page.text
        assert "nanobotctl approve" not in page.text
    assert "Cannot be approved:</strong> this is a drill" in page.text
    (listed,) = (await house.get("/api/v1/queue")).json()["entries"]
    (incident,) = (await house.get("/api/v1/incidents")).json()["incidents"]
    for body in (listed, incident, (await house.get(f"/api/v1/queue/{entry_id}")).json()):
        assert body["drill"] is True
        assert body["headline"].startswith("DRILL ")
    body = {"reason": "x", "digest": entry.recommendation.digest}
    refused = await house.post(f"/api/v1/queue/{entry_id}/approve", body)
    assert refused.status_code == 409
    assert "this is a drill" in refused.json()["error"]["message"]

    await house.desk.cleared(drill=True)
    await house.desk.opened(case_id="case-2")
    assert "DRILL" not in (await house.get("/")).text


async def test_receivers_are_shown_and_tested_in_the_name_of_the_person(house: House) -> None:
    """Who asks for a test stands in the audit log; a second one comes too soon."""
    notifier = Notifier(
        store=house.desk.store,
        clock=house.clock,
        settings=NotifySettings(),
        receivers=(Mailbox(),),
        metrics=house.metrics,
    )
    app = build(
        desk=house.desk,
        persons=[person("operator")],
        metrics=house.metrics,
        ready=lambda: True,
        clock=house.clock,
        notices=notifier,
    )
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://127.0.0.1:9737", headers=bearer("operator")
    ) as client:
        tested = await client.post("/api/v1/notify/pager/test", json={})
        assert tested.status_code == 200
        again = await client.post("/api/v1/notify/pager/test", json={})
        assert (again.status_code, again.json()["error"]["code"]) == (409, "refused")
        assert (await client.get("/api/v1/notify/pager/test")).status_code == 405
        (receiver,) = (await client.get("/api/v1/notify")).json()["receivers"]
    assert (receiver["name"], receiver["waiting"], receiver["error"]) == ("pager", 1, "")
    newest = (await house.desk.audit(after=0, limit=9))[-1]
    assert (newest.actor, newest.verb, newest.detail) == ("operator", "notice.tested", tested.json()["id"])
