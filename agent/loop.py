"""The work loop: read what is due, judge it, commit it, and only then feed the watchdog.

One task does all of it in turn, so nothing of judgement needs a lock, and a stuck step starves the watchdog.
It sleeps until there is something to do: while idle, an alarm glances at the rings and sleeps on, and a grave
event wakes it at once. While the disk takes nothing it goes on judging; what is judged waits in the backlog,
and the next commit that works tells what was lost meanwhile. So it does while the disk hangs
(`agent.uplink.writing`).

Durations are boot time. Wall time only labels what people read.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from agent.case_notes import KEY_PREFIX
from agent.cases import Changes
from agent.host.host_changes import HostChanges
from agent.host.witness import Witness
from agent.judge import Judge
from agent.pipeline import Pipeline
from agent.process.supervisor import Supervisor
from agent.sensing import Sensing
from agent.uplink.backlog import Backlog
from agent.uplink.spooling import Spooling
from agent.uplink.writing import PATIENCE_S, Writing
from escalation.model import BootId, CasePhase, CaseReport, Heartbeat, LossKind, Report
from escalation.outbox import OutboxError, OutboxFull
from probes.observation import DrillBegan, DrillEnded, Gap, Instant, Observation

_BATCH: Final = 500
_TICK_NS: Final = 1_000_000_000
_SLACK_NS: Final = 20_000_000
_LOSS_EVERY_NS: Final = 10_000_000_000
_RETRY_NS: Final = 1_000_000_000
_MEMORY_NS: Final = 3_600_000_000_000
MEMORY_PREFIX: Final = "learnt/"

log = structlog.get_logger("nanobot.loop")


class WorkLoop:
    """Turns observations into committed reports, for as long as `run` runs."""

    def __init__(
        self,
        *,
        sensing: Sensing,
        pipeline: Pipeline,
        judge: Judge,
        spooling: Spooling,
        witness: Witness,
        supervisor: Supervisor,
        clock: Callable[[], Instant],
        woken: asyncio.Event,
        heartbeat: Callable[[], Heartbeat],
        committed: Callable[[], None],
        lived: Callable[[], None],
        changes: HostChanges,
        seen: Callable[[Sequence[Observation]], None] = lambda _: None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """`seen` is shown every observation before it is judged; `lived` is called with each heartbeat."""
        self._sensing = sensing
        self._pipeline = pipeline
        self._judge = judge
        self._spooling = spooling
        self._witness = witness
        self._supervisor = supervisor
        self._clock = clock
        self._woken = woken
        self._heartbeat = heartbeat
        self._committed = committed
        self._lived = lived
        self._seen = seen
        self._changes = changes
        self._lost: Counter[tuple[LossKind, str]] = Counter()
        self._turned_away = 0
        self._boot_id: BootId | None = None
        self._next_tick_ns = 0
        self._next_beat_ns = 0
        self._next_loss_ns = 0
        self._next_try_ns = 0
        self._next_feed_ns = 0
        self._next_memory_ns = 0
        self._remembered: frozenset[str] = frozenset()
        self._alarm: asyncio.TimerHandle | None = None
        self._restored = False
        self._failing = False
        self.writing = Writing(pipeline=pipeline, woken=woken.set, patience_s=patience_s)
        self.backlog = Backlog()
        self.lost_total: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"WorkLoop(restored={self._restored}, {self._pipeline!r}, {self.backlog!r})"

    def beat_soon(self) -> None:
        """Send the next heartbeat at once, because the coverage changed."""
        self._next_beat_ns = 0
        self._woken.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`; what was judged by then is committed, if the disk takes it."""
        while not stop.is_set():
            self._woken.clear()
            next_ns = await self.step()
            if len(self._pipeline) and self._restored:
                await asyncio.sleep(0)
                continue
            await self._sleep(next_ns)
        await self.writing.wait()
        self._next_memory_ns = 0
        await self.step()

    async def step(self) -> int:
        """Do everything that is due once; return when something will be due again (boot-clock ns)."""
        now = self._clock()
        next_ns = await self._sensing.read_due(Instant(now.boot_ns + _SLACK_NS, now.unix_ns))
        answers = self.writing.has_come_back(now)
        if not self._restored:
            self._next_tick_ns = (now.boot_ns // _TICK_NS + 1) * _TICK_NS
            if answers:
                await self.writing.begin(self._restore(now), now)
        if self._restored:
            self._observe(now)
            self._tick(now)
            if not self.writing.is_under_way and self._has_to_write(now):
                await self.writing.begin(self._write(now), now)
            waits = self.backlog or len(self._pipeline) or self._lost.total()
            if not self.writing.is_under_way and not waits:
                self._sensing.settle()
        self._live(now)
        self._feed(now)
        return min(next_ns, self._next_tick_ns)

    def _has_to_write(self, now: Instant) -> bool:
        return bool(self.backlog) or now.boot_ns >= min(self._next_memory_ns, self._next_beat_ns)

    async def _write(self, now: Instant) -> None:
        await self._commit(now)
        await self._remember(now)
        await self._beat(now)

    async def _sleep(self, until_ns: int) -> None:
        if self._woken.is_set() or until_ns <= self._clock().boot_ns:
            await asyncio.sleep(0)
            return
        self._set_alarm(until_ns)
        try:
            await self._woken.wait()
        finally:
            if self._alarm is not None:
                self._alarm.cancel()

    def _set_alarm(self, until_ns: int) -> None:
        delay_s = max(0.0, (until_ns - self._clock().boot_ns) / 1e9)
        self._alarm = asyncio.get_running_loop().call_later(min(delay_s, 1.0), self._ring)

    def _ring(self) -> None:
        """Wake the task if there is work; else sleep on, without a step: most of an agent's life is this."""
        now = self._clock()
        idle_ns = self._sensing.idle_until(Instant(now.boot_ns + _SLACK_NS, now.unix_ns))
        next_ns = min(idle_ns or 0, self._next_tick_ns)
        if next_ns <= now.boot_ns + _SLACK_NS:
            self._woken.set()
        else:
            self._set_alarm(next_ns)

    async def _restore(self, now: Instant) -> None:
        """Open the spool and take up the cases that were open; until then nothing is judged.

        Judging first would open a second case beside one that the spool knows. The sensors' own buffers and
        the pipeline hold what happens meanwhile.
        """
        if now.boot_ns < self._next_try_ns:
            return
        self._next_try_ns = now.boot_ns + _RETRY_NS
        first = not self._spooling.failures
        try:
            await self._spooling.open()
            notes = await self._spooling.notes(KEY_PREFIX)
            memory = await self._spooling.notes(MEMORY_PREFIX)
        except OutboxError as error:
            self._spooling.failures += 1
            if first:
                log.error("spool_cannot_be_opened", error=str(error))  # noqa: TRY400  # the message says all
            return
        now = self._clock()
        changes, unreadable = self._judge.book.restore(notes, now)
        self.backlog.add(changes.bodies, changes.notes)
        self.backlog.lose(LossKind.SPOOL_QUARANTINED, "", unreadable)
        self._boot_id = self._spooling.boot_id
        self._restored = True
        self._next_try_ns = 0
        self._next_memory_ns = now.boot_ns + _MEMORY_NS
        self._remembered = frozenset(memory)
        lost = self._judge.recall({key.removeprefix(MEMORY_PREFIX): raw for key, raw in memory.items()})
        log.info("memory_restored", entries=len(memory) - lost, unreadable=lost)
        log.info("cases_restored", cases=len(notes) - unreadable, unreadable=unreadable)

    def _observe(self, now: Instant) -> None:
        observations = self._pipeline.take(_BATCH)
        if not observations:
            return
        for observation in observations:
            if isinstance(observation, DrillBegan | DrillEnded):
                self._next_beat_ns = 0  # its command waits for the status file
            if isinstance(observation, Gap):
                if observation.lost:
                    self._lost[LossKind.RING_FULL, observation.sensor] += observation.lost
                    self.lost_total[observation.sensor] += observation.lost
                else:
                    self._next_beat_ns = 0
        self._seen(observations)
        self._changes.take(observations)
        self._keep(self._judge.observe(observations, now))

    def _tick(self, now: Instant) -> None:
        if now.boot_ns < self._next_tick_ns:
            return
        self._next_tick_ns = (now.boot_ns // _TICK_NS + 1) * _TICK_NS
        questions = self._judge.questions()
        world = self._witness.look(questions.places, questions.processes)
        self._keep(self._judge.tick(now, world))
        for name, count in self._pipeline.take_drops().items():
            self._lost[LossKind.PIPELINE_FULL, name] += count
        turned_away = self._judge.book.turned_away
        self._lost[LossKind.PIPELINE_FULL, "agent.cases"] += turned_away - self._turned_away
        self._turned_away = turned_away
        self._lost[LossKind.PIPELINE_FULL, "agent.changes"] += self._changes.take_forgotten()
        if self._lost.total() and now.boot_ns >= self._next_loss_ns:
            self._next_loss_ns = now.boot_ns + _LOSS_EVERY_NS
            for (kind, sensor), count in self._lost.items():
                self.backlog.lose(kind, sensor, count)
            self._lost.clear()

    def _keep(self, changes: Changes) -> None:
        self.backlog.add(changes.bodies, changes.notes)
        for body in changes.bodies:
            _log_case(body)
            if body.drill and body.phase is not CasePhase.UPDATED:
                self._next_beat_ns = 0

    async def _commit(self, now: Instant) -> None:
        if not self.backlog or now.boot_ns < self._next_try_ns:
            return
        bodies, notes = self.backlog.contents()
        try:
            reports = await self._spooling.append(bodies, now_ns=now.unix_ns, notes=notes)
        except OutboxFull:
            self.backlog.refused()
            self.backlog.shed_updates()
            self._put_off(now, "spool_full")
            return
        except OutboxError as error:
            self.backlog.refused()
            self._put_off(now, str(error))
            return
        self.backlog.committed(bodies, notes)
        if self._failing:
            self._failing = False
            log.info("commits_work_again")
        self._written(reports)

    async def _remember(self, now: Instant) -> None:
        """Keep what was learnt, hourly and at the end; apart from the cases, which must not wait for it."""
        if now.boot_ns < self._next_memory_ns:
            return
        self._next_memory_ns = now.boot_ns + _MEMORY_NS
        notes: dict[str, bytes | None] = dict.fromkeys(self._remembered)
        notes |= {MEMORY_PREFIX + key: raw for key, raw in self._judge.memory().items()}
        if not notes:
            return
        try:
            await self._spooling.append((), now_ns=now.unix_ns, notes=notes)
        except OutboxError as error:
            # Counted by the spooling; the next time all is written again.
            log.debug("memory_not_written", error=str(error))
        else:
            self._remembered = frozenset(key for key, raw in notes.items() if raw is not None)

    def _written(self, reports: Sequence[Report]) -> None:
        if not reports:
            return
        if reports[-1].boot_id != self._boot_id:
            # A damaged spool was begun anew, and the notes of the open cases went with the old one.
            self.backlog.add((), self._judge.book.notes())
            self._boot_id = reports[-1].boot_id
        self._committed()

    def _put_off(self, now: Instant, error: str) -> None:
        if not self._failing:
            log.warning("commit_failed", error=error, waiting=len(self.backlog))
        self._failing = True
        self._next_try_ns = now.boot_ns + _RETRY_NS

    async def _beat(self, now: Instant) -> None:
        if now.boot_ns < self._next_beat_ns:
            return
        heartbeat = self._heartbeat()
        self._next_beat_ns = now.boot_ns + int(heartbeat.interval_s * 1e9)
        try:
            self._written(await self._spooling.append((heartbeat,), now_ns=now.unix_ns, notes={}))
        except OutboxError as error:
            # Counted by the spooling; the next heartbeat says all that this one would have.
            log.debug("heartbeat_not_written", error=str(error))
        await self._tell_changes(now)
        self._lived()

    def _live(self, now: Instant) -> None:
        """Say on the host itself how we are when a heartbeat is due that the spool does not take."""
        if now.boot_ns >= self._next_beat_ns and (self.writing.is_under_way or not self._restored):
            self._next_beat_ns = now.boot_ns + int(self._heartbeat().interval_s * 1e9)
            self._lived()

    async def _tell_changes(self, now: Instant) -> None:
        """Say what was changed on the host; what the disk does not take is said with the next heartbeat."""
        due = self._changes.due(now)
        if not due:
            return
        try:
            self._written(await self._spooling.append(due, now_ns=now.unix_ns, notes={}))
        except OutboxError as error:
            log.debug("changes_not_written", error=str(error))
        else:
            self._changes.told(due, now)

    def _feed(self, now: Instant) -> None:
        if self._supervisor.watchdog_s is not None and now.boot_ns >= self._next_feed_ns:
            self._next_feed_ns = now.boot_ns + int(self._supervisor.watchdog_s / 4 * 1e9)
            self._supervisor.tell("WATCHDOG=1")


def _log_case(body: CaseReport) -> None:
    if body.phase is CasePhase.UPDATED:
        return
    event = f"case_{body.phase.value}"
    log.info(
        event,
        fault_class=body.fault_class.value,
        severity=body.severity.value,
        subject=f"{body.subject.kind.value}:{body.subject.name}",
        case=body.case_id,
        reasons=[reason.code.value for reason in body.reasons],
        **({"drill": True} if body.drill else {}),
    )
