"""The sensor on a scripted capture: what it tells, when, and what it does when pieces are lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from probes.host.cgroups import CgroupPaths
from probes.host.identity import Identifier
from probes.host.model_servers import Servers
from probes.http.facts import Ending, UnobservedReason
from probes.http.routes import RouteSensor
from probes.http.segment import Segment
from probes.kernel.http_capture import NAME
from probes.observation import (
    BlindReason,
    Exchange,
    Gap,
    Instant,
    Observation,
    RequestsInFlight,
    Seeing,
    Unobserved,
)
from probes.sensor import SensorBlind
from probes.testing import instant
from tests.probes.http.wire import Wire, chat, response

_ANSWER = response(b'{"model":"m","choices":[{"message":{"content":"Yes."},"finish_reason":"stop"}]}')


class ScriptedCapture:
    """Gives the segments that it was given, and loses or goes blind when told to."""

    def __init__(self, *batches: Sequence[Segment]) -> None:
        self.batches = list(batches)
        self.lost = 0
        self.blind = False
        self.calls: list[str] = []

    def open(self) -> None:
        self.calls.append("open")

    def segments(self) -> Iterator[Segment]:
        if self.blind:
            raise SensorBlind(BlindReason.READ_FAILED, "told to")
        yield from self.batches.pop(0) if self.batches else ()

    def losses(self, now: Instant) -> list[Gap]:
        lost, self.lost = self.lost, 0
        return [Gap(NAME, now, Seeing(), lost)] if lost else []

    def waiting(self) -> bool:
        return bool(self.batches)

    def settle(self) -> None:
        self.calls.append("settle")

    def wakeup_fd(self) -> int | None:
        return 9

    def close(self) -> None:
        self.calls.append("close")


def sensor(capture: ScriptedCapture, tmp_path: Path) -> RouteSensor:
    """Return a sensor on a host that has no cgroups and no processes."""
    paths = CgroupPaths(root=None, monotonic=lambda: 0.0)
    identifier = Identifier(cgroups=paths, proc=tmp_path)
    return RouteSensor(
        capture=capture, servers=Servers(identifier=identifier, root=None, monotonic=lambda: 0.0)
    )


def of(kind: type, seen: Sequence[Observation]) -> list[Observation]:
    """Return those of one kind."""
    return [one for one in seen if isinstance(one, kind)]


def test_an_exchange_is_told_with_its_own_moment(tmp_path: Path) -> None:
    """The observation stands at the end of the exchange on the wire, not at the time of the read."""
    wire = Wire().opened().client(chat()).wait(2).server(_ANSWER)
    watching = sensor(ScriptedCapture(wire.segments), tmp_path)
    watching.open()
    (told,) = of(Exchange, watching.read(instant(20)))
    assert isinstance(told, Exchange)
    assert told.at == Instant(boot_ns=12 * 10**9, unix_ns=instant(12).unix_ns)
    assert (told.facts.name.model, told.origin.cgroup_id) == ("qwen3-32b", 77)


def test_waiting_requests_are_told_every_few_seconds(tmp_path: Path) -> None:
    """Once in five seconds while nothing is answered, and no more when it is."""
    wire = Wire().opened().client(chat())
    capture = ScriptedCapture(wire.segments)
    watching = sensor(capture, tmp_path)
    told = [len(of(RequestsInFlight, watching.read(instant(10 + tick * 0.25)))) for tick in range(48)]
    assert sum(told) == 3
    assert watching.waiting()
    answered = Wire(at_ns=23 * 10**9, up_seq=wire.up_seq, down_seq=wire.down_seq).server(_ANSWER)
    capture.batches.append(answered.segments)
    assert len(of(Exchange, watching.read(instant(23)))) == 1
    assert of(RequestsInFlight, watching.read(instant(30))) == []
    assert not watching.waiting()


def test_a_loss_makes_what_was_under_way_unobserved(tmp_path: Path) -> None:
    """The sensor tells the loss, and nothing that it touched is told as a fault."""
    wire = Wire().opened().client(chat())
    capture = ScriptedCapture(wire.segments)
    watching = sensor(capture, tmp_path)
    watching.read(instant(10))
    capture.lost = 3
    (gap,) = of(Gap, watching.read(instant(11)))
    assert isinstance(gap, Gap)
    assert gap.lost == 3
    wire.down_seq = (wire.down_seq + 100) % (1 << 32)
    capture.batches.append(wire.wait(5).server(_ANSWER[100:], flags=1).segments[3:])
    seen = [*watching.read(instant(16)), *watching.read(instant(30)), *watching.read(instant(60))]
    assert [o for o in of(Exchange, seen) if o.facts.ending is not Ending.COMPLETE] == []  # type: ignore[union-attr]
    reasons = {o.facts.reason for o in of(Unobserved, seen) if isinstance(o, Unobserved)}
    assert reasons == {UnobservedReason.LOST}


def test_blindness_of_the_capture_is_the_sensors(tmp_path: Path) -> None:
    """A capture that cannot be read blinds the sensor with its reason."""
    capture = ScriptedCapture()
    capture.blind = True
    with pytest.raises(SensorBlind) as caught:
        sensor(capture, tmp_path).read(instant(1))
    assert caught.value.blind.reason is BlindReason.READ_FAILED


def test_the_rest_is_the_captures(tmp_path: Path) -> None:
    """Opening, settling, waking and closing are passed on."""
    capture = ScriptedCapture([])
    watching = sensor(capture, tmp_path)
    watching.open()
    watching.settle()
    assert watching.wakeup_fd() == 9
    assert watching.waiting()
    watching.close()
    assert capture.calls == ["open", "settle", "close"]
