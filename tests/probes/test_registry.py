"""The registry: sorted, unique, one program a kernel sensor, and every name of a program's C its own."""

from __future__ import annotations

import re

import pytest

from probes import registry
from probes.observation import BlindReason
from probes.registry import SENSORS, SensorSpec
from probes.sensor import SensorBlind


def test_sensors_are_sorted_and_unique() -> None:
    """One line each, by name."""
    names = [spec.name for spec in SENSORS]
    assert names == sorted(set(names))


@pytest.mark.parametrize("spec", SENSORS, ids=lambda spec: spec.name)
def test_a_sensor_is_what_its_line_says(spec: SensorSpec) -> None:
    """Name and period of the built sensor are those of the registry."""
    sensor = spec.build(registry.surroundings(None))
    assert (sensor.name, sensor.period_s) == (spec.name, spec.period_s)
    assert spec.name in repr(sensor) or spec.program is None
    sensor.close()


@pytest.mark.parametrize("spec", [s for s in SENSORS if s.program], ids=lambda spec: spec.name)
def test_a_kernel_sensor_without_a_handover_is_blind(spec: SensorSpec) -> None:
    """Nothing handed over is a reason of its own, not an error."""
    sensor = spec.build(registry.surroundings(None))
    with pytest.raises(SensorBlind) as caught:
        sensor.open()
    assert caught.value.blind.reason is BlindReason.NOT_HANDED_OVER
    assert sensor.wakeup_fd() is None
    sensor.close()


@pytest.mark.parametrize("spec", [s for s in SENSORS if s.program], ids=lambda spec: spec.name)
def test_a_program_keeps_to_its_own_names(spec: SensorSpec) -> None:
    """All programs compile as one module: what one declares begins with its stem; it includes nothing."""
    assert spec.program is not None
    text = re.sub(r"/\*.*?\*/", "", spec.program.source, flags=re.DOTALL)
    assert "#include" not in text
    declared = re.findall(r"^(?:static\s.*?|int\s+|struct\s+|enum\s+)(\w+)\s*[({]", text, re.MULTILINE)
    tables = re.findall(
        r"^BPF_(?:TABLE|RINGBUF_OUTPUT)\((?:[^;]*?,\s*)?(\w+)\s*,[^,;]*\);", text, re.MULTILINE
    )
    assert declared
    assert tables
    for name in [*declared, *tables]:
        assert name.startswith(f"{spec.program.stem}_"), name
    for attachment in spec.program.attachments:
        assert f"int {attachment.function}(" in text
    for name in spec.program.maps:
        assert name in text
