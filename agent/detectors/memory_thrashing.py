"""F39 memory.thrashing: tasks spend their time waiting for memory that is taken away and read back again.

Two layers: the share of time in which *all* tasks stall for memory (pressure accounting), and that somebody
has to make room before he gets memory, or pages come back from swap. A control group at its own limit
thrashes alone: its direct reclaims are counted in the kernel, its stalls in its own pressure file, and the
host's counters of stalled allocations stand still. When these move too, the host as a whole is the subject.

Look-alikes stay quiet: reclaim of page cache by a group that reads more than fits (it reclaims, and hardly
stalls), stalls that are over in seconds, swap in use without stalls.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Self

from msgspec import Meta

from agent.bounded import keep
from agent.detector import DetectorConfig, FaultNote, Surroundings, Tick, sight_after
from agent.finding import Finding, Hysteresis, Place, Verdict, absent, unknown
from agent.subjects import incarnation_of, place_of, subject_of, target_of
from escalation.model import (
    FaultClass,
    Incarnation,
    PressureEvidence,
    Reason,
    ReasonCode,
    Resource,
    Severity,
    Subject,
    SubjectKind,
)
from probes.observation import (
    CgroupPressure,
    DirectReclaims,
    Gap,
    Instant,
    Observation,
    Origin,
    PressureState,
    SensorName,
)

PRESSURE: Final = SensorName("host.pressure")
RECLAIM: Final = SensorName("kernel.reclaim")
_FAULT: Final = FaultClass.MEMORY_THRASHING
_GROUPS_MAX: Final = 128
_STALE_S: Final = 30.0


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How much of the time, how many reclaims a second, and for how long."""

    stalled_percent: Annotated[float, Meta(gt=0, le=100)] = 10.0
    reclaims_per_s: Annotated[float, Meta(gt=0)] = 1.0
    lasting_s: Annotated[float, Meta(ge=0)] = 10.0
    clear_percent: Annotated[float, Meta(gt=0, le=100)] = 1.0
    quiet_s: Annotated[float, Meta(gt=0)] = 600.0
    clear_hold_s: Annotated[float, Meta(ge=0)] = 0.0


@dataclass(slots=True)
class _Thrashing:
    """Since when a subject thrashes, when that was seen last, and whether it was told."""

    since: Instant
    seen: Instant
    told: bool = False


