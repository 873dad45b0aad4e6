"""F01, F02, F03, F05: answers with status 200 that are none, and right answers that look like them."""

from __future__ import annotations

import random
from typing import Any

import pytest

from agent.cases import CaseBook
from agent.detector import CgroupLook, World
from agent.detectors.route_answers import Config, RouteAnswers
from agent.finding import Finding, Place, Verdict
from agent.judge import Judge, hysteresis_of
from agent.routes.answer import Answer, answer_of
from agent.testing import (
    CGROUP_PATH,
    CONTAINER,
    HOST,
    KERNEL_BOOT,
    SURROUNDINGS,
    at,
    blind,
    exchange,
    open_case,
    present,
    route_evidence,
    seeing,
    text,
    tick,
    unobserved,
)
from escalation.model import (
    CasePhase,
    FaultClass,
    ReasonCode,
    RouteEvidence,
    RouteId,
    RouteKind,
    ServerKind,
    Severity,
    Subject,
    SubjectKind,
)
from probes.http.facts import Ending, ErrorKind, FinishReason, Route
from probes.observation import CgroupId

SENSOR = "http.routes"
EMPTY = FaultClass.ROUTE_EMPTY_COMPLETION
ROUTE = Subject(SubjectKind.ROUTE, "8000/chat_completions qwen3-32b")
PLACE = Place(CgroupId(2305), CGROUP_PATH)
NOTHING: dict[str, Any] = {"content_characters": 0, "completion_tokens": 0}


@pytest.fixture
def detector() -> RouteAnswers:
    """A detector with its default settings whose sensor sees."""
    made = RouteAnswers.build(Config(), SURROUNDINGS)
    made.observe(seeing(0, SENSOR))
    return made


def test_fifth_empty_answer_is_a_case(detector: RouteAnswers) -> None:
    """Four are facts; the fifth opens, about the route, with the container that serves it as target."""
    assert present(detector, *(exchange(n, **NOTHING) for n in range(4))) == []
    (found,) = present(detector, exchange(5, **NOTHING))
    assert (found.fault_class, found.subject, found.severity) == (EMPTY, ROUTE, Severity.HIGH)
    assert found.target == Subject(SubjectKind.CONTAINER, CONTAINER)
    assert found.place == PLACE
    assert found.incarnation is not None
    assert (found.incarnation.container_id, found.count, found.lifebound) == (CONTAINER, 5, False)
    assert [reason.code for reason in found.reasons] == [ReasonCode.ANSWERS_EMPTY, ReasonCode.USAGE_AGREES]


def test_evidence_counts_what_was_judged_and_what_was_not(detector: RouteAnswers) -> None:
    """Exchanges, affected, streamed, unobserved, medians and share."""
    for n in range(15):
        detector.observe(exchange(n))
    detector.observe(unobserved(16, count=7))
    *_, found = present(
        detector,
        *(exchange(20 + n, streamed=bool(n % 2), **{**NOTHING, "completion_tokens": n}) for n in range(6)),
    )
    (said,) = found.evidence
    assert said == RouteEvidence(
        id=RouteId(8000, RouteKind.CHAT_COMPLETIONS, "qwen3-32b", ServerKind.VLLM),
        window_s=3600.0,
        exchanges=21,
        affected=6,
        affected_streamed=3,
        unobserved=7,
        completion_tokens=2,
        max_tokens=4096,
        measured=1.0,
    )
    assert ReasonCode.BOTH_STREAMED_AND_WHOLE in [reason.code for reason in found.reasons]


def test_share_that_chance_explains_stays_quiet(detector: RouteAnswers) -> None:
    """Ten of two hundred are no tenth."""
    bad = (exchange(n, **(NOTHING if n % 20 == 0 else {})) for n in range(1, 201))
    assert present(detector, *bad) == []


