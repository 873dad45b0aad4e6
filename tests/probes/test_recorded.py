"""Samples of what the kernel sensors really saw, for those who cannot load a program."""

from __future__ import annotations

from pathlib import Path

import pytest

from probes import recording
from probes.registry import SENSORS, SensorSpec
from probes.testing import ReplaySensor, instant

_FOLDER = Path(__file__).parents[1] / "recorded"


@pytest.mark.parametrize("spec", [s for s in SENSORS if s.program], ids=lambda spec: spec.name)
def test_every_kernel_sensor_has_a_sample(spec: SensorSpec) -> None:
    """It reads, it is this sensor's, and writing it again gives the same lines."""
    assert spec.program is not None
    lines = (_FOLDER / f"{spec.program.stem}.jsonl").read_text().splitlines()
    seen = list(recording.read(lines))
    assert {o.sensor for o in seen} == {spec.name}
    assert [recording.to_line(o) for o in seen] == lines
    replay = ReplaySensor(name=spec.name, lines=lines)
    replay.open()
    assert list(replay.read(instant(10**6))) == seen
