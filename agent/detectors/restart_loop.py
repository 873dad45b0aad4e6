"""F40 unit.restart_loop: a service or container that starts, dies and starts again, or was given up.

Of services two sensors tell: the service manager (each run's result, its length, how often the manager
restarted it by itself) and the kernel (the service's cgroup comes and goes). Together they are a case of
high severity, the manager alone a note. Of containers the kernel alone tells, as a cgroup of the same name
that comes and goes, so theirs is a note: how their runs ended, only the engine knows. A log that says why
(the address is in use) is a second witness of either.

Look-alikes stay quiet. A deployment restarts a service twice, or by hand, which the manager does not count as
its own restart; the units are read again, and that begins the count anew. A job that a timer starts fails
once a run and is restarted by nobody. A run that ends well is no failure. Another container by another name
is another one. What the manager gave up (`start-limit-hit`) is down and stays down: a case at once.

A case clears when the service has run for ten minutes (the sensor asks), or the container's cgroup of its
last start still holds processes after `stays_s`. A service that is inactive and stays so was stopped, reset
or removed, while the agent was there or before it started: it is over as well, and no cure of anything. A
container that is not started any more for
`gone_clear_after_s` was taken away or made anew under another id: an engine that restarts one waits a minute
at most.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final, Self

from msgspec import Meta

from agent.bounded import entry
from agent.detector import CgroupLook, DetectorConfig, FaultNote, Surroundings, Tick
from agent.finding import Finding, Hysteresis, OpenCase, Verdict, absent, unknown
from agent.subjects import incarnation_of, place_of, subject_of
from escalation.model import (
    FaultClass,
    Reason,
    ReasonCode,
    Severity,
    Subject,
    SubjectKind,
    UnitEvidence,
    UnitResult as WireResult,
)
from probes.observation import (
    Blind,
    CgroupChanged,
    CgroupId,
    Gap,
    Instant,
    LogLine,
    ManagerReloaded,
    Observation,
    Origin,
    SensorName,
    UnitEnded,
    UnitResult,
    UnitsStanding,
    UnitStopped,
    UnitUp,
)

UNITS: Final = SensorName("host.units")
CGROUPS: Final = SensorName("kernel.cgroups")
_FAULT: Final = FaultClass.UNIT_RESTART_LOOP
_ADDRESS_IN_USE: Final = "server.address_in_use"
_THINGS_MAX: Final = 256
_LIVES_MAX: Final = 64


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How many lives, how short, how close together; and how long is long enough to be well again."""

    lives: Annotated[int, Meta(ge=2, le=_LIVES_MAX)] = 3
    short_s: Annotated[float, Meta(gt=0)] = 60.0
    window_s: Annotated[float, Meta(gt=0)] = 900.0
    stays_s: Annotated[float, Meta(gt=0)] = 600.0
    gone_clear_after_s: Annotated[float, Meta(gt=0)] = 86400.0
    clear_hold_s: Annotated[float, Meta(ge=0)] = 0.0


@dataclass(slots=True)
class _Thing:
    """A service or container: when each short life ended and how long it was, and its cgroup's lives.

    `refused` is when, and how often since it last lived long, its log said that its address is in use.
    """

    lives: deque[tuple[Instant, float]] = field(default_factory=lambda: deque(maxlen=_LIVES_MAX))
    made: deque[Instant] = field(default_factory=lambda: deque(maxlen=_LIVES_MAX))
    up: Instant | None = None
    refused: tuple[Instant, int] | None = None
    looping: bool = False

    def forget(self) -> None:
        """Begin the count anew: it lived long."""
        self.lives.clear()
        self.refused = None
        self.looping = False


