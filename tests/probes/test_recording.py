"""Recordings of observations: written and read back whole, refused when they are anything else."""

from __future__ import annotations

import dataclasses
import json
from typing import get_args

import pytest
from hypothesis import given, strategies as st

from probes import recording
from probes.observation import Gap, Instant, Observation, Seeing, SensorName
from probes.recording import RecordingInvalid
from probes.testing import ReplaySensor, instant

_KINDS = sorted(get_args(Observation), key=lambda kind: kind.__name__)


def _observations() -> st.SearchStrategy[Observation]:
    # A number that is none equals nothing, itself included, so that it could not be compared.
    kinds: st.SearchStrategy[Observation] = st.one_of([st.builds(kind) for kind in _KINDS])
    return kinds.filter(lambda seen: "NaN" not in recording.to_line(seen))


@given(_observations())
def test_every_observation_comes_back_as_it_was(seen: Observation) -> None:
    """Whatever a sensor can say survives a line of JSON, hostile text included."""
    assert recording.from_line(recording.to_line(seen)) == seen


@given(st.text(max_size=200))
def test_no_text_is_taken_for_an_observation_by_accident(text: str) -> None:
    """A line that is no observation is refused with our own error, never another."""
    with pytest.raises(RecordingInvalid):
        recording.from_line(text)


@given(seen=_observations(), data=st.data())
def test_a_damaged_observation_is_refused_or_read(seen: Observation, data: st.DataObject) -> None:
    """A field of the wrong kind, a missing or an additional one is named."""
    raw = json.loads(recording.to_line(seen))
    field = data.draw(st.sampled_from(sorted(raw)))
    raw[field] = data.draw(
        st.one_of(st.none(), st.integers(), st.text(max_size=3), st.lists(st.integers(), max_size=2))
    )
    try:
        read = recording.from_line(json.dumps(raw))
    except RecordingInvalid:
        return
    assert dataclasses.is_dataclass(read)


def test_the_number_of_a_bad_line_is_told() -> None:
    """Whoever repairs a recording learns where."""
    good = recording.to_line(Gap(SensorName("a"), Instant(1, 2), Seeing()))
    with pytest.raises(RecordingInvalid, match=r"line 3: .*Gap\.lost: expected int, got str"):
        list(recording.read([good, "", good.replace('"lost":0', '"lost":"0"')]))


def test_a_replay_gives_each_observation_when_its_moment_has_come() -> None:
    """Time decides, not the order of the lines, and other sensors' lines are left out."""
    seen = [Gap(SensorName("a"), instant(at), Seeing(), lost=at) for at in (5, 1, 3)]
    other = Gap(SensorName("b"), instant(1), Seeing(), lost=9)
    sensor = ReplaySensor(name=SensorName("a"), lines=[recording.to_line(o) for o in [*seen, other]])
    sensor.open()
    assert [o.at for o in sensor.read(instant(3.5))] == [instant(1), instant(3)]
    assert [o.at for o in sensor.read(instant(9))] == [instant(5)]
    assert list(sensor.read(instant(99))) == []
