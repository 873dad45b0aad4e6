"""The agent as a whole, on doubles: started, reloaded, stopped, and killed at named points."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from agent.app import Agent, Ports
from agent.config import AgentSettings, read
from agent.detectors.registry import DETECTORS
from agent.host.witness import Witness
from agent.process import statusfile
from agent.process.descriptors import keep
from agent.recordings.recorder import FOLDER, REQUEST
from agent.testing import HOST, KERNEL_BOOT, death
from agent.testing_ports import FakeSupervisor, LoopbackLink, ScriptedSensor, builders
from escalation.model import CasePhase, CaseReport, FaultClass, Heartbeat
from escalation.outbox import Outbox
from escalation.wire.codec import decode
from probes import recording
from probes.host import clock
from probes.kernel.handover import Handover, Manifest
from probes.observation import BlindReason, FatalSignal, Gap, SensorName
from probes.sensor import SensorBlind

DEATHS, OOM = SensorName("kernel.fatal_signal"), SensorName("kernel.oom_kill")
MANIFEST = Manifest(kernel_boot_id=KERNEL_BOOT, loaded_boot_ns=1, sensors=())


class Running:
    """One agent that runs on doubles, with a real spool, real clock and real event loop."""

    def __init__(self, folder: Path, *, text: str = "") -> None:
        self.folder = folder
        self.config = folder / "agent.toml"
        self.write(text)
        self.sensor = ScriptedSensor(DEATHS)
        self.blind = ScriptedSensor(OOM, refuses=SensorBlind(BlindReason.NO_HEADERS, "none here"))
        self.supervisor = FakeSupervisor(watchdog_s=1)
        self.links: list[LoopbackLink] = []
        self.settings = read(self.config, sensors=(DEATHS, OOM))
        self.agent = Agent(
            config=self.config,
            settings=self.settings,
            agent_id=HOST,
            ports=Ports(
                clock=clock.now,
                supervisor=self.supervisor,
                kernel_boot_id=KERNEL_BOOT,
                version="1.2.3",
                open_spool=self._open,
                make_link=self._link,
                sensors=builders(self.sensor, self.blind),
                witness=Witness(cgroups=None),
                standing=None,
                overdue=lambda: None,
                loader_uid=os.geteuid(),
            ),
        )
        self.task: asyncio.Task[None] | None = None

    def write(self, text: str) -> None:
        self.config.write_text(
            f"[agent]\nstate_dir = '{self.folder}'\n[metrics]\nenabled = false\n"
            f"[sensors]\nsocket = '{self.folder}/handover.sock'\n[heartbeat]\ninterval_s = 1\n{text}"
        )

    def _open(self, settings: AgentSettings, agent_id: object) -> Outbox:
        assert agent_id == HOST
        return Outbox.open(
            self.folder / "spool.sqlite",
            agent_id=HOST,
            kernel_boot_id=KERNEL_BOOT,
            max_bytes=settings.spool.max_bytes,
            now_ns=1,
        )

    def _link(self, spooling: object, _settings: AgentSettings, _agent_id: object) -> LoopbackLink:
        self.links.append(LoopbackLink(spooling=spooling))  # type: ignore[arg-type]
        return self.links[-1]

    async def __aenter__(self) -> Running:
        self.task = asyncio.ensure_future(self.agent.run())
        await self.until(lambda: "READY=1" in self.supervisor.told)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.task is not None
        self.agent.stop()
        self.agent.stop()
        await asyncio.wait_for(self.task, 10)
        for _, descriptor in self.supervisor.store:
            os.close(descriptor)

    async def until(self, condition: object) -> None:
        async with asyncio.timeout(10):
            while not condition():  # type: ignore[operator]
                assert self.task is not None
                if self.task.done():
                    self.task.result()
                await asyncio.sleep(0.01)

    def bodies(self) -> list[object]:
        return [decode(payload).body for link in self.links for payload in link.payloads]


def phases(running: Running) -> list[CasePhase]:
    return [body.phase for body in running.bodies() if isinstance(body, CaseReport)]


async def test_death_reaches_the_other_side_and_the_end_is_clean(tmp_path: Path) -> None:
    """From sensor to acknowledgement on the real loop; then everything is told, closed and gone."""
    async with Running(tmp_path) as running:
        running.sensor.says.append(replace(death(0, 11), at=clock.now()))
        await running.until(lambda: any(isinstance(body, CaseReport) for body in running.bodies()))
        await running.until(lambda: "WATCHDOG=1" in running.supervisor.told)
        await running.until((tmp_path / statusfile.NAME).exists)
        status = statusfile.read(tmp_path / statusfile.NAME)
        assert status is not None
        assert [(sensor.name, sensor.reason) for sensor in status.sensors] == [
            (DEATHS, None),
            (OOM, "no_headers"),
        ]
        shown = running.agent.snapshot()
        assert shown.open_cases["process.killed_by_signal"] == 1
        assert shown.seeing == {DEATHS: True, OOM: False}
    assert "STOPPING=1" in running.supervisor.told
    assert running.sensor.closed == 1
    assert not (tmp_path / "handover.sock").exists()
    assert "Agent(spark-1" in repr(running.agent)


async def test_heartbeat_tells_what_is_seen(tmp_path: Path) -> None:
    """The coverage map has every sensor, with its reason."""
    async with Running(tmp_path) as running:
        await running.until(lambda: any(isinstance(body, Heartbeat) for body in running.bodies()))
    beat = next(body for body in running.bodies() if isinstance(body, Heartbeat))
    assert [(seen.sensor, seen.blind and seen.blind.value) for seen in beat.coverage] == [
        (DEATHS, None),
        (OOM, "no_headers"),
    ]
    assert (beat.agent_version, beat.interval_s) == ("1.2.3", 1)


async def test_what_a_sensor_leaves_out_is_in_the_status_file(tmp_path: Path) -> None:
    """The doctor reads it there; a sensor that says nothing of the kind sees all."""
    async with Running(tmp_path) as running:
        running.sensor.left_out = "/var/log/x is not there"  # type: ignore[attr-defined]
        await running.until(lambda: any(isinstance(body, Heartbeat) for body in running.bodies()))
        running.agent._loop.beat_soon()
        path = tmp_path / statusfile.NAME
        await running.until(lambda: b"is not there" in path.read_bytes())
        status = statusfile.read(path)
    assert status is not None
    assert status.sensors[0] == statusfile.SensorStatus(name=DEATHS, detail="/var/log/x is not there")


async def test_reload_takes_good_settings_and_keeps_the_old_on_bad_ones(tmp_path: Path) -> None:
    """A broken file changes nothing; a good one is in force without a restart, and open cases stay."""
    async with Running(tmp_path) as running:
        running.sensor.says.append(replace(death(0, 11), at=clock.now()))
        await running.until(lambda: running.agent.snapshot().open_cases["process.killed_by_signal"] == 1)
        running.write("[detectors.fatal_signal]\nquiet_s = -1\n")
        running.agent.reload()
        assert running.agent._settings == running.settings
        running.write("[detectors.fatal_signal]\nquiet_s = 0.1\n")
        os.kill(os.getpid(), signal.SIGHUP)
        await running.until(lambda: len(phases(running)) == 2)
    assert phases(running) == [CasePhase.OPENED, CasePhase.CLEARED]


async def test_reload_switches_a_sensor_off_and_the_uplink_over(tmp_path: Path) -> None:
    """Sensors and orchestrator follow the file; what needs a restart is left as it is."""
    async with Running(tmp_path) as running:
        running.write("[spool]\nmax_bytes = 99999\n[orchestrator]\naddress = 'other:9736'\n")
        text = running.config.read_text().replace("[sensors]\n", f"[sensors]\ndisabled = ['{DEATHS}']\n")
        running.config.write_text(text)
        running.agent.reload()
        await running.until(lambda: running.sensor.closed == 1)
        await running.until(lambda: len(running.links) == 2)
        await running.until(lambda: running.agent.snapshot().seeing[DEATHS] is False)


async def test_kept_descriptors_are_taken_up_at_the_start(tmp_path: Path) -> None:
    """A second life finds the handover in the store and goes on with it."""
    running = Running(tmp_path)
    read_end, write_end = os.pipe()
    keep(running.supervisor, Handover(MANIFEST, (read_end,)), before=0)
    async with running:
        assert running.agent._handover is not None
        assert running.agent._handover.manifest == MANIFEST
    running.agent._handover.close()
    os.close(read_end)
    os.close(write_end)


LIFE = """
import sys, asyncio
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {tests!r})
from agent.testing import origin
from test_app import Running, clock, death

