"""The kernel log as the third source of an Xid: real lines, one event, one case."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from agent.detectors.gpu_xid import Config, GpuXids
from agent.testing import SURROUNDINGS, present
from escalation.model import FaultClass, Subject, SubjectKind, XidEvidence
from probes.gpu.facts import XidFacts, XidSource
from probes.host import clock
from probes.host.cgroups import CgroupPaths
from probes.host.identity import Identifier
from probes.logs.journal import Journal
from probes.logs.sensor import JOURNAL, LogSensor
from probes.observation import GpuXid, Observation, Origin, SensorName
from tests.probes.logs.journals import REMOTE, HostJournal, kernel

pytestmark = [pytest.mark.skipif(not REMOTE.exists(), reason="systemd-journal-remote is not installed")]
pytest.importorskip("systemd._reader", reason="systemd-python is not installed")

PCI = "0000:05:00.0"


def _told(sensor: str, source: XidSource) -> GpuXid:
    facts = XidFacts(pci=PCI, number=79, source=source)
    return GpuXid(SensorName(sensor), clock.now(), Origin(), facts)


def _read(sensor: LogSensor) -> list[Observation]:
    pause = threading.Event()
    for _ in range(600):
        if sensor.waiting():
            return list(sensor.read(clock.now()))
        pause.wait(0.05)
    raise AssertionError("nothing came in half a minute")


def test_three_tellings_are_one_event(tmp_path: Path) -> None:
    """Tracepoint, NVML and the kernel log tell of one Xid: one case, counted once, with three sources."""
    journal = HostJournal(tmp_path)
    sensor = LogSensor(
        name=JOURNAL,
        identifier=Identifier(cgroups=CgroupPaths(root=None, monotonic=time.monotonic)),
        source=lambda: Journal(folders=(journal.folder,), machine_id=journal.machine_id),
    )
    sensor.open()
    detector = GpuXids.build(Config(), SURROUNDINGS)
    first = present(detector, _told("kernel.xid", XidSource.TRACEPOINT), _told("gpu.nvml", XidSource.NVML))

    journal.write(kernel("NVRM: Xid (PCI:0000:05:00): 79, pid=4194001, name=python3, GPU has fallen"))
    again = present(detector, *_read(sensor))
    sensor.close()

    found = [*first, *again]
    assert {(each.fault_class, each.subject) for each in found} == {
        (FaultClass.GPU_DEVICE_FAULT, Subject(SubjectKind.GPU, PCI))
    }
    assert sum(each.count for each in found) == 1
    tally = detector._tallies.get(PCI, 79)
    assert tally is not None
    assert (tally.count, tally.sources) == (1, 3)


def test_the_log_alone_opens_a_case(tmp_path: Path) -> None:
    """A driver without tracepoint, and NVML that does not answer: the kernel log is left."""
    journal = HostJournal(tmp_path)
    sensor = LogSensor(
        name=JOURNAL,
        identifier=Identifier(cgroups=CgroupPaths(root=None, monotonic=time.monotonic)),
        source=lambda: Journal(folders=(journal.folder,), machine_id=journal.machine_id),
    )
    sensor.open()
    journal.write(kernel("NVRM: Xid (PCI:0000:05:00): 79, GPU has fallen off the bus."))
    (found,) = present(GpuXids.build(Config(), SURROUNDINGS), *_read(sensor))
    sensor.close()
    assert (found.fault_class, found.subject) == (FaultClass.GPU_DEVICE_FAULT, Subject(SubjectKind.GPU, PCI))
    (evidence,) = [each for each in found.evidence if isinstance(each, XidEvidence)]
    assert (evidence.number, evidence.sources) == (79, 1)
