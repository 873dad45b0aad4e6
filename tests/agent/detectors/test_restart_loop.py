"""F40: what cannot stay up, by the manager's word and the kernel's; deployments and timers are none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.detector import CgroupLook, World
from agent.detectors.restart_loop import Config, RestartLoop
from agent.finding import Finding, Place, Verdict
from agent.testing import (
    CONTAINER,
    SURROUNDINGS,
    at,
    blind,
    open_case,
    origin,
    present,
    reloaded,
    seeing,
    tick,
)
from escalation.model import (
    FaultClass,
    ReasonCode,
    Severity,
    Subject,
    SubjectKind,
    UnitEvidence,
    UnitResult as WireResult,
)
from probes import recording
from probes.observation import (
    CgroupChanged,
    CgroupId,
    LogLine,
    Origin,
    SensorName,
    UnitEnded,
    UnitResult,
    UnitsStanding,
    UnitStopped,
    UnitUp,
)

FAULT = FaultClass.UNIT_RESTART_LOOP
UNIT = Subject(SubjectKind.UNIT, "vllm.service")
BOX = Subject(SubjectKind.CONTAINER, CONTAINER)


@pytest.fixture
def detector() -> RestartLoop:
    """A detector whose sensors see."""
    made = RestartLoop.build(Config(), SURROUNDINGS)
    for sensor in ("host.units", "kernel.cgroups"):
        made.observe(seeing(-1, sensor))
    return made


def ended(
    seconds: float,
    *,
    result: UnitResult = UnitResult.EXIT_CODE,
    restarts: int = 0,
    lived_s: float | None = 0.2,
    unit: str = "vllm.service",
) -> UnitEnded:
    """Return a service whose main process failed after a moment."""
    return UnitEnded(
        sensor=SensorName("host.units"),
        at=at(seconds),
        origin=Origin(unit=unit),
        result=result,
        exit_status=1,
        restarts=restarts,
        lived_s=lived_s,
    )


def loop(lives: int, *, every_s: float = 10, lived_s: float = 0.2) -> list[UnitEnded]:
    """Return so many short lives, each restarted by the manager."""
    return [ended(every_s * n, restarts=n, lived_s=lived_s) for n in range(lives)]


def cgroup(seconds: float, *, made: bool, unit: str | None = None, number: int = 1) -> CgroupChanged:
    """Return the cgroup of a container, or of a service, that comes or goes."""
    path = f"/system.slice/{unit}" if unit else f"/system.slice/docker-{CONTAINER}.scope"
    return CgroupChanged(
        sensor=SensorName("kernel.cgroups"),
        at=at(seconds),
        origin=origin(
            container=None if unit else CONTAINER, unit=unit, cgroup_id=number, cgroup_path=path, pid=None
        ),
        made=made,
    )


def lives_of_a_cgroup(
    lives: int, *, every_s: float = 10, lived_s: float = 5, unit: str | None = None
) -> list[CgroupChanged]:
    """Return so many lives of one cgroup."""
    return [
        cgroup(every_s * n + (0 if made else lived_s), made=made, unit=unit, number=n + 1)
        for n in range(lives)
        for made in (True, False)
    ]


def codes(found: Finding) -> list[ReasonCode]:
    """Return why."""
    return [reason.code for reason in found.reasons]


def test_three_short_lives_that_the_manager_restarted_are_a_note(detector: RestartLoop) -> None:
    """The manager's word alone is one layer; the evidence says how they ended and how long they were."""
    (found,) = present(detector, *loop(3))
    assert (found.subject, found.severity, found.count) == (UNIT, Severity.NOTE, 3)
    assert codes(found) == [ReasonCode.LIVES_ARE_SHORT, ReasonCode.SECOND_LAYER_UNKNOWN]
    assert found.evidence == (
        UnitEvidence(
            result=WireResult.EXIT_CODE,
            exit_status=1,
            starts=3,
            window_s=900.0,
            shortest_s=0.2,
            longest_s=0.2,
        ),
    )


def test_with_the_kernels_word_it_is_of_high_severity(detector: RestartLoop) -> None:
    """The service's cgroup came and went as often."""
    told = [*lives_of_a_cgroup(3, unit="vllm.service", lived_s=1), *loop(4)]
    told.sort(key=lambda one: one.at.boot_ns)
    found = present(detector, *told)
    assert [one.severity for one in found] == [Severity.HIGH, Severity.HIGH]
    assert codes(found[0]) == [ReasonCode.LIVES_ARE_SHORT, ReasonCode.CGROUP_COMES_AND_GOES]
    assert [one.count for one in found] == [3, 1]


def test_what_the_manager_gave_up_is_a_case_at_once(detector: RestartLoop) -> None:
    """It is down and stays down, whatever came before."""
    (found,) = present(detector, ended(0, result=UnitResult.START_LIMIT_HIT, lived_s=None))
    assert codes(found) == [ReasonCode.START_LIMIT_HIT, ReasonCode.SECOND_LAYER_UNKNOWN]
    assert found.evidence[0] == UnitEvidence(
        result=WireResult.START_LIMIT_HIT,
        exit_status=1,
        starts=0,
        window_s=900.0,
        shortest_s=None,
        longest_s=None,
    )


