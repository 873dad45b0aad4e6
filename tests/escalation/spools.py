"""Spools of one agent, opened, filled, killed and drained."""

from __future__ import annotations

import shutil
from pathlib import Path

from escalation.model import (
    AgentId,
    CaseId,
    CasePhase,
    CaseReport,
    FaultClass,
    Heartbeat,
    Incarnation,
    Loss,
    Report,
    Severity,
    Subject,
    SubjectKind,
)
from escalation.outbox import Outbox, Stored
from escalation.wire.codec import decode

AGENT = AgentId("spark-a")
BOOT_A = "8d2f7c1e-0000-4000-8000-00000000000a"
BOOT_B = "8d2f7c1e-0000-4000-8000-00000000000b"
BEAT = Heartbeat(
    kernel_boot_id=BOOT_A,
    agent_version="1",
    started_ns=0,
    coverage=(),
    open_cases=0,
    spool_reports=0,
    spool_bytes=0,
    interval_s=15.0,
)


def case(name: str, phase: CasePhase = CasePhase.OPENED, count: int = 1) -> CaseReport:
    return CaseReport(
        phase=phase,
        case_id=CaseId(name),
        fault_class=FaultClass.GPU_ACCESS_REVOKED,
        severity=Severity.HIGH,
        subject=Subject(SubjectKind.UNIT, "vllm.service"),
        incarnation=Incarnation(BOOT_A),
        first_seen_ns=1,
        last_seen_ns=2,
        count=count,
    )


def opened(path: Path, *, boot: str = BOOT_A, max_bytes: int = 1 << 20, now_ns: int = 5) -> Outbox:
    return Outbox.open(path, agent_id=AGENT, kernel_boot_id=boot, max_bytes=max_bytes, now_ns=now_ns)


def killed(outbox: Outbox, path: Path, to: Path) -> None:
    """Leave at `to` what a process killed now would leave at `path`."""
    for suffix in ("", "-wal", ".mark"):
        source = path.with_name(path.name + suffix)
        if source.exists():
            shutil.copyfile(source, to.with_name(to.name + suffix))
    outbox.close()


def drained(outbox: Outbox, limit: int = 1000) -> list[Report]:
    """Return everything that waits, in order, without acknowledging it."""
    found: list[Stored] = []
    while more := outbox.pending(after_row=found[-1].row if found else 0, limit=limit, max_bytes=1 << 20):
        found += more
    for stored in found:
        report = decode(stored.payload)
        assert (report.boot_id, report.sequence) == (stored.boot_id, stored.sequence)
    return [decode(stored.payload) for stored in found]


def losses(outbox: Outbox) -> list[Loss]:
    return [report.body for report in drained(outbox) if isinstance(report.body, Loss)]
