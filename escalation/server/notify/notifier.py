"""Takes what waits in the outbox to its receivers: at least once, in order, at a bounded rate.

Of several processes on one database, the one that leads delivers. Each receiver has a lane of its own, so
that one that does not answer keeps nobody else waiting. A notice is marked when it was taken; whoever dies in
between sends it again with the same id. What could not be handed over within the declared time is given up,
and that is in the audit log.
"""

from __future__ import annotations

import asyncio
import traceback
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog
import tenacity

from escalation import failpoints
from escalation.model import SEVERITY_ORDER, AgentId, FaultClass, IncidentId, Severity, State
from escalation.server import steps
from escalation.server.attention import quiet
from escalation.server.clock import Clock, Timekeeper
from escalation.server.desk import NotFound, Refused, Unavailable
from escalation.server.metrics import NoticeOutcome, ServerMetrics
from escalation.server.notify import notices
from escalation.server.notify.notice_desk import ReceiverStatus
from escalation.server.notify.notice_watch import Routing, tell
from escalation.server.notify.notices import Event, Happening, Notice, NoticeId, NoticeState
from escalation.server.notify.notifiers.receiver import NotifyError, Receiver, Rejected, Unreachable
from escalation.server.notify.notifiers.registry import NotifySettings
from escalation.server.storage.store import Ledger, Store, StoreError

_POLL_S: Final = 1.0
_AT_ONCE: Final = 5000
"""How many waiting notices are looked at in one pass: what is above the rate is folded into one message."""

_STANDING: Final = 2000
_KEEPING_S: Final = 30.0
_KEPT_S: Final = 30 * 86_400.0
_FORGOTTEN_AT_ONCE: Final = 5000
_TEST_PAUSE_S: Final = 60.0
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 300.0
_WAITING: Final = frozenset({State.PROPOSED})

_log = structlog.get_logger("nanobot.orchestrator")


@dataclass(frozen=True, slots=True)
class Parcel:
    """Notices that go out as one attempt: `folded` are counted by the last of `told`."""

    told: Sequence[Notice]
    folded: Sequence[Notice] = ()


@dataclass(slots=True)
class _Lane:
    receiver: Receiver
    tokens: float
    refilled_s: float
    repeated_s: float
    error: str = ""
    failures: int = field(default=0)


