"""Reports become incidents, in whatever order they come."""

from __future__ import annotations

from hypothesis import given, strategies as st

from escalation.model import (
    AgentId,
    CasePhase,
    CaseReport,
    FaultClass,
    Incident,
    Severity,
    State,
    Subject,
    SubjectKind,
)
from escalation.server import triage
from escalation.server.decision.approvals import Policy
from escalation.server.incident.incidents import RETURNS_WITHIN_S
from escalation.server.testing import START_NS, MemoryLedger, case_report
from tests.escalation.server.deliveries import delivery_of

_HOST = AgentId("spark-1")


class _Fleet:
    """A ledger and a host that reports to it."""

    def __init__(self) -> None:
        self.ledger = MemoryLedger()

    def report(self, body: CaseReport, number: int, *, boot: str = "boot-1", at_ns: int = START_NS) -> None:
        delivery = delivery_of(number, body, boot=boot, at_ns=at_ns + number)
        triage.receive(self.ledger, delivery, policy=Policy(), now_ns=at_ns + number)

    def incidents(self) -> list[Incident]:
        return sorted(self.ledger.incidents(limit=1000), key=lambda each: each.first_seen_ns)


def _case(phase: CasePhase, case_id: str = "case-1", *, seen: int = 0, **fields: object) -> CaseReport:
    return case_report(phase, case_id=case_id, seen_ns=START_NS + seen, **fields)


def test_the_same_fault_folds_and_counts_up() -> None:
    """A second case of the same key while the first is open is the same incident."""
    fleet = _Fleet()
    fleet.report(_case(CasePhase.OPENED, count=1), 1)
    fleet.report(_case(CasePhase.UPDATED, count=4, seen=5), 2)
    fleet.report(_case(CasePhase.OPENED, "case-2", count=2, seen=9), 3)
    (incident,) = fleet.incidents()
    assert (incident.count, incident.case_id, incident.open) == (6, "case-2", True)
    assert (incident.first_seen_ns, incident.last_seen_ns) == (START_NS, START_NS + 9)


def test_only_its_own_case_closes_it() -> None:
    """The case that was taken over cannot close what another one keeps open."""
    fleet = _Fleet()
    fleet.report(_case(CasePhase.OPENED), 1)
    fleet.report(_case(CasePhase.OPENED, "case-2", seen=1), 2)
    fleet.report(_case(CasePhase.CLEARED, seen=2), 3)
    assert [each.open for each in fleet.incidents()] == [True]
    fleet.report(_case(CasePhase.CLEARED, "case-2", seen=3), 4)
    assert [each.open for each in fleet.incidents()] == [False]


_LATER = int(RETURNS_WITHIN_S * 1e9)


def test_a_new_case_soon_after_a_clear_is_the_same_incident_which_returned() -> None:
    """What comes and goes is one row; its count, its severity and its case are those of now."""
    fleet = _Fleet()
    fleet.report(_case(CasePhase.OPENED, count=2), 1)
    fleet.report(_case(CasePhase.CLEARED, seen=1, count=2), 2)
    fleet.report(_case(CasePhase.OPENED, "case-2", seen=2, count=5, severity=Severity.NOTE), 3)
    (incident,) = fleet.incidents()
    assert (incident.open, incident.returns, incident.cleared_ns) == (True, 1, None)
    assert (incident.count, incident.case_id, incident.severity) == (7, "case-2", Severity.NOTE)
    assert incident.first_seen_ns == START_NS


def test_a_new_case_long_after_a_clear_is_a_new_incident() -> None:
    """What stayed away for a quarter of an hour was over."""
    fleet = _Fleet()
    fleet.report(_case(CasePhase.OPENED), 1)
    fleet.report(_case(CasePhase.CLEARED, seen=1), 2)
    fleet.report(_case(CasePhase.OPENED, "case-2", seen=2), 3, at_ns=START_NS + _LATER - 1)
    assert [each.open for each in fleet.incidents()] == [False, True]