async def main():
    async with Running(Path(sys.argv[1])) as running:
        for number in range(int(sys.argv[2]), int(sys.argv[3])):
            where = origin(container=None, unit=f"u{{number}}.service")
            running.sensor.says.append(replace(death(0, 11, where=where), at=clock.now()))
            done = lambda: running.agent.snapshot().open_cases["process.killed_by_signal"] >= number + 1
            await running.until(done)
            await running.until(lambda: len(running.agent._loop.backlog) == 0)

asyncio.run(main())
"""


@pytest.mark.parametrize("point", ["agent.before_commit:4", "agent.after_commit:4"])
def test_kill_at_a_named_point_loses_and_doubles_nothing(tmp_path: Path, point: str) -> None:
    """SIGKILL just before or after a commit: the next life has each committed case open, once."""

    def live(first: int, last: int, failpoint: str) -> int:
        code = LIFE.format(tests=str(Path(__file__).parent))
        environment = {**os.environ, "NANOBOT_FAILPOINT": failpoint}
        return subprocess.run(
            [sys.executable, "-c", code, str(tmp_path), str(first), str(last)],
            env=environment,
            check=False,
            capture_output=True,
            timeout=50,
        ).returncode

    assert live(0, 100, point) == -signal.SIGKILL
    spool = Outbox.open(
        tmp_path / "spool.sqlite", agent_id=HOST, kernel_boot_id=KERNEL_BOOT, max_bytes=1 << 24, now_ns=1
    )
    committed = len(spool.notes("case/"))
    spool.close()
    assert live(committed, committed + 3, "") == 0
    spool = Outbox.open(
        tmp_path / "spool.sqlite", agent_id=HOST, kernel_boot_id=KERNEL_BOOT, max_bytes=1 << 24, now_ns=1
    )
    assert len(spool.notes("case/")) == committed + 3
    spool.close()


def test_every_fault_has_a_detector() -> None:
    """No class of this release is left without somebody on a host who finds it."""
    found = {note.fault_class for kind in DETECTORS for note in kind.FAULTS}
    assert found == set(FaultClass) - {FaultClass.UNKNOWN}


async def test_records_what_its_sensors_say_when_it_is_asked(tmp_path: Path) -> None:
    """A request and a signal begin a recording; it holds the sight, what was seen since, and ends in time.

    The host's own sensors may say something in that time as well.
    """
    async with Running(tmp_path) as running:
        request = {"name": "asked-1", "seconds": 0.3, "bytes_max": 1 << 20}
        (tmp_path / REQUEST).write_text(json.dumps(request))
        os.kill(os.getpid(), signal.SIGUSR1)
        await running.until((tmp_path / FOLDER / "asked-1.part").exists)
        running.sensor.says.append(death(1, 11))
        await running.until((tmp_path / FOLDER / "asked-1.result").exists)
    told = list(recording.read((tmp_path / FOLDER / "asked-1.jsonl").read_text().splitlines()))
    assert type(told[0]) is Gap
    assert [type(seen) for seen in told if type(seen) is not Gap] == [FatalSignal]


async def test_a_recording_ends_with_the_agent(tmp_path: Path) -> None:
    """What was written until the stop is whole and says why it is not longer."""
    async with Running(tmp_path) as running:
        (tmp_path / REQUEST).write_text(json.dumps({"name": "a", "seconds": 600, "bytes_max": 1 << 20}))
        running.agent.record()
    assert json.loads((tmp_path / FOLDER / "a.result").read_text())["ended"] == "the agent was stopped"
