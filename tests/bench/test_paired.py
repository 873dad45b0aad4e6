"""Paired statistics: alternation, ratios pair by pair, percentiles."""

from __future__ import annotations

from bench.paired import Spread, percentile, run_pairs, summarise


def test_alternates_which_side_goes_first() -> None:
    """Every second pair runs the off side first, so drift favours neither."""
    order: list[str] = []

    def side(name: str, figure: float) -> float:
        order.append(name)
        return figure

    paired = run_pairs(lambda: side("on", 3.0), lambda: side("off", 2.0), pairs=3)
    assert order == ["on", "off", "off", "on", "on", "off"]
    assert paired.ratio == Spread(1.5, 1.5, 1.5)


def test_pairs_by_position() -> None:
    """The ratio is the median of pairwise ratios, not the ratio of medians."""
    assert summarise([1.0, 10.0, 6.0], [1.0, 5.0, 2.0]).ratio == Spread(1.0, 2.0, 3.0)


def test_percentile_is_a_seen_figure() -> None:
    """A percentile is one of the figures: the smallest that enough of them do not exceed."""
    figures = [float(number) for number in range(1, 101)]
    assert percentile(figures, 0.5) == 50.0
    assert percentile(figures, 0.99) == 99.0
    assert percentile([7.0], 0.99) == 7.0
