"""What the agent tells of changes on its host: which, how often, and never without end."""

from __future__ import annotations

from hypothesis import given, strategies as st

from agent.host.host_changes import AT_ONCE, KNOWN_MAX, HostChanges
from agent.testing import at, gpu_driver, reloaded, slept
from escalation.model import HostChange, HostChangeKind, Subject, SubjectKind
from probes.observation import Observation, Origin, SensorName
from probes.observed.services import CgroupChanged, UnitEnded, UnitResult, UnitUp

K = HostChangeKind
HOST = Subject(SubjectKind.HOST, "spark-1")
VLLM = Subject(SubjectKind.UNIT, "vllm.service")
BOX = "4f" * 32


def _cgroup(seconds: float, *, made: bool = True, unit: str = "", container: str = "") -> CgroupChanged:
    origin = Origin(unit=unit or None, container_id=container or None)
    return CgroupChanged(sensor=SensorName("kernel.cgroups"), at=at(seconds), origin=origin, made=made)


def _ended(seconds: float, unit: str = VLLM.name, *, lived_s: float | None = 5.0) -> UnitEnded:
    return UnitEnded(
        sensor=SensorName("host.units"),
        at=at(seconds),
        origin=Origin(unit=unit),
        result=UnitResult.SUCCESS,
        exit_status=0,
        restarts=0,
        lived_s=lived_s,
    )


def _up(seconds: float, up_s: float) -> UnitUp:
    return UnitUp(sensor=SensorName("host.units"), at=at(seconds), origin=Origin(unit=VLLM.name), up_s=up_s)


def _told(*observations: Observation, seconds: float = 1000.0) -> tuple[HostChange, ...]:
    changes = HostChanges(host=HOST.name)
    changes.take(observations)
    return changes.due(at(seconds))


def test_tells_reloads_sleeps_starts_and_ends() -> None:
    """Each change is told with what it was done to and when."""
    told = _told(reloaded(1), slept(2), _cgroup(3, unit=VLLM.name), _cgroup(4, container=BOX), _ended(5))
    assert told == (
        HostChange(K.MANAGER_RELOADED, HOST, at(1).unix_ns),
        HostChange(K.SUSPENDED, HOST, at(2).unix_ns),
        HostChange(K.STARTED, VLLM, at(3).unix_ns),
        HostChange(K.STARTED, Subject(SubjectKind.CONTAINER, BOX), at(4).unix_ns),
        HostChange(K.ENDED, VLLM, at(5).unix_ns),
    )


def test_a_service_that_ended_is_told_once_and_one_that_never_ran_is_not() -> None:
    """The end of its cgroup says nothing that the manager does not; being given up is no end of a run."""
    assert len(_told(_ended(1), _cgroup(1, made=False, unit=VLLM.name))) == 1
    assert _told(_ended(1, lived_s=None)) == ()
    assert [each.kind for each in _told(_cgroup(1, made=False, container=BOX))] == [K.ENDED]


def test_what_is_neither_service_nor_container_is_not_told() -> None:
    """No name of a process or path of a cgroup is in a change."""
    origin = Origin(cgroup_path="/user.slice/secret", process_name="bash", pid=7)
    change = CgroupChanged(sensor=SensorName("kernel.cgroups"), at=at(1), origin=origin, made=True)
    assert _told(change) == ()


def test_a_start_is_told_late_where_nothing_watches_cgroups_and_never_twice() -> None:
    """A service that is up for long began then; one that is up since before the agent is no change."""
    assert _told(_up(700, 605)) == (HostChange(K.STARTED, VLLM, at(95).unix_ns),)
    assert _told(_cgroup(95, unit=VLLM.name), _up(700, 605))[0].count == 1
    assert _told(_up(700, 90_000)) == ()


def test_another_driver_is_a_change_and_the_first_sight_of_it_is_none() -> None:
    """Only a driver that differs from the one before is told."""
    assert _told(gpu_driver(1), gpu_driver(2)) == ()
    assert _told(gpu_driver(1), gpu_driver(2, disk="580.95.05")) == (
        HostChange(K.DRIVER_CHANGED, HOST, at(2).unix_ns),
    )


def test_what_goes_on_is_told_ever_more_seldom_and_loses_no_count() -> None:
    """A service that starts each minute for a day is told some thirty times, with every start counted."""
    changes = HostChanges(host=HOST.name)
    told: list[HostChange] = []
    for minute in range(24 * 60):
        changes.take([_cgroup(60.0 * minute, unit="backup.service")])
        due = changes.due(at(60.0 * minute))
        changes.told(due, at(60.0 * minute))
        told += due
    assert 24 <= len(told) <= 32
    assert sum(each.count for each in told) >= 24 * 60 - 60
    assert told[0].count == 1


def test_what_could_not_be_written_is_told_later_with_what_came_since() -> None:
    """Only what is on disk counts as told."""
    changes = HostChanges(host=HOST.name)
    changes.take([reloaded(1)])
    first = changes.due(at(2))
    assert first == changes.due(at(3))
    changes.take([reloaded(4)])
    changes.told(first, at(5))
    assert changes.due(at(6)) == ()
    assert changes.due(at(70)) == (HostChange(K.MANAGER_RELOADED, HOST, at(4).unix_ns),)


def test_a_flood_of_names_is_bounded_and_counted() -> None:
    """However many units start, little is remembered, few are told at once, and what is lost is counted."""
    changes = HostChanges(host=HOST.name)
    changes.take([_cgroup(1, unit=f"run-{number}.service") for number in range(KNOWN_MAX + 100)])
    assert len(changes.due(at(2))) == AT_ONCE
    assert changes.take_forgotten() == 100
    assert changes.take_forgotten() == 0


@given(
    st.lists(st.tuples(st.integers(0, 100_000), st.sampled_from(["a.service", "b.service"]), st.booleans()))
)
def test_every_change_is_told_or_still_waits(steps: list[tuple[int, str, bool]]) -> None:
    """Whatever the order of times, what was taken is what was told and what a later look tells."""
    changes = HostChanges(host=HOST.name)
    told = 0
    for seconds, unit, tell in steps:
        changes.take([_cgroup(seconds, unit=unit)])
        if tell:
            due = changes.due(at(seconds))
            changes.told(due, at(seconds))
            told += sum(each.count for each in due)
    rest = changes.due(at(10_000_000))
    assert told + sum(each.count for each in rest) == len(steps)
