"""What servers tell of themselves: tokens that stand still while requests run, numbers that grow stale."""

from __future__ import annotations

import pytest

from agent.host.server_numbers import FRESH_S, ServerNumbers
from agent.testing import at, server_metrics
from escalation.model import Gauge
from probes.observation import AskingFailed, ServerGauge


@pytest.fixture
def numbers() -> ServerNumbers:
    """Nothing told yet."""
    return ServerNumbers()


def test_tokens_that_stand_still_while_requests_run(numbers: ServerNumbers) -> None:
    """It is flat since the first of the equal counts, for as long as it is told."""
    for second in (0, 15, 30):
        assert not numbers.take(server_metrics(second, requests_running=2, generated_tokens=500))
    assert numbers.flat_s(8000, at(31)) == 30


@pytest.mark.parametrize(
    "second",
    [
        {"requests_running": 2, "generated_tokens": 501},
        {"requests_running": 2, "generated_tokens": 500, "prompt_tokens": 9},
        {"requests_running": 0, "generated_tokens": 500},
        {"requests_running": 2, "generated_tokens": 3},
        {"requests_running": 2},
        {"generated_tokens": 500},
    ],
    ids=[
        "tokens come",
        "prompts are read",
        "nothing runs",
        "began anew",
        "no tokens told",
        "nothing told to run",
    ],
)
def test_is_not_flat(numbers: ServerNumbers, second: dict[str, float]) -> None:
    """A server that works, rests, began anew or does not say is not flat."""
    numbers.take(server_metrics(0, requests_running=2, generated_tokens=500, prompt_tokens=8))
    rose = numbers.take(server_metrics(15, **second))
    assert numbers.flat_s(8000, at(16)) == 0
    assert rose == (second.get("generated_tokens") == 501 or "prompt_tokens" in second)


def test_an_old_number_is_none(numbers: ServerNumbers) -> None:
    """What was told too long ago says nothing any more."""
    numbers.take(server_metrics(0, requests_running=2))
    assert numbers.number(8000, ServerGauge.REQUESTS_RUNNING, at(FRESH_S)) == 2
    assert numbers.number(8000, ServerGauge.REQUESTS_RUNNING, at(FRESH_S + 1)) is None
    assert numbers.number(8001, ServerGauge.REQUESTS_RUNNING, at(1)) is None


def test_a_server_that_does_not_answer_says_nothing(numbers: ServerNumbers) -> None:
    """A failure takes the last numbers away, and flatness with them."""
    numbers.take(server_metrics(0, requests_running=2, generated_tokens=5))
    numbers.take(server_metrics(15, requests_running=2, generated_tokens=5))
    numbers.take(server_metrics(30, failure=AskingFailed.UNREACHABLE))
    assert numbers.flat_s(8000, at(31)) == 0
    assert numbers.number(8000, ServerGauge.REQUESTS_RUNNING, at(31)) is None


def test_keeps_a_bounded_number_of_ports(numbers: ServerNumbers) -> None:
    """The least lately told goes first."""
    for port in range(1, 100):
        numbers.take(server_metrics(1, port=port, requests_running=1))
    assert numbers.number(1, ServerGauge.REQUESTS_RUNNING, at(2)) is None
    assert numbers.number(99, ServerGauge.REQUESTS_RUNNING, at(2)) == 1


def test_gives_a_number_as_evidence(numbers: ServerNumbers) -> None:
    """The same word on the wire as at the sensor; nothing where there is no number."""
    numbers.take(server_metrics(0, requests_running=3))
    evidence = numbers.evidence(8000, ServerGauge.REQUESTS_RUNNING, at(1), window_s=30)
    assert evidence is not None
    assert (evidence.gauge, evidence.value, evidence.port) == (Gauge.REQUESTS_RUNNING, 3, 8000)
    assert numbers.evidence(8000, ServerGauge.CACHE_USED, at(1), window_s=30) is None


def test_every_gauge_has_its_word_on_the_wire() -> None:
    """The names at the sensor and on the wire are the same."""
    assert {each.value for each in ServerGauge} == {each.value for each in Gauge} - {"unknown"}
