"""People, hosts and time race for one decision: whatever comes first, there is one winner, on record.

Two clients of one orchestrator on SQLite, and two orchestrators on one PostgreSQL database, are asked at the
same time over real sockets to approve, approve as the second person, reject, mark done, withdraw (the host
says that it is over), restate (the host says that the target is another one) and expire. After each race the
database must tell one story.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import ssl
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from escalation.model import (
    ActionKind,
    AgentId,
    CaseId,
    CasePhase,
    CaseReport,
    Incarnation,
    Incident,
    RecommendationId,
    State,
    Subject,
    SubjectKind,
)
from escalation.server import audit
from escalation.server.decision import binding
from escalation.server.decision.approvals import MOVES, UNFINISHED, Policy
from escalation.server.decision.track_record import RestartBudget
from escalation.server.desk import AuditEntry
from escalation.server.notify.notices import Event
from escalation.server.storage.store import Ledger
from escalation.server.testing import CONTAINER, ManualClock, case_report
from tests.escalation.server.databases import Database
from tests.escalation.server.deliveries import delivery_of
from tests.escalation.server.notifiers.told import Mailbox
from tests.escalation.server.racing import PAGER, PERSONS, Door, door

_POLICY = Policy(
    approve_within_s=3600,
    execute_within_s=3600,
    two_person=frozenset({ActionKind.RESTART_UNIT}),
    restart_budget=RestartBudget(approvals=100),  # nobody wins what is advised when it is spent
)
_DECISIONS = {
    "recommendation.approved",
    "recommendation.approved_by_first",
    "recommendation.rejected",
}
_AGAINST = ("approve", "reject", "done", "clear", "restate", "expire")


@dataclass(frozen=True, slots=True)
class Move:
    """One thing that somebody does in a race, at which door, and how many round trips later."""

    what: str
    person: str
    door: int
    lag: int


def _moves(*what: str) -> st.SearchStrategy[Move]:
    return st.builds(
        Move,
        what=st.sampled_from(what),
        person=st.sampled_from(PERSONS),
        door=st.integers(0, 1),
        lag=st.integers(0, 3),
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person heard."""

    move: Move
    entry_id: str
    status: int
    state: str


@dataclass
class Arena:
    """Two doors on one database, and what was checked of it so far."""

    doors: Sequence[Door]
    clock: ManualClock
    mailbox: Mailbox
    hosts: Iterator[int] = field(default_factory=itertools.count)
    checked: AuditEntry | None = None
    actors: dict[str, list[AuditEntry]] = field(default_factory=dict)

    _clients: list[httpx2.AsyncClient] = field(default_factory=list)

    def clients(self) -> list[httpx2.AsyncClient]:
        """Return a client of each door, made in the loop that asks first."""
        if not self._clients:
            no_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._clients = [
                httpx2.AsyncClient(base_url=each.url, timeout=30, trust_env=False, verify=no_tls)
                for each in self.doors
            ]
        return self._clients

    async def close(self) -> None:
        """Let the clients go."""
        for each in self._clients:
            await each.aclose()

    async def audited(self) -> None:
        """Check the links that are new, and sort them by what they are about."""
        while True:
            after = self.checked.number if self.checked else 0
            links = await self.doors[0].run(self.doors[0].service.audit(after=after, limit=1000))
            if not links:
                return
            assert audit.verify(links, start=self.checked) is None
            self.checked = links[-1]
            for link in links:
                self.actors.setdefault(link.object_id, []).append(link)


