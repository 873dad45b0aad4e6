"""The HTTP API over a working desk, as tools use it: decisions, refusals, limits and pages of long lists."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator

import httpx2
import pytest

from escalation.model import CasePhase, Subject, SubjectKind
from escalation.server.attention.attention_desk import Until
from escalation.server.attention.silences import parse
from escalation.server.notify.notifier import Notifier
from escalation.server.notify.notifiers.registry import NotifySettings
from escalation.server.testing import case_report
from escalation.server.web.handlers import MAX_BODY_BYTES
from escalation.server.web.http import build
from escalation.server.web.queue_page import AT_ONCE
from tests.escalation.server.crowd import crowd
from tests.escalation.server.notifiers.told import Mailbox
from tests.escalation.server.web_house import HOSTILE, House, bearer, person


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


async def test_a_defect_is_told_without_its_details(house: House) -> None:
    """An unexpected failure answers 500 in the API's words, and shows nothing of its inside."""
    house.desk.service = None  # type: ignore[assignment]
    response = await house.get("/api/v1/queue")
    assert response.status_code == 500
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert response.json() == {
        "error": {"code": "failed", "message": "the orchestrator failed here; its log has the details"}
    }


async def test_only_template_paths_become_labels(house: House) -> None:
    """However many paths are asked for, the metrics know the routes and `unmatched`."""
    for number in range(20):
        await house.get(f"/q/{number}")
        await house.get(f"/odd/{number}")
    await house.client.request("BREW", "/", headers=bearer("viewer"))
    found = set(re.findall(r'route="([^"]*)"', house.metrics.text().decode()))
    assert found == {"/q/{id}", "unmatched"}
    assert json.dumps(sorted(found))


async def test_a_cleared_case_is_shown_in_history(house: House) -> None:
    """What is over leaves the queue and stays in the history."""
    await house.desk.opened()
    await house.desk.report(case_report(CasePhase.CLEARED))
    assert (await house.get("/api/v1/queue")).json()["entries"] == []
    assert (await house.get("/api/v1/queue?state=all")).json()["total"] == 1


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
