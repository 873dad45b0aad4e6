"""F25: processes that die of a fault, and those that were told to end."""

from __future__ import annotations

import signal

import pytest

from agent.detector import CgroupLook, World
from agent.detectors.fatal_signal import Config, FatalSignalDetector
from agent.finding import Place, Verdict
from agent.testing import (
    CGROUP_PATH,
    CONTAINER,
    SURROUNDINGS,
    at,
    blind,
    death,
    open_case,
    origin,
    present,
    seeing,
    tick,
)
from escalation.model import FaultClass, ReasonCode, Severity, Subject, SubjectKind
from probes.observation import CgroupId, ServerKind

SENSOR = "kernel.fatal_signal"
FAULT = FaultClass.PROCESS_KILLED_BY_SIGNAL
IN_CONTAINER = Subject(SubjectKind.CONTAINER, CONTAINER)
PLACE = Place(CgroupId(2305), CGROUP_PATH)
CASE = open_case(FAULT, IN_CONTAINER, last_seen=at(0), place=PLACE)
RUNNING = World(cgroups={PLACE: CgroupLook(exists=True, populated=True, same=False)})
DOWN = World(cgroups={PLACE: CgroupLook(exists=False)})


@pytest.fixture
def detector() -> FatalSignalDetector:
    """A detector whose sensor sees."""
    made = FatalSignalDetector.build(Config(), SURROUNDINGS)
    made.observe(seeing(0, SENSOR))
    return made


@pytest.mark.parametrize("number", [4, 6, 7, 8, 11])
def test_death_of_a_model_server_is_high(detector: FatalSignalDetector, number: int) -> None:
    """Each of the five fault signals opens a case on the container."""
    (found,) = present(detector, death(1, number))
    assert (found.subject, found.severity) == (IN_CONTAINER, Severity.HIGH)
    assert found.evidence[0].signal == number  # type: ignore[union-attr]


def test_death_of_anything_else_is_a_note(detector: FatalSignalDetector) -> None:
    """A program that serves no model is not worth waking somebody, and is counted under its own name."""
    where = origin(container=None, cgroup_path="/", name="cat", server=ServerKind.OTHER)
    (found,) = present(detector, death(1, signal.SIGSEGV, where=where))
    assert (found.severity, found.subject) == (Severity.NOTE, Subject(SubjectKind.PROCESS, "cat"))


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGHUP, signal.SIGPIPE]
)
def test_an_order_stays_quiet(detector: FatalSignalDetector, number: int) -> None:
    """Signals that somebody sends on purpose open nothing, whoever sent them."""
    assert present(detector, death(1, number, code=0), death(2, number, code=128)) == []


def test_clears_when_the_subject_ran_ten_minutes(detector: FatalSignalDetector) -> None:
    """The container runs again, under its old path, and nothing died since."""
    assert detector.tick(tick(599, CASE, world=RUNNING)) == []
    (over,) = detector.tick(tick(600, CASE, world=RUNNING))
    assert (over.verdict, over.reasons[0].code) == (Verdict.ABSENT, ReasonCode.SUBJECT_RAN_SINCE)


def test_keeps_open_while_the_subject_is_down(detector: FatalSignalDetector) -> None:
    """Something that died and stays down has not recovered; after a day its cgroup is history."""
    assert detector.tick(tick(3600, CASE, world=DOWN)) == []
    (over,) = detector.tick(tick(86400, CASE, world=DOWN))
    assert over.reasons[0].code is ReasonCode.CGROUP_GONE


def test_keeps_open_when_source_goes_blind(detector: FatalSignalDetector) -> None:
    """While a death could not be seen, none is not news."""
    detector.observe(blind(10, SENSOR))
    assert detector.tick(tick(1e6, CASE, world=RUNNING)) == []


def test_hostile_name_is_cut_and_encodable(detector: FatalSignalDetector) -> None:
    """A name of any bytes becomes a subject that every later step can carry."""
    where = origin(container=None, cgroup_path=None, name="\udcff" * 300 + "\x1b[2J")
    (found,) = present(detector, death(1, 11, where=where))
    assert found.subject is not None
    assert len(found.subject.name.encode()) <= 1024
