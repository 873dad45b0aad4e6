"""F15 gpu.clocks_capped: a GPU that is busy stays far below the clock that is usual for it.

Only a busy GPU is judged: idle clocks are low by design, and the driver's own reasons that mean idle or
configured so keep quiet. What is usual is learnt on this GPU under load, from samples that are not low, and
is never less than a share of the highest clock, so that a GPU which was capped since it booted does not teach
that this is usual. The second layer is power (a capped GPU draws little) or the pace of answers on this host;
memory-bound work draws little power at full clock, so power alone says nothing. With the clock alone it is a
note. Whether the driver gives a reason decides what is advised: with none the power supply is suspected.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Final, Self

import msgspec
from msgspec import Meta

from agent.bounded import keep
from agent.detector import DetectorConfig, FaultNote, Surroundings, Tick
from agent.finding import Finding, Hysteresis, Verdict, unknown
from agent.host.heard import Heard
from agent.host.server_work import LearntPace, ServerWork
from agent.subjects import cut
from escalation.model import (
    FaultClass,
    GpuEvidence,
    Incarnation,
    Reason,
    ReasonCode,
    Severity,
    Subject,
    SubjectKind,
)
from probes.gpu.facts import CLOCKS_BAD, CLOCKS_BENIGN, ClockReason, GpuFacts, GpuIdentity
from probes.observation import Blind, Exchange, Gap, GpuAbsent, GpuState, Instant, Observation, SensorName

GPUS: Final = SensorName("gpu.nvml")
ROUTES: Final = SensorName("http.routes")
_FAULT: Final = FaultClass.GPU_CLOCKS_CAPPED
_GPUS_MAX: Final = 64
_LEARNING: Final = 1 / 300
_LEARNT_FROM: Final = 60
_STALE_S: Final = 10.0
_PACES: Final = "paces"
_GIVEN: Final = CLOCKS_BAD | ClockReason.SOFTWARE_THERMAL | ClockReason.SOFTWARE_POWER_CAP


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What busy is, what low is, and for how long."""

    busy_percent: Annotated[int, Meta(ge=1, le=100)] = 80
    clock_fraction: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    highest_share: Annotated[float, Meta(ge=0, le=1)] = 0.6
    power_fraction: Annotated[float, Meta(gt=0, lt=1)] = 0.6
    pace_fraction: Annotated[float, Meta(gt=0, lt=1)] = 0.6
    lasting_s: Annotated[float, Meta(ge=0)] = 60.0
    back_fraction: Annotated[float, Meta(gt=0, le=1)] = 0.8
    clear_hold_s: Annotated[float, Meta(ge=0)] = 60.0
    gone_clear_after_s: Annotated[float, Meta(gt=0)] = 86400.0


@dataclass(slots=True)
class _Usual:
    """A slow mean of what was seen under load."""

    value: float = 0.0
    count: int = 0

    def learn(self, value: float) -> None:
        self.count += 1
        self.value += (value - self.value) * max(_LEARNING, 1 / self.count)

    @property
    def known(self) -> float | None:
        return self.value if self.count >= _LEARNT_FROM else None


@dataclass(slots=True)
class _Gpu:
    clock: _Usual
    power: _Usual
    low_since: Instant | None = None
    seen_at: Instant | None = None
    told: bool = False


@dataclass(frozen=True, slots=True)
class _Learnt:
    """What is kept of one GPU."""

    clock: _Usual
    power: _Usual


def _key(identity: GpuIdentity) -> str:
    return identity.uuid or identity.pci or f"index {identity.index}"


