"""What an agent delivers, as the orchestrator's own process sees it: one report and its bytes."""

from __future__ import annotations

from escalation.model import AgentId, Body, BootId, Report
from escalation.server.storage.store import Delivery
from escalation.server.testing import START_NS, case_report


def delivery_of(
    sequence: int,
    body: Body | None = None,
    *,
    host: str = "spark-1",
    boot: str = "boot-1",
    at_ns: int = START_NS,
) -> Delivery:
    """Return the delivery of the report that `host` numbered so; without `body` it opens a case."""
    report = Report(
        agent_id=AgentId(host),
        boot_id=BootId(boot),
        sequence=sequence,
        created_ns=at_ns,
        body=case_report() if body is None else body,
    )
    return Delivery(report.agent_id, report.boot_id, ((sequence, at_ns, b"x"),), (report,))
