"""Drills on this machine: a real fault, a whole agent with its real sensors, and nothing left behind."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.command import main
from agent.drills import account, marking, remains
from agent.drills.registry import DRILLS, WITHOUT, drill_of
from agent.drills.rehearsal import LONGEST_S, Verdict
from agent.drills.stage import PYTHON, DrillError, Stage, Theatre
from escalation.model import CasePhase, FaultClass
from probes.host.cgroups import CgroupPaths, find_mounts
from probes.host.drills import MARK, DrillMark
from probes.host.identity import Identifier
from probes.host.listeners import HostListeners
from probes.sensor import Sensor
from tests.agent.drills.conftest import Drilled, an_id

root = pytest.mark.root
_AT_ONCE = "[detectors.off_mesh_listener]\nclear_hold_s = 0\n"
LISTENER = FaultClass.EXPOSURE_OFF_MESH_LISTENER


def _listeners() -> Sensor:
    cgroups = CgroupPaths(root=find_mounts().unified, monotonic=time.monotonic)
    sensor = HostListeners(identifier=Identifier(cgroups=cgroups))
    sensor.period_s = 1.0
    return sensor


@root
async def test_a_listener_of_a_drill_is_told_of_marked_and_cleared(tmp_path: Path) -> None:
    """Opened as a drill, closed by its detector's own evidence; a real one beside it stays real."""
    with socket.create_server(("0.0.0.0", 0)) as beside:
        async with Drilled(tmp_path, {"host.listeners": _listeners}, text=_AT_ONCE) as drilled:
            verdict = await drilled.run(LISTENER.value)
            reports = drilled.reports()
        (real,) = (r for r in reports if r.subject.name == f"0.0.0.0:{beside.getsockname()[1]}")
    assert (real.fault_class, real.drill) == (LISTENER, False)
    assert verdict.raised_s is not None
    assert verdict.subject.startswith("listener 0.0.0.0:")
    assert verdict.by_itself
    own = [report for report in reports if report.drill]
    assert [report.phase for report in own] == [CasePhase.OPENED, CasePhase.CLEARED]
    assert {report.fault_class for report in own} == {LISTENER}
    told = account.told(verdict, 30)
    assert "Alarm raised after" in told
    assert "It cleared by itself" in told


@root
async def test_an_alarm_that_does_not_come_is_told(tmp_path: Path) -> None:
    """Where the detector is switched off the drill says that nothing was raised, and cleans up."""
    text = "[detectors.off_mesh_listener]\nenabled = false\n"
    async with Drilled(tmp_path, {"host.listeners": _listeners}, text=text) as drilled:
        verdict = await drilled.run(LISTENER.value, seconds=1)
        assert verdict == Verdict(fault_class=LISTENER, raised_s=None)
        assert drilled.reports() == []
    assert account.told(verdict, 1) == f"NOT raised: no {LISTENER.value} within 1 s."


@root
async def test_an_alarm_of_a_fault_that_cannot_be_made_is_not_waited_for(tmp_path: Path) -> None:
    """It ends with what is lacking, long before its time is up, and leaves nothing."""
    unlimited = dataclasses.replace(
        drill_of(FaultClass.MEMORY_CGROUP_OOM_KILL.value),
        sensors=(),
        make=lambda stage, _: stage.play("eat", str(64 << 20)),
    )
    async with Drilled(tmp_path, {}) as drilled:
        with pytest.raises(DrillError, match=r"memory controller.*says nothing about the alarm"):
            await asyncio.wait_for(asyncio.to_thread(drilled.rehearsal().run, unlimited, LONGEST_S), 30)
        assert [entry.name for entry in drilled.theatre.folder.iterdir()] == ["lock"]


@root
async def test_a_drill_needs_sensors_that_see(tmp_path: Path) -> None:
    """Without them the alarm could not come: nothing is made."""
    async with Drilled(tmp_path, {}) as drilled:
        with pytest.raises(DrillError, match=r"no sensor host\.listeners"):
            await drilled.run(LISTENER.value)
        assert drilled.said == []


@root
async def test_one_drill_at_a_time(tmp_path: Path) -> None:
    """A second one waits for a person."""
    async with Drilled(tmp_path, {"host.listeners": _listeners}) as drilled:
        marking.make_folder(drilled.theatre.folder)
        lock = marking.take_lock(drilled.theatre.folder)
        try:
            with pytest.raises(DrillError, match="another drill is on"):
                await drilled.run(LISTENER.value)
        finally:
            os.close(lock)


def test_without_an_agent_there_is_no_drill(theatre: Theatre, tmp_path: Path) -> None:
    """Nobody would see it."""
    code = account.drilled(LISTENER.value, 5, folder=tmp_path)
    assert code == 1
    assert remains.known(theatre) == []


