"""How long the threads of servers wait for a processor (`run_delay.bpf.c`), asked only when somebody waits.

The programs run at every switch, so they sleep while the host's own pressure (/proc/pressure/cpu) is low.
They are woken when it reaches `WAKE_PERCENT`, and every `LOOK_EVERY_S` for one window, so that what is usual
for a server is known before it is needed. After the pressure has gone they stay awake for `LINGER_S`: that
the waiting ended is news as well. On a kernel without pressure accounting there are only the looks.

Which threads are watched is written into the program's table through its descriptor, which takes no
capability either.
"""

from __future__ import annotations

import os
import struct
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from probes.host.known_servers import KnownServer, KnownServers
from probes.host.neighbours import CgroupUse, Use, busiest, cores_between
from probes.host.stalls import stalls_of
from probes.kernel.asleep import Sleepers
from probes.kernel.handed import attached_entry
from probes.kernel.handover import HandedMap, Handover, Layout
from probes.kernel.libbpf import Libbpf, LibraryMissing, Map
from probes.kernel.programs import Attachment, KernelProgram
from probes.observation import BlindReason, Instant, Observation, RunDelay, SensorName
from probes.sensor import SensorBlind

NAME: Final = SensorName("kernel.run_delay")
PROGRAM: Final = KernelProgram(
    sensor=NAME,
    stem="run_delay",
    attachments=(
        Attachment("run_delay_wakeup", "sched:sched_wakeup", asleep=True),
        Attachment("run_delay_wakeup_new", "sched:sched_wakeup_new", asleep=True),
        Attachment("run_delay_switch", "sched:sched_switch", asleep=True),
    ),
    maps=("run_delay_threads", "run_delay_servers"),
)
WAKE_PERCENT: Final = 10.0
LINGER_S: Final = 60.0
LOOK_EVERY_S: Final = 600.0
THREADS_MAX: Final = 4096
_SERVERS_MAX: Final = 32  # RUN_DELAY_SERVERS

_Counts = tuple[int, ...]


@dataclass(slots=True)
class _Watched:
    """A server with its place in the program's table, and how its counts stood at the last window."""

    server: KnownServer
    threads: int
    counts: _Counts


