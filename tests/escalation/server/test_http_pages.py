"""What a person reads in a browser: small pages that leave nothing unsaid, with every name inert."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from escalation.model import (
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
from escalation.server.testing import case_report, heartbeat
from tests.escalation.server.web_house import HOSTILE, House

SCRIPT = '<script src="/static/page.js" defer>'


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
