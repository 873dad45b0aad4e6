"""From bytes on the wire to a fault: the observer's facts mean to the detectors what they were meant to."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from agent.detector import Detector
from agent.detectors.registry import DETECTORS
from agent.finding import Finding, Verdict
from agent.testing import SURROUNDINGS, origin, seeing, tick
from escalation.model import FaultClass
from probes.http.facts import ExchangeFacts, FlightFacts, UnobservedFacts
from probes.http.observer import Observer
from probes.http.segment import FIN
from probes.observation import Exchange, Instant, Observation, RequestsInFlight, SensorName, Unobserved
from tests.probes.http.wire import Wire

SENSOR = SensorName("http.routes")
SECOND = 1_000_000_000
LAST = b"0\r\n\r\n"
WORDS = "Paris is the capital of France, as far as anybody here can tell you today. "

Play = Callable[[Wire], Wire]


def whole(answer: object, status: str = "200 OK") -> bytes:
    """Return a whole answer."""
    body = json.dumps(answer).encode()
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


def chat(content: str | None, finish: str = "stop", **message: Any) -> bytes:
    """Return a whole answer to a conversation."""
    return whole(
        {
            "object": "chat.completion",
            "model": "m",
            "choices": [{"index": 0, "message": {"content": content, **message}, "finish_reason": finish}],
            "usage": {"prompt_tokens": 90, "completion_tokens": 200, "total_tokens": 290},
        }
    )


def event(delta: object, finish: str | None = None) -> bytes:
    """Return one event of a stream."""
    said = {
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return chunk(b"data: " + json.dumps(said).encode() + b"\n\n")


def chunk(data: bytes) -> bytes:
    """Return a chunk of a chunked body."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
FIRST = event({"role": "assistant", "content": ""})
WORD = event({"content": WORDS})
STOP = event({}, "stop")
DONE = chunk(b"data: [DONE]\n\n")
BROKEN = chunk(b'data: {"error": {"message": "boom", "type": "InternalServerError", "code": 500}}\n\n')
REFUSED = {"error": {"message": "This model's maximum context length is 8192 tokens.", "code": 400}}
COOLING = {
    "error": {
        "message": "No deployments available for selected model, Try again in 60 seconds",
        "code": "429",
    }
}
BUSY = {"error": "server busy, please try again.  maximum pending requests exceeded"}


def says(*pieces: bytes) -> Play:
    """Return a server that answers and keeps the connection."""
    return lambda wire: wire.server(*pieces)


def hangs_up_after(*pieces: bytes) -> Play:
    """Return a server that begins to answer and closes."""
    return lambda wire: wire.server(*pieces).server(flags=FIN)


def leaves_after(*pieces: bytes) -> Play:
    """Return a client that has seen enough."""
    return lambda wire: wire.server(*pieces).client(flags=FIN).wait(0.01).server(flags=FIN)


GOOD = says(chat(WORDS))


def asked(number: int) -> Wire:
    """Return a connection with one request on it."""
    body = json.dumps(
        {"model": "m", "messages": [{"role": "user", "content": WORDS}], "stream": True, "max_tokens": 200}
    ).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    wire = Wire(connection=number, at_ns=(100 + 10 * number) * SECOND)
    return wire.opened().client(head + body).wait(1.0)


def dressed(facts: ExchangeFacts | FlightFacts | UnobservedFacts) -> Observation:
    """Return what the sensor makes of facts."""
    moment = Instant(facts.at_ns, facts.at_ns)
    match facts:
        case ExchangeFacts():
            return Exchange(SENSOR, moment, origin(), facts)
        case FlightFacts():
            return RequestsInFlight(SENSOR, moment, origin(), facts)
        case UnobservedFacts():
            return Unobserved(SENSOR, moment, origin(), facts)


def judged(detectors: Sequence[Detector], observation: Observation) -> list[Finding]:
    """Return what all detectors find present."""
    found = [each for one in detectors for each in one.observe(observation)]
    return [each for each in found if each.verdict is Verdict.PRESENT]


def detectors_of_routes() -> list[Detector]:
    """Return fresh ones with their default settings."""
    made = [kind.build(kind.SETTINGS(), SURROUNDINGS) for kind in DETECTORS if kind.NAME.startswith("route_")]
    for detector in made:
        detector.observe(seeing(0, SENSOR))
    return made


def faults_of(plays: Sequence[Play]) -> set[FaultClass]:
    """Return what is found when connections play out one after another."""
    observer, detectors = Observer(), detectors_of_routes()
    found: list[Finding] = []
    for number, play in enumerate(plays):
        wire = play(asked(number))
        for segment in wire.segments:
            observer.feed(segment)
        observer.advance(wire.at_ns + 8 * SECOND)
        for facts in observer.take():
            found += judged(detectors, dressed(facts))
        for detector in detectors:
            found += detector.tick(tick(wire.at_ns / SECOND + 8))
    return {each.fault_class for each in found}


