"""What the agent wants of the uplink, and the task that keeps one running.

An uplink that ends or raises is a defect or a change of settings; either way another takes its place, after
a pause that grows, because the outbox must be drained by somebody.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from agent.config import Orchestrator

_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0

log = structlog.get_logger("nanobot.delivery")


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """How the uplink is: whether a stream is up, what was acknowledged, and why it is down."""

    connected: bool = False
    acknowledged: int = 0
    last_ack_ns: int | None = None
    error: str | None = None


class Link(Protocol):
    """What drains the outbox to the orchestrator."""

    async def run(self) -> None:
        """Send what waits and forget what is acknowledged, until cancelled."""

    def wake(self) -> None:
        """Say that there is something new to send."""

    def status(self) -> LinkStatus:
        """Return how it is."""


class Delivery:
    """Keeps one Link running, and replaces it when the orchestrator's settings change."""

    def __init__(self, *, make: Callable[[Orchestrator], Link]) -> None:
        self._make = make
        self._link: Link | None = None
        self._task: asyncio.Task[None] | None = None
        self._settings: Orchestrator | None = None
        self.defects = 0

    def __repr__(self) -> str:
        return f"Delivery({self.status()}, defects={self.defects})"

    def status(self) -> LinkStatus:
        """Return how the present link is."""
        return self._link.status() if self._link is not None else LinkStatus()

    def wake(self) -> None:
        """Pass the word on that something waits."""
        if self._link is not None:
            self._link.wake()

    def use(self, settings: Orchestrator) -> None:
        """Go on with these settings, from the next moment on."""
        if settings != self._settings:
            self._settings = settings
            if self._task is not None:
                self._task.cancel()

    async def run(self) -> None:
        """Keep a link running until cancelled."""
        pause_s = _PAUSE_S
        while True:
            assert self._settings is not None, "use() comes first"
            settings = self._settings
            try:
                self._link = self._make(settings)
                self._task = asyncio.ensure_future(self._link.run())
                await self._finish(self._task)
            except Exception as error:  # the uplink must not take judgement down
                self.defects += 1
                log.exception("uplink_failed", error=str(error))
            if settings != self._settings:
                pause_s = _PAUSE_S
                continue
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _finish(self, task: asyncio.Task[None]) -> None:
        """Wait for `task`; being replaced ends it quietly, being cancelled ourselves does not."""
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            raise
        if not task.cancelled():
            task.result()
