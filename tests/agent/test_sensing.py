"""Sensing: every sensor at its time, each one's trouble its own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence

import pytest

from agent.pipeline import Pipeline
from agent.sensing import CHORES_S, REOPEN_S, STUCK_S, Sensing
from agent.sensor_thread import SensorThread
from agent.testing import death
from agent.testing_ports import ManualClock, ScriptedSensor, builders
from probes.observation import Blind, BlindReason, Gap, Instant, Observation, Seeing, SensorName
from probes.sensor import SensorBlind
from probes.settings import SensorSettings

A, B = SensorName("kernel.a"), SensorName("kernel.b")
C = SensorName("kernel.c")


class HangingSensor(ScriptedSensor):
    """A sensor whose call stays in the kernel until a test lets it come back."""

    def __init__(self, name: SensorName, *, opening: bool = False) -> None:
        super().__init__(name, period_s=30)
        self._opening = opening
        self.inside, self.comes_back, self.let_go = threading.Event(), threading.Event(), asyncio.Event()

    def open(self) -> None:
        """Hang here, or open."""
        if self._opening:
            self._hang()
        super().open()

    def read(self, now: Instant) -> Sequence[Observation]:
        """Hang here, or read."""
        if not self._opening:
            self._hang()
        return super().read(now)

    def close(self) -> None:
        """Count it, and tell."""
        super().close()
        self.let_go.set()

    def _hang(self) -> None:
        self.inside.set()
        assert self.comes_back.wait(30)


class Bench:
    """Sensing with a manual clock, and what came out of it."""

    def __init__(self, *, thread: SensorThread | None = None) -> None:
        self.clock = ManualClock()
        self.pipeline = Pipeline(capacity=100)
        self.woken = asyncio.Event()
        self.sensing = Sensing(pipeline=self.pipeline, clock=self.clock, woken=self.woken.set, thread=thread)

    async def until(self, name: SensorName, coverage: Seeing | Blind) -> None:
        """Wait until a sensor's coverage is this one."""
        while self.sensing.coverage[name] != coverage:
            self.woken.clear()
            await asyncio.wait_for(self.woken.wait(), 5)

    async def start(self, *sensors: ScriptedSensor, disabled: frozenset[str] = frozenset()) -> None:
        await self.sensing.assemble(builders(*sensors)(None, SensorSettings()), disabled=disabled)

    async def after(self, seconds: float) -> None:
        self.clock.forward(seconds)
        await self.sensing.read_due(self.clock.now)

    def gaps(self) -> list[tuple[str, bool]]:
        return [
            (item.sensor, isinstance(item.coverage, Seeing))
            for item in self.pipeline.take(1000)
            if isinstance(item, Gap)
        ]


async def test_reads_each_sensor_by_its_period() -> None:
    """A sensor is read at once and then when its time has come: together with others, and not before."""
    bench, fast, slow = Bench(), ScriptedSensor(A, period_s=0.25), ScriptedSensor(B, period_s=0.5)
    async with bench.sensing:
        await bench.start(fast, slow)
        await bench.after(0.25)
        assert (fast.reads, slow.reads) == (1, 1)
        for second in range(8):
            for sensor in (fast, slow):
                sensor.says.append(death(second, 11))
            await bench.after(0.25)
    assert (fast.reads, slow.reads) == (9, 5)
    assert (fast.closed, slow.closed) == (1, 1)


async def test_a_sensor_with_nothing_to_say_is_left_in_peace() -> None:
    """Where nothing waits nothing is read, but for the sensor's own chores; what waits is read when due."""
    bench, sensor = Bench(), ScriptedSensor(A, period_s=0.25)
    async with bench.sensing:
        await bench.start(sensor)
        for _ in range(20):
            await bench.after(0.25)
        assert sensor.reads == 1
        sensor.says.append(death(1, 11))
        await bench.after(0.25)
        assert sensor.reads == 2
        await bench.after(CHORES_S)
        assert sensor.reads == 3


async def test_one_sensors_defect_blinds_it_alone() -> None:
    """An exception is counted, its sensor is blind with the reason, the other is read on."""
    bench, broken, fine = Bench(), ScriptedSensor(A), ScriptedSensor(B)
    broken.says.append(KeyError("layout"))
    async with bench.sensing:
        await bench.start(broken, fine)
        bench.gaps()
        await bench.after(0.25)
        fine.says.append(death(1, 11))
        await bench.after(0.25)
        assert bench.sensing.defects == {A: 1}
        assert bench.sensing.coverage[A] == Blind(BlindReason.READ_FAILED, "KeyError: 'layout'")
        assert bench.sensing.coverage[B] == Seeing()
        assert bench.pipeline.taken[SensorName("kernel.fatal_signal")] == 1


