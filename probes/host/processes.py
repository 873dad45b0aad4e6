"""`host.processes`: processes that are stuck or stopped, and connections that nobody takes.

Every `PERIOD_S` it asks for the accept queues of the listening sockets, and looks whether a known server is
stopped. All processes are looked at only while the load average says that there may be somebody stuck: a task
in uninterruptible sleep counts as load, so a host whose load is below `LOAD` has had none for a while.

What was stuck, stopped or left waiting is told at every look from the second one on, and once more when that
is over: the same process with the same account of the scheduler, the same socket with never an empty queue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from probes.host.backlog import Backlog, backlogs
from probes.host.cgroups import CgroupMounts
from probes.host.identity import Identifier
from probes.host.known_servers import KnownServer, KnownServers
from probes.host.process_stats import ProcessStat, stat_of
from probes.host.sockets import SocketsUnreadable
from probes.host.stalls import small_file
from probes.host.stuck import StuckTask, StuckTasks
from probes.observation import (
    BacklogState,
    BlindReason,
    Condition,
    Instant,
    Observation,
    Origin,
    ProcessCondition,
    SensorName,
)
from probes.sensor import SensorBlind

NAME: Final = SensorName("host.processes")
PERIOD_S: Final = 15.0
LOAD: Final = 0.3
_MEMBERS: Final = 64
_SOCKETS: Final = 64
_STOPPED: Final = frozenset("Tt")


@dataclass(slots=True)
class _Stuck:
    """A task that was stuck at every look since `since`; `told` is the process that it was told as."""

    task: StuckTask
    since: Instant
    told: Origin | None = None


@dataclass(slots=True)
class _Stopped:
    """A server that was stopped at every look since `since`."""

    origin: Origin
    since: Instant
    used_s: float


@dataclass(slots=True)
class _Waiting:
    """A socket that had connections waiting at every look since `since`, and who may take them."""

    backlog: Backlog
    since: Instant
    used_s: float | None
    told: Origin | None = None


class ProcessesSensor:
    """Says which process does not get on, and which socket has connections that nobody takes."""

    name = NAME
    period_s = PERIOD_S

    def __init__(
        self,
        *,
        identifier: Identifier,
        known: KnownServers,
        mounts: CgroupMounts,
        proc: Path = Path("/proc"),
        sockets: Callable[[], tuple[Backlog, ...]] = backlogs,
        least_load: float = LOAD,
    ) -> None:
        """`least_load` is the load of the last minute from which on all processes are looked at."""
        self._identifier = identifier
        self._known = known
        self._root = mounts.unified
        self._proc = str(proc)
        self._sockets = sockets
        self._least_load = least_load
        self._tasks = StuckTasks(proc=self._proc, mounts=mounts)
        self._stuck: dict[int, _Stuck] = {}
        self._stopped: dict[int, _Stopped] = {}
        self._waiting: dict[int, _Waiting] = {}

    def __repr__(self) -> str:
        held = f"stuck={len(self._stuck)}, stopped={len(self._stopped)}, waiting={len(self._waiting)}"
        return f"ProcessesSensor({NAME}, {held})"

    def open(self) -> None:
        """Raise SensorBlind where neither processes nor sockets can be looked at."""
        self.close()
        if stat_of(f"{self._proc}/self") is None:
            raise SensorBlind(BlindReason.UNSUPPORTED_PLATFORM, f"there is no {self._proc}")
        self._backlogs()

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return who has not got on since the last look, and who has again."""
        servers = self._known()
        return [*self._conditions(servers, now), *self._stops(servers, now), *self._queues(servers, now)]

    def waiting(self) -> bool:
        """There is always something to look at."""
        return True

    def settle(self) -> None:
        """Nothing to note: what is stuck is told at every look."""

    def wakeup_fd(self) -> int | None:
        """A look waits for its turn."""
        return None

    def close(self) -> None:
        """Forget everything."""
        self._stuck.clear()
        self._stopped.clear()
        self._waiting.clear()

    def _conditions(self, servers: Sequence[KnownServer], now: Instant) -> list[Observation]:
        if not self._stuck and self._load() < self._least_load:
            return []
        pids = sorted({pid for server in servers for pid in server.pids})
        tasks = self._tasks.look(pids)
        told: list[Observation] = []
        stuck, self._stuck = self._stuck, {}
        for tid, task in tasks.items():
            before = stuck.get(tid)
            same = before is not None and before.task == task
            known = before if before is not None and same else _Stuck(task, now)
            self._stuck[tid] = known
            if same and not self._tasks.is_frozen(self._identifier.memory_paths(task.pid)):
                known.told = known.told or self._identifier.origin(pid=task.pid, stuck=True)
                told.append(_condition(known.told, Condition.STUCK, known.since, now, 0.0))
        still = {each.task.pid for each in self._stuck.values() if each.told is not None}
        for tid, before in stuck.items():
            if before.told is None or before.task.pid in still or self._stuck.get(tid) is before:
                continue
            still.add(before.task.pid)
            told.append(self._over(before, now))
        return told

    def _over(self, stuck: _Stuck, now: Instant) -> ProcessCondition:
        task = stuck.task
        stat = stat_of(f"{self._proc}/{task.pid}/task/{task.tid}")
        assert stuck.told is not None, "only what was told is over"
        if stat is None or stat.start_ticks != task.start_ticks:
            process = stat_of(f"{self._proc}/{task.pid}")
            gone = process is None or process.start_ticks != stuck.told.start_ticks
            condition = Condition.GONE if gone else Condition.RUNS
            return _condition(stuck.told, condition, stuck.since, now, None)
        used_s = max(0.0, stat.used_s - task.used_s)
        return _condition(stuck.told, Condition.RUNS, stuck.since, now, used_s)

    def _stops(self, servers: Sequence[KnownServer], now: Instant) -> list[Observation]:
        """Look at the main process of each server, which is few."""
        told: list[Observation] = []
        stopped, self._stopped = self._stopped, {}
        for server in servers:
            pid = server.origin.pid
            stat = None if pid is None else stat_of(f"{self._proc}/{pid}")
            if pid is None or stat is None or stat.state not in _STOPPED:
                continue
            known = stopped.pop(pid, None)
            if known is None or known.origin != server.origin:
                self._stopped[pid] = _Stopped(server.origin, now, stat.used_s)
                continue
            self._stopped[pid] = known
            told.append(_condition(known.origin, Condition.STOPPED, known.since, now, 0.0))
        for pid, known in stopped.items():
            stat = stat_of(f"{self._proc}/{pid}")
            gone = stat is None or stat.start_ticks != known.origin.start_ticks
            used_s = None if stat is None or gone else max(0.0, stat.used_s - known.used_s)
            condition = Condition.GONE if gone else Condition.RUNS
            told.append(_condition(known.origin, condition, known.since, now, used_s))
        return told

    def _queues(self, servers: Sequence[KnownServer], now: Instant) -> list[Observation]:
        told: list[Observation] = []
        before, self._waiting = self._waiting, {}
        sockets = self._backlogs()
        for backlog in [each for each in sockets if each.waiting > 0][:_SOCKETS]:
            pids = self._takers(backlog, servers)
            stats = {pid: stat for pid in pids if (stat := stat_of(f"{self._proc}/{pid}")) is not None}
            used_s = sum(stat.used_s for stat in stats.values()) if stats else None
            known = before.pop(backlog.cookie, None)
            if known is None:
                self._waiting[backlog.cookie] = _Waiting(backlog, now, used_s)
                continue
            known.backlog = backlog
            self._waiting[backlog.cookie] = known
            known.told = self._taker(backlog, stats, servers)
            told.append(_state(known, now, stats, used_s))
        cookies = {each.cookie for each in sockets}
        for cookie, known in before.items():
            if known.told is not None:
                told.append(_state(known, now, None, None, closed=cookie not in cookies))
        return told

    def _takers(self, backlog: Backlog, servers: Sequence[KnownServer]) -> tuple[int, ...]:
        """Return who may take the connections: the server of that port, or the members of the group."""
        at_port = [server for server in servers if server.port == backlog.port]
        if backlog.cgroup_id is not None:
            own = [server for server in at_port if server.origin.cgroup_id == backlog.cgroup_id]
            at_port = own or at_port
        if len(at_port) == 1:
            return at_port[0].pids[:_MEMBERS]
        place = self._identifier.origin(cgroup_id=backlog.cgroup_id)
        if self._root is None or place.cgroup_path in (None, "/"):
            return ()
        words = small_file(f"{self._root}{place.cgroup_path}/cgroup.procs").split()
        return tuple(int(word) for word in words[:_MEMBERS] if word.isdigit() and word != b"0")

    def _taker(
        self, backlog: Backlog, stats: dict[int, ProcessStat], servers: Sequence[KnownServer]
    ) -> Origin:
        """Return the process that the socket is told of: a stopped one first, else the eldest."""
        stopped = [pid for pid, stat in stats.items() if stat.state in _STOPPED]
        server = next((one for one in servers if one.origin.pid in stats), None)
        if server is not None and not stopped:
            return server.origin
        candidates = stopped or list(stats)
        if not candidates:
            return self._identifier.origin(cgroup_id=backlog.cgroup_id)
        eldest = min(candidates, key=lambda pid: (stats[pid].start_ticks, pid))
        return self._identifier.origin(pid=eldest, cgroup_id=backlog.cgroup_id)

    def _backlogs(self) -> tuple[Backlog, ...]:
        try:
            return self._sockets()
        except SocketsUnreadable as error:
            raise SensorBlind(BlindReason.READ_FAILED, str(error)) from error

    def _load(self) -> float:
        """Return the load of the last minute; what cannot be read is taken for a load."""
        try:
            return float(small_file(f"{self._proc}/loadavg").split()[0])
        except (IndexError, ValueError):
            return self._least_load


def _condition(
    origin: Origin, condition: Condition, since: Instant, now: Instant, used_s: float | None
) -> ProcessCondition:
    return ProcessCondition(
        sensor=NAME,
        at=now,
        origin=origin,
        condition=condition,
        lasted_s=now.since_s(since),
        used_cpu_s=used_s,
    )


def _state(
    waiting: _Waiting,
    now: Instant,
    stats: dict[int, ProcessStat] | None,
    used_s: float | None,
    *,
    closed: bool = False,
) -> BacklogState:
    backlog, over = waiting.backlog, stats is None
    assert waiting.told is not None, "only what is told has a state"
    progress = None if used_s is None or waiting.used_s is None else max(0.0, used_s - waiting.used_s)
    return BacklogState(
        sensor=NAME,
        at=now,
        origin=waiting.told,
        address=backlog.address,
        port=backlog.port,
        backlog=0 if over else backlog.waiting,
        limit=backlog.limit,
        lasted_s=now.since_s(waiting.since),
        processes=len(stats) if stats else None,
        stopped=sum(stat.state in _STOPPED for stat in stats.values()) if stats else None,
        used_cpu_s=progress,
        closed=closed,
    )
