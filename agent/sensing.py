"""Drives the sensors: opens each, reads it when it is due, and says when it can no longer see.

Sensors that are read often (a ring buffer, each 250 ms) are read on the event loop, because a hop to a
thread would cost more than the read; one that is read once a second or less (an inventory) may take longer
and is read on one thread beside it (`sensor_thread.py`). Whichever, the same thread reads it for as long as
it is open. One whose read has not come back after `STUCK_S` is blind until it does.

A sensor that raises is blind from then on, with its reason, and is opened again after `REOPEN_S`; the others
do not notice. One that raises something that is no SensorBlind has a defect, which is counted as well.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

import structlog

from agent.pipeline import Pipeline
from agent.sensor_thread import SensorThread
from probes.observation import Blind, BlindReason, Coverage, Gap, Instant, Observation, Seeing, SensorName
from probes.sensor import SeesPart, Sensor, SensorBlind

REOPEN_S: Final = 30.0
CHORES_S: Final = 10.0
STUCK_S: Final = 30.0
_THREAD_FROM_S: Final = 1.0
_DISABLED: Final = Blind(BlindReason.DISABLED, "switched off in the configuration")
_BUILT: Final = Blind(BlindReason.NOT_HANDED_OVER, "not opened yet")

log = structlog.get_logger("nanobot.sensing")


@dataclass(slots=True)
class _Slot:
    name: SensorName
    build: Callable[[], Sensor]
    coverage: Coverage = _BUILT
    told: Coverage | None = None
    sensor: Sensor | None = None
    due_ns: int = 0
    period_ns: int = 0
    read_ns: int = 0
    wakeup: int | None = None
    listening: bool = False
    reading: asyncio.Task[None] | None = None
    asked_ns: int = 0
    slow: bool = field(default=False)
    unsettled: bool = False


class Sensing:
    """Every enabled sensor of the registry. `async with`; `read_due` is called by the work loop."""

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        clock: Callable[[], Instant],
        woken: Callable[[], None],
        thread: SensorThread | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._clock = clock
        self._woken = woken
        self._slots: dict[SensorName, _Slot] = {}
        self._thread = thread or SensorThread()
        self._hold = asyncio.Lock()
        self.defects: Counter[SensorName] = Counter()

    def __repr__(self) -> str:
        seeing = sum(isinstance(slot.coverage, Seeing) for slot in self._slots.values())
        return f"Sensing({seeing} of {len(self._slots)} see)"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close_all()
        self._thread.end()

    @property
    def coverage(self) -> Mapping[SensorName, Coverage]:
        """What each sensor sees, in the registry's order."""
        return {name: slot.coverage for name, slot in self._slots.items()}

    def left_out(self, name: SensorName) -> str:
        """Return what a sensor that sees cannot see of what it was asked to."""
        sensor = self._slots[name].sensor
        return sensor.left_out if isinstance(sensor, SeesPart) else ""

    def sight(self, now: Instant) -> Sequence[Observation]:
        """Return the coverage as Gaps, for a detector that begins now."""
        return [Gap(name, now, slot.coverage) for name, slot in self._slots.items()]

    def hurry(self) -> None:
        """Make the inventories due now, because somebody began anew without knowing the last ones."""
        for slot in self._slots.values():
            if slot.slow and slot.due_ns > 0:
                slot.due_ns = 0

    def settle(self) -> None:
        """Tell the sensors that all they ever said is judged and on disk."""
        for slot in self._slots.values():
            if slot.sensor is None or not slot.unsettled:
                continue
            slot.unsettled = False
            try:
                slot.sensor.settle()
            except SensorBlind as error:
                now = self._clock()
                self._blinded(slot, now)
                self._blind(slot, error, now)

    async def assemble(
        self, builders: Mapping[SensorName, Callable[[], Sensor]], *, disabled: frozenset[str]
    ) -> None:
        """Close what is open, after a last read, and open these sensors instead, but the disabled ones."""
        async with self._hold:
            for slot in self._slots.values():
                if slot.sensor is not None and not slot.slow:
                    self._read(slot, self._clock())
                    self._hand_on(slot)
            told = {name: slot.told for name, slot in self._slots.items()}
            await self._close_all()
            self._slots = {name: _Slot(name, build, told=told.get(name)) for name, build in builders.items()}
            now = self._clock()
            for slot in self._slots.values():
                if slot.name in disabled:
                    slot.due_ns = -1
                    self._say(slot, _DISABLED, now)
                else:
                    await self._open(slot, now)
        self._woken()

    async def read_due(self, now: Instant) -> int:
        """Read what is due; return when the next sensor will be, in boot-clock nanoseconds.

        What is read often is first asked whether anything waits, which costs a few memory reads; once in
        `CHORES_S` it is read all the same, for its own chores.
        """
        next_ns = now.boot_ns + 1_000_000_000
        async with self._hold:
            for slot in self._slots.values():
                if slot.due_ns < 0:
                    continue
                if slot.due_ns <= now.boot_ns:
                    await self._due(slot, now)
                self._miss(slot, now)
                next_ns = min(next_ns, slot.due_ns)
        return next_ns

    def idle_until(self, now: Instant) -> int | None:
        """Return how long nothing has to be read (boot-clock ns), or None when something has to be, now."""
        until_ns = now.boot_ns + 1_000_000_000
        for slot in self._slots.values():
            if slot.due_ns < 0:
                continue
            if slot.due_ns <= now.boot_ns:
                if slot.sensor is None or slot.slow or _has_work(slot, slot.sensor, now):
                    return None
                slot.due_ns = _on_the_beat(now, slot.period_ns)
            until_ns = min(until_ns, slot.due_ns)
        return until_ns

    async def _due(self, slot: _Slot, now: Instant) -> None:
        if slot.sensor is None:
            await self._open(slot, now)
            return
        slot.due_ns = _on_the_beat(now, slot.period_ns)
        if not slot.slow:
            if _has_work(slot, slot.sensor, now):
                self._read(slot, now)
        elif slot.reading is None or slot.reading.done():
            slot.asked_ns = now.boot_ns
            slot.reading = asyncio.ensure_future(self._read_on_thread(slot, slot.sensor))

    def _miss(self, slot: _Slot, now: Instant) -> None:
        if slot.reading is None or slot.reading.done() or now.boot_ns - slot.asked_ns < STUCK_S * 1e9:
            return
        blind = self._thread.miss(slot.name, slot.reading, f"no answer in {STUCK_S:g} s")
        if not isinstance(slot.coverage, Blind):
            self._say(slot, blind, now)

    async def _open(self, slot: _Slot, now: Instant) -> None:
        slot.due_ns = now.boot_ns + int(REOPEN_S * 1e9)
        try:
            sensor = slot.build()
            slot.slow = sensor.period_s >= _THREAD_FROM_S
            if slot.slow:
                await self._thread.open(sensor)
            else:
                sensor.open()
        except SensorBlind as error:
            self._blind(slot, error, now)
            return
        except Exception as error:  # noqa: BLE001  # one sensor must not take the others down
            self._defect(slot, error, now)
            return
        slot.sensor = sensor
        slot.period_ns = int(sensor.period_s * 1e9)
        slot.due_ns = now.boot_ns
        slot.read_ns = now.boot_ns - int(CHORES_S * 1e9)  # the first read waits for nothing
        self._say(slot, Seeing(), now)
        slot.wakeup = sensor.wakeup_fd()
        self._listen(slot, on=True)

    def _wakeup(self, slot: _Slot) -> None:
        if slot.slow:
            slot.due_ns = 0
            self._listen(slot, on=False)  # it stays readable until the thread has read
        elif slot.sensor is not None:
            self._read(slot, self._clock())
        self._woken()

    def _listen(self, slot: _Slot, *, on: bool) -> None:
        if slot.wakeup is not None and on is not slot.listening:
            loop = asyncio.get_running_loop()
            if on:
                loop.add_reader(slot.wakeup, self._wakeup, slot)
            else:
                loop.remove_reader(slot.wakeup)
            slot.listening = on

    def _read(self, slot: _Slot, now: Instant) -> None:
        assert slot.sensor is not None
        slot.read_ns = now.boot_ns
        slot.unsettled = True
        try:
            self._pipeline.put(slot.sensor.read(now))
        except SensorBlind as error:
            self._blinded(slot, now)
            self._blind(slot, error, now)
        except Exception as error:  # noqa: BLE001  # one sensor must not take the others down
            self._blinded(slot, now)
            self._defect(slot, error, now)

    async def _read_on_thread(self, slot: _Slot, sensor: Sensor) -> None:
        now = self._clock()
        try:
            observations = await self._thread.call(slot.name, lambda: sensor.read(now))
        except SensorBlind as error:
            if slot.sensor is sensor:
                self._blinded(slot, now)
                self._blind(slot, error, now)
        except Exception as error:  # noqa: BLE001  # one sensor must not take the others down
            if slot.sensor is sensor:
                self._blinded(slot, now)
                self._defect(slot, error, now)
        else:
            self._pipeline.put(observations)
            if slot.sensor is sensor:
                self._say(slot, Seeing(), self._clock())
                self._listen(slot, on=True)
        self._woken()

    def _blinded(self, slot: _Slot, now: Instant) -> None:
        self._hand_on(slot)
        self._close(slot)
        slot.due_ns = now.boot_ns + int(REOPEN_S * 1e9)

    def _hand_on(self, slot: _Slot) -> None:
        """Settle before a sensor is opened again by this process, which still has what was read."""
        if slot.sensor is not None and slot.unsettled:
            slot.unsettled = False
            with contextlib.suppress(SensorBlind):  # then it is told once more, or as lost
                slot.sensor.settle()

    def _blind(self, slot: _Slot, error: SensorBlind, now: Instant) -> None:
        self._pipeline.put(error.last)
        self._say(slot, error.blind, now)

    def _defect(self, slot: _Slot, error: Exception, now: Instant) -> None:
        self.defects[slot.name] += 1
        log.error("sensor_failed", sensor=slot.name, error=f"{type(error).__name__}: {error}")
        self._say(slot, Blind(BlindReason.READ_FAILED, f"{type(error).__name__}: {error}"), now)

    def _say(self, slot: _Slot, coverage: Coverage, now: Instant) -> None:
        slot.coverage = coverage
        if coverage == slot.told:
            return
        slot.told = coverage
        self._pipeline.put([Gap(slot.name, now, coverage)])
        match coverage:
            case Seeing():
                log.info("sensor_sees", sensor=slot.name)
            case Blind(reason, detail):
                log.warning("sensor_blind", sensor=slot.name, reason=reason.value, detail=detail)

    async def _close_all(self) -> None:
        readings = [slot.reading for slot in self._slots.values() if slot.reading is not None]
        await self._thread.wait(readings)
        for slot in reversed(self._slots.values()):
            if slot.sensor is not None and slot.reading is not None and not slot.reading.done():
                self._thread.give_up(slot.sensor, slot.reading)
                self._listen(slot, on=False)
                slot.wakeup = slot.sensor = None
            self._close(slot)

    def _close(self, slot: _Slot) -> None:
        self._listen(slot, on=False)
        slot.wakeup = None
        if slot.sensor is not None:
            slot.sensor.close()
            slot.sensor = None


def _has_work(slot: _Slot, sensor: Sensor, now: Instant) -> bool:
    return now.boot_ns - slot.read_ns >= CHORES_S * 1e9 or sensor.waiting()


def _on_the_beat(now: Instant, period_ns: int) -> int:
    """Return the next multiple of the period, so that all sensors are due together: each wakeup costs."""
    return (now.boot_ns // period_ns + 1) * period_ns
