"""A person decides on the page: with a pointer, by keyboard alone, and without any script."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from escalation.model import FaultClass, State
from tests.escalation.pages.conftest import Stage, picture


async def state_of(stage: Stage, entry_id: str) -> State:
    return (await stage.desk.entry(entry_id)).recommendation.state


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
async def test_an_entry_is_approved_and_marked_done_with_or_without_a_script(
    stage: Stage, script: bool
) -> None:
    """From the queue to the proof under way, by forms; each step is told, and stands in the person's name."""
    entry = await stage.desk.opened()
    page = await stage.open("/", script=script)
    await page.click("#rows h2 a")
    await page.fill("#approve-reason", "nobody uses it now")
    await page.click("button:has-text('Approve')")
    assert "Approved in your name" in await page.inner_text("[role=status].well")
    decided = (await stage.desk.entry(entry.recommendation.id)).recommendation
    assert (decided.state, decided.approvers, decided.decision_reason) == (
        State.APPROVED,
        ("ada",),
        "nobody uses it now",
    )
    await page.click("button:has-text('Mark done')")
    assert "Recovery is being verified" in await page.inner_text("[role=status].well")
    assert await state_of(stage, entry.recommendation.id) is State.DONE
    await picture(page, f"done-{'script' if script else 'no-script'}")


async def test_an_entry_is_rejected_by_the_keyboard_alone(stage: Stage) -> None:
    """j, r, a reason and Enter; no key alone decides."""
    await stage.desk.opened(case_id="case-0", fault_class=FaultClass.UNIT_RESTART_LOOP)
    entry = await stage.desk.opened()
    page = await stage.open("/")
    for key in ("j", "r"):
        await page.keyboard.press(key)
    await page.wait_for_url("**/q/*")
    await page.wait_for_selector("#reject-reason:focus")
    assert await state_of(stage, entry.recommendation.id) is State.PROPOSED
    await page.keyboard.type("it is planned: j k A r")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("text=Rejected in your name")
    rejected = (await stage.desk.entry(entry.recommendation.id)).recommendation
    assert (rejected.state, rejected.decision_reason) == (State.REJECTED, "it is planned: j k A r")


async def test_a_capital_a_leads_to_the_form_and_decides_nothing(stage: Stage) -> None:
    """A on an entry puts the cursor into the reason; Enter without one is not sent."""
    entry = await stage.desk.opened()
    page = await stage.open(f"/q/{entry.recommendation.id}")
    await page.keyboard.press("A")
    assert await page.evaluate("document.activeElement.id") == "approve-reason"
    await page.keyboard.press("Enter")
    assert await state_of(stage, entry.recommendation.id) is State.PROPOSED
    await page.keyboard.press("Escape")
    await page.keyboard.press("?")
    await page.wait_for_url("**/help")
    await page.goto("/")
    await page.keyboard.press("/")
    assert await page.evaluate("document.activeElement.id") == "f-host"


async def test_every_control_is_reached_by_tab_and_seen(stage: Stage) -> None:
    """Tab alone goes from the skip link through the forms, and what has the focus has an outline."""
    entry = await stage.desk.opened()
    page = await stage.open(f"/q/{entry.recommendation.id}")
    reached = []
    for _ in range(25):
        await page.keyboard.press("Tab")
        name, outline = await page.evaluate(
            "() => { const e = document.activeElement; return [e.id || e.textContent.trim().slice(0, 20),"
            " getComputedStyle(e).outlineStyle]; }"
        )
        reached.append(name)
        if name == "In a terminal":
            break
        assert outline == "solid", name
    assert reached[0] == "Skip to content"
    assert {"approve-reason", "Approve", "reject-reason", "Reject"} <= set(reached)


async def test_what_was_refused_is_told_and_what_was_typed_is_kept(stage: Stage) -> None:
    """When the target changed after the page was read, the page says so and the reason is still there."""
    entry = await stage.desk.opened()
    page = await stage.open(f"/q/{entry.recommendation.id}", script=False)
    await stage.desk.opened(incarnation=await other_boot(entry))
    await page.fill("#approve-reason", "a long <reason> & more")
    await page.click("button:has-text('Approve')")
    assert "is not what was shown" in await page.inner_text("[role=alert]")
    assert await page.input_value("#approve-reason") == "a long <reason> & more"
    assert await state_of(stage, entry.recommendation.id) is State.PROPOSED


async def other_boot(entry: Any) -> Any:
    return replace(entry.incident.incarnation, kernel_boot_id="kernel-2")


async def test_the_same_decision_sent_twice_is_taken_once(stage: Stage) -> None:
    """A second tab that sends what the first one sent is led to the same place, and nothing is added."""
    entry = await stage.desk.opened()
    pages = [await stage.open(f"/q/{entry.recommendation.id}", script=False) for _ in range(2)]
    for page in pages:
        await page.fill("#approve-reason", "twice")
    for page in pages:
        await page.click("button:has-text('Approve')")
        assert "Approved in your name" in await page.inner_text("[role=status].well")
    links = await stage.desk.audit(after=0, limit=100)
    assert [link.verb for link in links].count("recommendation.approved") == 1
    other = await stage.visitor("bob", script=False)
    await other.goto(f"/q/{entry.recommendation.id}")
    assert await other.locator("#approve").count() == 0


async def test_a_viewer_is_offered_no_button(stage: Stage) -> None:
    """Whose role is to look sees everything, and that an operator decides."""
    entry = await stage.desk.opened()
    page = await stage.open(f"/q/{entry.recommendation.id}", "vera")
    assert await page.locator("main button").count() == 0
    assert "an operator decides" in await page.inner_text("#decide")


async def test_a_form_of_another_origin_decides_nothing(stage: Stage) -> None:
    """What a page elsewhere posts is refused, even where a browser sends the cookie along."""
    entry = await stage.desk.opened()
    page = await stage.open(f"/q/{entry.recommendation.id}")
    await page.route(
        "http://elsewhere.test/",
        lambda route: route.fulfill(
            content_type="text/html",
            body=f'<form method=post action="{stage.url}/q/{entry.recommendation.id}/reject">'
            "<input name=reason value=x><button>go</button></form>",
        ),
    )
    await page.goto("http://elsewhere.test/")
    async with page.expect_response("**/reject") as answer:
        await page.click("text=go")
    assert (await answer.value).status == 403
    assert await state_of(stage, entry.recommendation.id) is State.PROPOSED
