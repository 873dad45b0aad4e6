"""F04 and F07: answers that break off, large requests that fail, and ends that are neither."""

from __future__ import annotations

from typing import Any

import pytest

from agent.detector import CgroupLook, World
from agent.detectors.route_failures import Config, RouteFailures
from agent.finding import Place, Verdict
from agent.routes.sizes import size_class
from agent.testing import (
    CGROUP_PATH,
    SURROUNDINGS,
    blind,
    exchange,
    in_flight,
    open_case,
    present,
    route_evidence,
    seeing,
    tick,
)
from escalation.model import (
    FaultClass,
    PromptSizeEvidence,
    ReasonCode,
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
BROKEN = FaultClass.ROUTE_BROKEN_STREAM
SIZE = FaultClass.ROUTE_FAILS_REAL_TRAFFIC
ROUTE = Subject(SubjectKind.ROUTE, "8000/chat_completions qwen3-32b")
ID = RouteId(8000, RouteKind.CHAT_COMPLETIONS, "qwen3-32b", ServerKind.VLLM)
CUT: dict[str, Any] = {"ending": Ending.CUT, "finish": FinishReason.NONE, "streamed": True, "duration_s": 0.5}
NO_MARK: dict[str, Any] = {"ending": Ending.UNTERMINATED, "streamed": True}
NO_END: dict[str, Any] = {**NO_MARK, "finish": FinishReason.NONE}
ERROR: dict[str, Any] = {**NO_END, "error_in_answer": True, "error": ErrorKind.UPSTREAM}
FAILED: dict[str, Any] = {"status": 500, "error": ErrorKind.SERVER}
BIG = 256 * 1024


@pytest.fixture
def detector() -> RouteFailures:
    """A detector with its default settings whose sensor sees."""
    made = RouteFailures.build(Config(), SURROUNDINGS)
    made.observe(seeing(0, SENSOR))
    return made


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        (CUT, ReasonCode.STREAMS_CUT),
        ({**CUT, "streamed": False}, ReasonCode.STREAMS_CUT),
        (NO_END, ReasonCode.STREAMS_WITHOUT_END),
        (ERROR, ReasonCode.ERRORS_IN_ANSWERS),
        ({**ERROR, "ending": Ending.COMPLETE}, ReasonCode.ERRORS_IN_ANSWERS),
        ({**ERROR, "ending": Ending.CANCELLED}, ReasonCode.ERRORS_IN_ANSWERS),
        ({"finish": FinishReason.ERROR}, ReasonCode.ERRORS_IN_ANSWERS),
    ],
)
def test_fifth_broken_answer_is_a_case(
    detector: RouteFailures, facts: dict[str, Any], code: ReasonCode
) -> None:
    """Cut, ended without a word, or an error inside: each says which it was."""
    assert present(detector, *(exchange(10 * n, **facts) for n in range(1, 5)), tick(45)) == []
    (found,) = present(detector, exchange(50, **facts), tick(53))
    assert (found.fault_class, found.subject, found.severity) == (BROKEN, ROUTE, Severity.HIGH)
    assert (found.reasons[0].code, found.reasons[0].count, found.count) == (code, 5, 5)


def test_ways_of_breaking_are_counted_together(detector: RouteFailures) -> None:
    """Two cut, two without an end and one error are five broken answers."""
    facts = (CUT, NO_END, CUT, NO_END)
    before = [exchange(10 * n, **each) for n, each in enumerate(facts, 1)]
    (found,) = present(detector, *before, tick(45), exchange(50, **ERROR))
    assert [(reason.code, reason.count) for reason in found.reasons] == [
        (ReasonCode.STREAMS_CUT, 2),
        (ReasonCode.STREAMS_WITHOUT_END, 2),
        (ReasonCode.ERRORS_IN_ANSWERS, 1),
    ]


def test_missing_last_mark_alone_is_a_note(detector: RouteFailures) -> None:
    """A stream that named its finish reason may be a server's dialect."""
    *_, found = present(detector, *(exchange(10 * n, **NO_MARK) for n in range(1, 6)))
    assert (found.severity, found.reasons[-1].code) == (Severity.NOTE, ReasonCode.SECOND_LAYER_UNKNOWN)


@pytest.mark.parametrize(
    "facts",
    [
        {"ending": Ending.CANCELLED, "streamed": True},
        {"ending": Ending.IDLE, "streamed": True},
        {"ending": Ending.CUT, "status": 0, "response_bytes": 0},
        {"error_in_answer": True, "error": ErrorKind.CONTEXT_OVERFLOW},
        {"error_in_answer": True, "error": ErrorKind.RATE_LIMITED},
        {"error_in_answer": True, "error": ErrorKind.BAD_REQUEST},
        {"status": 400, "error": ErrorKind.BAD_REQUEST},
        {"status": 503, "error": ErrorKind.OVERLOADED},
        {"status": 503, "error": ErrorKind.LOADING},
        FAILED,
        {**CUT, "route": Route.OTHER},
    ],
)
def test_end_that_is_not_the_streams_fault_stays_quiet(
    detector: RouteFailures, facts: dict[str, Any]
) -> None:
    """Clients that go away, refusals, requests that were wrong, and pages that are no model's."""
    assert present(detector, *(exchange(10 * n, **facts) for n in range(1, 40))) == []


