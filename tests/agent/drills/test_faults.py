"""The faults that drills make, seen by the real sensors on this machine's own kernel, and gone afterwards."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from agent.drills import remains
from agent.drills.registry import drill_of
from agent.drills.stage import Stage, Theatre
from agent.testing import HOST
from escalation.model import (
    Action,
    ActionKind,
    BootId,
    CasePhase,
    CaseReport,
    FaultClass,
    ReasonCode,
    Report,
    Severity,
)
from escalation.server.incident import incidents
from escalation.server.playbook.registry import advise
from probes import registry
from probes.registry import SENSORS
from probes.sensor import Sensor
from tests.agent.drills.conftest import Drilled, an_id
from tests.kernel.conftest import LoadRun, loaded  # noqa: F401 -- the programs of the session

pytestmark = [pytest.mark.root]


def _real(name: str, run: LoadRun | None = None) -> Callable[[], Sensor]:
    spec = next(spec for spec in SENSORS if spec.name == name)
    return partial(spec.build, registry.surroundings(run.handover if run else None))


@pytest.mark.ebpf
async def test_what_the_kernel_tells_is_told_of_as_a_drill(
    tmp_path: Path,
    loaded: LoadRun,  # noqa: F811
) -> None:
    """By the kernel's own events; their detectors would wait for hours, the end of the drill closes them."""
    watching = ("kernel.device_open", "kernel.descriptors", "kernel.fatal_signal", "kernel.oom_kill")
    async with Drilled(tmp_path, {name: _real(name, loaded) for name in watching}) as drilled:
        for fault in (
            FaultClass.GPU_ACCESS_REVOKED,
            FaultClass.MEMORY_CGROUP_OOM_KILL,
            FaultClass.PROCESS_FD_EXHAUSTED,
            FaultClass.PROCESS_KILLED_BY_SIGNAL,
        ):
            verdict = await drilled.run(fault.value, seconds=20, linger_s=0.5)
            assert verdict.raised_s is not None
            assert verdict.cleared_s is not None
            died = fault is FaultClass.PROCESS_KILLED_BY_SIGNAL
            assert verdict.subject.startswith("process VLLM" if died else "cgroup /nanobot-drill-")
            assert verdict.by_itself is (fault is FaultClass.PROCESS_FD_EXHAUSTED)
            opened, cleared = (
                report for report in drilled.reports() if report.drill and report.fault_class is fault
            )
            assert (opened.phase, cleared.phase) == (CasePhase.OPENED, CasePhase.CLEARED)
            assert opened.severity in {Severity.CRITICAL, Severity.HIGH, Severity.MEDIUM}
            because = ReasonCode.PROCESS_GONE if verdict.by_itself else ReasonCode.DRILL_ENDED
            assert [reason.code for reason in cleared.reasons] == [because]


async def test_a_server_that_does_not_answer_is_told_of_as_a_drill(tmp_path: Path) -> None:
    """Its connections wait, it is stopped; it is gone afterwards, which the sensor tells by itself."""
    text = "[detectors.not_answering]\nstopped_s = 1\n"
    async with Drilled(tmp_path, {"host.processes": _quick("host.processes")}, text=text) as drilled:
        verdict = await drilled.run(FaultClass.PROCESS_NOT_ANSWERING.value, seconds=30)
        assert verdict.raised_s is not None
        assert verdict.by_itself
        opened = next(report for report in drilled.reports() if report.drill)
        assert opened.severity is Severity.HIGH
        assert {ReasonCode.BACKLOG_NOT_TAKEN, ReasonCode.PROCESS_STOPPED} == {
            reason.code for reason in opened.reasons
        }
        action = _advised(opened)
        assert action.kind is ActionKind.RESUME_PROCESS
        assert action.command == ("kill", "-CONT", str(opened.incarnation.pid))


def _has_loop_devices() -> bool:
    return Path("/dev/loop-control").exists() and shutil.which("mkfs.ext4") is not None


@pytest.mark.skipif(not _has_loop_devices(), reason="needs loop devices and mkfs.ext4")
async def test_a_full_filesystem_is_told_of_as_a_drill(tmp_path: Path) -> None:
    """The mount is named, its space is gone, and afterwards neither mount nor loop device is left."""
    text = "[detectors.storage_full]\nlasting_s = 0\n"
    async with Drilled(tmp_path, {"host.storage": _quick("host.storage")}, text=text) as drilled:
        verdict = await drilled.run(FaultClass.STORAGE_FULL.value, seconds=20, linger_s=0.5)
        assert verdict.raised_s is not None
        opened = next(report for report in drilled.reports() if report.drill)
        assert opened.fault_class is FaultClass.STORAGE_FULL
        assert opened.subject.name.startswith(str(drilled.theatre.mounts))
        assert _advised(opened).command[:2] == ("du", "--human-readable")
    assert not _loops_of(tmp_path)
    assert not drilled.theatre.mounts.exists()


def _loops_of(folder: Path) -> list[str]:
    backing = [file.read_text() for file in Path("/sys/block").glob("loop*/loop/backing_file")]
    return [path for path in backing if str(folder) in path]


def _advised(body: CaseReport) -> Action:
    """Return what the orchestrator would advise, were it no drill."""
    report = Report(agent_id=HOST, boot_id=BootId("boot"), sequence=1, created_ns=1, body=body)
    folding = incidents.fold(report, body, case=None, incident=None, standing=None, now_ns=1)
    assert folding is not None
    return advise(folding.incident).action


def _quick(name: str) -> Callable[[], Sensor]:
    def build() -> Sensor:
        sensor = _real(name)()
        sensor.period_s = 1.0  # type: ignore[misc]  # looks are a quarter of a minute apart otherwise
        return sensor

    return build


def test_a_part_that_dies_ends_by_itself(theatre: Theatre) -> None:
    """A death without a core."""
    stage = Stage(id=an_id(), seconds=30, theatre=theatre)
    try:
        stage.play("die", "1")
        stage.reap()
        assert stage.unmade() is None
        assert not list(Path.cwd().glob("core*"))
    finally:
        remains.clear(stage.id, theatre)


def test_no_memory_is_filled_where_its_limit_is_not_in_force(theatre: Theatre) -> None:
    """The part reads the limit of its own group, leaves at once, and the drill can name what is lacking."""
    stage = Stage(id=an_id(), seconds=30, theatre=theatre)
    limit_bytes = 64 << 20
    try:
        stage.play("eat", str(limit_bytes))
        stage.reap()
        assert "memory controller" in (stage.unmade() or "")
        groups = [tree / stage.id for tree in theatre.trees()]
        peaks = [group / name for group in groups for name in ("memory.max_usage_in_bytes", "memory.peak")]
        assert all(int(peak.read_text()) < limit_bytes for peak in peaks if peak.exists())
    finally:
        remains.clear(stage.id, theatre)


def test_a_stalled_server_is_stopped_with_connections_that_wait(theatre: Theatre) -> None:
    """It has taken none of them, and takes none until it is taken away."""
    stage = Stage(id=an_id(), seconds=30, theatre=theatre)
    own = drill_of("exposure.off_mesh_listener").prepare(stage)
    try:
        stage.play("stall", str(own.ports[0]))
        os.waitpid(stage.started[0].pid, os.WUNTRACED)
        rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        listening = [row for row in rows if row[1] == f"0100007F:{own.ports[0]:04X}" and row[3] == "0A"]
        assert [int(row[4].split(":")[1], 16) for row in listening] == [2]
    finally:
        remains.clear(stage.id, theatre)
        stage.reap()
