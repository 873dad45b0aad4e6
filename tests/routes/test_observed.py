"""What the observer says of every exchange on the wire is what was true of it, request by request."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from probes.http.facts import Ending, ExchangeFacts, UnobservedReason
from probes.kernel.handover import Handover
from tests.routes.answers import End
from tests.routes.driver import Driver, Seen
from tests.routes.expectation import NONE, expected
from tests.routes.observing import Observing, load_capture
from tests.routes.scenarios import (
    BY_NAME,
    LLAMACPP,
    OLLAMA,
    SCENARIOS,
    SLOW,
    Scenario,
)
from tests.routes.serving import Server, Servers
from tests.routes.truth import ROUTES, Truth, differences

pytestmark = [pytest.mark.root, pytest.mark.ebpf]

DIRECT = ("uvicorn-asyncio", "uvicorn-uvloop", "granian", "node", "go", "nginx-unbuffered")
ENDING = tuple(s for s in SCENARIOS if s.answer.end not in (End.WAIT, End.SILENT))
_SLACK_S = 2.0
# A client cannot parse half of a JSON text; the observer has read what came of it.
_OF_A_TEXT = frozenset(
    {"content_characters", "reasoning_characters", "finish", "prompt_tokens", "completion_tokens"}
)
# Of a long request the middle is not captured, and what may have stood there is unknown.
_OF_A_REQUEST = ("stream_asked", "tools_asked", "max_tokens")
_CAPTURED_OF_A_REQUEST = 4096
# A client that has gone cannot say what else came; what came before it went was the same.
_AFTER_LEAVING = frozenset({"status"})


def compare(true: Truth, said: ExchangeFacts, *, but: frozenset[str] = frozenset()) -> list[str]:
    """Hold one exchange's facts against the truth; say what is different."""
    if true.ending is Ending.CUT and not true.streamed:
        but |= _OF_A_TEXT
    if true.ending is Ending.CANCELLED:
        but |= _AFTER_LEAVING
    if true.request_bytes > _CAPTURED_OF_A_REQUEST:
        but |= {name for name in _OF_A_REQUEST if getattr(said, name) is None}
    return [str(different) for different in differences(true, said, but=but)]


def by_model(facts: list[ExchangeFacts]) -> dict[str, ExchangeFacts]:
    """Return the facts by the model's name, of which each may be there once."""
    found = {str(f.name.model): f for f in facts}
    assert len(found) == len(facts)
    return found


def check(seen: list[Seen], facts: list[ExchangeFacts], *, kinds: bool = True) -> None:
    """Hold all of them against what the clients saw, and, with `kinds`, errors against the table."""
    wrong: list[str] = []
    said_of = by_model(facts)
    assert sorted(said_of) == sorted(one.truth.model for one in seen)
    for one in seen:
        name, said = one.scenario.name, said_of[one.truth.model]
        wrong += compare(one.truth, said)
        if kinds and said.error is not one.scenario.expected.error:
            wrong.append(f"{name}: error {said.error}, not {one.scenario.expected.error}")
        if (said.error is not None) is not (said.error_in_answer or said.status >= 400):
            wrong.append(f"{name}: status {said.status} and error {said.error}")
        moments = [said.first_byte_s, said.first_token_s, said.duration_s, one.duration_s + _SLACK_S]
        known = [moment for moment in moments if moment is not None]
        if known != sorted(known) or known[0] < 0:
            wrong.append(f"{name}: moments {moments} are not in order")
        if said.streamed and sum(said.gaps) != max(0, said.chunks - 1):
            wrong.append(f"{name}: {sum(said.gaps)} gaps between {said.chunks} chunks")
    assert "\n".join(wrong) == ""


def without_holes(seen: list[Seen], observing: Observing) -> list[Seen]:
    """Leave out the one answer of which a segment was longer than what is captured, if it says so itself."""
    blind = [(u.reason, u.count) for u in observing.unobserved]
    if observing.holes_in_answers:
        assert blind == [(UnobservedReason.LOST, 1)]
        return [one for one in seen if one.scenario.name != "whole-300k"]
    assert blind == []
    return seen


