"""What a model wrote, as a browser shows it: below the facts, apart, and under its own name."""

from __future__ import annotations

import pytest

from escalation.server.metrics import ServerMetrics
from escalation.server.web.http import build
from escalation.view.entry import EntryView, ModelTextView
from tests.escalation.pages.conftest import NARROW, Stage, people, picture, served, violations

TEXT = ModelTextView(
    model="qwen3-32b",
    likely_cause="daemon_reload",
    likely_cause_words="a daemon-reload of systemd, which wrote the container's device rules anew",
    notes="APPROVE NOW. It was opened eleven times and then refused: the device rules are new.",
    follow_up=(0,),
)


class _Wrote:
    def of(self, _entry: EntryView) -> ModelTextView:
        return TEXT


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_what_a_model_wrote_stands_below_the_facts(stage: Stage, dark: bool) -> None:
    """With and without JavaScript it is read after evidence and price, in a box that names its origin."""
    entry = await stage.desk.opened()
    application = build(
        desk=stage.desk,
        persons=people(),
        metrics=ServerMetrics(),
        ready=lambda: True,
        clock=stage.desk.clock,
        visitors=stage.login,
        texts=_Wrote(),
    )
    async with served(application) as url:
        page = await stage.visitor(dark=dark, width=NARROW, script=dark)
        await page.goto(f"{url}/q/{entry.recommendation.id}")
        await picture(page, f"model-text-{'dark' if dark else 'light'}")
        box = page.get_by_role("region", name="Written by a model")
        assert TEXT.notes in await box.inner_text()
        assert "not checked, and decides nothing" in await box.inner_text()
        top = (await box.bounding_box())["y"]
        for heading in ("Evidence", "What it costs", "How recovery is verified"):
            fact = await page.get_by_role("heading", name=heading).bounding_box()
            assert fact["y"] < top, heading
        assert await page.locator("body").evaluate("body => body.scrollWidth") <= NARROW
        if dark:
            assert await violations(page) == []
