"""Doubles for the agent's ports: a clock, a sensor, a supervisor, an uplink and a disk that a test drives."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from agent.testing import at
from agent.uplink.delivery import LinkStatus
from agent.uplink.spooling import Spool, Spooling
from escalation.model import Body, BootId, Report
from escalation.outbox import Depth, OutboxUnwritable, Stored
from probes.kernel.handover import Handover
from probes.observation import Instant, Observation, SensorName
from probes.sensor import SensorBlind
from probes.settings import SensorSettings


class ManualClock:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.now = at(0)

    def __call__(self) -> Instant:
        """Return the present moment."""
        return self.now

    def forward(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        step = int(seconds * 1e9)
        self.now = Instant(self.now.boot_ns + step, self.now.unix_ns + step)

    def jump_wall(self, seconds: float) -> None:
        """Set the wall clock, forward or back; the boot clock does not notice."""
        self.now = Instant(self.now.boot_ns, self.now.unix_ns + int(seconds * 1e9))


@dataclass
class ScriptedSensor:
    """A sensor that says what a test puts into `says`; an exception in there is raised."""

    name: SensorName
    period_s: float = 0.25
    says: list[Observation | Exception] = field(default_factory=list)
    refuses: SensorBlind | None = None
    opened: int = 0
    closed: int = 0
    reads: int = 0
    settled: int = 0
    wakeup: int | None = None

    def open(self) -> None:
        """Open, or refuse as told."""
        if self.refuses is not None:
            raise self.refuses
        self.opened += 1

    def read(self, now: Instant) -> Sequence[Observation]:  # noqa: ARG002  # the protocol's
        """Return what was put in."""
        self.reads += 1
        said: list[Observation] = []
        while self.says:
            item = self.says.pop(0)
            if isinstance(item, Exception):
                raise item
            said.append(item)
        if self.wakeup is not None:
            os.set_blocking(self.wakeup, False)
            with contextlib.suppress(BlockingIOError):
                os.read(self.wakeup, 4096)
        return said

    def waiting(self) -> bool:
        """Whether a test put anything in."""
        return bool(self.says)

    def settle(self) -> None:
        """Count it."""
        self.settled += 1

    def wakeup_fd(self) -> int | None:
        """Return the descriptor that a test writes to the other end of."""
        return self.wakeup

    def close(self) -> None:
        """Count it."""
        self.closed += 1


class FakeSupervisor:
    """A service manager that remembers what it was told, and keeps duplicates of descriptors."""

    present = True

    def __init__(self, *, watchdog_s: float | None = None) -> None:
        self.watchdog_s = watchdog_s
        self.told: list[str] = []
        self.store: list[tuple[str, int]] = []

    def tell(self, *lines: str) -> None:
        """Remember."""
        self.told.extend(lines)

    def keep(self, name: str, descriptor: int) -> None:
        """Keep a duplicate, beside others of the same name."""
        self.store.append((name, os.dup(descriptor)))

    def drop(self, name: str) -> None:
        """Close everything of that name."""
        for kept, descriptor in self.store:
            if kept == name:
                os.close(descriptor)
        self.store = [entry for entry in self.store if entry[0] != name]

    def kept(self) -> Sequence[tuple[str, int]]:
        """Return duplicates, as a new process would get them."""
        return [(name, os.dup(descriptor)) for name, descriptor in self.store]


class LoopbackLink:
    """An uplink to nowhere: takes what waits, keeps it, and acknowledges it while `open` is set."""

    def __init__(self, *, spooling: Spooling) -> None:
        self._spooling = spooling
        self._woken = asyncio.Event()
        self.open = True
        self.payloads: list[bytes] = []
        self.acknowledged = 0

    async def run(self) -> None:
        """Drain the spool whenever woken."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self.open and (
                waiting := await self._spooling.pending(after_row=0, limit=100, max_bytes=1 << 20)
            ):
                self.payloads += [stored.payload for stored in waiting]
                self.acknowledged += len(waiting)
                await self._spooling.acknowledge(waiting[-1].boot_id, waiting[-1].sequence)

    def wake(self) -> None:
        """Take what waits, soon."""
        self._woken.set()

    def status(self) -> LinkStatus:
        """Return how it is."""
        return LinkStatus(connected=self.open, acknowledged=self.acknowledged)


def builders(
    *sensors: ScriptedSensor,
) -> Callable[[Handover | None, SensorSettings], dict[SensorName, Callable[[], ScriptedSensor]]]:
    """Return a registry of these sensors."""

    def build(_: Handover | None, __: SensorSettings) -> dict[SensorName, Callable[[], ScriptedSensor]]:
        return {sensor.name: lambda sensor=sensor: sensor for sensor in sensors}  # type: ignore[misc]

    return build


class FlakySpool:
    """A real spool on a disk that a test can break or hang, and whose contents it can lose."""

    def __init__(self, *, open_spool: Callable[[], Spool]) -> None:
        self._open_spool = open_spool
        self._spool: Spool | None = None
        self._boot_id: BootId | None = None
        self._forgets = False
        self._answers = threading.Event()
        self._answers.set()
        self.broken = False
        self.unmeasured = False

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Let no call come back before the end."""
        self._answers.clear()
        try:
            yield
        finally:
            self._answers.set()

    def opened(self) -> Self:
        """Open the spool behind it."""
        self._check()
        self._spool = self._open_spool()
        return self

    def forget(self) -> None:
        """Lose every note and begin another numbering at the next append, as a quarantine does."""
        self._forgets = True

    @property
    def boot_id(self) -> BootId:
        """The numbering."""
        return self._boot_id or self._real.boot_id

    def append(
        self, bodies: Sequence[Body], *, now_ns: int, notes: Mapping[str, bytes | None] | None = None
    ) -> tuple[Report, ...]:
        """Commit, unless broken."""
        self._check()
        if self._forgets:
            self._forgets = False
            self._real.append((), now_ns=1, notes=dict.fromkeys(self._real.notes("")))
            self._boot_id = BootId("00000000-0000-4000-8000-00000000ffff")
        reports = self._real.append(bodies, now_ns=now_ns, notes=notes or {})
        return tuple(replace(report, boot_id=self.boot_id) for report in reports)

    def notes(self, prefix: str) -> dict[str, bytes]:
        """Return notes, unless broken."""
        self._check()
        return self._real.notes(prefix)

    def pending(self, *, after_row: int, limit: int, max_bytes: int) -> tuple[Stored, ...]:
        """Return what waits."""
        return self._real.pending(after_row=after_row, limit=limit, max_bytes=max_bytes)

    def acknowledge(self, boot_id: BootId, sequence: int) -> int:
        """Forget."""
        return self._real.acknowledge(boot_id, sequence)

    def set_aside(self, row: int, *, now_ns: int) -> None:
        """Set aside."""
        self._real.set_aside(row, now_ns=now_ns)

    def depth(self) -> Depth:
        """Return how much waits, unless that cannot be told."""
        if self.unmeasured:
            raise OutboxUnwritable("the disk gives nothing to read, says the test")
        return self._real.depth()

    def close(self) -> None:
        """Close."""
        self._real.close()

    @property
    def _real(self) -> Spool:
        assert self._spool is not None
        return self._spool

    def _check(self) -> None:
        self._answers.wait()
        if self.broken:
            raise OutboxUnwritable("the disk is full, says the test")
