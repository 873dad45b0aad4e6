"""The thread between a source of lines and the sensor: bounded, never in the way, honest about its end."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Sequence

import pytest

from probes.host.cgroups import CgroupPaths
from probes.host.identity import Identifier
from probes.logs.pattern import LineSource, Matcher
from probes.logs.patterns import PATTERNS
from probes.logs.reading import STUCK_S, Reading
from probes.logs.sensor import FILES, LogSensor
from probes.logs.tally import ADDRESSES_MAX, KINDS_MAX, Tally, Writer
from probes.observation import BlindReason, Gap, LogLine, Seeing, SensorName
from probes.sensor import SensorBlind
from probes.testing import instant

IDENTIFIER = Identifier(cgroups=CgroupPaths(root=None, monotonic=lambda: 0.0))
LINE = "FATAL:  sorry, too many clients already"


class ScriptedSource:
    """Reads what it is told to, a batch at each release, and raises when told to."""

    def __init__(self) -> None:
        self._pipe = os.pipe()
        self._batches: list[Sequence[str]] = []
        self.blind: SensorBlind | None = None
        self.has_changed = False
        self.reads = 0
        self.held = threading.Event()
        self.held.set()
        self.closed = False

    def open(self) -> None:
        """Refuse, if told so."""
        if self.blind is not None:
            raise self.blind

    @property
    def changed(self) -> bool:
        """Whether it was said to have changed."""
        return self.has_changed

    def wait(self, wake: int) -> None:
        """Wait for a release, or to be woken."""
        ready, _, _ = select.select([wake, self._pipe[0]], [], [])
        if self._pipe[0] in ready:
            os.read(self._pipe[0], 1)

    def release(self, *lines: str) -> None:
        """Have one more batch read."""
        self._batches.append(lines)
        os.write(self._pipe[1], b".")

    def read(self, tally: Tally, now_unix_ns: int) -> bool:
        """Count the batches."""
        self.held.wait()
        self.reads += 1
        self.has_changed = False
        if self.blind is not None:
            raise self.blind
        while self._batches:
            for line in self._batches.pop(0):
                said = tally.match(line, LineSource.PROGRAM)
                if said is not None:
                    tally.add(said, Writer(), now_unix_ns)
        return False

    def close(self) -> None:
        """Note that it was closed."""
        self.closed = True
        for end in self._pipe:
            os.close(end)


def _reading(source: ScriptedSource, now: Callable[[], float] = lambda: 0.0) -> Reading:
    return Reading(source=source, matcher=Matcher(PATTERNS), name="test", rest_s=0.001, monotonic=now)


def _until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(3000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it did not happen in half a minute")


def test_hands_over_what_was_counted() -> None:
    """Lines of one pattern are one telling with their count; the next waits until it is taken."""
    source = ScriptedSource()
    reading = _reading(source)
    reading.start()
    source.release(LINE, "nothing", LINE)
    _until(lambda: reading.has_something)
    source.release(LINE)
    first = reading.take()
    _until(lambda: reading.has_something)
    second = reading.take()
    reading.stop()
    assert [told.count for told in first.lines] == [2]
    assert [told.count for told in second.lines] == [1]
    assert source.closed


def test_ends_while_it_sleeps() -> None:
    """Stopping wakes the thread, and stopping twice does nothing."""
    source = ScriptedSource()
    reading = _reading(source)
    reading.start()
    reading.stop()
    reading.stop()
    assert source.closed


def test_a_source_that_has_changed_wakes_the_thread() -> None:
    """The agent's loop asks; the thread sleeps until then."""
    source = ScriptedSource()
    source._batches.append((LINE,))
    reading = _reading(source)
    reading.start()
    assert not reading.has_something
    assert source.reads == 0
    source.has_changed = True
    _until(lambda: reading.has_something)
    assert [told.count for told in reading.take().lines] == [1]
    reading.stop()


def test_a_source_that_cannot_open_blinds_the_sensor() -> None:
    """The reason comes through."""
    source = ScriptedSource()
    source.blind = SensorBlind(BlindReason.NO_PRIVILEGE, "no")
    sensor = LogSensor(name=FILES, identifier=IDENTIFIER, source=lambda: source)
    with pytest.raises(SensorBlind) as blind:
        sensor.open()
    assert blind.value.blind.reason is BlindReason.NO_PRIVILEGE
    assert source.closed


