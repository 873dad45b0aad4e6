"""Whatever happens, whoever keeps it: memory, SQLite and two processes on PostgreSQL tell the same."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from dev import postgres
from escalation.model import CasePhase, FaultClass, Incarnation, Subject, SubjectKind
from escalation.server import audit
from escalation.server.decision.approvals import Policy
from escalation.server.desk import DeskError, Entry
from escalation.server.service import Service
from escalation.server.storage.store import Delivery, Store
from escalation.server.testing import ManualClock, MemoryStore, case_report, heartbeat
from tests.escalation.server.databases import Database
from tests.escalation.server.deliveries import delivery_of

_EXAMPLES = int(os.environ.get("NANOBOT_EXAMPLES", "15"))
_NUMBERS = itertools.count(1)

_hosts = st.sampled_from(["spark-1", "spark-2"])
_steps = st.one_of(
    st.tuples(
        st.just("case"),
        _hosts,
        st.sampled_from(CasePhase),
        st.sampled_from(["case-1", "case-2"]),
        st.sampled_from([FaultClass.GPU_ACCESS_REVOKED, FaultClass.UNIT_RESTART_LOOP]),
        st.booleans(),
    ),
    st.tuples(st.just("heartbeat"), _hosts),
    st.tuples(st.just("again"), _hosts),
    st.tuples(st.just("time"), st.sampled_from([1.0, 40.0, 3700.0, 5 * 3600.0])),
    st.tuples(st.sampled_from(["approve", "reject", "done"]), st.integers(0, 3)),
)


class _Side:
    """The desks on one database, of which a step may use any; all have the same clock."""

    def __init__(self, stores: list[Store]) -> None:
        self.clock = ManualClock()
        self.desks = [Service(store=each, clock=self.clock, policy=Policy()) for each in stores]
        self._sent: dict[str, list[Delivery]] = {}

    async def take(self, step: tuple[Any, ...], place: int) -> str:
        """Do one step at one of the desks; return what was refused, in words."""
        desk = self.desks[place % len(self.desks)]
        match step:
            case ("case", host, phase, case_id, fault_class, moved):
                body = case_report(
                    phase,
                    case_id=case_id,
                    fault_class=fault_class,
                    subject=Subject(SubjectKind.UNIT, "vllm.service"),
                    incarnation=Incarnation(kernel_boot_id="kernel-2" if moved else "kernel-1"),
                    last_seen_ns=self.clock.wall_ns(),
                )
                await self._report(desk, host, body)
            case ("heartbeat", host):
                await self._report(desk, host, heartbeat())
            case ("again", host):
                for delivery in self._sent.get(host, [])[-3:]:
                    await desk.receive(delivery)
            case ("time", seconds):
                self.clock.advance(seconds)
            case (decision, number):
                return await self._decide(desk, decision, number)
        return ""

    async def let_time_pass(self) -> None:
        """Let every desk do what is due, and learn what the other wrote, as each does every second."""
        for each in self.desks:
            await each.tick()

    async def _report(self, desk: Service, host: str, body: Any) -> None:
        sent = self._sent.setdefault(host, [])
        sent.append(delivery_of(len(sent) + 1, body, host=host, at_ns=self.clock.wall_ns()))
        await desk.receive(sent[-1])

    async def _decide(self, desk: Service, decision: str, number: int) -> str:
        entries = await desk.queue(None)
        if number >= len(entries):
            return "there is none"
        entry = entries[number].recommendation
        try:
            if decision == "approve":
                await desk.approve(entry.id, person="ada", reason="why", digest=entry.digest)
            elif decision == "reject":
                await desk.reject(entry.id, person="ada", reason="no")
            else:
                await desk.done(entry.id, person="ada")
        except DeskError as error:
            return str(error)
        return ""

    async def told(self, place: int) -> tuple[Any, ...]:
        """Return all that a desk tells."""
        desk = self.desks[place % len(self.desks)]
        chain = await desk.audit(after=0, limit=1000)
        assert audit.verify(chain) is None
        return (
            [_comparable(each) for each in await desk.queue(None)],
            sorted(await desk.incidents(), key=lambda each: each.id),
            await desk.hosts(),
            chain,
        )


def _comparable(entry: Entry) -> Entry:
    return replace(entry, explains=tuple(sorted(entry.explains, key=lambda each: each.id)))


@pytest.mark.postgres
@pytest.mark.timeout(180)
@given(steps=st.lists(st.tuples(_steps, st.integers(0, 1)), min_size=3, max_size=25))
@settings(
    max_examples=_EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_every_store_tells_the_same(
    cluster: postgres.Cluster,
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[tuple[Any, ...], int]],
) -> None:
    """Random reports, repeats, decisions and jumps in time, at either process, end in the same desk."""
    number = next(_NUMBERS)
    file = Database(tmp_path_factory.mktemp("agree") / "orchestrator.db")
    shared = Database(cluster.create(f"agree_{number}"))
    opened = [file.open(), shared.open(), shared.open()]
    sides = [_Side([MemoryStore()]), _Side([opened[0]]), _Side([opened[1], opened[2]])]
    try:
        for step, place in steps:
            said = [await side.take(step, place) for side in sides]
            for side in sides:
                await side.let_time_pass()
            assert said[0] == said[1] == said[2], step
        told = [await side.told(0) for side in sides]
        assert told[0] == told[1] == told[2] == await sides[2].told(1)
    finally:
        for each in opened:
            await each.close()
