"""A client that leaves: what it had heard counts, and what the server does then is no fault of the route."""

from __future__ import annotations

import pytest

from probes.http.facts import Ending, FinishReason
from probes.http.segment import FIN, RST
from tests.probes.http.servers import OPENAI_SERVERS, THOUGHTS, OpenAiServer
from tests.probes.http.wire import DONE, LAST_CHUNK, Wire, chat, chunk, observe, response, sse, stream_head

servers = pytest.mark.parametrize("server", OPENAI_SERVERS, ids=lambda server: server.name)


def _stream(server: OpenAiServer, *, events: int | None = None, done: bool = True) -> Wire:
    wire = Wire().opened().client(chat(stream=True)).server(stream_head())
    for event in list(server.events(thoughts=THOUGHTS))[:events]:
        wire.server(chunk(sse(event)))
    return wire.server(chunk(DONE)) if done else wire


@servers
@pytest.mark.parametrize("flags", [FIN, RST])
def test_a_client_that_leaves_at_done_has_heard_it_all(server: OpenAiServer, flags: int) -> None:
    """LiteLLM closes at [DONE] and does not wait for the last chunk: the stream was complete."""
    facts = observe(_stream(server).client(flags=flags).server(LAST_CHUNK, flags=FIN).segments).one
    assert (facts.ending, facts.finish) == (Ending.COMPLETE, FinishReason.STOP)


@servers
def test_done_without_a_reason_is_unterminated_also_when_the_client_leaves(server: OpenAiServer) -> None:
    """A stream that says that it is done, and not why, is not made better by a client that goes."""
    wire = _stream(server, events=3, done=False).server(chunk(DONE)).client(flags=FIN).server(LAST_CHUNK)
    assert observe(wire.segments).one.ending is Ending.UNTERMINATED


@servers
def test_a_stream_ended_in_good_order_after_the_client_left_is_cancelled(server: OpenAiServer) -> None:
    """Go's server ends the message when its handler returns, and the handler does when the client goes."""
    wire = _stream(server, events=3, done=False).client(flags=FIN).server(LAST_CHUNK).client(flags=RST)
    assert observe(wire.segments).one.ending is Ending.CANCELLED


def test_an_empty_message_to_a_client_that_left_is_cancelled() -> None:
    """The same, of a request that had had no answer yet."""
    wire = Wire().opened().client(chat()).client(flags=FIN).server(response(b"")).client(flags=RST)
    assert observe(wire.segments).one.ending is Ending.CANCELLED


@servers
def test_a_client_that_only_stops_talking_gets_its_answer(server: OpenAiServer) -> None:
    """Half a connection closed is no cancellation when the answer comes whole."""
    wire = _stream(server, events=0, done=False).client(flags=FIN)
    for event in server.events(thoughts=THOUGHTS):
        wire.server(chunk(sse(event)))
    facts = observe(wire.server(chunk(DONE), LAST_CHUNK).server(flags=FIN).segments).one
    assert facts.ending is Ending.COMPLETE
