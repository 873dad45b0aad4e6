"""`host.units`: services that end, are given up or stay up, as the service manager itself tells them.

Little is polled: an unprivileged process may subscribe to the manager (org.freedesktop.systemd1(5)), and
each change of a service comes with all its values, also when its main process began and ended and how often
the manager restarted it. An idle host sends nothing. Only signals of the manager's own connection count:
anybody may send a signal to anybody. A reload that the manager has finished is told too, a second witness of
`host.manager`.

Services of a person's own manager are not seen, nor are services without a main process. Three things no
signal tells, so they are asked: whether a service that failed after restarts was given up at its start limit
(its result goes on saying how its last run failed), whether one that was restarted is inactive and stays so
(somebody stopped, reset or removed it), and whether what must have run long by now does. And no signal tells
what happened while nobody listened: at each opening, after lost signals and each hour all services are looked
at twice, and those that stand are told.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from probes.host.bus import BusError, BusRefused, LibraryMissing, Signal, SystemBus, Target
from probes.host.unit_runs import PROPERTIES, UNITS_PATH, Run, escaped, is_running, run_of, unit_of, value_of
from probes.observation import (
    BlindReason,
    Gap,
    Instant,
    ManagerReloaded,
    Observation,
    Origin,
    Seeing,
    SensorName,
)
from probes.observed.services import UnitEnded, UnitResult, UnitsStanding, UnitStopped, UnitUp
from probes.sensor import SensorBlind

NAME: Final = SensorName("host.units")
LONG_S: Final = 600.0
"""What has run for so long is up."""
STOPPED_S: Final = 60.0
"""What has been inactive for so long is stopped; a restart is inactive for a moment, too."""
LOOK_S: Final = 3600.0
"""How often all services are looked at, as a signal may be missed."""
UNITS_MAX: Final = 512
STANDING_MAX: Final = 4096
"""Where more services stand than this, which of them do not is not told."""
_MANAGER: Final = "org.freedesktop.systemd1"
_PATH: Final = "/org/freedesktop/systemd1"
_MANAGER_FACE: Final = _MANAGER + ".Manager"
_CALLED: Final[Target] = (_MANAGER, _PATH, _MANAGER_FACE)
_SERVICE_FACE: Final = _MANAGER + ".Service"
_UNIT_FACE: Final = _MANAGER + ".Unit"
_PROPERTIES: Final = "org.freedesktop.DBus.Properties"
_RULES: Final = (
    f"type='signal',sender='{_MANAGER}',interface='{_PROPERTIES}',arg0='{_SERVICE_FACE}'",
    f"type='signal',sender='{_MANAGER}',interface='{_MANAGER_FACE}',member='Reloading'",
    f"type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='{_MANAGER}'",
)
_ASKED_A_READ: Final = 16
_STAND: Final = ["active", "activating", "deactivating", "failed", "maintenance", "refreshing", "reloading"]
"""Every state of a unit but inactive, org.freedesktop.systemd1(5)."""


class Bus(Protocol):
    """What is used of the system bus."""

    lost: int

    def open(self) -> None:
        """Connect."""

    def match(self, rule: str) -> None:
        """Ask for signals."""

    def owner(self, name: str) -> str:
        """Return who owns a name."""

    def call(
        self, target: Target, member: str, signature: str | None = None, arguments: tuple[Any, ...] = ()
    ) -> tuple[Any, ...]:
        """Call a method."""

    def signals(self) -> Iterable[Signal]:
        """Yield what came."""

    def close(self) -> None:
        """Hang up."""


@dataclass(slots=True)
class _Unit:
    run: Run
    up_told: bool = False


class UnitsSensor:
    """Tells how services end, and which stay up."""

    name = NAME
    period_s = 5.0

    def __init__(
        self,
        *,
        bus: Callable[[], Bus] = SystemBus,
        booted: Path = Path("/run/systemd/system"),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`booted` is there where systemd is the service manager, sd_booted(3)."""
        self._booted = booted
        self._connect = bus
        self._monotonic = monotonic
        self._bus: Bus | None = None
        self._owner = ""
        self._units: OrderedDict[str, _Unit] = OrderedDict()
        self._doubtful: dict[str, None] = {}
        self._restarted: OrderedDict[str, float | None] = OrderedDict()  # since when it is inactive
        self._standing: set[str] | None = None  # of the look that goes on
        self._look_due_s = 0.0
        self._lost = 0

    def __repr__(self) -> str:
        return f"UnitsSensor({NAME}, units={len(self._units)})"

    def open(self) -> None:
        """Subscribe, and take the services that run as they are; raise SensorBlind without a manager."""
        if not self._booted.is_dir():
            raise SensorBlind(BlindReason.UNSUPPORTED_PLATFORM, "systemd is not the service manager here")
        bus = self._connect()
        try:
            bus.open()
            self._bus, self._lost = bus, 0
            self._units.clear()
            self._doubtful.clear()
            self._look_anew()
            for rule in _RULES:
                bus.match(rule)
            self._subscribe()
            self._look_around()
            self._doubtful |= {
                unit: None
                for unit in self._restarted
                if unit not in self._units or not is_running(self._units[unit].run)
            }
        except BusError as error:
            bus.close()
            self._bus = None
            raise _blind(error) from error

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return what happened to services since the last read."""
        if self._bus is None:
            raise SensorBlind(BlindReason.READ_FAILED, "the sensor is not open")
        found: list[Observation] = []
        try:
            for signal in self._bus.signals():
                found += self._told(signal, now)
            found += self._given_up(now)
            found += self._long_lived(now)
            found += self._looked(now)
        except BusError as error:
            blind = _blind(error)
            raise SensorBlind(blind.blind.reason, blind.blind.detail, last=found) from error
        if self._bus.lost > self._lost:
            found.append(Gap(NAME, now, Seeing(), self._bus.lost - self._lost))
            self._lost = self._bus.lost
            self._look_anew()
        return found

    def waiting(self) -> bool:
        """There may always be something: it is read on a thread."""
        return True

    def settle(self) -> None:
        """Nothing to note: what a predecessor did not tell is gone with its connection."""

    def wakeup_fd(self) -> int | None:
        """A service that ended waits for its turn."""
        return None

    def close(self) -> None:
        """Hang up."""
        if self._bus is not None:
            self._bus.close()
        self._bus = None

    def _subscribe(self, *, again: bool = False) -> None:
        assert self._bus is not None
        self._owner = self._bus.owner(_MANAGER)
        try:
            self._bus.call(_CALLED, "Subscribe")
        except BusRefused:  # it remembers its subscribers when it is executed again
            if not again:
                raise

    def _look_around(self) -> None:
        """Learn the services that run or failed, so that what is up at the start is told to be."""
        for unit, path in self._listed(["active", "activating", "failed"])[:UNITS_MAX]:
            run = self._ask(path)
            if run is not None:
                self._remember(unit, run)
                self._doubt(unit, run)

    def _listed(self, states: list[str]) -> list[tuple[str, str]]:
        """Return name and path of the services in one of `states`."""
        assert self._bus is not None
        (listed,) = self._bus.call(_CALLED, "ListUnitsByPatterns", "asas", (states, ["*.service"]))
        return [(str(row[0]), str(row[6])) for row in listed]

    def _look_anew(self) -> None:
        self._standing, self._look_due_s = None, self._monotonic()

    def _looked(self, now: Instant) -> list[Observation]:
        """Look at all services twice, `STOPPED_S` apart; tell those that stood then, or moved meanwhile."""
        now_s = self._monotonic()
        if now_s < self._look_due_s:
            return []
        standing = {unit for unit, _ in self._listed(_STAND)} | (self._standing or set())
        if self._standing is None:
            self._standing, self._look_due_s = standing, now_s + STOPPED_S
            return []
        self._standing, self._look_due_s = None, now_s + LOOK_S
        if len(standing) > STANDING_MAX:
            return []
        return [UnitsStanding(sensor=NAME, at=now, units=tuple(sorted(standing)), looked_s=STOPPED_S)]

    def _ask(self, path: str) -> Run | None:
        """Return what the manager says of a service now; None for one that it does not know any more."""
        assert self._bus is not None
        try:
            return run_of({name: self._property(path, _SERVICE_FACE, name) for name in PROPERTIES})
        except BusRefused:
            return None

    def _property(self, path: str, face: str, name: str) -> Any:
        assert self._bus is not None
        answer = self._bus.call((_MANAGER, path, _PROPERTIES), "Get", "ss", (face, name))
        return answer[0] if answer else None

    def _told(self, signal: Signal, now: Instant) -> list[Observation]:
        if signal.member == "NameOwnerChanged" and signal.sender == "org.freedesktop.DBus":
            if len(signal.body) == 3 and signal.body[2]:
                self._subscribe(again=True)
            return []
        if signal.sender != self._owner:
            return []
        if signal.member == "Reloading":
            return [ManagerReloaded(NAME, now)] if signal.body == (False,) else []
        unit = unit_of(signal.path)
        if signal.member != "PropertiesChanged" or unit is None or len(signal.body) != 3:
            return []
        face, changed, _ = signal.body
        run = run_of(changed) if face == _SERVICE_FACE and isinstance(changed, dict) else None
        return self._ended(unit, run, now) if run is not None else []

    def _ended(self, unit: str, run: Run, now: Instant) -> list[Observation]:
        known = self._units.get(unit)
        before = known.run if known is not None else None
        self._remember(unit, run)
        if self._standing is not None and len(self._standing) <= STANDING_MAX:
            self._standing.add(unit)
        ended = bool(run.ended_us) and (before is None or run.ended_us != before.ended_us)
        if ended and unit in self._restarted:
            self._restarted[unit] = None
        self._doubt(unit, run)
        given_up = run.result is UnitResult.START_LIMIT_HIT
        given_up = given_up and (before is None or before.result is not UnitResult.START_LIMIT_HIT)
        if not ended and not given_up:
            return []
        lived_s = (run.ended_us - run.began_us) / 1e6 if ended and run.ended_us >= run.began_us > 0 else None
        return [
            UnitEnded(
                sensor=NAME,
                at=now,
                origin=Origin(unit=unit),
                result=run.result,
                exit_status=run.status if run.ended_us else None,
                restarts=run.restarts,
                lived_s=lived_s,
            )
        ]

    def _doubt(self, unit: str, run: Run) -> None:
        """Have the manager asked what became of a service that it had restarted and that does not run."""
        if run.restarts or run.result is UnitResult.START_LIMIT_HIT:
            self._restarted.setdefault(unit, None)
            self._restarted.move_to_end(unit)
            while len(self._restarted) > UNITS_MAX:
                self._restarted.popitem(last=False)
        if unit in self._restarted and not is_running(run):
            self._doubtful[unit] = None

    def _given_up(self, now: Instant) -> list[Observation]:
        """Ask about services that were restarted; tell those that a limit or somebody keeps down."""
        found: list[Observation] = []
        for unit in list(self._doubtful)[:_ASKED_A_READ]:
            path = UNITS_PATH + escaped(unit)
            try:
                state = value_of(self._property(path, _UNIT_FACE, "ActiveState"))
                if state != "inactive" and unit in self._restarted:
                    self._restarted[unit] = None
                if state == "activating":
                    self._doubtful[unit] = self._doubtful.pop(unit)  # behind those that wait
                    continue
                if state == "inactive" and unit in self._restarted:
                    found += self._stopped(unit, now)
                    continue
                burst = value_of(self._property(path, _UNIT_FACE, "StartLimitBurst"))
            except BusRefused:
                state, burst = None, None
            del self._doubtful[unit]
            known = self._units.get(unit)
            if state != "failed" or not isinstance(burst, int) or known is None:
                continue
            run = known.run
            failed = run.result not in {UnitResult.SUCCESS, UnitResult.START_LIMIT_HIT}
            if failed and 0 < burst <= run.restarts:
                found.append(
                    UnitEnded(
                        sensor=NAME,
                        at=now,
                        origin=Origin(unit=unit),
                        result=UnitResult.START_LIMIT_HIT,
                        exit_status=run.status,
                        restarts=run.restarts,
                        lived_s=None,
                    )
                )
        while len(self._doubtful) > UNITS_MAX:
            del self._doubtful[next(iter(self._doubtful))]
        return found

    def _stopped(self, unit: str, now: Instant) -> list[Observation]:
        """Tell a service that has been inactive for `STOPPED_S`; ask again about one that has not."""
        del self._doubtful[unit]
        now_s = self._monotonic()
        since_s = self._restarted[unit]
        since_s = now_s if since_s is None else since_s
        if now_s - since_s < STOPPED_S:
            self._restarted[unit] = since_s
            self._doubtful[unit] = None  # behind those that wait
            return []
        del self._restarted[unit]
        stopped_s = round(now_s - since_s, 3)
        return [UnitStopped(sensor=NAME, at=now, origin=Origin(unit=unit), stopped_s=stopped_s)]

    def _long_lived(self, now: Instant) -> list[Observation]:
        """Ask about services whose main process must have run for `LONG_S` by now; tell those that did."""
        now_us = self._monotonic() * 1e6
        due = [
            (unit, known)
            for unit, known in self._units.items()
            if not known.up_told and is_running(known.run) and now_us - known.run.began_us >= LONG_S * 1e6
        ]
        found: list[Observation] = []
        for unit, known in due[:_ASKED_A_READ]:
            run = self._ask(UNITS_PATH + escaped(unit))
            if run is None or run.began_us != known.run.began_us or not is_running(run):
                if run is not None:
                    known.run = run
                else:
                    known.up_told = True
                continue
            known.up_told = True
            if not run.restarts:
                self._restarted.pop(unit, None)
            up_s = round((now_us - run.began_us) / 1e6, 3)
            found.append(UnitUp(sensor=NAME, at=now, origin=Origin(unit=unit), up_s=up_s))
        return found

    def _remember(self, unit: str, run: Run) -> None:
        known = self._units.get(unit)
        if known is None:
            self._units[unit] = _Unit(run)
        else:
            known.up_told = known.up_told and known.run.began_us == run.began_us
            known.run = run
        self._units.move_to_end(unit)
        while len(self._units) > UNITS_MAX:
            self._units.popitem(last=False)


def _blind(error: BusError) -> SensorBlind:
    if isinstance(error, LibraryMissing):
        return SensorBlind(BlindReason.NO_LIBRARY, str(error))
    if isinstance(error, BusRefused):
        return SensorBlind(BlindReason.NO_PRIVILEGE, str(error))
    return SensorBlind(BlindReason.READ_FAILED, str(error))