def test_a_source_that_fails_later_tells_what_it_had() -> None:
    """What was counted before the failure is the last that the sensor says."""
    source = ScriptedSource()
    sensor = LogSensor(name=FILES, identifier=IDENTIFIER, source=lambda: source)
    sensor.open()
    source.release(LINE)
    _until(sensor.waiting)
    source.blind = SensorBlind(BlindReason.READ_FAILED, "gone")
    source.release()
    _until(lambda: sensor._reading is not None and sensor._reading._failure is not None)
    with pytest.raises(SensorBlind) as blind:
        sensor.read(instant(5))
    assert [type(each) for each in blind.value.last] == [LogLine]
    sensor.close()


def test_a_read_that_does_not_come_back_blinds_the_sensor() -> None:
    """The agent never waits for it: it looks at the clock."""
    now_s = [0.0]
    source = ScriptedSource()
    reading = _reading(source, lambda: now_s[0])
    reading.start()
    source.held.clear()
    source.release(LINE)
    _until(lambda: reading._busy_since is not None)
    reading.check()
    now_s[0] = STUCK_S + 1
    with pytest.raises(SensorBlind) as blind:
        reading.check()
    assert blind.value.blind.reason is BlindReason.NOT_ANSWERING
    source.held.set()
    reading.stop()


def test_a_defect_of_a_source_is_said_and_not_swallowed() -> None:
    """Whatever a source raises ends as the sensor's blindness with the error's name."""

    class Broken(ScriptedSource):
        def read(self, tally: Tally, now_unix_ns: int) -> bool:
            raise RuntimeError("broken")

    source = Broken()
    reading = _reading(source)
    reading.start()
    source.release(LINE)
    _until(lambda: reading.has_something)
    with pytest.raises(SensorBlind, match="RuntimeError: broken"):
        reading.check()
    reading.stop()


def test_there_is_room_for_so_many_kinds_and_the_rest_is_counted() -> None:
    """Names come from outside, so their number is bounded; what does not fit is a loss."""
    tally = Tally(Matcher(PATTERNS))
    said = tally.match(LINE, LineSource.PROGRAM)
    assert said is not None
    for pid in range(KINDS_MAX + 7):
        tally.add(said, Writer(pid=pid), 0)
    harvest = tally.harvest()
    assert (len(harvest.lines), harvest.lost) == (KINDS_MAX, 7)
    assert not tally


def test_two_nodes_that_are_lost_at_once_are_told_apart() -> None:
    """By the address in the line; a writer that names ever more of them takes no place from others."""
    tally = Tally(Matcher(PATTERNS))

    def add(address: str) -> None:
        line = f"Registering new node. node_id=1 node_address={address} node_name=x"
        said = tally.match(line, LineSource.PROGRAM)
        assert said is not None
        tally.add(said, Writer(pid=1), 0)

    for address in ("10.0.0.1", "10.0.0.2", "10.0.0.1"):
        add(address)
    told = [(line.captures[0].number, line.count) for line in tally.harvest().lines]
    assert told == [(float(0x0A000001), 2), (float(0x0A000002), 1)]
    for number in range(200):
        add(f"10.0.1.{number}")
    harvest = tally.harvest()
    assert [line.count for line in harvest.lines] == [1] * ADDRESSES_MAX + [200 - ADDRESSES_MAX]
    assert harvest.lost == 0


def test_a_loss_is_a_gap_of_a_sensor_that_sees() -> None:
    """Lines that were passed over are told as lost, with their number."""

    class Skipping(ScriptedSource):
        def read(self, tally: Tally, now_unix_ns: int) -> bool:
            tally.lose(3)
            return False

    source = Skipping()
    sensor = LogSensor(name=SensorName("host.logs"), identifier=IDENTIFIER, source=lambda: source)
    sensor.open()
    source.release()
    _until(sensor.waiting)
    assert sensor.read(instant(5)) == [Gap(SensorName("host.logs"), instant(5), Seeing(), lost=3)]
    sensor.close()