async def test_blind_sensor_is_opened_again_and_says_so_once() -> None:
    """One Gap tells of blindness, however often opening fails, and one of sight."""
    bench, sensor = Bench(), ScriptedSensor(A, refuses=SensorBlind(BlindReason.NO_HEADERS, "none"))
    async with bench.sensing:
        await bench.start(sensor)
        await bench.after(REOPEN_S)
        await bench.after(REOPEN_S)
        assert bench.gaps() == [(A, False)]
        sensor.refuses = None
        await bench.after(REOPEN_S)
        assert bench.gaps() == [(A, True)]


async def test_disabled_sensor_is_never_opened() -> None:
    """It is reported as disabled, which is not a fault."""
    bench, sensor = Bench(), ScriptedSensor(A)
    async with bench.sensing:
        await bench.start(sensor, disabled=frozenset({A}))
        await bench.after(REOPEN_S)
        assert sensor.opened == 0
        assert bench.sensing.coverage[A] == Blind(BlindReason.DISABLED, "switched off in the configuration")


async def test_grave_event_is_read_at_once() -> None:
    """A descriptor that becomes readable does not wait for the period."""
    read, write = os.pipe()
    bench, sensor = Bench(), ScriptedSensor(A, period_s=0.9, wakeup=read)
    async with bench.sensing:
        await bench.start(sensor)
        await bench.after(0)
        bench.woken.clear()
        sensor.says.append(death(1, 11))
        os.write(write, b"x")
        await asyncio.wait_for(bench.woken.wait(), 5)
        assert bench.pipeline.taken[SensorName("kernel.fatal_signal")] == 1
    os.close(read)
    os.close(write)


async def test_grave_event_of_a_rarely_read_sensor_is_read_at_once() -> None:
    """Its descriptor makes it due, its thread reads it, the loop does not spin meanwhile; time after time."""
    read, write = os.pipe()
    bench, sensor = Bench(), ScriptedSensor(A, period_s=30, wakeup=read)
    async with bench.sensing:
        await bench.start(sensor)
        bench.woken.clear()
        await bench.after(0)
        await asyncio.wait_for(bench.woken.wait(), 5)
        for times in range(1, 4):
            bench.woken.clear()
            sensor.says.append(death(1, 11))
            os.write(write, b"x")
            await asyncio.wait_for(bench.woken.wait(), 5)
            while bench.pipeline.taken[SensorName("kernel.fatal_signal")] < times:
                bench.woken.clear()
                await bench.after(0.001)
                await asyncio.wait_for(bench.woken.wait(), 5)
        assert sensor.reads == 4
    os.close(read)
    os.close(write)


async def test_what_a_sensor_still_saw_when_it_went_blind_is_kept() -> None:
    """The last observations come before the Gap that says it is blind, at opening and at reading."""
    last = death(1, 11)
    bench = Bench()
    sensor = ScriptedSensor(A, refuses=SensorBlind(BlindReason.NO_DRIVER, "none", last=[last]))
    async with bench.sensing:
        await bench.start(sensor)
        assert bench.pipeline.take(9) == [last, Gap(A, bench.clock.now, Blind(BlindReason.NO_DRIVER, "none"))]
        sensor.refuses = None
        await bench.after(REOPEN_S)
        bench.pipeline.take(9)
        sensor.says.append(SensorBlind(BlindReason.NO_DRIVER, "none", last=[last]))
        await bench.after(0.25)
        assert bench.pipeline.take(9) == [last, Gap(A, bench.clock.now, Blind(BlindReason.NO_DRIVER, "none"))]


async def test_rare_and_long_read_does_not_hold_up_the_loop() -> None:
    """A sensor with a long period is read on its own thread, and its result arrives by itself."""
    bench, sensor = Bench(), ScriptedSensor(A, period_s=30)
    async with bench.sensing:
        await bench.start(sensor)
        sensor.says.append(death(1, 11))
        bench.woken.clear()
        await bench.after(0)
        await asyncio.wait_for(bench.woken.wait(), 5)
        assert bench.pipeline.taken[SensorName("kernel.fatal_signal")] == 1


async def test_new_descriptors_replace_every_sensor() -> None:
    """Assembling again closes what was open, and does not repeat what is known already."""
    bench, old, new = Bench(), ScriptedSensor(A), ScriptedSensor(A)
    async with bench.sensing:
        await bench.start(old)
        await bench.start(new)
        assert (old.closed, new.opened) == (1, 1)
        assert bench.gaps() == [(A, True)]


