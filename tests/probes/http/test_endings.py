"""How exchanges end, what is not judged and why, and what is held meanwhile."""

from __future__ import annotations

import pytest

from probes.http.facts import Ending, Route, RouteName, UnobservedReason
from probes.http.observer import Observer, ObserverSettings
from probes.http.segment import FIN, RST, Segment
from tests.probes.http.servers import VLLM
from tests.probes.http.wire import (
    DONE,
    LAST_CHUNK,
    Seen,
    Wire,
    chat,
    chunk,
    observe,
    post,
    response,
    seen,
    sse,
    stream_head,
)

S = 1_000_000_000
OK = response(
    b'{"choices":[{"message":{"content":"fine"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}'
)
EVENTS = [sse(event) for event in VLLM.events()]


def under_way() -> Wire:
    """A stream of which three events have come."""
    wire = Wire().opened().client(chat(stream=True)).wait(0.1).server(stream_head())
    for event in EVENTS[:3]:
        wire.wait(0.1).server(chunk(event))
    return wire.wait(0.1)


@pytest.mark.parametrize("flags", [FIN, RST])
def test_a_server_that_closes_inside_an_answer_cuts_it(flags: int) -> None:
    """Killed, crashed, or a proxy that gave up."""
    facts = observe(under_way().server(flags=flags).segments).one
    assert (facts.status, facts.ending, facts.chunks) == (200, Ending.CUT, 3)
    assert facts.content_characters > 0


@pytest.mark.parametrize("flags", [FIN, RST])
def test_a_server_that_closes_before_an_answer_cuts_it_too(flags: int) -> None:
    """There is no status then."""
    facts = observe(Wire().client(chat()).wait(2).server(flags=flags).segments).one
    assert (facts.status, facts.ending, facts.first_byte_s) == (0, Ending.CUT, None)
    assert (facts.name.model, facts.duration_s) == ("qwen3-32b", 2)


def test_a_refused_connection_is_cut() -> None:
    """The reset of a closed port has sequence number 0."""
    wire = Wire().client(chat())
    refusal = wire.segments[0]._replace(to_server=False, seq=0, data=b"", flags=RST)
    assert observe([*wire.segments, refusal]).one.ending is Ending.CUT


@pytest.mark.parametrize(
    "how", ["reset", "close and reset", "close, then the server gives up", "close alone"]
)
def test_a_client_that_closes_first_has_cancelled(how: str) -> None:
    """Whatever the server does after that."""
    wire = under_way()
    match how:
        case "reset":
            wire.client(flags=RST)
        case "close and reset":
            wire.client(flags=FIN).server(chunk(EVENTS[3])).client(flags=RST)
        case "close, then the server gives up":
            wire.client(flags=FIN).wait(0.1).server(flags=RST)
        case _:
            wire.client(flags=FIN)
    assert observe(wire.segments, later_s=20).one.ending is Ending.CANCELLED


def test_a_client_that_only_stops_sending_still_gets_its_answer() -> None:
    """A half-closed connection is no cancellation while the answer goes on."""
    wire = under_way().client(flags=FIN)
    for event in [*EVENTS[3:], DONE]:
        wire.wait(3).server(chunk(event))
    observer = Observer()
    for segment in wire.server(LAST_CHUNK).server(flags=FIN).segments:
        observer.advance(segment.at_ns)
        observer.feed(segment)
    assert seen(observer).one.ending is Ending.COMPLETE


def test_an_answer_ends_with_the_connection_where_it_has_no_length() -> None:
    """A close completes it, a reset cuts it, and half a document is unterminated."""
    head = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"
    body = OK.partition(b"\r\n\r\n")[2]
    for data, flags, ending in (
        (body, FIN, Ending.COMPLETE),
        (body, RST, Ending.CUT),
        (body[:30], FIN, Ending.UNTERMINATED),
    ):
        assert (
            observe(Wire().client(chat()).server(head + data).server(flags=flags).segments).one.ending
            is ending
        )


def test_what_never_ends_is_ended_by_patience() -> None:
    """And the connection is forgotten."""
    observer = Observer(settings=ObserverSettings(idle_s=60))
    wire = under_way()
    for segment in wire.segments:
        observer.feed(segment)
    observer.advance(wire.at_ns + 59 * S)
    assert (observer.take(), observer.held) == ([], 1)
    observer.advance(wire.at_ns + 61 * S)
    assert (seen(observer).one.ending, observer.held) == (Ending.IDLE, 0)