def test_a_clock_that_went_back_revives_nothing() -> None:
    """A clearing that lies in the future is no clearing of just now."""
    fleet = _Fleet()
    fleet.report(_case(CasePhase.OPENED), 1)
    fleet.report(_case(CasePhase.CLEARED, seen=1), 2)
    fleet.report(_case(CasePhase.OPENED, "case-2", seen=2), 3, at_ns=START_NS - 61 * 10**9)
    assert [each.returns for each in fleet.incidents()] == [0, 0]


def test_the_same_case_seen_after_its_clear_returned_unless_the_report_is_older() -> None:
    """A late report changes nothing; a later one is a fault that stands there now."""
    fleet = _Fleet()
    fleet.report(_case(CasePhase.OPENED), 1)
    fleet.report(_case(CasePhase.CLEARED, seen=1), 5)
    fleet.report(_case(CasePhase.UPDATED, seen=0), 3)
    fleet.report(_case(CasePhase.UPDATED, seen=0), 1, boot="older-boot", at_ns=START_NS - 100)
    assert [each.open for each in fleet.incidents()] == [False]
    fleet.report(_case(CasePhase.UPDATED, seen=6), 6)
    assert [(each.open, each.returns) for each in fleet.incidents()] == [(True, 1)]


def test_another_fault_soon_after_a_clear_is_another_incident() -> None:
    """Only the same class on the same subject of the same host returns."""
    fleet = _Fleet()
    fleet.report(_case(CasePhase.OPENED), 1)
    fleet.report(_case(CasePhase.CLEARED, seen=1), 2)
    fleet.report(_case(CasePhase.OPENED, "case-2", seen=2, subject=Subject(SubjectKind.UNIT, "x")), 3)
    fleet.report(_case(CasePhase.OPENED, "case-3", seen=3, fault_class=FaultClass.GPU_UVM_LOST), 4)
    fleet.report(_case(CasePhase.OPENED, "case-4", seen=4, drill=True), 5)
    assert [each.returns for each in fleet.incidents()] == [0, 0, 0, 0]


@given(gaps=st.lists(st.integers(1, 3600), min_size=1, max_size=30))
def test_what_comes_and_goes_is_one_incident_for_each_time_that_it_stayed_away(gaps: list[int]) -> None:
    """However often it comes back: a new incident only after a quarter of an hour of quiet."""
    fleet = _Fleet()
    now_ns = START_NS
    fleet.report(_case(CasePhase.OPENED, "case-0"), 1, at_ns=now_ns)
    for number, gap_s in enumerate(gaps, start=1):
        seen = number * 10**6
        fleet.report(_case(CasePhase.CLEARED, f"case-{number - 1}", seen=seen), 2 * number, at_ns=now_ns)
        now_ns += gap_s * 10**9
        case = _case(CasePhase.OPENED, f"case-{number}", seen=seen + 1)
        fleet.report(case, 2 * number + 1, at_ns=now_ns)
    quiet = sum(gap_s >= RETURNS_WITHIN_S for gap_s in gaps)
    found = fleet.incidents()
    assert len(found) == quiet + 1
    assert sum(each.returns for each in found) == len(gaps) - quiet
    assert sum(each.open for each in found) == 1
    proposed = [
        each for each in fleet.ledger.in_states(frozenset(State), limit=None) if each.finished_ns is None
    ]
    assert len(proposed) == 1


def test_an_update_without_an_opening_opens() -> None:
    """A fault is a fault, whatever was lost before."""
    for phase in (CasePhase.UPDATED, CasePhase.UNKNOWN):
        fleet = _Fleet()
        fleet.report(_case(phase), 7)
        assert [each.open for each in fleet.incidents()] == [True]


def test_a_clear_of_an_unknown_case_is_recorded() -> None:
    """It leaves an incident that is over, and nothing to approve."""
    fleet = _Fleet()
    fleet.report(_case(CasePhase.CLEARED), 1)
    (incident,) = fleet.incidents()
    assert not incident.open
    assert fleet.ledger.recommendations(incident.id) == []


