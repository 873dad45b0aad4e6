"""The double of the desk behaves as the desk does."""

from __future__ import annotations

import asyncio

import pytest

from escalation.model import State
from escalation.server.decision.approvals import Policy
from escalation.server.desk import NotFound, Superseded
from escalation.server.testing import CONTAINER, FakeDesk, heartbeat


async def test_a_fault_travels_from_report_to_verified() -> None:
    """Reported, proposed, approved, done, cleared, quiet for long enough: verified."""
    desk = FakeDesk()
    await desk.report(heartbeat())
    entry = await desk.opened()
    assert entry.recommendation.state is State.PROPOSED
    assert entry.recommendation.advice.action.command == ("docker", "restart", CONTAINER)

    approved = await desk.approve(
        entry.recommendation.id, person="ada", reason="it serves nobody", digest=entry.recommendation.digest
    )
    assert approved.recommendation.decided_by == "ada"
    await desk.done(entry.recommendation.id, person="ada")
    await desk.cleared()
    for _ in range(61):
        await desk.report(heartbeat())
        await desk.advance(10)

    finished = await desk.entry(entry.incident.id)
    assert finished.recommendation.state is State.VERIFIED
    assert (finished.cured, finished.tried) == (1, 1)


async def test_a_drill_may_cut_the_time_that_proves_a_cure() -> None:
    """With `quiet_at_most_s` a cure is verified after so long, and not before."""
    desk = FakeDesk(policy=Policy(quiet_at_most_s=30))
    await desk.report(heartbeat())
    entry = await desk.opened()
    ident, digest = entry.recommendation.id, entry.recommendation.digest
    await desk.approve(ident, person="ada", reason="drill", digest=digest)
    await desk.done(ident, person="ada")
    await desk.cleared()
    states = []
    for _ in range(3):
        await desk.report(heartbeat())
        await desk.advance(10)
        states.append((await desk.entry(ident)).recommendation.state)
    assert states == [State.DONE, State.DONE, State.VERIFIED]


async def test_a_watcher_is_told_of_each_change() -> None:
    """Changes arrive in order, from the moment of asking on."""
    desk = FakeDesk()
    changes = desk.changes()
    entry = await desk.opened()
    await desk.reject(entry.recommendation.id, person="ada", reason="known")
    seen = [(await asyncio.wait_for(anext(changes), 1)).recommendation.state for _ in range(2)]
    assert seen == [State.PROPOSED, State.REJECTED]


async def test_a_wrong_digest_and_an_unknown_id_are_refused() -> None:
    """Nothing is approved that was not named exactly."""
    desk = FakeDesk()
    entry = await desk.opened()
    with pytest.raises(Superseded):
        await desk.approve(entry.recommendation.id, person="ada", reason="yes", digest="0" * 64)
    with pytest.raises(NotFound):
        await desk.entry("no such entry")
