"""What was changed on a host lately: from what it is known, how long it is kept, what of it is near."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings, strategies as st

from escalation.model import (
    AgentId,
    CasePhase,
    Change as Setting,
    DriftEvidence,
    FaultClass,
    HostChange,
    HostChangeKind,
    LossKind,
    ServerKind,
    Subject,
    SubjectKind,
)
from escalation.server.incident import host_history
from escalation.server.incident.host_history import CHANGE, Change, ChangeKind
from escalation.server.incident.incident_desk import StoredIncidents
from escalation.server.storage import rows
from escalation.server.testing import START_NS, FakeDesk, MemoryLedger, case_report, heartbeat
from escalation.wording.history import history_words
from tests.escalation.server.databases import Database

K = ChangeKind
SPARK = AgentId("spark-1")
VLLM = Subject(SubjectKind.UNIT, "vllm.service")
WHOLE = Subject(SubjectKind.HOST, "spark-1")
MINUTE_NS = 60 * 10**9


def _kept(desk: FakeDesk) -> list[Change]:
    return list(desk.store.ledger.records.of(CHANGE, owner=SPARK).values())


async def _near(desk: FakeDesk, incident_id: str) -> list[tuple[ChangeKind, float]]:
    account = await StoredIncidents(store=desk.store, clock=desk.clock).account(incident_id)
    return [(each.change.kind, each.after_s) for each in account.changes]


async def test_what_an_agent_tells_is_near_the_incident_that_follows() -> None:
    """A reload a minute before a GPU is taken away stands on the incident; one of yesterday does not."""
    desk = FakeDesk()
    reload = HostChange(HostChangeKind.MANAGER_RELOADED, WHOLE, START_NS)
    await desk.report(replace(reload, at_ns=START_NS - 86_400 * 10**9))
    await desk.report(reload)
    await desk.report(HostChange(HostChangeKind.STARTED, VLLM, START_NS - 20 * MINUTE_NS, 3))
    entry = await desk.opened(seen_ns=START_NS + MINUTE_NS)
    assert await _near(desk, entry.incident.id) == [(K.MANAGER_RELOADED, -60.0), (K.STARTED, -1260.0)]


async def test_a_change_after_the_first_sight_is_near_too() -> None:
    """What was done half an hour later is shown, what was done after that is not."""
    desk = FakeDesk()
    entry = await desk.opened()
    desk.clock.advance(3600)
    for minutes in (29, 31):
        at_ns = START_NS + minutes * MINUTE_NS
        await desk.report(HostChange(HostChangeKind.ENDED, VLLM, at_ns))
    assert await _near(desk, entry.incident.id) == [(K.ENDED, 1740.0)]


async def test_heartbeats_tell_of_boots_restarts_and_upgrades_of_the_agent() -> None:
    """The first heartbeat is no change; then each difference is one, at the agent's start."""
    desk = FakeDesk()
    await desk.report(heartbeat())
    await desk.report(heartbeat())
    assert _kept(desk) == []
    desk.clock.advance(3600)
    await desk.report(heartbeat(started_ns=START_NS + 1))
    await desk.report(heartbeat(started_ns=START_NS + 2, agent_version="0.2.0"))
    await desk.report(heartbeat(started_ns=START_NS + 3, agent_version="0.2.0", kernel_boot_id="kernel-2"))
    assert [(each.kind, each.at_ns - START_NS) for each in _kept(desk)] == [
        (K.AGENT_STARTED, 1),
        (K.AGENT_STARTED, 2),
        (K.AGENT_UPGRADED, 2),
        (K.BOOTED, 3),
    ]
    assert history_words(_kept(desk)[2]) == "the agent is another version (0.1.0 to 0.2.0)"


async def test_a_server_that_came_back_otherwise_is_a_change() -> None:
    """The case of it says when and what; a drill of it is none."""
    drift = DriftEvidence(
        server=ServerKind.VLLM,
        changes=(Setting.IMAGE, Setting.CONTEXT),
        print_before="aa",
        print_now="bb",
        context_before=None,
        context_now=None,
        ran_s=900.0,
    )
    fields = {"fault_class": FaultClass.SERVICE_CONFIG_DRIFT, "subject": VLLM, "evidence": (drift,)}
    desk = FakeDesk()
    await desk.opened(drill=True, case_id="drill", **fields)
    assert _kept(desk) == []
    await desk.opened(**fields)
    (change,) = _kept(desk)
    assert (change.kind, change.subject, change.at_ns) == (K.CONFIG_CHANGED, VLLM, START_NS)
    words = history_words(change)
    assert words.startswith("unit vllm.service runs with other settings (")
    assert "image" in words
    assert "context" in words