@pytest.mark.parametrize("hourly", [6, 30, 360])
def test_route_that_is_bad_once_in_a_hundred_times_stays_quiet_for_weeks(
    detector: RouteAnswers, hourly: int
) -> None:
    """Looking again at each bad answer finds no run of bad luck: thirty days, or 20 000 answers."""
    chance = random.Random(20261121)
    moment = 0.0
    for _ in range(min(20_000, hourly * 24 * 30)):
        moment += chance.expovariate(hourly / 3600)
        facts = NOTHING if chance.random() < 0.01 else {}
        assert present(detector, exchange(moment, **facts)) == []


def test_mode_that_is_always_broken_is_found_behind_one_that_is_not(detector: RouteAnswers) -> None:
    """Streams may be a small share of the traffic and all of them empty."""
    for n in range(400):
        detector.observe(exchange(n))
    found = present(detector, *(exchange(400 + n, streamed=True, **NOTHING) for n in range(6)))
    assert {each.fault_class for each in found} == {EMPTY}


def test_old_answers_leave_the_window(detector: RouteAnswers) -> None:
    """Five empty answers in five days are five facts."""
    assert present(detector, *(exchange(n * 86400, **NOTHING) for n in range(1, 6))) == []


def test_greetings_count_half(detector: RouteAnswers) -> None:
    """An empty answer to next to nothing proves less: the tenth opens."""
    found = [present(detector, exchange(n, request_bytes=80, **NOTHING)) for n in range(10)]
    assert [len(each) for each in found] == [0] * 9 + [1]


def test_going_on_counts_what_came_since(detector: RouteAnswers) -> None:
    """The first finding counts all that led to it, each further one itself."""
    found = present(detector, *(exchange(n, **NOTHING) for n in range(8)))
    assert [each.count for each in found] == [5, 1, 1, 1]


@pytest.mark.parametrize(
    ("facts", "answer"),
    [
        ({}, Answer.GOOD),
        (NOTHING, Answer.EMPTY),
        ({**NOTHING, "finish": FinishReason.NONE}, Answer.EMPTY),
        ({**NOTHING, "finish": FinishReason.TOOL_CALLS}, Answer.EMPTY),
        ({**NOTHING, "tool_calls": 1, "tool_calls_valid": True}, Answer.GOOD),
        ({**NOTHING, "tool_calls": 1, "tool_calls_valid": False}, Answer.UNJUDGED),
        ({**NOTHING, "finish": FinishReason.CONTENT_FILTER}, Answer.UNJUDGED),
        ({**NOTHING, "finish": FinishReason.ABORT}, Answer.UNJUDGED),
        ({**NOTHING, "finish": FinishReason.OTHER}, Answer.UNJUDGED),
        ({**NOTHING, "route": Route.EMBEDDINGS}, Answer.UNJUDGED),
        ({**NOTHING, "route": Route.SPEECH}, Answer.UNJUDGED),
        ({**NOTHING, "route": Route.OTHER}, Answer.UNJUDGED),
        ({**NOTHING, "status": 500}, Answer.UNJUDGED),
        ({**NOTHING, "status": 204}, Answer.UNJUDGED),
        ({**NOTHING, "ending": Ending.CUT}, Answer.UNJUDGED),
        ({**NOTHING, "ending": Ending.CANCELLED}, Answer.UNJUDGED),
        ({**NOTHING, "ending": Ending.UNTERMINATED}, Answer.UNJUDGED),
        ({**NOTHING, "error_in_answer": True, "error": ErrorKind.SERVER}, Answer.UNJUDGED),
        ({"content_characters": 0, "completion_tokens": None, "choices_seen": False}, Answer.UNJUDGED),
        ({**NOTHING, "choices_seen": False}, Answer.EMPTY),
        ({"content_characters": 3, "content": text(3, whitespace=1.0)}, Answer.EMPTY),
        ({**NOTHING, "finish": FinishReason.LENGTH}, Answer.EMPTY),
        ({**NOTHING, "finish": FinishReason.LENGTH, "reasoning_characters": 9}, Answer.BUDGET),
        ({**NOTHING, "finish": FinishReason.LENGTH, "completion_tokens": 4096}, Answer.BUDGET),
        (
            {"content_characters": 0, "finish": FinishReason.LENGTH, "reasoning_tokens": 98},
            Answer.BUDGET,
        ),
        (
            {"content_characters": 0, "finish": FinishReason.LENGTH, "reasoning_tokens": 3},
            Answer.EMPTY,
        ),
        (
            {**NOTHING, "finish": FinishReason.LENGTH, "reasoning_characters": 9, "max_tokens": 8},
            Answer.UNJUDGED,
        ),
        ({"finish": FinishReason.LENGTH}, Answer.GOOD),
        ({"finish": FinishReason.LENGTH, "reasoning_characters": 9000}, Answer.GOOD),
        ({**NOTHING, "reasoning_characters": 9}, Answer.IN_REASONING),
        ({"reasoning_marks_in_content": True}, Answer.MARKED),
        ({"content": text(repeated=0.95), "finish": FinishReason.LENGTH}, Answer.LOOP),
        ({"content": text(repeated=0.95)}, Answer.GOOD),
        ({"content": text(repeated=0.79), "finish": FinishReason.LENGTH}, Answer.GOOD),
        ({"content": text(399, repeated=0.95), "finish": FinishReason.LENGTH}, Answer.GOOD),
        ({"content": text(longest_run=380)}, Answer.ONE_CHARACTER),
        ({"content": text(63, longest_run=63)}, Answer.GOOD),
        ({"content": text(longest_run=80)}, Answer.GOOD),
        ({"content": text(whitespace=0.96)}, Answer.BLANK),
        ({"content": text(undecodable=0.3)}, Answer.UNDECODABLE),
        ({"content": text(8, undecodable=0.3)}, Answer.GOOD),
        ({"content": None}, Answer.GOOD),
    ],
)
def test_answer_is_exactly_one_thing(facts: dict[str, Any], answer: Answer) -> None:
    """A spent budget before a misrouted answer, that before an empty one; what is not shown is not judged."""
    assert answer_of(exchange(1, **facts).facts) is answer


