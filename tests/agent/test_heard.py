"""What a sensor tells of again and again, and has not told of for long."""

from __future__ import annotations

from agent.host.heard import THINGS_MAX, Heard
from agent.testing import at, blind, open_case, seeing, tick
from escalation.model import FaultClass, ReasonCode, Subject, SubjectKind
from probes.observation import SensorName

SENSOR = "host.peers"
FAULT = FaultClass.NETWORK_RETRANSMISSION


def thing(number: int = 0) -> Subject:
    return Subject(SubjectKind.PEER, f"10.0.0.{number} 0")


def is_gone(heard: Heard, seconds: float, *, last_seen: float = 0, number: int = 0) -> bool:
    case = open_case(FAULT, thing(number), last_seen=at(last_seen))
    found = heard.gone(case, tick(seconds), 100)
    assert found is None or [reason.code for reason in found.reasons] == [ReasonCode.NOT_SEEN_SINCE]
    return found is not None


def test_counts_from_what_was_told_last_while_the_sensor_sees() -> None:
    """By the sensor, or by the case; what another sensor says of itself is no matter."""
    heard = Heard(SensorName(SENSOR))
    assert not is_gone(heard, 1e6)
    heard.sight(seeing(10, "host.memory"))
    assert not is_gone(heard, 1e6)
    heard.sight(seeing(10, SENSOR))
    assert [is_gone(heard, seconds) for seconds in (109, 110)] == [False, True]
    heard.take(thing(), at(50))
    heard.take(thing(1), at(149))
    assert [is_gone(heard, seconds) for seconds in (149, 150)] == [False, True]
    assert not is_gone(heard, 150, last_seen=60)


def test_what_nobody_could_see_does_not_count() -> None:
    """Blindness, lost samples, and a look that was not whole begin anew."""
    heard = Heard(SensorName(SENSOR))
    heard.sight(seeing(0, SENSOR))
    heard.sight(blind(90, SENSOR))
    assert not is_gone(heard, 1e6)
    heard.sight(seeing(200, SENSOR))
    assert [is_gone(heard, seconds) for seconds in (299, 300)] == [False, True]
    heard.sight(seeing(290, SENSOR, lost=1))
    assert [is_gone(heard, seconds) for seconds in (389, 390)] == [False, True]
    heard.blur(at(380))
    assert [is_gone(heard, seconds) for seconds in (479, 480)] == [False, True]


def test_what_was_forgotten_for_want_of_room_is_not_taken_for_gone() -> None:
    """Of a thing that may have been told of, the time counts from when one was forgotten."""
    heard = Heard(SensorName(SENSOR))
    heard.sight(seeing(0, SENSOR))
    for number in range(THINGS_MAX + 1):
        heard.take(thing(number), at(50))
    assert [is_gone(heard, seconds) for seconds in (149, 150)] == [False, True]
