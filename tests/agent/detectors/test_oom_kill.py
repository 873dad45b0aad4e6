"""F22: kills by the kernel's OOM killer, and deaths that only look like them."""

from __future__ import annotations

import signal

import pytest

from agent.detectors.oom_kill import Config, OomKillDetector
from agent.finding import Verdict
from agent.testing import (
    CONTAINER,
    HOST,
    SURROUNDINGS,
    at,
    blind,
    death,
    oom_kill,
    open_case,
    origin,
    present,
    seeing,
    tick,
)
from escalation.model import FaultClass, ReasonCode, Severity, Subject, SubjectKind
from probes.observation import OomScope

SENSOR = "kernel.oom_kill"
FAULT = FaultClass.MEMORY_CGROUP_OOM_KILL
IN_CONTAINER = Subject(SubjectKind.CONTAINER, CONTAINER)


@pytest.fixture
def detector() -> OomKillDetector:
    """A detector whose sensor sees, clearing after 100 s."""
    made = OomKillDetector.build(Config(clear_after_s=100), SURROUNDINGS)
    made.observe(seeing(0, SENSOR))
    return made


def test_kill_is_high_with_both_witnesses(detector: OomKillDetector) -> None:
    """The kernel's choice and the cgroup's count are both given as reasons."""
    (found,) = present(detector, oom_kill(1, kills=3))
    assert (found.subject, found.severity) == (IN_CONTAINER, Severity.HIGH)
    assert [reason.code for reason in found.reasons] == [
        ReasonCode.KERNEL_CHOSE_VICTIM,
        ReasonCode.CGROUP_COUNTED_KILL,
    ]


def test_missing_second_witness_is_said(detector: OomKillDetector) -> None:
    """A cgroup that was gone before it could be read is not agreement."""
    (found,) = present(detector, oom_kill(1, kills=None))
    assert found.reasons[1].code is ReasonCode.SECOND_LAYER_UNKNOWN


def test_host_wide_kill_is_about_the_host(detector: OomKillDetector) -> None:
    """When the host's memory ran out, the victim's container is only the target."""
    (found,) = present(detector, oom_kill(1, scope=OomScope.HOST))
    assert found.subject == Subject(SubjectKind.HOST, HOST)
    assert found.target == IN_CONTAINER


@pytest.mark.parametrize("code", [0, -6])
def test_kill_by_an_operator_stays_quiet(detector: OomKillDetector, code: int) -> None:
    """SIGKILL without the kernel's mark is somebody's order."""
    assert present(detector, death(1, signal.SIGKILL, code=code)) == []


def test_clears_after_a_seen_quiet_time(detector: OomKillDetector) -> None:
    """Quiet counts from the last kill, and only while a kill would have been seen."""
    case = open_case(FAULT, IN_CONTAINER, last_seen=at(50))
    assert detector.tick(tick(149, case)) == []
    (over,) = detector.tick(tick(150, case))
    assert (over.verdict, over.reasons[0].code) == (Verdict.ABSENT, ReasonCode.NO_KILL_SINCE)


def test_blindness_and_losses_begin_the_quiet_time_again(detector: OomKillDetector) -> None:
    """What could have been missed is not quiet."""
    case = open_case(FAULT, IN_CONTAINER, last_seen=at(0))
    detector.observe(blind(50, SENSOR))
    assert detector.tick(tick(500, case)) == []
    detector.observe(seeing(500, SENSOR))
    assert detector.tick(tick(599, case)) == []
    detector.observe(seeing(599, SENSOR, lost=2))
    assert detector.tick(tick(698, case)) == []
    assert [found.verdict for found in detector.tick(tick(699, case))] == [Verdict.ABSENT]


def test_case_of_a_plain_cgroup_ends_with_its_boot(detector: OomKillDetector) -> None:
    """A cgroup that is neither a unit nor a container does not outlive its kernel."""
    (found,) = present(detector, oom_kill(1, where=origin(container=None, cgroup_path="/t/x")))
    assert found.subject == Subject(SubjectKind.CGROUP, "/t/x")
    assert found.lifebound
