"""Exchanges counted for the metrics page: each under its route and model, and never too many of them."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from agent.process.metrics import AgentCollector, Snapshot
from agent.routes.tally import OTHERS, SERIES, RouteTally
from agent.testing import at
from probes.http.facts import (
    GAP_BOUNDS_S,
    Ending,
    ExchangeFacts,
    FinishReason,
    Route,
    RouteName,
    UnobservedFacts,
    UnobservedReason,
)
from probes.observation import Exchange, Origin, SensorName, Unobserved

GOOD = ExchangeFacts(
    name=RouteName(8000, Route.CHAT_COMPLETIONS, "qwen3"),
    at_ns=0,
    cgroup_id=0,
    status=200,
    ending=Ending.COMPLETE,
    finish=FinishReason.STOP,
    choices_seen=True,
    content_characters=12,
)
EMPTY = replace(GOOD, content_characters=0)


def exchange(facts: ExchangeFacts) -> Exchange:
    return Exchange(SensorName("http.routes"), at(1), Origin(), facts)


def tally(*exchanges: ExchangeFacts) -> RouteTally:
    counted = RouteTally()
    counted.take([exchange(facts) for facts in exchanges])
    return counted


def page(counted: RouteTally) -> list[str]:
    shown = Snapshot(
        version="1", started_unix_s=1.0, seeing={}, routes=counted.copy(), unobserved=counted.unobserved
    )
    registry = CollectorRegistry(auto_describe=False)
    registry.register(AgentCollector(snapshot=lambda: shown))
    return generate_latest(registry).decode().splitlines()


LABELS = 'model="qwen3",port="8000",route="chat_completions"'


def test_an_empty_answer_and_a_spent_budget_are_told_apart() -> None:
    """What ran out of tokens is no empty answer, and an answer or a tool call is neither."""
    lines = page(
        tally(GOOD, EMPTY, EMPTY, replace(EMPTY, finish=FinishReason.LENGTH), replace(EMPTY, tool_calls=1))
    )
    assert f"nanobot_route_empty_total{{{LABELS}}} 2.0" in lines
    assert f"nanobot_route_budget_exhausted_total{{{LABELS}}} 1.0" in lines
    assert f'nanobot_route_requests_total{{{LABELS},status="2xx"}} 5.0' in lines


def test_embeddings_are_never_empty() -> None:
    """A route that gives no text is not asked for it."""
    name = RouteName(8000, Route.EMBEDDINGS, "bge")
    assert tally(replace(EMPTY, name=name)).routes["8000", "embeddings", "bge"].empty == 0


def test_cut_answers_are_counted_and_cancelled_ones_are_not() -> None:
    """Only the server's side can cut an answer."""
    cut = tally(*(replace(GOOD, ending=ending) for ending in Ending))
    assert cut.routes["8000", "chat_completions", "qwen3"].cut == 2


def test_histograms_add_up() -> None:
    """Every first token and every gap falls into one bucket, and the sums are there."""
    gaps = (3, *([0] * (len(GAP_BOUNDS_S) - 1)), 2)
    lines = page(tally(replace(GOOD, first_token_s=0.3, first_byte_s=0.2, duration_s=30.2, gaps=gaps)))
    head = "nanobot_route_first_token_seconds"
    assert f'{head}_bucket{{le="0.25",{LABELS}}} 0.0' in lines
    assert f'{head}_bucket{{le="0.5",{LABELS}}} 1.0' in lines
    assert f"{head}_sum{{{LABELS}}} 0.3" in lines
    head = "nanobot_route_between_tokens_seconds"
    assert f'{head}_bucket{{le="10.0",{LABELS}}} 3.0' in lines
    assert f'{head}_bucket{{le="+Inf",{LABELS}}} 5.0' in lines
    assert f"{head}_sum{{{LABELS}}} 30.0" in lines


def test_what_could_not_be_judged_has_its_own_count() -> None:
    """Port and reason; it is neither a request nor a fault."""
    counted = RouteTally()
    facts = UnobservedFacts(port=8000, reason=UnobservedReason.TLS, count=3, at_ns=0)
    counted.take([Unobserved(SensorName("http.routes"), at(1), Origin(), facts)] * 2)
    assert 'nanobot_route_unobserved_total{port="8000",reason="tls"} 6.0' in page(counted)
    assert not counted.routes


@given(names=st.lists(st.tuples(st.integers(1, 65535), st.text(max_size=20)), max_size=400))
def test_there_are_only_so_many_series(names: list[tuple[int, str]]) -> None:
    """However many models and ports a client makes up, the page stays small and every request is on it."""
    counted = tally(*(replace(GOOD, name=RouteName(port, Route.COMPLETIONS, model)) for port, model in names))
    assert len(counted.routes) <= 2 * SERIES + 1
    assert sum(counts.requests.total() for counts in counted.routes.values()) == len(names)


def test_what_comes_after_them_is_counted_together() -> None:
    """The first models keep their own series."""
    counted = tally(
        *(replace(GOOD, name=RouteName(8000, Route.COMPLETIONS, f"m{n}")) for n in range(SERIES + 7))
    )
    assert counted.routes["8000", "completions", "m3"].requests.total() == 1
    assert counted.routes["8000", "completions", OTHERS].requests.total() == 7


def test_a_model_name_is_inert_on_the_page() -> None:
    """Line breaks and escapes in a name reach the page as visible text."""
    lines = page(tally(replace(GOOD, name=RouteName(8000, Route.COMPLETIONS, 'a\n"} 1\x1b[2J'))))
    assert any(r"a\\n" in line or r"\\x0a" in line for line in lines)
    assert not any("\x1b" in line for line in lines)
