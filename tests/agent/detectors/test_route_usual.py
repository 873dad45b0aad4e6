"""What a route's usual is: seasons, uneven traffic, faults that are not learnt, and what a restart keeps."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from agent.detectors.route_baseline import ROUTES, Config, RouteBaseline
from agent.testing import SURROUNDINGS
from escalation.model import RouteEvidence
from probes.http.facts import ExchangeFacts
from tests.agent.detectors.route_traffic import (
    DAY,
    ERRORS,
    FAILED,
    GOOD,
    LATENCY,
    NAME,
    Minute,
    Watched,
    always,
    cleared,
    healthy,
    opened,
    slow,
    steady,
)


@pytest.fixture
def watched() -> Watched:
    """A host that has seen three hours of healthy traffic on one route."""
    return healthy()


def test_nothing_is_judged_before_enough_was_learnt() -> None:
    """A route that is new cannot be worse than usual."""
    host = Watched()
    assert host.run(25, steady()) == []
    assert host.run(30, steady(failing=0.9)) == []


def daily(minute: int) -> list[ExchangeFacts]:
    """Return the traffic of a route that is four times as slow from eight to six."""
    busy = 8 <= minute // 60 % 24 < 18
    source = random.Random(minute)
    return [slow((1.6 if busy else 0.4) * source.lognormvariate(0.0, 0.2)) for _ in range(12)]


def test_a_daily_season_stays_quiet_once_it_is_known() -> None:
    """The same slow hours every day are news at most in the first days."""
    host = Watched()
    assert len(opened(host.run(4 * DAY, daily))) <= 3
    assert opened(host.run(4 * DAY, daily)) == []


def uneven(seed: int, *, per_minute: float = 12.0) -> Minute:
    """Return traffic with a season, a load that wanders, waits that scatter, and a fifth of large prompts."""
    source = random.Random(seed)
    load = 0.0

    def minute(number: int) -> list[ExchangeFacts]:
        nonlocal load
        load = 0.985 * load + source.gauss(0.0, 0.06)
        busy = load + 0.5 * math.sin((number / 60 % 24 - 8) / 24 * 2 * math.pi)
        exchanges = []
        for _ in range(max(0, round(source.gauss(per_minute * math.exp(busy), 3)))):
            large = source.random() < 0.2
            size = int(source.lognormvariate(11.5, 0.7) if large else source.lognormvariate(8.5, 1.0))
            cached = source.random() < 0.4
            wait_s = 0.6 * math.exp(busy) * source.lognormvariate(0.0, 0.7) + (0 if cached else size / 40000)
            pace = 50.0 * math.exp(-0.4 * busy) * source.lognormvariate(0.0, 0.2)
            failed = source.random() < 0.04
            exchanges.append(FAILED if failed else slow(wait_s, pace=pace, request_bytes=size))
        return exchanges

    return minute


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_uneven_traffic_stays_quiet(seed: int) -> None:
    """Ten days of a busy route that fails 4 % of the time and is twice as slow at noon open no case."""
    assert opened(Watched().run(10 * DAY, uneven(seed))) == []


@pytest.mark.slow
def test_what_happens_on_uneven_traffic_is_found_within_minutes() -> None:
    """After almost three days of it, one failure in three, then waits four times as long."""
    host = Watched()
    traffic = uneven(3)
    host.run(2 * DAY + 17 * 60, traffic)
    failing = host.run(12, lambda n: [FAILED if m % 3 == 0 else one for m, one in enumerate(traffic(n))])
    assert [case.fault_class for case in opened(failing)] == [ERRORS]
    host.run(60, traffic)
    late = host.run(
        30,
        lambda n: [
            replace(one, first_token_s=4 * one.first_token_s) if one.first_token_s else one
            for one in traffic(n)
        ],
    )
    assert [case.fault_class for case in opened(late)] == [LATENCY]


def test_a_fault_is_not_learnt_while_it_lasts(watched: Watched) -> None:
    """After a night of errors and slowness both cases are still open, against the baseline of before."""
    watched.run(600, lambda minute: [*[FAILED] * 10, *[slow(4.0)] * 15])
    cases = {case.fault_class: case for case in watched.book.open_cases((ERRORS, LATENCY))}
    assert set(cases) == {ERRORS, LATENCY}
    for case, usual in ((cases[ERRORS], 0.0), (cases[LATENCY], 0.4)):
        evidence = case.evidence[0]
        assert isinstance(evidence, RouteEvidence)
        assert evidence.baseline == pytest.approx(usual, abs=0.05)


def test_a_new_level_that_stays_for_days_becomes_the_usual_one() -> None:
    """A deploy that is three times as slow is a case, which clears after two to five days at that level."""
    host = Watched()
    host.run(2 * DAY, always(*[slow(0.4)] * 12))
    (case,) = opened(host.run(DAY, always(*[slow(1.2)] * 12)))
    assert case.fault_class is LATENCY
    assert host.book.open_cases((LATENCY,))
    host.run(9 * DAY, always(*[slow(1.2)] * 12))
    assert host.book.open_cases((LATENCY,)) == ()


@pytest.mark.parametrize("remember", [True, False])
def test_a_restart_neither_clears_nor_forgets(watched: Watched, *, remember: bool) -> None:
    """With or without its baselines, the agent follows the case by what it said was usual."""
    watched.run(10, steady(failing=0.5))
    watched.restart(remember=remember)
    assert cleared(watched.run(120, steady(failing=0.5))) == []
    assert len(cleared(watched.run(15, steady()))) == 1


def test_remembers_what_is_usual_across_a_restart(watched: Watched) -> None:
    """No second warm-up where the baselines were kept."""
    watched.restart(remember=True)
    assert len(opened(watched.run(5, steady(failing=0.5)))) == 1


def test_hostile_memory_is_refused_and_counted(watched: Watched) -> None:
    """What cannot be read is counted, and the route begins anew."""
    whole = watched.detector.memory()
    assert len(whole) == 3
    bad = {key: raw[:-1] for key, raw in whole.items()} | {
        key: next(iter(whole.values()))
        for key in ("", "failures", "failures/x/chat_completions/m", "failures/1/nowhere", "dreams/1/other/m")
    }
    host = RouteBaseline.build(Config(), SURROUNDINGS)
    assert host.recall(bad) == len(bad)
    assert host.memory() == {}


@pytest.mark.parametrize("model", [None, "", "a/b c", "\udce4\x00"])
def test_routes_are_kept_under_their_names(model: str | None) -> None:
    """Whatever a model is called, what was learnt of it is found again under a key that can be kept."""
    host = Watched()
    host.run(20, always(*[replace(GOOD, name=replace(NAME, model=model))] * 15))
    memory = host.detector.memory()
    assert all(key.encode() for key in memory)
    other = RouteBaseline.build(Config(), SURROUNDINGS)
    assert other.recall(memory) == 0
    assert other.memory() == memory


def test_routes_are_bounded() -> None:
    """A client that makes up models' names does not decide how much is remembered."""
    host = Watched()
    host.run(
        40, lambda minute: [replace(GOOD, name=replace(NAME, model=f"m{minute}-{n}")) for n in range(50)]
    )
    assert len(host.detector.memory()) <= 4 * (ROUTES + 1)


def test_models_are_judged_apart(watched: Watched) -> None:
    """Another model on the same port, bad from its first hour, says nothing about this one."""
    other = replace(FAILED, name=replace(NAME, model="other"))
    assert watched.run(60, always(*[GOOD] * 15, *[other] * 15)) == []
