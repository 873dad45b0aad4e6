"""One write at a time: waited for a while, and taken note of when it comes back."""

from __future__ import annotations

import asyncio

import pytest

from agent.pipeline import Pipeline
from agent.testing import at
from agent.uplink.writing import SPOOL, Writing
from probes.observation import Blind, BlindReason, Gap, Seeing


async def test_a_write_that_comes_back_in_time_says_once_that_the_spool_answers() -> None:
    """The first one says so, for a case that an earlier agent may have left open; no other does."""
    pipeline = Pipeline(capacity=10)
    writing = Writing(pipeline=pipeline, woken=lambda: None, patience_s=60)
    assert writing.sight(at(0)) == ()
    for second in (1, 2):
        await writing.begin(asyncio.sleep(0), at(second))
        assert (writing.is_under_way, writing.is_held_up) == (False, False)
    assert pipeline.take(10) == [Gap(SPOOL, at(1), Seeing())]


async def test_a_write_that_does_not_is_blindness_until_it_comes_back() -> None:
    """Nobody waits for it any more; its end wakes the loop, which then hears that the spool answers."""
    pipeline, woken, disk = Pipeline(capacity=10), asyncio.Event(), asyncio.Event()

    async def write() -> None:
        await disk.wait()

    writing = Writing(pipeline=pipeline, woken=woken.set, patience_s=0)
    await writing.begin(write(), at(1))
    assert writing.is_under_way
    assert not writing.has_come_back(at(31))
    assert writing.held_up_s(at(31)) == 30
    blind = Blind(BlindReason.NOT_ANSWERING, "no answer in 0 s")
    assert writing.sight(at(31)) == (Gap(SPOOL, at(31), blind),)
    assert not woken.is_set()
    disk.set()
    await woken.wait()
    assert writing.has_come_back(at(40))
    assert (writing.is_under_way, writing.is_held_up, writing.held_up_s(at(40))) == (False, False, 0)
    assert pipeline.take(10) == [Gap(SPOOL, at(1), blind), Gap(SPOOL, at(40), Seeing())]


async def test_a_defect_in_a_write_is_not_swallowed() -> None:
    """What is no error of the disk is one of ours, and ends the agent as any other does."""

    async def write() -> None:
        raise ZeroDivisionError

    writing = Writing(pipeline=Pipeline(capacity=10), woken=lambda: None, patience_s=60)
    with pytest.raises(ZeroDivisionError):
        await writing.begin(write(), at(1))