class RestartLoop:
    """Says what cannot stay up."""

    NAME: ClassVar[str] = "restart_loop"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_FAULT,
            severity=(Severity.NOTE, Severity.HIGH),
            sensors=(UNITS, CGROUPS),
            opens="A service failed `lives` times in `window_s`, each life shorter than `short_s`, and its "
            "manager restarted it; or the manager gave it up (start limit). High where its cgroup came and "
            "went as well or its log says that the address is in use, else a note. A container's cgroup "
            "that came and went as often (note; high with such a log).",
            quiet="Two restarts of a deployment, restarts by hand, a reload of the units (the count begins "
            "anew), jobs of timers, runs that end well, new containers.",
            clears="The service has run for ten minutes, or has been inactive for a minute (stopped, reset "
            "or removed: nothing was cured); the container's last start holds after `stays_s`, "
            "or it has not been started again for `gone_clear_after_s`.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._around = surroundings
        self._things: OrderedDict[Subject, _Thing] = OrderedDict()
        self._blind: set[SensorName] = {UNITS, CGROUPS}
        self._standing: tuple[UnitsStanding, frozenset[Subject]] | None = None
        self._held: dict[Subject, tuple[CgroupId, Instant]] = {}

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """Open at once, because the lives were counted here."""
        return {_FAULT: Hysteresis(clear_hold_s=self._config.clear_hold_s)}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Take what came, went, ended or stayed."""
        match observation:
            case UnitEnded():
                return self._ended(observation)
            case LogLine(pattern=pattern) if pattern == _ADDRESS_IN_USE:
                self._refused(observation)
            case CgroupChanged():
                return self._changed(observation)
            case UnitUp():
                return (self._well(_unit(observation.origin), observation.at, observation.up_s),)
            case UnitStopped():
                return (self._stopped(_unit(observation.origin), observation.at, observation.stopped_s),)
            case UnitsStanding(units=units):
                self._standing = observation, frozenset(_unit(Origin(unit=unit)) for unit in units)
            case ManagerReloaded():
                for thing in self._things.values():
                    thing.lives.clear()
            case Gap(sensor=sensor, coverage=coverage) if sensor in {UNITS, CGROUPS}:
                if isinstance(coverage, Blind):
                    self._blind.add(sensor)
                else:
                    self._blind.discard(sensor)
            case _:
                pass
        return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Clear what stayed up, by the cgroup of its last start; say unknown of what cannot be seen."""
        found: list[Finding] = []
        standing = {case.subject for case in tick.open_cases}
        self._held = {subject: seen for subject, seen in self._held.items() if subject in standing}
        for case in tick.open_cases:
            sensor = CGROUPS if case.subject.kind is SubjectKind.CONTAINER else UNITS
            if sensor in self._blind:
                found.append(unknown(_FAULT, tick.now, case.subject))
                continue
            if case.subject.kind is not SubjectKind.CONTAINER:
                found += self._not_standing(case)
                continue
            if case.place is None:
                continue
            look = tick.world.cgroups.get(case.place)
            gone_s = tick.now.since_s(case.last_seen)
            if look is not None and not look.exists and gone_s >= self._config.gone_clear_after_s:
                reason = Reason(ReasonCode.CGROUP_GONE, count=1, window_s=round(gone_s, 3))
                found.append(absent(_FAULT, case.subject, tick.now, reason))
                continue
            up_s = self._held_s(case, look, tick.now)
            if up_s >= self._config.stays_s:
                found.append(self._well(case.subject, tick.now, up_s))
        return found

    def _ended(self, ended: UnitEnded) -> Sequence[Finding]:
        subject = _unit(ended.origin)
        thing = self._thing(subject)
        given_up = ended.result is UnitResult.START_LIMIT_HIT
        if not given_up:
            if ended.result is UnitResult.SUCCESS or ended.lived_s is None:
                return ()
            if ended.lived_s >= self._config.short_s:
                thing.forget()
                return ()
        if ended.lived_s is not None:
            thing.lives.append((ended.at, ended.lived_s))
        lives = self._recent(thing.lives, ended.at)
        loops = len(lives) >= self._config.lives and ended.restarts >= self._config.lives - 1
        if not given_up and not loops:
            return ()
        reasons = [self._short(lives)] if lives else []
        if given_up:
            reasons.append(Reason(ReasonCode.START_LIMIT_HIT, count=1))
        said = self._log_says(thing, ended.at)
        came = sum(ended.at.since_s(made) <= self._config.window_s for made in thing.made)
        churns = came >= min(self._config.lives, max(1, len(lives)))
        reasons += [*([self._came_and_went(came)] if churns else []), *said]
        two = churns or bool(said)
        if not two:
            reasons.append(Reason(ReasonCode.SECOND_LAYER_UNKNOWN))
        return (
            self._present(
                subject,
                thing,
                origin=ended.origin,
                at=ended.at,
                severity=Severity.HIGH if two else Severity.NOTE,
                reasons=reasons,
                evidence=UnitEvidence(
                    result=WireResult(ended.result.value),
                    exit_status=ended.exit_status,
                    starts=len(lives),
                    window_s=self._config.window_s,
                    shortest_s=min((life for _, life in lives), default=None),
                    longest_s=max((life for _, life in lives), default=None),
                ),
            ),
        )

    def _refused(self, line: LogLine) -> None:
        if line.origin.container_id is None and line.origin.unit is None:
            return
        thing = self._thing(subject_of(line.origin))
        before = thing.refused[1] if thing.refused is not None else 0
        thing.refused = (line.at, before + line.count)

    def _log_says(self, thing: _Thing, now: Instant) -> list[Reason]:
        if thing.refused is None or now.since_s(thing.refused[0]) > self._config.window_s:
            return []
        count, window_s = thing.refused[1], self._config.window_s
        return [Reason(ReasonCode.ADDRESS_IN_USE, count=count, window_s=window_s)]

    def _changed(self, change: CgroupChanged) -> Sequence[Finding]:
        origin = change.origin
        if origin.container_id is None and origin.unit is None:
            return ()
        subject = subject_of(origin)
        thing = self._thing(subject)
        if change.made:
            thing.made.append(change.at)
            thing.up = change.at
            # The case follows the container to its new cgroup, where staying up will be seen.
            return (self._container(subject, thing, change, count=0),) if thing.looping else ()
        up, thing.up = thing.up, None
        if origin.container_id is None or up is None:
            return ()
        lived_s = change.at.since_s(up)
        if lived_s >= self._config.short_s:
            thing.forget()
            return ()
        thing.lives.append((change.at, round(max(0.0, lived_s), 3)))
        if len(self._recent(thing.lives, change.at)) < self._config.lives:
            return ()
        return (self._container(subject, thing, change, count=None),)

    def _container(
        self, subject: Subject, thing: _Thing, change: CgroupChanged, *, count: int | None
    ) -> Finding:
        lives = self._recent(thing.lives, change.at)
        said = self._log_says(thing, change.at)
        second = said or [Reason(ReasonCode.SECOND_LAYER_UNKNOWN)]
        evidence = UnitEvidence(
            result=WireResult.UNKNOWN,
            exit_status=None,
            starts=len(lives),
            window_s=self._config.window_s,
            shortest_s=min((life for _, life in lives), default=None),
            longest_s=max((life for _, life in lives), default=None),
        )
        return self._present(
            subject,
            thing,
            origin=change.origin,
            at=change.at,
            severity=Severity.HIGH if said else Severity.NOTE,
            reasons=[self._came_and_went(len(lives)), *second],
            evidence=evidence,
            count=count,
        )

    def _present(
        self,
        subject: Subject,
        thing: _Thing,
        *,
        origin: Origin,
        at: Instant,
        severity: Severity,
        reasons: Sequence[Reason],
        evidence: UnitEvidence,
        count: int | None = None,
    ) -> Finding:
        """Return the finding; without `count`, the first tells every life and each further one its own."""
        if count is None:
            count = 1 if thing.looping else max(1, evidence.starts)
        thing.looping = True
        return Finding(
            verdict=Verdict.PRESENT,
            fault_class=_FAULT,
            subject=subject,
            at=at,
            severity=severity,
            incarnation=incarnation_of(origin, self._around.kernel_boot_id),
            place=place_of(origin),
            count=count,
            reasons=tuple(reasons),
            evidence=(evidence,),
        )

    def _well(self, subject: Subject, at: Instant, up_s: float) -> Finding:
        thing = self._things.get(subject)
        if thing is not None:
            thing.forget()
        return absent(_FAULT, subject, at, Reason(ReasonCode.UNIT_STAYS_UP, count=1, window_s=round(up_s, 3)))

    def _held_s(self, case: OpenCase, look: CgroupLook | None, now: Instant) -> float:
        """Return for how long one cgroup of a container has stood with its processes; 0 where unknown.

        Of a start that nobody told (the agent was not there) only what is seen of it counts.
        """
        before = self._held.pop(case.subject, None)
        if look is None or not look.populated:
            return 0.0
        if look.same:
            thing = self._things.get(case.subject)
            return now.since_s(thing.up if thing is not None and thing.up is not None else case.last_seen)
        if look.cgroup_id is None:
            return 0.0
        if before is None or before[0] != look.cgroup_id:
            before = (look.cgroup_id, now)
        self._held[case.subject] = before
        return now.since_s(before[1])

    def _not_standing(self, case: OpenCase) -> Sequence[Finding]:
        """Return that a service was stopped, where a look at all of them since did not find it."""
        if self._standing is None:
            return ()
        look, standing = self._standing
        if case.subject in standing or look.at.boot_ns <= case.last_seen.boot_ns:
            return ()
        return (self._stopped(case.subject, look.at, look.looked_s),)

    def _stopped(self, subject: Subject, at: Instant, stopped_s: float) -> Finding:
        thing = self._things.get(subject)
        if thing is not None:
            thing.forget()
        return absent(
            _FAULT, subject, at, Reason(ReasonCode.CGROUP_GONE, count=1, window_s=round(stopped_s, 3))
        )

    def _short(self, lives: Sequence[tuple[Instant, float]]) -> Reason:
        return Reason(
            ReasonCode.LIVES_ARE_SHORT,
            count=len(lives),
            threshold=self._config.short_s,
            window_s=self._config.window_s,
        )

    def _came_and_went(self, times: int) -> Reason:
        return Reason(
            ReasonCode.CGROUP_COMES_AND_GOES,
            count=times,
            threshold=float(self._config.lives),
            window_s=self._config.window_s,
        )

    def _recent(self, lives: deque[tuple[Instant, float]], now: Instant) -> list[tuple[Instant, float]]:
        return [life for life in lives if now.since_s(life[0]) <= self._config.window_s]

    def _thing(self, subject: Subject) -> _Thing:
        return entry(self._things, subject, _Thing, limit=_THINGS_MAX)


def _unit(origin: Origin) -> Subject:
    return subject_of(Origin(unit=origin.unit or "?"))
