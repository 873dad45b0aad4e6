"""Sessions: what the cookie is, how long it holds, and how it ends."""

from __future__ import annotations

import asyncio
import base64
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given, settings as bounds, strategies as st

from escalation.model import Subject, SubjectKind
from escalation.server.clock import Timekeeper
from escalation.server.testing import ManualClock
from escalation.server.web.access import Person, Role
from escalation.server.web.gate import own_path
from escalation.server.web.login.sessions import PER_PERSON, SESSIONS, Means, Sessions, csrf_of, key_of
from escalation.server.web.login.settings import LoginSettings
from tests.escalation.server.databases import Database
from tests.escalation.server.login.conftest import PAGE, PUBLIC, House, built, csrf, person, sends, token
from tests.security.properties import security_property

ADA = Person(name="ada", role=Role.OPERATOR)


async def test_the_cookie_is_opaque_strict_and_out_of_reach_of_scripts(house: House) -> None:
    """It is 32 random bytes; only its SHA-256 is kept; under https its name binds it to our host."""
    for base, name in ((PUBLIC, "__Host-nanobot"), ("http://127.0.0.1:9737", "nanobot")):
        client = house.browser(base)
        answer = await client.post("/login", data={"name": "ada", "password": token("ada")})
        value, *attributes = answer.headers["set-cookie"].split("; ")
        assert value.startswith(f"{name}=")
        cookie = value.partition("=")[2]
        assert len(base64.urlsafe_b64decode(cookie + "=")) == 32
        wanted = {"HttpOnly", "SameSite=strict", "Path=/", "Max-Age=604800"}
        assert set(attributes) == wanted | ({"Secure"} if base == PUBLIC else set())
        kept = house.desk.store.ledger.records.of(SESSIONS)
        assert key_of(cookie) in kept
        assert cookie not in repr(kept)
        assert cookie not in answer.headers["location"]


async def test_a_cookie_for_http_opens_nothing_at_the_public_address(house: House) -> None:
    """What could be set in the clear, by somebody on the path, is not looked at under https."""
    client = await house.enters("ada", base_url=PUBLIC)
    cookie = client.cookies["__Host-nanobot"]
    other = house.browser(PUBLIC)
    other.cookies.set("nanobot", cookie)
    assert (await other.get("/account")).status_code == 303
    assert (await client.get("/account")).status_code == 200


@security_property(
    "T27",
    "A session ends when it is idle and when it is old.",
)
async def test_a_session_ends_when_it_is_idle_and_when_it_is_old() -> None:
    """The idle time begins anew with use; the absolute one does not."""
    async with built(settings=LoginSettings(idle_s=600, absolute_s=3000, fresh_s=60)) as house:
        client = await house.enters("ada")
        for _ in range(5):
            house.desk.clock.advance(590)
            assert (await client.get("/account")).status_code == 200
        house.desk.clock.advance(100)
        assert (await client.get("/account")).status_code == 303
        client = await house.enters("ada")
        house.desk.clock.advance(601)
        assert (await client.get("/account")).status_code == 303


async def test_setting_the_clock_back_revives_no_session() -> None:
    """Time for a session never runs back while the orchestrator runs."""
    async with built(settings=LoginSettings(idle_s=600, fresh_s=60)) as house:
        client = await house.enters("ada")
        house.desk.clock.advance(599)
        house.desk.clock.jump(-7200)
        house.desk.clock.advance(2)
        assert (await client.get("/account")).status_code == 303


async def test_who_left_the_settings_has_no_session(house: House) -> None:
    """Sessions of a person who is no longer configured open nothing, and a changed role holds at once."""
    client = await house.enters("ada")
    entry = await house.desk.opened()
    path = f"/api/v1/queue/{entry.recommendation.id}/reject"
    cookies, guard = dict(client.cookies), {"x-csrf-token": await csrf(client)}
    async with built(person("bob"), desk=house.desk) as later:
        other = later.browser()
        other.cookies.update(cookies)
        assert (await other.get("/account")).status_code == 303
    async with built(person("ada", role=Role.VIEWER), desk=house.desk) as later:
        other = later.browser()
        other.cookies.update(cookies)
        assert (await other.post(path, json={"reason": "no"}, headers=guard)).status_code == 403


async def test_logging_out_ends_this_session_alone_and_everywhere_ends_all(house: House) -> None:
    """A cookie that was copied before the logout is worth nothing after it."""
    one, two, three = [await house.enters("ada") for _ in range(3)]
    copied = dict(one.cookies)
    answer = await sends(one, "/logout")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    thief = house.browser()
    thief.cookies.update(copied)
    assert (await thief.get("/account")).status_code == 303
    assert (await two.get("/account")).status_code == 200
    await sends(two, "/account/sessions/end")
    assert (await three.get("/account")).status_code == 303
    revoked = [each for each in await house.audited() if each[1] == "session.revoked"]
    assert revoked == [("ada", "session.revoked", "ada")] * 2


