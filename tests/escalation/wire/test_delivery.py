"""What is decoded of a batch says all that the whole batch says."""

from __future__ import annotations

from hypothesis import example, given, strategies as st

from escalation.model import AgentId, BootId, CasePhase, CaseReport, Heartbeat, Loss, LossKind, Report
from escalation.server import triage
from escalation.server.decision.approvals import Policy
from escalation.server.storage.store import Delivery
from escalation.server.testing import START_NS, MemoryLedger, case_report, heartbeat
from escalation.wire import codec
from escalation.wire.delivery import read_batch

_HOST = AgentId("spark-1")
_BOOT = BootId("00000000-0000-4000-8000-000000000001")

_BODIES = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from([CasePhase.OPENED, CasePhase.UPDATED, CasePhase.UPDATED, CasePhase.CLEARED]),
            st.integers(1, 3),
        ),
        st.just("heartbeat"),
        st.just("loss"),
    ),
    min_size=1,
    max_size=30,
)


def _bodies(drawn: list[tuple[CasePhase, int] | str]) -> list[CaseReport | Heartbeat | Loss]:
    bodies: list[CaseReport | Heartbeat | Loss] = []
    for number, each in enumerate(drawn, start=1):
        if each == "heartbeat":
            bodies.append(heartbeat(open_cases=number))
        elif each == "loss":
            bodies.append(Loss(LossKind.RING_FULL, "kernel.device_open", number, exact=True))
        else:
            assert isinstance(each, tuple)
            phase, case = each
            subject = case_report().subject
            bodies.append(
                case_report(
                    phase, case_id=f"case-{case}", seen_ns=START_NS + number, count=number, subject=subject
                )
            )
    return bodies


def _state(ledger: MemoryLedger) -> object:
    found = ledger.incidents(limit=100)
    recommended = {each.id: [r.state for r in ledger.recommendations(each.id)] for each in found}
    open_ones = [(each.case_id, each.count, each.last_seen_ns, each.evidence) for each in found if each.open]
    host = ledger.host(_HOST)
    assert host is not None
    return open_ones, len(found), sorted(map(str, recommended.values())), host.losses, host.open_cases


@given(_BODIES)
@example(
    [
        (CasePhase.OPENED, 1),
        (CasePhase.OPENED, 3),
        (CasePhase.CLEARED, 3),
        (CasePhase.UPDATED, 2),
        (CasePhase.UPDATED, 1),
        (CasePhase.UPDATED, 2),
    ]
)
def test_superseded_reports_change_nothing(drawn: list[tuple[CasePhase, int] | str]) -> None:
    """Folding what is decoded leaves the same incidents, losses and host as folding everything."""
    reports = [
        Report(agent_id=_HOST, boot_id=_BOOT, sequence=number, created_ns=START_NS + number, body=body)
        for number, body in enumerate(_bodies(drawn), start=1)
    ]
    batch = read_batch(codec.join(codec.encode(report) for report in reports), sender=_HOST)
    assert [row[0] for row in batch.rows] == [report.sequence for report in reports]
    ledgers = []
    for notable in (batch.notable, tuple(reports)):
        ledger = MemoryLedger()
        delivery = Delivery(_HOST, _BOOT, batch.rows, notable)
        triage.receive(ledger, delivery, policy=Policy(), now_ns=START_NS)
        ledgers.append(ledger)
    assert _state(ledgers[0]) == _state(ledgers[1])


def test_of_a_thousand_updates_one_is_decoded() -> None:
    """And all thousand are kept, byte for byte."""
    payloads = [
        codec.encode(
            Report(
                agent_id=_HOST, boot_id=_BOOT, sequence=number, created_ns=number,
                body=case_report(CasePhase.UPDATED, count=number),
            )
        )
        for number in range(1, 1001)
    ]  # fmt: skip
    batch = read_batch(codec.join(payloads), sender=_HOST)
    assert [report.sequence for report in batch.notable] == [1000]
    assert [payload for _, _, payload in batch.rows] == payloads
