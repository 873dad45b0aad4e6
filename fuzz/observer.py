"""Feeds the route observer what a coverage-guided fuzzer makes up: any segments, of several connections.

`make fuzz` runs it for a minute; more with ARGS, as libFuzzer takes them:

    make fuzz ARGS="-max_total_time=3600"

It needs the extra `fuzz` (atheris). A crash leaves its input in a file; give that as the only argument to see
it again. What holds for conversations is in tests/probes/http/test_invariants.py.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["probes"]):
    from probes.http.observer import Observer, ObserverSettings
    from probes.http.segment import Segment

_SETTINGS = ObserverSettings(connections_max=16)
_HELD_PER_CONNECTION = 400 * 1024
_SNIPPETS = (
    b"POST /v1/chat/completions HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 27\r\n\r\n",
    b'{"model":"m","stream":true}',
    b"POST /api/chat HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"GET /health HTTP/1.1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 300\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b'4b\r\ndata: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n\r\n',
    b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{"}}]}}]}\n\n',
    b'{"message":{"content":"a"},"done":true}\n',
    b"data: [DONE]\n\n",
    b"0\r\n\r\n",
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
)


def one_run(data: bytes) -> None:
    """Turn the bytes into segments and feed them; raises on what must never be."""
    given = atheris.FuzzedDataProvider(data)
    observer = Observer(settings=_SETTINGS)
    seqs: dict[tuple[int, bool], int] = {}
    now_ns = 1
    while given.remaining_bytes() > 4:
        connection, to_server = given.ConsumeIntInRange(1, 3), given.ConsumeBool()
        if given.ConsumeBool():
            payload = _SNIPPETS[given.ConsumeIntInRange(0, len(_SNIPPETS) - 1)]
        else:
            payload = given.ConsumeBytes(given.ConsumeIntInRange(0, 200))
        skipped = given.ConsumeIntInRange(0, 400) if given.ConsumeIntInRange(0, 9) == 0 else 0
        flags = given.ConsumeIntInRange(0, 7) if given.ConsumeIntInRange(0, 9) == 0 else 0
        now_ns += given.ConsumeIntInRange(0, 1 << 31)
        where = (connection, to_server)
        seq = seqs.get(where, 0xFFFF_FF00)
        if given.ConsumeIntInRange(0, 9) == 0:
            seq += given.ConsumeIntInRange(-300, 300)
        seqs[where] = (seq + len(payload) + skipped) % (1 << 32)
        observer.feed(
            Segment(connection, now_ns, 8000, to_server, seq % (1 << 32), payload, skipped, flags, 0)
        )
        if given.ConsumeIntInRange(0, 19) == 0:
            observer.lost(1, now_ns)
        if given.ConsumeIntInRange(0, 19) == 0:
            observer.advance(now_ns)
            observer.in_flight(now_ns)
        if observer.held_bytes > _HELD_PER_CONNECTION * max(1, observer.held):
            raise AssertionError(f"{observer.held_bytes} bytes held by {observer!r}")
    observer.advance(now_ns + 10**15)
    observer.take()
    if observer.held:
        raise AssertionError(f"connections outlive everything: {observer!r}")


def main() -> None:
    """Fuzz for a minute, or as the arguments say."""
    arguments = sys.argv if len(sys.argv) > 1 else [*sys.argv, "-max_total_time=60", "-max_len=4096"]
    atheris.Setup(arguments, one_run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
