"""The page of hosts: readable with hundreds of them, and what nobody hears or sees stands first."""

from __future__ import annotations

import re

from escalation.model import BlindReason, SensorCoverage
from escalation.server.testing import heartbeat
from escalation.server.web.hosts_page import HOSTS_AT_ONCE, arrange
from escalation.view.entry import CoverageView, HostView
from tests.escalation.server.web_house import House

_LARGEST_BYTES = 100_000


def _host(name: str, *, silent: bool = False, blind: int = 0, sensors: int = 3) -> HostView:
    coverage = tuple(
        CoverageView(sensor=f"s{number}", seeing=number >= blind, reason=None, words="why")
        for number in range(sensors)
    )
    return HostView(
        host=name,
        last_heard="2026-01-01T00:00:00.000Z",
        silent=silent,
        agent_version="1",
        open_cases=0,
        coverage=coverage,
        losses=(),
    )


def test_what_nobody_hears_or_sees_stands_first() -> None:
    """Silent hosts, then those with a blind sensor or none at all, then the rest, each by name."""
    hosts = [_host("a"), _host("b", blind=1), _host("c", silent=True), _host("d", sensors=0), _host("e")]
    found = arrange(hosts, page=1)
    assert [card.host.host for card in found.cards] == ["c", "b", "d", "a", "e"]
    assert (found.total, found.silent, found.pages) == (5, 1, 1)


def test_every_host_stands_on_exactly_one_page() -> None:
    """The pages together hold each once; a page past the last is the last."""
    hosts = [_host(f"spark-{number:03d}", blind=number % 2) for number in range(2 * HOSTS_AT_ONCE + 1)]
    pages = [arrange(hosts, page=page) for page in (1, 2, 3)]
    names = [card.host.host for page in pages for card in page.cards]
    assert sorted(names) == [each.host for each in hosts]
    assert arrange(hosts, page=99) == pages[2]
    (blind,) = pages[0].blind
    assert (blind.sensor, len(blind.names), blind.more) == ("s0", 8, HOSTS_AT_ONCE - 8)


def test_a_host_that_makes_sensors_up_has_an_end() -> None:
    """Hundreds of made-up sensors are cut, and counted."""
    (card,) = (found := arrange([_host("a", blind=256, sensors=256)], page=1)).cards
    assert (len(card.blind), card.more) == (40, 216)
    assert (len(found.blind), found.more_blind) == (40, 216)


async def test_five_hundred_hosts_are_read_in_pages_under_100_kb(house: House) -> None:
    """Each page, its style and its script are under the bound, and links lead from the first to the last."""
    sensors = [f"kernel.sensor_{number}" for number in range(32)]
    for number in range(500):
        blind = BlindReason.NO_PRIVILEGE if number % 3 == 0 else None
        coverage = (*(SensorCoverage(each, None) for each in sensors), SensorCoverage("gpu.state", blind))
        await house.desk.report(heartbeat(coverage=coverage), host=f"spark-{number:03d}")
    parts = [await house.get(path) for path in ("/static/style.css", "/static/page.js")]
    around = sum(len(part.content) for part in parts)
    seen = list[str]()
    for page in (1, 2, 25):
        answer = await house.get(f"/hosts?page={page}")
        assert around + len(answer.content) < _LARGEST_BYTES
        seen += re.findall(r"<h3><bdi>(spark-[0-9]+)</bdi>", answer.text)
    assert len(set(seen)) == 3 * HOSTS_AT_ONCE
    assert "page 25 of 25" in answer.text
    assert "and 159 more hosts" in answer.text
    assert (await house.get("/hosts?page=x")).status_code == 400
