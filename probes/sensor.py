"""The Sensor protocol: opened once, read on a timer, closed; and what may go wrong.

A pull interface rather than callbacks: the agent decides when a sensor is drained, so one loop owns the
schedule, back-pressure is plain, and a test calls `read` itself. `wakeup_fd` is for the few sensors whose
kernel side forces a wakeup (rare, grave events): the agent reads at once when it becomes readable.

Error tree: `SensorError` > `SensorBlind` (cannot see, with its reason; the agent goes on without it).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from probes.observation import Blind, BlindReason, Instant, Observation, SensorName


class SensorError(Exception):
    """Anything that a sensor raises on purpose."""


class SensorBlind(SensorError):
    """The sensor cannot see; `blind` says why, `last` is what it could still tell."""

    def __init__(self, reason: BlindReason, detail: str, *, last: Sequence[Observation] = ()) -> None:
        super().__init__(f"{reason}: {detail}")
        self.blind = Blind(reason, detail)
        self.last = tuple(last)


class Sensor(Protocol):
    """One source of observations, owned and called by one thread."""

    @property
    def name(self) -> SensorName:
        """The stable name, unique in the registry."""

    @property
    def period_s(self) -> float:
        """Seconds between two reads."""

    def open(self) -> None:
        """Take hold of what is read; raise SensorBlind when nothing can be seen."""

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return what happened since the last read, losses as a Gap; raise SensorBlind when sight is gone."""

    def waiting(self) -> bool:
        """Whether a read would find something now; cheap, and asked far more often than `read`."""

    def settle(self) -> None:
        """Take note, for a successor of this process, that all that `read` returned is judged and on disk.

        What was read and not settled when a process dies is told by its successor: again where the kernel's
        own tables still know it, else as a Gap with its count.
        """

    def wakeup_fd(self) -> int | None:
        """A descriptor that becomes readable when `read` should not wait, or None."""

    def close(self) -> None:
        """Let go of everything; calling it again does nothing."""


@runtime_checkable
class SeesPart(Protocol):
    """A sensor that may see less than it was asked to, and goes on with the rest."""

    @property
    def left_out(self) -> str:
        """What it cannot see and why, in words for the host's own people; nothing where it sees all."""
