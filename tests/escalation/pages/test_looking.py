"""What a person sees: rows that live, text from hosts that cannot act, thousands of entries, few bytes."""

from __future__ import annotations

from dataclasses import replace

from escalation.model import (
    AgentId,
    CasePhase,
    FaultClass,
    IncidentId,
    RecommendationId,
    Severity,
    Subject,
    SubjectKind,
)
from escalation.server.testing import case_report, heartbeat
from tests.escalation.pages.conftest import NARROW, Stage, picture

HOSTILE = (
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "\"><svg onload=document.title='owned'>",
    "javascript:document.title='owned'",
    "' onfocus=document.title='owned' autofocus='",
    "{{ 7*7 }}{% raw %}",
    "\x1b[31mred\x1b]0;owned\x07",
    "\u202egnp.exe\u2066\u200b\ufeff",
    "</li></ol></main><form action=/q/x/approve>",
    "\x00\r\nSet-Cookie: x=y",
)


def unit(number: int) -> dict[str, object]:
    """Return the fields of a case of its own."""
    return {
        "case_id": f"case-{number}",
        "subject": Subject(SubjectKind.UNIT, f"unit-{number}.service"),
        "severity": Severity.HIGH,
    }


async def test_new_entries_are_announced_and_rows_keep_their_place(stage: Stage) -> None:
    """What is new is counted, not pushed in; what changed changes where it stands; the focus stays."""
    await stage.desk.opened(host="spark-1", **unit(1))
    await stage.desk.opened(host="spark-2", **unit(2))
    page = await stage.open("/")
    await page.wait_for_selector("#live:text-is('Live.')")
    await page.keyboard.press("j")
    await page.keyboard.press("j")
    order = "[...document.querySelectorAll('#rows > li')].map(each => each.dataset.id)"
    ids = await page.evaluate(order)
    top = "document.activeElement.closest('li').getBoundingClientRect().top"
    stood = await page.evaluate(top)
    await stage.desk.opened(host="spark-3", case_id="case-3", severity=Severity.CRITICAL)
    await page.wait_for_selector("#news:has-text('1 new, show')")
    await stage.desk.reject(ids[0], person="bob", reason="planned")
    await page.wait_for_selector("#rows > li.gone:first-child")
    assert await page.evaluate(order) == ids
    assert "no longer in this list" in await page.inner_text("#rows > li:first-child")
    assert await page.evaluate("document.activeElement.closest('li').dataset.id") == ids[1]
    assert abs(await page.evaluate(top) - stood) < 2
    await picture(page, "queue-live")
    await page.click("#news a")
    await page.wait_for_selector("#rows:not(:has(.gone)) > li:nth-child(2)")
    assert (await page.title()).startswith("(2) Queue")


async def test_a_stale_button_stays_off(stage: Stage) -> None:
    """When somebody else decides first, the buttons of who still looks go off, and do not come back."""
    entry = await stage.desk.opened()
    page = await stage.open(f"/q/{entry.recommendation.id}")
    await page.wait_for_selector("#live:text-is('Live.')")
    assert await page.locator("#decide button:enabled").count() >= 2
    await stage.desk.reject(entry.recommendation.id, person="bob", reason="planned")
    await page.wait_for_selector("#changed:visible")
    await stage.desk.report(heartbeat())
    assert await page.locator("#decide button:enabled").count() == 0
    await page.click("text=Look again")
    assert await page.locator("#approve, #reject").count() == 0


