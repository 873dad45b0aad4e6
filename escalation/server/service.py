"""The desk itself: every question and decision becomes one piece of work for the store.

It owns the clock's reading, the watch for silent hosts and the feed of changes. What is decided is decided in
`triage`, in the store's transaction; what is told to watchers is read back after the commit, so nobody is
shown what might still be undone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Final, TypeVar

import structlog

from escalation.model import (
    SEVERITY_ORDER,
    Heartbeat,
    Incident,
    Override,
    Recommendation,
    RecommendationId,
    Signed,
    State,
)
from escalation.server import queue_rows, steps, triage
from escalation.server.attention import attending, silencing
from escalation.server.attention.maintenance import Window
from escalation.server.causality.topology import Declared
from escalation.server.clock import Clock, Timekeeper
from escalation.server.coverage import Watch
from escalation.server.decision.approvals import Approve, Policy
from escalation.server.decision.scene import Weigher
from escalation.server.decision.signatures import NoSignatures, SignatureCheck
from escalation.server.desk import AuditEntry, Entry, Holdings, HostState, Unavailable
from escalation.server.feed import Feed
from escalation.server.metrics import ServerMetrics
from escalation.server.notify.notice_watch import Routing, saying, telling
from escalation.server.notify.notices import Happening
from escalation.server.storage.store import Delivery, Ledger, Store, StoreError
from escalation.server.web.looking import look
from escalation.server.web.queue_page import AT_ONCE, ROWS_AT_MOST, QueuePage, Sought, first

T = TypeVar("T")

_COUNT_EACH: Final = 5
"""Every how many ticks the gauges are read from the store."""

_FORGET_EACH: Final = 10
_FORGOTTEN_AT_ONCE: Final = 20_000
"""Every how many ticks old reports are deleted, and how many: twice what a fleet of many hosts sends."""

_log = structlog.get_logger("nanobot.orchestrator")


class Service:
    """The real Desk, and what the ingest and the ticker call."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        policy: Policy,
        metrics: ServerMetrics | None = None,
        silence_factor: float = 3.0,
        grace_s: float = 60.0,
        tick_s: float = 1.0,
        keep_reports_s: float | None = None,
        routing: Routing | None = None,
        signatures: SignatureCheck | None = None,
        windows: Sequence[Window] = (),
    ) -> None:
        """Serve from `store`; a host that was known before gets `grace_s` to be heard again after a start.

        What changes is written to the outbox for whom `routing` names (None: nobody is told). What people
        sign is checked by `signatures` (None: nothing that is signed is taken). `windows` are the declared
        times of maintenance.

        Reports older than `keep_reports_s` are deleted (None: never); what they said is kept.
        """
        self._metrics = metrics
        self._keep_reports_s = keep_reports_s
        self._routing = routing
        self._signatures = signatures or NoSignatures()
        self._windows = tuple(windows)
        self._store = store
        self._time = Timekeeper(clock=clock)
        self._policy = policy
        self._silence_factor = silence_factor
        self._grace_s = grace_s
        self._tick_s = tick_s
        self._feed = Feed()
        self._watch = Watch(factor=silence_factor, hosts=(), now_s=0.0, grace_s=0.0)
        self._touched: dict[RecommendationId, None] = {}
        self._woken = asyncio.Event()
        self._sees_elsewhere = True
        self.ticks = 0
        self.failed_ticks = 0

    def __repr__(self) -> str:
        return f"Service(ticks={self.ticks}, failed={self.failed_ticks}, {self._watch!r}, {self._feed!r})"

    async def prepare(self) -> None:
        """Judge by the present rules, read which hosts are known, and expect all of them anew."""
        work = partial(triage.adopt, policy=self._policy, now_ns=self._time.now_ns())
        self.touch(await self._store.write(self._telling(work)))
        hosts = await self._read(lambda ledger: ledger.hosts())
        self._watch = Watch(
            factor=self._silence_factor,
            hosts=hosts,
            now_s=self._time.steady_s(),
            grace_s=self._grace_s,
        )

    async def declare(self, declared: Declared) -> None:
        """Judge by this map from now on."""
        work = partial(triage.declare, declared=declared, policy=self._policy, now_ns=self._time.now_ns())
        self.touch(await self._store.write(self._telling(work)))

    async def run(self) -> None:
        """Let time pass and tell watchers what changed, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tick_forever())
            tasks.create_task(self._publish_forever())

    def steady_s(self) -> float:
        """Return the monotonic clock."""
        return self._time.steady_s()

    def ready(self) -> bool:
        """Return whether what is sent now could be kept."""
        return self._store.ready()

    # What agents say ----------------------------------------------------------------------------------

    async def accept(self, delivery: Delivery, *, cost_bytes: int = 0) -> asyncio.Future[triage.Kept]:
        """Return once there is room for a delivery; it is committed when the future has a result.

        StoreUnavailable in the future says that nothing of it was kept.
        """
        # It is heard when it speaks, however long the commit takes: a stalled disk makes no host silent.
        self._watch.heard(delivery.agent_id, self._time.steady_s())
        work = partial(triage.receive, delivery=delivery, policy=self._policy, now_ns=self._time.now_ns())
        committed = await self._store.submit(self._telling(work), cost_bytes=cost_bytes)
        committed.add_done_callback(partial(self._committed, delivery))
        return committed

    async def receive(self, delivery: Delivery) -> None:
        """Commit a delivery and what follows from it; StoreUnavailable says that nothing was kept."""
        await (await self.accept(delivery))
        await asyncio.sleep(0)  # the callback of a future that was done already runs in the next turn

    def _committed(self, delivery: Delivery, committed: asyncio.Future[triage.Kept]) -> None:
        if committed.cancelled() or committed.exception() is not None:
            return
        self.touch(committed.result().changed)
        interval_s = None
        for report in delivery.notable:
            if isinstance(report.body, Heartbeat):
                interval_s = report.body.interval_s
        self._watch.heard(delivery.agent_id, self._time.steady_s(), interval_s)

    async def note_refusal(self, *, actor: str, verb: str, object_id: str, detail: str) -> None:
        """Write to the audit log that a peer was refused."""
        work = partial(
            steps.note,
            actor=actor,
            verb=verb,
            object_id=object_id,
            detail=detail,
            now_ns=self._time.now_ns(),
        )
        await self._store.write(work)

    # What time does -----------------------------------------------------------------------------------

    async def tick(self) -> None:
        """Learn what other processes wrote, do what is due if this is the one to do it, and count."""
        await self._look_elsewhere()
        if await self._store.leads():
            await self._do_what_is_due()
        if self._metrics is not None and self.ticks % _COUNT_EACH == 0:
            await self._count(self._metrics)
        self.ticks += 1

    async def _do_what_is_due(self) -> None:
        """Expire, lapse and verify; open the cases of hosts that fell silent; forget old reports."""
        work = partial(
            triage.pass_time,
            overdue=self._watch.overdue(self._time.steady_s()),
            policy=self._policy,
            now_ns=self._time.now_ns(),
            trusted_ns=self._time.trusted_ns(),
        )
        now_ns = self._time.now_ns()
        attention = saying(
            partial(_pass_time, windows=self._windows, now_ns=now_ns), routing=self._routing, now_ns=now_ns
        )
        decisions = self._telling(work)
        self.touch(await self._store.write(lambda ledger: decisions(ledger) | attention(ledger)))
        if self._keep_reports_s is not None and self.ticks % _FORGET_EACH == 0:
            before_ns = self._time.trusted_ns() - int(self._keep_reports_s * 1e9)
            await self._store.write(partial(_forget_reports, before_ns=before_ns))

    async def _look_elsewhere(self) -> None:
        """Count hosts that another process heard as heard, and tell watchers what it changed.

        Whom others hear is unknown while it cannot be read, and unknown is not silent: after that every host
        is expected anew.
        """
        try:
            elsewhere = await self._store.elsewhere()
        except StoreError:
            self._sees_elsewhere = False
            raise
        if not self._sees_elsewhere:
            self._sees_elsewhere = True
            self._watch.expect_anew(self._time.steady_s(), self._grace_s)
        for host in elsewhere.heard:
            self._watch.heard(host.agent_id, self._time.steady_s(), host.interval_s)
        self.touch(frozenset(elsewhere.changed))

    async def publish(self) -> None:
        """Read back what changed since the last call, and hand it to the watchers."""
        touched, self._touched = tuple(self._touched), {}
        if touched and self._feed.watched:
            entries = await self._read(
                lambda ledger: _entries_by_id(ledger, wanted=touched, weigher=self._weigher(ledger))
            )
            self._feed.publish(entries)

    async def _count(self, metrics: ServerMetrics) -> None:
        states, hosts, since_ns = await self._store.read(
            lambda ledger: (ledger.state_counts(), ledger.hosts(), ledger.oldest(State.PROPOSED))
        )
        metrics.waiting(0.0 if since_ns is None else max(0.0, (self._time.now_ns() - since_ns) / 1e9))
        silent = sum(host.silent for host in hosts)
        metrics.queue(states)
        metrics.hosts(seeing=len(hosts) - silent, silent=silent)

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            try:
                await self.tick()
            except StoreError as error:
                if self.failed_ticks == 0 or self._store.ready():
                    _log.warning("tick_failed", error=str(error))
                self.failed_ticks += 1
                if self._metrics is not None:
                    self._metrics.store_error()

    async def _publish_forever(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            with contextlib.suppress(Unavailable):  # watchers read the queue again when they reconnect
                await self.publish()

    def touch(self, changed: steps.Changed) -> None:
        """Tell watchers anew of what changed and is kept."""
        if changed:
            self._touched.update(dict.fromkeys(changed))
            self._woken.set()

    # What people ask (Desk) ---------------------------------------------------------------------------

    async def queue(self, states: frozenset[State] | None) -> Sequence[Entry]:
        """Return entries in `states` (None: all): what nobody has in hand first, then worst, then oldest."""
        wanted = frozenset(State) if states is None else states
        return await self._read(lambda ledger: _queue(ledger, states=wanted, weigher=self._weigher(ledger)))

    async def look(self, sought: Sought, *, person: str) -> QueuePage:
        """Return one page of the queue in the order in which `person` wants it."""
        return await self._read(partial(look, sought=sought, person=person, now_ns=self._time.now_ns()))

    async def entry(self, entry_id: str) -> Entry:
        """Return the entry with this recommendation id, or the newest of this incident id."""
        return await self._read(lambda ledger: _entry(ledger, entry_id, weigher=self._weigher(ledger)))

    async def approve(
        self,
        entry_id: str,
        *,
        person: str,
        reason: str,
        digest: str,
        signed: Signed | None = None,
        overrides: Sequence[Override] = (),
    ) -> Entry:
        """Record that `person` approves exactly what `digest` names, and what they `signed` of it.

        `overrides` are the conditions that they set aside.
        """
        checked = None if signed is None else await self._signatures.check(signed, person=person)
        event = Approve(person, reason, digest, checked, overrides=tuple(overrides))
        return await self._decide(partial(triage.approve, entry_id=entry_id, event=event))

    async def reject(self, entry_id: str, *, person: str, reason: str) -> Entry:
        """Record that `person` rejects it; a reason is required."""
        return await self._decide(partial(triage.reject, entry_id=entry_id, person=person, reason=reason))

    async def done(self, entry_id: str, *, person: str) -> Entry:
        """Record that `person` has carried out what was approved; verification starts."""
        return await self._decide(partial(triage.mark_done, entry_id=entry_id, person=person))

    async def incidents(self) -> Sequence[Incident]:
        """Return incidents, open ones first, newest first."""
        return await self._read(lambda ledger: ledger.incidents(limit=AT_ONCE))

    async def entries_after(self, name: str, *, limit: int) -> Sequence[Entry]:
        """Return the first `limit` entries of any state whose id follows `name`, in the order of ids."""

        def work(ledger: Ledger) -> Sequence[Entry]:
            found = ledger.recommendations_after(name, limit=limit)
            return _entries(ledger, found, weigher=self._weigher(ledger))

        return await self._read(work)

    async def incidents_after(self, name: str, *, limit: int) -> Sequence[Incident]:
        """Return the first `limit` incidents whose id follows `name`, in the order of their ids."""
        return await self._read(lambda ledger: ledger.incidents_after(name, limit=limit))

    async def holdings(self) -> Holdings:
        """Return how many entries and incidents there are."""
        return await self._read(
            lambda ledger: Holdings(sum(ledger.state_counts().values()), ledger.incident_count())
        )

    async def hosts(self) -> Sequence[HostState]:
        """Return every host that was ever heard, by name."""
        return await self._read(lambda ledger: ledger.hosts())

    async def audit(self, *, after: int, limit: int) -> Sequence[AuditEntry]:
        """Return audit entries numbered above `after`, in order."""
        return await self._read(lambda ledger: ledger.audit(after=after, limit=limit))

    async def audit_head(self) -> AuditEntry | None:
        """Return the newest link of the audit chain, or None."""
        return await self._read(lambda ledger: ledger.last_audit())

    def changes(self) -> AsyncIterator[Entry]:
        """Yield each entry as it changes, from now on."""
        return self._feed.watch()

    def _telling(self, work: Callable[[Ledger], T]) -> Callable[[Ledger], T]:
        """Return `work` with the notices of what it changes, when somebody is to be told anything."""
        if self._routing is None:
            return work
        return telling(work, routing=self._routing, now_ns=self._time.now_ns())

    async def _decide(self, decision: Callable[..., triage.Decided]) -> Entry:
        work = partial(_decided, decision=decision, policy=self._policy, now_ns=self._time.now_ns())
        try:
            decided = await self._store.write(self._telling(work))
        except StoreError as error:
            raise Unavailable(f"the decision was not kept: {error}") from error
        self.touch(decided.changed)
        return decided.entry

    def _weigher(self, ledger: Ledger) -> Weigher:
        return Weigher(ledger, policy=self._policy, now_ns=self._time.now_ns())

    async def _read(self, work: Callable[[Ledger], T]) -> T:
        try:
            return await self._store.read(work)
        except StoreError as error:
            raise Unavailable(f"nothing can be read now: {error}") from error


def _queue(ledger: Ledger, *, states: frozenset[State], weigher: Weigher) -> Sequence[Entry]:
    return sorted(
        _entries(ledger, _first(ledger, states, now_ns=weigher.now_ns), weigher=weigher),
        key=lambda entry: (
            entry.attention.acknowledged is not None,
            -SEVERITY_ORDER.index(entry.incident.severity),
            entry.incident.drill,
            entry.recommendation.created_ns,
            entry.recommendation.id,
        ),
    )


def _first(ledger: Ledger, states: frozenset[State], *, now_ns: int) -> Sequence[Recommendation]:
    """Return what is in `states`; where that is too much, what comes first in the queue."""
    counts = ledger.state_counts()
    if sum(counts.get(each, 0) for each in states) <= AT_ONCE:
        return ledger.in_states(states, limit=AT_ONCE)
    rows = ledger.queue_rows(states, limit=ROWS_AT_MOST)
    chosen = first(rows, shelved=attending.shelved(ledger, now_ns=now_ns), most=AT_ONCE)
    found = (ledger.recommendation(each) for each in chosen)
    return [each for each in found if each is not None]


def _entries(ledger: Ledger, found: Sequence[Recommendation], *, weigher: Weigher) -> Sequence[Entry]:
    consequences = queue_rows.consequences_in(ledger)
    entries = [
        queue_rows.entry_of(ledger, each, consequences=consequences, weigher=weigher) for each in found
    ]
    return attending.attended(ledger, entries, now_ns=weigher.now_ns)


def _entry(ledger: Ledger, entry_id: str, *, weigher: Weigher) -> Entry:
    found = queue_rows.entry(ledger, entry_id, weigher=weigher)
    return attending.attended(ledger, [found], now_ns=weigher.now_ns, whole=True)[0]


def _entries_by_id(
    ledger: Ledger, *, wanted: Sequence[RecommendationId], weigher: Weigher
) -> Sequence[Entry]:
    found = (ledger.recommendation(each) for each in wanted)
    entries = [queue_rows.entry_of(ledger, each, weigher=weigher) for each in found if each is not None]
    return attending.attended(ledger, entries, now_ns=weigher.now_ns)


def _decided(
    ledger: Ledger, *, decision: Callable[..., triage.Decided], policy: Policy, now_ns: int
) -> triage.Decided:
    """Decide, and say of an approval that it was given while somebody works on the host."""
    decided = decision(ledger, policy=policy, now_ns=now_ns)
    made = decided.entry.recommendation
    if made.state is State.APPROVED and made.decided_by is not None:
        attending.note_maintenance(ledger, decided.entry, person=made.decided_by, now_ns=now_ns)
    entry = attending.attended(ledger, [decided.entry], now_ns=now_ns, whole=True)[0]
    return triage.Decided(entry, decided.changed)


def _pass_time(
    ledger: Ledger, *, windows: Sequence[Window], now_ns: int
) -> tuple[steps.Changed, Sequence[Happening]]:
    """Do what time does to attention and to silences."""
    silenced = silencing.pass_time(ledger, windows=windows, now_ns=now_ns)
    attended = attending.pass_time(ledger, now_ns=now_ns)
    return silenced.changed | attended.changed, (*silenced.happenings, *attended.happenings)


def _forget_reports(ledger: Ledger, *, before_ns: int) -> int:
    return ledger.forget_reports(received_before_ns=before_ns, limit=_FORGOTTEN_AT_ONCE)
