"""The work loop on doubles, with the real spool: from an observation to a committed report."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from agent.cases import CaseBook
from agent.detectors.registry import DETECTORS
from agent.host.host_changes import HostChanges
from agent.host.witness import Witness
from agent.judge import Judge, hysteresis_of
from agent.loop import WorkLoop
from agent.pipeline import Pipeline
from agent.sensing import Sensing
from agent.testing import (
    HOST,
    KERNEL_BOOT,
    SURROUNDINGS,
    at,
    case_report,
    death,
    exchange,
    oom_kill,
    origin,
    reloaded,
    seeing,
)
from agent.testing_ports import FakeSupervisor, FlakySpool, ManualClock, ScriptedSensor, builders
from agent.uplink.backlog import CAPACITY
from agent.uplink.spooling import Spool, Spooling
from agent.uplink.writing import PATIENCE_S
from escalation.model import (
    CasePhase,
    CaseReport,
    FaultClass,
    Heartbeat,
    HostChange,
    HostChangeKind,
    Loss,
    LossKind,
    Report,
    Subject,
    SubjectKind,
)
from escalation.outbox import Outbox
from escalation.wire.codec import decode
from probes.observation import SensorName, ServerKind
from probes.settings import SensorSettings

DEATHS = SensorName("kernel.fatal_signal")


class Host:
    """A work loop with everything around it, on one spool file."""

    def __init__(
        self,
        folder: Path,
        *,
        capacity: int = 1000,
        max_bytes: int = 1 << 20,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.clock = ManualClock()
        self.sensor = ScriptedSensor(DEATHS)
        self.supervisor = FakeSupervisor(watchdog_s=30)
        self.pipeline = Pipeline(capacity=capacity)
        self.path = folder / "spool.sqlite"
        self.max_bytes = max_bytes
        self.disk = FlakySpool(open_spool=self._open)
        self.spooling = Spooling(open_spool=self.disk.opened)
        self.sensing = Sensing(pipeline=self.pipeline, clock=self.clock, woken=lambda: None)
        detectors = [kind.build(kind.SETTINGS(), SURROUNDINGS) for kind in DETECTORS]
        self.book = CaseBook(agent_id=HOST, kernel_boot_id=KERNEL_BOOT, hysteresis=hysteresis_of(detectors))
        self.judge = Judge(detectors=detectors, book=self.book, failed=lambda *_: None)
        self.loop = WorkLoop(
            sensing=self.sensing,
            pipeline=self.pipeline,
            judge=self.judge,
            spooling=self.spooling,
            witness=Witness(cgroups=None),
            supervisor=self.supervisor,
            clock=self.clock,
            woken=asyncio.Event(),
            heartbeat=lambda: Heartbeat(
                kernel_boot_id=KERNEL_BOOT,
                agent_version="1",
                started_ns=1,
                coverage=(),
                open_cases=0,
                spool_reports=0,
                spool_bytes=0,
                interval_s=30,
            ),
            committed=lambda: None,
            lived=lambda: self.said.append(self.loop.writing.held_up_s(self.clock())),
            changes=HostChanges(host=HOST),
            patience_s=patience_s,
        )
        self.said: list[float] = []

    def _open(self) -> Spool:
        return Outbox.open(
            self.path, agent_id=HOST, kernel_boot_id=KERNEL_BOOT, max_bytes=self.max_bytes, now_ns=1
        )

    async def __aenter__(self) -> Host:
        await self.spooling.__aenter__()
        await self.sensing.assemble(builders(self.sensor)(None, SensorSettings()), disabled=frozenset())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.sensing.__aexit__()
        await self.spooling.__aexit__()

    async def live(self, seconds: float, *, step_s: float = 0.25) -> None:
        """Let the loop do what is due, step by step."""
        for _ in range(round(seconds / step_s)):
            self.clock.forward(step_s)
            await self.loop.step()

    async def answered(self) -> None:
        """Let the loop live until nothing is left that it has to write."""
        await self.live(0.5)
        while self.loop.writing.is_under_way:
            await self.loop.writing.wait()
            await self.live(0.5)

    async def reports(self) -> list[Report]:
        """Return what the spool holds."""
        stored = await self.spooling.pending(after_row=0, limit=100_000, max_bytes=1 << 30)
        return [decode(one.payload) for one in stored]

    async def bodies(self) -> Sequence[object]:
        return [report.body for report in await self.reports() if not isinstance(report.body, Heartbeat)]

    def name(self, number: int) -> None:
        where = origin(container=None, unit=f"u{number}.service")
        self.sensor.says.append(death(self.clock.now.boot_ns / 1e9 - 1, 11, where=where))


async def test_observation_becomes_a_committed_report(tmp_path: Path) -> None:
    """A death is read, judged and on disk after the next step; the watchdog was fed."""
    async with Host(tmp_path) as host:
        await host.live(1)
        host.sensor.says.append(death(2, 11))
        await host.live(0.25)
        (body,) = await host.bodies()
        assert isinstance(body, CaseReport)
        assert (body.phase, body.fault_class) == (CasePhase.OPENED, FaultClass.PROCESS_KILLED_BY_SIGNAL)
        assert "WATCHDOG=1" in host.supervisor.told


async def test_a_change_of_the_host_goes_with_the_next_heartbeat(tmp_path: Path) -> None:
    """A reload is on disk with the first heartbeat that the disk takes, once, and is no case."""
    async with Host(tmp_path) as host:
        await host.live(1)
        host.sensor.says.append(reloaded(2))
        await host.live(2)
        assert await host.bodies() == []
        host.disk.broken = True
        await host.live(40)
        assert await host.bodies() == []
        host.disk.broken = False
        await host.live(40)
        assert await host.bodies() == [
            HostChange(HostChangeKind.MANAGER_RELOADED, Subject(SubjectKind.HOST, HOST), at(2).unix_ns)
        ]


async def test_open_case_is_known_after_a_crash(tmp_path: Path) -> None:
    """A second life takes the case up: no second opening, and its clearing carries the same id."""
    async with Host(tmp_path) as first:
        await first.live(1)
        first.sensor.says.append(death(2, 11))
        await first.live(0.25)
        (opened,) = await first.bodies()
    async with Host(tmp_path) as second:
        second.clock.forward(100)
        await second.live(1)
        second.sensor.says.append(death(102, 11))
        await second.live(700, step_s=5)
        last = (await second.bodies())[-1]
        assert isinstance(last, CaseReport)
        assert isinstance(opened, CaseReport)
        assert (last.phase, last.case_id) == (CasePhase.CLEARED, opened.case_id)
        assert [one.phase for one in await second.bodies() if isinstance(one, CaseReport)].count(
            CasePhase.OPENED
        ) == 1


async def test_what_was_learnt_is_known_after_a_crash(tmp_path: Path) -> None:
    """It is kept each hour; a second life takes it up and leaves out what cannot be read."""
    async with Host(tmp_path) as first:
        await first.live(1)
        for minute in range(62):
            first.sensor.says += [exchange(1 + 60 * minute + n, streamed=True) for n in range(20)]
            await first.live(60, step_s=20)
        learnt = await first.spooling.notes("learnt/")
        assert (
            len(learnt) == 5
        )  # three rows of the routes, one of their port, one of what a GPU does for them
        row = next(key for key in sorted(learnt) if key.startswith("learnt/route_baseline/"))
        damaged = {row: b"\xff", "learnt/nobody/x": b"", "learnt/route_baseline/x": b""}
        await first.spooling.append((), now_ns=1, notes=damaged)
    async with Host(tmp_path) as second:
        await second.live(1)
        assert len(second.judge.memory()) == 4
        await second.live(3601, step_s=100)
        assert set(await second.spooling.notes("learnt/")) == set(learnt) - {row}


async def test_what_was_learnt_is_kept_at_the_end(tmp_path: Path) -> None:
    """An agent that ends in order forgets nothing, however short it lived."""
    async with Host(tmp_path) as host:
        await host.live(1)
        host.sensor.says += [exchange(2 + n, streamed=True) for n in range(20)]
        await host.live(70, step_s=10)
        assert await host.spooling.notes("learnt/") == {}
        stop = asyncio.Event()
        stop.set()
        await host.loop.run(stop)
        assert len(await host.spooling.notes("learnt/")) == 5


async def test_memory_never_keeps_a_report_from_the_disk(tmp_path: Path) -> None:
    """While the disk takes nothing, only what is judged waits; what was learnt is written another time."""
    async with Host(tmp_path) as host:
        await host.live(1)
        host.sensor.says += [exchange(2 + n, streamed=True) for n in range(20)]
        await host.live(70, step_s=10)
        host.disk.broken = True
        await host.live(3700, step_s=100)
        assert not host.loop.backlog
        host.disk.broken = False
        await host.live(3700, step_s=100)
        assert len(await host.spooling.notes("learnt/")) == 5


async def test_settles_only_what_is_on_disk(tmp_path: Path) -> None:
    """Sensors hear that all is settled after the commit, and not while anything waits for the disk."""
    async with Host(tmp_path) as host:
        await host.live(1)
        settled = host.sensor.settled
        assert settled > 0
        host.disk.broken = True
        host.name(1)
        await host.live(2)
        assert host.sensor.settled == settled
        host.disk.broken = False
        await host.live(2)
        assert host.sensor.settled > settled
        settled, host.disk.broken = host.sensor.settled, True
        host.name(2)
        await host.live(2)
    assert (host.sensor.settled, host.sensor.closed) == (settled, 1), "ending in order settles nothing either"


async def test_full_disk_loses_nothing_that_fits_in_memory(tmp_path: Path) -> None:
    """While the disk takes nothing, judging goes on; when it does again, everything arrives in order."""
    async with Host(tmp_path) as host:
        await host.live(1)
        host.disk.broken = True
        for number in range(17):
            host.name(number)
            await host.live(0.25)
        assert len(host.loop.backlog) == 17
        assert host.spooling.failures > 0
        assert host.spooling.error == "the disk is full, says the test"
        host.disk.broken = False
        await host.live(2)
        assert host.spooling.error is None
        assert len(host.loop.backlog) == 0
        names = [body.subject.name for body in await host.bodies() if isinstance(body, CaseReport)]
        assert names == [f"u{number}.service" for number in range(17)]


async def test_what_is_on_disk_is_not_written_again(tmp_path: Path) -> None:
    """Where the spool cannot tell its depth after a commit, the commit still counts, and so does the next."""
    async with Host(tmp_path) as host:
        await host.live(1)
        host.disk.unmeasured = True
        host.name(1)
        await host.live(5)
        assert len(await host.bodies()) == 1
        assert not host.loop.backlog


async def test_what_did_not_fit_in_memory_is_told(tmp_path: Path) -> None:
    """A disk that is gone for long costs the oldest reports, and their exact number is reported."""
    async with Host(tmp_path) as host:
        await host.live(1)
        host.disk.broken = True
        excess = 13
        for number in range(CAPACITY + excess):
            host.loop.backlog.add([case_report(str(number), CasePhase.OPENED)], {})
        await host.live(2)
        host.disk.broken = False
        await host.live(2)
        bodies = await host.bodies()
        assert Loss(LossKind.SPOOL_UNWRITABLE, "", excess, exact=True) in bodies
        assert sum(isinstance(body, CaseReport) for body in bodies) == CAPACITY


async def test_a_disk_that_hangs_holds_up_nobody(tmp_path: Path) -> None:
    """Judging goes on, the watchdog is fed, the host is told; when it answers, all arrives once, in order."""
    async with Host(tmp_path, patience_s=0.01) as host:
        await host.live(1)
        await host.answered()
        with host.disk.hanging():
            fed = host.supervisor.told.count("WATCHDOG=1")
            for number in range(17):
                host.name(number)
                await host.live(1)
            await host.live(600, step_s=1)
            assert host.loop.writing.is_held_up
            assert host.supervisor.told.count("WATCHDOG=1") >= fed + 600 // 8
            assert host.said[-1] > 550
            settled = host.sensor.settled
            host.name(17)
            await host.live(5)
            assert host.sensor.settled == settled, "what is not on disk is not settled"
        await host.answered()
        assert not host.loop.writing.is_held_up
        assert not host.loop.backlog
        cases = [body for body in await host.bodies() if isinstance(body, CaseReport)]
        deaths = [one for one in cases if one.fault_class is FaultClass.PROCESS_KILLED_BY_SIGNAL]
        opened = [one.subject.name for one in deaths if one.phase is CasePhase.OPENED]
        assert opened == [f"u{number}.service" for number in range(18)]
        (blind,) = [one for one in cases if one.fault_class is FaultClass.MONITOR_BLIND]
        assert (blind.phase, blind.subject.name) == (CasePhase.OPENED, "agent.spool")
        await host.live(20)
        await host.answered()
        (*_, cleared) = [one for one in await host.bodies() if isinstance(one, CaseReport)]
        assert (cleared.phase, cleared.case_id) == (CasePhase.CLEARED, blind.case_id)


async def test_a_disk_that_hangs_at_the_start_holds_up_judgement_only(tmp_path: Path) -> None:
    """The watchdog is fed and the host is told; what happened meanwhile is judged afterwards."""
    async with Host(tmp_path, patience_s=0.01) as host:
        host.sensor.says.append(death(1, 11))
        with host.disk.hanging():
            await host.live(100, step_s=1)
            assert host.loop.writing.is_held_up
            assert host.supervisor.told.count("WATCHDOG=1") >= 100 // 8
            assert len(host.said) >= 3
        await host.answered()
        bodies = [body for body in await host.bodies() if isinstance(body, CaseReport)]
        assert [body.fault_class for body in bodies] == [FaultClass.PROCESS_KILLED_BY_SIGNAL]


async def test_what_waits_for_a_disk_that_hangs_is_bounded_and_counted(tmp_path: Path) -> None:
    """Beyond the bound the oldest go; every one of them is in the account, and no other."""
    async with Host(tmp_path, patience_s=0.01) as host:
        await host.live(1)
        await host.answered()
        excess, first = 13, 5
        with host.disk.hanging():
            for number in range(first):
                host.loop.backlog.add([case_report(f"first{number}", CasePhase.OPENED)], {})
            await host.live(1)
            for number in range(CAPACITY + excess):
                host.loop.backlog.add([case_report(str(number), CasePhase.OPENED)], {})
        await host.answered()
        bodies = await host.bodies()
        assert sum(isinstance(body, CaseReport) for body in bodies) == CAPACITY + first
        assert Loss(LossKind.SPOOL_UNWRITABLE, "", excess, exact=True) in bodies


async def test_an_agent_that_ends_writes_what_waited_for_a_disk_that_answers_again(tmp_path: Path) -> None:
    """The write that hung is waited for, and what was judged since then is written after it."""
    async with Host(tmp_path, patience_s=0.01) as host:
        await host.live(1)
        await host.answered()
        with host.disk.hanging():
            host.name(1)
            await host.live(1)
            host.name(2)
            await host.live(1)
        host.loop.writing._patience_s = 60
        stop = asyncio.Event()
        stop.set()
        await host.loop.run(stop)
        assert len([body for body in await host.bodies() if isinstance(body, CaseReport)]) == 2


async def test_a_case_about_the_spool_ends_with_the_next_life(tmp_path: Path) -> None:
    """An agent that was ended while the disk hung leaves an open case; its successor sees the disk answer."""
    async with Host(tmp_path, patience_s=0.01) as first:
        await first.live(1)
        await first.answered()
        with first.disk.hanging():
            await first.live(100, step_s=1)
        await first.answered()
        assert len(await first.spooling.notes("case/")) == 1
    async with Host(tmp_path) as second:
        second.clock.forward(200)
        await second.live(30)
        last = (await second.bodies())[-1]
        assert isinstance(last, CaseReport)
        assert (last.phase, last.fault_class) == (CasePhase.CLEARED, FaultClass.MONITOR_BLIND)


async def test_spool_that_cannot_be_opened_yet_delays_judgement_only(tmp_path: Path) -> None:
    """What happens before the spool opens is judged afterwards, and the watchdog is fed meanwhile."""
    async with Host(tmp_path) as host:
        host.disk.broken = True
        host.sensor.says.append(death(1, 11))
        await host.live(5)
        assert host.supervisor.told.count("WATCHDOG=1") == 1
        assert (host.spooling.error, len(host.said)) == ("the disk is full, says the test", 1)
        host.disk.broken = False
        await host.live(2)
        assert len(await host.bodies()) == 1


async def test_losses_of_sensors_and_pipeline_are_reported(tmp_path: Path) -> None:
    """Samples a ring lost and observations the pipeline dropped come out as Loss, by sensor, exactly."""
    async with Host(tmp_path, capacity=100) as host:
        await host.live(1)
        unimportant = origin(container=None, cgroup_path="/", name="x", server=ServerKind.OTHER)
        host.sensor.says += [death(2, 11, where=unimportant) for _ in range(107)]
        host.sensor.says.append(seeing(2, DEATHS, lost=11))
        await host.live(2)
        losses = {body for body in await host.bodies() if isinstance(body, Loss)}
        assert losses == {
            Loss(LossKind.PIPELINE_FULL, DEATHS, 7, exact=True),
            Loss(LossKind.RING_FULL, DEATHS, 11, exact=True),
        }


async def test_damaged_spool_keeps_the_open_cases(tmp_path: Path) -> None:
    """When the spool is begun anew, the notes of what stands open are written into it."""
    async with Host(tmp_path) as host:
        await host.live(1)
        host.sensor.says.append(death(2, 11))
        await host.live(1)
        host.disk.forget()
        await host.live(40)
        assert len(await host.spooling.notes("case/")) == 1


async def test_only_the_newest_heartbeat_waits(tmp_path: Path) -> None:
    """An orchestrator that is away for an hour finds one heartbeat, not a hundred."""
    async with Host(tmp_path) as host:
        await host.live(3600, step_s=10)
        assert sum(isinstance(report.body, Heartbeat) for report in await host.reports()) == 1


async def test_wall_clock_that_jumps_a_day_clears_and_opens_nothing(tmp_path: Path) -> None:
    """Only boot time decides."""
    async with Host(tmp_path) as host:
        await host.live(1)
        host.sensor.says.append(oom_kill(2))
        await host.live(1)
        host.clock.jump_wall(3 * 86400)
        await host.live(60, step_s=1)
        host.clock.jump_wall(-6 * 86400)
        await host.live(60, step_s=1)
        assert len(await host.bodies()) == 1


async def test_defect_of_one_detector_leaves_the_others_alone(tmp_path: Path) -> None:
    """An exception in judgement is counted under its detector, and the rest is judged."""

    class Broken:
        NAME = "broken"
        FAULTS = ()
        SETTINGS = DETECTORS[0].SETTINGS
        hysteresis: Mapping[FaultClass, object] = MappingProxyType({})

        def observe(self, _: object) -> Sequence[object]:
            raise ZeroDivisionError

        def tick(self, _: object) -> Sequence[object]:
            raise ZeroDivisionError

    async with Host(tmp_path) as host:
        host.judge._detectors = (Broken(), *host.judge._detectors)  # type: ignore[assignment]
        host.sensor.says.append(death(2, 11))
        await host.live(2)
        assert host.judge.errors["broken"] > 2
        assert len(await host.bodies()) == 1


def test_defaults_build_every_detector() -> None:
    """Each detector can be made from its own defaults, and their names are sorted and distinct."""
    names = [kind.NAME for kind in DETECTORS]
    assert names == sorted(set(names))
    faults = [note.fault_class for kind in DETECTORS for note in kind.FAULTS]
    assert len(faults) == len(set(faults))