def test_text_that_cannot_be_meant_is_a_note_where_the_engine_does_not_agree(detector: RouteAnswers) -> None:
    """A text measure alone is one witness; that the engine ran until its limit is the second."""
    bad = {"content_characters": 400, "content": text(longest_run=400)}
    *_, found = present(detector, *(exchange(n, **bad) for n in range(5)))
    assert found.severity is Severity.NOTE
    assert found.reasons[-1].code is ReasonCode.SECOND_LAYER_UNKNOWN
    *_, found = present(detector, *(exchange(10 + n, finish=FinishReason.LENGTH, **bad) for n in range(5)))
    assert (found.fault_class, found.severity) == (FaultClass.ROUTE_DEGENERATE_OUTPUT, Severity.CRITICAL)


def test_clears_after_ten_good_answers(detector: RouteAnswers) -> None:
    """Nine are not enough after an outage in full, whatever other routes do."""
    for n in range(5):
        detector.observe(exchange(n, **NOTHING))
    case = open_case(EMPTY, ROUTE, last_seen=at(4), evidence=(route_evidence(),))
    for n in range(9):
        detector.observe(exchange(10 + n))
        detector.observe(exchange(10 + n, model="another"))
    assert detector.tick(tick(100, case)) == []
    detector.observe(exchange(30))
    (over,) = detector.tick(tick(100, case))
    assert (over.verdict, over.subject) == (Verdict.ABSENT, ROUTE)
    assert (over.reasons[0].code, over.reasons[0].count) == (ReasonCode.ANSWERS_GOOD_AGAIN, 10)


@pytest.mark.parametrize(("share", "needed"), [(0.1, 100), (0.46, 22), (0.01, 200), (0.0, 200)])
def test_rare_fault_takes_more_good_answers_to_clear(
    detector: RouteAnswers, share: float, needed: int
) -> None:
    """Where one in ten was bad, ten good ones in a row happen by chance: a hundred are wanted."""
    case = open_case(EMPTY, ROUTE, evidence=(route_evidence(share=share),))
    for n in range(needed - 1):
        detector.observe(exchange(n / 10))
    assert detector.tick(tick(100, case)) == []
    detector.observe(exchange(30))
    assert [over.verdict for over in detector.tick(tick(100, case))] == [Verdict.ABSENT]