async def test_a_person_lists_and_ends_their_own_sessions_only(house: House) -> None:
    """The account page shows one's sessions; naming another person's ends nothing."""
    ada, again, bob = await house.enters("ada"), await house.enters("ada"), await house.enters("bob")
    page = (await ada.get("/account")).text
    assert page.count("By token, ") == 2
    bobs = key_of(bob.cookies["nanobot"])
    assert bobs not in page
    await sends(ada, f"/account/sessions/{bobs}/end")
    assert (await bob.get("/account")).status_code == 200
    await sends(ada, f"/account/sessions/{key_of(again.cookies['nanobot'])}/end")
    assert (await again.get("/account")).status_code == 303


async def test_a_login_replaces_the_session_of_its_browser(house: House) -> None:
    """The cookie changes with each login, so nobody can plant one beforehand; the old one is ended."""
    client = await house.enters("ada")
    before = client.cookies["nanobot"]
    await client.post("/login", data={"name": "ada", "password": token("ada")})
    assert client.cookies["nanobot"] != before
    assert key_of(before) not in house.desk.store.ledger.records.of(SESSIONS)


@pytest.mark.parametrize("cookie", ["", "x", "A" * 43, "é" * 43, "A" * 5000, '"A"', "A;nanobot=B"])
async def test_an_odd_cookie_is_nobodys(house: House, cookie: str) -> None:
    """Malformed and unknown cookies are as none."""
    headers = {"cookie": f"nanobot={cookie}".encode()}
    answer = await house.browser().get("/account", headers=headers)
    assert answer.status_code == 303


@pytest.mark.parametrize(
    "back",
    ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "/a\nb", "", "evil"],
)
async def test_a_login_leads_to_our_own_paths_only(house: House, back: str) -> None:
    """Whatever `next` says, the browser stays here."""
    client = house.browser()
    page = await client.get(f"/login?next={quote(back, safe='')}")
    assert 'name="next" value="/"' in page.text
    form = {"name": "ada", "password": token("ada"), "next": back}
    assert (await client.post("/login", data=form)).headers["location"] == "/"


@given(st.text())
def test_what_passes_as_a_path_of_ours_is_one(asked: str) -> None:
    """Every accepted path begins with one slash and holds nothing that a browser reads otherwise."""
    path = own_path(asked)
    assert path in {asked, "/"}
    assert path[0] == "/"
    assert path[1:2] not in {"/", "\\"}
    assert path.isascii()
    assert path.isprintable()


async def test_a_page_without_credentials_leads_to_the_login_and_back(house: House) -> None:
    """A browser is redirected with the way back; a link from a mail loads itself again first."""
    entry = await house.desk.opened()
    path = f"/q/{entry.recommendation.id}"
    client = house.browser()
    answer = await client.get(f"{path}?a=b")
    assert answer.headers["location"] == f"/login?next={quote(path, safe='')}%3Fa%3Db"
    linked = await client.get(f"{path}?a=%22%3E", headers=PAGE | {"sec-fetch-site": "cross-site"})
    assert linked.status_code == 200
    assert f'content="0; url={path}?a=%22%3E"' in linked.text
    hostile = await client.get("//evil.example/%22%3E", headers=PAGE | {"sec-fetch-site": "cross-site"})
    assert "evil" not in hostile.text
    assert (await client.get("/api/v1/queue", headers={"accept": "*/*"})).status_code == 401


@security_property(
    "T27",
    "Approving wants a person who showed lately who they are.",
)
async def test_approving_wants_a_person_who_showed_lately_who_they_are() -> None:
    """A session too long after its login approves nothing until the person shows it once more."""
    async with built(settings=LoginSettings(fresh_s=60)) as house:
        entry = await house.desk.opened()
        path = f"/api/v1/queue/{entry.recommendation.id}/approve"
        body = {"reason": "quiet hour", "digest": entry.recommendation.digest}
        client = await house.enters("ada")
        guard = {"x-csrf-token": await csrf(client)}
        house.desk.clock.advance(61)
        answer = await client.post(path, json=body, headers=guard)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "not_fresh")
        wrong = await sends(client, "/login/again", password="wrong", next="/account")
        assert wrong.status_code == 422
        assert (await client.post(path, json=body, headers=guard)).status_code == 403
        answer = await sends(client, "/login/again", password=token("ada"), next="/account")
        assert (answer.status_code, answer.headers["location"]) == (303, "/account")
        assert (await client.post(path, json=body, headers=guard)).status_code == 200