async def test_a_change_on_the_host_of_the_cause_is_near_its_consequence() -> None:
    """A router's incident shows what was done on the engine's host that explains it."""
    desk = FakeDesk()
    await desk.report(HostChange(HostChangeKind.MANAGER_RELOADED, WHOLE, START_NS))
    cause = await desk.opened()
    fallback = case_report(CasePhase.OPENED, case_id="slow", fault_class=FaultClass.GPU_CPU_FALLBACK)
    await desk.report(fallback)
    (consequence,) = [each for each in await desk.incidents() if each.explained_by is not None]
    assert consequence.explained_by == cause.incident.id
    assert await _near(desk, consequence.id) == [(K.MANAGER_RELOADED, 0.0)]


async def test_a_host_that_floods_is_held_to_a_number_and_the_rest_is_counted() -> None:
    """Of one host the newest are kept; a delivery with more than an honest agent sends is a loss."""
    ledger = MemoryLedger()
    changes = [Change(START_NS + number, K.STARTED, VLLM) for number in range(host_history.KEPT + 50)]
    host_history.note(ledger, SPARK, changes, now_ns=START_NS + 10**9)
    kept = list(ledger.records.of(CHANGE, owner=SPARK).values())
    assert kept == changes[50:]
    host_history.note(ledger, SPARK, (), now_ns=START_NS)
    later_ns = START_NS + int(host_history.KEPT_S * 1e9) + host_history.KEPT + 60
    host_history.note(ledger, SPARK, [Change(later_ns, K.BOOTED, WHOLE)], now_ns=later_ns)
    assert [each.kind for each in ledger.records.of(CHANGE, owner=SPARK).values()] == [K.BOOTED]


async def test_more_changes_in_one_delivery_than_are_noted_are_a_loss() -> None:
    """Nothing that is refused is silent."""
    desk = FakeDesk()
    told = [
        HostChange(HostChangeKind.STARTED, VLLM, START_NS - number)
        for number in range(host_history.IN_ONE_DELIVERY + 6)
    ]
    await desk.reports(told)
    assert len(_kept(desk)) == host_history.IN_ONE_DELIVERY
    (host,) = await desk.hosts()
    assert [(each.kind, each.count) for each in host.losses] == [(LossKind.REPORT_REFUSED, 6)]


def test_the_same_change_told_twice_is_one() -> None:
    """Redelivery changes nothing."""
    ledger = MemoryLedger()
    for _ in range(2):
        host_history.note(ledger, SPARK, [Change(START_NS, K.STARTED, VLLM)], now_ns=START_NS)
    assert len(ledger.records.of(CHANGE, owner=SPARK)) == 1


def test_a_change_of_a_newer_version_is_read() -> None:
    """A kind that this version does not know reads as other."""
    text = rows.dump(Change(1, K.STARTED, VLLM)).replace('"started"', '"teleported"')
    assert rows.load_record(text, CHANGE) == Change(1, K.OTHER, VLLM)


@settings(max_examples=50)
@given(
    st.lists(
        st.builds(
            HostChange,
            st.sampled_from(HostChangeKind),
            st.builds(Subject, st.sampled_from(SubjectKind), st.text(max_size=20)),
            st.integers(0, 2**63 - 1),
            st.integers(0, 2**63 - 1),
        ),
        max_size=20,
    )
)
def test_whatever_an_agent_tells_is_kept_in_bounds_and_worded_inert(changes: list[HostChange]) -> None:
    """No time lies ahead, no count is zero, and no name can act where it is shown."""
    ledger = MemoryLedger()
    host_history.note(ledger, SPARK, map(host_history.told, changes), now_ns=START_NS)
    for each in host_history.near(ledger, [SPARK], seen_ns=START_NS):
        assert 0 <= each.change.at_ns <= START_NS
        assert each.change.count >= 1
        assert history_words(each.change).isprintable()


async def test_changes_are_kept_by_every_database(database: Database) -> None:
    """What one transaction noted another reads in order of time."""
    store = database.open()
    changes = [Change(START_NS + number, K.STARTED, VLLM, detail="x") for number in (3, 1, 2)]
    try:
        await store.write(lambda ledger: host_history.note(ledger, SPARK, changes, now_ns=START_NS + 9))
        near = await store.read(lambda ledger: host_history.near(ledger, [SPARK], seen_ns=START_NS))
        assert [each.change for each in near] == sorted(changes, key=lambda each: each.at_ns)
    finally:
        await store.close()
