"""What people may do with entries besides deciding, and with silences: the desk for it, on a store."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from escalation.model import FaultClass, Incident, RecommendationId
from escalation.server.attention import attending, maintenance, silencing
from escalation.server.attention.silences import LONGEST_S, Matcher, Origin, Silence, SilenceId, checked
from escalation.server.attention.values import AttentionSettings
from escalation.server.clock import Clock, Timekeeper
from escalation.server.desk import Entry, Refused, Unavailable
from escalation.server.notify.notice_watch import Routing, saying
from escalation.server.notify.notices import Happening
from escalation.server.storage.store import Ledger, Store, StoreError

T = TypeVar("T")
Changed = frozenset[RecommendationId]

_NS = 1_000_000_000
_SHORTEST_S = 60


def _new_id() -> str:
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True)
class Until:
    """An end as it was asked for: after so many seconds, or at a time; None where the default is meant."""

    for_s: float | None = None
    until_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """What a silence would cover now."""

    silence: Silence
    incidents: Sequence[Incident]


class AttentionDesk(Protocol):
    """What can be asked. All methods raise DeskError kinds only."""

    def now_ns(self) -> int:
        """Return the time by which it judges."""

    async def acknowledge(self, entry_id: str, *, person: str, until: Until) -> Entry:
        """Record that `person` has the entry in hand."""

    async def snooze(self, entry_id: str, *, person: str, until: Until) -> Entry:
        """Put an undecided entry off."""

    async def release(self, entry_id: str, *, person: str) -> Entry:
        """Give an entry back to the queue."""

    async def ask(self, entry_id: str, *, person: str, text: str, to: Sequence[str]) -> Entry:
        """Add a question."""

    async def answer(self, entry_id: str, *, person: str, text: str, question: int | None) -> Entry:
        """Add an answer."""

    async def silences(self) -> Sequence[Silence]:
        """Return silences and maintenance, what stands first, then what is over, newest first."""

    async def preview(self, matchers: Sequence[Matcher]) -> Preview:
        """Return what these matchers would cover now."""

    async def silence(
        self,
        matchers: Sequence[Matcher],
        *,
        person: str,
        comment: str,
        starts_ns: int | None,
        until: Until,
    ) -> Silence:
        """Silence what all matchers fit."""

    async def maintain(
        self, host: str, *, person: str, comment: str, until: Until, also: Sequence[FaultClass]
    ) -> Silence:
        """Start maintenance on a host, or on those that a pattern fits."""

    async def end(self, silence_id: str, *, person: str, maintenance: bool) -> Silence:
        """End a silence, or maintenance, before its time."""


class StoredAttention:
    """The real desk."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        settings: AttentionSettings,
        touched: Callable[[Changed], None],
        routing: Routing | None = None,
        new_id: Callable[[], str] = _new_id,
    ) -> None:
        """Work on `store`; `touched` is called with what watchers have to see anew, after the commit."""
        self._new_id = new_id
        self._store = store
        self._time = Timekeeper(clock=clock)
        self._settings = settings
        self._touched = touched
        self._routing = routing

    def __repr__(self) -> str:
        return f"StoredAttention({self._store!r})"

    def now_ns(self) -> int:
        """Return the time by which it judges."""
        return self._time.now_ns()

    async def acknowledge(self, entry_id: str, *, person: str, until: Until) -> Entry:
        """Record that `person` has the entry in hand."""
        now_ns = self.now_ns()
        most_s, default_s = self._settings.acknowledge_at_most_s, self._settings.acknowledge_s
        until_ns = _end_of(until, now_ns=now_ns, default_s=default_s, most_s=most_s)
        work = partial(
            attending.acknowledge, entry_id=entry_id, person=person, until_ns=until_ns, now_ns=now_ns
        )
        return await self._note(work, now_ns=now_ns)

    async def snooze(self, entry_id: str, *, person: str, until: Until) -> Entry:
        """Put an undecided entry off."""
        now_ns = self.now_ns()
        most_s = self._settings.snooze_at_most_s
        until_ns = _end_of(until, now_ns=now_ns, default_s=None, most_s=most_s)
        work = partial(attending.snooze, entry_id=entry_id, person=person, until_ns=until_ns, now_ns=now_ns)
        return await self._note(work, now_ns=now_ns)

    async def release(self, entry_id: str, *, person: str) -> Entry:
        """Give an entry back to the queue."""
        now_ns = self.now_ns()
        work = partial(attending.release, entry_id=entry_id, person=person, now_ns=now_ns)
        return await self._note(work, now_ns=now_ns)

    async def ask(self, entry_id: str, *, person: str, text: str, to: Sequence[str]) -> Entry:
        """Add a question."""
        now_ns = self.now_ns()
        work = partial(attending.ask, entry_id=entry_id, person=person, text=text, to=to, now_ns=now_ns)
        return await self._note(work, now_ns=now_ns)

    async def answer(self, entry_id: str, *, person: str, text: str, question: int | None) -> Entry:
        """Add an answer."""
        now_ns = self.now_ns()
        work = partial(
            attending.answer, entry_id=entry_id, person=person, text=text, question=question, now_ns=now_ns
        )
        return await self._note(work, now_ns=now_ns)

    async def silences(self) -> Sequence[Silence]:
        """Return silences and maintenance, what stands first, then what is over, newest first."""
        return await self._read(partial(silencing.listed, now_ns=self.now_ns()))

    async def preview(self, matchers: Sequence[Matcher]) -> Preview:
        """Return what these matchers would cover now."""
        now_ns = self.now_ns()
        planned = _planned(
            SilenceId(""), matchers, person="", comment="", starts_ns=now_ns, ends_ns=now_ns, now_ns=now_ns
        )
        return Preview(planned, await self._read(partial(silencing.covered, silence=planned)))

    async def silence(
        self,
        matchers: Sequence[Matcher],
        *,
        person: str,
        comment: str,
        starts_ns: int | None,
        until: Until,
    ) -> Silence:
        """Silence what all matchers fit."""
        now_ns = self.now_ns()
        begins_ns = now_ns if starts_ns is None else max(now_ns, starts_ns)
        if begins_ns > now_ns + LONGEST_S * _NS:
            raise Refused("a silence begins within 30 days")
        planned = _planned(
            SilenceId(self._new_id()),
            matchers,
            person=person,
            comment=_said(comment),
            starts_ns=begins_ns,
            ends_ns=_end_of(until, now_ns=begins_ns, default_s=None, most_s=LONGEST_S),
            now_ns=now_ns,
        )
        return await self._begin(planned, now_ns=now_ns)

    async def maintain(
        self, host: str, *, person: str, comment: str, until: Until, also: Sequence[FaultClass]
    ) -> Silence:
        """Start maintenance on a host, or on those that a pattern fits."""
        now_ns = self.now_ns()
        try:
            started = maintenance.by_hand(
                SilenceId(self._new_id()),
                host=host,
                person=person,
                comment=_said(comment),
                also=tuple(also),
                now_ns=now_ns,
                ends_ns=_end_of(until, now_ns=now_ns, default_s=None, most_s=LONGEST_S),
            )
        except ValueError as error:
            raise Refused(str(error)) from error
        return await self._begin(started, now_ns=now_ns)

    async def end(self, silence_id: str, *, person: str, maintenance: bool) -> Silence:
        """End a silence, or maintenance, before its time."""
        now_ns = self.now_ns()

        def work(ledger: Ledger) -> tuple[tuple[Silence, Changed], Sequence[Happening]]:
            done, happenings = silencing.end(
                ledger, silence_id, person=person, of_maintenance=maintenance, now_ns=now_ns
            )
            return (done, silencing.entries_under(ledger, done)), happenings

        done, changed = await self._say(work, now_ns=now_ns)
        self._touched(changed)
        return done

    async def _begin(self, silence: Silence, *, now_ns: int) -> Silence:
        def work(ledger: Ledger) -> tuple[Silence, Changed]:
            begun = silencing.begin(ledger, silence, now_ns=now_ns)
            return begun, silencing.entries_under(ledger, begun)

        begun, changed = await self._write(work)
        self._touched(changed)
        return begun

    async def _note(self, work: Callable[[Ledger], attending.Noted], *, now_ns: int) -> Entry:
        def noting(ledger: Ledger) -> tuple[Entry, Sequence[Happening]]:
            noted = work(ledger)
            return noted.entry, noted.happenings

        entry = await self._say(noting, now_ns=now_ns)
        self._touched(frozenset({entry.recommendation.id}))
        return entry

    async def _say(self, work: Callable[[Ledger], tuple[T, Sequence[Happening]]], *, now_ns: int) -> T:
        return await self._write(saying(work, routing=self._routing, now_ns=now_ns))

    async def _write(self, work: Callable[[Ledger], T]) -> T:
        try:
            return await self._store.write(work)
        except StoreError as error:
            raise Unavailable(f"it was not kept: {error}") from error

    async def _read(self, work: Callable[[Ledger], T]) -> T:
        try:
            return await self._store.read(work)
        except StoreError as error:
            raise Unavailable(f"nothing can be read now: {error}") from error


