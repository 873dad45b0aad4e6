"""F22 memory.cgroup_oom_kill: the kernel killed a process for want of memory.

`oom:mark_victim` is the kernel's own decision, so an operator's `kill -9`, `docker kill`, earlyoom or
systemd-oomd never gets here: they leave no victim mark. The cgroup's own count of kills is the second
witness. A case clears after `clear_after_s` in which nothing was killed *and* a kill would have been seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Self

from msgspec import Meta

from agent.detector import (
    DetectorConfig,
    FaultNote,
    Surroundings,
    Tick,
    quiet_for_s,
    sight_after,
)
from agent.finding import Finding, Hysteresis, Verdict, absent
from agent.subjects import incarnation_of, place_of, process_name, subject_of, target_of
from escalation.model import (
    FaultClass,
    OomEvidence,
    OomScope,
    Reason,
    ReasonCode,
    Severity,
    Subject,
    SubjectKind,
)
from probes.observation import Gap, Instant, Observation, OomKill, SensorName

SENSOR = SensorName("kernel.oom_kill")
_FAULT = FaultClass.MEMORY_CGROUP_OOM_KILL


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a cgroup counts as recovered from an OOM kill."""

    clear_after_s: Annotated[float, Meta(gt=0)] = 86400.0


class OomKillDetector:
    """Says which container, unit or cgroup lost a process to the OOM killer."""

    NAME: ClassVar[str] = "oom_kill"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_FAULT,
            severity=(Severity.HIGH,),
            sensors=(SENSOR,),
            opens="The kernel's OOM killer chose a process of the container, unit or cgroup "
            "(of the host, when the host's memory ran out).",
            quiet="SIGKILL by an operator, a container runtime, earlyoom or systemd-oomd (status 137 alone).",
            clears="No kill for `clear_after_s` while the sensor saw everything.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._around = surroundings
        self._seeing_since: Instant | None = None

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """Open at the first kill; the quiet time was waited for here."""
        return {_FAULT: Hysteresis(clear_hold_s=0.0)}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Judge one kill."""
        if isinstance(observation, Gap) and observation.sensor == SENSOR:
            self._seeing_since = sight_after(self._seeing_since, observation)
            return ()
        return (self._kill(observation),) if isinstance(observation, OomKill) else ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Clear what has been quiet, and seen to be, for long enough."""
        found = []
        for case in tick.open_cases:
            quiet_s = quiet_for_s(self._seeing_since, case.last_seen, tick.now)
            if quiet_s < self._config.clear_after_s:
                continue
            reason = Reason(
                ReasonCode.NO_KILL_SINCE, threshold=self._config.clear_after_s, window_s=round(quiet_s, 3)
            )
            found.append(absent(_FAULT, case.subject, tick.now, reason))
        return found

    def _kill(self, kill: OomKill) -> Finding:
        origin = kill.origin
        subject = subject_of(origin)
        target = target_of(origin, subject)
        if kill.scope.value == OomScope.HOST.value:
            target = subject if subject.kind in {SubjectKind.CONTAINER, SubjectKind.UNIT} else None
            subject = Subject(SubjectKind.HOST, self._around.host)
        second = (
            Reason(ReasonCode.CGROUP_COUNTED_KILL, count=kill.kills_in_cgroup)
            if kill.kills_in_cgroup
            else Reason(ReasonCode.SECOND_LAYER_UNKNOWN)
        )
        return Finding(
            verdict=Verdict.PRESENT,
            fault_class=_FAULT,
            subject=subject,
            target=target,
            at=kill.at,
            severity=Severity.HIGH,
            incarnation=incarnation_of(origin, self._around.kernel_boot_id),
            place=place_of(origin),
            lifebound=subject.kind in {SubjectKind.CGROUP, SubjectKind.PROCESS},
            reasons=(Reason(ReasonCode.KERNEL_CHOSE_VICTIM, count=1), second),
            evidence=(
                OomEvidence(
                    scope=OomScope(kill.scope.value),
                    process_name=process_name(origin),
                    pid=origin.pid,
                    anon_rss_bytes=kill.anon_rss_bytes,
                    limit_bytes=kill.limit_bytes,
                    kills_in_cgroup=kill.kills_in_cgroup,
                ),
            ),
        )
