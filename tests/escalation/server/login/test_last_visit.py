"""What is new since somebody was here last, and what counts as having been here."""

from __future__ import annotations

import re

import httpx2
import pytest

from escalation.model import CasePhase, Severity, Subject, SubjectKind
from escalation.server.attention import last_visits
from escalation.server.attention.attention_desk import Until
from escalation.server.attention.last_visits import ENDS_AFTER_S, VISITS
from escalation.server.testing import FakeDesk, MemoryLedger, case_report
from escalation.server.web.login.settings import LoginSettings
from tests.escalation.server.login.conftest import House, built

UNATTENDED = {"x-unattended": "yes"}
NS = 1_000_000_000


async def marks(client: httpx2.AsyncClient) -> tuple[list[str], str]:
    """Return how the rows of the queue are marked, and what its page says of the last visit."""
    page = (await client.get("/?fold=no")).text
    said = re.search(r'id="since">(.*?)</p>', page)
    plain = re.sub(r"<[^>]+>", "", said[1]) if said else ""
    return re.findall(r'class="fresh">(\w+)<', page), plain


async def opens(desk: FakeDesk, number: int) -> str:
    """Let a fault be reported, and return its entry's id."""
    subject = Subject(SubjectKind.UNIT, f"unit-{number}.service")
    entry = await desk.opened(case_id=f"case-{number}", subject=subject, severity=Severity.HIGH)
    return entry.recommendation.id


async def test_the_queue_marks_what_is_new_and_what_changed_since_the_last_visit(house: House) -> None:
    """A first visit marks nothing; after a night the rows say what is new, and what somebody else did."""
    one, two = await opens(house.desk, 1), await opens(house.desk, 2)
    ada = await house.enters("ada")
    assert await marks(ada) == ([], "")
    house.desk.clock.advance(ENDS_AFTER_S + 1)
    await house.desk.attention.acknowledge(two, person="bob", until=Until(3600, None))
    await opens(house.desk, 3)
    found, said = await marks(ada)
    assert sorted(found) == ["changed", "new"]
    assert said == "Since your last visit, which ended 30 min 1 s ago: 1 new, 1 changed on this page."
    assert "bob has it in hand until" in (await ada.get("/")).text
    assert await marks(ada) == (found, said), "reading it again takes no mark away"
    assert await marks(await house.enters("ada")) == (found, said), "another browser is the same visit"
    assert await marks(await house.enters("bob")) == ([], "")
    house.desk.clock.advance(ENDS_AFTER_S + 1)
    await house.desk.reject(one, person="ada", reason="planned")
    assert (await marks(ada))[0] == [], "what one did oneself is no news"


async def test_what_got_worse_since_the_last_visit_says_so(house: House) -> None:
    """The row says in words what was noted last, and when."""
    await opens(house.desk, 1)
    ada = await house.enters("ada")
    house.desk.clock.advance(2 * ENDS_AFTER_S)
    subject = Subject(SubjectKind.UNIT, "unit-1.service")
    worse = case_report(CasePhase.UPDATED, case_id="case-1", subject=subject, severity=Severity.CRITICAL)
    await house.desk.report(worse)
    assert (await marks(ada))[0] == ["changed"]
    assert "now critical, was high" in (await ada.get("/")).text


async def test_what_a_page_asks_for_by_itself_is_no_visit_and_keeps_no_session() -> None:
    """An open page that nobody looks at ends its session when it is idle, and is no visit meanwhile."""
    async with built(settings=LoginSettings(idle_s=600, fresh_s=60)) as house:
        ada = await house.enters("ada")
        before = house.desk.store.ledger.records.of(VISITS)
        for _ in range(2):
            house.desk.clock.advance(250)
            assert (await ada.get("/", headers=UNATTENDED)).status_code == 200
        assert house.desk.store.ledger.records.of(VISITS) == before
        house.desk.clock.advance(101)
        assert (await ada.get("/", headers=UNATTENDED)).status_code == 303


@pytest.mark.parametrize("headers", [UNATTENDED, {"accept": "text/event-stream"}])
async def test_an_open_page_without_a_session_asks_nobody_for_a_name(
    house: House, headers: dict[str, str]
) -> None:
    """A browser opens its own window for names at a challenge of the kind Basic; this is none."""
    answer = await house.browser().get("/live", headers={"accept": "*/*"} | headers)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="nanobot"')


def test_a_visit_ends_half_an_hour_after_its_last_request() -> None:
    """The end of the visit before stands still as long as this one goes on, whatever the clock does."""
    ledger = MemoryLedger()
    for at_s, since_s in ((1000, 0), (2700, 0), (5000, 2700), (5900, 2700), (5000, 2700), (7701, 5900)):
        last_visits.note(ledger, "ada", now_ns=at_s * NS)
        assert last_visits.since(ledger, "ada") == since_s * NS
    assert last_visits.since(ledger, "bob") == 0
