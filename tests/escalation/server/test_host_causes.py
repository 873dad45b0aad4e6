"""Incidents of one host with one cause: from a GPU out of reach to a slow route, one row is to be decided."""

from __future__ import annotations

import pytest

from escalation.model import (
    ActionKind,
    CasePhase,
    Evidence,
    FaultClass,
    Incident,
    Reason,
    ReasonCode,
    Recommendation,
    RouteEvidence,
    RouteId,
    RouteKind,
    ServerKind,
    Severity,
    State,
    Subject,
    SubjectKind,
)
from escalation.server import queue_rows, triage
from escalation.server.decision.approvals import Policy
from escalation.server.testing import CONTAINER, case_report
from tests.escalation.server.deliveries import Hosts

REVOKED = FaultClass.GPU_ACCESS_REVOKED
FALLBACK = FaultClass.GPU_CPU_FALLBACK
SLOW = FaultClass.ROUTE_LATENCY_RISING
LOST = FaultClass.GPU_DEVICE_FAULT
MINUTE_NS = 60 * 10**9
BOX = Subject(SubjectKind.CONTAINER, CONTAINER)
OTHER = Subject(SubjectKind.CONTAINER, "d" * 64)
HOST = Subject(SubjectKind.HOST, "spark-a")
GPU = Subject(SubjectKind.GPU, "000f:01:00.0")
ROUTE = Subject(SubjectKind.ROUTE, "8000/chat_completions qwen3-32b")
SLOWNESS = RouteEvidence(
    id=RouteId(8000, RouteKind.CHAT_COMPLETIONS, "qwen3-32b", ServerKind.VLLM),
    window_s=600.0,
    exchanges=20,
    affected=9,
    affected_streamed=4,
    unobserved=0,
)


class Site(Hosts):
    """Hosts whose GPUs and servers fail, and what a person then has before them."""

    def report(
        self,
        fault: FaultClass,
        subject: Subject,
        *,
        target: Subject | None = None,
        evidence: tuple[Evidence, ...] = (),
        clears: bool = False,
        severity: Severity = Severity.HIGH,
        host: str = "spark-a",
    ) -> None:
        """Let a host say that it sees a fault, or that it is over."""
        body = case_report(
            CasePhase.CLEARED if clears else CasePhase.OPENED,
            case_id=f"{host} {fault} {subject.name}",
            seen_ns=self.now_ns,
            fault_class=fault,
            severity=severity,
            subject=subject,
            target=target,
            reasons=(Reason(ReasonCode.OPEN_REFUSED_AFTER_SUCCESS),),
            evidence=evidence,
        )
        self.report_body(host, body)

    def slow(self, *, target: Subject = BOX, host: str = "spark-a") -> None:
        """Let a route of a server be slow."""
        self.report(SLOW, ROUTE, target=target, evidence=(SLOWNESS,), host=host)

    def open(self) -> dict[FaultClass, Incident]:
        """Return the open incidents by fault class."""
        return {each.fault_class: each for each in self.ledger.incidents(limit=1000) if each.open}

    def waiting(self) -> list[Recommendation]:
        """Return what waits for a decision."""
        return list(self.ledger.in_states(frozenset({State.PROPOSED}), limit=None))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_revoked_gpu_explains_the_fallback_and_the_slow_route(order: tuple[int, ...]) -> None:
    """Three incidents, one decision: the restart of that container, in whatever order they are told."""
    site = Site()
    tell = (
        lambda: site.report(REVOKED, BOX, severity=Severity.CRITICAL),
        lambda: site.report(FALLBACK, BOX),
        site.slow,
    )
    for number in order:
        tell[number]()
        site.now_ns += MINUTE_NS
    found = site.open()
    assert found[FALLBACK].explained_by == found[SLOW].explained_by == found[REVOKED].id
    (only,) = site.waiting()
    assert only.incident_id == found[REVOKED].id
    assert only.advice.action.command == ("docker", "restart", CONTAINER)
    entry = queue_rows.entry_of(site.ledger, only)
    assert {each.fault_class for each in entry.explains} == {FALLBACK, SLOW}


def test_what_is_left_is_decided_by_itself() -> None:
    """Access is back and the server still computes on the CPU: the fallback explains the slow route now."""
    site = Site()
    site.report(REVOKED, BOX)
    site.report(FALLBACK, BOX)
    site.slow()
    site.report(REVOKED, BOX, clears=True)
    found = site.open()
    assert found[FALLBACK].explained_by is None
    assert found[SLOW].explained_by == found[FALLBACK].id
    (only,) = site.waiting()
    assert (only.incident_id, only.advice.action.kind) == (found[FALLBACK].id, ActionKind.RESTART_CONTAINER)
    site.report(FALLBACK, BOX, clears=True)
    assert site.open()[SLOW].explained_by is None
    assert len(site.waiting()) == 1


def test_what_the_whole_host_suffers_from_explains_every_server() -> None:
    """A lost GPU goes before a revoked one, and speaks for servers that nothing else is known of."""
    site = Site()
    site.report(REVOKED, BOX)
    site.report(FALLBACK, BOX)
    site.slow(target=OTHER)
    site.report(LOST, GPU, severity=Severity.CRITICAL)
    found = site.open()
    assert found[FALLBACK].explained_by == found[SLOW].explained_by == found[LOST].id
    assert found[REVOKED].explained_by is None


