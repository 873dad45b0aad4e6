"""The whole application, as app.py wires it, over a ledger in memory, and browsers without a screen."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest_asyncio
from argon2 import PasswordHasher
from starlette.applications import Starlette

from escalation.server import app
from escalation.server.config import Config, GrpcSettings
from escalation.server.metrics import ServerMetrics
from escalation.server.notify.notice_desk import NoReceivers
from escalation.server.testing import FakeDesk
from escalation.server.web.access import Person, Role
from escalation.server.web.http import HttpSettings
from escalation.server.web.login.desk import LoginDesk
from escalation.server.web.login.passwords import Passwords
from escalation.server.web.login.settings import LoginSettings

LOCAL = "http://127.0.0.1:9737"
PUBLIC = "https://desk.example"
PAGE = {"accept": "text/html,application/xhtml+xml", "sec-fetch-site": "same-origin"}
CHEAP = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
PASSWORD = "correct horse battery"
ROLES = {
    "sue": Role.SCRAPER,
    "vera": Role.VIEWER,
    "ada": Role.OPERATOR,
    "bob": Role.OPERATOR,
    "root": Role.ADMIN,
}


def token(name: str) -> str:
    """Return the token of a person."""
    return f"token-of-{name}"


def person(name: str, **fields: Any) -> Person:
    """Return a person with a token."""
    digest = hashlib.sha256(token(name).encode()).hexdigest()
    return Person(**{"name": name, "role": ROLES[name], "token_sha256": digest, **fields})


@dataclass
class House:
    """An orchestrator's application, what it stands on, and a way in."""

    desk: FakeDesk
    app: Starlette
    login: LoginDesk
    metrics: ServerMetrics
    clients: list[httpx2.AsyncClient] = field(default_factory=list)

    def browser(self, base_url: str = LOCAL, **options: Any) -> httpx2.AsyncClient:
        """Return a browser without a session, that sends what a browser sends."""
        transport = httpx2.ASGITransport(app=self.app, raise_app_exceptions=False, **options)
        client = httpx2.AsyncClient(transport=transport, base_url=base_url, headers=PAGE)
        self.clients.append(client)
        return client

    async def enters(self, name: str, secret: str | None = None, base_url: str = LOCAL) -> httpx2.AsyncClient:
        """Return a browser in which `name` is logged in by the form."""
        client = self.browser(base_url)
        answer = await client.post("/login", data={"name": name, "password": secret or token(name)})
        assert answer.status_code == 303, answer.text
        return client

    async def audited(self) -> list[tuple[str, str, str]]:
        """Return who did what to what, oldest first."""
        return [(each.actor, each.verb, each.object_id) for each in await self.desk.audit(after=0, limit=999)]


async def csrf(client: httpx2.AsyncClient) -> str:
    """Return the token of the forms that this browser's session shows."""
    found = re.search(r'name="csrf" value="([^"]+)"', (await client.get("/account")).text)
    assert found is not None
    return found[1]


async def sends(client: httpx2.AsyncClient, path: str, **fields: str) -> httpx2.Response:
    """Send a form as its page would."""
    return await client.post(path, data={"csrf": await csrf(client), **fields})


@asynccontextmanager
async def built(
    *persons: Person,
    settings: LoginSettings | None = None,
    desk: FakeDesk | None = None,
    public_url: str = PUBLIC,
    passwords: Passwords | None = None,
) -> AsyncIterator[House]:
    """Build the application as app.py does, with hashes that cost little."""
    desk, nowhere, metrics = desk or FakeDesk(), Path("/nonexistent"), ServerMetrics()
    config = Config(
        grpc=GrpcSettings(certificate=nowhere, key=nowhere, clients_ca=nowhere),
        http=HttpSettings(listen="100.64.0.1:9737", public_url=public_url),
        login=settings or LoginSettings(),
        person=persons or tuple(person(name) for name in ROLES),
    )
    login = app.logins(
        config,
        store=desk.store,
        metrics=metrics,
        clock=desk.clock,
        passwords=passwords or Passwords(hasher=CHEAP),
    )
    application = app.application(
        config,
        store=desk.store,
        service=desk.service,
        notices=NoReceivers(),
        metrics=metrics,
        clock=desk.clock,
        login=login,
    )
    house = House(desk, application, login, metrics)
    try:
        yield house
    finally:
        for client in house.clients:
            await client.aclose()


@pytest_asyncio.fixture
async def house() -> AsyncIterator[House]:
    """The application with a person of each role."""
    async with built() as house:
        yield house
