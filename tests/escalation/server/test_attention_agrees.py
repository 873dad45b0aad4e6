"""Attention is the same whoever keeps it: in memory, on SQLite, and for two processes on PostgreSQL."""

from __future__ import annotations

import itertools
import os
import zoneinfo
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from dev import postgres
from escalation.model import CasePhase, FaultClass, Severity, State, Subject, SubjectKind
from escalation.server import audit
from escalation.server.attention.attention_desk import StoredAttention, Until
from escalation.server.attention.maintenance import Window
from escalation.server.attention.shelves import shown, states_of
from escalation.server.attention.silences import Phase, parse
from escalation.server.attention.values import AttentionSettings
from escalation.server.decision.approvals import Policy
from escalation.server.desk import DeskError, Entry
from escalation.server.notify.notice_routes import Route, Router
from escalation.server.notify.notices import Event
from escalation.server.service import Service
from escalation.server.storage.store import Ledger, Store
from escalation.server.testing import ManualClock, MemoryStore, case_report
from tests.escalation.server.databases import Database
from tests.escalation.server.deliveries import delivery_of

_EXAMPLES = int(os.environ.get("NANOBOT_EXAMPLES", "12"))
_NUMBERS = itertools.count(1)
_ROUTING = Router(
    routes=[Route(receivers=("pager",), severity=Severity.NOTE)],
    events={"pager": frozenset(Event)},
    zone=zoneinfo.ZoneInfo("UTC"),
)
_WINDOWS = (Window(host="spark-2", comment="backup", weekly="thu,fri 01:00-03:00"),)
_MATCHERS = ("host=spark-1", "host~spark-*", "severity=critical", "fault_class!=unit.restart_loop")
_PERSONS = ("ada", "grace")

_steps = st.one_of(
    st.tuples(
        st.just("case"),
        st.sampled_from(["spark-1", "spark-2"]),
        st.sampled_from([CasePhase.OPENED, CasePhase.UPDATED, CasePhase.CLEARED]),
        st.sampled_from(["case-1", "case-2"]),
        st.sampled_from([Severity.NOTE, Severity.CRITICAL]),
        st.sampled_from([1, 3, 40]),
    ),
    st.tuples(st.just("time"), st.sampled_from([1.0, 600.0, 1900.0, 4000.0])),
    st.tuples(
        st.sampled_from(["acknowledge", "snooze"]), st.integers(0, 3), st.sampled_from(_PERSONS),
        st.sampled_from([60.0, 1800.0, 7200.0]),
    ),
    st.tuples(
        st.sampled_from(["release", "ask", "answer", "approve"]), st.integers(0, 3), st.sampled_from(_PERSONS)
    ),
    st.tuples(st.just("silence"), st.sampled_from(_MATCHERS), st.sampled_from([60.0, 3600.0])),
    st.tuples(st.just("maintain"), st.sampled_from(["spark-1", "spark-?"]), st.sampled_from([60.0, 3600.0])),
    st.tuples(st.sampled_from(["expire", "end"]), st.integers(0, 2)),
)  # fmt: skip


