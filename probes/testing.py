"""Doubles for those who consume sensors: one that plays a script, one that replays a recording.

Both keep the Sensor protocol to the letter: reading before `open` or after `close` raises, blindness raises
SensorBlind, and each counts how often it was opened and closed.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from probes import recording
from probes.gpu.facts import ClockReason, GpuFacts, GpuIdentity, RecoveryAction, pci_of
from probes.observation import (
    Blind,
    BlindReason,
    GpuProcess,
    GpuState,
    Instant,
    Observation,
    SensorName,
)
from probes.sensor import SensorBlind


def instant(seconds: float, *, unix_s: float = 1_800_000_000) -> Instant:
    """Return the moment `seconds` after boot, on a host that booted at `unix_s`."""
    return Instant(boot_ns=round(seconds * 1e9), unix_ns=round((unix_s + seconds) * 1e9))


def gpu_state(
    seconds: float, *, processes: Sequence[GpuProcess] | None = (), index: int = 0, **facts: Any
) -> GpuState:
    """Return what a busy, healthy GPU with dedicated memory says, with other facts where they are given."""
    identity = GpuIdentity(uuid=f"GPU-{index:08x}", pci=pci_of(0, index + 1, 0), index=index)
    healthy: dict[str, Any] = {
        "gpu": identity,
        "name": "NVIDIA GPU",
        "sm_clock_mhz": 2400,
        "sm_clock_max_mhz": 3000,
        "utilisation_percent": 95,
        "memory_utilisation_percent": 60,
        "power_w": 150.0,
        "power_limit_w": 175.0,
        "temperature_celsius": 70,
        "memory_used_bytes": 16 * 2**30,
        "memory_total_bytes": 24 * 2**30,
        "clock_reasons": int(ClockReason.SOFTWARE_POWER_CAP),
        "recovery_action": int(RecoveryAction.NONE),
    }
    told = None if processes is None else tuple(processes)
    return GpuState(SensorName("gpu.nvml"), instant(seconds), GpuFacts(**(healthy | facts)), told)


class ScriptedSensor:
    """Gives what it was told to give, one batch a read, and is blind when told to be.

    `wake` makes its wakeup descriptor readable, as a program does that forces a wakeup.
    """

    def __init__(
        self,
        *,
        name: SensorName,
        batches: Iterable[Sequence[Observation]] = (),
        period_s: float = 0.25,
        blind: Blind | None = None,
        wakes: bool = False,
    ) -> None:
        self.name = name
        self.period_s = period_s
        self.blind = blind
        self.opened = 0
        self.closed = 0
        self.settled = 0
        self._batches: deque[Sequence[Observation]] = deque(batches)
        self._is_open = False
        self._wakes = wakes
        self._pipe: tuple[int, int] | None = None

    def __repr__(self) -> str:
        state = "blind" if self.blind else "open" if self._is_open else "closed"
        return f"ScriptedSensor({self.name}, {state}, waiting={len(self._batches)})"

    def go_blind(self, reason: BlindReason, detail: str = "") -> None:
        """Be blind from now on, at `open` and at `read`."""
        self.blind = Blind(reason, detail)

    def see_again(self) -> None:
        """End the blindness."""
        self.blind = None

    def wake(self) -> None:
        """Ask to be read at once."""
        if self._pipe is None:
            raise ValueError(f"sensor {self.name} is closed or was made without wakes=True")
        os.write(self._pipe[1], b"!")

    def open(self) -> None:
        """Open, or raise SensorBlind when told to."""
        self._raise_if_blind()
        self.opened += 1
        self._is_open = True
        if self._wakes and self._pipe is None:
            self._pipe = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) if hasattr(os, "pipe2") else os.pipe()

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return the next batch, or nothing when the script is at its end."""
        del now
        self._raise_if_blind()
        if not self._is_open:
            raise SensorBlind(BlindReason.READ_FAILED, "the sensor is not open")
        if self._pipe is not None:
            self._quieten(self._pipe[0])
        return self._batches.popleft() if self._batches else ()

    def waiting(self) -> bool:
        """Whether the script goes on, or blindness has to be told."""
        return bool(self._batches) or self.blind is not None

    def settle(self) -> None:
        """Count how often everything was settled."""
        self.settled += 1

    def wakeup_fd(self) -> int | None:
        """The descriptor that `wake` makes readable."""
        return self._pipe[0] if self._pipe is not None else None

    def close(self) -> None:
        """Close; calling it again does nothing."""
        if self._is_open:
            self.closed += 1
        self._is_open = False
        if self._pipe is not None:
            for fd in self._pipe:
                os.close(fd)
            self._pipe = None

    def _raise_if_blind(self) -> None:
        if self.blind is not None:
            raise SensorBlind(self.blind.reason, self.blind.detail)

    @staticmethod
    def _quieten(fd: int) -> None:
        try:
            os.read(fd, 4096)
        except BlockingIOError:
            return


class ReplaySensor(ScriptedSensor):
    """Gives the observations of a recording, each when its moment has come."""

    def __init__(self, *, name: SensorName, lines: Iterable[str], period_s: float = 0.25) -> None:
        super().__init__(name=name, period_s=period_s)
        seen = [o for o in recording.read(lines) if o.sensor == name]
        self._due = deque(sorted(seen, key=lambda o: o.at.boot_ns))

    def waiting(self) -> bool:
        """Whether the recording goes on; the clock decides at the read."""
        return bool(self._due) or super().waiting()

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return what was seen up to `now`."""
        found = list(super().read(now))
        while self._due and self._due[0].at.boot_ns <= now.boot_ns:
            found.append(self._due.popleft())
        return found
