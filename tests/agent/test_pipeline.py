"""The pipeline: bounded, and honest about what it dropped."""

from __future__ import annotations

from agent.pipeline import Pipeline
from agent.testing import at, blind, death, oom_kill
from probes.observation import DrillBegan, DrillEnded, SensorName


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


def test_word_of_a_drill_is_never_dropped() -> None:
    """A drill whose end was lost would take a real fault of its port for its own."""
    pipeline, sensor = Pipeline(capacity=1), SensorName("host.drills")
    began = DrillBegan(sensor=sensor, at=at(1), id="nanobot-drill-00000001", fault_class="storage.full")
    ended = DrillEnded(sensor=sensor, at=at(2), id=began.id)
    pipeline.put([death(0, 11), began, ended])
    assert pipeline.take(9)[1:] == [began, ended]
    assert pipeline.take_drops() == {}
