"""F21: a container with too little shared memory, and everything that dies or is refused like it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from agent.detector import CgroupLook, World
from agent.detectors.shared_memory import Config, SharedMemory
from agent.finding import Finding, Verdict
from agent.subjects import place_of
from agent.testing import CONTAINER, SURROUNDINGS, at, death, open_case, origin, present, seeing, tick
from escalation.model import (
    FaultClass,
    MountRole,
    ReasonCode,
    Severity,
    SignalEvidence,
    StorageEvidence,
    Subject,
    SubjectKind,
)
from probes.observation import LogLine, SensorName, StorageFailure
from tests.agent.detectors.filesystems import ERRORS, errors, look, readiness

FAULT = FaultClass.CONTAINER_SHM_TOO_SMALL
THIS = Subject(SubjectKind.CONTAINER, CONTAINER)
SMALL, LARGE = 64 << 20, 16 << 30
DEATHS = "kernel.fatal_signal"
BUS = 7


@pytest.fixture
def detector() -> SharedMemory:
    """A detector whose sensors see."""
    made = SharedMemory.build(Config(), SURROUNDINGS)
    for sensor in (ERRORS, DEATHS):
        made.observe(seeing(0, sensor))
    return made


def _codes(found: Finding) -> list[ReasonCode]:
    return [reason.code for reason in found.reasons]


def _refused(seconds: float, count: int = 1) -> object:
    return errors(seconds, StorageFailure.FALLOCATE, where=origin(), count=count)


def _died(seconds: float, *, code: int = 2) -> object:
    return death(seconds, BUS, code=code)


def _logged(seconds: float, pattern: str = "nccl.shm_failed") -> LogLine:
    return LogLine(sensor=SensorName("host.logs"), at=at(seconds), origin=origin(), pattern=pattern)


def test_a_bus_error_with_little_shared_memory_is_medium(detector: SharedMemory) -> None:
    """A container of 64 MiB whose process could not have a page: told with size and signal."""
    (found,) = present(detector, readiness(0, shared_memory_bytes=SMALL), _died(10))
    assert (found.severity, found.subject) == (Severity.MEDIUM, THIS)
    assert _codes(found) == [ReasonCode.DIED_BY_BUS_ERROR, ReasonCode.SHARED_MEMORY_SMALL]
    shared, signal = found.evidence
    assert isinstance(shared, StorageEvidence)
    assert (shared.mount, shared.role, shared.total_bytes) == (
        "/dev/shm",
        MountRole.SHARED_MEMORY,
        SMALL,
    )
    assert isinstance(signal, SignalEvidence)


@pytest.mark.parametrize(
    "signs", [[_refused(1), _died(2)], [_died(1), _refused(2)], [_refused(1), _logged(2)]]
)
def test_two_signs_agree_where_the_size_is_not_known(detector: SharedMemory, signs: Sequence[object]) -> None:
    """Refused and died, in any order, or refused and written down."""
    assert present(detector, *signs)[-1].severity is Severity.MEDIUM


@pytest.mark.parametrize("sign", [_refused(1), _logged(1)])
def test_one_sign_alone_is_a_note(detector: SharedMemory, sign: object) -> None:
    """It says that the second layer is missing."""
    (found,) = present(detector, sign)
    assert (found.severity, found.reasons[-1].code) == (Severity.NOTE, ReasonCode.SECOND_LAYER_UNKNOWN)


@pytest.mark.parametrize(
    "story",
    [
        [_died(1)],
        [readiness(0, shared_memory_bytes=LARGE), _died(1), _refused(2)],
        [readiness(0, shared_memory_bytes=None), _died(1), _refused(2)],
        [readiness(0, shared_memory_bytes=SMALL), _died(1, code=0)],
        [readiness(0, shared_memory_bytes=SMALL), _died(1, code=4)],
        [readiness(0, shared_memory_bytes=SMALL), death(1, 11)],
        [readiness(0, shared_memory_bytes=SMALL), errors(1, StorageFailure.WRITE, where=origin())],
        [readiness(0, shared_memory_bytes=SMALL), errors(1, StorageFailure.FALLOCATE)],
        [
            readiness(0, shared_memory_bytes=SMALL),
            errors(1, StorageFailure.FALLOCATE, where=origin(), errno=122),
        ],
        [look(0, free_bytes=0), readiness(0, shared_memory_bytes=SMALL), _refused(1)],
        [_logged(1, "nccl.net_failed")],
    ],
    ids=[
        "a bus error of a container whose memory is not known",
        "plenty of shared memory",
        "the host's own shared memory",
        "a signal that was sent",
        "bad memory",
        "a segmentation fault",
        "a refused write",
        "a refusal outside of containers",
        "over quota",
        "a full disk of the host",
        "another line",
    ],
)
def test_what_only_looks_like_it_stays_quiet(detector: SharedMemory, story: Sequence[object]) -> None:
    """A file cut under its mapping, a failing disk, bad memory, a full disk."""
    assert present(detector, *story) == []


def test_signs_that_are_far_apart_do_not_agree(detector: SharedMemory) -> None:
    """An hour lies between them."""
    found = present(detector, _died(1), _refused(3600))
    assert [each.severity for each in found] == [Severity.NOTE]


def test_a_container_that_ran_on_clears(detector: SharedMemory) -> None:
    """An hour without a sign, and seen to be."""
    case = open_case(FAULT, THIS, last_seen=at(10))
    assert list(detector.tick(tick(3000, case))) == []
    (found,) = detector.tick(tick(3620, case))
    assert (found.verdict, _codes(found)) == (Verdict.ABSENT, [ReasonCode.SUBJECT_RAN_SINCE])


def test_a_container_that_is_gone_clears(detector: SharedMemory) -> None:
    """It was made anew under another name."""
    place = place_of(origin())
    assert place is not None
    case = open_case(FAULT, THIS, last_seen=at(10), place=place)
    world = World(cgroups={place: CgroupLook(exists=False)})
    assert list(detector.tick(tick(30, case, world=world))) == []
    (found,) = detector.tick(tick(80, case, world=world))
    assert _codes(found) == [ReasonCode.CGROUP_GONE]


@pytest.mark.parametrize("sensor", [ERRORS, DEATHS])
def test_keeps_open_when_the_source_goes_blind(detector: SharedMemory, sensor: str) -> None:
    """Either sensor blind: quiet that nobody saw is no quiet."""
    other = SharedMemory.build(Config(), SURROUNDINGS)
    other.observe(seeing(0, sensor))
    assert list(other.tick(tick(9999, open_case(FAULT, THIS, last_seen=at(10))))) == []