class MemoryThrashing:
    """Says who spends the time waiting for memory: a control group at its limit, or the host."""

    NAME: ClassVar[str] = "memory_thrashing"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_FAULT,
            severity=(Severity.NOTE, Severity.HIGH),
            sensors=(PRESSURE, RECLAIM),
            opens="All tasks of a control group have stalled for memory `stalled_percent` of the time, for "
            "`lasting_s`, while it reclaims directly `reclaims_per_s` times a second; or all tasks of the "
            "host, while allocations wait or pages are swapped. A note for a server whose group stalls where "
            "direct reclaim cannot be seen.",
            quiet="Page cache that is reclaimed without stalls; a stall that is over in `lasting_s`; swap in "
            "use without stalls; stalls of the host that one group's limit explains.",
            clears="All tasks stall for less than `clear_percent` of a minute; the group is gone; or nothing "
            "was reclaimed directly for `quiet_s` while it would have been seen.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._around = surroundings
        self._host = Subject(SubjectKind.HOST, surroundings.host)
        self._known: OrderedDict[Subject, _Thrashing] = OrderedDict()
        self._group_seen: Instant | None = None
        self._seeing: dict[SensorName, Instant | None] = {PRESSURE: None, RECLAIM: None}

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """Open at once, because what had to last was waited for here."""
        return {_FAULT: Hysteresis(clear_hold_s=self._config.clear_hold_s)}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Judge a look at the host, at a group that reclaims, or at a server's group."""
        match observation:
            case Gap(sensor=sensor) if sensor in self._seeing:
                self._seeing[sensor] = sight_after(self._seeing[sensor], observation)
                return ()
            case PressureState():
                return self._host_judged(observation)
            case DirectReclaims():
                return self._group_judged(observation)
            case CgroupPressure():
                return self._server_judged(observation)
            case _:
                return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Clear groups that are gone or were quiet for long; say unknown of what nobody sees."""
        found = []
        for case in tick.open_cases:
            sensor = PRESSURE if case.subject == self._host else RECLAIM
            look = None if case.place is None else tick.world.cgroups.get(case.place)
            seeing = self._seeing[sensor]
            if look is not None and (not look.exists or look.same is False):
                found.append(absent(_FAULT, case.subject, tick.now, Reason(ReasonCode.CGROUP_GONE)))
            elif seeing is None:
                found.append(unknown(_FAULT, tick.now, case.subject))
            elif sensor == RECLAIM:
                quiet_s = min(tick.now.since_s(seeing), tick.now.since_s(case.last_seen))
                if quiet_s >= self._config.quiet_s:
                    reason = Reason(ReasonCode.MEMORY_STALLS_ENDED, window_s=round(quiet_s, 3))
                    found.append(absent(_FAULT, case.subject, tick.now, reason))
        return found

    def _host_judged(self, state: PressureState) -> Sequence[Finding]:
        full = state.memory_full_avg10
        if full is None:
            return ()
        swapped = state.swapped_in_pages + state.swapped_out_pages
        own = state.allocation_stalls > 0 or (swapped > 0 and not self._is_explained(state.at))
        if full < self._config.stalled_percent or not own:
            return self._maybe_over(self._host, state.at, full, state.memory_full_avg60)
        evidence = PressureEvidence(
            resource=Resource.MEMORY,
            window_s=10.0,
            some_percent=state.memory_some_avg10,
            full_percent=full,
            major_faults=state.major_faults,
            swapped_pages=swapped,
            direct_reclaims=state.allocation_stalls,
        )
        reasons = [self._stalls()]
        if state.allocation_stalls:
            reasons.append(Reason(ReasonCode.RECLAIMS_DIRECTLY, count=state.allocation_stalls))
        if swapped:
            reasons.append(Reason(ReasonCode.PAGES_SWAP, count=swapped))
        return self._present(self._host, None, state.at, Severity.HIGH, reasons=reasons, evidence=evidence)

    def _group_judged(self, reclaims: DirectReclaims) -> Sequence[Finding]:
        origin, full = reclaims.origin, reclaims.memory_full_avg10
        if origin.cgroup_path in (None, "/") or full is None:
            return ()  # the host's own, or nobody knows whether anyone stalls
        subject = subject_of(origin)
        if (
            full < self._config.stalled_percent
            or reclaims.count < self._config.reclaims_per_s * reclaims.window_s
        ):
            return self._maybe_over(subject, reclaims.at, full, reclaims.memory_full_avg60)
        if reclaims.by_limit:
            self._group_seen = reclaims.at
        evidence = PressureEvidence(
            resource=Resource.MEMORY,
            window_s=reclaims.window_s,
            some_percent=None,
            full_percent=full,
            direct_reclaims=reclaims.count,
        )
        second = Reason(
            ReasonCode.RECLAIMS_DIRECTLY, count=reclaims.count, window_s=round(reclaims.window_s, 3)
        )
        return self._present(
            subject, origin, reclaims.at, Severity.HIGH, reasons=[self._stalls(), second], evidence=evidence
        )

    def _server_judged(self, group: CgroupPressure) -> Sequence[Finding]:
        """Judge a server's group where direct reclaim cannot be seen: one layer, a note."""
        full = group.memory_full_avg10
        if full is None or self._seeing[RECLAIM] is not None:
            return ()
        subject = subject_of(group.origin)
        if full < self._config.stalled_percent:
            return self._maybe_over(subject, group.at, full, full)
        evidence = PressureEvidence(
            resource=Resource.MEMORY,
            window_s=10.0,
            some_percent=group.memory_some_avg10,
            full_percent=full,
        )
        reasons = [self._stalls(), Reason(ReasonCode.SECOND_LAYER_UNKNOWN)]
        return self._present(
            subject, group.origin, group.at, Severity.NOTE, reasons=reasons, evidence=evidence
        )

    def _present(
        self,
        subject: Subject,
        origin: Origin | None,
        at: Instant,
        severity: Severity,
        *,
        reasons: Sequence[Reason],
        evidence: PressureEvidence,
    ) -> Sequence[Finding]:
        known = self._known.pop(subject, None)
        if known is None or at.since_s(known.seen) > _STALE_S:
            known = _Thrashing(at, at)
        known.seen = at
        keep(self._known, subject, known, limit=_GROUPS_MAX)
        if at.since_s(known.since) < self._config.lasting_s:
            return ()
        told, known.told = known.told, True
        boot = self._around.kernel_boot_id
        place: Place | None = None if origin is None else place_of(origin)
        return (
            Finding(
                verdict=Verdict.PRESENT,
                fault_class=_FAULT,
                subject=subject,
                target=None if origin is None else target_of(origin, subject),
                at=at,
                severity=severity,
                incarnation=Incarnation(kernel_boot_id=boot)
                if origin is None
                else incarnation_of(origin, boot),
                place=place,
                lifebound=subject.kind in {SubjectKind.CGROUP, SubjectKind.PROCESS, SubjectKind.HOST},
                count=int(not told),
                reasons=tuple(reasons),
                evidence=(evidence,),
            ),
        )

    def _maybe_over(
        self, subject: Subject, at: Instant, avg10: float, avg60: float | None
    ) -> Sequence[Finding]:
        """Take note that a subject does not thrash now; say so when it has not for a minute."""
        if avg10 < self._config.stalled_percent:
            self._known.pop(subject, None)
        if avg60 is None or avg60 >= self._config.clear_percent or avg10 >= self._config.clear_percent:
            return ()
        reason = Reason(ReasonCode.MEMORY_STALLS_ENDED, threshold=self._config.clear_percent, window_s=60.0)
        return (absent(_FAULT, subject, at, reason),)

    def _stalls(self) -> Reason:
        return Reason(
            ReasonCode.TASKS_STALL_FOR_MEMORY, threshold=self._config.stalled_percent, window_s=10.0
        )

    def _is_explained(self, now: Instant) -> bool:
        """Whether a group at its own limit thrashes, which the host's averages show as well."""
        return self._group_seen is not None and now.since_s(self._group_seen) <= _STALE_S