def test_streams_that_end_with_their_process_are_one_event(detector: RouteFailures) -> None:
    """Forty streams cut at one moment are one; a second death later is the second."""
    for death in range(4):
        together = (exchange(100 * death + n / 100, **{**CUT, "duration_s": 30.0}) for n in range(1, 41))
        assert present(detector, *together, tick(100 * death + 4)) == []
    found = present(detector, exchange(500, **CUT), tick(501), tick(503), tick(504))
    assert [each.count for each in found] == [5]


def test_streams_cut_one_after_another_are_events_of_their_own(detector: RouteFailures) -> None:
    """However fast they follow: a request that began after the last cut was not under way at it."""
    cuts = (exchange(1 + n / 5, **{**CUT, "duration_s": 0.1}) for n in range(5))
    found = present(detector, *cuts, tick(5))
    assert [each.fault_class for each in found] == [BROKEN]


def test_cut_of_a_silent_engine_is_the_stalls(detector: RouteFailures) -> None:
    """What is cut within half a minute of a long silence had stalled before."""
    for n in range(1, 10):
        assert present(detector, in_flight(100 * n, silent_s=40), exchange(100 * n + 5, **CUT)) == []
    for n in range(10, 14):
        assert present(detector, in_flight(100 * n, silent_s=2), exchange(100 * n + 5, **CUT)) == []
    assert len(present(detector, exchange(1500, **CUT), tick(1503))) == 1


def test_broken_streams_clear_with_whole_ones(detector: RouteFailures) -> None:
    """Ten whole streams in a row; cancelled ones count for nothing."""
    case = open_case(BROKEN, ROUTE, evidence=(route_evidence(streamed=5),))
    for n in range(9):
        detector.observe(exchange(n, streamed=True))
        detector.observe(exchange(n, streamed=True, ending=Ending.CANCELLED))
    assert detector.tick(tick(20, case)) == []
    detector.observe(exchange(21, streamed=True))
    assert [over.verdict for over in detector.tick(tick(22, case))] == [Verdict.ABSENT]


@pytest.mark.parametrize(
    "failure",
    [
        CUT,
        {**CUT, "status": 0, "response_bytes": 0},
        NO_END,
        ERROR,
        FAILED,
        {"status": 504, "error": ErrorKind.TIMEOUT},
        {"ending": Ending.CANCELLED, "status": 0, "response_bytes": 0, "duration_s": 120.0},
    ],
)
def test_failures_that_come_with_size_are_a_case_of_their_own(
    detector: RouteFailures, failure: dict[str, Any]
) -> None:
    """Small requests succeed between large ones that fail; no second case is opened for the same cuts."""
    for n in range(12):
        detector.observe(exchange(n))
    found = []
    for n in range(6):
        found += present(detector, exchange(100 + 20 * n, request_bytes=BIG, **failure))
        found += present(detector, tick(103 + 20 * n), exchange(110 + 20 * n))
    assert {each.fault_class for each in found} == {SIZE}
    first = found[0]
    assert (first.severity, first.count) == (Severity.HIGH, 4)
    assert [reason.code for reason in first.reasons] == [
        ReasonCode.LARGE_PROMPTS_FAIL,
        ReasonCode.SMALL_PROMPTS_SUCCEED,
    ]
    assert first.evidence == (
        PromptSizeEvidence(
            id=ID, window_s=3600.0, split_bytes=4096, small=15, small_failed=0, large=4, large_failed=4
        ),
    )


def test_split_lies_where_failures_begin(detector: RouteFailures) -> None:
    """Requests of 40 KB that succeed push the split above them."""
    found = []
    for n in range(12):
        detector.observe(exchange(30 * n))
        detector.observe(exchange(30 * n + 10, request_bytes=40_000))
        found += present(detector, exchange(30 * n + 20, request_bytes=BIG, **FAILED))
    (said,) = found[-1].evidence
    assert isinstance(said, PromptSizeEvidence)
    assert (said.split_bytes, said.small_failed, said.large, said.large_failed) == (65536, 0, 12, 12)


def test_failures_of_every_size_are_no_matter_of_size(detector: RouteFailures) -> None:
    """Where small requests fail as often, size is not what failures have in common."""
    for n in range(60):
        size = BIG if n % 2 else 2048
        facts = FAILED if n % 4 < 2 else {}
        assert present(detector, exchange(10 * n, request_bytes=size, **facts)) == []


def test_outage_that_meets_only_large_requests_is_no_matter_of_size(detector: RouteFailures) -> None:
    """Without small successes between the failures, time may be what they have in common."""
    for n in range(50):
        detector.observe(exchange(n))
    outage = (exchange(100 + n, request_bytes=BIG, **FAILED) for n in range(50))
    assert present(detector, *outage) == []