class _Broken:
    """A drill's command in a process of its own, with a fault on, to be killed."""

    def __init__(self, theatre: Theatre) -> None:
        self.id = an_id()
        script = (
            "import sys, time\n"
            "from pathlib import Path\n"
            "from agent.drills import marking\n"
            "from agent.drills.registry import drill_of\n"
            "from agent.drills.rehearsal import Rehearsal\n"
            "from agent.drills.stage import Stage, this_host\n"
            "theatre = this_host(Path(sys.argv[1]), Path(sys.argv[2]))\n"
            "marking.make_folder(theatre.folder)\n"
            "lock = marking.take_lock(theatre.folder)\n"
            "drill = drill_of('exposure.off_mesh_listener')\n"
            "stage = Stage(id=sys.argv[3], seconds=60, theatre=theatre)\n"
            "with Rehearsal(theatre=theatre, status=Path('/nowhere'))._kept(stage, lock):\n"
            "    own = drill.prepare(stage)\n"
            "    drill.make(stage, own)\n"
            "    print(own.ports[0], flush=True)\n"
            "    time.sleep(60)\n"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, theatre.folder, theatre.mounts, self.id],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.theatre = theatre
        assert _until(lambda: _is_listening(self.port))

    def until_gone(self) -> bool:
        places = [tree / self.id for tree in (*self.theatre.trees(), self.theatre.folder)]
        return _until(lambda: not any(place.exists() for place in places) and not _is_listening(self.port))


def _until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def _is_listening(port: int) -> bool:
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(row.split()[1] == f"00000000:{port:04X}" and row.split()[3] == "0A" for row in rows)


@root
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_drill_that_is_killed_leaves_nothing(theatre: Theatre, number: int) -> None:
    """Whichever way its command ends: its keeper takes everything away."""
    broken = _Broken(theatre)
    broken.process.send_signal(number)
    broken.process.communicate()
    assert broken.until_gone()


@root
def test_a_drill_ends_at_its_deadline(theatre: Theatre) -> None:
    """Its command still lives and says nothing: the keeper takes everything away all the same."""
    stage = Stage(id=an_id(), seconds=60, theatre=theatre)
    marking.make_folder(theatre.folder)
    stage.scratch.mkdir()
    port = drill_of(LISTENER.value).prepare(stage).ports[0]
    stage.play("listen", str(port))
    assert _until(lambda: _is_listening(port))
    mark = DrillMark(id=stage.id, fault_class=LISTENER.value, deadline_boot_ns=1)
    marking.write(theatre.folder, mark)
    keeper = [*PYTHON, "agent.drills.keeper", stage.id, "0.1", str(theatre.folder), str(theatre.mounts)]
    with subprocess.Popen(keeper, stdin=subprocess.PIPE) as process:
        assert process.wait(20) == 0
    stage.reap()
    assert not _is_listening(port)
    assert [entry.name for entry in theatre.folder.iterdir()] == []


@root
async def test_what_a_killed_keeper_left_the_next_drill_takes_away(tmp_path: Path) -> None:
    """A control group with a process, a folder and a mark: all of it, before the new drill begins."""
    async with Drilled(tmp_path, {"host.listeners": _listeners}, text=_AT_ONCE) as drilled:
        old = Stage(id=an_id(), seconds=60, theatre=drilled.theatre)
        marking.make_folder(drilled.theatre.folder)
        old.scratch.mkdir()
        port = drill_of(LISTENER.value).prepare(old).ports[0]
        old.play("listen", str(port))
        assert _until(lambda: _is_listening(port))
        mark = DrillMark(id=old.id, fault_class=LISTENER.value, deadline_boot_ns=1, cgroups=old.cgroups())
        marking.write(drilled.theatre.folder, mark)
        verdict = await drilled.run(LISTENER.value)
        assert verdict.raised_s is not None
        assert drilled.said[0] == f"Taking away what {old.id} left behind."
        old.reap()
        assert not _is_listening(port)


@root
def test_nothing_is_cleared_that_is_no_drill(theatre: Theatre, tmp_path: Path) -> None:
    """By no name but an id, and never outside of the folder."""
    assert remains.clear("../../etc", theatre) == ["'../../etc' is no drill"]
    theatre.folder.mkdir()
    keep = theatre.folder / "lock"
    keep.touch()
    assert remains.clear("nanobot-drill-00000000", theatre) == []
    assert keep.exists()


@root
def test_what_a_boot_has_left_is_taken_away(theatre: Theatre) -> None:
    """The folder of marks is gone then, and the place of the disk is not."""
    name = "nanobot-drill-0123abcd"
    (theatre.mounts / name).mkdir(parents=True)
    assert remains.known(theatre) == [name]
    assert remains.clear(name, theatre) == []
    assert not theatre.mounts.exists()


