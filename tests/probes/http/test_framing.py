"""Where messages begin and end: held against llhttp, and against what it cannot do."""

from __future__ import annotations

from collections.abc import Sequence

import httptools
import pytest
from hypothesis import given, settings, strategies as st

from probes.http.head import response_head
from probes.http.message import HEAD_BYTES, Framer


class Messages:
    """A reader that writes the messages of a server down."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.ended: list[int] = []
        self.holes: list[int] = []
        self.told: list[str] = []
        self.resumed = True

    def plausible(self, begun: bytes) -> bool:
        return begun[:5] == b"HTTP/"[: len(begun)]

    def strange(self, begun: bytes, at_ns: int) -> bool:
        self.told.append("strange")
        return True

    def resumes(self, begun: bytes, at_ns: int) -> bool:
        return self.resumed and begun.startswith(b"HTTP/1.1 ")

    def ends_here(self, at_ns: int) -> bool:
        return True

    def head(self, raw: bytes, at_ns: int, begun_ns: int) -> int:
        head = response_head(raw, "GET")
        self.bodies.append(b"")
        return head.body

    def body(self, data: bytes, at_ns: int) -> None:
        assert data
        self.bodies[-1] += data

    def hole(self, size: int) -> None:
        self.holes.append(size)

    def end(self, at_ns: int) -> None:
        self.ended.append(len(self.bodies))

    def lost(self, at_ns: int) -> None:
        self.told.append("lost")

    def closed(self, at_ns: int, *, reset: bool) -> None:
        self.told.append("reset" if reset else "closed")


class Oracle:
    """The same by httptools (llhttp)."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.ended: list[int] = []

    def on_message_begin(self) -> None:
        self.bodies.append(b"")

    def on_body(self, data: bytes) -> None:
        self.bodies[-1] += data

    def on_message_complete(self) -> None:
        self.ended.append(len(self.bodies))


_NAMES = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12).map(lambda name: f"x-{name}")
_VALUES = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40)
_HEADERS = st.lists(st.tuples(_NAMES, _VALUES), max_size=5).map(
    lambda pairs: "".join(f"{name}: {value}\r\n" for name, value in pairs)
)
_EXTENSIONS = st.sampled_from(["", ";a=b", ";name"])


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """One response: sized, chunked with extensions and trailers, or without a body."""
    status = draw(st.sampled_from(["200 OK", "404 Not Found", "503 Service Unavailable", "204 No Content"]))
    before, after = draw(_HEADERS), draw(_HEADERS)
    if status.startswith("204"):
        return f"HTTP/1.1 {status}\r\n{before}{after}\r\n".encode()
    if draw(st.booleans()):
        body = draw(st.binary(max_size=80))
        return f"HTTP/1.1 {status}\r\n{before}Content-Length: {len(body)}\r\n{after}\r\n".encode() + body
    head = f"HTTP/1.1 {status}\r\n{before}Transfer-Encoding: chunked\r\n{after}\r\n".encode()
    for data in draw(st.lists(st.binary(min_size=1, max_size=40), max_size=5)):
        head += f"{len(data):{draw(st.sampled_from(['x', 'X', '04x']))}}".encode()
        head += draw(_EXTENSIONS).encode() + b"\r\n" + data + b"\r\n"
    return head + b"0\r\n" + draw(st.sampled_from([b"", b"x-checksum: 1\r\n"])) + b"\r\n"


def framed(pieces: Sequence[bytes]) -> Messages:
    reader = Messages()
    framer = Framer(reader)
    for piece in pieces:
        framer.feed(piece, 1)
    return reader


