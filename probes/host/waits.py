"""`host.pressure`: who waits on this host for processors, memory and disks, and which servers are held back.

Reads /proc/pressure and /proc/vmstat through descriptors that stay open, and for each server that
`host.servers` knows the pressure file and the quota of its control group. What is told is what moved: a host
where nobody waits says so once a minute.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from probes.host.identity import Identifier
from probes.host.known_servers import KnownServer, KnownServers
from probes.host.quotas import Held, Quotas
from probes.host.stalls import NOT_TOLD, Stalls, stalls_in, stalls_of
from probes.observation import (
    BlindReason,
    CgroupPressure,
    Instant,
    Observation,
    Origin,
    PressureState,
    SensorName,
)
from probes.sensor import SensorBlind

NAME: Final = SensorName("host.pressure")
TELL_S: Final = 60.0
_ANEW_S: Final = 60.0
_WAITS_PERCENT: Final = 1.0
_PAGES: Final = 8
_BYTES: Final = 16384
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_FILES: Final = ("pressure/cpu", "pressure/memory", "pressure/io", "vmstat")
_VMSTAT: Final = re.compile(
    rb"^(allocstall|pswpin|pswpout|pgmajfault|workingset_refault)\w* (\d{1,19})$", re.MULTILINE
)


@dataclass(slots=True)
class _Group:
    """A server's group: where its quota is, when that was looked for, and how the account stood."""

    folder: str | None
    sought_s: float
    held: Held | None
    told: bool = False