def test_nobody_can_connect_to_a_drills_listener(theatre: Theatre) -> None:
    """It shows in the socket table, and no packet to it is answered."""
    drill = drill_of(LISTENER.value)
    stage = Stage(id=an_id(), seconds=30, theatre=theatre)
    theatre.folder.mkdir()
    own = drill.prepare(stage)
    drill.make(stage, own)
    try:
        assert _until(lambda: _is_listening(own.ports[0]))
        asked = subprocess.run(
            [
                sys.executable,
                "-c",
                f"import socket; socket.create_connection(('127.0.0.1', {own.ports[0]}), 0.3)",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "TimeoutError" in asked.stderr
    finally:
        remains.clear(stage.id, theatre)
        stage.reap()


def test_the_folder_of_marks_is_ours_alone(tmp_path: Path) -> None:
    """Where others could write, no mark is put."""
    tmp_path.chmod(0o777)
    with pytest.raises(DrillError, match="somebody else"):
        marking.make_folder(tmp_path)
    tmp_path.chmod(0o755)
    marking.make_folder(tmp_path)
    mark = DrillMark(id="nanobot-drill-00000001", fault_class="a", deadline_boot_ns=1)
    marking.write(tmp_path, mark)
    assert (tmp_path / MARK.name).stat().st_mode & 0o777 == 0o644
    marking.remove(tmp_path)
    marking.remove(tmp_path)
    assert not (tmp_path / MARK.name).exists()


def test_every_class_has_a_drill_or_a_reason() -> None:
    """None is forgotten, and none has both; each is named in the list."""
    drills = [drill.fault_class for drill in DRILLS]
    assert drills == sorted(drills)
    assert sorted([*drills, *WITHOUT]) == sorted(set(FaultClass) - {FaultClass.UNKNOWN})
    listing = account.listing()
    assert all(f"  {fault.value} " in listing for fault in (*drills, *WITHOUT))


@pytest.mark.parametrize(
    ("fault", "words"),
    [("gpu.device_fault", "has no drill: a GPU"), ("nothing.at_all", "no fault class nothing.at_all")],
)
def test_a_class_without_a_drill_says_why(
    fault: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rather than to make something that proves nothing."""
    assert account.drilled(fault, 5, folder=tmp_path) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("seconds", [0, 301])
def test_a_drill_has_a_bounded_time(seconds: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither none nor hours."""
    assert account.drilled(LISTENER.value, seconds, folder=tmp_path) == 1
    assert "between 1 and 300" in capsys.readouterr().err


def test_the_words_for_a_drill_that_was_closed_as_one() -> None:
    """Said plainly: the detector itself would have waited for longer."""
    verdict = Verdict(
        fault_class=FaultClass.MEMORY_CGROUP_OOM_KILL,
        raised_s=0.4,
        subject="unit x.service",
        others=("process.killed_by_signal on unit x.service",),
        cleared_s=60.2,
    )
    assert account.told(verdict, 60).splitlines() == [
        "Alarm raised after 0.4 s: memory.cgroup_oom_kill on unit x.service.",
        "Also raised, as a drill: process.killed_by_signal on unit x.service.",
        "It was closed as a drill 60 s after the fault was removed.",
    ]


def test_the_words_of_the_agent_are_told_inert() -> None:
    """The names come from a file that the agent writes, to the terminal of root."""
    verdict = Verdict(
        fault_class=LISTENER, raised_s=1.0, subject="port \x1b[2J", others=("x on \x1b]0;y\x07",)
    )
    assert account.told(verdict, 60).replace("\n", "").isprintable()


def test_the_command_lists_drills(capsys: pytest.CaptureFixture[str]) -> None:
    """With what each does; without a class and without --list that is a wrong usage."""
    assert main(["drill", "--list"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Drills:")
    assert main(["drill"]) == 2
    assert capsys.readouterr().out == shown


def test_the_command_makes_no_drill_without_an_agent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It reads where the agent is from the agent's own configuration."""
    config = tmp_path / "agent.toml"
    config.write_text(f"[sensors]\nsocket = '{tmp_path}/handover.sock'\n")
    assert main(["drill", LISTENER.value, "--config", str(config)]) == 1
    said = capsys.readouterr().err
    assert "the agent does not run" in said or "only root" in said
    assert not (tmp_path / "mark.json").exists()


def test_a_running_agent_has_no_part_of_a_drill() -> None:
    """The command imports them when it is asked for one, and not before."""
    code = "import sys, agent.command; print([n for n in sys.modules if n.startswith('agent.drills')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
