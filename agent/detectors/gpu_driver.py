"""F14 gpu.driver_mismatch: the driver was upgraded on disk, and the old kernel module is still loaded.

NVML says so itself (code 18), once it is loaded anew: that is high. The versions of the loaded module and of
the library on disk are the second layer; where they differ for longer than an upgrade takes, while the
library that this agent holds still works, whatever starts from now on fails: high too, and said to be one
layer. All GPUs lost at one moment are what unloading the driver looks like: a note, and high when the
versions agree with it.

Other faults stay quiet: no driver (9), no library (12) and no permission (4) blind the sensor and are
monitor.blind; one GPU of several that is lost, or one with an Xid of its own, is gpu.device_fault. A case
clears when GPUs can be read and the versions do not differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Final, Self

from msgspec import Meta

from agent.detector import DetectorConfig, FaultNote, Surroundings, Tick
from agent.finding import Finding, Hysteresis, Verdict, absent, unknown
from agent.gpus.table import GpuTable, is_lost
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
from probes.gpu.facts import Absence, DriverFacts
from probes.gpu.xids import XidScope, meaning_of
from probes.observation import (
    Blind,
    BlindReason,
    Gap,
    GpuAbsent,
    GpuDriver,
    GpuState,
    GpuXid,
    Instant,
    Observation,
    SensorName,
)

SENSOR: Final = SensorName("gpu.nvml")
_FAULT: Final = FaultClass.GPU_DRIVER_MISMATCH
_XID_S: Final = 60.0


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long an upgrade may take, and how close together GPUs are lost by an unloaded driver."""

    upgrade_s: Annotated[float, Meta(ge=0)] = 300.0
    together_s: Annotated[float, Meta(ge=0)] = 10.0
    lost_for_s: Annotated[float, Meta(ge=0)] = 5.0
    fresh_s: Annotated[float, Meta(gt=0)] = 15.0
    clear_hold_s: Annotated[float, Meta(ge=0)] = 60.0