async def observe(
    handed: Handover, server: Server, scenarios: Iterable[Scenario], connections: int = 1
) -> None:
    """Drive scenarios through a server, with a capture at its port, and compare."""
    async with Observing(handed, server.port) as observing, Driver(server.url, connections) as driver:
        seen = await (driver.all(scenarios) if connections == 1 else driver.at_once(scenarios))
        facts = await observing.settled(server.port, len(seen))
        assert observing.lost == 0
        check(without_holes(seen, observing), facts)


@pytest.mark.parametrize("kind", DIRECT)
async def test_facts_are_the_truth(handed: Handover, serve: Callable[[str], Server], kind: str) -> None:
    """Every scenario, one after another on kept connections, field by field."""
    await observe(handed, serve(kind), SCENARIOS)


@pytest.mark.parametrize("kind", DIRECT)
async def test_eight_connections_at_once(handed: Handover, serve: Callable[[str], Server], kind: str) -> None:
    """The same, all at the same time over eight connections."""
    await observe(handed, serve(kind), ENDING, connections=8)


async def test_compressed_answers_are_looked_into(handed: Handover, serve: Callable[[str], Server]) -> None:
    """Behind nginx with buffering and gzip, all that ends is seen as through a plain server."""
    await observe(handed, serve("nginx-gzip"), ENDING)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_packet_socket_sees_the_same(servers: Servers, tmp_path: Path, host: str) -> None:
    """The other way to capture, where there is no cgroup v2: every scenario, field by field."""
    server = servers.start("node", host=host)
    handed = await asyncio.to_thread(load_capture, tmp_path, [server.port], way="packet")
    try:
        await observe(handed, server, SCENARIOS)
    finally:
        handed.close()


async def test_ipv6(handed: Handover, servers: Servers) -> None:
    """A server on ::1."""
    await observe(handed, servers.start("uvicorn-uvloop", host="::1"), SCENARIOS)


async def test_a_real_engine(handed: Handover, serve: Callable[[str], Server]) -> None:
    """llama.cpp's own server, on a model of random numbers, is understood in its own words."""
    await observe(handed, serve("llamacpp"), LLAMACPP)


def behind(server: Server, scenario: Scenario, asked: dict[str, object]) -> Truth:
    """Return what must be true on the hop behind a gateway, of a request as it arrived there."""
    seen = Truth(
        route=ROUTES[scenario.path],
        model=scenario.name,
        status=0,
        ending=Ending.COMPLETE,
        request_bytes=int(str(asked["bytes"])),
        max_tokens=scenario.asks.get("max_tokens", scenario.asks.get("options", {}).get("num_predict")),
    )
    return replace(expected(scenario, seen, NONE), stream_asked=bool(asked["stream"]))


async def two_hops(
    handed: Handover, server: Server, scenarios: list[Scenario], *, gone: frozenset[str] = frozenset()
) -> None:
    """Compare on both sides of a gateway; of `gone` it is known that it leaves its upstream early."""
    assert server.upstream is not None
    ports = server.port, server.upstream.port
    async with Observing(handed, *ports) as observing, Driver(server.url) as driver:
        before = len(server.upstream.asked())
        seen = await driver.all(scenarios)
        await observing.settled(server.upstream.port, len(seen))
        outer = await observing.settled(server.port, len(seen))
        inner = by_model(observing.of(server.upstream.port))
        assert observing.lost == 0
    hidden = {"whole-300k"} if observing.holes_in_answers else set()
    check([one for one in seen if one.scenario.name in by_model(outer)], outer, kinds=False)
    assert {one.scenario.name for one in seen} - set(by_model(outer)) <= hidden
    asked = {str(one["model"]): one for one in server.upstream.asked()[before:]}
    assert set(asked) == {scenario.name for scenario in scenarios}
    assert set(asked) - set(inner) <= hidden
    wrong = [
        line
        for scenario in scenarios
        if scenario.name in inner and scenario.name not in gone
        for line in compare(behind(server, scenario, asked[scenario.name]), inner[scenario.name])
    ]
    assert "\n".join(wrong) == ""