class PressureSensor:
    """Says how much is waited for on this host, and which server is held back."""

    name = NAME
    period_s = 5.0

    def __init__(
        self,
        *,
        identifier: Identifier,
        known: KnownServers,
        quotas: Quotas,
        root: Path | None,
        proc: Path = Path("/proc"),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`root` is where the cgroup v2 hierarchy is mounted, None where it is not."""
        self._identifier = identifier
        self._known = known
        self._quotas = quotas
        self._root = root
        self._proc = proc
        self._monotonic = monotonic
        self._files: dict[str, int] = {}
        self._groups: dict[int, _Group] = {}
        self._counters: dict[bytes, int] = {}
        self._read_s = 0.0
        self._told_s: float | None = None
        self._waited = False

    def __repr__(self) -> str:
        return f"PressureSensor({NAME}, files={sorted(self._files)}, groups={len(self._groups)})"

    def open(self) -> None:
        """Open the files; raise SensorBlind without /proc/vmstat. The others may be missing."""
        self.close()
        for name in _FILES:
            with contextlib.suppress(OSError):
                self._files[name] = os.open(self._proc / name, os.O_RDONLY | os.O_CLOEXEC)
        if "vmstat" not in self._files:
            self.close()
            raise SensorBlind(BlindReason.UNSUPPORTED_PLATFORM, f"{self._proc}/vmstat cannot be opened")
        self._counters, self._read_s = self._counts(), self._monotonic()

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return how much was waited for since the last read, when that is worth telling."""
        if not self._files:
            raise SensorBlind(BlindReason.READ_FAILED, "the sensor is not open")
        at_s = self._monotonic()
        window_s, self._read_s = at_s - self._read_s, at_s
        if window_s <= 0:
            return []
        state = self._state(now, window_s)
        waits = _waits(state)
        found: list[Observation] = []
        if waits or self._waited or self._told_s is None or at_s - self._told_s >= TELL_S:
            found.append(state)
            self._told_s = at_s
        self._waited = waits
        servers = self._known()
        pids = {server.origin.pid for server in servers}
        self._groups = {pid: group for pid, group in self._groups.items() if pid in pids}
        for server in servers:
            told = self._group(server, now, at_s, window_s)
            if told is not None:
                found.append(told)
        return found

    def waiting(self) -> bool:
        """There is always something to look at."""
        return True

    def settle(self) -> None:
        """Nothing to note: every look is whole."""

    def wakeup_fd(self) -> int | None:
        """A look waits for its turn."""
        return None

    def close(self) -> None:
        """Close the files; closing again does nothing."""
        files, self._files = self._files, {}
        for descriptor in files.values():
            os.close(descriptor)
        self._groups.clear()
        self._told_s = None

    def _state(self, now: Instant, window_s: float) -> PressureState:
        counters = self._counts()
        before, self._counters = self._counters, counters
        cpu, memory, io = (stalls_in(self._text(name)) for name in _FILES[:3])

        def since(name: bytes) -> int:
            return max(0, counters.get(name, 0) - before.get(name, 0))

        return PressureState(
            sensor=NAME,
            at=now,
            window_s=window_s,
            cpu_some_avg10=cpu.some_avg10,
            cpu_some_avg60=cpu.some_avg60,
            io_full_avg10=io.full_avg10,
            io_full_avg60=io.full_avg60,
            memory_some_avg10=memory.some_avg10,
            memory_full_avg10=memory.full_avg10,
            memory_full_avg60=memory.full_avg60,
            major_faults=since(b"pgmajfault"),
            refaulted_pages=since(b"workingset_refault"),
            swapped_in_pages=since(b"pswpin"),
            swapped_out_pages=since(b"pswpout"),
            allocation_stalls=since(b"allocstall"),
        )

    def _group(
        self, server: KnownServer, now: Instant, at_s: float, window_s: float
    ) -> CgroupPressure | None:
        origin = server.origin
        if origin.pid is None:
            return None
        group = self._sought(origin.pid, at_s)
        was, group.held = group.held, None if group.folder is None else self._quotas.held(group.folder)
        held, stalls = group.held, self._stalls(origin)
        if held is None and not group.told and not stalls.some_avg10:
            return None
        group.told = True
        spent = Held(0.0, 0, 0, 0.0) if held is None or was is None else _since(held, was)
        up_s = None if origin.start_ticks is None else now.boot_ns / 1e9 - origin.start_ticks / _TICKS
        return CgroupPressure(
            sensor=NAME,
            at=now,
            origin=origin,
            up_s=up_s,
            window_s=window_s,
            quota_cores=None if held is None else held.cores,
            periods=spent.periods,
            throttled_periods=spent.throttled_periods,
            throttled_s=spent.throttled_s,
            memory_some_avg10=stalls.some_avg10,
            memory_full_avg10=stalls.full_avg10,
        )

    def _sought(self, pid: int, at_s: float) -> _Group:
        """Return what is known of a server's group; its quota is sought anew now and then."""
        group = self._groups.get(pid)
        if group is not None and at_s - group.sought_s < _ANEW_S:
            return group
        folder = self._quotas.folder(self._identifier.memory_paths(pid))
        if group is None or group.folder != folder:
            held = None if folder is None else self._quotas.held(folder)
            group = self._groups[pid] = _Group(folder, at_s, held, told=group is not None and group.told)
        group.sought_s = at_s
        return group

    def _stalls(self, origin: Origin) -> Stalls:
        path = origin.cgroup_path
        if self._root is None or path is None or path == "/" or origin.cgroup_id is None:
            return NOT_TOLD
        return stalls_of(f"{self._root}{path}/memory.pressure")

    def _counts(self) -> dict[bytes, int]:
        counts: dict[bytes, int] = {}
        for name, number in _VMSTAT.findall(self._text("vmstat")):
            counts[name] = counts.get(name, 0) + int(number)
        return counts

    def _text(self, name: str) -> bytes:
        descriptor = self._files.get(name)
        if descriptor is None:
            return b""
        parts: list[bytes] = []
        try:
            # The kernel gives a file of many records a page at a time.
            while len(parts) < _PAGES and (part := os.pread(descriptor, _BYTES, sum(map(len, parts)))):
                parts.append(part)
        except OSError as error:
            if name == "vmstat":
                raise SensorBlind(BlindReason.READ_FAILED, f"/proc/{name}: {error.strerror}") from error
        return b"".join(parts)


def _since(held: Held, was: Held) -> Held:
    """Return what an account grew by; one that began anew grew by nothing that is known."""
    return Held(
        held.cores,
        max(0, held.periods - was.periods),
        max(0, held.throttled_periods - was.throttled_periods),
        max(0.0, held.throttled_s - was.throttled_s),
    )


def _waits(state: PressureState) -> bool:
    shares = (state.cpu_some_avg10, state.io_full_avg10, state.memory_some_avg10)
    return (
        any(share is not None and share >= _WAITS_PERCENT for share in shares)
        or state.allocation_stalls > 0
        or state.swapped_in_pages + state.swapped_out_pages > 0
    )
