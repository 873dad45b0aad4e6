"""Cases: hysteresis, what may clear, and what survives a crash or a reboot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from agent.case_notes import decode, encode
from agent.cases import KEPT_FOR_GRAVE, MAX_OPEN, CaseBook, Changes, Fingerprint
from agent.finding import Finding, Hysteresis, Place, Verdict
from agent.testing import HOST, KERNEL_BOOT, at
from escalation.model import (
    BlindEvidence,
    BlindReason,
    CaseId,
    CasePhase,
    CaseReport,
    FaultClass,
    Incarnation,
    ListenerEvidence,
    OomEvidence,
    OomScope,
    Reach,
    Reason,
    ReasonCode,
    Severity,
    SignalEvidence,
    Subject,
    SubjectKind,
)
from probes.observation import CgroupId

FAULT = FaultClass.PROCESS_KILLED_BY_SIGNAL
UNIT = Subject(SubjectKind.UNIT, "vllm.service")
NEXT_BOOT = "0d3f3f1e-0000-4000-8000-000000000002"


def book(
    *, boot: str = KERNEL_BOOT, open_after: int = 1, hold_s: float = 30, window_s: float = 100
) -> CaseBook:
    """Return an empty book with one rule for every class."""
    rule = Hysteresis(open_after=open_after, open_window_s=window_s, clear_hold_s=hold_s)
    return CaseBook(agent_id=HOST, kernel_boot_id=boot, hysteresis=dict.fromkeys(FaultClass, rule))


def seen(
    seconds: float, *, severity: Severity = Severity.HIGH, subject: Subject = UNIT, count: int = 1
) -> Finding:
    return Finding(
        verdict=Verdict.PRESENT,
        fault_class=FAULT,
        subject=subject,
        at=at(seconds),
        severity=severity,
        incarnation=Incarnation(kernel_boot_id=KERNEL_BOOT, pid=7),
        place=Place(CgroupId(5), "/x"),
        count=count,
        reasons=(Reason(ReasonCode.DIED_BY_FAULT_SIGNAL, count=1),),
        evidence=(SignalEvidence(11, 1, "vllm", 7),),
    )


def over(seconds: float, *, subject: Subject = UNIT) -> Finding:
    return Finding(
        verdict=Verdict.ABSENT,
        fault_class=FAULT,
        subject=subject,
        at=at(seconds),
        reasons=(Reason(ReasonCode.SUBJECT_RAN_SINCE),),
    )


def unknown(seconds: float) -> Finding:
    return Finding(verdict=Verdict.UNKNOWN, fault_class=FAULT, subject=None, at=at(seconds))


def phases(changes: Changes) -> list[CasePhase]:
    return [body.phase for body in changes.bodies]


def step(cases: CaseBook, seconds: float, *findings: Finding) -> list[CasePhase]:
    return phases(cases.judge(findings, at(seconds)))


def test_opens_after_enough_sightings_in_the_window() -> None:
    """Two of three are not enough, nor are three that are spread too wide; then the count is theirs."""
    cases = book(open_after=3)
    assert step(cases, 0, seen(0), seen(1)) == []
    assert step(cases, 102, seen(102)) == []
    changes = cases.judge([seen(103), seen(104)], at(104))
    assert phases(changes) == [CasePhase.OPENED]
    assert changes.bodies[0].count == 3
    assert changes.bodies[0].first_seen_ns == at(102).unix_ns


def test_clears_only_after_the_hold() -> None:
    """Positive evidence must hold; then the case ends with the evidence's reasons."""
    cases = book()
    step(cases, 0, seen(0))
    assert step(cases, 10, over(10)) == []
    assert step(cases, 39) == []
    changes = cases.judge([], at(40))
    assert phases(changes) == [CasePhase.CLEARED]
    assert changes.bodies[0].reasons[0].code is ReasonCode.SUBJECT_RAN_SINCE
    assert list(changes.notes.values()) == [None]


def test_relapse_within_the_hold_is_the_same_case() -> None:
    """A fault that comes back before the hold is over was never gone."""
    cases = book()
    step(cases, 0, seen(0))
    assert step(cases, 10, over(10)) == []
    step(cases, 20, seen(20))
    assert step(cases, 1000) == []
    assert len(cases.open_cases([FAULT])) == 1


def test_keeps_open_when_source_goes_blind() -> None:
    """Losing sight during the hold takes the clearing back."""
    cases = book()
    step(cases, 0, seen(0))
    step(cases, 10, over(10))
    step(cases, 20, unknown(20))
    assert step(cases, 1e6) == []


def test_evidence_older_than_the_last_sighting_does_not_clear() -> None:
    """An inventory that was read before the fault was seen says nothing about it."""
    cases = book()
    step(cases, 10, seen(10))
    assert step(cases, 1000, over(9)) == []


