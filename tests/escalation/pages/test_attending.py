"""What people do besides deciding, on the pages: own, put off, ask, silence, judge; with forms alone."""

from __future__ import annotations

from typing import Any

from tests.escalation.pages.conftest import Stage, picture


async def told(page: Any) -> str:
    return str(await page.inner_text("[role=status].well"))


async def test_an_entry_is_taken_in_hand_asked_about_put_off_and_given_back(stage: Stage) -> None:
    """Each form leads to a page that says what it did; the queue shows it, and leaves out what is put off."""
    entry = await stage.desk.opened()
    path = f"/q/{entry.recommendation.id}"
    page = await stage.open(path, script=False)
    await page.select_option("#acknowledge-for", "2")
    await page.click("#acknowledge button")
    assert "It is yours now" in await told(page)
    assert "ada has it in hand until 2026-01-01T02:00:00" in await page.inner_text("article.entry")
    await page.click("#ask summary, summary:has-text('Ask about it')")
    await page.fill("#ask-text", "is <b>it</b> used?")
    await page.fill("#ask-to", "bob")
    await page.click("#ask button")
    assert "asks bob (1): is <b>it</b> used?" in await page.inner_text("article.entry")

    other = await stage.open("/", "bob", script=False)
    assert "1 entry" in await other.inner_text("h1")
    assert "wait" not in await other.inner_text("h1")
    assert "ada has it in hand" in await other.inner_text("#rows")
    await other.goto(path)
    await other.fill("#answer-text", "nobody uses it")
    await other.click("#answer button")
    await other.click("#snooze button")
    assert "Put off" in await told(other)
    await picture(other, "entry-attended")
    await other.goto("/")
    assert "1 snoozed" in await other.inner_text("main")
    assert await other.locator("#rows > li").count() == 0
    await other.click("text=1 snoozed")
    assert await other.locator("#rows > li").count() == 1
    await other.goto(path)
    await other.click("#release button")
    assert "It is given back" in await told(other)
    said = [link.verb for link in await stage.desk.audit(after=0, limit=100) if link.actor in {"ada", "bob"}]
    assert [verb for verb in said if verb.startswith("incident.")] == [
        "incident.acknowledged",
        "incident.asked",
        "incident.answered",
        "incident.snoozed",
        "incident.released",
    ]


async def test_a_silence_is_looked_at_before_it_is_made_and_ended_by_hand(stage: Stage) -> None:
    """What it would cover is shown first; a matcher that cannot be read is told, and nothing is lost."""
    await stage.desk.opened()
    page = await stage.open("/silences", script=False)
    await page.fill("#match", "hots=spark-1")
    await page.click("text=Show what it would cover")
    assert "a matcher is FIELD=VALUE" in await page.inner_text("[role=alert]")
    assert await page.input_value("#match") == "hots=spark-1"
    await page.fill("#match", "host=spark-1 fault_class~gpu.*")
    await page.click("text=Show what it would cover")
    assert "It would cover 1 open incident now: spark-1" in await page.inner_text("[role=status]")
    await page.fill("#comment", "a planned move")
    await page.click("button:has-text('Silence it')")
    assert "The silence stands" in await told(page)
    await picture(page, "silences-one")
    await page.click("button:has-text('End it')")
    assert "It is ended" in await told(page)
    assert await page.locator("button:has-text('End it')").count() == 0


async def test_a_verdict_counts_for_its_rule_which_can_be_put_in_shadow_and_taken_out(stage: Stage) -> None:
    """No fault needs a reason; the rule's page shows how often it was right, and the shadow has an author."""
    entry = await stage.desk.opened()
    page = await stage.open(f"/q/{entry.recommendation.id}", script=False)
    await page.click("summary:has-text('Was there a fault?')")
    await page.click("button:has-text('Not a fault')")
    assert "Not done" in await page.inner_text("[role=alert]")
    await page.fill("#verdict-reason", "a drill of ours")
    await page.click("button:has-text('Not a fault')")
    assert "Your verdict is kept" in await told(page)
    await page.goto("/rules")
    text = await page.inner_text("main")
    assert "0 judged a fault, 1 not a fault" in text
    await page.click("summary:has-text('Put it in shadow')")
    await page.fill("input[name=reason]", "too noisy here")
    await page.click("button:has-text('Put it in shadow')")
    assert "is in shadow, in your name" in await told(page)
    await picture(page, "rules-shadow")
    await page.click("summary:has-text('Take it out')")
    await page.fill("input[name=reason]", "mended")
    await page.click("button:has-text('Take it out')")
    assert "out of its shadow" in await told(page)


async def test_an_incident_shows_its_moments_in_words_and_on_an_axis(stage: Stage) -> None:
    """The drawing has a text beside it, and the list says the same."""
    entry = await stage.desk.opened()
    stage.desk.clock.advance(60)
    await stage.desk.reject(entry.recommendation.id, person="bob", reason="planned")
    page = await stage.open(f"/q/{entry.recommendation.id}", script=False)
    await page.click("text=The incident and its timeline")
    moments = await page.locator("[data-part=timeline] li").count()
    assert moments >= 3
    assert await page.locator("svg.axis .moment").count() == moments
    assert f"{moments} moments from" in str(await page.get_attribute("svg.axis", "aria-label"))
    await picture(page, "incident-moments")
