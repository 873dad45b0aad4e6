"""Nothing of a prompt or an answer outlives its exchange, in no form."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from types import ModuleType

import pytest

from probes.http.observer import Observer
from probes.http.segment import FIN
from tests.probes.http.servers import VLLM, ollama_chat
from tests.probes.http.wire import DONE, LAST_CHUNK, Wire, chat, chunk, response, sse, stream_head
from tests.security.properties import security_property

CANARY = "kumquat"
TEXT = [f" {CANARY}-{n}" for n in range(200)]


def reachable(root: object) -> Iterator[object]:
    """Everything that can be reached from an object, without modules and types."""
    known = {id(root)}
    waiting = [root]
    while waiting:
        one = waiting.pop()
        yield one
        for other in gc.get_referents(one):
            if id(other) not in known and not isinstance(other, ModuleType | type):
                known.add(id(other))
                waiting.append(other)


def holds_canary(root: object) -> bool:
    """Whether any string or bytes that can be reached holds it."""
    for one in reachable(root):
        if isinstance(one, str) and CANARY in one:
            return True
        if isinstance(one, bytes | bytearray) and CANARY.encode() in one:
            return True
    return False


def messages() -> list[dict[str, str]]:
    return [{"role": "user", "content": "".join(TEXT)}]


def conversation(kind: str) -> Wire:
    wire = Wire().opened().client(chat(model="m", messages=messages(), user=CANARY))
    match kind:
        case "stream":
            wire.server(
                stream_head(), *(chunk(sse(event)) for event in VLLM.events(words=TEXT, thoughts=TEXT))
            )
            return wire.server(chunk(DONE), LAST_CHUNK)
        case "whole":
            call = {"function": {"name": CANARY, "arguments": json.dumps({CANARY: CANARY})}}
            return wire.server(response(json.dumps(VLLM.whole(words=TEXT, calls=[call])).encode()))
        case "lines":
            lines = [json.dumps(event).encode() + b"\n" for event in ollama_chat(words=TEXT, thoughts=TEXT)]
            return wire.server(stream_head("application/x-ndjson"), *map(chunk, lines)).server(LAST_CHUNK)
        case "error":
            body = json.dumps({"error": {"message": CANARY * 50, "type": CANARY}}).encode()
            return wire.server(response(body, status="400 Bad Request", headers=f"x-id: {CANARY}\r\n"))
        case "cut":
            event = next(iter(VLLM.events(words=TEXT)))
            return wire.server(stream_head(), chunk(sse(event)), chunk(sse({"x": CANARY}))[:-9]).server(
                flags=FIN
            )
        case _:
            return wire.server(stream_head(), chunk(sse({"choices": [{"delta": {"content": CANARY}}]})))


@pytest.mark.parametrize("kind", ["stream", "whole", "lines", "error", "cut"])
@pytest.mark.parametrize("size", [7, 100_000])
@security_property(
    "H32", "Of prompts and answers nothing can be reached once the exchange is over, whatever its form."
)
def test_nothing_of_the_text_is_left_after_its_exchange(kind: str, size: int) -> None:
    """Neither in the observer, nor in the facts, however the segments were cut."""
    observer = Observer()
    for segment in conversation(kind).segments:
        for n in range(0, max(1, len(segment.data)), size):
            seq = (segment.seq + n) % (1 << 32)
            observer.feed(segment._replace(seq=seq, data=segment.data[n : n + size]))
    facts = observer.take()
    assert len(facts) == 1
    assert CANARY not in repr(facts)
    assert CANARY not in repr(observer)
    assert not holds_canary(facts)
    assert not holds_canary(observer)


def test_the_search_finds_what_is_held() -> None:
    """While a block of text waits to be measured it is there: the test above is no empty one."""
    observer = Observer()
    for segment in conversation("open").segments:
        observer.feed(segment)
    assert holds_canary(observer)
    assert CANARY not in repr(observer)