def test_connections_without_an_exchange_are_forgotten_silently() -> None:
    """A kept connection that is used again is known by its first bytes."""
    observer = Observer()
    wire = Wire().opened().client(chat()).server(OK)
    for segment in wire.segments:
        observer.feed(segment)
    observer.advance(wire.at_ns + 200 * S)
    assert (len(seen(observer).exchanges), observer.held) == (1, 0)
    again = wire.wait(300).client(chat()).server(OK).segments[-2:]
    assert observe(again, observer=observer).one.ending is Ending.COMPLETE


def test_exchanges_follow_each_other_and_overtake_nothing() -> None:
    """Keep-alive, and requests that are sent ahead of answers."""
    kept = Wire().opened()
    for model in "abc":
        kept.client(chat(model=model)).server(OK)
    ahead = Wire().opened().client(*(chat(model=model) for model in "abc"))
    joined = Wire().opened().client(b"".join(chat(model=model) for model in "abc")).server(OK * 3)
    for wire in (kept, ahead.wait(1).server(OK, OK, OK), joined):
        result = observe(wire.segments)
        assert [facts.name.model for facts in result.exchanges] == ["a", "b", "c"]
        assert result.unobserved == {}


def test_an_early_answer_ends_its_exchange() -> None:
    """The rest of the upload is not the next request."""
    request = chat(filler="x" * 5000)
    wire = (
        Wire().client(request[:1000]).server(response(b"{}", status="413 Too Large")).client(request[1000:])
    )
    result = observe(wire.client(chat(model="next")).server(OK).segments)
    assert [(facts.status, facts.name.model) for facts in result.exchanges] == [(413, None), (200, "next")]


