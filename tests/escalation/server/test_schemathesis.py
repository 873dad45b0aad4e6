"""The API held against its own description by schemathesis: a real orchestrator, every operation of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from escalation.server.testing import case_report, heartbeat
from escalation.wire import codec
from tests.escalation.server.conftest import running
from tests.escalation.server.site import TOKEN, Site, escalate, wired

PROGRAM = Path(__file__).parents[3] / ".venv/schemathesis/bin/st"
READER, ADMIN = "token-that-reads", "token-of-an-admin"
# Every boundary of each schema in turn; requests at random are test_http_access's.
# Either a length or an end and not both, and matchers with names of ours: 400 says what no schema can.
SETTINGS = """
[phases.coverage]
unexpected-methods = ["DELETE", "PUT"]
[[operations]]
include-path-regex = "/(acknowledge|snooze|maintenance|silences|preview)$"
[operations.checks]
positive_data_acceptance.expected-statuses = ["2xx", 400, 404, 409]
"""
# A stream has no end; test_http_watch reads it.
ENDLESS = "/api/v1/watch"

pytestmark = [
    pytest.mark.skipif(not PROGRAM.exists(), reason="schemathesis is not installed (dev/setup.sh tests)"),
    pytest.mark.slow,
    pytest.mark.timeout(300),
]


async def described(site: Site) -> dict[str, Any]:
    """Return the description, each id of an entry in it being one that is there or one that is not."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx2.AsyncClient(base_url=site.url, headers=headers) as client:
        document = (await client.get("/api/v1/openapi.json")).json()
        entries = (await client.get("/api/v1/queue")).json()["entries"]
    ids = [each[key] for each in entries for key in ("id", "incident_id")]
    for path, operations in document["paths"].items():
        if not path.startswith(("/api/v1/queue/", "/api/v1/incidents/")):
            continue
        for operation in operations.values():
            for parameter in operation["parameters"]:
                if parameter["in"] == "path":
                    parameter["schema"] = {"enum": [*ids, "nothing"]}
    return document


@asynccontextmanager
async def fleet(site: Site) -> AsyncIterator[None]:
    """Run an orchestrator with two persons, to which one host reports two incidents."""
    persons = ""
    for role, token in (("viewer", READER), ("admin", ADMIN)):
        digest = hashlib.sha256(token.encode()).hexdigest()
        persons += f'[[person]]\nname = "{role}-1"\nrole = "{role}"\ntoken_sha256 = "{digest}"\n'
    site.config_file.write_text(site.config_file.read_text() + persons)
    reports = [wired(heartbeat(), 1)]
    reports += [wired(case_report(case_id=f"case-{number}"), number) for number in (2, 3)]
    async with running(site):
        async with site.channel(site.authority.agent("spark-1")) as channel:
            await escalate(channel, codec.join(reports))
        yield


async def judged(site: Site, document: dict[str, Any], token: str, *options: str) -> tuple[int, str]:
    """Run schemathesis over the operations that `options` choose; return its exit code and what it says."""
    path = site.folder / "openapi.json"
    path.write_text(json.dumps(document))
    (site.folder / "schemathesis.toml").write_text(SETTINGS)
    process = await asyncio.create_subprocess_exec(
        PROGRAM,
        *("run", str(path), "--url", site.url, "--header", f"Authorization: Bearer {token}", *options),
        *("--exclude-path", ENDLESS, "--phases", "examples,coverage"),
        *("--seed", "1", "--no-shrink", "--continue-on-failure", "--no-color"),
        # Wrong credentials are answered 429 after ten tries; test_http_access has each route refuse them.
        *("--exclude-checks", "ignored_auth"),
        cwd=site.folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode(errors="replace")


@pytest.mark.parametrize(("method", "token"), [("GET", READER), ("POST", ADMIN)])
async def test_every_operation_keeps_what_the_description_says(site: Site, method: str, token: str) -> None:
    """Made-up requests, right and wrong: no failure, documented codes and shapes, and nonsense is refused."""
    async with fleet(site):
        code, said = await judged(site, await described(site), token, "--include-method", method)
    assert code == 0, said[-12000:]


async def test_a_description_that_is_not_true_is_found(site: Site) -> None:
    """A bound that the orchestrator does not keep, and a field that no answer has, are both reported."""
    async with fleet(site):
        document = await described(site)
        document["paths"]["/api/v1/incidents"]["get"]["parameters"][0]["schema"]["maximum"] = 10
        document["components"]["schemas"]["Me"]["required"].append("shoe_size")
        paths = ("--include-path", "/api/v1/incidents", "--include-path", "/api/v1/me")
        code, said = await judged(site, document, READER, *paths)
    assert code == 1
    assert "shoe_size" in said
    assert "2 unique failures" in said