class RunDelaySensor:
    """Says how long each server's threads wait to run, while the host is short of processors."""

    name = NAME
    period_s = 5.0

    def __init__(
        self,
        *,
        handover: Handover | None,
        known: KnownServers,
        use: CgroupUse,
        proc: Path = Path("/proc"),
        pressure: Path = Path("/proc/pressure/cpu"),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._handover = handover
        self._known = known
        self._use = use
        self._proc = str(proc)
        self._pressure = str(pressure)
        self._monotonic = monotonic
        self._sleepers: Sleepers | None = None
        self._threads: Map | None = None
        self._servers: Map | None = None
        self._read_server: Callable[[bytes], dict[str, Any]] | None = None
        self._thread_of: Callable[[int], bytes] | None = None
        self._slots: dict[int, _Watched] = {}
        self._tids: dict[int, int] = {}
        self._woken_s = self._window_s = 0.0
        self._pressed_s: float | None = None
        self._looked_s: float | None = None
        self._before: Use | None = None
        self._usual: dict[str, float] = {}
        self._rested: Use | None = None

    def __repr__(self) -> str:
        return f"RunDelaySensor({NAME}, {self._sleepers}, threads={len(self._tids)})"

    def open(self) -> None:
        """Take hold of the programs, which sleep; raise SensorBlind when there are none."""
        self.close()
        attached_entry(self._handover, NAME)
        assert self._handover is not None, "an entry was found in it"
        try:
            libbpf = Libbpf()
        except LibraryMissing as error:
            raise SensorBlind(BlindReason.NO_LIBRARY, str(error)) from error
        handed = self._handover.maps(NAME)
        try:
            self._threads = _table(handed["run_delay_threads"], libbpf)
            self._servers = _table(handed["run_delay_servers"], libbpf)
            self._read_server = _layout(handed["run_delay_servers"]).reader()
            self._thread_of = partial(_thread, _layout(handed["run_delay_threads"]))
        except KeyError as error:
            raise SensorBlind(BlindReason.READ_FAILED, f"the manifest has no map {error}") from error
        self._sleepers = Sleepers(program=PROGRAM, handover=self._handover, libbpf=libbpf)
        try:
            for tid in list(self._threads.keys()):  # what a predecessor was watching
                self._threads.delete(tid)
        except OSError as error:
            raise SensorBlind(BlindReason.READ_FAILED, str(error.strerror)) from error

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return each server's waits since the last read, nothing while the programs sleep."""
        if self._sleepers is None:
            raise SensorBlind(BlindReason.READ_FAILED, "the sensor is not open")
        at_s = self._monotonic()
        some = stalls_of(self._pressure).some_avg10
        if some is not None and some >= WAKE_PERCENT:
            self._pressed_s = at_s
        try:
            if not self._sleepers.awake:
                if self._known() and (self._is_pressed(at_s) or self._look_is_due(at_s)):
                    self._wake(at_s)
                return ()
            told = self._windows(now, at_s, some)
            if not self._is_pressed(at_s) or not self._slots:
                self._sleep(at_s)
        except OSError as error:
            raise SensorBlind(BlindReason.READ_FAILED, str(error.strerror)) from error
        return told

    def waiting(self) -> bool:
        """The pressure is looked at each time."""
        return True

    def settle(self) -> None:
        """Nothing to note: what a window held is told or gone."""

    def wakeup_fd(self) -> int | None:
        """A window waits for its turn."""
        return None

    def close(self) -> None:
        """Put the programs to sleep and forget everything."""
        if self._sleepers is not None:
            self._sleepers.sleep()
        self._sleepers = self._threads = self._servers = None
        self._slots.clear()
        self._tids.clear()
        self._pressed_s = self._looked_s = self._before = self._rested = None

    def _is_pressed(self, at_s: float) -> bool:
        return self._pressed_s is not None and at_s - self._pressed_s < LINGER_S

    def _look_is_due(self, at_s: float) -> bool:
        return self._looked_s is None or at_s - self._looked_s >= LOOK_EVERY_S

    def _wake(self, at_s: float) -> None:
        assert self._sleepers is not None
        self._slots.clear()
        self._watch()
        if not self._slots:
            return
        self._woken_s = self._window_s = at_s
        self._before = self._use.look(at_s)
        if self._rested is not None:  # what the others used on average while nobody waited
            self._usual = cores_between(self._rested, self._before)
        self._sleepers.wake()

    def _sleep(self, at_s: float) -> None:
        assert self._sleepers is not None
        self._sleepers.sleep()
        self._looked_s = at_s
        self._rested = self._use.look(at_s)

    def _windows(self, now: Instant, at_s: float, some: float | None) -> list[RunDelay]:
        window_s = at_s - self._window_s
        if window_s <= 0 or self._before is None:
            return []
        use = self._use.look(at_s)
        told = []
        for slot, watched in self._slots.items():
            counts = self._counts(slot)
            spent = [after - before for after, before in zip(counts, watched.counts, strict=True)]
            watched.counts = counts
            origin = watched.server.origin
            told.append(
                RunDelay(
                    sensor=NAME,
                    at=now,
                    origin=origin,
                    window_s=window_s,
                    threads=watched.threads,
                    waits=spent[0],
                    waited_s=spent[1] / 1e9,
                    p99_s=percentile_s(spent[2:], 0.99),
                    cpu_some_avg10=some,
                    neighbours=busiest(self._before, use, self._usual, but=origin.cgroup_path),
                )
            )
        self._window_s, self._before = at_s, use
        self._watch()
        return told

    def _watch(self) -> None:
        """Bring the program's table of threads up to the servers that there are now."""
        assert self._threads is not None
        assert self._thread_of is not None
        servers = self._known()[:_SERVERS_MAX]
        known = {watched.server.origin: slot for slot, watched in self._slots.items()}
        free = iter(sorted(set(range(_SERVERS_MAX)) - set(known.values())))
        slots: dict[int, _Watched] = {}
        wanted: dict[int, int] = {}
        for server in servers:
            slot = known.get(server.origin)
            if slot is None:
                slot = next(free)
                slots[slot] = _Watched(server, 0, self._counts(slot))
            else:
                slots[slot] = self._slots[slot]
            tids = [tid for pid in server.pids for tid in self._threads_of(pid)]
            slots[slot].threads = len(tids)
            wanted |= dict.fromkeys(tids[: THREADS_MAX - len(wanted)], slot)
        for tid in [tid for tid, slot in self._tids.items() if wanted.get(tid) != slot]:
            self._threads.delete(tid.to_bytes(4, sys.byteorder))
            del self._tids[tid]
        for tid, slot in wanted.items():
            if tid not in self._tids:
                self._threads.update(tid.to_bytes(4, sys.byteorder), self._thread_of(slot))
                self._tids[tid] = slot
        self._slots = slots

    def _threads_of(self, pid: int) -> list[int]:
        try:
            names = os.listdir(f"{self._proc}/{pid}/task")  # noqa: PTH208 -- hot path, no Path objects
        except OSError:
            return []
        return [int(name) for name in names if name.isdecimal()]

    def _counts(self, slot: int) -> _Counts:
        assert self._servers is not None
        assert self._read_server is not None
        raw = self._servers.lookup(slot.to_bytes(4, sys.byteorder))
        if raw is None:
            raise SensorBlind(BlindReason.READ_FAILED, "the table of servers has no such place")
        server = self._read_server(raw)
        return (
            server["waits"],
            server["waited_ns"],
            *struct.unpack(f"={len(server['classes']) // 8}Q", server["classes"]),
        )


def percentile_s(classes: Sequence[int], share: float) -> float | None:
    """Return the upper bound in seconds of the class in which that share of the waits ends; None without one.

    Class i holds waits of less than 2^i microseconds; the last one holds the rest.
    """
    total = sum(classes)
    if total <= 0:
        return None
    seen = 0
    for number, count in enumerate(classes):
        seen += count
        if seen >= total * share:
            return float(1 << number) / 1e6
    return None


def _table(handed: HandedMap, libbpf: Libbpf) -> Map:
    entry = handed.entry
    return Map(libbpf=libbpf, fd=handed.fd, key_size=entry.key_size, value_size=entry.value_size)


def _layout(handed: HandedMap) -> Layout:
    if handed.entry.value is None:
        raise SensorBlind(BlindReason.READ_FAILED, f"the manifest has no layout for {handed.entry.name}")
    return handed.entry.value


def _thread(layout: Layout, slot: int) -> bytes:
    """Return the entry of a thread of that server, which neither runs nor waits yet."""
    raw = bytearray(layout.size)
    place = next(field for field in layout.fields if field.name == "server")
    raw[place.offset : place.offset + place.size] = slot.to_bytes(place.size, sys.byteorder)
    return bytes(raw)
