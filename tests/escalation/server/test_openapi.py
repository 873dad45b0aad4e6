"""The API's description: made of the table of routes, the same as the file that is published."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import httpx2
import msgspec
import pytest
from starlette.requests import Request
from starlette.responses import Response

from dev import api_description
from escalation.server.metrics import ServerMetrics
from escalation.server.testing import FakeDesk
from escalation.server.web.access import Person, Role
from escalation.server.web.handlers import Nothing, Rule, json_answer
from escalation.server.web.http import build
from escalation.server.web.openapi import PATH, document
from tests.escalation.server.site import TOKEN, Site

PUBLISHED = Path(__file__).parents[3] / "docs/reference/openapi.json"


async def test_the_running_orchestrator_describes_what_is_published(orchestrator: Site) -> None:
    """What a real orchestrator answers about itself is what docs/reference/openapi.json says."""
    async with httpx2.AsyncClient(base_url=orchestrator.url) as client:
        answer = await client.get(PATH, headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.json() == json.loads(PUBLISHED.read_text())


def test_every_operation_says_what_it_takes_and_answers() -> None:
    """A route that is added without a sentence or the type of its body or answer fails here."""
    paths = json.loads(PUBLISHED.read_text())["paths"]
    for path, operations in paths.items():
        for method, operation in operations.items():
            (content,) = operation["responses"]["200"]["content"].values()
            assert operation["summary"].endswith("."), (method, path)
            assert content["schema"], f"{method} {path}: the rule names no type of its answer"
            assert ("requestBody" in operation) is (method == "post"), f"{method} {path}: what is its body?"
            assert operation.get("security") == [] or operation["x-role"] in set(Role), (method, path)


def test_operations_have_names_of_their_own() -> None:
    """Two operations of one name would be one function in a generated client."""
    paths = json.loads(PUBLISHED.read_text())["paths"]
    names = [each["operationId"] for operations in paths.values() for each in operations.values()]
    assert len(names) == len(set(names))


class _Odd(msgspec.Struct, forbid_unknown_fields=True):
    name: str


async def _nothing(_request: Request) -> Response:
    return json_answer(Nothing())


def test_a_route_of_another_desk_is_described() -> None:
    """A route beside those of the desk is in the document with its body and role; a page is not."""
    rules = (
        Rule("POST", "/api/v1/odd/{id}", Role.ADMIN, _nothing, "Odd.", body=_Odd, answer=Nothing),
        Rule("GET", "/odd", Role.VIEWER, _nothing),
    )
    described = document(rules)
    assert set(described["paths"]) == {"/api/v1/odd/{id}"}
    operation = described["paths"]["/api/v1/odd/{id}"]["post"]
    assert operation["x-role"] == "admin"
    assert operation["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/Odd"
    }
    assert described["components"]["schemas"]["Odd"]["additionalProperties"] is False


@pytest.mark.parametrize(
    ("role", "may_decide"), [("scraper", False), ("viewer", False), ("operator", True), ("admin", True)]
)
async def test_says_who_asks(role: str, may_decide: bool) -> None:
    """Credentials can be asked for their name, their role, and whether they may change anything."""
    desk = FakeDesk()
    person = Person(name="kim", role=Role(role), token_sha256=hashlib.sha256(TOKEN.encode()).hexdigest())
    app = build(desk=desk, persons=[person], metrics=ServerMetrics(), ready=lambda: True, clock=desk.clock)
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        answer = await client.get("/api/v1/me", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.json() == {"name": "kim", "role": role, "may_decide": may_decide}


def test_the_published_file_is_the_generated_one() -> None:
    """The file is written by `make generate` and never by hand."""
    assert PUBLISHED.read_text() == api_description.page()
