"""Which sensors would see a fault again: the orchestrator's table, held against the detectors' own notes."""

from __future__ import annotations

import pytest

from agent.detectors.registry import DETECTORS
from escalation.model import AgentId, BlindReason, FaultClass, SensorCoverage
from escalation.server.coverage import _WITNESSES, first_heard, with_heartbeat, would_be_seen
from escalation.server.testing import START_NS, heartbeat
from probes.registry import SENSORS

HOST = first_heard(AgentId("spark-1"), START_NS)
_USED = {note.fault_class: frozenset(note.sensors) for kind in DETECTORS for note in kind.FAULTS}


@pytest.mark.parametrize("fault", sorted(_USED))
def test_a_fault_is_believed_gone_only_while_a_sensor_of_its_detector_sees(fault: FaultClass) -> None:
    """Every class that a sensor finds has a witness, and it is one that its detector uses."""
    assert bool(_USED[fault] & _WITNESSES.get(fault, frozenset())) is bool(_USED[fault])


def test_every_witness_is_a_sensor_of_this_release() -> None:
    """A name that no sensor has would make every host believed."""
    assert frozenset().union(*_WITNESSES.values()) <= {sensor.name for sensor in SENSORS}


def test_every_class_but_the_blind_has_a_witness() -> None:
    """What has none would be verified by a host that cannot see it."""
    assert set(FaultClass) - set(_WITNESSES) == {FaultClass.UNKNOWN, FaultClass.MONITOR_BLIND}


@pytest.mark.parametrize(
    ("blind", "seen"),
    [((), True), (("host.logs",), True), (("host.logs", "host.log_files"), False)],
)
def test_one_witness_that_sees_is_enough(blind: tuple[str, ...], *, seen: bool) -> None:
    """A worker that is lost would be told of in the journal or in a followed file."""
    names = ("host.logs", "host.log_files", "http.routes")
    coverage = tuple(
        SensorCoverage(name, BlindReason.READ_FAILED if name in blind else None) for name in names
    )
    host = with_heartbeat(HOST, heartbeat(coverage=coverage))
    assert would_be_seen(host, FaultClass.DISTRIBUTED_WORKER_LOST) is seen