def _end_of(until: Until, *, now_ns: int, default_s: float | None, most_s: float) -> int:
    """Return when it ends; raise Refused for what is over before it began, or takes too long."""
    if until.until_ns is not None:
        ends_ns = until.until_ns
    else:
        length_s = until.for_s if until.for_s is not None else default_s
        if length_s is None:
            raise Refused("say for how long, or until when")
        ends_ns = now_ns + int(length_s * _NS)
    if ends_ns < now_ns + _SHORTEST_S * _NS:
        raise Refused("its end is over, or less than a minute away")
    if ends_ns > now_ns + int(most_s * _NS):
        raise Refused(f"the longest that is allowed is {most_s / 3600:g} hours")
    return ends_ns


def _planned(
    silence_id: SilenceId,
    matchers: Sequence[Matcher],
    *,
    person: str,
    comment: str,
    starts_ns: int,
    ends_ns: int,
    now_ns: int,
) -> Silence:
    try:
        together = checked(matchers)
    except ValueError as error:
        raise Refused(str(error)) from error
    return Silence(
        id=silence_id,
        matchers=together,
        author=person,
        comment=comment,
        created_ns=now_ns,
        starts_ns=starts_ns,
        ends_ns=ends_ns,
        origin=Origin.SILENCE,
    )


def _said(comment: str) -> str:
    said = comment.strip()
    if not said or "\0" in said:
        raise Refused("a silence needs a comment: why, for whoever wonders")
    return said
