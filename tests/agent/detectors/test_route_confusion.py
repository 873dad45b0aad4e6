"""The confusion matrix: every shape of a route's traffic opens what it must, and nothing else."""

from __future__ import annotations

import pytest

from agent.detectors.registry import DETECTORS
from dev.route_confusion import FAULTS, opened_by, page
from dev.route_shapes import BAD, GOOD, LOOKALIKES, SHAPES, Shape
from escalation.model import FaultClass


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
