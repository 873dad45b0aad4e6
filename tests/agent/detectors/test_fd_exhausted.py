"""F26: a process that gets no descriptor, and one that only tries how many it may have."""

from __future__ import annotations

import dataclasses

import pytest

from agent.cases import CaseBook
from agent.detector import ProcessKey, World
from agent.detectors.fd_exhausted import Config, FdExhausted
from agent.finding import Verdict
from agent.testing import (
    CONTAINER,
    HOST,
    KERNEL_BOOT,
    SURROUNDINGS,
    at,
    blind,
    open_case,
    origin,
    present,
    seeing,
    tick,
)
from agent.testing_pressure import refused
from escalation.model import (
    CasePhase,
    DescriptorCall,
    DescriptorEvidence,
    FaultClass,
    ReasonCode,
    Severity,
    Subject,
    SubjectKind,
)
from probes.observation import DescriptorUser

FAULT = FaultClass.PROCESS_FD_EXHAUSTED
SERVER = Subject(SubjectKind.CONTAINER, CONTAINER)


@pytest.fixture
def detector() -> FdExhausted:
    """A detector whose sensor sees."""
    made = FdExhausted.build(Config(), SURROUNDINGS)
    made.observe(seeing(0, "kernel.descriptors"))
    return made


def test_a_server_that_cannot_accept_is_high(detector: FdExhausted) -> None:
    """With the limit that it has reached."""
    found = present(detector, refused(1, 3), refused(2, 4), refused(3, 900))
    assert [(one.subject, one.severity, one.count) for one in found] == [
        (SERVER, Severity.HIGH, 1),
        (SERVER, Severity.HIGH, 0),
    ]
    assert [(r.code, r.count, r.threshold) for r in found[0].reasons] == [
        (ReasonCode.DESCRIPTORS_REFUSED, 7, 5.0),
        (ReasonCode.DESCRIPTOR_LIMIT_REACHED, 0, 1024.0),
    ]
    evidence = found[1].evidence[0]
    assert isinstance(evidence, DescriptorEvidence)
    assert (evidence.call, evidence.failures, evidence.limit) == (DescriptorCall.ACCEPT, 907, 1024)


def test_opens_and_sockets_that_fail_are_medium(detector: FdExhausted) -> None:
    """It still answers who is connected."""
    found = present(detector, refused(1, 9, call=DescriptorUser.OPEN), refused(2, call=DescriptorUser.SOCKET))
    assert [one.severity for one in found] == [Severity.MEDIUM, Severity.MEDIUM]


def test_the_hosts_own_limit_is_a_case_of_the_host(detector: FdExhausted) -> None:
    """Whoever met it first; its own limit says nothing then."""
    (found,) = present(detector, refused(1, host_wide=True))
    assert (found.subject, found.severity) == (Subject(SubjectKind.HOST, HOST), Severity.HIGH)
    assert found.target == SERVER
    assert [r.code for r in found.reasons] == [ReasonCode.DESCRIPTORS_REFUSED]


def test_a_program_that_tries_its_limit_stays_quiet(detector: FdExhausted) -> None:
    """One refusal, now and then."""
    assert present(detector, *(refused(s, 1) for s in range(0, 600, 30))) == []


def test_a_process_that_is_gone_clears(detector: FdExhausted) -> None:
    """Its descriptors went with it; the next one begins anew."""
    book = CaseBook(agent_id=HOST, kernel_boot_id=KERNEL_BOOT, hysteresis=detector.hysteresis)
    seen = refused(1, 50)
    opened = book.judge(detector.observe(seen), seen.at).bodies
    (asked,) = detector.watching()
    assert asked == ProcessKey(4711, 100)
    alive = tick(5, *book.open_cases([FAULT]), world=World(processes={asked: True}))
    assert detector.tick(alive) == []
    gone = tick(10, *book.open_cases([FAULT]), world=World(processes={asked: False}))
    cleared = book.judge(detector.tick(gone), at(10)).bodies
    assert [body.phase for body in (*opened, *cleared)] == [CasePhase.OPENED, CasePhase.CLEARED]
    assert cleared[0].reasons[0].code is ReasonCode.PROCESS_GONE
    assert detector.watching() == []


def test_refusals_that_are_told_after_the_end_do_not_hide_it(detector: FdExhausted) -> None:
    """What is read of a dead process has no start of its own; it is the one that was known."""
    last = dataclasses.replace(origin(), start_ticks=None)
    present(detector, refused(1, 50), refused(2, 7, limit=None, where=last))
    assert detector.watching() == [ProcessKey(4711, 100)]


def test_an_hour_without_refusals_clears(detector: FdExhausted) -> None:
    """And not before; a refusal among them begins it anew."""
    case = open_case(FAULT, SERVER, last_seen=at(100))
    assert detector.tick(tick(3600, case)) == []
    (found,) = detector.tick(tick(3701, case))
    assert (found.verdict, found.reasons[0].code) == (Verdict.ABSENT, ReasonCode.DESCRIPTORS_SUFFICE_AGAIN)


def test_keeps_open_when_source_goes_blind(detector: FdExhausted) -> None:
    """Unknown; lost samples begin the hour anew."""
    detector.observe(blind(5, "kernel.descriptors"))
    (found,) = detector.tick(tick(50_000, open_case(FAULT, SERVER)))
    assert found.verdict is Verdict.UNKNOWN
    detector.observe(seeing(50_000, "kernel.descriptors"))
    detector.observe(seeing(52_000, "kernel.descriptors", lost=3))
    assert detector.tick(tick(54_000, open_case(FAULT, SERVER))) == []


def test_what_it_keeps_in_mind_is_bounded(detector: FdExhausted) -> None:
    """Any number of containers, any number of refusals."""
    for number in range(1000):
        detector.observe(refused(1, where=origin(container=f"{number:064x}")))
        detector.observe(refused(1))
    assert len(detector._subjects) <= 256
    assert max(len(each.refused) for each in detector._subjects.values()) <= 256