class GpuClocks:
    """Says which GPU is held back."""

    NAME: ClassVar[str] = "gpu_clocks"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_FAULT,
            severity=(Severity.NOTE, Severity.HIGH),
            sensors=(GPUS, ROUTES),
            opens="A GPU of at least `busy_percent` has run for `lasting_s` below `clock_fraction` of its "
            "usual clock under load (at least `highest_share` of its highest), and draws less than "
            "`power_fraction` of its usual power or answers come at less than `pace_fraction` of their usual "
            "pace (high); the clock alone is a note.",
            quiet="An idle GPU; clocks that are set so, synchronised or held by a display, unless the driver "
            "slows the GPU down as well; low power at full clock (memory-bound work).",
            clears="The busy GPU runs at `back_fraction` of its usual clock again, held for `clear_hold_s`; "
            "or no such GPU has been told of for `gone_clear_after_s`.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._around = surroundings
        self._gpus: OrderedDict[GpuIdentity, _Gpu] = OrderedDict()
        self._work = ServerWork()
        self._recalled: dict[str, _Learnt] = {}
        self._sees = False
        self._heard = Heard(GPUS)

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """Open at once, because what had to last was waited for here."""
        return {_FAULT: Hysteresis(clear_hold_s=self._config.clear_hold_s)}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Judge one sample of one GPU; learn the pace of answers beside it."""
        match observation:
            case Gap(sensor=sensor, coverage=coverage) if sensor == GPUS:
                self._sees = not isinstance(coverage, Blind)
                self._heard.sight(observation)
                self._break_off()
                return () if self._sees else (unknown(_FAULT, observation.at),)
            case GpuAbsent(gpu=absent):
                if absent is not None:
                    self._heard.take(_subject(absent), observation.at)
                self._break_off(absent)
            case Exchange(facts=facts):
                calm = all(gpu.low_since is None for gpu in self._gpus.values())
                self._work.answered(observation.at, facts, learn=calm)
            case GpuState(facts=state):
                self._heard.take(_subject(state.gpu), observation.at)
                return self._judged(observation)
            case _:
                pass
        return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Say unknown of open cases while nothing is seen; end those of GPUs that are not there any more."""
        if not self._sees:
            return (unknown(_FAULT, tick.now),) if tick.open_cases else ()
        gone = (self._heard.gone(case, tick, self._config.gone_clear_after_s) for case in tick.open_cases)
        return tuple(over for over in gone if over is not None)

    def memory(self) -> Mapping[str, bytes]:
        """Return what is usual of each GPU and of the answers beside it, to be kept across a restart."""
        learnt = self._recalled | {
            _key(identity): _Learnt(clock=gpu.clock, power=gpu.power)
            for identity, gpu in self._gpus.items()
            if gpu.clock.count
        }
        kept = {f"gpu/{name}": msgspec.json.encode(each) for name, each in [*learnt.items()][-_GPUS_MAX:]}
        return kept | {_PACES: msgspec.json.encode(self._work.learnt())}

    def recall(self, memory: Mapping[str, bytes]) -> int:
        """Take up what `memory` returned before; return how many entries could not be read."""
        unreadable = 0
        for key, raw in memory.items():
            try:
                if key == _PACES:
                    self._work.recall(msgspec.json.decode(raw, type=tuple[LearntPace, ...]))
                else:
                    self._recalled[key.removeprefix("gpu/")] = msgspec.json.decode(raw, type=_Learnt)
            except msgspec.DecodeError:
                unreadable += 1
        return unreadable

    def _judged(self, state: GpuState) -> Sequence[Finding]:
        facts, at = state.facts, state.at
        gpu = self._gpu(facts.gpu)
        if gpu.seen_at is not None and at.since_s(gpu.seen_at) > _STALE_S:
            gpu.low_since = None
        gpu.seen_at = at
        clock = facts.sm_clock_mhz
        busy = (
            facts.utilisation_percent is not None and facts.utilisation_percent >= self._config.busy_percent
        )
        if clock is None or not busy or _is_meant(facts.clock_reasons or 0):
            gpu.low_since = None
            return ()
        usual = self._usual(gpu, facts)
        gpu.told = gpu.told and gpu.low_since is not None
        if usual is None or clock >= usual * self._config.clock_fraction:
            gpu.low_since = None
            gpu.clock.learn(clock)
            if facts.power_w is not None:
                gpu.power.learn(facts.power_w)
            if usual is None or clock < usual * self._config.back_fraction:
                return ()
            reason = Reason(ReasonCode.CLOCKS_USUAL_AGAIN)
            return (self._finding(Verdict.ABSENT, facts, at, reasons=(reason,)),)
        gpu.low_since = gpu.low_since or at
        low_s = at.since_s(gpu.low_since)
        if low_s < self._config.lasting_s:
            return ()
        first, gpu.told = not gpu.told, True
        return (replace(self._present(gpu, facts, at, usual, low_s), count=int(first)),)

    def _usual(self, gpu: _Gpu, facts: GpuFacts) -> float | None:
        """Return the clock that is usual under load, None where neither past nor highest clock is known."""
        highest = facts.sm_clock_max_mhz
        least = None if highest is None else highest * self._config.highest_share
        told = [value for value in (gpu.clock.known, least) if value is not None]
        return max(told, default=None)

    def _present(self, gpu: _Gpu, facts: GpuFacts, at: Instant, usual: float, low_s: float) -> Finding:
        config = self._config
        low = Reason(
            ReasonCode.CLOCKS_LOW_UNDER_LOAD, threshold=config.clock_fraction, window_s=round(low_s, 3)
        )
        seconds = []
        power = gpu.power.known
        if power is not None and facts.power_w is not None and facts.power_w < power * config.power_fraction:
            seconds.append(Reason(ReasonCode.POWER_LOW_UNDER_LOAD, threshold=config.power_fraction))
        if self._work.slow(at, 2 * config.lasting_s, config.pace_fraction) is not None:
            seconds.append(Reason(ReasonCode.PACE_BELOW_BASELINE, threshold=config.pace_fraction))
        reasons = [low, *seconds]
        if facts.clock_reasons is not None and not facts.clock_reasons & _GIVEN:
            reasons.append(Reason(ReasonCode.NO_THROTTLE_REASON))
        if not seconds:
            reasons.append(Reason(ReasonCode.SECOND_LAYER_UNKNOWN))
        return self._finding(
            Verdict.PRESENT,
            facts,
            at,
            severity=Severity.HIGH if seconds else Severity.NOTE,
            reasons=tuple(reasons),
            evidence=GpuEvidence(
                gpu=cut(facts.gpu.pci or "", 64),
                name=cut(facts.name or "", 96),
                sm_mhz=facts.sm_clock_mhz,
                usual_mhz=round(usual),
                busy_percent=facts.utilisation_percent,
                watts=facts.power_w,
                event_reasons=facts.clock_reasons,
                nvml_code=0,
                recovery_action=facts.recovery_action,
            ),
        )

    def _finding(
        self,
        verdict: Verdict,
        facts: GpuFacts,
        at: Instant,
        *,
        reasons: tuple[Reason, ...],
        severity: Severity = Severity.UNKNOWN,
        evidence: GpuEvidence | None = None,
    ) -> Finding:
        return Finding(
            verdict=verdict,
            fault_class=_FAULT,
            subject=_subject(facts.gpu),
            at=at,
            severity=severity,
            incarnation=Incarnation(kernel_boot_id=self._around.kernel_boot_id),
            reasons=reasons,
            evidence=() if evidence is None else (evidence,),
        )

    def _gpu(self, identity: GpuIdentity) -> _Gpu:
        gpu = self._gpus.get(identity)
        if gpu is None:
            learnt = self._recalled.pop(_key(identity), None)
            gpu = _Gpu(_Usual(), _Usual()) if learnt is None else _Gpu(learnt.clock, learnt.power)
        return keep(self._gpus, identity, gpu, limit=_GPUS_MAX)

    def _break_off(self, absent: GpuIdentity | None = None) -> None:
        """What was low before a gap, of one GPU or of all, is not known to have stayed so."""
        for identity, gpu in self._gpus.items():
            if absent is None or absent.is_same(identity):
                gpu.low_since = None


def _is_meant(reasons: int) -> bool:
    """Whether somebody set the clocks so, or the GPU rests, and nothing else holds them down as well."""
    return bool(reasons & CLOCKS_BENIGN) and not reasons & CLOCKS_BAD


def _subject(identity: GpuIdentity) -> Subject:
    return Subject(SubjectKind.GPU, cut(identity.pci or _key(identity)))