class _Side:
    """The desks on one database, of which a step may use any; all have the same clock."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self.clock = ManualClock()
        self._ids = itertools.count(1)
        self.desks = [
            Service(store=each, clock=self.clock, policy=Policy(), routing=_ROUTING, windows=_WINDOWS)
            for each in stores
        ]
        self.attention = [
            StoredAttention(
                store=store,
                clock=self.clock,
                settings=AttentionSettings(),
                touched=desk.touch,
                routing=_ROUTING,
                new_id=lambda: f"silence-{next(self._ids)}",
            )
            for store, desk in zip(stores, self.desks, strict=True)
        ]
        self._stores = stores
        self._sent: dict[str, int] = {}

    async def take(self, step: tuple[Any, ...], place: int) -> str:
        """Do one step at one of the desks; return what was refused, in words."""
        number = place % len(self.desks)
        try:
            await self._take(step, self.desks[number], self.attention[number])
        except DeskError as error:
            return str(error)
        return ""

    async def _take(self, step: tuple[Any, ...], desk: Service, attention: StoredAttention) -> None:
        match step:
            case ("case", host, phase, case_id, severity, count):
                await self._report(desk, host, phase, case_id, severity, count)
            case ("time", seconds):
                self.clock.advance(seconds)
            case ("silence", matcher, for_s):
                until = Until(for_s=for_s)
                await attention.silence(
                    [parse(matcher)], person="ada", comment="why", starts_ns=None, until=until
                )
            case ("maintain", host, for_s):
                await attention.maintain(host, person="ada", comment="fan", until=Until(for_s=for_s), also=())
            case ("expire" | "end", at):
                known = await attention.silences()
                if at < len(known):
                    await attention.end(known[at].id, person="grace", maintenance=step[0] == "end")
            case (verb, at, person, *more):
                await self._do(verb, at, person, *more, desk=desk, attention=attention)

    async def _do(
        self, verb: str, at: int, person: str, *more: float, desk: Service, attention: StoredAttention
    ) -> None:
        entries = await desk.queue(None)
        if at >= len(entries):
            return
        entry = entries[at].recommendation
        match verb:
            case "acknowledge":
                await attention.acknowledge(entry.id, person=person, until=Until(for_s=more[0]))
            case "snooze":
                await attention.snooze(entry.id, person=person, until=Until(for_s=more[0]))
            case "release":
                await attention.release(entry.id, person=person)
            case "ask":
                await attention.ask(entry.id, person=person, text="why?", to=("grace",))
            case "answer":
                await attention.answer(entry.id, person=person, text="so", question=None)
            case _:
                await desk.approve(entry.id, person=person, reason="why", digest=entry.digest)

    async def _report(self, desk: Service, host: str, phase: CasePhase, *case: Any) -> None:
        case_id, severity, count = case
        self._sent[host] = number = self._sent.get(host, 0) + 1
        body = case_report(
            phase,
            case_id=case_id,
            fault_class=FaultClass.UNIT_RESTART_LOOP if case_id == "case-1" else FaultClass.GPU_UVM_LOST,
            subject=Subject(SubjectKind.UNIT, "vllm.service"),
            severity=severity,
            count=count,
            last_seen_ns=self.clock.wall_ns(),
        )
        await desk.receive(delivery_of(number, body, host=host, at_ns=self.clock.wall_ns()))

    async def let_time_pass(self) -> None:
        """Let every desk do what is due, and learn what the other wrote, as each does every second."""
        for each in self.desks:
            await each.tick()

    async def told(self, place: int) -> tuple[Any, ...]:
        """Return all that a desk tells, and what people were told."""
        desk, attention = self.desks[place % len(self.desks)], self.attention[place % len(self.desks)]
        chain = await desk.audit(after=0, limit=1000)
        assert audit.verify(chain) is None
        queue = await desk.queue(None)
        notices = await self._stores[place % len(self.desks)].read(_notices)
        return [_shown(each) for each in queue], await attention.silences(), chain, notices

    async def check(self) -> None:
        """Hold what has to be so at any time."""
        now_ns = self.clock.wall_ns()
        queue = await self.desks[0].queue(states_of(""))
        for each in queue:
            attention = each.attention
            for kept in (attention.acknowledged, attention.snoozed):
                assert kept is None or kept.at_ns <= now_ns < kept.until_ns
            if attention.snoozed is not None:
                assert each.recommendation.state is State.PROPOSED
            assert all(one.phase(now_ns) is Phase.ACTIVE for one in attention.silenced_by)
        left = shown(queue, "")
        aside = sum(each.attention.put_aside for each in queue)
        assert len(left.entries) + aside == len(queue)


def _shown(entry: Entry) -> tuple[Any, ...]:
    return entry.recommendation.id, entry.recommendation.state, entry.incident, entry.attention


def _notices(ledger: Ledger) -> list[tuple[Any, ...]]:
    known = sorted(each.id for each in ledger.incidents(limit=1000))
    return [
        (each.id, each.event, each.state, each.due_ns) for one in known for each in ledger.notices.of(one)
    ]


@pytest.mark.postgres
@pytest.mark.timeout(180)
@given(steps=st.lists(st.tuples(_steps, st.integers(0, 1)), min_size=3, max_size=25))
@settings(
    max_examples=_EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_attention_is_the_same_on_every_store(
    cluster: postgres.Cluster,
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[tuple[Any, ...], int]],
) -> None:
    """Random reports, people and hours, at either process, end in the same queue, log and notices."""
    file = Database(tmp_path_factory.mktemp("attention") / "orchestrator.db")
    shared = Database(cluster.create(f"attention_{next(_NUMBERS)}"))
    opened = [file.open(), shared.open(), shared.open()]
    sides = [_Side([MemoryStore()]), _Side([opened[0]]), _Side([opened[1], opened[2]])]
    try:
        for step, place in steps:
            said = [await side.take(step, place) for side in sides]
            assert said[0] == said[1] == said[2], step
            for side in sides:
                await side.let_time_pass()
                await side.check()
        told = [await side.told(0) for side in sides]
        assert told[0] == told[1] == told[2] == await sides[2].told(1)
    finally:
        for each in opened:
            await each.close()
