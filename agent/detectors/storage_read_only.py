"""F35 storage.read_only: a filesystem that was written to no longer can be, or its disk fails or has gone.

Layers: the mount table (it turned read-only, it is missing, its device is gone), the filesystem's own account
(errors of its structure, by its tracepoint, by the count that ext4 keeps and by the kernel's log, which names
no mount and counts for the one that turned), and the disk below (requests that failed). Read-only together
with an error is critical; an error of the filesystem together with failed requests is high; each alone is a
note. A disk that the operator declared and that is not mounted is high: the declaration is the second
witness, and so is the mount where the device below it is gone.

Look-alikes stay quiet: a filesystem that was read-only when it was mounted, as images and overlays' lower
layers are; errors of long ago that ext4 still keeps count of; a disk that nobody declared and that somebody
unmounted; a network mount that is slow for moments. One that was declared and answers no question for
`silent_s`, as a store whose server is away, is a case; whoever reads from it waits in the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Self

from msgspec import Meta

from agent.detector import (
    DetectorConfig,
    FaultNote,
    Surroundings,
    Tick,
    quiet_for_s,
    sight_after,
)
from agent.finding import Finding, Hysteresis, OpenCase, Verdict, absent, unknown
from agent.host.filesystems import (
    OF_DISK,
    OF_FILESYSTEM,
    RecentFailures,
    block_evidence,
    mount_subject,
    storage_evidence,
)
from escalation.model import (
    SEVERITY_ORDER,
    BlockEvidence,
    FaultClass,
    Incarnation,
    Reason,
    ReasonCode,
    Severity,
    StorageEvidence,
)
from probes.observation import (
    Blind,
    BlockActivity,
    Filesystem,
    Filesystems,
    Gap,
    Instant,
    LogLine,
    Observation,
    SensorName,
    Sight,
    StorageErrors,
    StorageFailure,
    StorageRole,
    Suspended,
)

SENSOR: Final = SensorName("host.storage")
ERRORS: Final = SensorName("kernel.storage_error")
LOGS: Final = SensorName("host.logs")
_FAULT: Final = FaultClass.STORAGE_READ_ONLY
_STALE_S: Final = 300.0
_DECLARED: Final = frozenset({StorageRole.EXTERNAL, StorageRole.DECLARED})
_OF_MEMORY: Final = (StorageFailure.WRITEBACK,)
_PATTERNS: Final = frozenset({"kernel.ext4_error", "kernel.remounted_read_only", "kernel.xfs_shutdown"})


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long errors count together, how long a declared disk may be away, how long all must be quiet."""

    errors_s: Annotated[float, Meta(gt=0)] = 3600.0
    missing_s: Annotated[float, Meta(ge=0)] = 30.0
    silent_s: Annotated[float, Meta(ge=0)] = 60.0
    quiet_s: Annotated[float, Meta(gt=0)] = 3600.0
    clear_hold_s: Annotated[float, Meta(ge=0)] = 30.0
    gone_clear_after_s: Annotated[float, Meta(gt=0)] = 3600.0


@dataclass(slots=True)
class _Known:
    """A mount point: the filesystem that was seen there, whether it could be written, and what was told."""

    device: str
    was_writable: bool = False
    errors_before: int | None = None
    missing_since: Instant | None = None
    silent_since: Instant | None = None
    told: Severity = Severity.UNKNOWN
    told_errors: int = 0


