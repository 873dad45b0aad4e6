"""F21 container.shm_too_small: a container's /dev/shm has no room for what its processes share.

Signs that processes ran out of it: the kernel refused to reserve room for a file (fallocate, as NCCL calls
it), a process died because a page of a mapping could not be had (SIGBUS of the kernel's own, as PyTorch dies
that maps a file of shared memory), or NCCL wrote so into its log. The second layer is the size itself: a
container gets 64 MiB where nobody says otherwise, and its mount table tells. A sign together with a small
size, or two different signs, are medium; one refusal or one line alone is a note.

Look-alikes stay quiet: SIGBUS without a small /dev/shm, which a file that was cut under its mapping and a
failing disk cause as well; one that another process sent, or that bad memory raised; a refusal while a
filesystem of the host is full, which is that fault; anything outside of a container.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final, Self

from msgspec import Meta

from agent.bounded import entry
from agent.detector import (
    DetectorConfig,
    FaultNote,
    Surroundings,
    Tick,
    quiet_for_s,
    sight_after,
)
from agent.finding import Finding, Hysteresis, OpenCase, Verdict, absent
from agent.subjects import incarnation_of, place_of, process_name, subject_of
from escalation.model import (
    Evidence,
    FaultClass,
    MountRole,
    Reason,
    ReasonCode,
    Severity,
    SignalEvidence,
    StorageEvidence,
    Subject,
    SubjectKind,
)
from probes.observation import (
    FatalSignal,
    Filesystems,
    Gap,
    Instant,
    LogLine,
    Observation,
    Origin,
    SensorName,
    ServerReadiness,
    StorageErrors,
    StorageFailure,
)

ERRORS: Final = SensorName("kernel.storage_error")
DEATHS: Final = SensorName("kernel.fatal_signal")
SERVERS: Final = SensorName("host.readiness")
_FAULT: Final = FaultClass.CONTAINER_SHM_TOO_SMALL
_CONTAINERS_MAX: Final = 128
_ENOSPC: Final = 28
_SIGBUS: Final = 7
_NO_PAGE: Final = 2  # BUS_ADRERR, asm-generic/siginfo.h
_PATTERN: Final = "nccl.shm_failed"
_SHM: Final = "/dev/shm"  # noqa: S108 -- it is what a case is about


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What size is small, how long signs count together, when the host is full, how long all is quiet."""

    small_bytes: Annotated[int, Meta(gt=0)] = 1 << 30
    together_s: Annotated[float, Meta(gt=0)] = 600.0
    full_share: Annotated[float, Meta(ge=0, le=1)] = 0.02
    quiet_s: Annotated[float, Meta(gt=0)] = 3600.0
    gone_clear_after_s: Annotated[float, Meta(gt=0)] = 60.0


@dataclass(slots=True)
class _Container:
    """What is known of one container: the size of its shared memory, and when each sign was last seen."""

    size_bytes: int | None = None
    sized: bool = False
    signs: dict[ReasonCode, tuple[Instant, int]] = field(default_factory=dict)