async def test_an_incident_is_brought_up_to_date_where_it_stands(stage: Stage) -> None:
    """What is told of it appears by itself, and is announced; focus and place on the screen stay."""
    entry = await stage.desk.opened(severity=Severity.HIGH)
    page = await stage.open(f"/i/{entry.incident.id}", width=NARROW)
    await page.wait_for_selector("#live:text-is('Live.')")
    await page.focus("[data-part=recommended] a")
    where = "document.activeElement.getBoundingClientRect().top"
    stood = await page.evaluate(where)
    read = await page.inner_text("#read")
    stage.desk.clock.advance(120)
    seen = {"last_seen_ns": stage.desk.clock.wall_ns(), "count": 9}
    await stage.desk.report(case_report(CasePhase.UPDATED, severity=Severity.CRITICAL, **seen))
    await page.wait_for_selector("#news:has-text('1 more on the timeline')")
    assert "now critical, was high" in await page.inner_text("[data-part=timeline]")
    assert "9\u00d7 in all" in await page.inner_text("article")
    assert "9 sightings, at most 8 in one step" in await page.inner_text("article")
    assert await page.locator("article.critical svg.strip").count() == 1
    assert await page.inner_text("#read") != read
    assert await page.get_attribute(":focus", "href") == f"/q/{entry.recommendation.id}"
    assert abs(await page.evaluate(where) - stood) < 100
    await stage.desk.reject(entry.recommendation.id, person="bob", reason="planned")
    await page.wait_for_selector("#news:has-text('2 more on the timeline')")
    await picture(page, "incident-live")
    await page.click("#news a")
    assert await page.inner_text("#news") == ""
    assert page.url.endswith("#timeline")


async def test_what_is_out_of_sight_holds_no_connection(stage: Stage) -> None:
    """A browser keeps six to one host; an entry that is looked at again is live again, and up to date."""
    entry = await stage.desk.opened()
    page = await stage.open(f"/q/{entry.recommendation.id}")
    await page.wait_for_selector("#live:text-is('Live.')")
    hide = (
        "hidden => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });"
        " document.dispatchEvent(new Event('visibilitychange')); }"
    )
    await page.evaluate(hide, True)
    await page.wait_for_selector("#live:has-text('out of sight')")
    await stage.desk.reject(entry.recommendation.id, person="bob", reason="planned")
    assert await page.locator("#changed:visible").count() == 0
    await page.evaluate(hide, False)
    await page.wait_for_selector("#changed:visible")


async def test_a_page_whose_session_ended_says_so_and_leads_to_the_login(stage: Stage) -> None:
    """An open queue is not silently old: it tells that it is not live any more, and how to be."""
    await stage.desk.opened()
    page = await stage.open("/")
    await page.wait_for_selector("#live:text-is('Live.')")
    await stage.login.sessions.end_all("ada", by="root")
    stage.desk.clock.advance(2)
    await stage.desk.opened(**unit(2))
    await page.click("#live a:text-is('Log in again')")
    await page.wait_for_url("**/login?next=*")


async def test_text_from_hosts_cannot_act(stage: Stage) -> None:
    """Names that try to be markup, escapes or directions are text on every page."""
    for number, text in enumerate(HOSTILE):
        await stage.desk.opened(
            host="spark-1",
            case_id=f"case-{number}",
            fault_class=FaultClass.UNIT_RESTART_LOOP,
            subject=Subject(SubjectKind.UNIT, text),
        )
    await stage.desk.report(heartbeat(agent_version=HOSTILE[0]))
    entries = await stage.desk.queue(None)
    page = await stage.visitor()
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    shown = {"/?fold=no", "/hosts", "/audit", *(f"/q/{entry.recommendation.id}" for entry in entries)}
    for path in sorted(shown):
        await page.goto(path)
        assert "owned" not in await page.title()
        scripts = await page.evaluate("[...document.scripts].map(each => each.text || each.src)")
        assert all(each.startswith(f"{stage.url}/static/") for each in scripts), scripts
        assert await page.evaluate("document.querySelectorAll('img, iframe, svg[onload]').length") == 0
        text = await page.inner_text("body")
        assert not set(text) & set("\x1b\x07\x00\u202e\u2066\u200b\ufeff")
    await page.goto("/?fold=no")
    assert "<script>document.title='owned'</script>" in await page.inner_text("#rows")
    assert refused == []


