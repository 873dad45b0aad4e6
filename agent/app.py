"""The composition root: wires the agent, starts it, reloads it, and stops it in reverse order.

Everything that touches the outside (clock, supervisor, spool, uplink, sensors, host) comes in through
`Ports`, so that a test runs the whole agent on doubles, and `ports()` makes the real ones.

The spool is opened before anything is judged; sensors fill their buffers meanwhile. At the end the uplink
goes first (what it did not deliver is on disk), then the loop commits what it has judged, then files and
threads are let go, all within `STOP_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from agent.cases import CaseBook
from agent.config import AgentSettings, detector_settings, read, sensor_settings
from agent.detector import Detector, Surroundings
from agent.detectors.registry import DETECTORS
from agent.gpus.placement import Placements
from agent.host.host_changes import HostChanges
from agent.host.witness import Witness
from agent.judge import Judge, hysteresis_of
from agent.loop import WorkLoop
from agent.pipeline import Pipeline
from agent.process import logs, statusfile
from agent.process.descriptors import Reception, keep, restore
from agent.process.memory import trimmer
from agent.process.metrics import AgentCollector, MetricsPage, Snapshot
from agent.process.privileges import Standing
from agent.process.supervisor import Supervisor
from agent.recordings.recorder import FOLDER, Recorder
from agent.routes.names import SENSOR as ROUTES
from agent.routes.tally import RouteTally
from agent.sensing import Sensing
from agent.uplink.delivery import Delivery, Link
from agent.uplink.spooling import Spool, Spooling
from escalation.model import AgentId, BlindReason, FaultClass, Heartbeat, SensorCoverage
from escalation.settings import SettingsError
from probes.kernel.handover import Handover
from probes.observation import Blind, Instant, Observation, Seeing, SensorName
from probes.sensor import Sensor
from probes.settings import SensorSettings

STOP_S: Final = 10.0
_NEEDS_RESTART: Final = ("agent", "metrics", "spool", "pipeline")

log = structlog.get_logger("nanobot.agent")

Builders = Mapping[SensorName, Callable[[], Sensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Everything outside that the agent uses.

    `overdue` is called when the agent has not ended `STOP_S` after it was asked to: the last resort, should a
    thread hang in a system call. The spool is durable at every moment.
    """

    clock: Callable[[], Instant]
    supervisor: Supervisor
    kernel_boot_id: str
    version: str
    open_spool: Callable[[AgentSettings, AgentId], Spool]
    make_link: Callable[[Spooling, AgentSettings, AgentId], Link]
    sensors: Callable[[Handover | None, SensorSettings], Builders]
    witness: Witness
    standing: Standing | None
    overdue: Callable[[], object]
    loader_uid: int = 0


