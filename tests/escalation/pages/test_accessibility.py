"""Every page as axe-core sees it, light and dark, wide and at 360 pixels."""

from __future__ import annotations

import pytest

from escalation.model import CasePhase
from escalation.server.testing import case_report, heartbeat
from tests.escalation.pages.conftest import NARROW, WIDE, Stage, picture, violations


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_axe_finds_nothing_on_any_page(stage: Stage, dark: bool) -> None:
    """No page breaks a rule of WCAG 2.2 AA that a machine can check, and none is wider than its window."""
    await stage.desk.report(heartbeat())
    entry = await stage.desk.opened()
    seen_ns = stage.desk.clock.wall_ns() + 600_000_000_000
    await stage.desk.report(case_report(CasePhase.UPDATED, last_seen_ns=seen_ns, count=40))
    page = await stage.visitor(dark=dark)
    found = {}
    for name, path in {
        "queue": "/",
        "entry": f"/q/{entry.recommendation.id}",
        "hosts": "/hosts",
        "incident": f"/i/{entry.incident.id}",
        "silences": "/silences?match=host%3Dspark-1",
        "rules": "/rules",
        "audit": "/audit",
        "help": "/help",
        "nothing": "/?severity=note",
    }.items():
        for width in (WIDE, NARROW):
            await page.set_viewport_size({"width": width, "height": 800})
            await page.goto(path)
            await picture(page, f"{name}-{width}-{'dark' if dark else 'light'}")
            assert await page.evaluate("document.documentElement.scrollWidth") <= width, path
        if broken := await violations(page):
            found[path] = broken
    assert found == {}
