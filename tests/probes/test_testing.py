"""The scripted sensor keeps the protocol that real sensors keep."""

from __future__ import annotations

import select

import pytest

from probes.observation import BlindReason, Gap, Seeing, SensorName
from probes.sensor import Sensor, SensorBlind
from probes.testing import ScriptedSensor, gpu_state, instant

_NAME = SensorName("test.sensor")
_SEEN = Gap(_NAME, instant(1), Seeing(), lost=7)


def test_gives_its_batches_in_order_and_then_nothing() -> None:
    """One batch a read."""
    sensor: Sensor = ScriptedSensor(name=_NAME, batches=[[_SEEN], [], [_SEEN, _SEEN]])
    sensor.open()
    assert [len(sensor.read(instant(n))) for n in range(5)] == [1, 0, 2, 0, 0]


def test_is_blind_until_it_sees_again() -> None:
    """Blindness raises at open and at read, with its reason, and loses no batch."""
    sensor = ScriptedSensor(name=_NAME, batches=[[_SEEN]])
    sensor.go_blind(BlindReason.NO_HEADERS, "none here")
    with pytest.raises(SensorBlind, match="no_headers: none here"):
        sensor.open()
    sensor.see_again()
    sensor.open()
    sensor.go_blind(BlindReason.READ_FAILED)
    with pytest.raises(SensorBlind):
        sensor.read(instant(1))
    sensor.see_again()
    assert list(sensor.read(instant(2))) == [_SEEN]


def test_cannot_be_read_before_open_or_after_close() -> None:
    """A consumer that forgets to open learns it in its tests."""
    sensor = ScriptedSensor(name=_NAME)
    with pytest.raises(SensorBlind, match="not open"):
        sensor.read(instant(1))
    sensor.open()
    sensor.close()
    sensor.close()
    assert (sensor.opened, sensor.closed) == (1, 1)
    with pytest.raises(SensorBlind, match="not open"):
        sensor.read(instant(1))


def test_wakes_its_reader_once() -> None:
    """The descriptor is readable after `wake` and quiet after a read."""
    sensor = ScriptedSensor(name=_NAME, wakes=True)
    sensor.open()
    descriptor = sensor.wakeup_fd()
    assert descriptor is not None
    assert select.select([descriptor], [], [], 0)[0] == []
    sensor.wake()
    assert select.select([descriptor], [], [], 0)[0] == [descriptor]
    sensor.read(instant(1))
    assert select.select([descriptor], [], [], 0)[0] == []
    sensor.close()
    assert sensor.wakeup_fd() is None


def test_a_gpu_is_healthy_but_for_what_a_test_says() -> None:
    """Facts given by name replace those of a busy, healthy GPU; its processes are none unless given."""
    state = gpu_state(3, index=1, sm_clock_mhz=507, memory_used_bytes=None)
    assert (state.at, state.processes) == (instant(3), ())
    assert (state.facts.sm_clock_mhz, state.facts.memory_used_bytes) == (507, None)
    assert (state.facts.gpu.pci, state.facts.utilisation_percent) == ("0000:02:00.0", 95)
    assert gpu_state(3, processes=None).processes is None
