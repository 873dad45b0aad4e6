"""What was changed on this host that is no fault: what an operator asks about first when there is one.

Services and containers that started or ended, reloads of the service manager, sleeps, another GPU driver.
Told beside the heartbeats, few: each kind and subject at once, then again after a pause that doubles from a
minute to an hour while it goes on, with the number of times. What a timer starts each minute is told once an
hour. Nothing but a unit's name or a container's id is in it.

A service's start is seen by its cgroup; where no program watches cgroups, it is told when the manager says
that the service has been up for long.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agent.subjects import subject_of
from escalation.model import HostChange, HostChangeKind, Subject, SubjectKind
from probes.gpu.facts import DriverFacts
from probes.observation import GpuDriver, Instant, ManagerReloaded, Observation, Origin, Suspended
from probes.observed.services import CgroupChanged, UnitEnded, UnitUp

KNOWN_MAX: Final = 256
"""How many pairs of kind and subject are remembered; the one that was quiet the longest goes first."""

AT_ONCE: Final = 16
"""How many changes are told beside one heartbeat; the others wait for the next."""

FIRST_PAUSE_S: Final = 60.0
LONGEST_PAUSE_S: Final = 3600.0

_SAME_START_S: Final = 30.0
_UP_AT_MOST_S: Final = 720.0
"""What has been up for longer began before this agent did."""

_TOLD: Final = frozenset({SubjectKind.UNIT, SubjectKind.CONTAINER})


@dataclass(slots=True)
class _Known:
    """How often a change happened since it was told, when last, and when it may be told again."""

    at: Instant
    count: int
    pause_s: float
    next_ns: int


class HostChanges:
    """Collects what observations say of changes, and says which are due."""

    def __init__(self, *, host: str) -> None:
        """Start with nothing seen; what concerns the whole host is named `host`."""
        self._host = Subject(SubjectKind.HOST, host)
        self._known: OrderedDict[tuple[HostChangeKind, Subject], _Known] = OrderedDict()
        self._driver: DriverFacts | None = None
        self._forgotten = 0

    def __repr__(self) -> str:
        return f"HostChanges(known={len(self._known)}, forgotten={self._forgotten})"

    def take(self, observations: Sequence[Observation]) -> None:
        """Note what of `observations` is a change."""
        for each in observations:
            match each:
                case ManagerReloaded():
                    self._note(HostChangeKind.MANAGER_RELOADED, self._host, each.at)
                case Suspended():
                    self._note(HostChangeKind.SUSPENDED, self._host, each.at)
                case CgroupChanged(made=True):
                    self._service(HostChangeKind.STARTED, each.origin, each.at)
                case CgroupChanged(made=False) if each.origin.container_id:
                    self._service(HostChangeKind.ENDED, each.origin, each.at)
                case UnitEnded() if each.lived_s is not None:
                    self._service(HostChangeKind.ENDED, each.origin, each.at)
                case UnitUp() if each.up_s <= _UP_AT_MOST_S:
                    self._up(each)
                case GpuDriver():
                    self._drives(each)
                case _:
                    pass

    def due(self, now: Instant) -> tuple[HostChange, ...]:
        """Return what is to be told now, the longest waiting first."""
        ready = [
            HostChange(kind, subject, max(0, known.at.unix_ns), known.count)
            for (kind, subject), known in self._known.items()
            if known.count and known.next_ns <= now.boot_ns
        ]
        return tuple(ready[:AT_ONCE])

    def told(self, changes: Sequence[HostChange], now: Instant) -> None:
        """Take it that `changes` are on disk; what happened meanwhile is told with the next."""
        for change in changes:
            known = self._known.get((change.kind, change.subject))
            if known is not None:
                known.count -= min(known.count, change.count)
                known.next_ns = now.boot_ns + int(known.pause_s * 1e9)
                known.pause_s = min(LONGEST_PAUSE_S, 2 * known.pause_s)

    def take_forgotten(self) -> int:
        """Return how many changes were given up untold since the last call."""
        forgotten, self._forgotten = self._forgotten, 0
        return forgotten

    def _service(self, kind: HostChangeKind, origin: Origin, at: Instant) -> None:
        subject = subject_of(origin)
        if subject.kind in _TOLD:
            self._note(kind, subject, at)

    def _up(self, up: UnitUp) -> None:
        """Tell a start that nothing else told, when the manager says that the service stayed up."""
        ago_ns = int(up.up_s * 1e9)
        began = Instant(up.at.boot_ns - ago_ns, up.at.unix_ns - ago_ns)
        known = self._known.get((HostChangeKind.STARTED, subject_of(up.origin)))
        if known is None or abs(began.boot_ns - known.at.boot_ns) > _SAME_START_S * 1e9:
            self._service(HostChangeKind.STARTED, up.origin, began)

    def _drives(self, driver: GpuDriver) -> None:
        before, self._driver = self._driver, driver.facts
        if before is not None and before != driver.facts:
            self._note(HostChangeKind.DRIVER_CHANGED, self._host, driver.at)

    def _note(self, kind: HostChangeKind, subject: Subject, at: Instant) -> None:
        known = self._known.pop((kind, subject), None)
        if known is None:
            known = _Known(at, 0, FIRST_PAUSE_S, next_ns=0)
        elif at.since_s(known.at) > LONGEST_PAUSE_S:
            known.pause_s = FIRST_PAUSE_S
        if at.boot_ns >= known.at.boot_ns:
            known.at = at
        known.count += 1
        self._known[kind, subject] = known
        while len(self._known) > KNOWN_MAX:
            _, gone = self._known.popitem(last=False)
            self._forgotten += gone.count