def test_interim_answers_are_passed_over() -> None:
    """100 and 103 come before the answer, and its time is the answer's."""
    wire = Wire().client(chat()).wait(1).server(b"HTTP/1.1 100 Continue\r\n\r\n").wait(1)
    wire.server(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n").wait(1).server(OK)
    facts = observe(wire.segments).one
    assert (facts.status, facts.first_byte_s) == (200, 3)


BLIND = [
    (b"\x16\x03\x01\x02\x00\x01\x00", b"", UnobservedReason.TLS),
    (b"\x17\x03\x03\x00\x20", b"\x17\x03\x03\x00\x20", UnobservedReason.TLS),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x00\x00\x00\x04", UnobservedReason.HTTP2),
    (
        b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x05",
        UnobservedReason.WEBSOCKET,
    ),
    (
        b"GET / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n\x00\x00",
        UnobservedReason.HTTP2,
    ),
    (b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n", UnobservedReason.NOT_HTTP),
    (b"CONNECT node:443 HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", UnobservedReason.NOT_HTTP),
]


@pytest.mark.parametrize(("sent", "answered", "reason"), BLIND)
@pytest.mark.parametrize("size", [1, 5, 500])
def test_what_is_no_plain_http_is_counted_once_a_connection(
    sent: bytes, answered: bytes, reason: UnobservedReason, size: int
) -> None:
    """By its first bytes, in any segments; what follows costs nothing."""
    wire = Wire().opened().client(*(sent[n : n + size] for n in range(0, len(sent), size)))
    if answered:
        wire.server(answered)
    wire.client(b"\x00" * 1000, chat()).server(OK).client(b"x" * 100)
    observer = Observer()
    result = observe(wire.segments, observer=observer)
    assert (result.exchanges, result.unobserved) == ([], {reason: 1})
    assert observer.held_bytes == 0


def test_a_mid_stream_start_is_said_and_what_follows_is_right() -> None:
    """Of the answer under way when the observer began, nothing else is said."""
    wire = under_way()
    for event in [*EVENTS[3:], DONE]:
        wire.server(chunk(event))
    wire.server(LAST_CHUNK)
    for begin in range(3, len(wire.segments)):
        later = Wire(up_seq=wire.up_seq, down_seq=wire.down_seq, at_ns=wire.at_ns).wait(1)
        later.client(chat(model="next")).wait(1).server(OK)
        result = observe([*wire.segments[begin:], *later.segments])
        assert [facts.name.model for facts in result.exchanges] == ["next"]
        assert result.unobserved == {UnobservedReason.MID_STREAM: 1}


def test_a_start_inside_a_request_is_mid_stream_too() -> None:
    """Its answer is to a request that nobody saw."""
    request = chat(filler="x" * 3000)
    wire = Wire().client(request[:1500], request[1500:]).wait(1).server(OK).wait(1).client(chat(model="next"))
    result = observe(wire.wait(1).server(OK).segments[1:])
    assert [facts.name.model for facts in result.exchanges] == ["next"]
    assert result.unobserved == {UnobservedReason.MID_STREAM: 1}


def test_a_lost_segment_of_an_answer_makes_it_unobserved_and_the_next_one_right() -> None:
    """Never a cut, never an empty answer."""
    for lost in range(1, 7):
        wire = Wire().opened().client(chat(stream=True)).wait(0.1).server(stream_head())
        for event in EVENTS[:5]:
            wire.wait(0.1).server(chunk(event))
        wire.server(chunk(DONE) + LAST_CHUNK)
        gone = wire.segments[2 + lost]
        wire.wait(1).client(chat(model="next")).wait(1).server(OK)
        result = observe([one for one in wire.segments if one is not gone])
        assert [facts.name.model for facts in result.exchanges] == ["next"]
        assert result.unobserved == {UnobservedReason.LOST: 1}


def test_a_hole_in_a_large_answer_makes_it_unobserved() -> None:
    """Nothing is said of text that was not seen; where nobody looks at the text, the exchange counts."""
    body = b'{"choices":[{"message":{"content":"' + b"a" * 70_000 + b'"},"finish_reason":"stop"}]}'
    for path, exchanges, unobserved in (
        ("/v1/chat/completions", 0, {UnobservedReason.LOST: 1}),
        ("/v1/embeddings", 1, {}),
    ):
        data = response(body)
        wire = Wire().client(post(path, b"{}")).server(data[:65_536], skipped=len(data) - 65_536 - 1024)
        result = observe(wire.server(data[-1024:]).segments)
        assert (len(result.exchanges), result.unobserved) == (exchanges, unobserved)
        assert all(facts.response_bytes == len(body) for facts in result.exchanges)


def test_lost_records_take_back_ends_that_a_lost_one_could_explain() -> None:
    """The client's reset may have been among them: a close by the server is then no cut."""
    observer = Observer()
    for segment in under_way().server(flags=FIN).segments:
        observer.feed(segment)
    observer.lost(3, 20 * S)
    assert seen(observer) == Seen([], {UnobservedReason.LOST: 1})


def test_a_connections_number_is_used_again() -> None:
    """A new SYN begins anew; what was under way is lost, as its end was not seen."""
    second = Wire(up_seq=777_000, down_seq=888_000, at_ns=20 * S).opened().client(chat(model="b")).server(OK)
    result = observe([*under_way().segments, *second.segments])
    assert [facts.name.model for facts in result.exchanges] == ["b"]
    assert result.unobserved == {UnobservedReason.LOST: 1}
    closed = Wire().opened().client(chat(model="a")).server(OK).server(flags=FIN).client(flags=FIN)
    result = observe([*closed.segments, *second.segments])
    assert [facts.name.model for facts in result.exchanges] == ["a", "b"]
    assert result.unobserved == {}


def test_what_comes_late_for_a_closed_connection_says_nothing() -> None:
    """Segments that are sent again after the close are no new exchange."""
    wire = under_way().server(flags=FIN)
    assert observe([*wire.segments, *wire.segments[-3:]]).one.ending is Ending.CUT


def test_requests_in_flight_are_told_by_route() -> None:
    """How many, how long, how long in silence; and none once they are answered."""
    observer = Observer()
    first = Wire(connection=1, at_ns=10 * S).client(chat(model="m"))
    other = (
        Wire(connection=2, at_ns=12 * S).client(chat(model="m", stream=True)).wait(1).server(stream_head())
    )
    third = Wire(connection=3, at_ns=14 * S).client(post("/v1/embeddings", b'{"model":"e"}'))
    for segment in (*first.segments, *other.segments, *third.segments):
        observer.feed(segment)
    flights = {flight.name: flight for flight in observer.in_flight(20 * S)}
    flight = flights[RouteName(8000, Route.CHAT_COMPLETIONS, "m")]
    assert (flight.requests, flight.waiting, flight.oldest_s, flight.silent_s) == (2, 1, 10, 7)
    assert flights[RouteName(8000, Route.EMBEDDINGS, "e")].requests == 1
    observer.feed(first.server(OK).segments[-1])
    assert len(observer.in_flight(21 * S)) == 2


def test_a_new_request_is_no_sign_of_life() -> None:
    """Clients go on asking a server that has fallen silent: its silence lasts since its own last byte."""
    observer = Observer()
    asked = chat(model="m", stream=True)
    stream = Wire(connection=1, at_ns=10 * S).client(asked).wait(1).server(stream_head())
    for segment in (*stream.segments, *Wire(connection=2, at_ns=19 * S).client(asked).segments):
        observer.feed(segment)
    (flight,) = observer.in_flight(20 * S)
    assert (flight.requests, flight.waiting, flight.silent_s) == (2, 1, 9)
    observer = Observer()
    for number in range(3):
        for segment in Wire(connection=number, at_ns=(10 + 4 * number) * S).client(asked).segments:
            observer.feed(segment)
    (flight,) = observer.in_flight(20 * S)
    assert (flight.waiting, flight.silent_s) == (3, 10)
    observer.lost(1, 21 * S)
    assert observer.in_flight(21 * S) == []


def test_a_request_after_lost_records_is_in_flight_again() -> None:
    """On a kept connection on which nothing was awaited; and a close before its answer is a cut."""
    observer = Observer()
    wire = Wire().client(chat()).server(OK)
    for segment in wire.segments:
        observer.feed(segment)
    observer.take()
    observer.lost(1, wire.at_ns)
    assert observer.in_flight(wire.at_ns) == []
    for segment in wire.wait(1).client(chat(model="next")).segments[2:]:
        observer.feed(segment)
    (flight,) = observer.in_flight(wire.at_ns)
    assert (flight.requests, flight.waiting, flight.name.model) == (1, 1, "next")
    observer.feed(wire.wait(9).server(flags=FIN).segments[-1])
    assert seen(observer).one.ending is Ending.CUT


def test_a_long_upload_is_in_flight_with_its_size() -> None:
    """In part is under way, and its model may not be known yet."""
    observer = Observer()
    request = chat(filler="x" * 9000)
    for segment in Wire().client(request[:5000]).segments:
        observer.feed(segment)
    (flight,) = observer.in_flight(11 * S)
    assert (flight.requests, flight.waiting, flight.name.model) == (1, 1, "qwen3-32b")
    assert 4500 < flight.largest_request_bytes < 5000


def test_connections_are_bounded() -> None:
    """Closed and silent ones make room, busy ones do not; what has no room is counted."""
    observer = Observer(settings=ObserverSettings(connections_max=8))
    for n in range(8):
        observer.feed(Wire(connection=n, at_ns=n * S).client(chat()).segments[0])
    observer.feed(Wire(connection=99, at_ns=20 * S).client(chat()).segments[0])
    assert (observer.held, seen(observer).unobserved) == (8, {UnobservedReason.EVICTED: 1})
    busy = Observer(settings=ObserverSettings(connections_max=8))
    for n in range(9):
        for segment in Wire(connection=n, at_ns=20 * S).client(chat()).server(OK[:20]).segments:
            busy.feed(segment)
    assert (busy.held, seen(busy).unobserved) == (8, {UnobservedReason.TOO_MANY: 1})


def test_bytes_that_overtook_others_are_bounded_over_all_connections() -> None:
    """The longest silent connections go first."""
    observer = Observer(settings=ObserverSettings(parked_bytes_max=100_000))
    for n in range(4):
        wire = Wire(connection=n).client(chat()).server(b"HTTP/1.1 200 OK\r\n")
        wire.down_seq += 5
        for segment in wire.server(b"x" * 40_000).segments:
            observer.feed(segment)
    assert observer.held_bytes > 160_000
    observer.advance(10 * S + S // 2)
    observer.advance(11 * S)
    assert observer.held_bytes < 130_000


@pytest.mark.parametrize(
    "name", ["connections_max", "gap_s", "idle_s", "keep_s", "linger_s", "parked_bytes_max"]
)
def test_settings_that_make_no_sense_are_refused(name: str) -> None:
    """Each bound is more than nothing."""
    with pytest.raises(ValueError, match=f"{name} must be more than 0"):
        ObserverSettings(**{name: 0})


def test_its_state_can_be_read() -> None:
    """For logs and tests."""
    observer = Observer()
    for segment in under_way().segments:
        observer.feed(segment)
    observer.lost(2, 11 * S)
    assert repr(observer) == "Observer(held=1, finished=0, records_lost=2)"


def test_segments_without_anything_open_nothing() -> None:
    """A FIN of a connection that is not known is not held."""
    observer = Observer()
    observer.feed(Segment(1, 0, 8000, True, 5, b"", 0, FIN, 0))
    assert observer.held == 0