@pytest.mark.parametrize("fault", [FaultClass.GPU_UVM_LOST, FaultClass.GPU_DRIVER_MISMATCH])
def test_a_driver_that_is_gone_explains_a_fallback(fault: FaultClass) -> None:
    """Its remedy is at the host; restarting the server would not help."""
    site = Site()
    site.report(fault, HOST)
    site.report(FALLBACK, BOX)
    assert site.open()[FALLBACK].explained_by == site.open()[fault].id


def test_another_server_or_host_or_a_later_fault_explains_nothing() -> None:
    """What is revoked elsewhere, or long after the route was slow, is not its cause."""
    for case in ("server", "host", "later"):
        site = Site()
        site.slow()
        site.now_ns += 11 * MINUTE_NS if case == "later" else 0
        site.report(
            REVOKED, OTHER if case == "server" else BOX, host="spark-b" if case == "host" else "spark-a"
        )
        assert site.open()[SLOW].explained_by is None, case
        assert len(site.waiting()) == 2, case


XID = FaultClass.GPU_APPLICATION_XID
DEATH = FaultClass.PROCESS_KILLED_BY_SIGNAL


@pytest.mark.parametrize("first", [LOST, DEATH])
def test_a_gpu_at_fault_explains_the_errors_and_the_deaths_around_it(first: FaultClass) -> None:
    """What a program met on that GPU, and a process that dies a minute before or after it was noticed."""
    site = Site()
    told = [(LOST, GPU), (DEATH, BOX)]
    for fault, subject in told if first is LOST else reversed(told):
        site.report(fault, subject)
        site.now_ns += MINUTE_NS
    site.report(XID, GPU, target=BOX)
    found = site.open()
    assert found[DEATH].explained_by == found[XID].explained_by == found[LOST].id
    (only,) = site.waiting()
    assert only.advice.action.kind is ActionKind.HUMAN


def test_a_death_long_after_the_fault_or_an_error_on_another_gpu_has_its_own_cause() -> None:
    """The GPU has been at fault for minutes, and the error is the other GPU's."""
    site = Site()
    site.report(LOST, GPU)
    site.now_ns += 3 * MINUTE_NS
    site.report(DEATH, BOX)
    site.report(XID, Subject(SubjectKind.GPU, "0000:01:00.0"))
    assert {each.explained_by for each in site.open().values()} == {None}


def test_an_error_of_a_program_explains_that_its_own_server_died() -> None:
    """And not that another did."""
    site = Site()
    site.report(XID, GPU, target=BOX)
    site.report(DEATH, BOX)
    site.report(DEATH, OTHER)
    deaths = {i.subject: i.explained_by for i in site.ledger.incidents(limit=9) if i.fault_class is DEATH}
    assert deaths == {BOX: site.open()[XID].id, OTHER: None}


def test_an_explanation_is_followed_to_its_root() -> None:
    """The error that explains the death is explained by the GPU: the death is the GPU's too, however late."""
    site = Site()
    site.report(LOST, GPU)
    site.now_ns += 3 * MINUTE_NS
    site.report(XID, GPU, target=BOX)
    site.report(DEATH, BOX)
    found = site.open()
    assert found[XID].explained_by == found[LOST].id
    assert found[DEATH].explained_by == found[LOST].id
    site.report(LOST, GPU, clears=True)
    assert site.open()[DEATH].explained_by == found[XID].id


def test_what_repeats_itself_keeps_its_explanation() -> None:
    """A consequence that is seen again is still one."""
    site = Site()
    site.report(LOST, GPU)
    site.report(FALLBACK, BOX)
    for _ in range(3):
        site.now_ns += MINUTE_NS
        site.report(FALLBACK, BOX)
        site.report(LOST, GPU)
    assert site.open()[FALLBACK].explained_by == site.open()[LOST].id
    assert len(site.waiting()) == 1


def test_a_note_explains_nothing() -> None:
    """One sign of a clock that is low does not take a slow route off the queue."""
    site = Site()
    site.slow()
    site.report(FaultClass.GPU_CLOCKS_CAPPED, GPU, severity=Severity.NOTE)
    assert site.open()[SLOW].explained_by is None
    other = Site()
    other.slow()
    other.report(FaultClass.GPU_CLOCKS_CAPPED, GPU)
    assert other.open()[SLOW].explained_by == other.open()[FaultClass.GPU_CLOCKS_CAPPED].id


def test_a_cause_that_a_person_rejects_explains_nothing_any_more() -> None:
    """Who says that it is no fault gets the consequences to decide."""
    site = Site()
    site.report(REVOKED, BOX)
    site.report(FALLBACK, BOX)
    (only,) = site.waiting()
    triage.reject(site.ledger, only.id, person="ada", reason="not so", policy=Policy(), now_ns=site.now_ns)
    assert site.open()[FALLBACK].explained_by is None
    assert [each.incident_id for each in site.waiting()] == [site.open()[FALLBACK].id]


def test_a_server_without_a_name_is_joined_to_nobody() -> None:
    """Two processes that are known by name only may be two programs."""
    site = Site()
    process = Subject(SubjectKind.PROCESS, "python3")
    site.report(REVOKED, process)
    site.report(FALLBACK, process)
    assert site.open()[FALLBACK].explained_by is None
