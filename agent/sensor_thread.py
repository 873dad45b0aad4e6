"""The one thread on which sensors are opened and read that may take long, and what if it does not come back.

A call may hang in the kernel: a file of /proc of a process that cannot be woken, a disk whose server is gone.
A thread in there cannot be freed, and a second one may not have what the sensors share. So nothing waits for
it for long: the loop waits `PATIENCE_S` once, which is less than the watchdog bears, and until the call comes
back everything that wants the thread is told who holds it up.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from probes.observation import Blind, BlindReason, SensorName
from probes.sensor import Sensor, SensorBlind

PATIENCE_S: Final = 5.0

T = TypeVar("T")


class SensorThread:
    """Calls sensors one after the other. Used from the event loop alone."""

    def __init__(self, *, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sensors")
        self._calling: SensorName | None = None
        self._overdue: asyncio.Future[Any] | None = None

    def __repr__(self) -> str:
        return f"SensorThread(calling={self._calling}, held_up={self.is_held_up})"

    @property
    def is_held_up(self) -> bool:
        """Whether a call has not come back in its time."""
        return self._overdue is not None and not self._overdue.done()

    async def call(self, name: SensorName, function: Callable[[], T]) -> T:
        """Call `function` on the thread, which is known by `name` meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._named, name, function)

    async def open(self, sensor: Sensor) -> None:
        """Open `sensor`; raise SensorBlind also when that takes too long, and close it when it is done."""
        if self.is_held_up:
            raise self._refusal(sensor.name, "it waits for its turn")
        opening = asyncio.ensure_future(self.call(sensor.name, sensor.open))
        await asyncio.wait([opening], timeout=self._patience_s)
        if not opening.done():
            self.give_up(sensor, opening)
            raise self._refusal(sensor.name, f"it was not open after {self._patience_s:g} s")
        opening.result()

    async def wait(self, readings: list[asyncio.Task[None]]) -> None:
        """Wait for reads that are under way, but not when one of them is overdue already."""
        if readings and not self.is_held_up:
            await asyncio.wait(readings, timeout=self._patience_s)

    def give_up(self, sensor: Sensor, pending: asyncio.Future[None]) -> None:
        """Close `sensor` when the call comes back that it is in."""
        self.miss(sensor.name, pending, "")
        pending.add_done_callback(functools.partial(_let_go, sensor))

    def miss(self, name: SensorName, pending: asyncio.Future[None], detail: str) -> Blind:
        """Take note that `pending` is overdue; return why sensor `name` is blind."""
        if not self.is_held_up:
            self._overdue = pending
        return self._refusal(name, detail).blind

    def end(self) -> None:
        """Take no more calls; what is under way is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _named(self, name: SensorName, function: Callable[[], T]) -> T:
        self._calling = name
        try:
            return function()
        finally:
            self._calling = None

    def _refusal(self, name: SensorName, detail: str) -> SensorBlind:
        calling = self._calling
        if calling not in {None, name}:
            detail = f"it waits for {calling}, which does not come back"
        return SensorBlind(BlindReason.NOT_ANSWERING, detail)


def _let_go(sensor: Sensor, done: asyncio.Future[None]) -> None:
    if not done.cancelled():
        done.exception()  # whatever it was: nobody waits for it any more
    sensor.close()
