"""`host.readiness`: which model servers do not listen yet, and how much shared memory they were given.

Both come from files of /proc/PID that any user may read (proc(5)): net/tcp of the server's own network, and
mountinfo of its own mounts. Who is a model server is known from `host.servers`. Once a server listens it is
left alone for the rest of its life, so a host whose servers are up costs nothing here but the asking.

The port is what the command line says, else the kind's usual one; a server that takes its port from the
environment seems never to listen, and what is judged of that wants a second sign.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from probes.host.known_servers import KnownServer, KnownServers
from probes.host.storage_mounts import parse
from probes.observation import BlindReason, Instant, Observation, SensorName, ServerReadiness
from probes.sensor import SensorBlind

NAME: Final = SensorName("host.readiness")
PERIOD_S: Final = 15.0
TELL_S: Final = 600.0
_PAUSES: Final = ((1800.0, PERIOD_S - 1), (43200.0, 60.0))
"""Up to which age of a server that does not listen it is looked at how often; later as seldom as any."""

_TABLE_BYTES: Final = 4 << 20
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_SIZE: Final = re.compile(r"size=(\d{1,15})([kmg]?)")
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_LISTENS: Final = b"0A"  # include/net/tcp_states.h


@dataclass(slots=True)
class _Life:
    """One life of one server: what was found of it, and when it was last told."""

    listens: bool | None
    shared_memory_bytes: int | None
    began_s: float
    told_s: float


class ReadinessSensor:
    """Looks at servers until they listen."""

    name = NAME
    period_s = PERIOD_S

    def __init__(
        self,
        *,
        known: KnownServers,
        proc: Path = Path("/proc"),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._servers = known
        self._proc = str(proc)
        self._monotonic = monotonic
        self._lives: dict[tuple[int, int], _Life] = {}

    def __repr__(self) -> str:
        return f"ReadinessSensor({NAME}, servers={len(self._lives)})"

    def open(self) -> None:
        """Raise SensorBlind where there is no table of sockets to read."""
        self.close()
        if not os.path.exists(f"{self._proc}/self/net/tcp"):  # noqa: PTH110 -- no Path objects, as below
            raise SensorBlind(BlindReason.UNSUPPORTED_PLATFORM, f"there is no {self._proc}/self/net/tcp")

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return what is new of each server, and of each that does not listen yet."""
        at_s = self._monotonic()
        before, self._lives = self._lives, {}
        told: list[Observation] = []
        for server in self._servers():
            pid, ticks = server.origin.pid, server.origin.start_ticks
            if server.companion or pid is None or ticks is None:
                continue
            life = before.get((pid, ticks))
            found = self._look(server, pid, life, at_s)
            self._lives[pid, ticks] = found
            if found is not life:
                told.append(_readiness(server, ticks, found, now))
        return told

    def waiting(self) -> bool:
        """There is always something to look at."""
        return True

    def settle(self) -> None:
        """Nothing to note: what stands is told again."""

    def wakeup_fd(self) -> int | None:
        """A look waits for its turn."""
        return None

    def close(self) -> None:
        """Forget everything."""
        self._lives.clear()

    def _look(self, server: KnownServer, pid: int, life: _Life | None, at_s: float) -> _Life:
        if life is None:
            return _Life(self._listens(pid, server.port), self._shared_memory(pid), at_s, at_s)
        if at_s - life.told_s < _pause_s(life, at_s):
            return life
        listens = life.listens or self._listens(pid, server.port)
        return replace(life, listens=listens, told_s=at_s)

    def _listens(self, pid: int, port: int) -> bool | None:
        """Return whether anything in the network of `pid` listens on `port`."""
        known: bool | None = False
        for name in ("tcp", "tcp6"):
            text = _bytes(f"{self._proc}/{pid}/net/{name}")
            if text is None:
                known = None if name == "tcp" else known  # a kernel without IPv6 has no second table
                continue
            if _has_listener(text, port):
                return True
            if len(text) >= _TABLE_BYTES:
                known = None
        return known

    def _shared_memory(self, pid: int) -> int | None:
        text = _bytes(f"{self._proc}/{pid}/mountinfo") or b""
        for mount in reversed(parse(text.decode(errors="surrogateescape"))):
            if mount.point == "/dev/shm":  # noqa: S108 -- it is what is asked for
                sizes = [found for option in mount.super_options if (found := _SIZE.fullmatch(option))]
                return int(sizes[0][1]) * _UNITS[sizes[0][2]] if sizes else None
        return None


def _pause_s(life: _Life, at_s: float) -> float:
    """Return how long to leave a server alone: a table of sockets takes milliseconds to read."""
    if life.listens:
        return TELL_S
    for younger_s, pause_s in _PAUSES:
        if at_s - life.began_s < younger_s:
            return pause_s
    return TELL_S


def _readiness(server: KnownServer, ticks: int, life: _Life, now: Instant) -> ServerReadiness:
    boot_ns = ticks * 1_000_000_000 // _TICKS
    return ServerReadiness(
        sensor=NAME,
        at=now,
        origin=server.origin,
        started=Instant(boot_ns, now.unix_ns - (now.boot_ns - boot_ns)),
        port=server.port,
        listens=life.listens,
        shared_memory_bytes=life.shared_memory_bytes,
    )


def _has_listener(table: bytes, port: int) -> bool:
    """Return whether a line of net/tcp is a listener on `port`: its second and fourth field."""
    wanted = b":%04X" % port
    for line in table.split(b"\n"):
        fields = line.split(None, 4)
        if len(fields) > 3 and fields[3] == _LISTENS and fields[1].endswith(wanted):
            return True
    return False


def _bytes(path: str) -> bytes | None:
    """Return the beginning of a file, None where it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    parts: list[bytes] = []
    try:
        while sum(map(len, parts)) < _TABLE_BYTES and (part := os.read(descriptor, 1 << 16)):
            parts.append(part)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return b"".join(parts)