@pytest.mark.parametrize(
    ("play", "fault"),
    [
        (says(chat("")), FaultClass.ROUTE_EMPTY_COMPLETION),
        (says(chat(None)), FaultClass.ROUTE_EMPTY_COMPLETION),
        (says(HEAD, FIRST, STOP, DONE, LAST), FaultClass.ROUTE_EMPTY_COMPLETION),
        (says(chat(None, "length", reasoning=WORDS)), FaultClass.ROUTE_REASONING_BUDGET_EXHAUSTED),
        (says(chat("", "length", reasoning_content=WORDS)), FaultClass.ROUTE_REASONING_BUDGET_EXHAUSTED),
        (says(chat(None, "stop", reasoning=WORDS)), FaultClass.ROUTE_ANSWER_MISROUTED),
        (says(chat(f"<think>{WORDS * 4}</think>{WORDS * 4}")), FaultClass.ROUTE_ANSWER_MISROUTED),
        (says(chat(WORDS * 20, "length")), FaultClass.ROUTE_DEGENERATE_OUTPUT),
        (says(chat("!" * 900, "length")), FaultClass.ROUTE_DEGENERATE_OUTPUT),
        (says(chat("\n \n" * 300, "length")), FaultClass.ROUTE_DEGENERATE_OUTPUT),
        (hangs_up_after(HEAD, FIRST, WORD), FaultClass.ROUTE_BROKEN_STREAM),
        (hangs_up_after(chat(WORDS)[:-40]), FaultClass.ROUTE_BROKEN_STREAM),
        (says(HEAD, FIRST, WORD, LAST), FaultClass.ROUTE_BROKEN_STREAM),
        (says(HEAD, FIRST, WORD, STOP, LAST), FaultClass.ROUTE_BROKEN_STREAM),
        (says(HEAD, FIRST, BROKEN, DONE, LAST), FaultClass.ROUTE_BROKEN_STREAM),
        (says(HEAD, FIRST, BROKEN, LAST), FaultClass.ROUTE_BROKEN_STREAM),
        (says(whole(REFUSED, "400 Bad Request")), FaultClass.ROUTE_CONTEXT_OVERFLOW),
        (says(whole(COOLING, "429 Too Many Requests")), FaultClass.ROUTE_ROUTER_COOLDOWN),
        (says(whole(BUSY, "503 Service Unavailable")), FaultClass.ROUTE_SATURATED),
        (GOOD, None),
        (says(HEAD, FIRST, WORD, STOP, DONE, LAST), None),
        (leaves_after(HEAD, FIRST, WORD), None),
        (says(chat(WORDS, "length")), None),
        (says(chat(" ".join(f"{n} is followed by {n + 1}." for n in range(200)), "length")), None),
        (says(whole({"error": {"message": "Loading model", "code": 503}}, "503 Service Unavailable")), None),
    ],
)
def test_bytes_become_the_fault_that_they_are(play: Play, fault: FaultClass | None) -> None:
    """Good answers first, then one shape again and again: that fault and no other."""
    assert faults_of([GOOD] * 5 + [play] * 15) == ({fault} if fault else set())


def test_requests_without_a_byte_become_a_stall() -> None:
    """Two connections wait; the observer tells of them, and nothing else happens."""
    observer, detectors = Observer(), detectors_of_routes()
    wires = [asked(1), asked(2)]
    for wire in wires:
        for segment in wire.segments:
            observer.feed(segment)
    found: list[Finding] = []
    for second in range(130, 900, 5):
        observer.advance(second * SECOND)
        for facts in (*observer.take(), *observer.in_flight(second * SECOND)):
            found += judged(detectors, dressed(facts))
    assert {each.fault_class for each in found} == {FaultClass.ROUTE_ENGINE_STALLED}
    assert 600 <= found[0].at.boot_ns / SECOND - 110 <= 610


def test_stream_that_goes_on_is_no_stall_for_those_that_wait() -> None:
    """One stream says a word every ten seconds for twenty minutes; another request waits for its turn."""
    observer, detectors = Observer(), detectors_of_routes()
    for segment in asked(1).segments:
        observer.feed(segment)
    stream = asked(2).server(HEAD, FIRST)
    found: list[Finding] = []
    for second in range(130, 1330, 5):
        if second % 10 == 0:
            stream.at_ns = second * SECOND
            stream.server(WORD)
        for segment in stream.segments:
            observer.feed(segment)
        stream.segments.clear()
        observer.advance(second * SECOND)
        for facts in (*observer.take(), *observer.in_flight(second * SECOND)):
            found += judged(detectors, dressed(facts))
    assert found == []