class Notifier:
    """All lanes, reminders, tests, and what is known of each receiver."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        settings: NotifySettings,
        receivers: Sequence[Receiver],
        metrics: ServerMetrics,
        routing: Routing | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Deliver from `store` to `receivers`; `routing` says whom to remind, `sleep` is between attempts."""
        self._store = store
        self._clock = clock
        self._time = Timekeeper(clock=clock)
        self._settings = settings
        self._routing = routing
        self._metrics = metrics
        self._sleep = sleep
        now_s = clock.steady_s()
        self._lanes = {
            each.name: _Lane(each, tokens=settings.per_minute, refilled_s=now_s, repeated_s=now_s)
            for each in receivers
        }
        for name in self._lanes:
            metrics.receiver(name)

    def __repr__(self) -> str:
        failing = sorted(name for name, lane in self._lanes.items() if lane.error)
        return f"Notifier(receivers={len(self._lanes)}, failing={failing})"

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_forever())
            for name in self._lanes:
                tasks.create_task(self._deliver_forever(name))

    async def close(self) -> None:
        """Let go of all receivers."""
        for lane in self._lanes.values():
            await lane.receiver.close()

    # One lane -----------------------------------------------------------------------------------------

    async def turn(self, name: str) -> int:
        """Deliver to one receiver if this process leads; of several, one tells."""
        return await self.deliver(name) if await self._store.leads() else 0

    async def deliver(self, name: str) -> int:
        """Hand over what is due for one receiver, as far as its rate allows; return how many messages."""
        lane = self._lanes[name]
        work = partial(_due, receiver=name, now_ns=self._time.now_ns())
        due = await self._store.read(work)
        parcels = parcels_of(due, allowance=self._allowance(lane), batch=lane.receiver.batch)
        for parcel in parcels:
            lane.tokens -= 1
            await self._hand_over(lane, parcel)
        if lane.receiver.repeat_s is not None:
            await self._repeat(lane, lane.receiver.repeat_s)
        return len(parcels)

    async def _hand_over(self, lane: _Lane, parcel: Parcel) -> None:
        give_up_ns = max(max(each.created_ns, each.due_ns) for each in parcel.told) + int(
            self._settings.give_up_after_s * 1e9
        )
        attempts = tenacity.AsyncRetrying(
            sleep=self._sleep,
            wait=tenacity.wait_exponential_jitter(initial=_FIRST_PAUSE_S, max=_LONGEST_PAUSE_S),
            stop=lambda _: self._time.now_ns() >= give_up_ns,
            retry=tenacity.retry_if_exception_type(Unreachable),
            reraise=True,
        )
        try:
            async for attempt in attempts:
                with attempt:
                    standing = await self._standing_of(lane, parcel)
                    if standing is None:
                        return
                    parcel = standing
                    await self._attempt(lane, parcel)
        except Rejected as error:
            if len(parcel.told) > 1:  # one of them is the reason: the others have done nothing
                for each in parcel.told:
                    await self._hand_over(lane, Parcel((each,)))
                return
            await self._give_up(lane, parcel, str(error))
        except Unreachable as error:
            await self._give_up(lane, parcel, str(error))
        else:
            failpoints.reach("server.after_notice")
            await self._write_until_kept(partial(_settle, parcel=parcel, told=NoticeState.SENT))
            self._metrics.notices(lane.receiver.name, NoticeOutcome.SENT, len(parcel.told))
            self._metrics.notices(lane.receiver.name, NoticeOutcome.FOLDED, len(parcel.folded))

    async def _standing_of(self, lane: _Lane, parcel: Parcel) -> Parcel | None:
        """Return what of a parcel is still to be told by this process.

        Between two attempts minutes may pass: another process may lead by then and have told it, or it may
        have been overtaken.
        """
        if not await self._store.leads():
            return None
        name, now_ns = lane.receiver.name, self._time.now_ns()
        due = {each.id for each in await self._store.read(partial(_due, receiver=name, now_ns=now_ns))}
        told = [each for each in parcel.told if each.id in due]
        folded = [each for each in parcel.folded if each.id in due]
        return Parcel(told, folded) if told else None

    async def _attempt(self, lane: _Lane, parcel: Parcel) -> None:
        name, url = lane.receiver.name, self._settings.url
        *before, last = parcel.told
        messages = [notices.message(each, url=url) for each in before]
        messages.append(notices.message(last, url=url, more=len(parcel.folded)))
        try:
            await lane.receiver.send(messages, now_ns=self._time.now_ns())
        except NotifyError as error:
            self._failed(lane, str(error))
            raise
        except Exception as error:  # a defect of one receiver is not one of the others
            self._failed(lane, type(error).__name__)
            raise Unreachable(f"it failed: {type(error).__name__}") from error
        if lane.error:
            _log.info("receiver_reached", receiver=name, failures=lane.failures)
            lane.error, lane.failures = "", 0

    def _failed(self, lane: _Lane, error: str) -> None:
        self._metrics.notices(lane.receiver.name, NoticeOutcome.FAILED)
        if not lane.error:
            _log.warning("receiver_failed", receiver=lane.receiver.name, error=error)
        lane.error = error
        lane.failures += 1

    async def _give_up(self, lane: _Lane, parcel: Parcel, error: str) -> None:
        work = partial(_given_up, parcel=parcel, error=error, now_ns=self._time.now_ns())
        await self._write_until_kept(work)
        count = len(parcel.told) + len(parcel.folded)
        self._metrics.notices(lane.receiver.name, NoticeOutcome.GIVEN_UP, count)
        _log.warning("notice_given_up", receiver=lane.receiver.name, notices=count, error=error)

    async def _repeat(self, lane: _Lane, each_s: float) -> None:
        now_s = self._clock.steady_s()
        if now_s - lane.repeated_s < each_s:
            return
        lane.repeated_s = now_s
        name = lane.receiver.name
        standing = await self._store.read(partial(_standing, receiver=name, now_ns=self._time.now_ns()))
        for first in range(0, len(standing), lane.receiver.batch):
            try:
                await self._attempt(lane, Parcel(standing[first : first + lane.receiver.batch]))
            except NotifyError:
                return  # it is counted; the next repetition is the next attempt

    def _allowance(self, lane: _Lane) -> int:
        rate = self._settings.per_minute
        now_s = self._clock.steady_s()
        lane.tokens = min(float(rate), lane.tokens + (now_s - lane.refilled_s) * rate / 60)
        lane.refilled_s = now_s
        return int(lane.tokens)

    async def _write_until_kept(self, work: Callable[[Ledger], None]) -> None:
        """Write what became of a parcel; what has gone out must not go out again for want of a note."""
        async for attempt in tenacity.AsyncRetrying(
            sleep=self._sleep,
            wait=tenacity.wait_exponential_jitter(initial=_FIRST_PAUSE_S, max=_LONGEST_PAUSE_S),
            retry=tenacity.retry_if_exception_type(StoreError),
            reraise=True,
        ):
            with attempt:
                await self._store.write(work)

    async def guarded_turn(self, name: str) -> None:
        """Take a turn; whatever goes wrong in it is counted, logged once, and no other lane's."""
        lane = self._lanes[name]
        try:
            await self.turn(name)
        except StoreError as error:
            _log.warning("outbox_not_read", receiver=name, error=str(error))
        except Exception as error:  # noqa: BLE001 - who cannot be told must not take the desk from all others
            if not lane.error:
                # Where, and not with what: a traceback's values may be addresses and secrets.
                where = [
                    f"{each.filename}:{each.lineno}" for each in traceback.extract_tb(error.__traceback__)
                ]
                _log.error("receiver_defect", receiver=name, error=type(error).__name__, where=where)
            self._failed(lane, type(error).__name__)

    async def _deliver_forever(self, name: str) -> None:
        while True:
            await self.guarded_turn(name)
            await asyncio.sleep(_POLL_S)

    # What time does -----------------------------------------------------------------------------------

    async def keep(self) -> None:
        """Remind of what still waits for a decision, and delete what is old and over."""
        now_ns = self._time.now_ns()
        if self._routing is not None:
            each_ns = int(self._settings.remind_each_s * 1e9)
            await self._store.write(partial(_remind, routing=self._routing, each_ns=each_ns, now_ns=now_ns))
        before_ns = self._time.trusted_ns() - int(_KEPT_S * 1e9)
        await self._store.write(
            lambda ledger: ledger.notices.forget(created_before_ns=before_ns, limit=_FORGOTTEN_AT_ONCE)
        )

    async def _keep_forever(self) -> None:
        while True:
            await asyncio.sleep(_KEEPING_S)
            if not self._lanes:
                continue  # a site that tells nobody writes nothing for it
            try:
                if await self._store.leads():
                    await self.keep()
            except StoreError as error:
                _log.warning("outbox_not_kept", error=str(error))

    # What people ask ----------------------------------------------------------------------------------

    async def receivers(self) -> Sequence[ReceiverStatus]:
        """Return each receiver and how it is, by name."""
        try:
            counts = await self._store.read(lambda ledger: ledger.notices.counts())
        except StoreError as error:
            raise Unavailable(f"nothing can be read now: {error}") from error
        return [
            ReceiverStatus(
                name=name,
                kind=type(lane.receiver).__name__.lower(),
                error=lane.error,
                failures=lane.failures,
                waiting=counts.get((name, NoticeState.WAITING), 0),
                sent=counts.get((name, NoticeState.SENT), 0),
                folded=counts.get((name, NoticeState.FOLDED), 0),
                given_up=counts.get((name, NoticeState.GIVEN_UP), 0),
            )
            for name, lane in sorted(self._lanes.items())
        ]

    async def test(self, name: str, *, person: str) -> NoticeId:
        """Queue a test for a receiver, in the name of `person`; Refused when the last one was just now."""
        if name not in self._lanes:
            raise NotFound("there is no receiver of this name")
        now_ns = self._time.now_ns()
        try:
            return await self._store.write(partial(_test, receiver=name, person=person, now_ns=now_ns))
        except StoreError as error:
            raise Unavailable(f"the test was not kept: {error}") from error


