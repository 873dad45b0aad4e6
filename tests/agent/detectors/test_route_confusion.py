"""The confusion matrix: every shape of a route's traffic opens what it must, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given, settings, strategies as st

from agent.detectors.registry import DETECTORS
from agent.testing import at
from dev.route_confusion import FAULTS, opened_by, page
from dev.route_shapes import BAD, GOOD, LOOKALIKES, SHAPES, Shape
from escalation.model import FaultClass
from probes.observation import Exchange

HARMLESS: Final = (
    "filtered",
    "json-at-limit",
    "model-loaded",
    "probe-length",
    "sound-indented",
    "sound-ruler",
    "sound-table",
    "stream-idle",
    "stream-left",
    "whole-400",
    "whole-loading",
    "whole-tool-invalid",
)
"""Look-alikes that are harmless in any number and any company."""


def last_exchanges(shapes: Iterable[Shape]) -> list[Exchange]:
    """Return the last exchange of each shape, all on one route of one port."""
    name = next(one for one in GOOD[0].says() if isinstance(one, Exchange)).facts.name
    found = []
    for shape in shapes:
        last = shape.says()[-1]
        assert isinstance(last, Exchange)
        facts = last.facts
        found.append(replace(last, facts=replace(facts, name=replace(name, route=facts.name.route))))
    return found


ALL_WELL: Final = last_exchanges([*GOOD, *(shape for shape in LOOKALIKES if shape.name in HARMLESS)])


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(ALL_WELL), st.integers(1, 40)), max_size=12))
def test_right_answers_and_harmless_lookalikes_open_nothing_in_any_mixture(
    runs: list[tuple[Exchange, int]],
) -> None:
    """In any order and any number, nothing of it becomes a fault."""
    said = []
    for one, times in runs:
        for _ in range(times):
            moment = at(len(said))
            said.append(replace(one, at=moment, facts=replace(one.facts, at_ns=moment.boot_ns)))
    assert opened_by(Shape("mixture", "", frozenset(), lambda: said)) == {}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_opens_what_it_must_and_nothing_else(shape: Shape) -> None:
    """Every cell of the matrix is as expected."""
    assert frozenset(opened_by(shape)) == shape.opens


def test_every_fault_has_its_shapes() -> None:
    """No fault is without a shape that opens it; right answers and look-alikes open none."""
    assert {fault for shape in BAD for fault in shape.opens} == set(FAULTS)
    assert not any(shape.opens for shape in (*GOOD, *LOOKALIKES))
    assert len({shape.name for shape in SHAPES}) == len(SHAPES)


def test_every_route_fault_without_a_baseline_is_in_the_matrix() -> None:
    """A detector of routes that is new must bring its shapes."""
    learnt = {FaultClass.ROUTE_ERRORS_RISING, FaultClass.ROUTE_LATENCY_RISING}
    judged = {note.fault_class for kind in DETECTORS for note in kind.FAULTS}
    assert {fault for fault in judged if fault.value.startswith("route.")} - learnt == set(FAULTS)


def test_page_has_a_row_per_shape() -> None:
    """The page names each shape once."""
    text = page()
    assert all(text.count(f"| `{shape.name}` |") == 1 for shape in SHAPES)