def test_a_container_that_comes_and_goes_is_a_note(detector: RestartLoop) -> None:
    """By its cgroup's name, which stays when the engine restarts it; the case follows its cgroup."""
    found = present(detector, *lives_of_a_cgroup(3), cgroup(30, made=True, number=4))
    assert [(one.subject, one.severity) for one in found] == [(BOX, Severity.NOTE)] * 2
    assert codes(found[0]) == [ReasonCode.CGROUP_COMES_AND_GOES, ReasonCode.SECOND_LAYER_UNKNOWN]
    assert [one.count for one in found] == [3, 0]
    assert found[1].place is not None
    assert found[1].place.cgroup_id == 4


def test_a_log_that_says_why_is_a_second_witness(detector: RestartLoop) -> None:
    """Of a service and of a container; other lines, and one that is long past, are none."""

    def line(seconds: float, where: Origin, pattern: str = "server.address_in_use") -> LogLine:
        return LogLine(sensor=SensorName("host.logs"), at=at(seconds), origin=where, pattern=pattern, count=2)

    unit, box = Origin(unit="vllm.service"), origin(unit=None)
    (found,) = present(detector, line(0, unit), *loop(2), line(15, unit), ended(20, restarts=2))
    assert (found.severity, codes(found)) == (
        Severity.HIGH,
        [ReasonCode.LIVES_ARE_SHORT, ReasonCode.ADDRESS_IN_USE],
    )
    assert found.reasons[1].count == 4
    assert [one.severity for one in present(detector, line(0, box), *lives_of_a_cgroup(3))] == [Severity.HIGH]
    other = RestartLoop.build(Config(), SURROUNDINGS)
    told = [line(0, unit), line(990, unit, "kernel.ext4_error"), line(990, Origin())]
    later = [ended(1000 + n, restarts=n) for n in range(3)]
    assert [one.severity for one in present(other, *told, *later)] == [Severity.NOTE]


def test_a_recorded_container_that_comes_and_goes_is_found() -> None:
    """What the kernel sensor really saw: four lives of one container, and one of a service."""
    lines = Path(__file__).parents[2].joinpath("recorded/cgroups.jsonl").read_text().splitlines()
    made = RestartLoop.build(Config(), SURROUNDINGS)
    found = present(made, *recording.read(lines))
    assert found
    assert {one.subject.kind for one in found if one.subject} == {SubjectKind.CONTAINER}


@pytest.mark.parametrize(
    "told",
    [
        loop(2),  # a deployment restarts twice
        [ended(20 * n) for n in range(9)],  # restarts by hand, and jobs that a timer starts
        [ended(20 * n, restarts=n, result=UnitResult.SUCCESS) for n in range(9)],
        [ended(100 * n, restarts=n, lived_s=61) for n in range(9)],
        [ended(500 * n, restarts=n) for n in range(9)],  # few enough in a window
        [ended(20 * n, restarts=1, unit=f"job-{n}.service") for n in range(9)],
        lives_of_a_cgroup(2),
        lives_of_a_cgroup(9, every_s=100, lived_s=61),
        lives_of_a_cgroup(30, every_s=60, unit="backup.service"),  # a timer's job
        [cgroup(n, made=False) for n in range(9)],  # lives whose beginning nobody saw
    ],
)
def test_look_alikes_stay_quiet(detector: RestartLoop, told: Sequence[object]) -> None:
    """What is restarted on purpose, rarely, or after a good run is no loop."""
    assert present(detector, *told) == []


def test_a_deployment_begins_the_count_anew(detector: RestartLoop) -> None:
    """Units that are read again belong to somebody at work; three more short lives are a loop again."""
    assert present(detector, *loop(2), reloaded(15), ended(20, restarts=2), ended(30, restarts=3)) == []
    assert len(present(detector, ended(40, restarts=4))) == 1


def test_a_long_life_begins_the_count_anew(detector: RestartLoop) -> None:
    """Two crashes, an hour of work and two more are no loop."""
    told = [*loop(2), ended(300, restarts=2, lived_s=200), ended(310, restarts=3), ended(320, restarts=4)]
    assert present(detector, *told) == []


def test_a_storm_of_names_leaves_bounded_memory(detector: RestartLoop) -> None:
    """Names come from the host; only the latest are kept."""
    for number in range(2000):
        detector.observe(ended(number / 100, unit=f"u{number}.service"))
    assert len(detector._things) == 256


def test_clears_when_the_service_has_run_long_enough(detector: RestartLoop) -> None:
    """The sensor asked and says so."""
    present(detector, *loop(3))
    up = UnitUp(sensor=SensorName("host.units"), at=at(700), origin=Origin(unit="vllm.service"), up_s=610)
    (found,) = detector.observe(up)
    assert (found.verdict, found.subject) == (Verdict.ABSENT, UNIT)
    assert codes(found) == [ReasonCode.UNIT_STAYS_UP]
    assert present(detector, *[ended(710 + n, restarts=n) for n in range(2)]) == []