def test_death_is_laid_to_the_largest_request(detector: RouteFailures) -> None:
    """An engine that dies of a large prompt takes small ones along; these did not fail of themselves."""
    for n in range(12):
        detector.observe(exchange(n))
    found = []
    for n in range(5):
        for k in range(6):
            found += present(detector, exchange(100 * n + 50 + k / 10, **{**CUT, "duration_s": 20.0}))
        found += present(detector, exchange(100 * n + 51, request_bytes=BIG, **{**CUT, "duration_s": 20.0}))
        found += present(detector, tick(100 * n + 60), exchange(100 * n + 90))
    assert {each.fault_class for each in found} == {SIZE}
    (said,) = found[-1].evidence
    assert isinstance(said, PromptSizeEvidence)
    assert (said.small_failed, said.large_failed) == (0, 5)


def sized(split_bytes: int = 65536) -> PromptSizeEvidence:
    """Return what an open case says of sizes."""
    return PromptSizeEvidence(
        id=ID, window_s=3600.0, split_bytes=split_bytes, small=20, small_failed=0, large=5, large_failed=5
    )


def test_size_clears_with_large_successes_only(detector: RouteFailures) -> None:
    """A hundred small successes prove nothing; ten as large as the split do."""
    case = open_case(SIZE, ROUTE, evidence=(sized(),))
    for n in range(100):
        detector.observe(exchange(n))
    for n in range(9):
        detector.observe(exchange(100 + n, request_bytes=BIG))
    assert detector.tick(tick(200, case)) == []
    detector.observe(exchange(201, request_bytes=BIG))
    (over,) = detector.tick(tick(202, case))
    assert (over.verdict, over.reasons[0].code) == (Verdict.ABSENT, ReasonCode.ANSWERS_GOOD_AGAIN)


def test_failure_begins_the_row_of_large_successes_anew(detector: RouteFailures) -> None:
    """Nine, a failure, and nine are not ten."""
    case = open_case(SIZE, ROUTE, evidence=(sized(),))
    for n in range(19):
        detector.observe(exchange(n, request_bytes=BIG, **(FAILED if n == 9 else {})))
    assert detector.tick(tick(200, case)) == []


@pytest.mark.parametrize("fault", [BROKEN, SIZE])
def test_silence_never_clears(detector: RouteFailures, fault: FaultClass) -> None:
    """Only a server that is gone for a day does."""
    place = Place(CgroupId(2305), CGROUP_PATH)
    case = open_case(fault, ROUTE, place=place)
    assert detector.tick(tick(30 * 86400, case)) == []
    gone = World(cgroups={place: CgroupLook(exists=False)})
    assert detector.tick(tick(86399, case, world=gone)) == []
    assert [over.reasons[0].code for over in detector.tick(tick(86400, case, world=gone))] == [
        ReasonCode.CGROUP_GONE
    ]


def test_keeps_open_when_source_goes_blind(detector: RouteFailures) -> None:
    """Blindness is unknown for both faults, and parts the rows of good answers."""
    cases = (
        open_case(BROKEN, ROUTE, evidence=(route_evidence(),)),
        open_case(SIZE, ROUTE, evidence=(sized(4096),)),
    )
    for n in range(9):
        detector.observe(exchange(n, request_bytes=BIG))
    unknown = detector.observe(blind(10, SENSOR))
    assert [(found.verdict, found.fault_class) for found in unknown] == [
        (Verdict.UNKNOWN, BROKEN),
        (Verdict.UNKNOWN, SIZE),
    ]
    detector.observe(seeing(20, SENSOR))
    detector.observe(exchange(21, request_bytes=BIG))
    assert detector.tick(tick(30, *cases)) == []


def test_new_detector_clears_cases_of_the_old_one() -> None:
    """After a restart the evidence of the open case says what must succeed."""
    detector = RouteFailures.build(Config(), SURROUNDINGS)
    cases = (
        open_case(BROKEN, ROUTE, evidence=(route_evidence(streamed=3),)),
        open_case(SIZE, ROUTE, evidence=(sized(),)),
    )
    for n in range(10):
        detector.observe(exchange(n, request_bytes=BIG, streamed=bool(n % 2)))
    assert [over.fault_class for over in detector.tick(tick(20, *cases))] == [BROKEN, SIZE]


@pytest.mark.parametrize(
    ("size", "expected"), [(0, 0), (4095, 0), (4096, 1), (8191, 1), (8192, 2), (524_288, 8), (1 << 40, 8)]
)
def test_size_class_doubles(size: int, expected: int) -> None:
    """From under 4 KB to 512 KB and more."""
    assert size_class(size) == expected


def test_memory_is_bounded_by_ports_and_routes(detector: RouteFailures) -> None:
    """A host that opens many ports, and a client that makes up models, cost what a few do."""
    for n in range(1000):
        detector.observe(exchange(n, port=1 + n, model=f"m{n}", **NO_END))
        detector.observe(exchange(n, port=1 + n, model=f"m{n}", **CUT))
        detector.observe(in_flight(n, port=1 + n, silent_s=60))
    assert repr(detector).count("256 of 256") == 2
    assert (len(detector._deaths), len(detector._silent_ns)) == (64, 64)