def test_a_burst_is_told_in_full_when_nothing_follows_it() -> None:
    """What came too soon after the first report is told once its time has come, with no new sighting."""
    cases = book()
    assert step(cases, 0, seen(0, count=5)) == [CasePhase.OPENED]
    assert step(cases, 2, seen(2, count=35)) == []
    assert step(cases, 9) == []
    changes = cases.judge([], at(10))
    assert [(body.phase, body.count) for body in changes.bodies] == [(CasePhase.UPDATED, 40)]
    assert changes.bodies[0].last_seen_ns == at(2).unix_ns
    assert step(cases, 20, seen(20)) == []
    assert step(cases, 1e6) == []


def test_getting_worse_is_said_at_once_and_getting_better_never() -> None:
    """Severity rises in an update of its own, and does not fall while the case is open."""
    cases = book()
    step(cases, 0, seen(0, severity=Severity.NOTE))
    changes = cases.judge([seen(1, severity=Severity.CRITICAL)], at(1))
    assert [body.severity for body in changes.bodies] == [Severity.CRITICAL]
    assert step(cases, 60, seen(60, severity=Severity.NOTE)) in ([], [CasePhase.UPDATED])
    (note,) = cases.notes().values()
    assert decode(note).severity is Severity.CRITICAL  # type: ignore[union-attr]


def test_repeats_are_told_by_doubling_or_by_time() -> None:
    """A thousand deaths in a thousand seconds make a dozen reports, and the last count is told in time."""
    cases = book()
    reports = [body for second in range(1000) for body in cases.judge([seen(second)], at(second)).bodies]
    assert len(reports) <= 12
    assert [body.count for body in reports] == sorted(body.count for body in reports)
    (last,) = cases.judge([seen(2000)], at(2000)).bodies
    assert (last.phase, last.count) == (CasePhase.UPDATED, 1001)


def test_a_state_that_goes_on_says_nothing_new() -> None:
    """Sightings that count nothing keep the case fresh without a report."""
    cases = book()
    step(cases, 0, seen(0))
    assert [step(cases, second, seen(second, count=0)) for second in range(30, 9000, 30)] == [[]] * 299


def test_what_an_action_would_act_on_is_said_at_once_when_it_becomes_known() -> None:
    """Once: a state that goes on does not change the target again."""
    cases = book()
    step(cases, 0, seen(0))
    target = Subject(SubjectKind.CONTAINER, "c0ffee")
    (said,) = cases.judge([replace(seen(1, count=0), target=target, evidence=())], at(1)).bodies
    assert (said.phase, said.count, said.target) == (CasePhase.UPDATED, 1, target)
    assert said.evidence == seen(0).evidence
    assert step(cases, 2, replace(seen(2, count=0), target=UNIT)) == []


def test_an_inventory_that_knows_less_is_not_another_life() -> None:
    """Who listens is known from the event; a table without processes does not change that."""
    cases = book()
    step(cases, 0, seen(0))
    vague = replace(seen(60), incarnation=Incarnation(kernel_boot_id=KERNEL_BOOT))
    for finding in (vague, replace(vague, count=0, evidence=())):
        cases.judge([finding], at(60))
        (raw,) = cases.notes().values()
        note = decode(raw)
        assert note is not None
        assert note.incarnation.pid == 7
        assert note.evidence == seen(0).evidence
    other = replace(seen(120), incarnation=Incarnation(kernel_boot_id=KERNEL_BOOT, pid=8))
    assert step(cases, 120, other) == [CasePhase.UPDATED]


def test_flapping_makes_one_pair_of_reports_per_hold() -> None:
    """A fault that comes and goes each second for an hour stays one case."""
    cases = book()
    reports = []
    for second in range(3600):
        finding = seen(second) if second % 2 else over(second)
        reports += cases.judge([finding], at(second)).bodies
    assert [body.phase for body in reports].count(CasePhase.OPENED) == 1
    assert len(reports) < 20


def test_wall_clock_that_jumps_a_day_moves_nothing() -> None:
    """Holds and windows are boot time; only what people read carries wall time."""
    cases = book()
    step(cases, 0, seen(0))
    day_later = replace(at(10), unix_ns=at(10).unix_ns + 86_400_000_000_000)
    assert cases.judge([replace(over(10), at=day_later)], day_later).bodies == ()
    assert step(cases, 39) == []
    assert step(cases, 40) == [CasePhase.CLEARED]


def test_too_many_cases_are_turned_away_and_counted() -> None:
    """A host with a thousand open cases keeps judging those."""
    cases = book()
    findings = [seen(0, subject=Subject(SubjectKind.PROCESS, f"p{n}")) for n in range(MAX_OPEN + 7)]
    assert len(cases.judge(findings, at(0)).bodies) == MAX_OPEN
    assert cases.turned_away == 7


