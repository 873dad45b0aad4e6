"""F50 monitor.blind: a sensor that cannot see is a fault of its own.

A sensor that was switched off is a decision, not a fault; it stays visible in the coverage of every
heartbeat. So does one that looks for what only some drivers have, and that another sensor tells as well. A
sensor that is blind for less than `grace_s` is starting. A spool whose disk hangs is blind as a sensor is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Self

from msgspec import Meta

from agent.detector import DetectorConfig, FaultNote, Surroundings, Tick
from agent.finding import Finding, Hysteresis, Verdict, absent
from escalation.model import (
    BlindEvidence,
    BlindReason as WireReason,
    FaultClass,
    Incarnation,
    Reason,
    ReasonCode,
    Severity,
    Subject,
    SubjectKind,
)
from probes.observation import Blind, BlindReason, Gap, Instant, Observation, SensorName

NOT_MISSED: Final = frozenset(
    {
        (SensorName("host.logs"), BlindReason.UNSUPPORTED_PLATFORM),
        (SensorName("host.units"), BlindReason.UNSUPPORTED_PLATFORM),
        (SensorName("kernel.xid"), BlindReason.NO_KERNEL_SUPPORT),
    }
)
"""The journal of a host that keeps none; the manager of one without systemd; the NVIDIA driver's tracepoint,
where there is no such driver or an older one: NVML tells of Xids."""


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a blind sensor becomes a case."""

    grace_s: Annotated[float, Meta(ge=0)] = 60.0
    clear_hold_s: Annotated[float, Meta(ge=0)] = 10.0
    repeat_s: Annotated[float, Meta(gt=0)] = 3600.0


@dataclass(slots=True)
class _Darkness:
    since: Instant
    reason: BlindReason
    said_at: Instant | None = None


class BlindSensor:
    """Says which sensor cannot see, and why."""

    NAME: ClassVar[str] = "blind_sensor"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=FaultClass.MONITOR_BLIND,
            severity=(Severity.MEDIUM,),
            sensors=(),
            opens="A sensor of the registry has been blind for `grace_s`, or the agent's own spool has not "
            "answered for as long (`agent.spool`).",
            quiet="A sensor that the configuration disables; a sensor that is still starting; `host.logs` "
            "on a host that keeps no journal, `host.units` on one without systemd; `kernel.xid` where the "
            "NVIDIA driver has no such tracepoint, or is not there.",
            clears="The sensor sees again, or is switched off, or is one that is not missed here.",
        ),
    )

    def __init__(self, *, config: Config, kernel_boot_id: str) -> None:
        self._config = config
        self._kernel_boot_id = kernel_boot_id
        self._dark: dict[SensorName, _Darkness] = {}
        self._seeing: set[SensorName] = set()
        self._unmissed: set[SensorName] = set()

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, kernel_boot_id=surroundings.kernel_boot_id)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """Open at the first finding; the grace was waited for here."""
        return {FaultClass.MONITOR_BLIND: Hysteresis(clear_hold_s=self._config.clear_hold_s)}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Follow each sensor's sight."""
        if not isinstance(observation, Gap):
            return ()
        sensor = observation.sensor
        if not isinstance(observation.coverage, Blind):
            self._dark.pop(sensor, None)
            self._unmissed.discard(sensor)
            self._seeing.add(sensor)
            return (self._over(sensor, observation.at, ReasonCode.SENSOR_SEES_AGAIN),)
        self._seeing.discard(sensor)
        self._unmissed.discard(sensor)
        reason = observation.coverage.reason
        if reason is BlindReason.DISABLED or (sensor, reason) in NOT_MISSED:
            self._dark.pop(sensor, None)
            self._unmissed.add(sensor)
            return ()
        known = self._dark.get(sensor)
        if known is None or known.reason is not reason:
            since = known.since if known else observation.at
            self._dark[sensor] = _Darkness(since, reason)
        return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Turn darkness into a finding once its grace is over, and say it again each `repeat_s`."""
        found = []
        for case in tick.open_cases:
            sensor = SensorName(case.subject.name)
            if sensor in self._seeing:
                found.append(self._over(sensor, tick.now, ReasonCode.SENSOR_SEES_AGAIN))
            elif sensor in self._unmissed:
                found.append(self._over(sensor, tick.now, ReasonCode.NOT_WATCHED))
        for sensor, dark in self._dark.items():
            silent_s = tick.now.since_s(dark.since)
            if silent_s < self._config.grace_s:
                continue
            if dark.said_at is not None and tick.now.since_s(dark.said_at) < self._config.repeat_s:
                continue
            dark.said_at = tick.now
            found.append(self._there(sensor, dark, silent_s, tick.now))
        return found

    def _there(self, sensor: SensorName, dark: _Darkness, silent_s: float, now: Instant) -> Finding:
        return Finding(
            verdict=Verdict.PRESENT,
            fault_class=FaultClass.MONITOR_BLIND,
            subject=Subject(SubjectKind.SENSOR, sensor),
            at=now,
            severity=Severity.MEDIUM,
            incarnation=Incarnation(kernel_boot_id=self._kernel_boot_id),
            reasons=(
                Reason(
                    ReasonCode.SENSOR_BLIND,
                    count=1,
                    threshold=self._config.grace_s,
                    window_s=round(silent_s, 3),
                ),
            ),
            evidence=(BlindEvidence(sensor, WireReason(dark.reason.value), round(silent_s, 3)),),
        )

    def _over(self, sensor: SensorName, at: Instant, code: ReasonCode) -> Finding:
        return absent(
            FaultClass.MONITOR_BLIND, Subject(SubjectKind.SENSOR, sensor), at, Reason(code, count=1)
        )