class SharedMemory:
    """Says which container has too little shared memory."""

    NAME: ClassVar[str] = "shared_memory"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_FAULT,
            severity=(Severity.NOTE, Severity.MEDIUM),
            sensors=(ERRORS, DEATHS, SERVERS),
            opens="In a container, fallocate was refused for want of space, a process died of SIGBUS or NCCL "
            "could not have shared memory, and its /dev/shm is smaller than `small_bytes` or two of these "
            "came within `together_s` (medium); or one refusal or log line alone (a note).",
            quiet="SIGBUS alone; SIGBUS that was sent, or that bad memory raised; a refusal while less than "
            "`full_share` of a filesystem is free; processes outside of containers.",
            clears="The container has run for `quiet_s` without a sign; or it is gone.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._around = surroundings
        self._containers: OrderedDict[Subject, _Container] = OrderedDict()
        self._host_is_full = False
        self._sees: dict[SensorName, Instant | None] = {ERRORS: None, DEATHS: None}

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """Open at once; the quiet time was waited for here."""
        return {_FAULT: Hysteresis(clear_hold_s=0.0)}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Judge a sign; keep in mind how much shared memory containers have."""
        match observation:
            case Gap(sensor=sensor) if sensor in self._sees:
                self._sees[sensor] = sight_after(self._sees[sensor], observation)
            case Filesystems():
                self._host_is_full = any(
                    each.free_bytes is not None
                    and each.total_bytes
                    and not each.read_only
                    and each.free_bytes < each.total_bytes * self._config.full_share
                    for each in observation.filesystems
                )
            case ServerReadiness(origin=origin) if origin.container_id:
                container = self._container(subject_of(origin))
                container.size_bytes, container.sized = observation.shared_memory_bytes, True
            case StorageErrors(failure=StorageFailure.FALLOCATE, errno=errno, origin=origin, count=count):
                if errno == _ENOSPC and not self._host_is_full:
                    return self._sign(ReasonCode.SHARED_MEMORY_REFUSED, origin, observation.at, count)
            case FatalSignal(signal=signal, code=code, origin=origin):
                if signal == _SIGBUS and code == _NO_PAGE:
                    return self._sign(ReasonCode.DIED_BY_BUS_ERROR, origin, observation.at, 1)
            case LogLine(pattern=pattern, origin=origin, count=count) if pattern == _PATTERN:
                return self._sign(ReasonCode.LOG_LINE_MATCHES, origin, observation.at, count)
            case _:
                pass
        return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Clear what has been quiet, and seen to be, for long enough, or is gone."""
        findings = []
        for case in tick.open_cases:
            reason = self._over(case, tick)
            if reason is not None:
                findings.append(absent(_FAULT, case.subject, tick.now, reason))
        return findings

    def _over(self, case: OpenCase, tick: Tick) -> Reason | None:
        quiet_s = min(quiet_for_s(since, case.last_seen, tick.now) for since in self._sees.values())
        look = tick.world.cgroups.get(case.place) if case.place else None
        if look is not None and not look.exists:
            gone_s = tick.now.since_s(case.last_seen)
            if gone_s >= self._config.gone_clear_after_s:
                return Reason(ReasonCode.CGROUP_GONE, count=1)
        if quiet_s < self._config.quiet_s:
            return None
        return Reason(
            ReasonCode.SUBJECT_RAN_SINCE, threshold=self._config.quiet_s, window_s=round(quiet_s, 3)
        )

    def _sign(self, code: ReasonCode, origin: Origin, at: Instant, count: int) -> Sequence[Finding]:
        if not origin.container_id:
            return ()
        subject = subject_of(origin)
        container = self._container(subject)
        container.signs[code] = (at, count)
        fresh = {
            sign: number
            for sign, (moment, number) in container.signs.items()
            if at.since_s(moment) <= self._config.together_s
        }
        size = container.size_bytes
        small = size is not None and size < self._config.small_bytes
        if container.sized and not small:
            return ()  # it has plenty, or the host's own: something else refused it or killed it
        if not small and len(fresh) < 2 and code is ReasonCode.DIED_BY_BUS_ERROR:
            return ()
        agree = small or len(fresh) > 1
        reasons = [
            Reason(sign, count=number, window_s=self._config.together_s) for sign, number in fresh.items()
        ]
        if small:
            reasons.append(Reason(ReasonCode.SHARED_MEMORY_SMALL))
        if not agree:
            reasons.append(Reason(ReasonCode.SECOND_LAYER_UNKNOWN))
        refused = fresh.get(ReasonCode.SHARED_MEMORY_REFUSED, 0)
        evidence: list[Evidence] = [_shared_memory(size, refused)]
        if code is ReasonCode.DIED_BY_BUS_ERROR:
            evidence.append(
                SignalEvidence(
                    signal=_SIGBUS, code=_NO_PAGE, process_name=process_name(origin), pid=origin.pid
                )
            )
        return (
            Finding(
                verdict=Verdict.PRESENT,
                fault_class=_FAULT,
                subject=subject,
                at=at,
                severity=Severity.MEDIUM if agree else Severity.NOTE,
                incarnation=incarnation_of(origin, self._around.kernel_boot_id),
                place=place_of(origin),
                lifebound=subject.kind is not SubjectKind.CONTAINER,
                count=count,
                reasons=tuple(reasons),
                evidence=tuple(evidence),
            ),
        )

    def _container(self, subject: Subject) -> _Container:
        return entry(self._containers, subject, _Container, limit=_CONTAINERS_MAX)


def _shared_memory(size_bytes: int | None, refused: int) -> StorageEvidence:
    return StorageEvidence(
        mount=_SHM,
        role=MountRole.SHARED_MEMORY,
        filesystem="tmpfs",
        mounted=True,
        read_only=False,
        total_bytes=size_bytes,
        free_bytes=None,
        total_inodes=None,
        free_inodes=None,
        full_in_s=None,
        refused_writes=refused,
    )
