"""Cases that are kept over a restart of the agent: each ends though nobody saw what ended its fault.

A new agent finds its notes, and detectors that know nothing. What a case is about is gone, or well, and no
event says so: the sensors tell only what they tell of a host on which it is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from agent.case_notes import KEY_PREFIX, CaseNote, encode
from agent.cases import CaseBook
from agent.detector import CgroupLook, Detector, World
from agent.detectors.registry import DETECTORS
from agent.finding import Place
from agent.judge import Judge, hysteresis_of
from agent.testing import (
    CGROUP_PATH,
    HOST,
    KERNEL_BOOT,
    SURROUNDINGS,
    at,
    blind,
    gpu_driver,
    gpu_state,
    inventory,
    memory,
    seeing,
    sessions,
)
from escalation.model import (
    CaseId,
    CasePhase,
    CaseReport,
    FaultClass,
    Incarnation,
    ReasonCode,
    Severity,
    Subject,
    SubjectKind,
)
from probes.observation import (
    CgroupId,
    CommandLines,
    Filesystems,
    MeshState,
    MeshStatus,
    Observation,
    SensorName,
    UnitsStanding,
)

DAY_S = 86400.0
PLACE = Place(CgroupId(2305), CGROUP_PATH)
GONE = World(cgroups={PLACE: CgroupLook(exists=False)})
STANDS = World(cgroups={PLACE: CgroupLook(exists=True, populated=True, same=False, cgroup_id=CgroupId(9))})
CONTAINER = Subject(SubjectKind.CONTAINER, "c" * 64)
PORT = Subject(SubjectKind.LISTENER, "0.0.0.0:8265")
THIS = Subject(SubjectKind.HOST, HOST)
GPU = Subject(SubjectKind.GPU, "000f:01:00.0")
PEER = Subject(SubjectKind.PEER, "10.0.0.2 0")
ROUTE = Subject(SubjectKind.ROUTE, ":8000 chat_completions")


def nothing(_: float) -> tuple[Observation, ...]:
    """Return what the sensors tell of what is not there."""
    return ()


def no_filesystem(seconds: float) -> tuple[Observation, ...]:
    """Return a look at a host without the filesystem."""
    return (
        Filesystems(
            sensor=SensorName("host.storage"), at=at(seconds), filesystems=(), io_full_avg60=0.0, left_out=0
        ),
    )


def no_listener(seconds: float) -> tuple[Observation, ...]:
    """Return an empty socket table."""
    return (inventory(seconds),)


def no_server(seconds: float) -> tuple[Observation, ...]:
    """Return a look at the command lines of a host without the server."""
    return (
        CommandLines(
            sensor=SensorName("host.command_lines"),
            at=at(seconds),
            key="",
            lines=(),
            complete=True,
            accepted=(),
        ),
    )


def no_unit(seconds: float) -> tuple[Observation, ...]:
    """Return a look at all services, without the one that looped."""
    return (
        UnitsStanding(
            sensor=SensorName("host.units"), at=at(seconds), units=("other.service",), looked_s=60.0
        ),
    )


def good_mesh(seconds: float) -> tuple[Observation, ...]:
    """Return a mesh that runs."""
    return (
        MeshStatus(
            sensor=SensorName("mesh.tailscale"),
            at=at(seconds),
            state=MeshState.RUNNING,
            online=True,
            key_expires_in_s=100 * DAY_S,
            peers_known=True,
            peers_active=1,
        ),
    )


def good_gpu(seconds: float) -> tuple[Observation, ...]:
    """Return a GPU that answers, and a driver as it is installed."""
    return gpu_state(seconds, recovery_action=0, remap_pending=False, remap_failed=False), gpu_driver(seconds)


@dataclass(frozen=True, slots=True)
class Kept:
    """A case of `fault` about `subject`, which is over at the latest `within_s` after the restart.

    `tells` is what sensors say when it is over, `world` what the host looks like.
    """

    fault: FaultClass
    subject: Subject
    within_s: float
    tells: Callable[[float], tuple[Observation, ...]] = nothing
    world: World = GONE


ROUTES = (
    *(fault for fault in FaultClass if fault.value.startswith("route.")),
    FaultClass.UI_BLANK_ANSWERS,
    FaultClass.DISTRIBUTED_RANK_STALL,
)
JUDGED = {note.fault_class for kind in DETECTORS for note in kind.FAULTS}
TABLE = (
    *(Kept(fault, ROUTE, DAY_S) for fault in ROUTES if fault in JUDGED),
    Kept(FaultClass.SERVICE_CONFIG_DRIFT, CONTAINER, DAY_S, no_server),
    Kept(FaultClass.CONTAINER_SHM_TOO_SMALL, CONTAINER, DAY_S),
    Kept(FaultClass.CPU_CONTENTION, CONTAINER, 60),
    Kept(FaultClass.CPU_CONTENTION, Subject(SubjectKind.PROCESS, "vllm"), DAY_S, world=World()),
    Kept(FaultClass.CPU_QUOTA_THROTTLED, CONTAINER, 60),
    Kept(FaultClass.DATABASE_CONNECTIONS_EXHAUSTED, CONTAINER, DAY_S),
    Kept(
        FaultClass.DATABASE_CONNECTIONS_EXHAUSTED, CONTAINER, DAY_S, lambda seconds: (sessions(seconds, 0),)
    ),
    Kept(FaultClass.DISTRIBUTED_WORKER_LOST, PEER, DAY_S),
    Kept(FaultClass.DISTRIBUTED_WORKER_LOST, PEER, DAY_S, world=World()),
    Kept(FaultClass.EXPOSURE_OFF_MESH_LISTENER, PORT, 60, no_listener),
    Kept(FaultClass.EXPOSURE_OFF_MESH_LISTENER, CONTAINER, 60, no_listener),
    Kept(FaultClass.EXPOSURE_OPEN_CONTROL_PLANE, PORT, 60, no_listener),
    Kept(FaultClass.GPU_ACCESS_REVOKED, CONTAINER, 60),
    Kept(FaultClass.GPU_APPLICATION_XID, GPU, 3600, good_gpu),
    Kept(FaultClass.GPU_CLOCKS_CAPPED, GPU, DAY_S),
    Kept(FaultClass.GPU_CPU_FALLBACK, CONTAINER, 3600),
    Kept(FaultClass.GPU_CPU_FALLBACK, CONTAINER, DAY_S, world=STANDS),
    Kept(FaultClass.GPU_DEVICE_FAULT, GPU, 3600, good_gpu),
    Kept(FaultClass.GPU_DRIVER_MISMATCH, THIS, 60, good_gpu),
    Kept(FaultClass.GPU_NEVER_GRANTED, CONTAINER, DAY_S),
    Kept(FaultClass.GPU_UVM_LOST, THIS, 60),
    Kept(FaultClass.MEMORY_CGROUP_OOM_KILL, CONTAINER, DAY_S),
    Kept(FaultClass.MEMORY_PAGE_CACHE_REFUSAL, CONTAINER, DAY_S),
    Kept(FaultClass.MEMORY_THRASHING, CONTAINER, 60),
    Kept(FaultClass.MEMORY_UNIFIED_EXHAUSTION, THIS, 60, lambda seconds: (memory(seconds, 60),)),
    Kept(FaultClass.MESH_DEGRADED, THIS, 60, good_mesh),
    Kept(FaultClass.MONITOR_BLIND, Subject(SubjectKind.SENSOR, "host.memory"), 60),
    Kept(FaultClass.NETWORK_RDMA_FAULT, Subject(SubjectKind.INTERFACE, "mlx5_0"), DAY_S),
    Kept(FaultClass.NETWORK_RETRANSMISSION, PEER, DAY_S),
    Kept(FaultClass.NETWORK_UPSTREAM_UNREACHABLE, Subject(SubjectKind.PEER, "10.0.0.2 8000"), 60),
    Kept(
        FaultClass.NETWORK_UPSTREAM_UNREACHABLE,
        Subject(SubjectKind.PEER, "10.0.0.2 8000"),
        DAY_S,
        world=World(),
    ),
    Kept(FaultClass.PROCESS_FD_EXHAUSTED, CONTAINER, DAY_S),
    Kept(FaultClass.PROCESS_KILLED_BY_SIGNAL, CONTAINER, DAY_S),
    Kept(FaultClass.PROCESS_NOT_ANSWERING, CONTAINER, DAY_S),
    Kept(FaultClass.PROCESS_UNINTERRUPTIBLE, CONTAINER, DAY_S),
    Kept(FaultClass.SCOPE_VIOLATION, Subject(SubjectKind.SCOPE, "coding-agent"), 60),
    Kept(FaultClass.SCOPE_VIOLATION, CONTAINER, 60, no_server),
    Kept(FaultClass.STORAGE_FULL, Subject(SubjectKind.MOUNT, "/models"), DAY_S, no_filesystem),
    Kept(FaultClass.STORAGE_READ_ONLY, Subject(SubjectKind.MOUNT, "/models"), DAY_S, no_filesystem),
    Kept(FaultClass.STORAGE_SLOW_LOAD, CONTAINER, 60),
    Kept(FaultClass.STORAGE_SLOW_LOAD, CONTAINER, DAY_S, world=STANDS),
    Kept(FaultClass.TRANSCRIPTION_CPU_FALLBACK, CONTAINER, 3600),
    Kept(FaultClass.UNIT_RESTART_LOOP, Subject(SubjectKind.UNIT, "vllm.service"), 60, no_unit),
    Kept(FaultClass.UNIT_RESTART_LOOP, CONTAINER, DAY_S),
    Kept(FaultClass.UNIT_RESTART_LOOP, CONTAINER, 700, world=STANDS),
)


def restarted(kept: Kept, *, detectors: tuple[Detector, ...] | None = None) -> Judge:
    """Return the judge of an agent that was started anew and found the note of one case."""
    if detectors is None:
        detectors = tuple(kind.build(kind.SETTINGS(), SURROUNDINGS) for kind in DETECTORS)
    book = CaseBook(agent_id=HOST, kernel_boot_id=KERNEL_BOOT, hysteresis=hysteresis_of(detectors))
    note = CaseNote(
        case_id=CaseId("1"),
        fault_class=kept.fault,
        subject=kept.subject,
        severity=Severity.HIGH,
        incarnation=Incarnation(kernel_boot_id=KERNEL_BOOT),
        lifebound=False,
        kernel_boot_id=KERNEL_BOOT,
        first_seen_ns=at(0).unix_ns,
        last_seen_ns=at(0).unix_ns,
        last_boot_ns=at(0).boot_ns,
        count=3,
        reported_boot_ns=at(0).boot_ns,
        reported_count=3,
        reasons=(),
        evidence=(),
        place=PLACE,
    )
    failed: list[str] = []
    judge = Judge(detectors=detectors, book=book, failed=lambda name, _: failed.append(name))
    judge.book.restore({KEY_PREFIX + "1": encode(note)}, at(0))
    return judge


def sensors() -> Iterator[str]:
    """Return every sensor that a detector asks for."""
    yield from sorted({name for kind in DETECTORS for note in kind.FAULTS for name in note.sensors})
    yield "host.memory"


def passed(judge: Judge, kept: Kept, seconds: float) -> list[CaseReport]:
    """Let the sensors tell what they have to, and time pass; return the reports."""
    told = judge.observe(kept.tells(seconds - 1), at(seconds - 1)).bodies
    return [*told, *judge.tick(at(seconds), kept.world).bodies]


def test_every_class_that_is_judged_is_in_the_table() -> None:
    """A new class says how a case of it ends that a restart has cut off from its events."""
    assert {kept.fault for kept in TABLE} == JUDGED


@pytest.mark.parametrize("kept", TABLE, ids=lambda kept: f"{kept.fault.value}-{kept.subject.kind.value}")
def test_a_case_whose_end_nobody_saw_is_over_within_its_time(kept: Kept) -> None:
    """With all sensors seeing, and no event of an end."""
    judge = restarted(kept)
    judge.observe([seeing(1, name) for name in sensors()], at(1))
    reports = [
        report
        for seconds in (2, 5, kept.within_s / 2, kept.within_s + 2, kept.within_s + 3, kept.within_s + 1200)
        for report in passed(judge, kept, seconds)
    ]
    assert [(one.phase, one.fault_class) for one in reports if one.case_id == "1"] == [
        (CasePhase.CLEARED, kept.fault)
    ]
    assert not judge.errors


@pytest.mark.parametrize("kept", TABLE, ids=lambda kept: f"{kept.fault.value}-{kept.subject.kind.value}")
def test_no_case_is_over_because_nobody_looks(kept: Kept) -> None:
    """With all sensors blind, and nothing known of the host, it stands for a month."""
    judge = restarted(kept)
    if kept.subject.kind is SubjectKind.SCOPE:
        return
    judge.observe([blind(1, name) for name in sensors()], at(1))
    for seconds in (2, 60, DAY_S + 2, 30 * DAY_S):
        judge.tick(at(seconds), World())
    assert kept.subject in {case.subject for case in judge.book.open_cases({kept.fault})}


def test_a_case_whose_detector_is_switched_off_says_so_at_its_end() -> None:
    """Nobody else would ever clear it."""
    kept = TABLE[0]
    judge = restarted(kept, detectors=())
    (over,) = [report for seconds in (1, 40) for report in judge.tick(at(seconds), World()).bodies]
    assert (over.phase, [one.code for one in over.reasons]) == (CasePhase.CLEARED, [ReasonCode.NOT_WATCHED])