def test_an_unknown_fault_class_keeps_its_number() -> None:
    """Two classes that we do not know are two incidents."""
    fleet = _Fleet()
    for number in (77, 78):
        case = _case(
            CasePhase.OPENED,
            f"case-{number}",
            fault_class=FaultClass.UNKNOWN,
            fault_number=number,
            seen=number,
        )
        fleet.report(case, number)
    assert [each.fault_number for each in fleet.incidents()] == [77, 78]


def test_old_news_does_not_replace_what_is_known() -> None:
    """A report that is older than the newest adds to the count and to nothing else."""
    fleet = _Fleet()
    fleet.report(_case(CasePhase.OPENED, seen=10), 2)
    fleet.report(_case(CasePhase.OPENED, seen=1, severity=Severity.NOTE, evidence=(), count=1), 1)
    (incident,) = fleet.incidents()
    assert incident.severity is Severity.CRITICAL
    assert incident.evidence
    assert incident.first_seen_ns == START_NS + 1


def test_the_same_reports_make_the_same_ids() -> None:
    """What is replayed after a crash is what would have been."""
    fleets = [_Fleet(), _Fleet()]
    for fleet in fleets:
        fleet.report(_case(CasePhase.OPENED), 1)
        fleet.report(_case(CasePhase.CLEARED, seen=1), 2)
        fleet.report(_case(CasePhase.OPENED, seen=2), 3)
    first, second = ([each.id for each in fleet.incidents()] for fleet in fleets)
    assert first == second
    assert len(set(first)) == 1


def test_a_host_that_opens_thousands_of_cases_is_bounded() -> None:
    """Above the limit new cases are counted as lost on the host, and the open ones stay."""
    fleet = _Fleet()
    for number in range(1, 1011):
        subject = Subject(SubjectKind.PROCESS, f"p{number}")
        fleet.report(_case(CasePhase.OPENED, f"case-{number}", subject=subject), number)
    assert sum(each.open for each in fleet.incidents()) == 1000
    host = fleet.ledger.host(_HOST)
    assert host is not None
    assert [(loss.kind, loss.count) for loss in host.losses] == [("report_refused", 10)]


_STEPS = st.lists(
    st.tuples(
        st.sampled_from([CasePhase.OPENED, CasePhase.UPDATED, CasePhase.CLEARED]),
        st.integers(1, 3),
        st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


@given(steps=_STEPS, data=st.data())
def test_no_order_or_repeat_breaks_the_rules(
    steps: list[tuple[CasePhase, int, bool]], data: st.DataObject
) -> None:
    """Shuffled and delivered twice: one open incident per key at most, no count above what was reported.

    A drill has a key of its own, and what was real once stays real.
    """
    numbered = [(number, *step) for number, step in enumerate(steps, start=1)]
    order = data.draw(st.permutations([*numbered, *numbered]))
    fleet = _Fleet()
    real: set[str] = set()
    for number, phase, case, drill in order:
        fleet.report(_case(phase, f"case-{case}", seen=number, count=1, drill=drill), number)
        assert real <= {each.id for each in fleet.incidents() if not each.drill}
        real = {each.id for each in fleet.incidents() if not each.drill}
    found = fleet.incidents()
    for drill in (True, False):
        assert sum(each.open for each in found if each.drill is drill) <= 1
    assert sum(each.count for each in found) <= len(steps)
    for each in found:
        states = [recommendation.state for recommendation in fleet.ledger.recommendations(each.id)]
        assert states.count("proposed") == (1 if each.open else 0)


def test_counts_stop_at_what_can_be_stored() -> None:
    """Two cases that each claim the largest number there is do not add up to one that breaks a reader."""
    fleet = _Fleet()
    for number in (1, 2):
        fleet.report(_case(CasePhase.OPENED, f"case-{number}", count=2**63 - 1), number)
    assert [each.count for each in fleet.incidents()] == [2**63 - 1]