async def test_a_filter_stands_in_the_address(stage: Stage) -> None:
    """Choosing host, class and severity by a form without a script leads to an address that can be kept."""
    await stage.desk.opened(host="spark-1", **unit(1))
    await stage.desk.opened(host="spark-2", **unit(2))
    page = await stage.open("/", script=False)
    await page.select_option("#f-host", "spark-2")
    await page.select_option("#f-severity", "high")
    await page.click("text=Filter")
    assert "host=spark-2" in page.url
    assert await page.locator("#rows > li").count() == 1
    assert "spark-2" in await page.inner_text("#rows")
    await page.goto("/?host=<b>nobody</b>&page=9999")
    assert "Nothing fits this filter" in await page.inner_text("main")


async def test_an_empty_queue_says_who_is_heard(stage: Stage) -> None:
    """Nothing waits, and the page says whether that means anything."""
    await stage.desk.report(heartbeat(), host="spark-1")
    page = await stage.open("/")
    text = await page.inner_text("main")
    assert "Nothing waits for you." in text
    assert "spark-1 heard" in text
    await picture(page, "queue-empty")


async def test_a_page_with_all_it_needs_is_light_and_asks_nobody_else(stage: Stage) -> None:
    """A hundred rows and their drawings, style and script are under 100 kB, from one origin."""
    entry = await stage.desk.opened(host="spark-0", **unit(0))
    for number in range(120):
        moments = [stage.desk.clock.wall_ns() + minute * 60_000_000_000 for minute in (0, *range(1, 24, 2))]
        seen = [
            case_report(CasePhase.UPDATED, last_seen_ns=at_ns, count=count * count, **unit(number))
            for count, at_ns in enumerate(moments, start=1)
        ]
        await stage.desk.reports(seen, host=f"spark-{number}")
    page = await stage.visitor(width=NARROW)
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url))
    common = 0
    for name in ("style.css", "page.js"):
        common += len(await (await page.context.request.get(f"/static/{name}")).body())
    paths = ["/", "/hosts", "/audit", "/help", f"/q/{entry.recommendation.id}", f"/i/{entry.incident.id}"]
    for path in paths:
        answer = await page.goto(path, wait_until="load")
        assert len(await answer.body()) + common < 100_000, path
    assert [url for url in asked if not url.startswith((stage.url, "data:"))] == []
    await page.goto("/")
    assert await page.locator("#rows > li").count() == 100
    assert await page.locator("#rows svg.strip").count() == 25
    await page.click("text=next")
    assert await page.locator("#rows > li").count() == 20


async def test_ten_thousand_entries_are_pages_of_a_hundred(stage: Stage) -> None:
    """First, next and last page are there, and what is alike is folded into a line for each host."""
    entry = await stage.desk.opened(host="spark-0")
    ledger = stage.desk.store.ledger
    for number in range(1, 10_000):
        incident = replace(
            entry.incident,
            id=IncidentId(f"i{number}"),
            agent_id=AgentId(f"spark-{number % 40}"),
            subject=Subject(SubjectKind.UNIT, f"unit-{number}.service"),
        )
        ledger.put_incident(incident)
        made = replace(entry.recommendation, id=RecommendationId(f"r{number:05}"), incident_id=incident.id)
        ledger.put_recommendation(made, incident)
    page = await stage.open("/?fold=no", width=NARROW, script=False)
    assert "10000 entries, 10000 wait for you" in await page.inner_text("h1")
    assert await page.locator("#rows > li").count() == 100
    await page.click("text=next")
    assert "page 2 of 100" in await page.inner_text(".pager")
    assert len(await page.content()) < 100_000
    await page.goto("/?fold=no&page=100")
    assert await page.locator("#rows > li").count() == 100
    await page.goto("/")
    assert await page.locator("#rows > li").count() == 40
    assert "and 249 more of this kind on this host" in await page.inner_text("#rows")
