"""Hostile input: whatever a client calls a model and whatever facts come, every report can be sent."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from agent.case_notes import decode as decode_note
from agent.cases import CaseBook
from agent.detector import World
from agent.detectors.registry import DETECTORS
from agent.judge import Judge, hysteresis_of
from agent.testing import HOST, KERNEL_BOOT, SURROUNDINGS, at
from escalation.model import BootId, Report
from escalation.wire.codec import decode, encode
from probes.http.facts import (
    Ending,
    ErrorKind,
    ExchangeFacts,
    FinishReason,
    FlightFacts,
    Route,
    RouteName,
    TextMeasure,
    UnobservedFacts,
    UnobservedReason,
)
from probes.observation import Exchange, Observation, Origin, RequestsInFlight, SensorName, Unobserved

SENSOR = SensorName("http.routes")
MODELS = st.one_of(
    st.none(),
    st.text(alphabet=st.characters(), max_size=40),
    st.sampled_from(
        ["\udcff\udc80", "\x00\x1b[2J", "a" * 5000, "é" * 700, "\u202ereversed", "8000/chat", ""]
    ),
)
NAMES = st.builds(RouteName, st.integers(1, 65535) | st.just(8000), st.sampled_from(Route), MODELS)
COUNT = st.integers(0, 2**40)
MAYBE = st.none() | COUNT
SECONDS = st.floats(0, 1e9)
RATIO = st.floats(0, 1)
TEXTS = st.none() | st.builds(
    TextMeasure,
    characters=COUNT,
    repeated=RATIO,
    longest_run=COUNT,
    whitespace=RATIO,
    distinct=RATIO,
    entropy_bits=st.floats(0, 20),
    undecodable=RATIO,
)
EXCHANGES = st.builds(
    ExchangeFacts,
    name=NAMES,
    at_ns=st.integers(0, 10**13),
    cgroup_id=COUNT,
    status=st.sampled_from([0, 200, 204, 302, 400, 429, 500, 503, 999]),
    ending=st.sampled_from(Ending),
    finish=st.sampled_from(FinishReason),
    error=st.none() | st.sampled_from(ErrorKind),
    error_in_answer=st.booleans(),
    streamed=st.booleans(),
    max_tokens=MAYBE,
    request_bytes=COUNT,
    response_bytes=COUNT,
    duration_s=SECONDS,
    first_byte_s=st.none() | SECONDS,
    first_token_s=st.none() | SECONDS,
    longest_gap_s=SECONDS,
    choices_seen=st.booleans(),
    content_characters=COUNT,
    reasoning_characters=COUNT,
    tool_calls=st.integers(0, 3),
    tool_calls_valid=st.none() | st.booleans(),
    reasoning_marks_in_content=st.booleans(),
    prompt_tokens=MAYBE,
    completion_tokens=MAYBE,
    reasoning_tokens=MAYBE,
    content=TEXTS,
    reasoning=TEXTS,
)
FLIGHTS = st.builds(
    FlightFacts,
    name=NAMES,
    at_ns=st.integers(0, 10**13),
    cgroup_id=COUNT,
    requests=st.integers(0, 10**6),
    waiting=st.integers(0, 10**6),
    oldest_s=SECONDS,
    silent_s=SECONDS,
    largest_request_bytes=COUNT,
)
LOST = st.builds(
    UnobservedFacts,
    port=st.integers(1, 65535),
    reason=st.sampled_from(UnobservedReason),
    count=COUNT,
    at_ns=st.integers(0, 10**13),
)


def observed(facts: ExchangeFacts | FlightFacts | UnobservedFacts) -> Observation:
    """Dress facts as the sensor does, with an origin of which nothing is known."""
    moment = at(facts.at_ns / 1e9)
    match facts:
        case ExchangeFacts():
            return Exchange(SENSOR, moment, Origin(), facts)
        case FlightFacts():
            return RequestsInFlight(SENSOR, moment, Origin(), facts)
        case UnobservedFacts():
            return Unobserved(SENSOR, moment, Origin(), facts)


@settings(max_examples=150)
@given(st.lists(st.tuples(EXCHANGES | FLIGHTS | LOST, st.integers(1, 6)), min_size=1, max_size=12))
def test_every_report_about_routes_can_be_sent_and_every_note_kept(
    said: list[tuple[ExchangeFacts | FlightFacts | UnobservedFacts, int]],
) -> None:
    """No detector raises, and what comes of it survives the codec and the case notes."""
    detectors = [kind.build(kind.SETTINGS(), SURROUNDINGS) for kind in DETECTORS]
    book = CaseBook(agent_id=HOST, kernel_boot_id=KERNEL_BOOT, hysteresis=hysteresis_of(detectors))
    raised: list[tuple[str, Exception]] = []
    judge = Judge(detectors=detectors, book=book, failed=lambda name, error: raised.append((name, error)))
    for facts, times in said:
        for _ in range(times):
            observation = observed(facts)
            changes = judge.observe([observation], observation.at)
            passed = judge.tick(observation.at, World())
            for body in (*changes.bodies, *passed.bodies):
                report = Report(
                    agent_id=HOST,
                    boot_id=BootId(KERNEL_BOOT),
                    sequence=1,
                    created_ns=observation.at.unix_ns,
                    body=body,
                )
                assert decode(encode(report)) == report
            for note in (*changes.notes.values(), *passed.notes.values()):
                assert note is None or decode_note(note) is not None
    assert raised == []
