"""The capture that was handed over, whichever way the loader was told to go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from probes.http.segment import Segment
from probes.kernel.handover import Handover
from probes.kernel.http_capture import NAME, HttpCapture
from probes.kernel.packet_capture import PACKETS, PacketCapture
from probes.observation import Gap, Instant


class Capture(Protocol):
    """A source of segments, owned and called by one thread."""

    def open(self) -> None:
        """Take hold of it; raise SensorBlind when nothing can be seen."""

    def segments(self) -> Iterator[Segment]:
        """Yield what was captured since the last time; raise SensorBlind when sight is gone."""

    def losses(self, now: Instant) -> list[Gap]:
        """Return what was lost since the last time, or nothing."""

    def waiting(self) -> bool:
        """Whether there is something to read."""

    def settle(self) -> None:
        """Take note that all that was told is on disk."""

    def wakeup_fd(self) -> int | None:
        """A descriptor that becomes readable when reading should not wait for the timer, or None."""

    def close(self) -> None:
        """Let go; calling it again does nothing."""


def capture_of(handover: Handover | None) -> Capture:
    """Return the capture that the manifest speaks of, not yet open."""
    if handover is not None and PACKETS in handover.maps(NAME):
        return PacketCapture(handover=handover)
    return HttpCapture(handover=handover)