class Race(RuleBasedStateMachine):
    """One host with one fault at a time, and whoever wants to decide it."""

    arena: Arena
    runner: asyncio.Runner
    body: CaseReport | None = None

    @initialize(two_person=st.booleans())
    def a_host_has_a_fault(self, *, two_person: bool) -> None:
        """Open the first case."""
        self.host = AgentId(f"racer-{next(self.arena.hosts)}")
        self.sequence = itertools.count(1)
        self.opened = 0
        self.lives = itertools.count(2)
        self.two_person = two_person
        self._open()

    @precondition(lambda self: self.body is None)
    @rule()
    def the_fault_comes_back(self) -> None:
        """Open the next case."""
        self._open()

    @precondition(lambda self: self.body is not None)
    @rule(
        approvals=st.lists(_moves("approve"), min_size=1, max_size=3),
        others=st.lists(_moves(*_AGAINST), min_size=1, max_size=3),
    )
    def everybody_at_once(self, approvals: list[Move], others: list[Move]) -> None:
        """Let all moves happen at the same time, then look whether the database tells one story."""
        self.runner.run(self._race([*approvals, *others]))

    def teardown(self) -> None:
        """End the fault, and let both doors tell what is due: nobody hears anything twice."""
        if self.body is not None:
            self.runner.run(self._report(replace(self.body, phase=CasePhase.CLEARED), 0))
        self.runner.run(self._told())

    def _open(self) -> None:
        subject = Subject(SubjectKind.CONTAINER, CONTAINER)
        if self.two_person:
            subject = Subject(SubjectKind.UNIT, "ollama.service")
        self.opened += 1
        self.body = case_report(case_id=f"case-{self.opened}", subject=subject, target=subject)
        self.runner.run(self._report(self.body, 0))

    async def _race(self, moves: list[Move]) -> None:
        for at in self.arena.doors:  # a race before may have moved the clock, and only one door leads
            await at.run(at.service.tick())
        if self.body is not None:  # seen again now
            await self._report(replace(self.body, phase=CasePhase.UPDATED), 0)
        standing = await self._newest()
        clients = self.arena.clients()
        done = await asyncio.gather(*(self._move(move, standing, clients[move.door]) for move in moves))
        answers = [each for each in done if each is not None]
        await self.arena.audited()
        await self._one_story(standing, moves, answers)

    async def _move(self, move: Move, standing: Any, client: httpx2.AsyncClient) -> Answer | None:
        for _ in range(move.lag):
            await client.get("/livez")
        match move.what:
            case "clear" if self.body is not None:
                body, self.body = replace(self.body, phase=CasePhase.CLEARED), None
                await self._report(body, move.door)
            case "restate" if self.body is not None:
                life = Incarnation(kernel_boot_id=f"kernel-{next(self.lives)}", container_id=CONTAINER)
                self.body = replace(self.body, incarnation=life)
                await self._report(replace(self.body, phase=CasePhase.UPDATED), move.door)
            case "expire":
                self.arena.clock.jump(_POLICY.approve_within_s)  # no host falls silent by it
                at = self.arena.doors[move.door]
                await at.run(at.service.tick())
            case "approve" | "reject" | "done":
                return await self._decide(move, standing, client)
        return None

    async def _decide(self, move: Move, standing: Any, client: httpx2.AsyncClient) -> Answer:
        body: dict[str, str] = {} if move.what == "done" else {"reason": f"{move.person} says so"}
        if move.what == "approve":
            body["digest"] = standing.digest
        answer = await client.post(
            f"/api/v1/queue/{standing.id}/{move.what}",
            json=body,
            headers={"Authorization": f"Bearer {move.person}"},
        )
        assert answer.status_code in {200, 409, 410}, answer.text
        state = answer.json()["state"] if answer.status_code == 200 else ""
        return Answer(move, standing.id, answer.status_code, state)

    async def _report(self, body: CaseReport, number: int) -> None:
        at = self.arena.doors[number]
        now_ns = self.arena.clock.wall_ns()
        seen = replace(body, last_seen_ns=now_ns)
        delivery = delivery_of(next(self.sequence), seen, host=self.host, at_ns=now_ns)
        await at.run(at.service.receive(delivery))

    def _mine(self, ledger: Ledger) -> list[Incident]:
        cases = [ledger.case(self.host, CaseId(f"case-{number}")) for number in range(1, self.opened + 1)]
        found = {case.incident_id: ledger.incident(case.incident_id) for case in cases if case is not None}
        return [each for each in found.values() if each is not None]

    async def _newest(self) -> Any:
        def read(ledger: Ledger) -> Any:
            found = [each for mine in self._mine(ledger) for each in ledger.recommendations(mine.id)]
            return max(found, key=lambda each: (each.state in UNFINISHED, each.created_ns))

        return await self.arena.doors[0].run(self.arena.doors[0].store.read(read))

    async def _one_story(self, standing: Any, moves: list[Move], answers: list[Answer]) -> None:
        """Hold what the people heard against the audit log, and both against what is kept."""

        def read(ledger: Ledger) -> Any:
            return [
                (each, ledger.recommendations(each.id), ledger.notices.of(each.id))
                for each in self._mine(ledger)
            ]

        kept = await self.arena.doors[1].run(self.arena.doors[1].store.read(read))
        for incident, recommendations, notices in kept:
            told = Counter((each.receiver, each.event) for each in notices)
            approved = 0
            for each in recommendations:
                links = self.arena.actors[each.id]
                approved += self._walk(each.id, each.state, links)
                if each.state is State.APPROVED:
                    bound = binding.digest_of(each.advice.action, incident)
                    assert bound == each.digest, "an approval has outlived what it was given for"
                    assert each.approvers
                assert len(set(each.approvers)) == len(each.approvers)
            assert told[PAGER, Event.APPROVED] == approved, "each approval is told once"
            assert told[PAGER, Event.OPENED] <= 1
            assert sum(each.state in UNFINISHED for each in recommendations) <= 1
        self._winners(standing.id, moves, answers)

    def _walk(self, recommendation_id: RecommendationId, state: State, links: list[AuditEntry]) -> int:
        """Follow the log from state to state; return how often it became approved."""
        states = [
            State(name) for link in links if (name := link.verb.removeprefix("recommendation.")) in set(State)
        ]
        assert states[0] is State.PROPOSED, recommendation_id
        for before, after in itertools.pairwise(states):
            assert after in MOVES[before], (recommendation_id, states)
        assert states[-1] is state, "the log and the row agree"
        return states.count(State.APPROVED)

    def _winners(self, entry_id: str, moves: list[Move], answers: list[Answer]) -> None:
        """Everybody who heard yes is in the log, nobody else is, and there is one outcome."""
        heard = Counter(
            answer.move.person for answer in answers if answer.status == 200 and answer.move.what != "done"
        )
        links = self.arena.actors[entry_id]
        logged = Counter(link.actor for link in links if link.verb in _DECISIONS)
        assert heard <= logged
        finals = [link for link in links if link.verb in _DECISIONS - {"recommendation.approved_by_first"}]
        approvals = [link for link in finals if link.verb == "recommendation.approved"]
        assert len(finals) <= 1, "approved and rejected, or either of them twice"
        yes = [answer for answer in answers if answer.status == 200]
        assert sum(answer.state == "approved" for answer in yes) <= 1
        assert sum(answer.state == "rejected" for answer in yes) <= 1
        assert sum(answer.state == "done" for answer in yes) <= 1
        if self.two_person and approvals:
            firsts = [link.actor for link in links if link.verb == "recommendation.approved_by_first"]
            assert firsts
            assert approvals[0].actor != firsts[-1]
        contested = {move.what for move in moves}
        if contested <= {"approve", "reject"} and not self.two_person and len(links) == 1 + len(finals):
            assert len(finals) == 1, "somebody wins"

    async def _told(self) -> None:
        apart = {each.url: each for each in self.arena.doors}.values()
        await asyncio.gather(*(each.run(each.notifier.turn(PAGER)) for each in apart))
        sent = Counter(message.id for message in self.arena.mailbox.sent)
        assert not [each for each, times in sent.items() if times > 1]


