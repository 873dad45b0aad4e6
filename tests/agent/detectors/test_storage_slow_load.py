"""F36: a model that loads for too long from a slow disk, and what only looks like it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from agent.baselines.baseline import Baseline
from agent.detector import CgroupLook, ProcessKey, World
from agent.detectors.storage_slow_load import Config, StorageSlowLoad
from agent.finding import Finding, Verdict
from agent.subjects import place_of
from agent.testing import (
    CONTAINER,
    SURROUNDINGS,
    at,
    blind,
    exchange,
    open_case,
    origin,
    present,
    seeing,
    tick,
)
from escalation.model import (
    BlockEvidence,
    FaultClass,
    PressureEvidence,
    ReasonCode,
    Severity,
    Subject,
    SubjectKind,
)
from tests.agent.detectors.filesystems import READINESS, activity, look, readiness

FAULT = FaultClass.STORAGE_SLOW_LOAD
THIS = Subject(SubjectKind.CONTAINER, CONTAINER)
START = 10_000.0


@pytest.fixture
def detector() -> StorageSlowLoad:
    """A detector that knows a disk which usually reads in a millisecond."""
    made = StorageSlowLoad.build(Config(), SURROUNDINGS)
    made.observe(seeing(0, READINESS))
    for number in range(60):
        made.observe(activity(15 * number))
    return made


def _codes(found: Finding) -> list[ReasonCode]:
    return [reason.code for reason in found.reasons]


def _loading(after_s: float, **facts: object) -> object:
    return readiness(START + after_s, started=START, **facts)  # type: ignore[arg-type]  # as it takes


def test_a_slow_disk_under_a_long_load_is_a_note(detector: StorageSlowLoad) -> None:
    """Reads take fifty times what is usual, and the server does not listen after its patience."""
    (found,) = present(detector, _loading(15), activity(START + 700, read_mean_s=0.05), _loading(701))
    assert (found.severity, found.subject, found.lifebound) == (Severity.NOTE, THIS, True)
    assert _codes(found) == [ReasonCode.LOADING_FOR_LONG, ReasonCode.READS_SLOW]
    evidence = found.evidence[0]
    assert isinstance(evidence, BlockEvidence)
    assert (evidence.device, evidence.reads) == ("sda", 1000)
    assert evidence.baseline_s == pytest.approx(0.001, rel=0.05)


def test_tasks_that_wait_for_disks_are_the_second_layer_too(detector: StorageSlowLoad) -> None:
    """Held back before its disk is asked, as by a limit on a cgroup: the kernel's accounting tells it."""
    (found,) = present(detector, look(START + 690, io=60.0), activity(START + 700), _loading(701))
    assert _codes(found) == [ReasonCode.LOADING_FOR_LONG, ReasonCode.TASKS_STALL_FOR_IO]
    assert any(isinstance(each, PressureEvidence) and each.full_percent == 60.0 for each in found.evidence)


@pytest.mark.parametrize(
    "story",
    [
        [activity(START + 500, read_mean_s=0.05), _loading(501)],
        [activity(START + 700), _loading(701)],
        [look(START + 690, io=60.0), activity(START + 700, reads=0), _loading(701)],
        [activity(START + 100, read_mean_s=0.05), _loading(701)],
        [activity(START + 700, read_mean_s=0.05), _loading(701, listens=None)],
        [activity(START + 700, read_mean_s=0.05), _loading(701, listens=True)],
        [activity(START + 700, device="sdb", read_mean_s=0.05), _loading(701)],
        [activity(START + 700, read_mean_s=0.006), _loading(701)],
    ],
    ids=[
        "patience is not over",
        "the disk is as usual",
        "nothing is read",
        "it was slow long ago",
        "it cannot be told whether it listens",
        "it listens",
        "a disk whose usual time is not known",
        "several times almost nothing",
    ],
)
def test_one_layer_alone_stays_quiet(detector: StorageSlowLoad, story: Sequence[object]) -> None:
    """The server's slowness needs the disk's, and the reverse."""
    assert present(detector, *story) == []


def test_the_first_start_after_the_hosts_may_take_longer(detector: StorageSlowLoad) -> None:
    """Nothing is in the cache yet."""
    slow = [
        each
        for after in (700, 1000)
        for each in (activity(after, read_mean_s=0.05), readiness(after + 1, started=30))
    ]
    assert present(detector, *slow) == []
    assert len(present(detector, activity(1900, read_mean_s=0.05), readiness(1901, started=30))) == 1


def test_a_load_that_goes_on_counts_once(detector: StorageSlowLoad) -> None:
    """Later looks keep it open and add nothing."""
    story = [
        each
        for after in range(700, 800, 15)
        for each in (activity(START + after, read_mean_s=0.05), _loading(after + 1))
    ]
    assert [found.count for found in present(detector, *story)] == [1, 0, 0, 0, 0, 0, 0]


