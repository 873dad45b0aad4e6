"""One write to the spool at a time, waited for a while and then left to itself.

A disk that hangs neither takes nor refuses, and no signal ends a call to it. A restart would lose what waits
in memory and hang on the same disk. So a write is waited for `PATIENCE_S` once; until it comes back no other
is begun, so that nothing is written twice, and the spool is blind as a sensor is: `agent.spool`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Final

import structlog

from agent.pipeline import Pipeline
from probes.observation import (
    Blind,
    BlindReason,
    Coverage,
    Gap,
    Instant,
    Observation,
    Seeing,
    SensorName,
)

SPOOL: Final = SensorName("agent.spool")
PATIENCE_S: Final = 5.0
"""How long a write is waited for: less than the watchdog bears."""

log = structlog.get_logger("nanobot.writing")


class Writing:
    """The write that is under way, if one is. Used from the event loop alone."""

    def __init__(self, *, pipeline: Pipeline, woken: Callable[[], None], patience_s: float) -> None:
        """`woken` is called when a write comes back that was not waited for."""
        self._pipeline = pipeline
        self._woken = woken
        self._patience_s = patience_s
        self._task: asyncio.Task[None] | None = None
        self._began = Instant(0, 0)
        self._coverage: Coverage | None = None

    def __repr__(self) -> str:
        return f"Writing(under_way={self.is_under_way}, held_up={self.is_held_up})"

    @property
    def is_under_way(self) -> bool:
        """Whether a write is under way, or came back and was not looked at yet."""
        return self._task is not None

    @property
    def is_held_up(self) -> bool:
        """Whether the spool has not answered in its time."""
        return isinstance(self._coverage, Blind)

    def held_up_s(self, now: Instant) -> float:
        """Return for how long the spool has not answered; 0 while it does."""
        return now.since_s(self._began) if self.is_held_up else 0.0

    def sight(self, now: Instant) -> Sequence[Observation]:
        """Return whether the spool answers as a Gap, for a detector that begins now."""
        return () if self._coverage is None else (Gap(SPOOL, now, self._coverage),)

    async def begin(self, write: Coroutine[None, None, None], now: Instant) -> None:
        """Begin `write`, when none is under way, and wait for it a while."""
        assert self._task is None, "one at a time"
        self._began = now
        self._task = asyncio.ensure_future(write)
        await self.wait()
        if not self.has_come_back(now):
            self._task.add_done_callback(lambda _: self._woken())
            log.warning("spool_does_not_answer")
            self._say(Blind(BlindReason.NOT_ANSWERING, f"no answer in {self._patience_s:g} s"), now)

    async def wait(self) -> None:
        """Wait a while for the write that is under way."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=self._patience_s)

    def has_come_back(self, now: Instant) -> bool:
        """Return whether no write is under way any more; a defect of ours in one is raised here."""
        if self._task is None:
            return True
        if not self._task.done():
            return False
        done, self._task = self._task, None
        done.result()
        if self.is_held_up:
            log.info("spool_answers_again", after_s=round(now.since_s(self._began), 3))
        self._say(Seeing(), now)
        return True

    def _say(self, coverage: Coverage, now: Instant) -> None:
        if coverage != self._coverage:
            self._coverage = coverage
            self._pipeline.put([Gap(SPOOL, now, coverage)])
