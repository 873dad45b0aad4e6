"""What an agent delivers, as the orchestrator's own process sees it: one report and its bytes.

And hosts that deliver to a ledger.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from escalation.model import AgentId, Body, BootId, CaseReport, Report
from escalation.server import triage
from escalation.server.decision.approvals import Policy
from escalation.server.storage.store import Delivery, Ledger
from escalation.server.testing import START_NS, MemoryLedger, case_report


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


@dataclass
class Hosts:
    """A ledger and hosts that report to it; time is what the test says."""

    ledger: Ledger = field(default_factory=MemoryLedger)
    now_ns: int = START_NS
    _sequence: int = 0

    def report_body(self, host: str, body: CaseReport) -> None:
        """Let `host` report `body`."""
        self._sequence += 1
        delivery = delivery_of(self._sequence, body, host=host, boot=f"boot-{host}", at_ns=self.now_ns)
        triage.receive(self.ledger, delivery, policy=Policy(), now_ns=self.now_ns)
