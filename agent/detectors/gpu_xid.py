"""F12 gpu.application_xid and F13 gpu.device_fault: what the driver says went wrong on a GPU.

The driver reports errors by number (Xid), through its tracepoint, NVML and the kernel log, which are joined
into one event here. Whose fault a number is, and what it takes, stands in the table of `probes.gpu.xids`: one
fault of a program (13, 31) is that program's bug and a note; the same number from several different programs
is suspicion of the hardware. A number that the table does not know stays visible, as a note.

A device fault has two layers: a number that speaks of the device, and what NVML says of the GPU (lost, reset
required, a step of recovery that the driver advises). One of them is high and says that the other is missing;
both are critical.

Look-alikes stay quiet: 43 and 45 in the wake of another Xid or of a process that ended; all GPUs lost at the
same moment (the driver is being unloaded or upgraded, unless its versions say that it is not); a GPU that is
not there yet in the minute after a sleep; 154 while the driver advises nothing. A case clears when the GPU
answers, the driver advises nothing, and for an hour no Xid came that would have been told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Final, Self, assert_never

from msgspec import Meta

from agent.detector import DetectorConfig, FaultNote, Surroundings, Tick, quiet_for_s, sight_after
from agent.finding import Finding, Hysteresis, OpenCase, Verdict, absent, unknown
from agent.gpus.table import GPUS_MAX, UNNAMED, GpuTable, KnownGpu, is_lost, is_mute
from agent.gpus.xid_tally import WINDOW_S, Tally, XidTallies
from agent.subjects import incarnation_of, place_of, service_of, subject_of
from escalation.model import FaultClass, Incarnation, Reason, ReasonCode, Severity, Subject, SubjectKind
from probes.gpu.facts import Absence, DriverFacts
from probes.gpu.xids import XidEvent, XidJoin, XidMeaning, XidScope, XidTier, meaning_of
from probes.observation import (
    Blind,
    Gap,
    GpuAbsent,
    GpuDriver,
    GpuState,
    GpuXid,
    Instant,
    Observation,
    Origin,
    SensorName,
    Suspended,
)

NVML: Final = SensorName("gpu.nvml")
TRACEPOINT: Final = SensorName("kernel.xid")
LOG: Final = SensorName("host.logs")
SLEEP: Final = SensorName("host.suspend")
_APPLICATION: Final = FaultClass.GPU_APPLICATION_XID
_DEVICE: Final = FaultClass.GPU_DEVICE_FAULT
_AFTERMATH: Final = frozenset({43, 45})
_ONE_BUG: Final = frozenset({13, 31})
_IF_REPEATED: Final = frozenset({109})
_BROKEN: Final = frozenset({XidTier.DRAIN_AND_RESET, XidTier.REPLACE, XidTier.HUMAN})
_WAITING: Final = 64
_EVIDENCE: Final = 3
_SAMPLE_S: Final = 2.0


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long things take, and how often an application may err before it is more than a note."""

    application_repeats: Annotated[int, Meta(ge=2)] = 3
    aftermath_s: Annotated[float, Meta(ge=0)] = 60.0
    settle_s: Annotated[float, Meta(ge=0)] = 5.0
    advice_s: Annotated[float, Meta(ge=0)] = 15.0
    lost_for_s: Annotated[float, Meta(ge=0)] = 5.0
    mute_for_s: Annotated[float, Meta(ge=0)] = 45.0
    together_s: Annotated[float, Meta(ge=0)] = 10.0
    unload_s: Annotated[float, Meta(ge=0)] = 90.0
    resume_grace_s: Annotated[float, Meta(ge=0)] = 60.0
    fresh_s: Annotated[float, Meta(gt=0)] = 15.0
    clear_after_s: Annotated[float, Meta(ge=0)] = 3600.0
    clear_hold_s: Annotated[float, Meta(ge=0)] = 30.0


@dataclass(frozen=True, slots=True)
class _Unsettled:
    """An event about which something is still to be learnt."""

    at: Instant
    gpu: str
    number: int
    gpu_instance: int | None


