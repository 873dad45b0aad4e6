"""Logging in, in a real browser with a virtual authenticator: by password, by passkey, by invitation."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from escalation.model import PasskeySignature, State
from escalation.server import app
from escalation.server.config import Config, GrpcSettings
from escalation.server.decision.signatures import Signatures
from escalation.server.metrics import ServerMetrics
from escalation.server.notify.notice_desk import NoReceivers
from escalation.server.testing import FakeDesk
from escalation.server.web.http import HttpSettings
from escalation.server.web.login.passkey_desk import PASSKEYS
from escalation.server.web.login.signing_keys import registered
from escalation.signing.passkey import Passkey
from tests.escalation.pages.conftest import NARROW, WIDE, Stage, people, picture, served, token, violations
from tests.escalation.server.site import free_port


@pytest_asyncio.fixture(loop_scope="session")
async def place(browser: Any) -> AsyncIterator[Stage]:
    """An orchestrator that people open as http://localhost, which browsers trust with passkeys."""
    port = free_port()

    async def passkeys(person: str) -> Sequence[Passkey]:
        return await registered(desk.store, origin=f"http://localhost:{port}")(person)

    metrics, nowhere = ServerMetrics(), Path("/nonexistent")
    config = Config(
        grpc=GrpcSettings(certificate=nowhere, key=nowhere, clients_ca=nowhere),
        http=HttpSettings(public_url=f"http://localhost:{port}"),
        person=people(),
    )
    desk = FakeDesk(
        policy=config.approvals.policy(),
        signatures=Signatures(read=lambda: None, keygen=None, passkeys=passkeys),
    )
    login = app.logins(config, store=desk.store, metrics=metrics, clock=desk.clock)
    application = app.application(
        config,
        store=desk.store,
        service=desk.service,
        notices=NoReceivers(),
        metrics=metrics,
        clock=desk.clock,
        login=login,
    )
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(served(application, port=port))
        yield Stage(browser, desk, login, f"http://localhost:{port}", stack)


async def opened(place: Stage, *, width: int = WIDE, script: bool = True) -> Any:
    """Return an empty page of a browser in which nobody is logged in."""
    context = await place.browser.new_context(
        base_url=place.url, viewport={"width": width, "height": 800}, java_script_enabled=script
    )
    place.stack.push_async_callback(context.close)
    context.set_default_timeout(8_000)
    return await context.new_page()


async def with_key(page: Any) -> Any:
    """Put a virtual authenticator that verifies its person into this browser."""
    tools = await page.context.new_cdp_session(page)
    await tools.send("WebAuthn.enable")
    await tools.send(
        "WebAuthn.addVirtualAuthenticator",
        {
            "options": {
                "protocol": "ctap2",
                "transport": "internal",
                "hasResidentKey": True,
                "hasUserVerification": True,
                "isUserVerified": True,
                "automaticPresenceSimulation": True,
            }
        },
    )
    return tools


async def enters(page: Any, name: str, secret: str) -> None:
    """Fill in the form of the login page that is shown."""
    await page.fill("#name", name)
    await page.fill("#password", secret)
    await page.press("#password", "Enter")


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
async def test_a_link_leads_through_the_login_to_what_it_names(place: Stage, script: bool) -> None:
    """With or without a script; a wrong password says so, and the right one leads to the entry."""
    entry = await place.desk.opened()
    page = await opened(place, width=NARROW, script=script)
    await page.goto(f"/q/{entry.recommendation.id}")
    assert "/login?next=" in page.url
    await enters(page, "ada", "wrong")
    assert "Not logged in" in await page.inner_text("[role=alert]:visible")
    await enters(page, "ada", token("ada"))
    await page.wait_for_url(f"**/q/{entry.recommendation.id}")
    await page.click("text=Log out")
    await page.wait_for_url("**/login")
    await page.goto("/")
    assert "/login?next=" in page.url


async def test_a_link_from_another_site_finds_the_session(place: Stage) -> None:
    """A browser keeps a strict cookie to itself when it follows a link from elsewhere; it asks again."""
    entry = await place.desk.opened()
    page = await opened(place)
    await page.goto("/login")
    await enters(page, "ada", token("ada"))
    await page.wait_for_url(f"{place.url}/")
    there = place.url.replace("localhost", "127.0.0.1")
    await page.goto(f"{there}/livez")
    await page.evaluate(f"location.href = '{place.url}/q/{entry.recommendation.id}'")
    await page.wait_for_selector("#decide-title")
    assert page.url == f"{place.url}/q/{entry.recommendation.id}"


async def test_a_passkey_is_added_lets_in_and_signs_an_approval(place: Stage) -> None:
    """The whole way in Chromium: register, log out, log in without a password, sign what the page shows."""
    entry = await place.desk.opened()
    page = await opened(place)
    await with_key(page)
    await page.goto("/account")
    await enters(page, "ada", token("ada"))
    await page.wait_for_url("**/account")
    await page.fill("[data-passkey-label]", "this laptop")
    await page.click("text=Add a passkey")
    await page.wait_for_selector("li:has-text('this laptop')")
    await picture(page, "account")
    await page.click("text=Log out >> nth=0")
    await page.wait_for_url("**/login")
    await page.goto(f"/q/{entry.recommendation.id}")
    await page.click("text=Log in with a passkey")
    await page.wait_for_url(f"**/q/{entry.recommendation.id}")
    await page.fill("#approve-reason", "quiet hour")
    await page.click("text=Sign it with a passkey")
    await page.wait_for_selector("h2:has-text('To carry it out'), [data-passkey-said]:visible")
    assert await page.locator("[data-passkey-said]:visible").all_inner_texts() == []
    decided = (await place.desk.entry(entry.recommendation.id)).recommendation
    assert (decided.state, decided.approvers) == (State.APPROVED, ("ada",))
    (given,) = decided.approvals
    assert given.signed is not None
    assert isinstance(given.signed.signature, PasskeySignature)
    (key_id,) = place.desk.store.ledger.records.of(PASSKEYS)
    assert given.signed.signature.credential_id == key_id


async def test_who_was_invited_comes_in_and_sets_a_password(place: Stage) -> None:
    """The code is taken from the fragment, which the address then no longer shows."""
    code, _ = await place.login.accounts.invite("vera", by="root")
    page = await opened(place, width=NARROW)
    await page.goto(f"/invite#{code}")
    await page.wait_for_function("!location.hash")
    assert await page.input_value("#code") == code
    await page.fill("#password", "correct horse battery")
    await page.click("text=Come in")
    await page.wait_for_url("**/account")
    assert await page.inner_text("h1 bdi") == "vera"


async def test_the_pages_are_for_everybody(place: Stage) -> None:
    """axe finds nothing, nothing is wider than the screen, and the page's policy stops nothing of ours."""
    page = await place.visitor()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    for path in ("/login", "/invite", "/account", "/login/again"):
        for width in (WIDE, NARROW):
            await page.set_viewport_size({"width": width, "height": 800})
            await page.goto(path)
            assert await violations(page) == [], (path, width)
            assert await page.evaluate("document.documentElement.scrollWidth") <= width, path
            assert said == [], path
            await picture(page, f"{path.strip('/').replace('/', '-')}-{width}")
