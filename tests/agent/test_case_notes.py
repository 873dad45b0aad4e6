"""The note of an open case survives a crash whatever its evidence is."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings, strategies as st

from agent.case_notes import CaseNote, decode, encode
from escalation.model import CaseId, CaseReport, Severity
from escalation.wire.strategies import values


@given(report=values(CaseReport), moment=st.integers(0, 2**62))
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_every_kind_of_evidence_comes_back_equal(report: CaseReport, moment: int) -> None:
    """JSON cannot tell dataclasses apart; the note can."""
    note = CaseNote(
        case_id=CaseId("case-1"),
        fault_class=report.fault_class,
        subject=report.subject,
        severity=Severity.HIGH,
        incarnation=report.incarnation,
        lifebound=False,
        kernel_boot_id="kernel-1",
        first_seen_ns=moment,
        last_seen_ns=moment,
        last_boot_ns=moment,
        count=1,
        reported_boot_ns=moment,
        reported_count=1,
        reasons=report.reasons,
        evidence=report.evidence,
        target=report.target,
    )
    assert decode(encode(note)) == note
