"""A real browser, and an orchestrator's pages over a real socket on a desk whose clock stands still.

One browser serves all tests. What they looked at is kept as pictures in `build/pages`, which git ignores.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import uvicorn

from escalation.server import app
from escalation.server.config import Config, GrpcSettings
from escalation.server.metrics import ServerMetrics
from escalation.server.notify.notice_desk import NoReceivers
from escalation.server.testing import FakeDesk
from escalation.server.web.access import Person, Role
from escalation.server.web.gate import cookie_name
from escalation.server.web.login.desk import LoginDesk
from escalation.server.web.login.sessions import Means

PICTURES = Path(__file__).parents[3] / "build" / "pages"
PEOPLE = {"ada": Role.OPERATOR, "bob": Role.OPERATOR, "vera": Role.VIEWER, "root": Role.ADMIN}
WIDE, NARROW = 1280, 360


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test here the browser's marker and the loop that the browser lives in."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.chromium)
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


def token(name: str) -> str:
    """Return what this person logs in with."""
    return f"token-of-{name}"


def people() -> tuple[Person, ...]:
    """Return everybody who may look."""
    return tuple(
        Person(name=name, role=role, token_sha256=hashlib.sha256(token(name).encode()).hexdigest())
        for name, role in PEOPLE.items()
    )


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Any]:
    """Debian's Chromium, headless, for as long as the tests run."""
    from playwright.async_api import async_playwright  # noqa: PLC0415 - only where the marker let us

    async with async_playwright() as driver:
        chromium = await driver.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium
        await chromium.close()


@dataclass
class Stage:
    """An orchestrator that is looked at: its desk, and a way to look."""

    browser: Any
    desk: FakeDesk
    login: LoginDesk
    url: str
    stack: contextlib.AsyncExitStack

    async def visitor(
        self, name: str = "ada", *, width: int = WIDE, dark: bool = False, script: bool = True
    ) -> Any:
        """Return an empty page of a browser in which `name` is logged in."""
        context = await self.browser.new_context(
            base_url=self.url,
            viewport={"width": width, "height": 800},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
            java_script_enabled=script,
        )
        cookie, work = self.login.sessions.opening(person=name, means=Means.PASSWORD, before=None)
        await self.desk.store.write(work)
        await context.add_cookies([{"name": cookie_name(secure=False), "value": cookie, "url": self.url}])
        self.stack.push_async_callback(context.close)
        context.set_default_timeout(8_000)
        return await context.new_page()

    async def open(self, path: str, name: str = "ada", **how: Any) -> Any:
        """Return a page that shows `path` to `name`."""
        page = await self.visitor(name, **how)
        await page.goto(path)
        return page


async def picture(page: Any, name: str) -> None:
    """Keep what `page` shows as build/pages/NAME.png."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=PICTURES / f"{name}.png", full_page=True)


async def violations(page: Any) -> list[str]:
    """Return what axe-core finds wrong with a page under WCAG 2.2 AA and its own best practice."""
    source = (resources.files("axe_playwright_python") / "axe.min.js").read_text()
    await page.evaluate(source)  # by the debugger, so the page's own policy on scripts stays as it is
    found = await page.evaluate("() => axe.run(document)")
    return [
        f"{each['id']}: {node['target']} {node.get('failureSummary', '')}"
        for each in found["violations"]
        for node in each["nodes"]
    ]


@contextlib.asynccontextmanager
async def served(application: Any, *, port: int = 0) -> AsyncIterator[str]:
    """Serve `application` on a loopback port while inside, and yield its address."""
    listening = socket.create_server(("127.0.0.1", port))
    server = uvicorn.Server(
        uvicorn.Config(
            application, http="h11", log_config=None, access_log=False, timeout_graceful_shutdown=1
        )
    )
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
        listening.close()


@pytest_asyncio.fixture(loop_scope="session")
async def stage(browser: Any) -> AsyncIterator[Stage]:
    """An empty orchestrator, wired as app.py does it, over a real socket, and the browser to look at it."""
    desk, metrics, nowhere = FakeDesk(), ServerMetrics(), Path("/nonexistent")
    config = Config(grpc=GrpcSettings(certificate=nowhere, key=nowhere, clients_ca=nowhere), person=people())
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
        url = await stack.enter_async_context(served(application))
        yield Stage(browser, desk, login, url, stack)
