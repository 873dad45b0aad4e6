"""`host.logs` and `host.log_files`: lines of known patterns, from the journal and from followed files.

Two sensors, because they go blind apart. Both hand out what their thread has counted; who wrote a line is
looked up here, on the agent's own thread, and only for lines that said something.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from probes.gpu.facts import XidFacts, XidSource
from probes.host.identity import Identifier, place_of, server_kind
from probes.logs.files import Files
from probes.logs.journal import Journal
from probes.logs.pattern import Matcher
from probes.logs.patterns import PATTERNS
from probes.logs.reading import Reading, Source
from probes.logs.tally import Told, ToldXid
from probes.observation import (
    BlindReason,
    Gap,
    GpuXid,
    Instant,
    LogLine,
    Observation,
    Origin,
    Seeing,
    SensorName,
    ServerKind,
)
from probes.sensor import SensorBlind
from probes.settings import LogSettings

JOURNAL: Final = SensorName("host.logs")
FILES: Final = SensorName("host.log_files")
_FRESH_NS: Final = 60_000_000_000


class LogSensor:
    """Tells of lines that match a pattern, from one source."""

    period_s = 0.25

    def __init__(
        self, *, name: SensorName, identifier: Identifier, source: Callable[[], Source | None]
    ) -> None:
        """`source` makes the source at each opening, None where the configuration wants none."""
        self.name = name
        self._identifier = identifier
        self._source = source
        self._reading: Reading | None = None

    def __repr__(self) -> str:
        return f"LogSensor({self.name}, {self._reading!r})"

    @property
    def left_out(self) -> str:
        """Which files are not read, and why."""
        return self._reading.left_out if self._reading is not None else ""

    def open(self) -> None:
        """Start the thread."""
        source = self._source()
        if source is None:
            raise SensorBlind(BlindReason.DISABLED, "the table [logs] names nothing to read")
        reading = Reading(source=source, matcher=Matcher(PATTERNS), name=self.name)
        try:
            reading.start()
        except SensorBlind:
            reading.stop()
            raise
        self._reading = reading

    def read(self, now: Instant) -> Sequence[Observation]:
        """Return the lines since the last read."""
        assert self._reading is not None
        harvest = self._reading.take()
        found: list[Observation] = [self._xid(told, now) for told in harvest.xids]
        found += [self._line(told, now) for told in harvest.lines]
        if harvest.lost:
            found.append(Gap(self.name, now, Seeing(), lost=harvest.lost))
        try:
            self._reading.check()
        except SensorBlind as error:
            raise SensorBlind(error.blind.reason, error.blind.detail, last=found) from error
        return found

    def waiting(self) -> bool:
        """Whether the thread has found anything."""
        return self._reading is not None and self._reading.has_something

    def settle(self) -> None:
        """Nothing to note: a successor begins with what is written then."""

    def wakeup_fd(self) -> int | None:
        """Lines wait for their turn."""
        return None

    def close(self) -> None:
        """End the thread."""
        if self._reading is not None:
            self._reading.stop()
            self._reading = None

    def _line(self, told: Told, now: Instant) -> LogLine:
        at = _instant(told.unix_ns, now)
        return LogLine(
            sensor=self.name,
            at=at,
            origin=self._origin(told, at),
            pattern=told.pattern.id,
            captures=told.captures,
            count=told.count,
        )

    def _xid(self, told: ToldXid, now: Instant) -> GpuXid:
        line, at = told.line, _instant(told.unix_ns, now)
        origin = Origin()
        if line.pid is not None:
            origin = self._identifier.origin(pid=line.pid, at_boot_ns=at.boot_ns)
            if origin.process_name is None:
                origin = replace(origin, process_name=line.process_name)
        facts = XidFacts(
            pci=line.pci, number=line.number, source=XidSource.LOG, gpu_instance=line.gpu_instance
        )
        return GpuXid(self.name, at, origin, facts)

    def _origin(self, told: Told, at: Instant) -> Origin:
        """Return who wrote the line, or whom the kernel wrote of; of the dead only the journal knows."""
        writer = told.writer
        named = next((each.number for each in told.captures if each.name == "pid"), None)
        pid = int(named) if named is not None else writer.pid
        found = Origin(pid=pid, process_name=writer.name)
        if pid is not None:
            found = self._identifier.origin(pid=pid, at_boot_ns=at.boot_ns)
        place = place_of(writer.cgroup_path or "")
        server = found.server if found.server is not ServerKind.OTHER else told.pattern.server
        if server is ServerKind.OTHER:
            server = server_kind(writer.name or "", ())
        return replace(
            found,
            cgroup_path=found.cgroup_path or writer.cgroup_path,
            unit=found.unit or place.unit,
            container_id=found.container_id or writer.container_id or place.container_id,
            process_name=found.process_name or writer.name,
            server=server,
        )


def journal_sensor(*, identifier: Identifier, settings: LogSettings) -> LogSensor:
    """Return the sensor of the journal."""
    return LogSensor(
        name=JOURNAL,
        identifier=identifier,
        source=lambda: Journal(units=settings.units) if settings.journal else None,
    )


def file_sensor(*, identifier: Identifier, settings: LogSettings) -> LogSensor:
    """Return the sensor of followed files."""
    return LogSensor(
        name=FILES,
        identifier=identifier,
        source=lambda: Files(settings.files) if settings.files else None,
    )


def _instant(unix_ns: int, now: Instant) -> Instant:
    """Return when a line was written; now, where the wall clock was set meanwhile or nobody knows."""
    age_ns = now.unix_ns - unix_ns
    return Instant(now.boot_ns - age_ns, unix_ns) if 0 <= age_ns < _FRESH_NS else now
