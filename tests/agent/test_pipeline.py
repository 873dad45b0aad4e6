"""The pipeline: bounded, and honest about what it dropped."""

from __future__ import annotations

from agent.pipeline import Pipeline
from agent.testing import blind, death, oom_kill


def test_drops_the_newest_and_counts_them_by_sensor() -> None:
    """What does not fit is counted once, under its sensor."""
    pipeline = Pipeline(capacity=3)
    pipeline.put([death(second, 11) for second in range(5)])
    pipeline.put([oom_kill(9)])
    assert [item.at for item in pipeline.take(10)] == [death(second, 11).at for second in range(3)]
    assert pipeline.take_drops() == {"kernel.fatal_signal": 2, "kernel.oom_kill": 1}
    assert pipeline.take_drops() == {}
    assert pipeline.dropped_total.total() == 3
    assert pipeline.taken == {"kernel.fatal_signal": 5, "kernel.oom_kill": 1}


def test_word_of_blindness_is_never_dropped() -> None:
    """A Gap finds room in a full pipeline."""
    pipeline = Pipeline(capacity=1)
    pipeline.put([death(0, 11), blind(1, "kernel.oom_kill")])
    assert len(pipeline) == 2
    assert "2/1" in repr(pipeline)