def _won(race: Race, what: str, *, two_person: bool) -> None:
    """Run a race of one kind of move, which somebody wins for certain."""
    race.a_host_has_a_fault(two_person=two_person)
    moves = [Move(what, person, number % 2, 0) for number, person in enumerate(PERSONS)]
    race.everybody_at_once(approvals=[], others=moves)
    race.teardown()


def _raced(arena: Arena, *, examples: int) -> None:
    """Run the machine on `arena`: what is asked can be repeated, who wins is up to the machine."""
    with asyncio.Runner() as runner:

        class Here(Race):
            pass

        Here.arena, Here.runner = arena, runner
        for two_person, what in ((False, "approve"), (True, "approve"), (False, "reject")):
            _won(Here(), what, two_person=two_person)
        run_state_machine_as_test(
            Here,
            settings=settings(
                max_examples=examples,
                stateful_step_count=6,
                database=None,
                phases=(Phase.generate,),  # a race cannot be made smaller: who wins is not ours to repeat
                suppress_health_check=list(HealthCheck),
            ),
        )
        runner.run(arena.close())
    verbs = {link.verb for links in arena.actors.values() for link in links}
    assert verbs >= _DECISIONS, "races of one kind of move had no winner"
    assert arena.mailbox.sent


@pytest.fixture
def arena(database: Database) -> Iterator[Arena]:
    """Two clients' doors: of one orchestrator on SQLite, of two orchestrators on PostgreSQL."""
    clock, mailbox = ManualClock(), Mailbox()
    with contextlib.ExitStack() as stack:

        def opened() -> Door:
            return stack.enter_context(door(database, clock=clock, policy=_POLICY, mailbox=mailbox))

        first = opened()
        yield Arena((first, opened() if database.shared else first), clock, mailbox)


@pytest.mark.timeout(120)
def test_every_race_has_one_winner_and_one_story(arena: Arena) -> None:
    """However decisions, clearings, changes and deadlines meet: one decision, a whole log, told once."""
    _raced(arena, examples=int(os.environ.get("NANOBOT_EXAMPLES") or 15))
