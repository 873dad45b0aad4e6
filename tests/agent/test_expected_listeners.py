"""Habits of a host: learned at first, new ones afterwards, kept across restarts, never more than fit."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from agent.host.expected_listeners import KNOWN_MAX, ExpectedListeners
from agent.testing import at, origin
from probes.observation import Origin

VLLM = Origin(unit="vllm.service")


def test_what_is_seen_while_learning_is_never_new() -> None:
    """Afterwards everything else is: another port, and the same port in other hands."""
    habits = ExpectedListeners(learn_s=100)
    assert [habits.is_new(8000, VLLM, at(seconds)) for seconds in (0, 100, 1000)] == [False] * 3
    assert habits.is_new(8001, VLLM, at(101))
    assert habits.is_new(8000, Origin(unit="nginx.service"), at(101))
    assert habits.is_new(8000, Origin(), at(101))


def test_another_container_on_the_same_port_is_the_same_habit() -> None:
    """Each deployment makes a container with another id."""
    habits = ExpectedListeners(learn_s=100)
    habits.is_new(8000, origin(container="a" * 64), at(0))
    assert not habits.is_new(8000, origin(container="b" * 64), at(1000))


def test_habits_outlive_a_restart() -> None:
    """With the moment at which learning began."""
    before = ExpectedListeners(learn_s=100)
    assert before.memory() is None
    before.is_new(8000, VLLM, at(0))
    after = ExpectedListeners(learn_s=100)
    assert after.recall(before.memory() or b"")
    assert not after.is_new(8000, VLLM, at(500))
    assert after.is_new(9000, VLLM, at(500))


def test_no_more_is_kept_than_fits() -> None:
    """A host that opens every port fills a bounded table; the rest is new."""
    habits = ExpectedListeners(learn_s=100)
    assert [habits.is_new(port, VLLM, at(0)) for port in range(1, KNOWN_MAX + 2)] == [
        *[False] * KNOWN_MAX,
        True,
    ]
    after = ExpectedListeners(learn_s=100)
    assert after.recall(habits.memory() or b"")


@pytest.mark.parametrize(
    "raw",
    [b"", b"null", b"[1]", b"[true,[]]", b"[1,{}]", b'[1,[[0,"x"]]]', b'[1,[["8000","x"]]]', b"[" * 10_000],
)
def test_a_memory_that_cannot_be_read_changes_nothing(raw: bytes) -> None:
    """It is refused whole."""
    habits = ExpectedListeners(learn_s=100)
    habits.is_new(8000, VLLM, at(0))
    assert not habits.recall(raw)
    assert not habits.is_new(8000, VLLM, at(1000))


@given(said=st.recursive(st.none() | st.integers() | st.text(max_size=5), st.lists, max_leaves=8))
def test_any_memory_is_taken_or_refused(said: Any) -> None:
    """And never raises."""
    habits = ExpectedListeners(learn_s=100)
    raw = json.dumps(said).encode()
    if habits.recall(raw):
        assert json.loads(habits.memory() or b"")[0] == said[0]
