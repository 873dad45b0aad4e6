"""A whole agent with real sensors on the real loop, and drills that look at its status file."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.app import Agent, Ports
from agent.config import read
from agent.drill_log import LINGER_S
from agent.drills import remains
from agent.drills.registry import drill_of
from agent.drills.rehearsal import Rehearsal, Verdict
from agent.drills.stage import Theatre, this_host
from agent.host.witness import Witness
from agent.process import statusfile
from agent.testing import HOST, KERNEL_BOOT
from agent.testing_ports import FakeSupervisor, LoopbackLink
from escalation.model import CaseReport
from escalation.outbox import Outbox
from escalation.wire.codec import decode
from probes.host import clock
from probes.host.cgroups import find_mounts
from probes.host.drills import MARK, NAME, DrillsSensor
from probes.observation import SensorName
from probes.sensor import Sensor

Build = Callable[[], Sensor]


def an_id() -> str:
    """Return an id that no other drill on this machine has."""
    return f"nanobot-drill-{secrets.token_hex(4)}"


class Drilled:
    """An agent that runs with these sensors beside `host.drills`, in `folder`."""

    def __init__(self, folder: Path, sensors: dict[str, Build], *, text: str = "") -> None:
        self.folder = folder
        self.theatre = this_host(folder / "drills", folder / "mounts")
        self.said: list[str] = []
        self.links: list[LoopbackLink] = []
        mark = self.theatre.folder / MARK.name
        build: dict[SensorName, Build] = {NAME: lambda: DrillsSensor(mark=mark, owner=os.geteuid())}
        build |= {SensorName(name): make for name, make in sensors.items()}
        config = folder / "agent.toml"
        config.write_text(
            f"[agent]\nstate_dir = '{folder}'\n[metrics]\nenabled = false\n"
            f"[sensors]\nsocket = '{folder}/handover.sock'\n[heartbeat]\ninterval_s = 1\n{text}"
        )
        self.agent = Agent(
            config=config,
            settings=read(config, sensors=tuple(build)),
            agent_id=HOST,
            ports=Ports(
                clock=clock.now,
                supervisor=FakeSupervisor(watchdog_s=1),
                kernel_boot_id=KERNEL_BOOT,
                version="1.2.3",
                open_spool=lambda settings, _: Outbox.open(
                    folder / "spool.sqlite",
                    agent_id=HOST,
                    kernel_boot_id=KERNEL_BOOT,
                    max_bytes=settings.spool.max_bytes,
                    now_ns=1,
                ),
                make_link=self._link,
                sensors=lambda _, __: build,
                witness=Witness(cgroups=find_mounts().unified),
                standing=None,
                overdue=lambda: None,
                loader_uid=os.geteuid(),
            ),
        )
        self.task: asyncio.Task[None] | None = None

    def _link(self, spooling: object, *_: object) -> LoopbackLink:
        self.links.append(LoopbackLink(spooling=spooling))  # type: ignore[arg-type]
        return self.links[-1]

    async def __aenter__(self) -> Drilled:
        self.task = asyncio.ensure_future(self.agent.run())
        status = self.folder / statusfile.NAME
        async with asyncio.timeout(10):
            while not status.exists():
                if self.task.done():
                    self.task.result()
                await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.task is not None
        self.agent.stop()
        await asyncio.wait_for(self.task, 10)
        assert remains.known(self.theatre) == []

    def rehearsal(self) -> Rehearsal:
        return Rehearsal(theatre=self.theatre, status=self.folder / statusfile.NAME, say=self.said.append)

    async def run(self, fault: str, *, seconds: int = 30, linger_s: float = LINGER_S) -> Verdict:
        """Run the drill of `fault` while the agent runs; what is left is closed after `linger_s`."""
        self.agent._judge.book.drills.linger_s = linger_s
        return await asyncio.to_thread(self.rehearsal().run, drill_of(fault), seconds)

    def reports(self) -> list[CaseReport]:
        """Return what the agent has told of cases, in order."""
        bodies = [decode(payload).body for link in self.links for payload in link.payloads]
        return [body for body in bodies if isinstance(body, CaseReport)]


@pytest.fixture
def theatre(tmp_path: Path) -> Iterator[Theatre]:
    """What this machine offers, with a folder of the test's own."""
    found = this_host(tmp_path / "drills", tmp_path / "mounts")
    yield found
    for name in remains.known(found):
        remains.clear(name, found)
