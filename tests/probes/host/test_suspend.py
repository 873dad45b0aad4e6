"""host.suspend: sleep is told once, and the two clocks' own unevenness is not sleep."""

from __future__ import annotations

import time

import pytest

from probes.host.suspend import NAME, SuspendSensor
from probes.observation import Suspended
from probes.sensor import SensorBlind
from probes.testing import instant


def test_a_sleep_is_told_once_with_its_length() -> None:
    """Sleep before the sensor began is known; each later one is told."""
    slept = [90_000_000_000]
    sensor = SuspendSensor(slept_ns=lambda: slept[0])
    sensor.open()
    assert not sensor.waiting()
    slept[0] += 17_000_000_000
    assert sensor.waiting()
    assert list(sensor.read(instant(5))) == [Suspended(NAME, instant(5), 17.0)]
    assert not sensor.waiting()
    assert list(sensor.read(instant(6))) == []


def test_clocks_that_are_read_apart_are_no_sleep() -> None:
    """A thread that lost its core between the two clocks sees a difference that does not stay."""
    slept = [0]
    sensor = SuspendSensor(slept_ns=lambda: slept[0])
    sensor.open()
    slept[0] = 400_000_000
    assert not sensor.waiting()
    slept[0] = -3_000
    assert list(sensor.read(instant(1))) == []


def test_a_sensor_that_is_not_open_cannot_see() -> None:
    """Reading before the beginning would tell all of the host's life as one sleep."""
    with pytest.raises(SensorBlind):
        SuspendSensor(slept_ns=lambda: 0).read(instant(1))


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="needs Linux")
def test_this_machine_does_not_sleep_while_it_tests() -> None:
    """On the real clocks nothing is told."""
    sensor = SuspendSensor()
    sensor.open()
    assert list(sensor.read(instant(1))) == []
