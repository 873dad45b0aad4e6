"""An agent whose spool lies on a real disk that hangs: nothing that it judges is lost, and it lives on."""

from __future__ import annotations

from pathlib import Path

import pytest

from escalation.model import CasePhase, CaseReport, Loss
from tests.agent.test_loop import Host
from tests.kernel.disks import disk

pytestmark = pytest.mark.root


async def test_a_disk_that_hangs_costs_nothing(tmp_path: Path) -> None:
    """A frozen ext4 takes and refuses nothing; thawed, it takes all that was judged, once and in order."""
    with disk(tmp_path) as made:
        async with Host(made.point, patience_s=0.05) as host:
            await host.live(1)
            await host.answered()
            with made.frozen():
                for number in range(5):
                    host.name(number)
                    await host.live(1)
                await host.live(120, step_s=1)
                assert host.loop.writing.is_held_up
                assert host.supervisor.told.count("WATCHDOG=1") >= 120 // 8
            await host.answered()
            assert not host.loop.writing.is_held_up
            bodies = await host.bodies()
            assert [
                body.subject.name
                for body in bodies
                if isinstance(body, CaseReport) and body.phase is CasePhase.OPENED
            ] == [*(f"u{number}.service" for number in range(5)), "agent.spool"]
            assert not [body for body in bodies if isinstance(body, Loss)]


async def test_a_disk_that_hangs_when_the_agent_starts_is_waited_for(tmp_path: Path) -> None:
    """The spool is opened when the disk comes back, and what happened meanwhile is judged then."""
    with disk(tmp_path) as made:
        async with Host(made.point, patience_s=0.05) as host:
            host.name(1)
            with made.frozen():
                await host.live(60, step_s=1)
                assert host.loop.writing.is_held_up
                assert host.supervisor.told.count("WATCHDOG=1") >= 60 // 8
            await host.answered()
            (opened,) = [body for body in await host.bodies() if isinstance(body, CaseReport)]
            assert (opened.phase, opened.subject.name) == (CasePhase.OPENED, "u1.service")
