"""F09: engines that have stopped answering, and engines that are only busy."""

from __future__ import annotations

from typing import Any

import pytest

from agent.detector import CgroupLook, World
from agent.detectors.route_stall import Config, RouteStall
from agent.finding import Finding, Place, Verdict
from agent.testing import (
    CGROUP_PATH,
    SURROUNDINGS,
    at,
    blind,
    exchange,
    in_flight,
    open_case,
    origin,
    present,
    seeing,
    server_metrics,
    tick,
    unobserved,
)
from escalation.model import (
    FaultClass,
    FlightEvidence,
    MetricEvidence,
    ReasonCode,
    RouteId,
    RouteKind,
    ServerKind,
    Severity,
    Subject,
    SubjectKind,
)
from probes.http.facts import Ending, ErrorKind, Route, UnobservedReason
from probes.observation import CgroupId, Observation, Origin, ServerKind as Kind

SENSOR = "http.routes"
FAULT = FaultClass.ROUTE_ENGINE_STALLED
ROUTE = Subject(SubjectKind.ROUTE, "8000/chat_completions qwen3-32b")
PLACE = Place(CgroupId(2305), CGROUP_PATH)
LEARNT_S = 300.0
"""When `learnt` is over."""


@pytest.fixture
def detector() -> RouteStall:
    """A detector that has seen thirty streams on the port, the slowest of which began after 0.4 s."""
    return learnt()


def learnt(**facts: Any) -> RouteStall:
    """Return a detector that knows its port."""
    made = RouteStall.build(Config(), SURROUNDINGS)
    made.observe(seeing(0, SENSOR))
    for n in range(30):
        made.observe(exchange(10 * n, **{"streamed": True, **facts}))
    return made


