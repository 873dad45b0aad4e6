"""F34 storage.full: a filesystem that matters has no room left, for bytes or for files.

Two layers: what the filesystem says is free for an ordinary user (space and inodes apart: without inodes it
refuses files while most of its space is free), and writes that the kernel refused meanwhile. Both together
are high, on a disk that nobody named medium. What is free alone is a note: low for `lasting_s`, or falling
towards nothing within `full_in_s`. A refused write does not say where it was, so it counts for whatever is
low then; fallocate in a container may mean its /dev/shm, and does not count. Where no program sees refusals,
PostgreSQL's own line in the log is as good.

Look-alikes stay quiet: images that are full and read-only by design, and filesystems mounted read-only; a
write over quota (EDQUOT); blocks that are kept for root, which are not free for anybody else and are not
counted as such; a refused write while there is room everywhere (a tmpfs, a cgroup file).
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final, Self

from msgspec import Meta

from agent.detector import DetectorConfig, FaultNote, Surroundings, Tick
from agent.finding import Finding, Hysteresis, Verdict, absent, unknown
from agent.host.filesystems import OF_CALLS, RecentFailures, mount_subject, storage_evidence
from escalation.model import FaultClass, Incarnation, Reason, ReasonCode, Severity
from probes.observation import (
    Blind,
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
)

SENSOR: Final = SensorName("host.storage")
ERRORS: Final = SensorName("kernel.storage_error")
LOGS: Final = SensorName("host.logs")
_FAULT: Final = FaultClass.STORAGE_FULL
_SAMPLES: Final = 64
_STALE_S: Final = 300.0
_ENOSPC: Final = 28
_GIB: Final = 1 << 30
_OF_INODES: Final = (StorageFailure.INODE,)
_OF_SPACE: Final = (StorageFailure.ALLOCATION,)
_PATTERN: Final = "postgresql.disk_full"


class Config(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How little is too little: the smaller of `floor_bytes` and `floor_share`; for files `inode_share`."""

    floor_bytes: Annotated[int, Meta(ge=0)] = 10 * _GIB
    floor_share: Annotated[float, Meta(ge=0, le=1)] = 0.05
    inode_share: Annotated[float, Meta(ge=0, le=1)] = 0.02
    lasting_s: Annotated[float, Meta(ge=0)] = 60.0
    slope_s: Annotated[float, Meta(gt=0)] = 1800.0
    slope_min_s: Annotated[float, Meta(gt=0)] = 300.0
    full_in_s: Annotated[float, Meta(gt=0)] = 14400.0
    falling_share: Annotated[float, Meta(ge=0, le=1)] = 0.2
    refused_s: Annotated[float, Meta(gt=0)] = 600.0
    clear_above: Annotated[float, Meta(ge=1)] = 2.0
    clear_hold_s: Annotated[float, Meta(ge=0)] = 60.0
    gone_clear_after_s: Annotated[float, Meta(gt=0)] = 300.0


class _Stage(enum.IntEnum):
    WELL = 0
    FALLING = 1
    LOW = 2
    REFUSED = 3


@dataclass(slots=True)
class _Level:
    """One filesystem: what was free when, and since when it is too little."""

    device: str
    free: deque[tuple[Instant, int]] = field(default_factory=lambda: deque(maxlen=_SAMPLES))
    low_since: Instant | None = None
    told: _Stage = _Stage.WELL
    refused: int = 0


