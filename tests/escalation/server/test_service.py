"""What becomes of a recommendation and of a host as reports come, people decide and time passes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from escalation.cli.text import entry_text
from escalation.model import (
    ActionKind,
    BlindReason,
    CasePhase,
    FaultClass,
    Incarnation,
    Incident,
    IncidentId,
    Loss,
    LossKind,
    SensorCoverage,
    State,
    SubjectKind,
    Tally,
)
from escalation.server import audit, triage
from escalation.server.decision.approvals import Policy
from escalation.server.desk import Entry, Expired, FellBehind, Refused, Superseded, Unavailable
from escalation.server.incident.incident_desk import account
from escalation.server.testing import CONTAINER, FakeDesk, MemoryLedger, case_report, heartbeat
from escalation.view.entry import entry_view
from tests.escalation.server.crowd import crowd


async def _approve(desk: FakeDesk, entry: Entry, person: str = "ada") -> Entry:
    recommendation = entry.recommendation
    return await desk.approve(recommendation.id, person=person, reason="why", digest=recommendation.digest)


async def _live(desk: FakeDesk, seconds: float, *, host: str = "spark-1") -> None:
    """Let time pass on a host that sends its heartbeats."""
    for _ in range(int(seconds // 10)):
        await desk.report(heartbeat(), host=host)
        await desk.advance(10)


async def _take_all(changes: AsyncIterator[Entry]) -> None:
    async for _ in changes:
        pass


def _states(desk: FakeDesk) -> list[State]:
    """Return the states of what was recommended for the container, oldest first."""
    ledger = desk.store.ledger
    states = []
    for recommendation in ledger.in_states(frozenset(State), limit=None):
        incident = ledger.incident(recommendation.incident_id)
        if incident is not None and incident.fault_class is FaultClass.GPU_ACCESS_REVOKED:
            states.append(recommendation.state)
    return states


async def test_a_clear_withdraws_what_nobody_decided() -> None:
    """The fault is gone, and so is the proposal; its answer is 'superseded'."""
    desk = FakeDesk()
    entry = await desk.opened()
    await desk.cleared()
    assert _states(desk) == [State.WITHDRAWN]
    with pytest.raises(Superseded):
        await _approve(desk, entry)


async def test_a_clear_after_an_approval_counts_as_done_and_is_verified() -> None:
    """Nobody marked it done: the case cleared, and stayed so while the host was heard."""
    desk = FakeDesk()
    await desk.report(heartbeat())
    entry = await desk.opened()
    await _approve(desk, entry)
    await desk.cleared()
    assert _states(desk) == [State.DONE]
    await _live(desk, 620)
    finished = await desk.entry(entry.recommendation.id)
    assert finished.recommendation.state is State.VERIFIED
    assert finished.recommendation.done_by is None


async def test_who_carried_it_out_may_say_so_after_it_has_cleared() -> None:
    """The case is often over before anybody types: the name is added, once, and stands in the chain."""
    desk = FakeDesk()
    await desk.report(heartbeat())
    entry = await desk.opened()
    await _approve(desk, entry)
    await desk.cleared()
    assert "nobody said that it was carried out" in entry_text(
        entry_view(await desk.entry(entry.incident.id))
    )
    marked = (await desk.done(entry.recommendation.id, person="ada")).recommendation
    assert (marked.state, marked.done_by) == (State.DONE, "ada")
    with pytest.raises(Refused):
        await desk.done(entry.recommendation.id, person="grace")
    await _live(desk, 620)
    finished = await desk.entry(entry.recommendation.id)
    assert (finished.recommendation.state, finished.recommendation.done_by) == (State.VERIFIED, "ada")
    chain = await desk.audit(after=0, limit=100)
    assert [each.actor for each in chain if each.verb == "recommendation.marked_done"] == ["ada"]
    assert audit.verify(chain) is None


async def test_a_fault_that_comes_and_goes_is_never_counted_as_a_try() -> None:
    """Proposals that were withdrawn say nothing of the remedy, however many; the newest hundred are shown."""
    desk = FakeDesk()
    for _ in range(110):
        entry = await desk.opened()
        await desk.cleared()
    finished = await desk.entry(entry.incident.id)
    assert (finished.cured, finished.tried) == (0, 0)
    assert finished.history is not None
    assert (finished.history.here, finished.history.fleet) == (Tally(0, 0), Tally(0, 0))
    told = account(desk.store.ledger, entry.incident.id, now_ns=desk.clock.wall_ns())
    assert len(told.entries) == 100
    assert told.entries[-1].recommendation.id == finished.recommendation.id


async def test_a_fault_that_comes_back_in_quiet_time_was_not_cured() -> None:
    """The old entry says not cured, and a new one is proposed for the new incident."""
    desk = FakeDesk()
    entry = await desk.opened()
    await _approve(desk, entry)
    await desk.done(entry.recommendation.id, person="ada")
    await desk.cleared()
    await desk.advance(5)
    again = await desk.opened(case_id="case-2")
    assert _states(desk) == [State.NOT_CURED, State.PROPOSED]
    assert (again.cured, again.tried) == (0, 1)


async def test_silence_while_waiting_for_proof_proves_nothing() -> None:
    """The quiet time ends while the host is silent: verified only once it is heard again."""
    desk = FakeDesk()
    await desk.report(heartbeat())
    entry = await desk.opened()
    await _approve(desk, entry)
    await desk.cleared()
    for _ in range(100):
        await desk.advance(10)
    assert (await desk.entry(entry.recommendation.id)).recommendation.state is State.DONE
    await desk.report(heartbeat())
    await desk.advance(1)
    assert (await desk.entry(entry.recommendation.id)).recommendation.state is State.VERIFIED


@pytest.mark.parametrize(("blind", "state"), [(BlindReason.READ_FAILED, State.DONE), (None, State.VERIFIED)])
async def test_a_blind_sensor_proves_nothing(blind: BlindReason | None, state: State) -> None:
    """Quiet counts only while the sensor that would see the fault again says that it sees."""
    desk = FakeDesk()
    entry = await desk.opened()
    await _approve(desk, entry)
    await desk.cleared()
    coverage = (SensorCoverage("kernel.device_open", blind), SensorCoverage("kernel.oom_kill", None))
    for _ in range(62):
        await desk.report(heartbeat(coverage=coverage))
        await desk.advance(10)
    assert (await desk.entry(entry.recommendation.id)).recommendation.state is state


async def test_an_open_fault_is_proposed_again_when_its_proposal_expires() -> None:
    """Nothing open drops out of the queue because nobody looked in time; the old approval cannot be given."""
    desk = FakeDesk()
    entry = await desk.opened()
    await desk.advance(4 * 3600 + 1)
    assert _states(desk) == [State.EXPIRED, State.PROPOSED]
    with pytest.raises(Expired):
        await _approve(desk, entry)


async def test_a_rejected_advice_comes_back_only_when_it_is_another_one() -> None:
    """A person said no to exactly this; the same fault seen again is no reason to ask again."""
    desk = FakeDesk()
    entry = await desk.opened()
    await desk.reject(entry.recommendation.id, person="ada", reason="maintenance")
    await desk.report(case_report(CasePhase.UPDATED, count=9))
    await desk.advance(5 * 3600)
    assert _states(desk) == [State.REJECTED]
    moved = Incarnation(kernel_boot_id="kernel-2", container_id=CONTAINER)
    await desk.report(case_report(CasePhase.UPDATED, count=10, incarnation=moved))
    assert _states(desk) == [State.REJECTED, State.PROPOSED]


async def test_an_approval_is_void_when_the_target_lives_another_life() -> None:
    """The host rebooted before it was carried out: lapsed, and proposed anew for what stands there now."""
    desk = FakeDesk()
    entry = await desk.opened()
    await _approve(desk, entry)
    moved = Incarnation(kernel_boot_id="kernel-2", container_id=CONTAINER)
    await desk.report(case_report(CasePhase.UPDATED, count=2, incarnation=moved))
    assert _states(desk) == [State.LAPSED, State.PROPOSED]
    with pytest.raises(Expired):
        await desk.done(entry.recommendation.id, person="ada")


async def test_an_approval_that_nobody_carries_out_lapses_and_is_proposed_anew() -> None:
    """One hour, by the clock that the approval started."""
    desk = FakeDesk()
    await _approve(desk, await desk.opened())
    await desk.advance(3601)
    assert _states(desk) == [State.LAPSED, State.PROPOSED]


@pytest.mark.parametrize("jump_s", [86_400.0, -86_400.0])
async def test_no_jump_of_the_clock_revives_or_proves_anything(jump_s: float) -> None:
    """A day forward may expire too early; a day back keeps the deadline where it was; neither verifies."""
    desk = FakeDesk()
    await desk.report(heartbeat())
    first = await desk.opened()
    await _approve(desk, first)
    await desk.cleared()
    second = await desk.opened(case_id="case-2", subject=replace(case_report().subject, name="5a" * 32))
    desk.clock.jump(jump_s)
    await desk.advance(1)
    assert (await desk.entry(first.recommendation.id)).recommendation.state is State.DONE
    await _live(desk, 5 * 3600)
    with pytest.raises(Expired):
        await _approve(desk, second)


async def test_an_unmoved_person_cannot_approve_what_needs_two() -> None:
    """The first approval is on record and the entry stays proposed until a second person agrees."""
    desk = FakeDesk(policy=Policy(two_person=frozenset({ActionKind.RESTART_CONTAINER})))
    entry = await desk.opened()
    half = await _approve(desk, entry)
    assert half.recommendation.state is State.PROPOSED
    with pytest.raises(Refused):
        await _approve(desk, half)
    whole = await _approve(desk, half, person="grace")
    assert whole.recommendation.state is State.APPROVED


async def test_a_host_that_falls_silent_becomes_a_case_and_is_cleared_when_heard() -> None:
    """Three of its own intervals without a word; the queue says so, and what it said last stands."""
    desk = FakeDesk()
    await desk.report(heartbeat(interval_s=10))
    await desk.advance(30)
    assert await desk.queue(None) == []
    await desk.advance(1)
    (entry,) = await desk.queue(None)
    assert entry.incident.fault_class is FaultClass.MONITOR_BLIND
    assert entry.incident.subject.kind is SubjectKind.HOST
    assert [host.silent for host in await desk.hosts()] == [True]
    await desk.advance(500)
    assert len(await desk.queue(None)) == 1

    await desk.report(heartbeat())
    assert [host.silent for host in await desk.hosts()] == [False]
    assert [incident.open for incident in await desk.incidents()] == [False]
    await desk.advance(31)
    returned = [(incident.open, incident.returns) for incident in await desk.incidents()]
    assert returned == [(True, 1)], "silent again so soon is the same silence"


async def test_silence_clears_no_case() -> None:
    """A host that is not heard keeps its faults open."""
    desk = FakeDesk()
    await desk.report(heartbeat())
    await desk.opened()
    await desk.advance(3600)
    open_classes = {each.fault_class for each in await desk.incidents() if each.open}
    assert open_classes == {FaultClass.GPU_ACCESS_REVOKED, FaultClass.MONITOR_BLIND}


async def test_a_restart_gives_known_hosts_time_to_come_back() -> None:
    """The grace, then the host's own intervals; a host that was silent before stays so."""
    desk = FakeDesk()
    await desk.report(heartbeat(interval_s=10))
    desk.clock.advance(3600)
    await desk.service.prepare()
    await desk.advance(80)
    assert [host.silent for host in await desk.hosts()] == [False]
    await desk.advance(20)
    assert [host.silent for host in await desk.hosts()] == [True]


