"""A login at a real orchestrator over a real socket, with real hashes and a real database."""

from __future__ import annotations

import httpx2
from argon2 import PasswordHasher

from tests.escalation.server.conftest import running
from tests.escalation.server.login.conftest import PAGE, PASSWORD
from tests.escalation.server.site import Site


async def test_a_session_opened_by_password_outlives_the_orchestrator(site: Site) -> None:
    """The form lets in by the password of the settings, and after a restart the cookie is still good."""
    config = site.config_file.read_text()
    site.config_file.write_text(f'{config}password_hash = "{PasswordHasher().hash(PASSWORD)}"\n')
    async with httpx2.AsyncClient(base_url=site.url, headers=PAGE) as client:
        async with running(site):
            assert (await client.get("/")).headers["location"] == "/login?next=%2F"
            wrong = await client.post("/login", data={"name": "ada", "password": "wrong"})
            assert wrong.status_code == 422
            entered = await client.post("/login", data={"name": "ada", "password": PASSWORD})
            assert (entered.status_code, entered.headers["location"]) == (303, "/")
            assert (await client.get("/")).status_code == 200
        async with running(site):
            assert (await client.get("/account")).status_code == 200


async def test_no_header_says_whence_a_request_comes(site: Site) -> None:
    """Guesses that each claim an address of their own are counted at the socket's."""
    async with running(site), httpx2.AsyncClient(base_url=site.url) as client:
        statuses = []
        for number in range(40):
            claimed = {"x-forwarded-for": f"10.0.0.{number}", "forwarded": f"for=10.0.0.{number}"}
            headers = {"authorization": f"Bearer guess-{number}"} | claimed
            statuses.append((await client.get("/api/v1/queue", headers=headers)).status_code)
    assert statuses[0] == 401
    assert 429 in statuses
