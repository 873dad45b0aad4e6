"""Delivery: somebody always drains the outbox."""

from __future__ import annotations

import asyncio

from agent.config import Orchestrator
from agent.uplink.delivery import Delivery, LinkStatus

ONE, TWO = Orchestrator(address="a:1"), Orchestrator(address="b:2")


class Link:
    """Runs until cancelled, or fails as told."""

    def __init__(self, settings: Orchestrator, *, fails: bool = False) -> None:
        self.settings = settings
        self.fails = fails
        self.started = asyncio.Event()
        self.ended = False
        self.woken = 0

    async def run(self) -> None:
        self.started.set()
        if self.fails:
            raise RuntimeError("a defect")
        try:
            await asyncio.Event().wait()
        finally:
            self.ended = True

    def wake(self) -> None:
        self.woken += 1

    def status(self) -> LinkStatus:
        return LinkStatus(connected=True)


async def turns() -> None:
    """Let every task that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_changed_settings_replace_the_link() -> None:
    """The old one ends, the new one is made from the new settings, and gets the calls."""
    made: list[Link] = []

    def make(settings: Orchestrator) -> Link:
        made.append(Link(settings))
        return made[-1]

    delivery = Delivery(make=make)
    assert delivery.status() == LinkStatus()
    delivery.use(ONE)
    task = asyncio.ensure_future(delivery.run())
    await turns()
    delivery.use(ONE)
    delivery.use(TWO)
    await turns()
    delivery.wake()
    assert (made[0].ended, made[1].settings, made[1].woken) == (True, TWO, 1)
    task.cancel()
    await asyncio.wait([task])
    assert made[1].ended
    assert task.cancelled()


async def test_defect_of_the_uplink_is_counted_and_does_not_end_delivery() -> None:
    """What the link raises stays in here; another is made after a pause."""
    made: list[Link] = []

    def make(settings: Orchestrator) -> Link:
        made.append(Link(settings, fails=True))
        return made[-1]

    delivery = Delivery(make=make)
    delivery.use(ONE)
    task = asyncio.ensure_future(delivery.run())
    await turns()
    assert not task.done()
    assert "defects=1" in repr(delivery)
    task.cancel()
    await asyncio.wait([task])