class StorageFull:
    """Says which filesystem has no room left."""

    NAME: ClassVar[str] = "storage_full"
    SETTINGS: ClassVar[type[DetectorConfig]] = Config
    FAULTS: ClassVar[tuple[FaultNote, ...]] = (
        FaultNote(
            fault_class=_FAULT,
            severity=(Severity.NOTE, Severity.MEDIUM, Severity.HIGH),
            sensors=(SENSOR, ERRORS, LOGS),
            opens="Less is free than the floor, of space or of inodes, and a write was refused for want of "
            "it in `refused_s`, or PostgreSQL logged so (high; medium on a disk that nobody named); or less "
            "has been free for `lasting_s`, or it will be full within `full_in_s` with less than "
            "`falling_share` free (note).",
            quiet="Images and filesystems mounted read-only; a write over quota; a refused write while there "
            "is room; fallocate in a container, which may mean its /dev/shm.",
            clears="`clear_above` times the floor is free, of both, for `clear_hold_s`; or the filesystem "
            "has not been mounted for `gone_clear_after_s`.",
        ),
    )

    def __init__(self, *, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._around = surroundings
        self._levels: dict[str, _Level] = {}
        self._latest: Filesystems | None = None
        self._refusals = RecentFailures(window_s=config.refused_s)
        self._sees = False
        self._logged: tuple[Instant, int] | None = None

    @classmethod
    def build(cls, config: Config, surroundings: Surroundings) -> Self:
        """Make the detector."""
        return cls(config=config, surroundings=surroundings)

    @property
    def hysteresis(self) -> Mapping[FaultClass, Hysteresis]:
        """Open at once, because what had to last was waited for here."""
        return {_FAULT: Hysteresis(clear_hold_s=self._config.clear_hold_s)}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """Judge a look at the filesystems, or a refusal by what the last look said."""
        match observation:
            case Gap():
                return self._sight(observation)
            case Filesystems():
                self._latest = observation
                known = {each.mount for each in observation.filesystems}
                self._levels = {mount: level for mount, level in self._levels.items() if mount in known}
                return list(self._judged(observation, observation.at))
            case StorageErrors(errno=errno, failure=failure) if errno == _ENOSPC:
                if failure is StorageFailure.FALLOCATE and observation.origin.container_id:
                    return ()
                self._refusals.add(observation)
                return self._judged_again(observation.at)
            case LogLine(pattern=pattern, at=at, count=count) if pattern == _PATTERN:
                before = self._lines(at)
                self._logged = (at, before + count)
                return self._judged_again(at)
            case _:
                return ()

    def tick(self, tick: Tick) -> Sequence[Finding]:
        """Say unknown while nothing is seen; clear what has not been mounted for long enough."""
        if not tick.open_cases:
            return ()
        if not self._sees:
            return (unknown(_FAULT, tick.now),)
        latest = self._latest
        if latest is None or latest.left_out:
            return ()
        mounted = {mount_subject(each) for each in latest.filesystems if each.mounted}
        return [
            absent(
                _FAULT, case.subject, tick.now, Reason(ReasonCode.MOUNT_MISSING, window_s=round(away_s, 3))
            )
            for case in tick.open_cases
            if case.subject not in mounted
            and (away_s := tick.now.since_s(case.last_seen)) >= self._config.gone_clear_after_s
        ]

    def _sight(self, gap: Gap) -> Sequence[Finding]:
        if gap.sensor != SENSOR:
            return ()
        self._sees = not isinstance(gap.coverage, Blind)
        if self._sees:
            return ()
        self._levels.clear()
        self._latest = None
        return (unknown(_FAULT, gap.at),)

    def _judged_again(self, at: Instant) -> Sequence[Finding]:
        """Judge the last look once more, because a write was refused; what is not new is not said again."""
        latest = self._latest
        if latest is None or at.since_s(latest.at) > _STALE_S:
            return ()
        return [
            found for found in self._judged(latest, at) if found.verdict is Verdict.PRESENT and found.count
        ]

    def _lines(self, at: Instant) -> int:
        """Return how many lines of the log told of a full disk lately."""
        if self._logged is None or at.since_s(self._logged[0]) > self._config.refused_s:
            return 0
        return self._logged[1]

    def _judged(self, look: Filesystems, at: Instant) -> Iterator[Finding]:
        for filesystem in look.filesystems:
            if not filesystem.mounted or filesystem.read_only:
                continue
            if filesystem.sight is not Sight.SEEN:
                yield unknown(_FAULT, at, mount_subject(filesystem))
                continue
            found = self._judge(filesystem, look.at, at)
            if found is not None:
                yield found

    def _judge(self, filesystem: Filesystem, looked: Instant, at: Instant) -> Finding | None:
        level = self._levels.get(filesystem.mount)
        if level is None or level.device != filesystem.device:
            level = self._levels[filesystem.mount] = _Level(filesystem.device)
        free, total = filesystem.free_bytes or 0, filesystem.total_bytes or 0
        if not level.free or looked.since_s(level.free[-1][0]) > 0:
            level.free.append((looked, free))
        if not total:
            return None
        space, inodes = self._short(filesystem, 1.0)
        if not space and not inodes:
            level.low_since = None
        else:
            level.low_since = level.low_since or looked
        refused = self._refused(filesystem, at, space=space, inodes=inodes)
        stage = self._stage(level, filesystem, refused, at)
        if stage is _Stage.WELL:
            if any(self._short(filesystem, self._config.clear_above)):
                return None
            level.told, level.refused = _Stage.WELL, 0
            return absent(_FAULT, mount_subject(filesystem), at, Reason(ReasonCode.SPACE_FREE_AGAIN))
        # What is new counts: a worse stage, or refusals that were not told before.
        fresh = max(0, refused - level.refused) if stage is _Stage.REFUSED else int(stage > level.told)
        level.told, level.refused = max(level.told, stage), refused
        return self._present(filesystem, level, stage, at, count=fresh)

    def _short(self, filesystem: Filesystem, above: float) -> tuple[bool, bool]:
        """Return whether less is free than `above` times the floor: of space, of inodes."""
        free, total = filesystem.free_bytes or 0, filesystem.total_bytes or 0
        floor = min(self._config.floor_bytes, int(total * self._config.floor_share))
        files, all_files = filesystem.free_inodes, filesystem.total_inodes
        short_of_files = (
            files is not None
            and all_files is not None
            and files < all_files * self._config.inode_share * above
        )
        return free < floor * above, short_of_files

    def _refused(self, filesystem: Filesystem, at: Instant, *, space: bool, inodes: bool) -> int:
        count = 0
        if space:
            count += self._refusals.count(_OF_SPACE, filesystem.device, at)
            count += self._refusals.count(OF_CALLS, "", at)
            count += self._lines(at)
        if inodes:
            count += self._refusals.count(_OF_INODES, filesystem.device, at)
        return count

    def _stage(self, level: _Level, filesystem: Filesystem, refused: int, at: Instant) -> _Stage:
        if refused:
            return _Stage.REFUSED
        if level.low_since is not None and at.since_s(level.low_since) >= self._config.lasting_s:
            return _Stage.LOW
        full_in_s = self._full_in_s(level)
        free, total = filesystem.free_bytes or 0, filesystem.total_bytes or 1
        if full_in_s is None or full_in_s > self._config.full_in_s:
            return _Stage.WELL
        return _Stage.FALLING if free < total * self._config.falling_share else _Stage.WELL

    def _full_in_s(self, level: _Level) -> float | None:
        """Return when nothing is left, by least squares over the last `slope_s`; None while it does not fill.

        Looks are as close as things move, so the time between them is unequal, and they must span
        `slope_min_s`: a file that is written and removed is no trend.
        """
        last, free = level.free[-1]
        points = [(at.since_s(last), size) for at, size in level.free]
        points = [(at_s, size) for at_s, size in points if -at_s <= self._config.slope_s]
        if len(points) < 4 or -points[0][0] < self._config.slope_min_s:
            return None
        middle = sum(at_s for at_s, _ in points) / len(points)
        mean = sum(size for _, size in points) / len(points)
        spread = sum((at_s - middle) ** 2 for at_s, _ in points)
        slope = sum((at_s - middle) * (size - mean) for at_s, size in points) / spread if spread else 0.0
        return free / -slope if slope < 0 else None

    def _present(
        self, filesystem: Filesystem, level: _Level, stage: _Stage, at: Instant, *, count: int
    ) -> Finding:
        space, inodes = self._short(filesystem, 1.0)
        low_s = at.since_s(level.low_since) if level.low_since is not None else 0.0
        full_in_s = self._full_in_s(level)
        reasons: list[Reason] = []
        if space:
            share = 100 * self._config.floor_share
            reasons.append(Reason(ReasonCode.SPACE_LOW, threshold=share, window_s=round(low_s, 3)))
        if inodes:
            share = 100 * self._config.inode_share
            reasons.append(Reason(ReasonCode.INODES_LOW, threshold=share, window_s=round(low_s, 3)))
        if full_in_s is not None and full_in_s <= self._config.full_in_s:
            reasons.append(Reason(ReasonCode.SPACE_FALLS, threshold=self._config.full_in_s))
        window_s = self._config.refused_s
        lines = self._lines(at) if space else 0
        if level.refused > lines and stage is _Stage.REFUSED:
            count_refused = level.refused - lines
            reasons.append(Reason(ReasonCode.WRITES_REFUSED, count=count_refused, window_s=window_s))
        if lines and stage is _Stage.REFUSED:
            reasons.append(Reason(ReasonCode.LOG_LINE_MATCHES, count=lines, window_s=window_s))
        if stage is not _Stage.REFUSED:
            reasons.append(Reason(ReasonCode.SECOND_LAYER_UNKNOWN))
        severity = Severity.NOTE
        if stage is _Stage.REFUSED:
            severity = Severity.MEDIUM if filesystem.role is StorageRole.OTHER else Severity.HIGH
        return Finding(
            verdict=Verdict.PRESENT,
            fault_class=_FAULT,
            subject=mount_subject(filesystem),
            at=at,
            severity=severity,
            incarnation=Incarnation(kernel_boot_id=self._around.kernel_boot_id),
            count=count,
            reasons=tuple(reasons),
            evidence=(storage_evidence(filesystem, full_in_s=full_in_s, refused=level.refused),),
        )