SMALL = MAX_OPEN - KEPT_FOR_GRAVE


def crowd(size: int, severity: Severity, *, name: str = "p") -> list[Finding]:
    return [
        seen(0, severity=severity, subject=Subject(SubjectKind.PROCESS, f"{name}{n}")) for n in range(size)
    ]


@pytest.mark.parametrize(
    ("flood", "late", "opened"),
    [
        (Severity.UNKNOWN, Severity.CRITICAL, KEPT_FOR_GRAVE),
        (Severity.NOTE, Severity.HIGH, KEPT_FOR_GRAVE),
        (Severity.MEDIUM, Severity.CRITICAL, KEPT_FOR_GRAVE),
        (Severity.MEDIUM, Severity.NOTE, 0),
        (Severity.HIGH, Severity.CRITICAL, 0),
        (Severity.CRITICAL, Severity.HIGH, 0),
    ],
)
def test_a_flood_of_small_cases_leaves_the_last_places_to_grave_ones(
    flood: Severity, late: Severity, opened: int
) -> None:
    """What finds no place is counted, the small ones as well as the grave ones that came too many."""
    cases = book()
    room = MAX_OPEN - opened if late in {Severity.HIGH, Severity.CRITICAL} else SMALL
    assert len(cases.judge(crowd(MAX_OPEN + 7, flood), at(0)).bodies) == room
    assert cases.turned_away == MAX_OPEN + 7 - room
    changes = cases.judge(crowd(KEPT_FOR_GRAVE + 3, late, name="late"), at(0))
    assert [(body.phase, body.severity) for body in changes.bodies] == [(CasePhase.OPENED, late)] * opened
    assert cases.turned_away == MAX_OPEN + 7 - room + KEPT_FOR_GRAVE + 3 - opened


def test_a_case_that_gets_worse_keeps_its_place_and_takes_none_of_the_kept() -> None:
    """It is told as worse in a full book; the last places still open for grave ones, and for no small one."""
    cases = book()
    cases.judge(crowd(SMALL, Severity.NOTE), at(0))
    (worse,) = cases.judge(crowd(1, Severity.CRITICAL), at(0)).bodies
    assert (worse.phase, worse.severity) == (CasePhase.UPDATED, Severity.CRITICAL)
    assert cases.judge(crowd(1, Severity.NOTE, name="late"), at(0)).bodies == ()
    grave = crowd(KEPT_FOR_GRAVE, Severity.HIGH, name="grave")
    assert len(cases.judge(grave, at(0)).bodies) == KEPT_FOR_GRAVE
    (worse,) = cases.judge(crowd(2, Severity.HIGH)[1:], at(0)).bodies
    assert (worse.phase, worse.severity) == (CasePhase.UPDATED, Severity.HIGH)
    assert cases.turned_away == 1


