"""`host.servers`: how many cores each model server of this host keeps busy, and which processes it has.

A server in a service or a container of its own is measured by its cgroup (`usage_usec` of cpu.stat, which
every cgroup v2 directory has, whatever controllers are on); one that shares its cgroup, as one started in a
login session does, by adding up utime and stime of its process tree (proc(5), /proc/PID/stat). Children that
ended between two looks are missing from the second account, and are in the first.

Looking at every command line is what costs, so a process is looked at `_LOOKS` times (a shell may become a
server by exec) and then left alone until its number is used again or `_ANEW_S` have passed. One in
uninterruptible sleep is looked at another time, because its command line may never come; a server stays what
it was meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from probes.host.identity import Identifier, place_of
from probes.host.known_servers import KnownServer, KnownServers
from probes.host.model_servers import COMPANION_PORTS, ModelServer, looked_at
from probes.host.process_stats import is_asleep
from probes.observation import (
    BlindReason,
    Instant,
    Observation,
    Origin,
    SensorName,
    ServerKind,
    ServerUsage,
    UsageSource,
)
from probes.sensor import SensorBlind

NAME: Final = SensorName("host.servers")
SERVERS_MAX: Final = 32
PIDS_MAX: Final = 256
_COMPANIONS_MAX: Final = 16

_SEARCH_S: Final = 15.0
_ANEW_S: Final = 600.0
_LOOKS: Final = 3
_FOLDERS_MAX: Final = 16
_TICKS: Final = os.sysconf("SC_CLK_TCK")

KINDS: Final = frozenset(
    {
        ServerKind.LLAMA_CPP,
        ServerKind.OLLAMA,
        ServerKind.TENSORRT_LLM,
        ServerKind.VLLM,
        ServerKind.WHISPER,
    }
)
"""What runs a model itself; a gateway passes requests on and belongs on the CPU."""


@dataclass(frozen=True, slots=True)
class _Stat:
    """What one process's stat says: its parent, when it began, and the time that it used."""

    parent: int
    start_ticks: int
    used_s: float


@dataclass(slots=True)
class _Watched:
    """One server: who it is, what its account is read from, and how the account stood at the last look."""

    origin: Origin
    port: int
    folder: str | None
    pids: tuple[int, ...] = ()
    used_s: Mapping[int, float] = field(default_factory=dict)
    looked_s: float | None = None