async def test_losses_add_up_per_kind_and_sensor() -> None:
    """A sum is exact only while every part of it was."""
    desk = FakeDesk()
    for count, exact in ((3, True), (4, True), (5, False)):
        await desk.report(Loss(LossKind.RING_FULL, "kernel.device_open", count, exact=exact))
    (host,) = await desk.hosts()
    assert host.losses == (Loss(LossKind.RING_FULL, "kernel.device_open", 12, exact=False),)


async def test_a_host_cannot_fill_the_ledger_with_loss_accounts() -> None:
    """Beyond the limit losses are still counted, without their sensor's name."""
    desk = FakeDesk()
    for number in range(100):
        await desk.report(Loss(LossKind.RING_FULL, f"sensor-{number}", 1, exact=True))
    (host,) = await desk.hosts()
    assert len(host.losses) <= 65
    assert sum(loss.count for loss in host.losses) == 100


async def test_every_change_of_state_is_in_the_audit_chain() -> None:
    """With who brought it about, in order, unbroken."""
    desk = FakeDesk()
    entry = await desk.opened()
    await _approve(desk, entry)
    await desk.done(entry.recommendation.id, person="grace")
    await desk.cleared()
    await _live(desk, 620)
    entries = await desk.audit(after=0, limit=1000)
    assert audit.verify(entries) is None
    assert [(each.actor, each.verb) for each in entries] == [
        ("agent:spark-1", "host.first_heard"),
        ("agent:spark-1", "incident.opened"),
        ("agent:spark-1", "recommendation.proposed"),
        ("ada", "recommendation.approved"),
        ("grace", "recommendation.done"),
        ("agent:spark-1", "incident.cleared"),
        ("orchestrator", "recommendation.verified"),
    ]
    assert entry.recommendation.digest in entries[3].detail
    assert await desk.audit(after=5, limit=1) == entries[5:6]