@security_property(
    "T27",
    "A stream of changes ends with the session in whose name it is read.",
)
async def test_a_stream_of_changes_ends_with_its_session(house: House) -> None:
    """After the logout nothing more is told, and the stream is closed."""
    client = await house.enters("ada")
    sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    headers = [(b"host", b"127.0.0.1:9737"), (b"cookie", f"nanobot={client.cookies['nanobot']}".encode())]
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/live",
        "query_string": b"",
        "headers": [*headers, (b"accept", b"text/event-stream")],
        "client": ("127.0.0.1", 1),
    }

    async def receive() -> dict[str, Any]:
        return await asyncio.Future()

    reading = asyncio.create_task(house.app(scope, receive, sent.put))
    assert (await sent.get())["status"] == 200
    assert (await sent.get())["body"] == b": watching\n\n"
    await house.desk.opened()
    assert (await sent.get())["body"].startswith(b"event: queue\n")
    await sends(client, "/logout")
    house.desk.clock.advance(2)
    await house.desk.opened(case_id="case-2", subject=Subject(SubjectKind.UNIT, "vllm.service"))
    assert await sent.get() == {"type": "http.response.body", "body": b"", "more_body": False}
    await reading


async def test_a_stream_is_no_body_for_who_asks_for_its_head(house: House) -> None:
    """HEAD is answered at once, and holds no place among those who watch."""
    client = await house.enters("ada")
    for path in ("/live", "/api/v1/watch"):
        answer = await client.head(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize(("page", "back"), [("http://127.0.0.1:9737/hosts?a=b", "/hosts"), ("http://[", "/")])
async def test_a_form_that_wants_a_login_leads_back_to_its_page(page: str, back: str) -> None:
    """Without a session, and with one that is not fresh; a page that cannot be read is the queue."""
    async with built(settings=LoginSettings(fresh_s=60)) as house:
        entry = await house.desk.opened()
        path = f"/q/{entry.recommendation.id}/approve"
        client = await house.enters("ada")
        form = {"csrf": await csrf(client), "reason": "x", "digest": entry.recommendation.digest}
        house.desk.clock.advance(61)
        answer = await client.post(path, data=form, headers={"referer": page})
        assert answer.headers["location"] == f"/login/again?next={quote(back, safe='')}"
        answer = await house.browser().post(path, data=form, headers={"referer": page})
        assert answer.headers["location"] == f"/login?next={quote(back, safe='')}"


async def test_a_page_in_the_clear_writes_nothing_at_the_public_address(house: House) -> None:
    """Who answers for our name without https is somebody on the path."""
    client = await house.enters("ada", base_url=PUBLIC)
    form = {"csrf": await csrf(client)}
    for origin, status in (("http://desk.example", 403), (PUBLIC, 303)):
        headers = {"origin": origin}
        assert (await client.post("/logout", data=form, headers=headers)).status_code == status


def test_no_person_is_called_as_the_orchestrator_calls_itself() -> None:
    """In the audit log that name says that nobody asked."""
    with pytest.raises(msgspec.ValidationError, match="no person is called orchestrator"):
        msgspec.convert({"name": "orchestrator", "role": "operator"}, Person)


async def test_a_session_holds_after_a_restart_and_at_every_orchestrator(database: Database) -> None:
    """What one process opened another one knows, and what it ends is ended for all."""
    clock = ManualClock()

    def sessions(store: object) -> Sessions:
        return Sessions(
            store=store,  # type: ignore[arg-type]
            keeper=Timekeeper(clock=clock),
            settings=LoginSettings(),
            persons=[ADA],
        )

    first = database.open()
    cookie, work = sessions(first).opening(person="ada", means=Means.PASSWORD, before=None)
    await first.write(work)
    await first.close()
    second = database.open()
    visit = await sessions(second).visit(cookie)
    assert visit is not None
    assert (visit.person, visit.fresh, visit.csrf) == (ADA, True, csrf_of(cookie))
    if database.shared:
        third = database.open()
        assert await sessions(third).end_all("ada", by="root") == 1
        await third.close()
    else:
        assert await sessions(second).end_all("ada", by="root") == 1
    assert await sessions(second).visit(cookie) is None
    await second.close()


async def test_a_person_has_so_many_sessions_and_no_more(house: House) -> None:
    """One more ends the one that was unused for longest."""
    first = await house.enters("ada")
    for _ in range(PER_PERSON):
        house.desk.clock.advance(1)
        _, work = house.login.sessions.opening(person="ada", means=Means.TOKEN, before=None)
        await house.desk.store.write(work)
    assert len(house.desk.store.ledger.records.of(SESSIONS)) == PER_PERSON
    assert (await first.get("/account")).status_code == 303


@bounds(max_examples=40)
@given(
    st.binary(max_size=120), st.sampled_from(["/login", "/login/again", "/logout", "/account/sessions/end"])
)
def test_no_form_makes_the_login_fail(body: bytes, path: str) -> None:
    """Whatever bytes are sent as a form, the answer is a page or a refusal."""

    async def ask() -> int:
        async with built() as house:
            client = house.browser()
            headers = {"content-type": "application/x-www-form-urlencoded"}
            return (await client.post(path, content=body, headers=headers)).status_code

    assert asyncio.run(ask()) < 500