def silence(detector: RouteStall, seconds: float, *, since: float = LEARNT_S, **flight: Any) -> list[Finding]:
    """Let requests wait without a byte for `seconds`, told every 5 s; return what is found meanwhile."""
    steps = range(1, int(seconds // 5) + 1)
    return present(detector, *(in_flight(since + 5 * n, oldest_s=5.0 * n, **flight) for n in steps))


def first_at(found: list[Finding]) -> float:
    """Return how long after `LEARNT_S` the first finding came."""
    return found[0].at.since_s(at(LEARNT_S))


def test_silence_beyond_patience_is_a_critical_case(detector: RouteStall) -> None:
    """Two requests wait for two minutes on a port whose answers began at once."""
    found = silence(detector, 200)
    assert 120 <= first_at(found) <= 125
    first = found[0]
    assert (first.fault_class, first.subject, first.severity) == (FAULT, ROUTE, Severity.CRITICAL)
    assert (first.lifebound, first.place, first.count) == (True, PLACE, 1)
    assert first.evidence == (
        FlightEvidence(
            id=RouteId(8000, RouteKind.CHAT_COMPLETIONS, "qwen3-32b", ServerKind.VLLM),
            requests=2,
            waiting=2,
            oldest_s=125.0,
            silent_s=125.0,
            patience_s=122.56,
            largest_request_bytes=2048,
        ),
    )
    assert [reason.code for reason in first.reasons] == [ReasonCode.NO_BYTES_WHILE_IN_FLIGHT]
    assert {each.count for each in found[1:]} == {0}


def test_one_request_alone_is_a_note_until_a_second_waits(detector: RouteStall) -> None:
    """It may be at fault itself; that a second one has no answer either is the second witness."""
    found = silence(detector, 130, requests=1)
    assert (found[0].severity, found[0].reasons[-1].code) == (
        Severity.NOTE,
        ReasonCode.SECOND_LAYER_UNKNOWN,
    )
    (worse,) = present(detector, in_flight(LEARNT_S + 135, requests=2, oldest_s=135))
    assert (worse.severity, worse.count) == (Severity.CRITICAL, 0)


def test_one_silence_is_one_case_however_many_routes_wait(detector: RouteStall) -> None:
    """Chat, embeddings and another model wait on one engine: one case, three witnesses."""
    found: list[Finding] = []
    for n in range(1, 60):
        waits = {"requests": 1, "oldest_s": 5.0 * n}
        found += present(
            detector,
            in_flight(LEARNT_S + 5 * n, **waits),
            in_flight(LEARNT_S + 5 * n, route=Route.EMBEDDINGS, **waits),
            in_flight(LEARNT_S + 5 * n, model="another", **waits),
        )
    assert {each.subject for each in found} == {ROUTE}
    assert {(each.severity, each.reasons[0].count) for each in found} == {(Severity.CRITICAL, 3)}


def test_clients_that_give_up_and_try_again_do_not_hide_it(detector: RouteStall) -> None:
    """No single request waits long, but none is ever answered."""
    found: list[Finding] = []
    for n in range(5):
        start = LEARNT_S + 50 * n
        found += silence(detector, 45, since=start, requests=1)
        gone = exchange(start + 48, ending=Ending.CANCELLED, status=0, response_bytes=0, duration_s=48.0)
        found += present(detector, gone)
    assert {each.severity for each in found} == {Severity.CRITICAL}


def test_requests_of_yesterday_are_no_silence_of_today(detector: RouteStall) -> None:
    """A client that gave up an hour ago began another row of attempts."""
    gone = exchange(LEARNT_S, ending=Ending.CANCELLED, status=0, response_bytes=0, duration_s=20.0)
    detector.observe(gone)
    assert silence(detector, 100, since=LEARNT_S + 3600) == []


def test_stream_that_had_begun_and_fell_silent_is_found(detector: RouteStall) -> None:
    """The last byte of any of them is what counts."""
    told = (
        in_flight(LEARNT_S + 5 * n, waiting=0, oldest_s=5.0 * n + 60, silent_s=5.0 * n) for n in range(30)
    )
    found = present(detector, *told)
    assert 120 <= first_at(found) <= 125


@pytest.mark.parametrize(
    "sign",
    [
        {},
        {"model": "another"},
        {"route": Route.EMBEDDINGS},
        {"status": 503, "error": ErrorKind.LOADING},
        {"status": 500, "error": ErrorKind.SERVER},
        {"ending": Ending.CUT, "status": 0, "response_bytes": 0},
        {"ending": Ending.UNTERMINATED, "streamed": True},
    ],
    ids=lambda sign: " ".join(sign) or "answer",
)
def test_whatever_ends_on_the_port_begins_its_silence_anew(
    detector: RouteStall, sign: dict[str, Any]
) -> None:
    """An answer to anybody, a refusal, a closed connection: that is no stalled engine."""
    for n in range(1, 100):
        assert present(detector, in_flight(LEARNT_S + 5 * n, oldest_s=5.0 * n)) == []
        if n % 20 == 0:
            detector.observe(exchange(LEARNT_S + 5 * n + 1, **sign))


def test_health_page_is_no_sign_of_life(detector: RouteStall) -> None:
    """A stalled engine goes on answering it."""
    found: list[Finding] = []
    for n in range(1, 40):
        found += present(detector, in_flight(LEARNT_S + 5 * n, oldest_s=5.0 * n))
        found += present(detector, exchange(LEARNT_S + 5 * n + 1, route=Route.OTHER, model=None))
    assert found


def test_other_ports_answers_are_no_sign_of_life(detector: RouteStall) -> None:
    """Another engine lives; this one does not."""
    found: list[Finding] = []
    for n in range(1, 40):
        found += present(detector, in_flight(LEARNT_S + 5 * n, oldest_s=5.0 * n))
        found += present(detector, exchange(LEARNT_S + 5 * n + 1, port=8001))
    assert {each.subject for each in found} == {ROUTE}


def test_queue_that_moves_is_busy(detector: RouteStall) -> None:
    """Forty requests wait for ten minutes while one streams."""
    told = (
        in_flight(LEARNT_S + 5 * n, requests=40, waiting=39, oldest_s=5.0 * n, silent_s=0.2)
        for n in range(1, 120)
    )
    assert present(detector, *told) == []


def test_patience_grows_with_the_largest_request(detector: RouteStall) -> None:
    """400 KB take 500 s to read in at 800 bytes a second, for small requests in the queue too."""
    found: list[Finding] = []
    for n in range(1, 140):
        found += present(
            detector,
            in_flight(LEARNT_S + 5 * n, requests=1, oldest_s=5.0 * n, largest_request_bytes=400_000),
            in_flight(LEARNT_S + 5 * n, model="another", requests=1, oldest_s=5.0 * n),
        )
    assert 620 <= first_at(found) <= 630


def test_patience_grows_with_the_slowest_good_answer() -> None:
    """Three times as long as this port once took and was well."""
    found = silence(learnt(first_token_s=100.0), 400)
    assert 300 <= first_at(found) <= 305


def test_one_answer_after_a_stall_is_no_new_pace() -> None:
    """An engine that came back after half an hour is not given an hour and a half from then on."""
    detector = learnt()
    detector.observe(exchange(LEARNT_S, streamed=True, first_token_s=1800.0, duration_s=1801.0))
    found = silence(detector, 300)
    assert 180 <= first_at(found) <= 185


def test_patience_has_an_end() -> None:
    """An hour, whatever was learnt."""
    found = silence(learnt(first_token_s=9000.0), 3700)
    assert 3600 <= first_at(found) <= 3605


@pytest.mark.parametrize(
    ("facts", "idle_s", "where"),
    [
        ({"streamed": False}, 0.0, origin()),
        ({}, 1000.0, origin(server=Kind.OLLAMA)),
    ],
    ids=["whole answers", "unloaded model"],
)
def test_patience_is_longer_before_an_answer_begins(
    facts: dict[str, Any], idle_s: float, where: Origin
) -> None:
    """A whole answer says nothing until it is done; an idle server may have to load its model."""
    assert silence(learnt(**facts), 590, since=LEARNT_S + idle_s, where=where) == []
    assert silence(learnt(**facts), 650, since=LEARNT_S + idle_s, where=where)


def test_unknown_port_is_given_ten_minutes() -> None:
    """After a restart of the agent nothing is known of its pace."""
    fresh = RouteStall.build(Config(), SURROUNDINGS)
    found = silence(fresh, 700)
    assert 600 <= first_at(found) <= 605


def test_resident_model_is_not_given_time_to_load(detector: RouteStall) -> None:
    """vLLM never unloads: after an idle hour patience is as before."""
    found = silence(detector, 200, since=LEARNT_S + 3600)
    assert 3720 <= first_at(found) <= 3725


@pytest.mark.parametrize(
    "unseen",
    [
        seeing(LEARNT_S + 1, SENSOR, lost=1),
        unobserved(LEARNT_S + 1),
        unobserved(LEARNT_S + 1, reason=UnobservedReason.TOO_MANY),
    ],
    ids=["records lost", "exchange lost", "too many"],
)
def test_what_is_not_seen_is_no_silence(detector: RouteStall, unseen: Observation) -> None:
    """A stream that the sensor no longer knows may go on for ten minutes; then silence counts again."""
    detector.observe(unseen)
    found = silence(detector, 800)
    assert 721 <= first_at(found) <= 730


def test_garbage_hides_no_stall(detector: RouteStall) -> None:
    """Somebody scans the port: what is no HTTP is not the engine's work."""
    detector.observe(unobserved(LEARNT_S + 1, reason=UnobservedReason.NOT_HTTP))
    assert 120 <= first_at(silence(detector, 200)) <= 125


def test_clears_when_the_engine_answers_twice(detector: RouteStall) -> None:
    """One good answer may have been lucky; errors are none."""
    silence(detector, 200)
    case = open_case(FAULT, ROUTE, last_seen=at(500))
    detector.observe(exchange(600, status=500, error=ErrorKind.SERVER))
    detector.observe(exchange(601, streamed=True))
    assert detector.tick(tick(602, case)) == []
    detector.observe(exchange(603, streamed=True, model="another"))
    (over,) = detector.tick(tick(604, case))
    assert (over.verdict, over.subject) == (Verdict.ABSENT, ROUTE)
    assert (over.reasons[0].code, over.reasons[0].count) == (ReasonCode.ENGINE_ANSWERS_AGAIN, 2)


def test_answers_before_the_stall_do_not_clear_it(detector: RouteStall) -> None:
    """Thirty good answers came first."""
    silence(detector, 200)
    assert detector.tick(tick(501, open_case(FAULT, ROUTE, last_seen=at(500)))) == []


def test_restarted_engine_is_no_answer_yet(detector: RouteStall) -> None:
    """Neither silence nor a new cgroup clears; only one that is gone for a day does."""
    silence(detector, 200)
    case = open_case(FAULT, ROUTE, last_seen=at(0), place=PLACE)
    anew = World(cgroups={PLACE: CgroupLook(exists=True, populated=True, same=False)})
    assert detector.tick(tick(30 * 86400, case, world=anew)) == []
    gone = World(cgroups={PLACE: CgroupLook(exists=False)})
    assert [over.reasons[0].code for over in detector.tick(tick(86400, case, world=gone))] == [
        ReasonCode.CGROUP_GONE
    ]


def test_new_detector_clears_a_case_of_the_old_one() -> None:
    """After a restart two good answers are enough."""
    detector = RouteStall.build(Config(), SURROUNDINGS)
    case = open_case(FAULT, ROUTE)
    assert detector.tick(tick(1, case)) == []
    for n in range(2):
        detector.observe(exchange(2 + n))
    assert [over.verdict for over in detector.tick(tick(5, case))] == [Verdict.ABSENT]


def test_keeps_open_when_source_goes_blind(detector: RouteStall) -> None:
    """Blindness is unknown; what was silent before it counts no more, nor do the answers before it."""
    case = open_case(FAULT, ROUTE)
    silence(detector, 100)
    (unknown,) = detector.observe(blind(LEARNT_S + 101, SENSOR))
    assert (unknown.verdict, unknown.subject) == (Verdict.UNKNOWN, None)
    detector.observe(seeing(LEARNT_S + 102, SENSOR))
    assert present(detector, in_flight(LEARNT_S + 150, oldest_s=150)) == []
    assert detector.tick(tick(LEARNT_S + 200, case)) == []


def test_case_of_a_subject_that_is_no_route_is_left_alone(detector: RouteStall) -> None:
    """Names come from a note on disk, and may be anything."""
    case = open_case(FAULT, Subject(SubjectKind.ROUTE, "no port at all"))
    assert detector.tick(tick(1000, case)) == []


def test_memory_is_bounded_by_ports_and_flights(detector: RouteStall) -> None:
    """Many ports, and many models under way on one, cost what a few do."""
    for n in range(500):
        detector.observe(in_flight(LEARNT_S, port=1 + n))
        detector.observe(in_flight(LEARNT_S, model=f"m{n}"))
    assert len(detector._ports) == 64
    assert len(detector._ports[8000].flights) <= 64


def test_a_count_of_tokens_that_stands_still_is_a_second_witness(detector: RouteStall) -> None:
    """One request alone, and the server's own numbers agree: critical, with both in the evidence."""
    found: list[Finding] = []
    for n in range(1, 27):
        since = LEARNT_S + 5 * n
        if n % 3 == 0:
            found += present(detector, server_metrics(since, requests_running=1, generated_tokens=900))
        found += present(detector, in_flight(since, requests=1, oldest_s=5.0 * n))
    first = found[0]
    assert first.severity is Severity.CRITICAL
    assert [reason.code for reason in first.reasons] == [
        ReasonCode.NO_BYTES_WHILE_IN_FLIGHT,
        ReasonCode.TOKEN_COUNTERS_FLAT,
    ]
    assert [type(each) for each in first.evidence] == [FlightEvidence, MetricEvidence]


def test_tokens_that_a_server_counts_are_a_sign_of_life(detector: RouteStall) -> None:
    """No byte on the wire, but the engine generates: whatever holds the bytes back, it is not stalled."""
    found: list[Finding] = []
    for n in range(1, 60):
        since = LEARNT_S + 5 * n
        if n % 3 == 0:
            told = server_metrics(since, requests_running=2, generated_tokens=900 + n)
            found += present(detector, told)
        found += present(detector, in_flight(since, oldest_s=5.0 * n))
    assert found == []


def test_how_slow_a_port_is_when_all_is_well_is_known_after_a_restart() -> None:
    """A port whose answers begin after five minutes is not stalled in the first minutes of the next agent."""
    slow = learnt(first_token_s=300.0, duration_s=400.0)
    again = RouteStall.build(Config(), SURROUNDINGS)
    nonsense = {
        "8001": b"{}",
        "x": slow.memory()["8000"],
        "8002": b'{"good":1,"whole_share":2,"slowest_s":0}',
    }
    assert again.recall(slow.memory() | nonsense) == len(nonsense)
    assert again.memory() == slow.memory()
    again.observe(seeing(LEARNT_S, SENSOR))
    assert silence(again, 700) == silence(slow, 700) == []
    fresh = RouteStall.build(Config(), SURROUNDINGS)
    fresh.observe(seeing(LEARNT_S, SENSOR))
    assert silence(fresh, 700) != []


def test_a_model_that_may_have_been_unloaded_before_a_restart_has_time_to_load(
    detector: RouteStall,
) -> None:
    """Nobody knows how long the port was idle: its first answer waits as after a long time."""
    again = RouteStall.build(Config(), SURROUNDINGS)
    again.recall(detector.memory())
    again.observe(seeing(LEARNT_S, SENSOR))
    ollama = origin(server=Kind.OLLAMA)
    assert silence(again, 550, where=ollama) == []
    assert silence(detector, 550, where=ollama) != []


def test_what_it_recalls_is_bounded(detector: RouteStall) -> None:
    """A memory that somebody else wrote may be of any size."""
    raw = detector.memory()["8000"]
    again = RouteStall.build(Config(), SURROUNDINGS)
    again.recall({str(port): raw for port in range(1, 500)})
    assert len(again.memory()) == 64