def parcels_of(due: Sequence[Notice], *, allowance: int, batch: int) -> list[Parcel]:
    """Return what goes out now, at most `allowance` parcels.

    Where one message is one parcel and more is due, the worst go alone and the last counts the rest.
    """
    if allowance < 1 or not due:
        return []
    if batch > 1:
        starts = range(0, len(due), batch)
        return [Parcel(due[first : first + batch]) for first in starts][:allowance]
    if len(due) <= allowance:
        return [Parcel((each,)) for each in due]
    worst = sorted(due, key=lambda each: (each.drill, -SEVERITY_ORDER.index(each.severity)))
    alone, rest = worst[: allowance - 1], worst[allowance - 1 :]
    return [*(Parcel((each,)) for each in alone), Parcel(rest[:1], folded=rest[1:])]


def _due(ledger: Ledger, *, receiver: str, now_ns: int) -> Sequence[Notice]:
    return ledger.notices.due(receiver, now_ns=now_ns, limit=_AT_ONCE)


def _standing(ledger: Ledger, *, receiver: str, now_ns: int) -> Sequence[Notice]:
    """Return what stands open for a receiver, less what is silenced: it is not told again meanwhile."""
    return quiet.audible(ledger, ledger.notices.standing(receiver, limit=_STANDING), now_ns=now_ns)