def test_what_is_read_during_a_load_does_not_become_usual(detector: StorageSlowLoad) -> None:
    """Hours of a slow load do not teach the disk to be slow."""
    for number in range(500):
        detector.observe(_loading(15 * number))  # type: ignore[arg-type]  # an observation
        detector.observe(activity(START + 15 * number + 1, read_mean_s=0.05))
    assert len(present(detector, _loading(7500))) == 1


@pytest.mark.parametrize("sign", [_loading(900, listens=True), exchange(START + 900)])
def test_a_server_that_listens_or_answers_clears(detector: StorageSlowLoad, sign: object) -> None:
    """It is loaded."""
    present(detector, activity(START + 700, read_mean_s=0.05), _loading(701))
    (found,) = detector.observe(sign)  # type: ignore[arg-type]  # an observation
    assert (found.verdict, found.subject, _codes(found)) == (
        Verdict.ABSENT,
        THIS,
        [ReasonCode.SERVER_LISTENS],
    )


def test_a_server_that_answers_is_up_whatever_its_port_seems_to_be(detector: StorageSlowLoad) -> None:
    """Its port came from an environment that nobody may read; its next life is looked at again."""
    present(detector, _loading(15), exchange(START + 20))
    assert present(detector, activity(START + 700, read_mean_s=0.05), _loading(701)) == []
    later = START + 5000
    slow = activity(later + 700, read_mean_s=0.05)
    assert len(present(detector, slow, readiness(later + 701, started=later))) == 1


def test_a_server_that_never_listens_is_no_load(detector: StorageSlowLoad) -> None:
    """After half a day it is taken for one whose port is not known."""
    assert present(detector, activity(START + 50000, read_mean_s=0.05), _loading(50001)) == []


def test_a_server_that_ended_clears(detector: StorageSlowLoad) -> None:
    """Its process, or its cgroup, is gone."""
    detector.observe(_loading(15))  # type: ignore[arg-type]  # an observation
    (key,) = detector.watching()
    assert key == ProcessKey(4711, 100)
    case = open_case(FAULT, THIS, place=place_of(origin()))
    assert list(detector.tick(tick(START + 20, case, world=World(processes={key: True})))) == []
    (found,) = detector.tick(tick(START + 30, case, world=World(processes={key: False})))
    assert (found.verdict, _codes(found)) == (Verdict.ABSENT, [ReasonCode.PROCESS_GONE])
    place = place_of(origin())
    assert place is not None
    world = World(cgroups={place: CgroupLook(exists=False)})
    (found,) = detector.tick(tick(START + 40, case, world=world))
    assert _codes(found) == [ReasonCode.CGROUP_GONE]


def test_keeps_open_when_the_source_goes_blind(detector: StorageSlowLoad) -> None:
    """A server that cannot be looked at is not known to listen."""
    (found,) = detector.observe(blind(START, READINESS))
    assert found.verdict is Verdict.UNKNOWN
    case = open_case(FAULT, THIS, last_seen=at(START))
    assert [each.verdict for each in detector.tick(tick(START + 9999, case))] == [Verdict.UNKNOWN]


def test_what_is_usual_is_known_after_a_restart(detector: StorageSlowLoad) -> None:
    """A load from a disk that is slow already is judged by what was usual before; nonsense counts."""
    second_life = StorageSlowLoad.build(Config(), SURROUNDINGS)
    strange = Baseline()
    strange.observe(0.0, 1e6)
    nonsense = {"sdb": b"", "sdc": detector.memory()["sda"][:-1], "sdd": strange.to_bytes()}
    assert second_life.recall(detector.memory() | nonsense) == len(nonsense)
    assert second_life.memory() == detector.memory()
    second_life.observe(seeing(START, READINESS))
    slow = [_loading(15), activity(START + 700, read_mean_s=0.05), _loading(701)]
    (found,) = present(second_life, *slow)
    assert _codes(found) == [ReasonCode.LOADING_FOR_LONG, ReasonCode.READS_SLOW]
    fresh = StorageSlowLoad.build(Config(), SURROUNDINGS)
    fresh.observe(seeing(START, READINESS))
    assert present(fresh, *slow) == []


@pytest.mark.parametrize(
    "before",
    [[], [seeing(0, READINESS), blind(1, READINESS)], [seeing(0, READINESS), look(2, io=60.0)]],
    ids=["nobody has looked yet", "who loads is not seen", "all tasks wait for disks"],
)
def test_what_may_be_a_load_or_a_slow_disk_is_not_learnt(before: Sequence[object]) -> None:
    """An agent that starts on a host that is slow already does not take that for usual."""
    detector = StorageSlowLoad.build(Config(), SURROUNDINGS)
    present(detector, *before, *(activity(3 + second, read_mean_s=0.05) for second in range(100)))
    assert detector.memory() == {}


def test_what_it_recalls_is_bounded(detector: StorageSlowLoad) -> None:
    """A memory that somebody else wrote may be of any size."""
    raw = detector.memory()["sda"]
    assert detector.recall({f"disk{number}": raw for number in range(100)}) == 0
    assert len(detector.memory()) == 16