class GpuXids:
    """Tells a program's error from a fault of the GPU."""

    NAME: ClassVar[str] = "gpu_xid"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_APPLICATION,
            severity=(Severity.NOTE, Severity.MEDIUM, Severity.HIGH),
            sensors=(NVML, TRACEPOINT, LOG),
            opens="The driver reports an Xid that a program caused. A fault of its own memory accesses (13, "
            "31) is a note until it came `application_repeats` times in an hour; others are medium; the same "
            "number from several different programs is high. A number that is not known is a note.",
            quiet="43 and 45 within `aftermath_s` of another Xid of that GPU, or when a process left it.",
            clears="For `clear_after_s` no Xid was told while it would have been; the GPU answers and the "
            "driver advises nothing.",
        ),
        FaultNote(
            fault_class=_DEVICE,
            severity=(Severity.NOTE, Severity.HIGH, Severity.CRITICAL),
            sensors=(NVML, TRACEPOINT, LOG, SLEEP),
            opens="The driver reports an Xid of the device or its links, or NVML says that the GPU is lost "
            "for `lost_for_s`, needs a reset, or should be recovered, or nothing of it can be read for "
            "`mute_for_s` (high); an Xid and NVML together are critical. Rows that will be remapped, "
            "corrected errors and parts that are retired are notes; so is one 109.",
            quiet="All GPUs lost within `together_s`, while for `unload_s` nothing says that the driver is "
            "still the same; a GPU that is lost within `resume_grace_s` of a sleep; 154 while nothing is "
            "advised.",
            clears="For `clear_after_s` no Xid was told while it would have been; the GPU answers, the "
            "driver advises nothing, and no row of its memory waits to be remapped.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._around = surroundings
        self._join = XidJoin()
        self._serial = 0
        self._gpus = GpuTable()
        self._tallies = XidTallies()
        self._sight: dict[SensorName, Instant | None] = {NVML: None, TRACEPOINT: None}
        self._aftermath: deque[_Unsettled] = deque(maxlen=_WAITING)
        self._asked: deque[_Unsettled] = deque(maxlen=_WAITING)
        self._unblamed: deque[_Unsettled] = deque(maxlen=_WAITING)
        self._said: dict[str, frozenset[ReasonCode]] = {}
        self._woke_at: Instant | None = None
        self._driver: tuple[Instant, DriverFacts] | None = None

    def __repr__(self) -> str:
        return f"GpuXids({self._gpus}, {self._tallies})"

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """Open at once: what had to last was waited for here."""
        rule = Hysteresis(clear_hold_s=self._config.clear_hold_s)
        return {_APPLICATION: rule, _DEVICE: rule}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Judge an Xid or the state of a GPU; follow sight, sleep and the driver's versions."""
        match observation:
            case GpuState():
                return self._state(observation)
            case GpuXid():
                return self._told(observation)
            case GpuAbsent():
                return self._absent(observation)
            case GpuDriver():
                self._driver = (observation.at, observation.facts)
            case Suspended():
                self._woke_at = observation.at
            case Gap(sensor=sensor) if sensor in self._sight:
                self._sight[sensor] = sight_after(self._sight[sensor], observation)
                if sensor == NVML and isinstance(observation.coverage, Blind):
                    return self._unknown(observation.at)
            case _:
                pass
        return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Judge what had to settle; clear what is over."""
        found = [*self._settled(tick.now), *self._unadvised(tick.now)]
        while self._unblamed and tick.now.since_s(self._unblamed[0].at) > self._config.settle_s:
            self._unblamed.popleft()
        if self._sight[NVML] is None:
            return [*found, *self._unknown(tick.now)] if tick.open_cases else found
        return [*found, *(over for case in tick.open_cases for over in self._over(case, tick.now))]

    def _told(self, told: GpuXid) -> Sequence[Finding]:
        event = self._join.take(told)
        gpu = self._gpus.named(event.facts.pci)
        if event.serial <= self._serial:
            return self._told_again(gpu, event, told.origin)
        self._serial = event.serial
        tally = self._tallies.count(gpu.name, event)
        unsettled = _Unsettled(told.at, gpu.name, tally.number, event.facts.gpu_instance)
        culprit = told.origin if told.origin.pid is not None else self._only_worker(gpu, event)
        if culprit is not None:
            tally.blame(culprit, told.at)
        else:
            self._unblamed.append(unsettled)
        if tally.number in _AFTERMATH:
            self._aftermath.append(unsettled)
            return ()
        meaning = meaning_of(tally.number)
        if meaning.tier is XidTier.ASK_THE_DRIVER:
            self._asked.append(unsettled)
            return ()
        return (self._judged(gpu, tally, meaning, told.at),)

    def _told_again(self, gpu: KnownGpu, event: XidEvent, origin: Origin) -> Sequence[Finding]:
        """Another source told of an event that is counted; it may know who caused it."""
        tally = self._tallies.get(gpu.name, event.facts.number)
        if tally is None:
            return ()
        tally.sources = max(tally.sources, len(event.sources))
        if origin.pid is None:
            return ()
        return self._blamed(gpu, tally, origin, event.last_at)

    def _blamed(self, gpu: KnownGpu, tally: Tally, origin: Origin, at: Instant) -> Sequence[Finding]:
        tally.blame(origin, at)
        meaning = meaning_of(tally.number)
        if tally.number in _AFTERMATH or meaning.scope is not XidScope.APPLICATION:
            return ()
        return (self._application(gpu, tally, meaning, at, count=0),)

    def _only_worker(self, gpu: KnownGpu, event: XidEvent) -> Origin | None:
        workers = gpu.workers(event.facts.gpu_instance)
        return workers[0] if workers is not None and len(workers) == 1 else None

    def _judged(self, gpu: KnownGpu, tally: Tally, meaning: XidMeaning, at: Instant) -> Finding:
        match meaning.scope:
            case XidScope.APPLICATION | XidScope.UNKNOWN:
                return self._application(gpu, tally, meaning, at)
            case XidScope.NOTICE:
                return self._noted(gpu, tally, at)
            case XidScope.DEVICE | XidScope.LINK:
                return self._device(gpu, at) if _breaks(tally) else self._noted(gpu, tally, at)
            case _:
                assert_never(meaning.scope)

    def _application(
        self, gpu: KnownGpu, tally: Tally, meaning: XidMeaning, at: Instant, *, count: int = 1
    ) -> Finding:
        restarts = meaning.tier is XidTier.RESTART_APPLICATION
        several = restarts and len(tally.programs) > 1
        severity = Severity.NOTE
        if several:
            severity = Severity.HIGH
        elif restarts and (tally.number not in _ONE_BUG or tally.count >= self._config.application_repeats):
            severity = Severity.MEDIUM
        reasons = [Reason(ReasonCode.XID_REPORTED, count=tally.count, window_s=WINDOW_S)]
        if several:
            reasons.append(Reason(ReasonCode.XID_FROM_SEVERAL_PROCESSES, count=len(tally.programs)))
        elif not tally.programs:
            reasons.append(Reason(ReasonCode.SECOND_LAYER_UNKNOWN))
        found = replace(
            self._finding(_APPLICATION, gpu, at, severity, count=count),
            lifebound=not several,
            reasons=tuple(reasons),
            evidence=(tally.evidence(), gpu.evidence()),
        )
        if not restarts or not tally.programs:
            return found
        culprit = tally.origin
        actable = not several and bool(culprit.container_id or culprit.unit)
        return replace(
            found,
            incarnation=incarnation_of(culprit, self._around.kernel_boot_id),
            target=subject_of(culprit) if actable else None,
            place=place_of(culprit) if actable else None,
        )

    def _noted(self, gpu: KnownGpu, tally: Tally, at: Instant) -> Finding:
        reasons = (
            Reason(ReasonCode.XID_REPORTED, count=tally.count, window_s=WINDOW_S),
            Reason(ReasonCode.SECOND_LAYER_UNKNOWN),
        )
        return replace(
            self._finding(_DEVICE, gpu, at, Severity.NOTE),
            reasons=reasons,
            evidence=(tally.evidence(), gpu.evidence()),
        )

    def _state(self, state: GpuState) -> Sequence[Finding]:
        gpu = self._gpus.take_state(state)
        found = self._left(gpu, state.at) if self._unblamed else []
        if gpu.recovery_action:
            found.append(self._ongoing(gpu, state.at))
        else:
            self._said.pop(gpu.name, None)
        return found

    def _left(self, gpu: KnownGpu, at: Instant) -> list[Finding]:
        """Blame whoever left the GPU at an Xid, if it was one program alone."""
        found: list[Finding] = []
        for each in list(self._unblamed):
            if each.gpu != gpu.name or at.since_s(each.at) > self._config.settle_s:
                continue
            gone = {service_of(who): who for left, who in gpu.left if left.since_s(each.at) >= -_SAMPLE_S}
            tally = self._tallies.get(each.gpu, each.number)
            if len(gone) == 1 and tally is not None:
                self._unblamed.remove(each)
                found.extend(self._blamed(gpu, tally, next(iter(gone.values())), at))
        return found

    def _absent(self, absent: GpuAbsent) -> Sequence[Finding]:
        lost = is_lost(absent) or is_mute(absent)
        if absent.gpu is None and not lost and absent.why is not Absence.RESET_REQUIRED:
            return ()
        missing = self._gpus.take_absent(absent)
        if not lost:
            broken = missing if absent.why is Absence.RESET_REQUIRED else ()
        else:
            broken = [gpu for gpu in missing if self._is_gone(gpu, absent.at)]
        return [self._ongoing(gpu, absent.at) for gpu in broken]

    def _is_gone(self, gpu: KnownGpu, at: Instant) -> bool:
        """Whether a GPU that is lost is so for long enough, and not because of a sleep or of the driver."""
        if gpu.absent is None or gpu.absent_since is None:
            return False
        if at.since_s(gpu.absent_since) < self._patience_s(gpu.absent):
            return False
        if any(_breaks(tally) for tally in self._tallies.recent(gpu.name, at)):
            return True
        if self._woke_at is not None and 0 <= at.since_s(self._woke_at) < self._config.resume_grace_s:
            return False
        if not self._gpus.lost_at_once(self._config.together_s):
            return True
        return self._driver_is_the_same(gpu.absent_since) and (
            at.since_s(gpu.absent_since) >= self._config.unload_s
        )

    def _patience_s(self, absent: GpuAbsent) -> float:
        """Return how long an absence has to last: a mute GPU is asked once more from the beginning before."""
        return self._config.lost_for_s if is_lost(absent) else self._config.mute_for_s

    def _driver_is_the_same(self, since: Instant) -> bool:
        """Whether the driver was seen loaded after `since`, in the version that is installed."""
        if self._driver is None or self._driver[0].boot_ns < since.boot_ns:
            return False
        facts = self._driver[1]
        return facts.module is not None and facts.module == facts.disk

    def _ongoing(self, gpu: KnownGpu, at: Instant) -> Finding:
        """Return the state of a GPU that is at fault; it counts when it is another than was said last."""
        found = self._device(gpu, at)
        codes = frozenset(reason.code for reason in found.reasons)
        again = self._said.get(gpu.name) == codes
        self._said[gpu.name] = codes
        while len(self._said) > GPUS_MAX:
            del self._said[next(iter(self._said))]
        return replace(found, count=0) if again else found

    def _device(self, gpu: KnownGpu, at: Instant) -> Finding:
        """Return the fault with all that is known of it."""
        xids = [tally for tally in self._tallies.recent(gpu.name, at) if _breaks(tally)]
        states = list(self._states(gpu, at))
        reasons = [*states]
        if xids:
            count = sum(tally.count for tally in xids)
            reasons.append(Reason(ReasonCode.XID_REPORTED, count=count, window_s=WINDOW_S))
        both = bool(xids) and bool(states)
        if not both:
            reasons.append(Reason(ReasonCode.SECOND_LAYER_UNKNOWN))
        if self._woke_at is not None and gpu.absent_since is not None:
            ago_s = gpu.absent_since.since_s(self._woke_at)
            if abs(ago_s) < self._config.resume_grace_s:
                reasons.append(
                    Reason(ReasonCode.HOST_SLEPT_BEFORE, count=1, window_s=round(max(0, ago_s), 3))
                )
        return replace(
            self._finding(_DEVICE, gpu, at, Severity.CRITICAL if both else Severity.HIGH),
            reasons=tuple(reasons),
            evidence=(gpu.evidence(), *(tally.evidence() for tally in xids[:_EVIDENCE])),
        )

    def _states(self, gpu: KnownGpu, at: Instant) -> Iterator[Reason]:
        """Yield what NVML says against the GPU."""
        if gpu.absent is not None and gpu.absent_since is not None:
            lasted_s = round(at.since_s(gpu.absent_since), 3)
            if is_lost(gpu.absent) or is_mute(gpu.absent):
                patience_s = self._patience_s(gpu.absent)
                if lasted_s >= patience_s:
                    yield Reason(ReasonCode.GPU_IS_LOST, count=1, threshold=patience_s)
            elif gpu.absent.why is Absence.RESET_REQUIRED:
                yield Reason(ReasonCode.GPU_NEEDS_RESET, count=1)
        elif gpu.recovery_action:
            yield Reason(ReasonCode.RECOVERY_IS_ADVISED)

    def _settled(self, now: Instant) -> Sequence[Finding]:
        """Note the 43s and 45s that follow nothing."""
        found = []
        while self._aftermath and now.since_s(self._aftermath[0].at) >= self._config.settle_s:
            each = self._aftermath.popleft()
            gpu, tally = self._gpus.named_so(each.gpu), self._tallies.get(each.gpu, each.number)
            if tally is not None and not self._is_aftermath(gpu, each):
                found.append(self._application(gpu, tally, meaning_of(each.number), each.at))
        return found

    def _is_aftermath(self, gpu: KnownGpu, each: _Unsettled) -> bool:
        others = self._tallies.recent(gpu.name, each.at, within_s=self._config.aftermath_s)
        if any(
            t.number not in _AFTERMATH and abs(t.last.since_s(each.at)) <= self._config.aftermath_s
            for t in others
        ):
            return True
        return any(abs(left.since_s(each.at)) <= 2 * self._config.settle_s for left, _ in gpu.left)

    def _unadvised(self, now: Instant) -> Sequence[Finding]:
        """Note a change of the driver's advice where the advice itself could not be read."""
        found = []
        while self._asked and now.since_s(self._asked[0].at) >= self._config.advice_s:
            each = self._asked.popleft()
            gpu, tally = self._gpus.named_so(each.gpu), self._tallies.get(each.gpu, each.number)
            known = gpu.answers(now, fresh_s=self._config.fresh_s) and gpu.recovery_action is not None
            if tally is not None and not known:
                found.append(self._noted(gpu, tally, each.at))
        return found

    def _over(self, case: OpenCase, now: Instant) -> Sequence[Finding]:
        """Return that a case is over, if everything says so."""
        if case.subject.name == UNNAMED:
            gpus = list(self._gpus.identified())
        else:
            known = self._gpus.get(case.subject.name)
            gpus = [known] if known is not None else []
        if not gpus or not all(self._is_well(gpu, case.fault_class, now) for gpu in gpus):
            return ()
        quiet_s = min(quiet_for_s(self._told_since(gpu), case.last_seen, now) for gpu in gpus)
        if quiet_s < self._config.clear_after_s:
            return ()
        reasons = (
            Reason(ReasonCode.NO_XID_SINCE, threshold=self._config.clear_after_s, window_s=round(quiet_s, 3)),
            Reason(ReasonCode.GPU_ANSWERS_AGAIN),
        )
        return (absent(case.fault_class, case.subject, now, *reasons),)

    def _is_well(self, gpu: KnownGpu, fault: FaultClass, now: Instant) -> bool:
        answers = gpu.answers(now, fresh_s=self._config.fresh_s) and gpu.advises_nothing
        return answers and (fault is not _DEVICE or gpu.rows_are_fine)

    def _told_since(self, gpu: KnownGpu) -> Instant | None:
        """Return since when every Xid of this GPU would have been told, by whoever has seen longest."""
        sources = [self._sight[TRACEPOINT], self._sight[NVML] if gpu.tells_xids else None]
        seeing = [since for since in sources if since is not None]
        return min(seeing, key=lambda since: since.boot_ns, default=None)

    def _finding(
        self, fault: FaultClass, gpu: KnownGpu, at: Instant, severity: Severity, *, count: int = 1
    ) -> Finding:
        return Finding(
            verdict=Verdict.PRESENT,
            fault_class=fault,
            subject=Subject(SubjectKind.GPU, gpu.name),
            at=at,
            severity=severity,
            incarnation=Incarnation(kernel_boot_id=self._around.kernel_boot_id),
            count=count,
        )

    def _unknown(self, at: Instant) -> Sequence[Finding]:
        return [unknown(fault, at) for fault in (_APPLICATION, _DEVICE)]


def _breaks(tally: Tally) -> bool:
    """Whether these Xids say that the GPU is at fault."""
    meaning = meaning_of(tally.number)
    at_fault = meaning.scope in {XidScope.DEVICE, XidScope.LINK} and meaning.tier in _BROKEN
    return at_fault and (tally.number not in _IF_REPEATED or tally.count > 1)