def test_share_is_that_of_late_and_of_the_affected_mode(detector: RouteAnswers) -> None:
    """A long good time before the fault, and whole answers beside empty streams, make it no smaller."""
    found: list[Finding] = []
    for n in range(200):
        detector.observe(exchange(n))
    for n in range(40):
        detector.observe(exchange(200 + 4 * n))
        detector.observe(exchange(201 + 4 * n, streamed=True))
        found += present(detector, exchange(202 + 4 * n, streamed=True, **NOTHING))
    (said,) = found[-1].evidence
    assert isinstance(said, RouteEvidence)
    assert said.measured == 0.5


def test_bad_answer_begins_the_row_anew(detector: RouteAnswers) -> None:
    """Good answers before the last bad one prove nothing."""
    case = open_case(EMPTY, ROUTE, evidence=(route_evidence(),))
    for n in range(9):
        detector.observe(exchange(n))
    detector.observe(exchange(9, **NOTHING))
    for n in range(9):
        detector.observe(exchange(10 + n))
    assert detector.tick(tick(100, case)) == []


def test_whole_answers_do_not_clear_what_only_streams_had(detector: RouteAnswers) -> None:
    """The mode that failed must be good again."""
    case = open_case(EMPTY, ROUTE, evidence=(route_evidence(streamed=5),))
    for n in range(50):
        detector.observe(exchange(n))
    assert detector.tick(tick(100, case)) == []
    for n in range(10):
        detector.observe(exchange(60 + n, streamed=True))
    assert [over.verdict for over in detector.tick(tick(100, case))] == [Verdict.ABSENT]


def test_a_route_that_was_taken_away_clears(detector: RouteAnswers) -> None:
    """Three refusals in a row that know no such model are the proof; an answer between them begins anew."""
    for n in range(5):
        detector.observe(exchange(n, **NOTHING))
    case = open_case(EMPTY, ROUTE, last_seen=at(4), evidence=(route_evidence(),))
    refused: dict[str, Any] = {"status": 404, "error": ErrorKind.UNKNOWN_MODEL}
    for n in range(2):
        detector.observe(exchange(10 + n, **refused))
    assert detector.tick(tick(20, case)) == []
    detector.observe(exchange(21))
    for n in range(2):
        detector.observe(exchange(22 + n, **refused))
    assert detector.tick(tick(30, case)) == []
    detector.observe(exchange(31, **refused))
    (over,) = detector.tick(tick(40, case))
    assert (over.verdict, over.reasons[0].code) == (Verdict.ABSENT, ReasonCode.ROUTE_UNUSED)


def test_a_name_that_never_answered_makes_no_route(detector: RouteAnswers) -> None:
    """Refusals of made-up names leave nothing behind."""
    for n in range(50):
        detector.observe(exchange(n, model=f"typo-{n}", status=404, error=ErrorKind.UNKNOWN_MODEL))
    assert repr(detector) == repr(RouteAnswers.build(Config(), SURROUNDINGS))


def test_silence_never_clears(detector: RouteAnswers) -> None:
    """A route that nobody uses for a month stays as it was."""
    case = open_case(EMPTY, ROUTE, place=PLACE)
    here = World(cgroups={PLACE: CgroupLook(exists=True, populated=True, same=True)})
    anew = World(cgroups={PLACE: CgroupLook(exists=True, populated=True, same=False)})
    for world in (World(), here, anew):
        assert detector.tick(tick(30 * 86400, case, world=world)) == []


def test_route_whose_server_is_gone_for_a_day_clears(detector: RouteAnswers) -> None:
    """Nothing is left that could answer badly."""
    case = open_case(EMPTY, ROUTE, place=PLACE)
    gone = World(cgroups={PLACE: CgroupLook(exists=False)})
    assert detector.tick(tick(86399, case, world=gone)) == []
    (over,) = detector.tick(tick(86400, case, world=gone))
    assert over.reasons[0].code is ReasonCode.CGROUP_GONE