def _settle(ledger: Ledger, *, parcel: Parcel, told: NoticeState) -> None:
    for each in parcel.told:
        ledger.notices.settle(each, told)
    for each in parcel.folded:
        ledger.notices.settle(each, NoticeState.FOLDED)


def _given_up(ledger: Ledger, *, parcel: Parcel, error: str, now_ns: int) -> None:
    for each in (*parcel.told, *parcel.folded):
        ledger.notices.settle(each, NoticeState.GIVEN_UP)
    first = parcel.told[0]
    more = len(parcel.told) + len(parcel.folded) - 1
    detail = f"{first.event} of {first.incident_id}" + (f" and {more} more" if more else "") + f": {error}"
    steps.note(
        ledger,
        actor=steps.ORCHESTRATOR,
        verb="notice.given_up",
        object_id=first.receiver,
        detail=detail,
        now_ns=now_ns,
    )


def _remind(ledger: Ledger, *, routing: Routing, each_ns: int, now_ns: int) -> None:
    for each in ledger.in_states(_WAITING, limit=None):
        times = (now_ns - each.created_ns) // each_ns
        incident = ledger.incident(each.incident_id)
        if times >= 1 and incident is not None and incident.open:
            happening = Happening(Event.WAITING, incident, f"{each.id} {times}")
            tell(ledger, happening, routing=routing, now_ns=now_ns)


def _test(ledger: Ledger, *, receiver: str, person: str, now_ns: int) -> NoticeId:
    last = ledger.notices.last_test(receiver)
    if last is not None and 0 <= now_ns - last.created_ns < _TEST_PAUSE_S * 1e9:
        raise Refused(f"{receiver} was tested less than {_TEST_PAUSE_S:.0f} seconds ago")
    notice = Notice(
        id=NoticeId(str(uuid.uuid4())),
        receiver=receiver,
        incident_id=IncidentId(f"test-{now_ns}"),
        event=Event.TEST,
        severity=Severity.NOTE,
        fault_class=FaultClass.UNKNOWN,
        fault_number=None,
        agent_id=AgentId("orchestrator"),
        drill=False,
        since_ns=now_ns,
        created_ns=now_ns,
        due_ns=now_ns,
    )
    ledger.notices.add(notice)
    steps.note(
        ledger, actor=person, verb="notice.tested", object_id=receiver, detail=notice.id, now_ns=now_ns
    )
    return notice.id