async def test_what_cannot_be_kept_is_not_decided() -> None:
    """A full disk: the decision is refused, and the entry stands as it was."""
    desk = FakeDesk()
    entry = await desk.opened()
    desk.store.writable = False
    with pytest.raises(Unavailable):
        await _approve(desk, entry)
    assert not desk.service.ready()
    desk.store.writable = True
    assert _states(desk) == [State.PROPOSED]


async def test_a_watcher_who_does_not_keep_up_is_told_and_dropped() -> None:
    """It gets what it can, then the error; others go on."""
    desk = FakeDesk()
    slow, quick = desk.changes(), desk.changes()
    entry = await desk.opened()
    await anext(quick)
    for number in range(300):
        await desk.report(case_report(CasePhase.UPDATED, count=number + 2))
        await anext(quick)
    with pytest.raises(FellBehind):
        await _take_all(slow)
    assert entry.incident.count == 1


async def test_what_is_not_due_is_not_looked_into() -> None:
    """Time passes each second: what waits for its deadline costs no look at its incident."""

    class Counting(MemoryLedger):
        looked = 0

        def incident(self, incident_id: IncidentId) -> Incident | None:
            self.looked += 1
            return super().incident(incident_id)

    desk = FakeDesk()
    entry = await desk.opened()
    ledger = Counting()
    ledger.put_incident(entry.incident)
    ledger.put_recommendation(entry.recommendation, entry.incident)
    crowd(ledger, entry, count=30)
    due_ns = entry.recommendation.approve_by_ns

    def pass_time(now_ns: int) -> int:
        changed = triage.pass_time(
            ledger, overdue=frozenset(), policy=Policy(), now_ns=now_ns, trusted_ns=now_ns
        )
        return len(changed)

    assert (pass_time(due_ns - 1), ledger.looked) == (0, 0)
    assert pass_time(due_ns) == 2 * 31
    assert ledger.oldest(State.PROPOSED) == due_ns


async def test_the_worst_comes_first_and_then_the_oldest() -> None:
    """The order of the queue is the order in which to look."""
    desk = FakeDesk()
    await desk.opened(case_id="a", severity="note", subject=replace(case_report().subject, name="11" * 32))
    desk.clock.advance(1)
    await desk.opened(
        case_id="b", severity="critical", subject=replace(case_report().subject, name="22" * 32)
    )
    desk.clock.advance(1)
    await desk.opened(
        case_id="c", severity="critical", subject=replace(case_report().subject, name="33" * 32)
    )
    assert [entry.incident.case_id for entry in await desk.queue(None)] == ["b", "c", "a"]