async def test_what_the_old_ring_still_held_is_read_before_it_goes() -> None:
    """Replacing the descriptors loses nothing that had happened before."""
    bench, old, new = Bench(), ScriptedSensor(A), ScriptedSensor(A)
    async with bench.sensing:
        await bench.start(old)
        old.says.append(death(1, 11))
        await bench.start(new)
        assert bench.pipeline.taken[SensorName("kernel.fatal_signal")] == 1


async def test_hurry_makes_an_inventory_due_and_leaves_the_rest() -> None:
    """Who begins anew needs the inventory at once; a ring has nothing to repeat."""
    bench, slow, off = Bench(), ScriptedSensor(A, period_s=60), ScriptedSensor(B, period_s=60)
    async with bench.sensing:
        await bench.start(slow, off, disabled=frozenset({B}))
        for _ in range(2):
            bench.woken.clear()
            bench.sensing.hurry()
            await bench.after(1)
            await asyncio.wait_for(bench.woken.wait(), 5)
        assert (slow.reads, off.reads) == (2, 0)


@pytest.mark.parametrize("error", [RuntimeError("no"), SensorBlind(BlindReason.NO_LIBRARY, "libbpf1")])
async def test_failing_to_open_blinds_only_that_sensor(error: Exception) -> None:
    """Whatever goes wrong while opening, the next sensor is opened."""
    bench, fine = Bench(), ScriptedSensor(B)

    def refuse() -> ScriptedSensor:
        raise error

    async with bench.sensing:
        await bench.sensing.assemble({A: refuse, B: lambda: fine}, disabled=frozenset())
        assert isinstance(bench.sensing.coverage[A], Blind)
        assert bench.sensing.coverage[B] == Seeing()


async def test_a_read_that_hangs_is_blind_until_it_comes_back() -> None:
    """So is what waits behind it, which says for whom; what is read on the loop goes on."""
    bench = Bench()
    hung, behind, quick = HangingSensor(A), ScriptedSensor(B, period_s=30), ScriptedSensor(C)
    async with bench.sensing:
        await bench.start(hung, behind, quick)
        await bench.after(0)
        await asyncio.to_thread(hung.inside.wait, 5)
        await bench.after(STUCK_S - 1)
        assert bench.sensing.coverage[A] == bench.sensing.coverage[B] == Seeing()

        await bench.after(1)
        assert bench.sensing.coverage == {
            A: Blind(BlindReason.NOT_ANSWERING, "no answer in 30 s"),
            B: Blind(BlindReason.NOT_ANSWERING, "it waits for kernel.a, which does not come back"),
            C: Seeing(),
        }
        assert bench.gaps() == [(A, True), (B, True), (C, True), (A, False), (B, False)]

        hung.says.append(death(1, 11))
        hung.comes_back.set()
        await bench.until(B, Seeing())
        assert bench.sensing.coverage[A] == Seeing()
        assert bench.pipeline.taken[SensorName("kernel.fatal_signal")] == 1


async def test_opening_that_hangs_holds_the_loop_up_once() -> None:
    """The next ones are refused at once, what came too late is closed, and the next opening is a new one."""
    bench = Bench(thread=SensorThread(patience_s=0.01))
    hung, behind, quick = HangingSensor(A, opening=True), ScriptedSensor(B, period_s=30), ScriptedSensor(C)
    async with bench.sensing:
        await bench.start(hung, behind, quick)
        assert bench.sensing.coverage == {
            A: Blind(BlindReason.NOT_ANSWERING, "it was not open after 0.01 s"),
            B: Blind(BlindReason.NOT_ANSWERING, "it waits for kernel.a, which does not come back"),
            C: Seeing(),
        }
        assert behind.opened == 0

        hung.comes_back.set()
        await asyncio.wait_for(hung.let_go.wait(), 5)
        await bench.after(REOPEN_S)
        assert bench.sensing.coverage == {A: Seeing(), B: Seeing(), C: Seeing()}
        assert (hung.opened, hung.closed, behind.opened) == (2, 1, 1)


async def test_a_sensor_that_hangs_is_not_closed_under_its_own_read() -> None:
    """Other sensors take its place at once; it is let go when it comes back, and says nothing any more."""
    bench = Bench(thread=SensorThread(patience_s=0.01))
    hung, successor = HangingSensor(A), ScriptedSensor(A)
    async with bench.sensing:
        await bench.start(hung)
        await bench.after(0)
        await asyncio.to_thread(hung.inside.wait, 5)
        await bench.start(successor)
        assert (hung.closed, successor.opened) == (0, 1)

        hung.says.append(SensorBlind(BlindReason.READ_FAILED, "too late"))
        hung.comes_back.set()
        await asyncio.wait_for(hung.let_go.wait(), 5)
        assert bench.sensing.coverage == {A: Seeing()}