class GpuDriverMismatch:
    """Says when the driver's library and its kernel module are of two versions."""

    NAME: ClassVar[str] = "gpu_driver"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_FAULT,
            severity=(Severity.NOTE, Severity.HIGH),
            sensors=(SENSOR,),
            opens="NVML refuses with code 18; or the library on disk is of another version than the loaded "
            "module for `upgrade_s` (both high); or all of several GPUs are lost within `together_s` (a "
            "note, high when the versions differ or the module is gone).",
            quiet="No driver (code 9), no library (12), no permission (4); an upgrade that is under way; one "
            "of several GPUs that is lost; GPUs that reported an Xid of the device a minute before.",
            clears="GPUs can be read, and the versions do not differ; held for `clear_hold_s`.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._around = surroundings
        self._subject = Subject(SubjectKind.HOST, surroundings.host)
        self._gpus = GpuTable()
        self._versions: DriverFacts | None = None
        self._was_loaded = False
        self._differ_since: Instant | None = None
        self._read_at: Instant | None = None
        self._xid_at: Instant | None = None
        self._said: frozenset[ReasonCode] = frozenset()

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """Open at once: what had to last was waited for here."""
        return {_FAULT: Hysteresis(clear_hold_s=self._config.clear_hold_s)}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Follow the versions and the GPUs; judge a refusal."""
        match observation:
            case GpuState():
                self._gpus.take_state(observation)
                self._read_at = observation.at
            case GpuDriver():
                self._versions = observation.facts
                self._was_loaded = self._was_loaded or observation.facts.module is not None
                since = self._differ_since or observation.at
                self._differ_since = since if self._differ() else None
            case GpuXid() if meaning_of(observation.facts.number).scope in {XidScope.DEVICE, XidScope.LINK}:
                self._xid_at = observation.at
            case GpuAbsent(why=Absence.VERSION_MISMATCH):
                self._read_at = None
                return (self._refused(observation),)
            case GpuAbsent() if is_lost(observation):
                self._gpus.take_absent(observation)
                return self._lost(observation.at)
            case Gap(sensor=sensor, coverage=Blind(reason=reason)) if sensor == SENSOR:
                self._read_at = None
                if reason is not BlindReason.VERSION_MISMATCH:
                    return (unknown(_FAULT, observation.at),)
            case _:
                pass
        return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Judge versions that have differed for long; clear what is over."""
        since = self._differ_since
        if since is not None and self._read_at is not None:
            lasted_s = tick.now.since_s(since)
            if lasted_s < self._config.upgrade_s:
                return ()
            if ReasonCode.INSTALLED_LIBRARY_DIFFERS in self._said:
                return ()
            reasons = (
                Reason(
                    ReasonCode.INSTALLED_LIBRARY_DIFFERS,
                    count=1,
                    threshold=self._config.upgrade_s,
                    window_s=round(lasted_s, 3),
                ),
                Reason(ReasonCode.SECOND_LAYER_UNKNOWN),
            )
            return (self._present(tick.now, Severity.HIGH, reasons),)
        if not tick.open_cases or self._versions is None or self._differ() or self._read_at is None:
            return ()
        if tick.now.since_s(self._read_at) > self._config.fresh_s:
            return ()
        self._said = frozenset()
        over = Reason(ReasonCode.DRIVER_ANSWERS_AGAIN, count=1)
        return (absent(_FAULT, self._subject, tick.now, over),)

    def _differ(self) -> bool:
        facts = self._versions
        known = facts is not None and facts.module is not None and facts.disk is not None
        return known and facts is not None and facts.module != facts.disk

    def _refused(self, absent: GpuAbsent) -> Finding:
        second = Reason(
            ReasonCode.INSTALLED_LIBRARY_DIFFERS if self._differ() else ReasonCode.SECOND_LAYER_UNKNOWN
        )
        reasons = (Reason(ReasonCode.LIBRARY_DIFFERS_FROM_MODULE, count=1), second)
        return self._present(absent.at, Severity.HIGH, reasons, code=absent.code)

    def _lost(self, at: Instant) -> Sequence[Finding]:
        """Judge GPUs that are lost, if all of them are and none said a word of its own before."""
        if not self._gpus.lost_at_once(self._config.together_s):
            return ()
        if self._xid_at is not None and at.since_s(self._xid_at) <= _XID_S:
            return ()
        gpus = list(self._gpus.identified())
        since = max((gpu.absent_since for gpu in gpus if gpu.absent_since), key=lambda s: s.boot_ns)
        if at.since_s(since) < self._config.lost_for_s:
            return ()
        unloaded = self._was_loaded and self._versions is not None and self._versions.module is None
        agree = self._differ() or unloaded
        second = ReasonCode.INSTALLED_LIBRARY_DIFFERS if self._differ() else ReasonCode.SECOND_LAYER_UNKNOWN
        reasons = (Reason(ReasonCode.GPU_IS_LOST, count=len(gpus)), Reason(second))
        severity = Severity.HIGH if agree else Severity.NOTE
        return (self._present(at, severity, reasons, code=gpus[0].absent.code if gpus[0].absent else None),)

    def _present(
        self, at: Instant, severity: Severity, reasons: tuple[Reason, ...], *, code: int | None = None
    ) -> Finding:
        codes = frozenset(reason.code for reason in reasons)
        again, self._said = codes == self._said, codes
        return Finding(
            verdict=Verdict.PRESENT,
            fault_class=_FAULT,
            subject=self._subject,
            at=at,
            severity=severity,
            incarnation=Incarnation(kernel_boot_id=self._around.kernel_boot_id),
            count=0 if again else 1,
            reasons=reasons,
            evidence=() if code is None else (_refusal(code),),
        )


def _refusal(code: int) -> GpuEvidence:
    return GpuEvidence(
        gpu="",
        name="",
        sm_mhz=None,
        usual_mhz=None,
        busy_percent=None,
        watts=None,
        event_reasons=None,
        nvml_code=min(max(code, 0), 2**32 - 1),
        recovery_action=None,
    )
