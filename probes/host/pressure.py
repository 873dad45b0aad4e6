"""`host.memory`: how much memory the host has left, and whether anybody waits for it.

Reads /proc/meminfo, /proc/vmstat and /proc/pressure/memory through descriptors that stay open (proc(5);
Documentation/accounting/psi.rst); a look costs some 20 microseconds. It is taken every `SAMPLE_S` seconds and
told when something moved, and every `TELL_S` seconds otherwise: a host at rest makes few observations, a host
that fills up makes one for every look. On unified-memory machines this is the GPU's memory as well, which
NVML does not tell there.
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

from probes.observation import BlindReason, Instant, MemoryState, Observation, SensorName
from probes.sensor import SensorBlind

NAME: Final = SensorName("host.memory")
SAMPLE_S: Final = 2.0
TELL_S: Final = 10.0
_MOVED_SHARE: Final = 1 / 256
"""Of all memory: what available memory has to move by to be worth telling before its time."""

_SHORT_SHARE: Final = 1 / 8
"""Of all memory: with less available, every look is worth telling."""

_BYTES: Final = 16384
_PAGES: Final = 8
_SLACK_S: Final = 0.1
"""The work loop looks in steps; a look that is due within this is taken now."""

_MEMINFO: Final = re.compile(
    rb"^(MemTotal|MemFree|MemAvailable|Cached|SwapTotal|SwapFree): +(\d{1,15}) kB$", re.MULTILINE
)
_VMSTAT: Final = re.compile(rb"^(allocstall_\w+|pswpin|pgmajfault|oom_kill) (\d{1,19})$", re.MULTILINE)
_PRESSURE: Final = re.compile(rb"^(some|full) avg10=(\d{1,3}\.\d{1,2}) .*?total=(\d{1,19})$", re.MULTILINE)
_NEEDED: Final = frozenset({"MemTotal", "MemFree", "MemAvailable"})


@dataclass(frozen=True, slots=True)
class _Look:
    """What the files said at one moment; the counters count since the boot."""

    at_s: float
    sizes: dict[str, int]
    counters: dict[str, int]
    averages: dict[str, float]
    full_us: int

    def moved_since(self, told: _Look) -> bool:
        if self.sizes["MemAvailable"] < self.sizes["MemTotal"] * _SHORT_SHARE:
            return True
        moved = abs(self.sizes["MemAvailable"] - told.sizes["MemAvailable"])
        if moved > self.sizes["MemTotal"] * _MOVED_SHARE:
            return True
        return (
            self.full_us != told.full_us
            or self.averages != told.averages
            or self._count("allocstall") != told._count("allocstall")
            or self._count("oom_kill") != told._count("oom_kill")
        )

    def _count(self, name: str) -> int:
        return self.counters.get(name, 0)

    def since(self, name: str, told: _Look) -> int:
        return max(0, self._count(name) - told._count(name))


class MemorySensor:
    """Looks at the host's memory and tells what moved."""

    name = NAME
    period_s = 0.5

    def __init__(
        self, *, proc: Path = Path("/proc"), monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._proc = proc
        self._monotonic = monotonic
        self._files: dict[str, int] = {}
        self._told: _Look | None = None
        self._looked_s = 0.0
        self._telling: _Look | None = None
        self._failed = ""

    def __repr__(self) -> str:
        return f"MemorySensor({NAME}, files={sorted(self._files)})"

    def open(self) -> None:
        """Open the files; raise SensorBlind without /proc/meminfo. The others may be missing."""
        self.close()
        for name in ("meminfo", "vmstat", "pressure/memory"):
            with contextlib.suppress(OSError):
                self._files[name] = os.open(self._proc / name, os.O_RDONLY | os.O_CLOEXEC)
        if "meminfo" not in self._files:
            raise SensorBlind(BlindReason.UNSUPPORTED_PLATFORM, f"{self._proc}/meminfo cannot be opened")
        self._look_at(self._monotonic())

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return how memory stands, when that is worth telling."""
        if not self.waiting():
            return ()
        look, self._telling = self._telling, None
        if look is None:
            raise SensorBlind(BlindReason.READ_FAILED, self._failed)
        told, self._told = self._told or look, look
        return (_state(look, told, now),)

    def waiting(self) -> bool:
        """Look, when the last look is `SAMPLE_S` ago, and say whether there is anything to tell."""
        at_s = self._monotonic()
        if self._files and at_s - self._looked_s >= SAMPLE_S - _SLACK_S:
            self._look_at(at_s)
        return self._telling is not None or bool(self._failed)

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
        self._told = self._telling = None
        self._failed = ""

    def _look_at(self, at_s: float) -> None:
        self._looked_s = at_s
        try:
            look, told = self._look(at_s), self._told
        except SensorBlind as error:  # `waiting` is asked where nothing may be raised; the read raises it
            self._failed, self._telling = error.blind.detail, None
            return
        if told is None or at_s - told.at_s >= TELL_S - _SLACK_S or look.moved_since(told):
            self._telling = look

    def _look(self, at_s: float) -> _Look:
        sizes = {name.decode(): int(kib) * 1024 for name, kib in _MEMINFO.findall(self._text("meminfo"))}
        if missing := sorted(_NEEDED - sizes.keys()):
            raise SensorBlind(BlindReason.READ_FAILED, f"/proc/meminfo has no {missing[0]}")
        counters: dict[str, int] = {}
        for name, number in _VMSTAT.findall(self._text("vmstat")):
            key = "allocstall" if name.startswith(b"allocstall") else name.decode()
            counters[key] = counters.get(key, 0) + int(number)
        averages, full_us = {}, 0
        for kind, share, total in _PRESSURE.findall(self._text("pressure/memory")):
            averages[kind.decode()] = float(share)
            if kind == b"full":
                full_us = int(total)
        return _Look(at_s, sizes, counters, averages, full_us)

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
            if name == "meminfo":
                raise SensorBlind(BlindReason.READ_FAILED, f"/proc/{name}: {error.strerror}") from error
        return b"".join(parts)


def _state(look: _Look, told: _Look, now: Instant) -> MemoryState:
    sizes = look.sizes
    return MemoryState(
        sensor=NAME,
        at=now,
        total_bytes=sizes["MemTotal"],
        available_bytes=sizes["MemAvailable"],
        free_bytes=sizes["MemFree"],
        cached_bytes=sizes.get("Cached", 0),
        swap_total_bytes=sizes.get("SwapTotal", 0),
        swap_free_bytes=sizes.get("SwapFree", 0),
        some_avg10=look.averages.get("some"),
        full_avg10=look.averages.get("full"),
        window_s=look.at_s - told.at_s,
        full_stalled_s=max(0, look.full_us - told.full_us) / 1e6,
        allocation_stalls=look.since("allocstall", told),
        swapped_in_pages=look.since("pswpin", told),
        major_faults=look.since("pgmajfault", told),
        oom_kills=look.since("oom_kill", told),
    )