class StorageReadOnly:
    """Says which filesystem cannot be written any more, fails, or has gone."""

    NAME: ClassVar[str] = "storage_read_only"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_FAULT,
            severity=(Severity.NOTE, Severity.HIGH, Severity.CRITICAL),
            sensors=(SENSOR, ERRORS, LOGS),
            opens="A filesystem that could be written turned read-only, and it or its disk told of an error "
            "in `errors_s` (critical; a note without one); errors of the filesystem together with failed "
            "requests of its disk (high; a note alone); a disk of `[storage].external` is not mounted for "
            "`missing_s`, or the device below a mount is gone (high); a filesystem of `[storage]` answers no "
            "question for `silent_s` (high).",
            quiet="What was mounted read-only; images and lower layers; old errors that ext4 still counts; a "
            "disk that nobody declared and that was unmounted.",
            clears="It can be written, or is mounted, again, and nothing failed for `quiet_s` where errors "
            "opened the case; or an undeclared one has not been mounted for `gone_clear_after_s`.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._around = surroundings
        self._known: dict[str, _Known] = {}
        self._failures = RecentFailures(window_s=config.errors_s)
        self._activity: dict[str, BlockActivity] = {}
        self._latest: Filesystems | None = None
        self._sees = False
        self._errors_since: Instant | None = None
        self._logged_at: Instant | None = None

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """Open at once: what a filesystem did cannot be seen often enough to count it."""
        return {_FAULT: Hysteresis(clear_hold_s=self._config.clear_hold_s)}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Judge a look at the filesystems, or a failure by what the last look said."""
        match observation:
            case Gap():
                return self._sight(observation)
            case Filesystems():
                self._latest = observation
                known = {each.mount for each in observation.filesystems}
                self._known = {mount: state for mount, state in self._known.items() if mount in known}
                disks = {each.disk for each in observation.filesystems}
                self._activity = {disk: seen for disk, seen in self._activity.items() if disk in disks}
                return list(self._judged(observation, observation.at))
            case BlockActivity(device=device):
                if self._latest and any(each.disk == device for each in self._latest.filesystems):
                    self._activity[device] = observation
                return ()
            case StorageErrors():
                return self._failed(observation)
            case Suspended(at=at):
                for state in self._known.values():  # nobody could answer while the host slept
                    state.silent_since = state.silent_since and at
                return ()
            case LogLine(pattern=pattern, at=at) if pattern in _PATTERNS:
                self._logged_at = at
                return ()
            case _:
                return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Say unknown while nothing is seen; clear what is quiet again, or no longer there."""
        if not tick.open_cases:
            return ()
        latest = self._latest
        if not self._sees or latest is None:
            return (unknown(_FAULT, tick.now),)
        now = {mount_subject(each): each for each in latest.filesystems}
        findings = []
        for case in tick.open_cases:
            reason = self._over(case, now.get(case.subject), tick.now, whole=not latest.left_out)
            if reason is not None:
                findings.append(absent(_FAULT, case.subject, tick.now, reason))
        return findings

    def _sight(self, gap: Gap) -> Sequence[Finding]:
        if gap.sensor == ERRORS:
            self._errors_since = sight_after(self._errors_since, gap)
        if gap.sensor != SENSOR:
            return ()
        self._sees = not isinstance(gap.coverage, Blind)
        if self._sees:
            return ()
        self._latest = None
        return (unknown(_FAULT, gap.at),)

    def _failed(self, errors: StorageErrors) -> Sequence[Finding]:
        if errors.failure not in OF_DISK | OF_FILESYSTEM | set(_OF_MEMORY):
            return ()
        self._failures.add(errors)
        latest = self._latest
        if latest is None or errors.at.since_s(latest.at) > _STALE_S:
            return ()
        return [found for found in self._judged(latest, errors.at) if found.count]

    def _judged(self, look: Filesystems, at: Instant) -> Iterator[Finding]:
        for filesystem in look.filesystems:
            state = self._state(filesystem, look.at)
            found = self._judge(filesystem, state, look.at, at)
            if found is not None:
                yield found

    def _state(self, filesystem: Filesystem, looked: Instant) -> _Known:
        state = self._known.get(filesystem.mount)
        if state is None:
            state = self._known[filesystem.mount] = _Known(filesystem.device)
        elif filesystem.mounted and state.device != filesystem.device:
            # Another filesystem stands there now; what was told of the point is still to be cleared.
            state.device, state.was_writable, state.errors_before = filesystem.device, False, None
        if filesystem.mounted:
            state.missing_since = None
            if state.errors_before is None:
                state.errors_before = filesystem.error_count
            if not filesystem.read_only:
                state.was_writable = True
            silent = filesystem.sight is Sight.NOT_ANSWERING
            state.silent_since = (state.silent_since or looked) if silent else None
        return state

    def _judge(self, filesystem: Filesystem, state: _Known, looked: Instant, at: Instant) -> Finding | None:
        if not filesystem.mounted:
            state.missing_since = state.missing_since or looked
            away_s = at.since_s(state.missing_since)
            if filesystem.role is not StorageRole.EXTERNAL or away_s < self._config.missing_s:
                return None
            reasons = [
                Reason(ReasonCode.MOUNT_MISSING, window_s=round(away_s, 3)),
                Reason(ReasonCode.PLACEMENT_DECLARED),
            ]
            return self._present(filesystem, state, at, Severity.HIGH, reasons, stands=True)
        own, disk = self._own_errors(filesystem, state, at), self._disk_errors(filesystem, at)
        errors = [
            Reason(code, count=count, window_s=self._config.errors_s)
            for code, count in ((ReasonCode.FILESYSTEM_ERRORS, own), (ReasonCode.BLOCK_ERRORS, disk))
            if count
        ]
        if filesystem.device_gone:
            gone = Reason(ReasonCode.MOUNT_MISSING)
            return self._present(filesystem, state, at, Severity.HIGH, [gone, *errors], stands=True)
        silent_s = at.since_s(state.silent_since) if state.silent_since else 0.0
        if filesystem.role in _DECLARED and state.silent_since and silent_s >= self._config.silent_s:
            silent = Reason(ReasonCode.MOUNT_SILENT, window_s=round(silent_s, 3))
            reasons = [silent, Reason(ReasonCode.PLACEMENT_DECLARED), *errors]
            return self._present(filesystem, state, at, Severity.HIGH, reasons, stands=True)
        alone = [Reason(ReasonCode.SECOND_LAYER_UNKNOWN)]
        if filesystem.read_only and (filesystem.forced or state.was_writable):
            turned = [Reason(ReasonCode.MOUNT_READ_ONLY)]
            if not errors and self._logged_at and at.since_s(self._logged_at) <= self._config.errors_s:
                errors = [Reason(ReasonCode.LOG_LINE_MATCHES, count=1, window_s=self._config.errors_s)]
            severity = Severity.CRITICAL if errors else Severity.NOTE
            reasons = [*turned, *(errors or alone)]
            return self._present(filesystem, state, at, severity, reasons, stands=True)
        # Written data that never arrived speaks for the disk's errors, and alone for a full filesystem.
        lost = self._failures.count(_OF_MEMORY, filesystem.device, at)
        if disk and (own or lost):
            return self._present(filesystem, state, at, Severity.HIGH, errors, stands=False)
        if errors:
            return self._present(filesystem, state, at, Severity.NOTE, [*errors, *alone], stands=False)
        return None

    def _own_errors(self, filesystem: Filesystem, state: _Known, at: Instant) -> int:
        """Return the filesystem's errors: those that were told, else by how much its own count rose.

        Where it refuses writes by itself, all that it counts speak for it.
        """
        told = self._failures.count(OF_FILESYSTEM, filesystem.device, at)
        counted = filesystem.error_count or 0
        if not filesystem.forced:
            counted = max(0, counted - (state.errors_before or 0))
        return told or counted

    def _disk_errors(self, filesystem: Filesystem, at: Instant) -> int:
        return self._failures.count(OF_DISK, filesystem.disk, at) if filesystem.disk else 0

    def _over(
        self, case: OpenCase, filesystem: Filesystem | None, now: Instant, *, whole: bool
    ) -> Reason | None:
        """Return why a case is over, None while it is not known to be."""
        if filesystem is None:
            away_s = now.since_s(case.last_seen)
            if whole and away_s >= self._config.gone_clear_after_s:
                return Reason(ReasonCode.MOUNT_MISSING, window_s=round(away_s, 3))
            return None
        state = self._known.get(filesystem.mount)
        if not filesystem.mounted or filesystem.device_gone or filesystem.read_only or state is None:
            return None
        if state.silent_since is not None:
            return None  # that nothing is known of it now ends nothing
        own, disk = self._own_errors(filesystem, state, now), self._disk_errors(filesystem, now)
        # What this process did not see, an earlier one may have: the case remembers.
        failed = any(isinstance(each, BlockEvidence) for each in case.evidence)
        if own or disk or failed:
            if quiet_for_s(self._errors_since, case.last_seen, now) < self._config.quiet_s:
                return None
            # Its own count does not fall: what it has now is of the past.
            state.errors_before = filesystem.error_count
        state.told, state.told_errors = Severity.UNKNOWN, 0
        missing = any(isinstance(each, StorageEvidence) and not each.mounted for each in case.evidence)
        return Reason(ReasonCode.MOUNT_BACK if missing else ReasonCode.WRITABLE_AGAIN)

    def _present(
        self,
        filesystem: Filesystem,
        state: _Known,
        at: Instant,
        severity: Severity,
        reasons: Sequence[Reason],
        *,
        stands: bool,
    ) -> Finding | None:
        """Return what was found; what does not stand, but happened, only where something is new."""
        own, disk = (
            self._own_errors(filesystem, state, at),
            self._disk_errors(filesystem, at),
        )
        worse = SEVERITY_ORDER.index(severity) > SEVERITY_ORDER.index(state.told)
        fresh = max(int(worse), own + disk - state.told_errors)
        state.told, state.told_errors = (severity if worse else state.told), own + disk
        if not fresh and not stands:
            return None
        failing = block_evidence(
            filesystem.disk or filesystem.device,
            self._activity.get(filesystem.disk),
            window_s=self._config.errors_s,
            errors=disk,
            filesystem_errors=own,
        )
        return Finding(
            verdict=Verdict.PRESENT,
            fault_class=_FAULT,
            subject=mount_subject(filesystem),
            at=at,
            severity=severity,
            incarnation=Incarnation(kernel_boot_id=self._around.kernel_boot_id),
            count=fresh,
            reasons=tuple(reasons),
            evidence=(storage_evidence(filesystem), *((failing,) if own or disk else ())),
        )