def cut(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    pieces, turn = [], 0
    while data:
        size = sizes[turn % len(sizes)]
        pieces.append(data[:size])
        data, turn = data[size:], turn + 1
    return pieces


@given(st.lists(messages(), min_size=1, max_size=5), st.lists(st.integers(1, 60), min_size=1, max_size=8))
@settings(max_examples=300)
def test_frames_as_llhttp_does(sent: list[bytes], sizes: list[int]) -> None:
    """The same bodies and ends, in any segments."""
    pieces = cut(b"".join(sent), sizes)
    oracle = Oracle()
    parser = httptools.HttpResponseParser(oracle)
    for piece in pieces:
        parser.feed_data(piece)
    reader = framed(pieces)
    assert (reader.bodies, reader.ended) == (oracle.bodies, oracle.ended)
    assert reader.told == []


SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def with_hole(before: bytes, size: int, *after: bytes) -> Messages:
    reader = Messages()
    framer = Framer(reader)
    framer.feed(before, 1)
    framer.hole(size, 1)
    for piece in after:
        framer.feed(piece, 1)
    return reader


def test_steps_over_a_hole_in_a_sized_body() -> None:
    """The length says where it ends, also when the hole is its end."""
    reader = with_hole(SIZED + b"ab", 5, b"cde" + SIZED)
    assert (reader.bodies, reader.ended, reader.holes) == ([b"abcde", b""], [1], [5])
    assert with_hole(SIZED + b"ab", 8).ended == [1]


def test_steps_over_a_hole_in_a_chunk() -> None:
    """The chunk's size says where it ends, also when the hole is its end."""
    reader = with_hole(CHUNKED + b"a\r\nab", 5, b"cde\r\n1\r\nf\r\n0\r\n\r\n")
    assert (reader.bodies, reader.ended, reader.holes) == ([b"abcdef"], [1], [5])
    assert with_hole(CHUNKED + b"a\r\nab", 8, b"\r\n0\r\n\r\n").ended == [1]


def test_scans_for_the_last_chunk_behind_a_hole_across_the_head_of_one() -> None:
    """Nobody can say how much of the body was in it; the end is found even in single bytes."""
    reader = with_hole(CHUNKED + b"a\r\nab", 20, *cut(b"xyz\r\n0\r\n\r\n", [1]), SIZED + b"0123456789")
    assert (reader.holes, reader.ended) == ([-1], [1, 2])


def test_a_hole_across_the_end_of_a_message_loses_it() -> None:
    """Until a segment begins with a head that is expected."""
    reader = with_hole(SIZED + b"ab", 500, b"cdefgh", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert (reader.told, reader.bodies, reader.ended) == (["lost"], [b"ab", b"ok"], [2])


@pytest.mark.parametrize(
    "bad",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        CHUNKED + b"zz\r\n",
        CHUNKED + b"1\r\nab\r\n",
        CHUNKED + b"1" * 2000,
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * HEAD_BYTES,
        b"FTP/1.1 200 OK",
    ],
)
@pytest.mark.parametrize("sizes", [[1], [7], [100_000]])
def test_what_cannot_be_framed_is_strange_and_lost(bad: bytes, sizes: list[int]) -> None:
    """Said once; and the next message is right again."""
    reader = framed([*cut(bad, sizes), SIZED + b"0123456789"])
    assert reader.told == ["strange", "lost"]
    assert reader.bodies[-1] == b"0123456789"


def test_carries_little() -> None:
    """Of a head no more than its bound, of a body nothing."""
    framer = Framer(Messages())
    for _ in range(100):
        framer.feed(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1000, 1)
        assert framer.held_bytes <= HEAD_BYTES + 1100
    framer = Framer(Messages())
    framer.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", 1)
    framer.feed(b"x" * 100_000, 1)
    assert framer.held_bytes == 0


def test_folded_lines_and_bare_line_feeds_are_read() -> None:
    """As some servers still send them."""
    assert framed([b"HTTP/1.1 200 OK\nContent-Length:\n 2\n\nok"]).bodies == [b"ok"]
    folded = framed([b"HTTP/1.1 200 OK\r\nx: a\r\n\tb\r\nContent-Length: 2\r\n\r\nok"])
    assert folded.bodies == [b"ok"]


def test_a_body_without_length_ends_with_the_connection_unless_it_is_reset() -> None:
    """A close is its end, a reset is not."""
    for reset in (False, True):
        reader = Messages()
        framer = Framer(reader)
        framer.feed(b"HTTP/1.0 200 OK\r\n\r\nabc", 1)
        framer.closed(2, reset=reset)
        assert (reader.bodies, reader.ended) == ([b"abc"], [] if reset else [1])
