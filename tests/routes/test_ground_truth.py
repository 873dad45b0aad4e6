"""What the drivers record is what the scenarios say, through every server: the ground of all comparisons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields

import pytest

from probes.http.facts import Ending
from tests.routes.answers import End
from tests.routes.driver import Driver, Seen
from tests.routes.expectation import NONE, Changes, expected
from tests.routes.scenarios import BY_NAME, OLLAMA, SCENARIOS, THROUGH_LITELLM, Scenario
from tests.routes.serving import Server
from tests.routes.truth import Truth

DIRECT = ("uvicorn-asyncio", "uvicorn-uvloop", "granian", "node", "go")


def _differing(true: Truth, said: Truth) -> list[tuple[str, object, object]]:
    pairs = [(field.name, getattr(true, field.name), getattr(said, field.name)) for field in fields(Truth)]
    return [pair for pair in pairs if pair[1] != pair[2]]


def check(seen: list[Seen], changes: Changes = NONE) -> None:
    """Hold what was recorded, and what the client library gave, against the table."""
    wrong = [
        f"{one.scenario.name}: {name} is {true!r}, not {said!r}"
        for one in seen
        for name, true, said in _differing(one.truth, expected(one.scenario, one.truth, changes))
    ]
    assert "\n".join(wrong) == ""
    through = [one for one in seen if one.failed == "" and one.truth.ending is not Ending.CUT]
    assert [len(one.content) for one in through] == [one.truth.content_characters for one in through]
    sound = [one for one in seen if one.scenario.name.endswith("-ok")]
    assert [one.failed for one in sound] == [""] * len(sound)


async def _every(server: Server, scenarios: Sequence[Scenario]) -> list[Seen]:
    async with Driver(server.url) as driver:
        return await driver.all(scenarios)


def _heard(server: Server) -> list[str]:
    return [asked["model"] for asked in (server.upstream or server).asked()]


@pytest.mark.parametrize("kind", [*DIRECT, "nginx-unbuffered"])
async def test_every_scenario_comes_out_as_it_says(serve: Callable[[str], Server], kind: str) -> None:
    """One after another on kept connections, each scenario once, and the upstream heard each once."""
    server = serve(kind)
    before = len(_heard(server))
    check(await _every(server, SCENARIOS))
    assert _heard(server)[before:] == [scenario.name for scenario in SCENARIOS]


async def test_buffering_and_gzip_change_no_answer(serve: Callable[[str], Server]) -> None:
    """Compressed and gathered on the way, every answer that ends is the same; one that hangs is not begun."""
    ended = [s for s in SCENARIOS if s.answer.end is not End.WAIT] + [BY_NAME["stream-hangs"]]
    unseen = {"status": 0, "streamed": False, "chunks": 0, "content_characters": 0}
    check(await _every(serve("nginx-gzip"), ended), {"stream-hangs": unseen})


@pytest.mark.timeout(150)
async def test_litellm_repairs_what_is_broken_behind_it(serve: Callable[[str], Server]) -> None:
    """Of the answers that end badly behind it, clients see well-formed ones; each was asked for once."""
    server = serve("litellm")
    known = [scenario for scenario in SCENARIOS if scenario not in OLLAMA]
    before = len(_heard(server))
    check(await _every(server, known), THROUGH_LITELLM)
    assert _heard(server)[before:] == [scenario.name for scenario in known]


@pytest.mark.parametrize("kind", [*DIRECT, "nginx-unbuffered"])
async def test_eight_connections_at_once_mix_nothing_up(serve: Callable[[str], Server], kind: str) -> None:
    """Every scenario at the same time over eight connections, each as alone."""
    server = serve(kind)
    quiet = [s for s in SCENARIOS if s.answer.end not in (End.WAIT, End.SILENT)]
    async with Driver(server.url, connections=8) as driver:
        check(await driver.at_once(quiet))