def test_keeps_open_when_source_goes_blind(detector: RouteAnswers) -> None:
    """Blindness is unknown, and good answers before it are not in a row with those after it."""
    case = open_case(EMPTY, ROUTE, evidence=(route_evidence(),))
    for n in range(9):
        detector.observe(exchange(n))
    unknown = detector.observe(blind(10, SENSOR))
    assert {(found.verdict, found.subject) for found in unknown} == {(Verdict.UNKNOWN, None)}
    assert {found.fault_class for found in unknown} == {note.fault_class for note in RouteAnswers.FAULTS}
    detector.observe(seeing(20, SENSOR))
    detector.observe(exchange(21))
    assert detector.tick(tick(30, case)) == []


def test_other_sensors_blindness_says_nothing(detector: RouteAnswers) -> None:
    """Only the route observer's own sight matters."""
    assert detector.observe(blind(1, "kernel.oom_kill")) == ()


def test_new_detector_clears_a_case_of_the_old_one() -> None:
    """After a restart only the open case is known; the good answers since are enough."""
    detector = RouteAnswers.build(Config(), SURROUNDINGS)
    case = open_case(EMPTY, ROUTE, evidence=(route_evidence(),))
    assert detector.tick(tick(1, case)) == []
    for n in range(10):
        detector.observe(exchange(2 + n))
    assert [over.verdict for over in detector.tick(tick(20, case))] == [Verdict.ABSENT]


def test_case_opens_clears_and_opens_again_only_with_new_evidence() -> None:
    """After a clearing the old bad answers no longer count."""
    detector = RouteAnswers.build(Config(), SURROUNDINGS)
    book = CaseBook(agent_id=HOST, kernel_boot_id=KERNEL_BOOT, hysteresis=hysteresis_of([detector]))
    judge = Judge(detectors=[detector], book=book, failed=lambda name, error: pytest.fail(f"{name}: {error}"))
    phases: list[tuple[int, CasePhase]] = []
    for n in range(200):
        bad = n < 10 or n in {150, 160, 170, 180}
        observed = judge.observe([exchange(n, **(NOTHING if bad else {}))], at(n))
        passed = judge.tick(at(n + 0.5), World())
        phases += [(n, body.phase) for body in (*observed.bodies, *passed.bodies)]
    assert [phase for _, phase in phases if phase is not CasePhase.UPDATED] == [
        CasePhase.OPENED,
        CasePhase.CLEARED,
    ]


def test_fault_that_meets_one_in_seven_is_one_case() -> None:
    """Runs of luck within the fault do not close it: one case in a day of 360 answers an hour."""
    detector = RouteAnswers.build(Config(), SURROUNDINGS)
    book = CaseBook(agent_id=HOST, kernel_boot_id=KERNEL_BOOT, hysteresis=hysteresis_of([detector]))
    judge = Judge(detectors=[detector], book=book, failed=lambda name, error: pytest.fail(f"{name}: {error}"))
    chance = random.Random(20261121)
    phases: list[CasePhase] = []
    for n in range(8640):
        facts = NOTHING if chance.random() < 1 / 7 else {}
        observed = judge.observe([exchange(10 * n, **facts)], at(10 * n))
        passed = judge.tick(at(10 * n + 5), World())
        phases += [body.phase for body in (*observed.bodies, *passed.bodies)]
    assert [phase for phase in phases if phase is not CasePhase.UPDATED] == [CasePhase.OPENED]


def test_routes_are_judged_apart(detector: RouteAnswers) -> None:
    """Two empty answers each on three models are no case."""
    bad = (exchange(n, model=f"model-{n % 3}", **NOTHING) for n in range(6))
    assert present(detector, *bad) == []


def test_memory_does_not_grow_with_names(detector: RouteAnswers) -> None:
    """However many models a client makes up, so many routes are kept, and the real one is still judged."""
    for n in range(2000):
        detector.observe(exchange(n / 100, model=f"made-up-{n}", **NOTHING))
        detector.observe(exchange(n / 100))
    assert "256 of 256" in repr(detector)
    found: list[Finding] = []
    for n in range(800):
        found += present(detector, exchange(30 + n / 100, **NOTHING))
    assert {each.subject for each in found} == {ROUTE}