def test_clears_when_the_service_is_stopped_and_says_that_it_is_gone(detector: RestartLoop) -> None:
    """Not that it stays up: nothing was cured. What loops afterwards is counted anew."""
    present(detector, *loop(3))
    stopped = UnitStopped(
        sensor=SensorName("host.units"), at=at(100), origin=Origin(unit="vllm.service"), stopped_s=60.0
    )
    (over,) = detector.observe(stopped)
    assert (over.verdict, over.subject, codes(over)) == (Verdict.ABSENT, UNIT, [ReasonCode.CGROUP_GONE])
    assert present(detector, ended(110, restarts=3)) == []


def stand(seconds: float, *units: str) -> UnitsStanding:
    """Return a look at all services."""
    return UnitsStanding(sensor=SensorName("host.units"), at=at(seconds), units=units, looked_s=60.0)


@pytest.mark.parametrize(
    ("seconds", "units", "clears"),
    [
        (100, (), True),
        (100, ("other.service",), True),
        (100, ("vllm.service",), False),
        (40, (), False),
    ],
    ids=["nothing stands", "others stand", "it stands", "it was seen to loop after the look"],
)
def test_clears_what_was_stopped_while_nobody_listened(
    detector: RestartLoop, seconds: float, units: tuple[str, ...], clears: bool
) -> None:
    """A detector that never saw the loop is shown its case and a look at all services."""
    detector.observe(stand(seconds, *units))
    found = detector.tick(tick(101, open_case(FAULT, UNIT, last_seen=at(50))))
    assert [(one.verdict, one.subject, codes(one)) for one in found] == (
        [(Verdict.ABSENT, UNIT, [ReasonCode.CGROUP_GONE])] if clears else []
    )


def test_clears_when_a_start_of_the_container_that_nobody_told_holds(detector: RestartLoop) -> None:
    """It was started once more while the agent was away: the ten minutes count from the first look."""
    place = Place(CgroupId(1), "/system.slice/docker-1.scope")
    case = open_case(FAULT, BOX, last_seen=at(0), place=place)

    def verdicts(seconds: float, cgroup_id: int, *, populated: bool = True) -> list[Verdict]:
        look = CgroupLook(exists=True, populated=populated, same=False, cgroup_id=CgroupId(cgroup_id))
        return [one.verdict for one in detector.tick(tick(seconds, case, world=World(cgroups={place: look})))]

    assert verdicts(1000, 2) == verdicts(1599, 2) == []
    assert verdicts(1600, 3) == verdicts(2100, 3, populated=False) == []
    assert verdicts(2200, 3) == verdicts(2799, 3) == []
    assert verdicts(2800, 3) == [Verdict.ABSENT]


@pytest.mark.parametrize(
    ("look", "seconds", "clears"),
    [
        (CgroupLook(exists=True, populated=True, same=True), 700, True),
        (CgroupLook(exists=True, populated=True, same=True), 400, False),
        (CgroupLook(exists=True, populated=True, same=None), 700, False),
        (CgroupLook(exists=True, populated=False, same=True), 700, False),
        (CgroupLook(exists=False), 700, False),
        (CgroupLook(exists=False), 30 + 86399, False),
        (CgroupLook(exists=False), 30 + 86400, True),
    ],
)
def test_clears_when_the_containers_last_start_holds(
    detector: RestartLoop, look: CgroupLook, seconds: float, clears: bool
) -> None:
    """The same cgroup, with processes, ten minutes on; gone for a day, it was made anew by another id."""
    found = present(detector, *lives_of_a_cgroup(3), cgroup(30, made=True, number=4))
    place = found[-1].place
    assert place is not None
    case = open_case(FAULT, BOX, last_seen=at(30), place=place)
    told = detector.tick(tick(seconds, case, world=World(cgroups={place: look})))
    assert [one.verdict for one in told] == ([Verdict.ABSENT] if clears else [])


def test_keeps_open_when_its_source_goes_blind(detector: RestartLoop) -> None:
    """Each kind of subject has its own source; the manager's and the kernel's."""
    cases = (open_case(FAULT, UNIT), open_case(FAULT, BOX))
    assert list(detector.tick(tick(10, *cases))) == []
    detector.observe(blind(20, "host.units"))
    assert [(one.verdict, one.subject) for one in detector.tick(tick(30, *cases))] == [
        (Verdict.UNKNOWN, UNIT)
    ]
    detector.observe(blind(40, "kernel.cgroups"))
    assert [one.verdict for one in detector.tick(tick(50, *cases))] == [Verdict.UNKNOWN] * 2


def test_the_words_of_both_sides_are_the_same() -> None:
    """Each result that the sensor may tell has its word in a report."""
    assert {result.value for result in UnitResult} == {result.value for result in WireResult} - {"unknown"}