class ServersSensor:
    """Measures every model server of the host."""

    name = NAME
    period_s = 5.0

    def __init__(
        self,
        *,
        identifier: Identifier,
        root: Path | None,
        known: KnownServers | None = None,
        proc: Path = Path("/proc"),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`root` is where the cgroup v2 hierarchy is mounted, None where it is not.

        `known` is where other sensors look up the servers that this one found.
        """
        self._identifier = identifier
        self._root = None if root is None else str(root)
        self._known = known or KnownServers()
        self._companions: dict[int, KnownServer] = {}
        self._proc = str(proc)
        self._monotonic = monotonic
        self._watched: dict[int, _Watched] = {}
        self._looks: dict[int, int] = {}
        self._parents: dict[int, int] = {}
        self._searched_s: float | None = None
        self._began_s = 0.0

    def __repr__(self) -> str:
        return f"ServersSensor({NAME}, servers={len(self._watched)}, processes={len(self._looks)})"

    def open(self) -> None:
        """Raise SensorBlind on a system without /proc, or whose /proc hides what is not one's own."""
        self.close()
        if not os.path.exists(f"{self._proc}/self/stat"):  # noqa: PTH110 -- hot path, no Path objects
            raise SensorBlind(BlindReason.UNSUPPORTED_PLATFORM, f"there is no {self._proc}")
        if not _bytes(f"{self._proc}/1/stat"):
            raise SensorBlind(
                BlindReason.READ_FAILED,
                f"other users' processes are hidden: {self._proc} is mounted with hidepid",
            )

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return each server's use since the last read; a server that is new is only measured from here."""
        at_s = self._monotonic()
        if self._searched_s is None or at_s - self._searched_s >= _SEARCH_S:
            self._search(at_s)
        if any(server.folder is None for server in self._watched.values()):
            self._learn_parents()
        told = []
        for pid in list(self._watched):
            usage = self._measured(pid, at_s, now)
            if usage is not None:
                told.append(usage)
        servers = (KnownServer(each.origin, each.port, each.pids) for each in self._watched.values())
        self._known.post([*servers, *self._companions.values()])
        return told

    def waiting(self) -> bool:
        """There is always something to measure."""
        return True

    def settle(self) -> None:
        """Nothing to note: what a window held is told or gone."""

    def wakeup_fd(self) -> int | None:
        """A measurement waits for its turn."""
        return None

    def close(self) -> None:
        """Forget everything."""
        self._watched.clear()
        self._companions.clear()
        self._known.post(())
        self._looks.clear()
        self._parents.clear()
        self._searched_s = None

    def _search(self, at_s: float) -> None:
        if self._searched_s is None or at_s - self._began_s >= _ANEW_S:
            self._looks, self._began_s = {}, at_s
        self._searched_s = at_s
        self._parents.clear()
        pids = self._pids()
        looks = self._looks
        self._looks = {pid: looks[pid] for pid in pids if pid in looks}
        self._companions = {pid: one for pid, one in self._companions.items() if self._is_same(pid, one)}
        found: dict[int, ModelServer] = {}
        for pid in pids:
            times, known = self._looks.get(pid, 0), self._watched.get(pid)
            if times >= _LOOKS and known is None:
                continue
            if is_asleep(f"{self._proc}/{pid}"):
                if known is not None:
                    found[pid] = ModelServer(known.origin.server, pid, known.port)
                continue
            self._looks[pid] = times + 1
            server = looked_at(Path(self._proc), pid, companions=True)
            if server is not None and server.kind in KINDS:
                found[pid] = server
            elif server is not None and server.kind in COMPANION_PORTS:
                self._accompany(server)
        self._settle_on(found)

    def _accompany(self, server: ModelServer) -> None:
        if server.pid in self._companions or len(self._companions) >= _COMPANIONS_MAX:
            return
        origin = self._identifier.origin(pid=server.pid)
        if origin.start_ticks is not None:
            self._companions[server.pid] = KnownServer(origin, server.port, (server.pid,), companion=True)

    def _is_same(self, pid: int, known: KnownServer) -> bool:
        stat = self._stat(pid)
        return stat is not None and stat.start_ticks == known.origin.start_ticks

    def _settle_on(self, found: Mapping[int, ModelServer]) -> None:
        """Watch one process for each server: the eldest of its own cgroup, or of its tree."""
        # The command line was seen a moment ago; the process may sleep by now.
        origins = {
            pid: replace(self._identifier.origin(pid=pid), server=server.kind)
            for pid, server in found.items()
        }
        watched: dict[int, _Watched] = {}
        taken: set[str] = set()
        for pid in sorted(found, key=lambda pid: (origins[pid].start_ticks or 0, pid)):
            origin = origins[pid]
            folder = self._own_folder(origin)
            if origin.start_ticks is None or len(watched) >= SERVERS_MAX:
                continue
            if folder in taken or (folder is None and self._has_ancestor(pid, watched)):
                continue
            if folder is not None:
                taken.add(folder)
            known = self._watched.get(pid)
            same = known is not None and known.origin == origin and known.folder == folder
            watched[pid] = known if known and same else _Watched(origin, found[pid].port, folder)
        self._watched = watched

    def _own_folder(self, origin: Origin) -> str | None:
        """Return the folder of a cgroup that holds this server alone, as a service or a container does."""
        path = origin.cgroup_path
        if self._root is None or origin.cgroup_id is None or path is None or path == "/":
            return None
        place = place_of(path)
        unit = place.unit or ""
        if place.container_id is None and (not unit.endswith(".service") or unit.startswith("user@")):
            return None
        folder = f"{self._root}{path}"
        return folder if _bytes(f"{folder}/cpu.stat") else None

    def _has_ancestor(self, pid: int, among: Mapping[int, _Watched]) -> bool:
        for _ in range(32):
            stat = self._stat(pid)
            if stat is None or stat.parent <= 1:
                return False
            pid = stat.parent
            if pid in among:
                return True
        return False

    def _measured(self, pid: int, at_s: float, now: Instant) -> ServerUsage | None:
        server = self._watched[pid]
        stat = self._stat(pid)
        if stat is None or stat.start_ticks != server.origin.start_ticks:
            del self._watched[pid]
            return None
        if server.folder is None:
            source = UsageSource.PROCESS_TREE
            used = self._tree(pid, stat)
            pids = tuple(sorted(used))
        else:
            source = UsageSource.CGROUP
            total_s = _usage_s(_bytes(f"{server.folder}/cpu.stat"))
            pids = self._members(server.folder)
            if total_s is None:  # the cgroup went while we looked: it is looked for anew
                del self._watched[pid]
                self._looks.pop(pid, None)
                return None
            used = {0: total_s}
        before, looked_s = server.used_s, server.looked_s
        server.used_s, server.looked_s, server.pids = used, at_s, pids[:PIDS_MAX]
        window_s = 0.0 if looked_s is None else at_s - looked_s
        if window_s <= 0:
            return None
        # What a process had used before it joined the tree is not known to have been used in this window.
        spent_s = sum(max(0.0, value - before[key]) for key, value in used.items() if key in before)
        return ServerUsage(
            sensor=NAME,
            at=now,
            origin=server.origin,
            started=_moment(stat.start_ticks, now),
            port=server.port,
            cores=spent_s / window_s,
            window_s=window_s,
            source=source,
            pids=server.pids,
        )

    def _members(self, folder: str) -> tuple[int, ...]:
        """Return the processes of a cgroup and of those below it, which are few: a server's own."""
        pids: set[int] = set()
        waiting = deque([folder])
        for _ in range(_FOLDERS_MAX):
            if not waiting:
                break
            folder = waiting.popleft()
            pids.update(int(word) for word in _bytes(f"{folder}/cgroup.procs").split() if word.isdigit())
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                waiting.extend(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
        pids.discard(0)
        return tuple(sorted(pids))

    def _tree(self, root: int, stat: _Stat) -> dict[int, float]:
        """Return the time used by a process and by each of its descendants."""
        children: dict[int, list[int]] = {}
        for pid, parent in self._parents.items():
            children.setdefault(parent, []).append(pid)
        found = {root: stat.used_s}
        waiting = deque([root])
        while waiting and len(found) < PIDS_MAX:
            for child in children.get(waiting.popleft(), ()):
                below = None if child in found else self._stat(child)
                if below is not None:
                    found[child] = below.used_s
                    waiting.append(child)
        return found

    def _learn_parents(self) -> None:
        """Learn the parents of processes that are new since the last look.

        A child of a living process keeps its parent, so a parent is asked for once in a search; the kernel's
        own list of children is an option (CONFIG_PROC_CHILDREN) that not every kernel has.
        """
        known, self._parents = self._parents, {}
        for pid in self._pids():
            parent = known.get(pid)
            if parent is None:
                stat = self._stat(pid)
                parent = None if stat is None else stat.parent
            if parent is not None:
                self._parents[pid] = parent

    def _pids(self) -> list[int]:
        try:
            names = os.listdir(self._proc)  # noqa: PTH208 -- hot path, no Path objects
        except OSError as error:
            raise SensorBlind(BlindReason.READ_FAILED, f"list {self._proc}: {error.strerror}") from error
        return [int(name) for name in names if name.isdecimal()]

    def _stat(self, pid: int) -> _Stat | None:
        # The name stands in brackets and may itself hold brackets and newlines: count from the last one.
        fields = _bytes(f"{self._proc}/{pid}/stat").rpartition(b")")[2].split()
        try:
            used_ticks = int(fields[11]) + int(fields[12])  # fields 14 and 15, proc(5)
            return _Stat(int(fields[1]), int(fields[19]), used_ticks / _TICKS)
        except (IndexError, ValueError):
            return None


def _usage_s(cpu_stat: bytes) -> float | None:
    for line in cpu_stat.splitlines():
        name, _, number = line.partition(b" ")
        if name == b"usage_usec" and number.isdigit():
            return int(number) / 1e6
    return None


def _moment(start_ticks: int, now: Instant) -> Instant:
    boot_ns = start_ticks * 1_000_000_000 // _TICKS
    return Instant(boot_ns, now.unix_ns - (now.boot_ns - boot_ns))


def _bytes(path: str) -> bytes:
    """Return the beginning of a file, nothing where it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
