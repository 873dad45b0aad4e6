"""Errors that the NVIDIA driver reports by its own tracepoint (`xid.bpf.c`), without NVML and on any GPU.

A driver that is not loaded, or that has no such tracepoint, leaves this sensor blind, and nothing else: NVML
tells of the same errors. It is looked for whenever the programs are loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from probes.gpu.facts import XidFacts, XidSource, pci_address
from probes.host.clock import at_boot_ns
from probes.kernel.handed import HandedProgram
from probes.kernel.handover import Handover
from probes.kernel.programs import Attachment, KernelProgram
from probes.observation import GpuXid, Instant, Observation, Origin, SensorName

NAME = SensorName("kernel.xid")
PROGRAM = KernelProgram(
    sensor=NAME,
    stem="xid",
    attachments=(Attachment("xid_reported", "nvidia:nvidia_dev_xid"),),
    maps=("xid_events", "xid_ledger"),
    module="nvidia",
)


class XidSensor:
    """Says which GPU reported which Xid."""

    name = NAME
    period_s = 0.25

    def __init__(self, *, handover: Handover | None) -> None:
        self._program = HandedProgram(sensor=NAME, stem=PROGRAM.stem, handover=handover)

    def __repr__(self) -> str:
        return f"XidSensor({self._program})"

    def open(self) -> None:
        """Take hold of the ring."""
        self._program.open()

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return the Xids since the last read."""
        found: list[Observation] = [observation(event, now) for event in self._program.records()]
        return found + list(self._program.losses(now))

    def waiting(self) -> bool:
        """Whether there are events."""
        return self._program.waiting()

    def settle(self) -> None:
        """Note how far the ring is judged and on disk."""
        self._program.settle()

    def wakeup_fd(self) -> int | None:
        """Every Xid is told at once."""
        return self._program.wakeup_fd()

    def close(self) -> None:
        """Let go of the ring."""
        self._program.close()


def observation(event: dict[str, Any], now: Instant) -> GpuXid:
    """Return what a record says; a device that is no PCI address is not known."""
    device = event["device"].partition(b"\0")[0].decode("ascii", "replace")
    facts = XidFacts(pci=pci_address(device), number=event["number"], source=XidSource.TRACEPOINT)
    return GpuXid(NAME, at_boot_ns(event["time_ns"], now), Origin(), facts)
