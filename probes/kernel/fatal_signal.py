"""Processes that die of a fault signal (`fatal_signal.bpf.c`)."""

from __future__ import annotations

from collections.abc import Sequence

from probes.host.clock import at_boot_ns
from probes.host.identity import Identifier
from probes.kernel.handed import HandedProgram
from probes.kernel.handover import Handover
from probes.kernel.programs import Attachment, KernelProgram
from probes.observation import FatalSignal, Instant, Observation, SensorName

NAME = SensorName("kernel.fatal_signal")
PROGRAM = KernelProgram(
    sensor=NAME,
    stem="fatal_signal",
    attachments=(Attachment("fatal_signal_deliver", "signal:signal_deliver"),),
    maps=("fatal_signal_events", "fatal_signal_ledger"),
)


class FatalSignalSensor:
    """Says which process a fault signal ends, once a process."""

    name = NAME
    period_s = 0.25

    def __init__(self, *, handover: Handover | None, identifier: Identifier) -> None:
        self._program = HandedProgram(sensor=NAME, stem=PROGRAM.stem, handover=handover)
        self._identifier = identifier

    def __repr__(self) -> str:
        return f"FatalSignalSensor({self._program})"

    def open(self) -> None:
        """Take hold of the ring."""
        self._program.open()

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return the deaths since the last read."""
        self._identifier.keep_warm()
        origins = self._identifier.batch()
        found: list[Observation] = [
            FatalSignal(
                sensor=NAME,
                at=at_boot_ns(event["time_ns"], now),
                origin=origins.origin(event),
                signal=event["signal"],
                code=event["code"],
            )
            for event in self._program.records()
        ]
        return found + list(self._program.losses(now))

    def waiting(self) -> bool:
        """Whether there are events."""
        return self._program.waiting()

    def settle(self) -> None:
        """Note how far the ring is judged and on disk."""
        self._program.settle()

    def wakeup_fd(self) -> int | None:
        """A storm wakes its reader before the ring is full."""
        return self._program.wakeup_fd()

    def close(self) -> None:
        """Let go of the ring."""
        self._program.close()
