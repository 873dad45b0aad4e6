"""F50: sensors that cannot see."""

from __future__ import annotations

import pytest

from agent.detectors.blind_sensor import BlindSensor, Config
from agent.finding import Verdict
from agent.testing import SURROUNDINGS, blind, open_case, present, seeing, tick
from escalation.model import BlindReason as WireReason, FaultClass, ReasonCode, Severity, Subject, SubjectKind
from probes.observation import BlindReason

SENSOR = "kernel.oom_kill"
SUBJECT = Subject(SubjectKind.SENSOR, SENSOR)


@pytest.fixture
def detector() -> BlindSensor:
    """A detector with the default grace of a minute."""
    return BlindSensor.build(Config(), SURROUNDINGS)


def test_blind_past_the_grace_is_a_case(detector: BlindSensor) -> None:
    """The finding names the sensor, the reason and for how long."""
    assert present(detector, blind(0, SENSOR, BlindReason.NO_HEADERS), tick(59)) == []
    (found,) = present(detector, tick(60))
    assert (found.subject, found.severity) == (SUBJECT, Severity.MEDIUM)
    assert found.evidence[0].reason is WireReason.NO_HEADERS  # type: ignore[union-attr]
    assert found.evidence[0].silent_s == 60  # type: ignore[union-attr]
    assert present(detector, tick(61)) == []


def test_disabled_by_configuration_stays_quiet(detector: BlindSensor) -> None:
    """Somebody decided that; the heartbeat's coverage shows it."""
    assert present(detector, blind(0, SENSOR, BlindReason.DISABLED), tick(9999)) == []


def test_a_driver_that_has_no_tracepoint_stays_quiet(detector: BlindSensor) -> None:
    """NVML tells of the same errors; any other reason for its blindness is a case."""
    seen = blind(0, "kernel.xid", BlindReason.NO_KERNEL_SUPPORT)
    assert present(detector, seen, tick(9999)) == []
    assert len(present(detector, blind(10000, "kernel.xid", BlindReason.NO_HEADERS), tick(10060))) == 1


def test_a_host_without_a_journal_stays_quiet(detector: BlindSensor) -> None:
    """There is nothing to be blind to; a journal that may not be read is a case."""
    seen = blind(0, "host.logs", BlindReason.UNSUPPORTED_PLATFORM)
    assert present(detector, seen, tick(9999)) == []
    assert len(present(detector, blind(10000, "host.logs", BlindReason.NO_PRIVILEGE), tick(10060))) == 1


def test_starting_sensor_stays_quiet(detector: BlindSensor) -> None:
    """Blind until its descriptors arrive, within the grace."""
    assert present(detector, blind(0, SENSOR), seeing(30, SENSOR), tick(99)) == []


def test_clears_when_it_sees_again_even_after_a_restart(detector: BlindSensor) -> None:
    """The word that it sees is enough, and each tick repeats it for a case taken over from before."""
    (over,) = detector.observe(seeing(1, SENSOR))
    assert (over.verdict, over.reasons[0].code) == (Verdict.ABSENT, ReasonCode.SENSOR_SEES_AGAIN)
    case = open_case(FaultClass.MONITOR_BLIND, SUBJECT)
    assert [found.verdict for found in detector.tick(tick(2, case))] == [Verdict.ABSENT]


@pytest.mark.parametrize(
    ("sensor", "reason", "clears"),
    [
        (SENSOR, BlindReason.DISABLED, True),
        ("kernel.xid", BlindReason.NO_KERNEL_SUPPORT, True),
        ("kernel.xid", BlindReason.NO_HEADERS, False),
    ],
)
def test_clears_when_the_sensor_is_switched_off_or_not_missed(
    detector: BlindSensor, sensor: str, reason: BlindReason, clears: bool
) -> None:
    """A person decided that, or there is nothing to be seen any more: it says so, and not that it sees."""
    case = open_case(FaultClass.MONITOR_BLIND, Subject(SubjectKind.SENSOR, sensor))
    assert present(detector, blind(1, sensor, reason)) == []
    found = [(one.verdict, one.reasons[0].code) for one in detector.tick(tick(2, case))]
    assert found == ([(Verdict.ABSENT, ReasonCode.NOT_WATCHED)] if clears else [])


def test_keeps_open_while_nothing_is_heard(detector: BlindSensor) -> None:
    """A case of a sensor of which nothing is known stays open."""
    assert detector.tick(tick(1e6, open_case(FaultClass.MONITOR_BLIND, SUBJECT))) == []


def test_loss_is_not_blindness(detector: BlindSensor) -> None:
    """A sensor that lost samples sees; the loss is counted elsewhere."""
    assert present(detector, seeing(0, SENSOR, lost=17), tick(999)) == []


def test_every_reason_has_a_word_on_the_wire() -> None:
    """Each reason that a sensor can give exists in the shared vocabulary."""
    assert {reason.value for reason in BlindReason} <= {reason.value for reason in WireReason}