class Agent:
    """One host's agent, from start to stop."""

    def __init__(self, *, config: Path, settings: AgentSettings, agent_id: AgentId, ports: Ports) -> None:
        self._config = config
        self._settings = settings
        self._agent_id = agent_id
        self._ports = ports
        self._started = ports.clock()
        self._handover: Handover | None = None
        self._kept = 0
        self._woken = asyncio.Event()
        self._stop = asyncio.Event()
        self._give_back = trimmer()
        self._pipeline = Pipeline(capacity=settings.pipeline.capacity)
        self._sensing = Sensing(pipeline=self._pipeline, clock=ports.clock, woken=self._woken.set)
        self._tally = RouteTally()
        self._recorder = Recorder(
            requests=Path(settings.sensors.socket).parent,
            recordings=Path(settings.agent.state_dir) / FOLDER,
        )
        self._recording_ends: asyncio.TimerHandle | None = None
        self._spooling = Spooling(open_spool=lambda: ports.open_spool(self._settings, agent_id))
        detectors = self._detectors(settings)
        book = CaseBook(
            agent_id=agent_id, kernel_boot_id=ports.kernel_boot_id, hysteresis=hysteresis_of(detectors)
        )
        self._judge = Judge(detectors=detectors, book=book, failed=_detector_failed)
        self._delivery = Delivery(make=lambda _: ports.make_link(self._spooling, self._settings, agent_id))
        self._loop = WorkLoop(
            sensing=self._sensing,
            pipeline=self._pipeline,
            judge=self._judge,
            spooling=self._spooling,
            witness=ports.witness,
            supervisor=ports.supervisor,
            clock=ports.clock,
            woken=self._woken,
            heartbeat=self._heartbeat,
            committed=self._delivery.wake,
            lived=self._lived,
            changes=HostChanges(host=agent_id),
            seen=self._seen,
        )

    def __repr__(self) -> str:
        return f"Agent({self._agent_id}, {self._sensing!r}, {self._loop!r}, {self._delivery!r})"

    async def run(self) -> None:
        """Run until `stop` or SIGTERM, SIGINT; SIGHUP reads the configuration again."""
        supervisor = self._ports.supervisor
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._spooling)
            self._serve_metrics(stack)
            await stack.enter_async_context(self._sensing)
            reception = Reception(
                path=Path(self._settings.sensors.socket),
                loader_uid=self._ports.loader_uid,
                take=self._take,
                received=self._received,
            )
            await stack.enter_async_context(reception)
            stack.enter_context(self._signals())
            self._reception = reception
            self._handover = restore(supervisor, kernel_boot_id=self._ports.kernel_boot_id)
            self._kept = len(self._handover.descriptors) if self._handover else 0
            await self._assemble()
            supervisor.tell("READY=1", "STATUS=judging")
            log.info("agent_started", agent=self._agent_id, version=self._ports.version, kept=self._kept)
            async with asyncio.TaskGroup() as group:
                self._delivery.use(self._settings.orchestrator)
                delivering = group.create_task(self._delivery.run())
                await self._loop.run(self._stop)
                supervisor.tell("STOPPING=1")
                delivering.cancel()
        self._end_recording("the agent was stopped")
        log.info("agent_stopped", agent=self._agent_id)

    def stop(self) -> None:
        """Ask for the end; asking again changes nothing."""
        if not self._stop.is_set():
            self._stop.set()
            self._woken.set()
            asyncio.get_running_loop().call_later(STOP_S, self._ports.overdue)

    def reload(self) -> None:
        """Read the configuration again; an error leaves everything as it is."""
        self._ports.supervisor.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            fresh = read(self._config, sensors=self._ports.sensors(None, SensorSettings()))
        except SettingsError as error:
            log.error("reload_refused", error=str(error))  # noqa: TRY400  # the message says all
        else:
            self._adopt(fresh)
        self._ports.supervisor.tell("READY=1")

    def record(self) -> None:
        """Begin the recording that is asked for, or end the one that is made."""
        if self._recording_ends is not None:
            self._recording_ends.cancel()
        now = self._ports.clock()
        seconds = self._recorder.asked(self._sensing.sight(now), now)
        if seconds is not None:
            self._sensing.hurry()
            loop = asyncio.get_running_loop()
            self._recording_ends = loop.call_later(seconds, self._end_recording, "its time was over")

    def snapshot(self) -> Snapshot:
        """Return the agent's numbers as they stand; called from the metrics page's thread."""
        link = self._delivery.status()
        depth = self._spooling.depth_seen
        return Snapshot(
            version=self._ports.version,
            started_unix_s=self._started.unix_ns / 1e9,
            seeing={name: isinstance(seen, Seeing) for name, seen in self._sensing.coverage.items()},
            observations=self._by_sensor(self._pipeline.taken),
            lost=self._by_sensor(self._loop.lost_total),
            dropped=self._by_sensor(self._pipeline.dropped_total),
            sensor_errors=self._by_sensor(self._sensing.defects),
            detector_errors={kind.NAME: self._judge.errors[kind.NAME] for kind in DETECTORS},
            open_cases=self._open_cases(),
            cases_turned_away=self._judge.book.turned_away,
            pipeline_depth=len(self._pipeline),
            committed=self._spooling.committed,
            acknowledged=link.acknowledged,
            commit_failures=self._spooling.failures,
            uncommitted=len(self._loop.backlog),
            spool_open=self._spooling.is_open and not self._loop.writing.is_held_up,
            spool_reports=depth.reports,
            spool_bytes=depth.bytes,
            spool_oldest_unix_s=None if depth.oldest_created_ns is None else depth.oldest_created_ns / 1e9,
            connected=link.connected,
            last_ack_unix_s=None if link.last_ack_ns is None else link.last_ack_ns / 1e9,
            handovers_refused=self._reception.refused,
            routes=self._tally.copy(),
            unobserved=dict(self._tally.unobserved),
        )

    def _detectors(self, settings: AgentSettings) -> tuple[Detector, ...]:
        return detectors_of(settings, host=self._agent_id, kernel_boot_id=self._ports.kernel_boot_id)

    def _seen(self, observations: Sequence[Observation]) -> None:
        self._tally.take(observations)
        if self._recorder.is_on:
            self._recorder.take(observations, self._ports.clock())

    def _end_recording(self, why: str) -> None:
        self._recorder.end(why, self._ports.clock())

    def _adopt(self, fresh: AgentSettings) -> None:
        old, self._settings = self._settings, fresh
        later = [name for name in _NEEDS_RESTART if getattr(old, name) != getattr(fresh, name)]
        if later or old.sensors.socket != fresh.sensors.socket:
            log.warning("reload_needs_restart", tables=later or ["sensors"])
        loaders = [name for name in ("http", "scope") if getattr(old, name) != getattr(fresh, name)]
        if loaders:
            log.warning("reload_needs_loader", tables=loaders, command="systemctl restart nanobot-probes")
        logs.set_up(level=fresh.agent.log_level)
        now = self._ports.clock()
        self._judge.retune(
            self._detectors(fresh), [*self._sensing.sight(now), *self._loop.writing.sight(now)]
        )
        self._sensing.hurry()
        self._delivery.use(fresh.orchestrator)
        told_sensors = sensor_settings(old) != sensor_settings(fresh)
        if told_sensors or old.sensors.disabled != fresh.sensors.disabled:
            self._background = asyncio.ensure_future(self._assemble())
        self._loop.beat_soon()
        log.info("reloaded", config=str(self._config))

    async def _assemble(self) -> None:
        await self._sensing.assemble(
            self._ports.sensors(self._handover, sensor_settings(self._settings)),
            disabled=frozenset(self._settings.sensors.disabled),
        )

    def _take(self, handover: Handover) -> None:
        """Put a handover into safe keeping, before the loader hears that it arrived."""
        keep(self._ports.supervisor, handover, before=self._kept)
        self._kept = len(handover.descriptors)

    async def _received(self, handover: Handover) -> None:
        old, self._handover = self._handover, handover
        await self._assemble()
        if old is not None:
            old.close()
        log.info("handover_taken", descriptors=len(handover.descriptors))

    def _serve_metrics(self, stack: contextlib.AsyncExitStack) -> None:
        part = self._settings.metrics
        if not part.enabled:
            return
        page = MetricsPage(
            address=part.address, port=part.port, collector=AgentCollector(snapshot=self.snapshot)
        )
        try:
            stack.enter_context(page)
        except OSError as error:
            log.warning("metrics_not_served", address=part.address, port=part.port, error=str(error))

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number, handler in (
            (signal.SIGTERM, self.stop),
            (signal.SIGINT, self.stop),
            (signal.SIGHUP, self.reload),
            (signal.SIGUSR1, self.record),
        ):
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
                loop.remove_signal_handler(number)

    def _heartbeat(self) -> Heartbeat:
        depth = self._spooling.depth_seen
        return Heartbeat(
            kernel_boot_id=self._ports.kernel_boot_id,
            agent_version=self._ports.version,
            started_ns=self._started.unix_ns,
            coverage=tuple(self._coverage()),
            open_cases=sum(self._judge.book.count_open().values()),
            spool_reports=depth.reports,
            spool_bytes=depth.bytes,
            interval_s=self._settings.heartbeat.interval_s,
        )

    def _coverage(self) -> list[SensorCoverage]:
        told = []
        for name, seen in self._sensing.coverage.items():
            entry = self._handover.entry(name) if self._handover else None
            match seen:
                case Seeing():
                    told.append(SensorCoverage(name, None))
                case Blind(reason, _):
                    told.append(SensorCoverage(name, BlindReason(reason.value), (entry and entry.errno) or 0))
        return told

    def _lived(self) -> None:
        """Write the status file and the manager's status line, and give memory back: once per heartbeat."""
        folder = Path(self._settings.sensors.socket).parent
        with contextlib.suppress(OSError):  # a convenience for `doctor`, which says when it is missing
            statusfile.write(folder / statusfile.NAME, self._status())
        seeing = sum(isinstance(seen, Seeing) for seen in self._sensing.coverage.values())
        cases = sum(self._judge.book.count_open().values())
        spool = ", the spool does not answer" if self._loop.writing.is_held_up else ""
        self._ports.supervisor.tell(
            f"STATUS={seeing} of {len(self._sensing.coverage)} sensors see, {cases} open cases{spool}"
        )
        self._give_back()

    def _status(self) -> statusfile.Status:
        link = self._delivery.status()
        depth = self._spooling.depth_seen
        standing = self._ports.standing
        return statusfile.Status(
            pid=os.getpid(),
            version=self._ports.version,
            agent_id=self._agent_id,
            written_unix_s=self._ports.clock().unix_ns / 1e9,
            next_write_s=self._settings.heartbeat.interval_s,
            kernel_boot_id=self._ports.kernel_boot_id,
            sensors=tuple(
                statusfile.SensorStatus(name=name, reason=seen.reason.value, detail=seen.detail)
                if isinstance(seen, Blind)
                else statusfile.SensorStatus(name=name, detail=self._notes(name))
                for name, seen in self._sensing.coverage.items()
            ),
            http_ports=self._watched_ports(),
            open_cases=sum(self._judge.book.count_open().values()),
            spool_open=self._spooling.is_open,
            spool_error=self._spooling.error,
            spool_silent_s=self._loop.writing.held_up_s(self._ports.clock()),
            spool_reports=depth.reports,
            spool_bytes=depth.bytes,
            uncommitted=len(self._loop.backlog),
            connected=link.connected,
            last_ack_unix_s=None if link.last_ack_ns is None else link.last_ack_ns / 1e9,
            uplink_error=link.error,
            supervised=self._ports.supervisor.present,
            watchdog_s=self._ports.supervisor.watchdog_s,
            capabilities=standing.effective if standing else None,
            drill=self._drill(),
        )

    def _drill(self) -> statusfile.DrillStatus | None:
        drill = self._judge.book.drills.newest
        if drill is None:
            return None
        raised = (
            statusfile.RaisedStatus(
                case_id=case.case_id,
                fault_class=case.fault_class.value,
                subject=f"{case.subject.kind.value} {case.subject.name}",
                opened_boot_ns=case.opened.boot_ns,
                cleared_boot_ns=case.cleared.boot_ns if case.cleared is not None else None,
                by_itself=case.by_itself,
            )
            for case in drill.raised
        )
        return statusfile.DrillStatus(
            id=drill.announced.id, ended=drill.ended is not None, raised=tuple(raised)
        )

    def _notes(self, name: SensorName) -> str:
        """Return what the loader noted of a sensor, or what the sensor itself cannot see."""
        entry = self._handover.entry(name) if self._handover else None
        return "; ".join(entry.notes) if entry else self._sensing.left_out(name)

    def _watched_ports(self) -> tuple[int, ...]:
        entry = self._handover.entry(ROUTES) if self._handover else None
        return entry.ports if entry else ()

    def _by_sensor(self, counts: Mapping[str, int] | Mapping[SensorName, int]) -> dict[str, int]:
        known: Mapping[str, int] = {str(name): count for name, count in dict(counts).items()}
        return {str(name): known.get(name, 0) for name in self._sensing.coverage}

    def _open_cases(self) -> dict[str, int]:
        counts = self._judge.book.count_open()
        faults = (note.fault_class for kind in DETECTORS for note in kind.FAULTS)
        return {fault.value: counts.get(FaultClass(fault), 0) for fault in faults}


def _detector_failed(name: str, error: Exception) -> None:
    log.error("detector_failed", detector=name, error=f"{type(error).__name__}: {error}")


def detectors_of(settings: AgentSettings, *, host: AgentId, kernel_boot_id: str) -> tuple[Detector, ...]:
    """Return the enabled detectors, as the file configures them."""
    surroundings = Surroundings(
        host=host,
        kernel_boot_id=kernel_boot_id,
        mesh=settings.mesh,
        allowed_listeners=settings.allowed_listener,
        placements=Placements.of(settings.placement),
        scopes=sensor_settings(settings).scopes,
    )
    return tuple(
        kind.build(config, surroundings)
        for kind in DETECTORS
        if (config := detector_settings(settings, kind.NAME)).enabled
    )