@given(
    st.lists(
        st.tuples(
            st.sampled_from([Verdict.PRESENT, Verdict.PRESENT, Verdict.ABSENT]),
            st.sampled_from(Severity),
            st.integers(min_value=0, max_value=9),
        ),
        max_size=60,
    )
)
def test_no_walk_gives_a_kept_place_to_a_small_case_or_takes_one_from_a_standing(
    rows: list[tuple[Verdict, Severity, int]],
) -> None:
    """In a book of six places, two kept: each sighting opens, belongs to an open case, or is counted away."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agent.cases.MAX_OPEN", 6)
        patch.setattr("agent.cases.KEPT_FOR_GRAVE", 2)
        cases = book(hold_s=0)
        for second, (verdict, severity, number) in enumerate(rows):
            subject = Subject(SubjectKind.PROCESS, str(number))
            before = {case.subject for case in cases.open_cases([FAULT])}
            away = cases.turned_away
            finding = replace(seen(second, severity=severity, subject=subject), verdict=verdict)
            cases.judge([finding], at(second))
            after = {case.subject for case in cases.open_cases([FAULT])}
            if verdict is Verdict.ABSENT:
                assert (after, cases.turned_away) == (before - {subject}, away)
                continue
            grave = severity in {Severity.HIGH, Severity.CRITICAL}
            fits = subject in before or len(before) < (6 if grave else 4)
            assert after == (before | {subject} if fits else before)
            assert cases.turned_away == away + (not fits)


def test_case_of_an_earlier_boot_that_hung_on_a_process_is_over() -> None:
    """What hung on a cgroup or process of that kernel is cleared with its reason; the rest stays open."""
    before = book()
    changes = before.judge(
        [replace(seen(0), lifebound=True), seen(0, subject=Subject(SubjectKind.UNIT, "other.service"))], at(0)
    )
    after = book(boot=NEXT_BOOT)
    restored, unreadable = after.restore({k: v for k, v in changes.notes.items() if v}, at(5))
    assert unreadable == 0
    assert [(body.phase, body.subject, body.reasons[0].code) for body in restored.bodies] == [
        (CasePhase.CLEARED, UNIT, ReasonCode.CGROUP_GONE)
    ]
    (still,) = after.open_cases([FAULT])
    assert (still.subject.name, still.last_seen.boot_ns) == ("other.service", at(5).boot_ns)


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"[1]", b"\xff\x00", b'{"evidence":[["Nope",{}]]}', b'{"evidence":3}']
)
def test_broken_note_is_counted_and_forgotten(raw: bytes) -> None:
    """A note that cannot be read costs its case, never the start."""
    changes, unreadable = book().restore({"case/x": raw}, at(0))
    assert (unreadable, changes.notes, changes.bodies) == (1, {"case/x": None}, ())


def test_every_kind_of_evidence_survives_a_note() -> None:
    """Encoding and decoding a note gives back the same case, whatever its evidence."""
    cases = book()
    cases.judge([seen(0)], at(0))
    (raw,) = cases.notes().values()
    note = decode(raw)
    assert note is not None
    full = replace(
        note,
        evidence=(
            SignalEvidence(11, 1, "é\x1b\u202e", None),
            OomEvidence(OomScope.HOST, "x", 1, None, 2, None),
            ListenerEvidence("::", 1, Reach.PUBLIC, "x", None),
            BlindEvidence("s", BlindReason.NO_HEADERS, 1.5),
        ),
        target=Subject(SubjectKind.CONTAINER, "c"),
        case_id=CaseId("x"),
    )
    assert decode(encode(full)) == full


SUBJECTS = [Subject(SubjectKind.PROCESS, name) for name in ("a", "b", "c")]
FINDINGS = st.tuples(
    st.sampled_from(Verdict),
    st.sampled_from([FAULT, FaultClass.MONITOR_BLIND]),
    st.sampled_from(SUBJECTS),
    st.sampled_from([Severity.NOTE, Severity.HIGH, Severity.CRITICAL]),
    st.integers(min_value=0, max_value=5),
)
STEPS = st.lists(
    st.tuples(st.integers(min_value=0, max_value=60), st.lists(FINDINGS, max_size=4), st.booleans()),
    max_size=40,
)


@given(STEPS, st.integers(min_value=1, max_value=3))
def test_invariants_hold_on_every_walk(
    steps: list[tuple[int, list[tuple[Verdict, FaultClass, Subject, Severity, int]], bool]], open_after: int
) -> None:
    """One open case per fingerprint; cleared only after opened and only on evidence; a crash changes nothing.

    After any step the process may die: a book restored from the committed notes knows exactly the cases
    whose reports were committed.
    """
    cases = book(open_after=open_after)
    standing: dict[Fingerprint, CaseId] = {}
    evidence_for: set[Fingerprint] = set()
    disk: dict[str, bytes] = {}
    second = 0
    for pause, rows, crash in steps:
        second += pause
        findings = [
            replace(
                seen(second, severity=severity, subject=subject, count=count),
                verdict=verdict,
                fault_class=fault,
            )
            for verdict, fault, subject, severity, count in rows
        ]
        evidence_for |= {(row[1], row[2]) for row in rows if row[0] is Verdict.ABSENT}
        changes = cases.judge(findings, at(second))
        for body in changes.bodies:
            _follow(body, standing, evidence_for)
        _commit(disk, changes.notes)
        if crash:
            cases = book(open_after=open_after)
            restored, unreadable = cases.restore(disk, at(second))
            assert (restored, unreadable) == (Changes((), {}), 0)
            assert cases.notes() == disk
        shown = cases.open_cases(FaultClass)
        assert {(case.fault_class, case.subject) for case in shown} == set(standing)
        assert len(shown) == len(standing)


def _follow(body: CaseReport, standing: dict[Fingerprint, CaseId], evidence_for: set[Fingerprint]) -> None:
    fingerprint = (body.fault_class, body.subject)
    assert body.count >= 1
    assert body.first_seen_ns <= body.last_seen_ns
    match body.phase:
        case CasePhase.OPENED:
            assert fingerprint not in standing
            standing[fingerprint] = body.case_id
        case CasePhase.UPDATED:
            assert standing[fingerprint] == body.case_id
        case _:
            assert standing.pop(fingerprint) == body.case_id
            assert fingerprint in evidence_for


def _commit(disk: dict[str, bytes], notes: Mapping[str, bytes | None]) -> None:
    for key, value in notes.items():
        if value is None:
            del disk[key]
        else:
            disk[key] = value