@pytest.mark.timeout(180)
async def test_both_sides_of_litellm(handed: Handover, serve: Callable[[str], Server]) -> None:
    """What LiteLLM repairs for its clients is seen as it was on the hop behind it."""
    known = [scenario for scenario in ENDING if scenario not in OLLAMA]
    gone = frozenset({"stream-error", "stream-error-no-done", "stream-degenerate"})
    await two_hops(handed, serve("litellm"), known, gone=gone)


async def test_both_sides_of_nginx(handed: Handover, serve: Callable[[str], Server]) -> None:
    """A cut behind nginx is seen on both hops, and nothing is changed on the way."""
    await two_hops(handed, serve("nginx-gzip"), list(ENDING))


async def test_a_server_that_is_killed_has_cut_its_answer(handed: Handover, servers: Servers) -> None:
    """SIGKILL in the middle of a stream: the kernel closes the connection, and the stream was not whole."""
    server = servers.start("node")
    hangs = replace(BY_NAME["stream-hangs"], waits_s=15)
    async with Observing(handed, server.port) as observing, Driver(server.url) as driver:
        asking = asyncio.ensure_future(driver.one(hangs))
        await observing.until(lambda: any(f.waiting == 0 for f in observing.in_flight()))
        await asyncio.sleep(0.1)
        os.kill(server.running.pid, signal.SIGKILL)
        seen = await asking
        assert seen.truth.ending is Ending.CUT
        check([seen], await observing.settled(server.port, 1))
    assert observing.unobserved == []


async def test_requests_without_an_answer_are_in_flight(
    handed: Handover, serve: Callable[[str], Server]
) -> None:
    """One that waits for its first byte and one that waits for its next are told while they wait."""
    server = serve("uvicorn-uvloop")
    waiting = [replace(BY_NAME[name], waits_s=3) for name in ("whole-silent", "stream-hangs")]
    async with Observing(handed, server.port) as observing, Driver(server.url, connections=2) as driver:
        asking = asyncio.ensure_future(driver.at_once(waiting))
        await observing.until(lambda: len(observing.in_flight()) == 2)
        await asyncio.sleep(0.5)
        flights = {flight.name.model: flight for flight in observing.in_flight()}
        await asking
        await observing.settled(server.port, 2)
        assert observing.in_flight() == []
    assert {model: (f.requests, f.waiting) for model, f in flights.items()} == {
        "whole-silent": (1, 1),
        "stream-hangs": (1, 0),
    }
    assert all(0.3 < flight.silent_s <= flight.oldest_s for flight in flights.values())


async def test_attached_in_the_middle_of_a_stream(servers: Servers, tmp_path: Path) -> None:
    """What was under way is unobserved and said to be; the next on its connection is right, as on others."""
    server = servers.start("uvicorn-asyncio")
    later = [BY_NAME["whole-ok"], BY_NAME["stream-ok"]]
    async with Driver(server.url) as busy, Driver(server.url) as idle:
        await idle.one(BY_NAME["whole-empty"])
        asking = asyncio.ensure_future(busy.one(SLOW))
        await asyncio.sleep(0.5)
        handed = await asyncio.to_thread(load_capture, tmp_path, [server.port])
        try:
            async with Observing(handed, server.port) as observing:
                assert not asking.done()
                unseen = await asking
                assert unseen.truth.ending is Ending.COMPLETE
                seen = [*await busy.all(later), await idle.one(BY_NAME["stream-usage"])]
                check(seen, await observing.settled(server.port, 4))
        finally:
            handed.close()
    assert [(u.reason, u.count) for u in observing.unobserved] == [(UnobservedReason.MID_STREAM, 1)]
