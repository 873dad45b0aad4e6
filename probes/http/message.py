"""Frames HTTP/1 messages (RFC 9112) in one direction, and goes on where bytes are missing.

A hole inside a body is stepped over as far as the framing says where its end is: inside a sized body, inside
one chunk, or in a body that ends with the connection. Across the head of a chunk the body is scanned for its
last chunk. Anywhere else the framer is lost: it reads nothing until a segment begins with the head of a
message that its reader has reason to expect. The parser is ours because no other does this, see
docs/adr/0010-our-own-http-parser.md.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final, Protocol

from probes.http.head import CHUNKED, HEAD_END, NO_BODY, TO_THE_END, BadHead

BLIND: Final = -4  # what a reader answers to a head after which there is nothing to be read
HEAD_BYTES: Final = 16 * 1024
_CHUNK_HEAD_BYTES: Final = 1024
_CHUNK_HEAD: Final = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;[^\n]*?)?\r?\n")
_LAST_CHUNK: Final = re.compile(rb"(?:^|\n)0+[ \t]*(?:;[^\n]*)?\r?\n\r?\n\Z")
_SCAN_TAIL: Final = 64

_HEAD, _SIZED, _CHUNK_SIZE, _CHUNK, _CHUNK_END, _TRAILER, _OPEN_END, _SCAN, _LOST, _BLIND, _CLOSED = range(11)
_IN_CHUNKS: Final = frozenset({_CHUNK_SIZE, _CHUNK, _CHUNK_END, _TRAILER, _SCAN})


class MessageReader(Protocol):
    """Reads the messages of one direction."""

    def plausible(self, begun: bytes) -> bool:
        """Say whether a message can begin like this; `begun` may be one byte."""

    def strange(self, begun: bytes, at_ns: int) -> bool:
        """Hear that none does. Return whether to look for the next one; else there is nothing to be read."""

    def resumes(self, begun: bytes, at_ns: int) -> bool:
        """Say whether these first bytes of a segment are the head to go on with after a loss."""

    def ends_here(self, at_ns: int) -> bool:
        """Say whether the end of a message, found behind a hole, must be that of the message under way."""

    def head(self, raw: bytes, at_ns: int, begun_ns: int) -> int:
        """Take a head, say what follows: a length, NO_BODY, CHUNKED, TO_THE_END, BLIND; raises BadHead."""

    def body(self, data: bytes, at_ns: int) -> None:
        """Take the next bytes of the body."""

    def hole(self, size: int) -> None:
        """Hear that bytes of the body are missing here; -1: nobody can say how many, or when it ended."""

    def end(self, at_ns: int) -> None:
        """The message is whole."""

    def lost(self, at_ns: int) -> None:
        """Hear that nobody knows where in the messages this is."""

    def closed(self, at_ns: int, *, reset: bool) -> None:
        """Nothing more will come."""


class Framer:
    """One direction of one connection; a `StreamReader`."""

    __slots__ = ("_begun_ns", "_carry", "_reader", "_remaining", "_state")

    def __init__(self, reader: MessageReader) -> None:
        self._reader = reader
        self._state = _HEAD
        self._carry = b""
        self._remaining = 0
        self._begun_ns: int | None = None

    def __repr__(self) -> str:
        return f"Framer(state={self._state}, remaining={self._remaining}, carried={len(self._carry)})"

    @property
    def held_bytes(self) -> int:
        """Bytes that wait for more."""
        return len(self._carry)

    @property
    def between_messages(self) -> bool:
        """Whether no message is under way."""
        return self._state in (_HEAD, _CLOSED, _BLIND) and not self._carry

    @property
    def is_lost(self) -> bool:
        """Whether it does not know where in the messages it is."""
        return self._state in (_LOST, _SCAN)

    def feed(self, data: bytes, at_ns: int) -> None:
        """Read the next bytes."""
        if self._state == _LOST:
            if not self._reader.resumes(data, at_ns):
                return
            self._state = _HEAD
        if self._state == _SCAN:
            self._scan(data, at_ns)
            return
        if self._carry:
            data, self._carry = self._carry + data, b""
        position, size = 0, len(data)
        while position < size:
            step = self._STEPS.get(self._state)
            if step is None:
                return
            position = step(self, data, position, at_ns)

    def hole(self, size: int, at_ns: int) -> None:
        """Step over missing bytes, or be lost."""
        state = self._state
        if state == _SIZED and size <= self._remaining:
            self._reader.hole(size)
            self._remaining -= size
            if not self._remaining:
                self._reader.hole(-1)
                self._end(at_ns)
        elif state == _CHUNK and size <= self._remaining:
            self._reader.hole(size)
            self._remaining -= size
            if not self._remaining:
                self._state = _CHUNK_END
        elif state == _OPEN_END:
            self._reader.hole(size)
        elif state in _IN_CHUNKS:
            self._reader.hole(-1)
            self._state, self._carry = _SCAN, b""
        elif state in (_HEAD, _SIZED):
            self.lose(at_ns)

    def lose(self, at_ns: int) -> None:
        """Read nothing until the next head that is expected."""
        if self._state in (_BLIND, _CLOSED, _LOST):
            return
        self._state, self._carry, self._begun_ns = _LOST, b"", None
        self._reader.lost(at_ns)

    def blind(self) -> None:
        """Read nothing any more."""
        self._state, self._carry = _BLIND, b""

    def closed(self, at_ns: int, *, reset: bool) -> None:
        """End with the connection; a body without a length ends well that way, unless it was reset."""
        if self._state == _CLOSED and not reset:
            return
        if self._state == _OPEN_END and not reset:
            self._end(at_ns)
        self._reader.closed(at_ns, reset=reset)
        self._state, self._carry = _CLOSED, b""

    def _end(self, at_ns: int) -> None:
        self._state = _HEAD
        self._reader.end(at_ns)

    def _head(self, data: bytes, position: int, at_ns: int) -> int:
        begun_ns = self._begun_ns
        if begun_ns is None:
            while position < len(data) and data[position] in b"\r\n":  # RFC 9112, 2.2
                position += 1
            if position == len(data):
                return position
            begun_ns = self._begun_ns = at_ns
            if not self._reader.plausible(data[position : position + 64]):
                return self._strange(data, position, at_ns)
        found = HEAD_END.search(data, position)
        if found is None:
            if len(data) - position > HEAD_BYTES:
                return self._strange(data, position, at_ns)
            if not self._reader.plausible(data[position : position + 64]):
                return self._strange(data, position, at_ns)
            self._carry = data[position:]
            return len(data)
        self._begun_ns = None
        try:
            body = self._reader.head(data[position : found.end()], at_ns, begun_ns)
        except BadHead:
            return self._strange(data, position, at_ns)
        self._body(body, at_ns)
        return found.end()

    def _strange(self, data: bytes, position: int, at_ns: int) -> int:
        self._begun_ns = None
        if self._reader.strange(data[position:], at_ns):
            self.lose(at_ns)
        else:
            self.blind()
        return len(data)

    def _body(self, body: int, at_ns: int) -> None:
        if self._state != _HEAD:  # the reader has closed or blinded it
            return
        if body == NO_BODY:
            self._end(at_ns)
        elif body == CHUNKED:
            self._state = _CHUNK_SIZE
        elif body == TO_THE_END:
            self._state = _OPEN_END
        elif body == BLIND:
            self.blind()
        else:
            self._state, self._remaining = _SIZED, body

    def _sized(self, data: bytes, position: int, at_ns: int) -> int:
        end = min(len(data), position + self._remaining)
        self._remaining -= end - position
        self._reader.body(data[position:end] if position or end < len(data) else data, at_ns)
        if not self._remaining and self._state == _SIZED:
            self._end(at_ns)
        return end

    def _chunks(self, data: bytes, position: int, at_ns: int) -> int:
        """Take all whole chunks in one go: this is the way of a stream's every segment."""
        size = len(data)
        pieces = []
        while True:
            found = _CHUNK_HEAD.match(data, position)
            if found is None:
                break
            length = int(found[1], 16)
            start = found.end()
            end = start + length
            if not length or end + 2 > size or data[end : end + 2] != b"\r\n":
                break
            pieces.append(data[start:end])
            position = end + 2
            if position == size:
                break
        if pieces:
            self._reader.body(pieces[0] if len(pieces) == 1 else b"".join(pieces), at_ns)
            if position == size or self._state != _CHUNK_SIZE:
                return size
        if found is None:
            return self._chunk_size_begun(data, position, at_ns)
        self._remaining = length
        self._state = _CHUNK if length else _TRAILER
        return start

    def _chunk_size_begun(self, data: bytes, position: int, at_ns: int) -> int:
        rest = data[position:]
        if b"\n" in rest or len(rest) > _CHUNK_HEAD_BYTES:
            return self._strange(data, position, at_ns)
        self._carry = rest
        return len(data)

    def _chunk(self, data: bytes, position: int, at_ns: int) -> int:
        end = min(len(data), position + self._remaining)
        self._remaining -= end - position
        if not self._remaining:
            self._state = _CHUNK_END
        self._reader.body(data[position:end], at_ns)
        return end

    def _chunk_end(self, data: bytes, position: int, at_ns: int) -> int:
        if data.startswith(b"\r\n", position):
            self._state = _CHUNK_SIZE
            return position + 2
        if data[position : position + 1] == b"\n":
            self._state = _CHUNK_SIZE
            return position + 1
        if data[position:] == b"\r":
            self._carry = b"\r"
            return len(data)
        return self._strange(data, position, at_ns)

    def _trailer(self, data: bytes, position: int, at_ns: int) -> int:
        """Read lines up to an empty one."""
        end = data.find(b"\n", position)
        if end < 0:
            if len(data) - position > HEAD_BYTES:
                return self._strange(data, position, at_ns)
            self._carry = data[position:]
            return len(data)
        if not data[position:end].strip(b"\r"):
            self._end(at_ns)
        return end + 1

    def _open_end(self, data: bytes, position: int, at_ns: int) -> int:
        self._reader.body(data[position:], at_ns)
        return len(data)

    def _scan(self, data: bytes, at_ns: int) -> None:
        if self._reader.resumes(data, at_ns):
            self._carry = b""
            self._end(at_ns)
            self.feed(data, at_ns)
            return
        tail = (self._carry + data)[-_SCAN_TAIL:]
        self._carry = b""
        if not _LAST_CHUNK.search(tail):
            self._carry = tail
        elif self._reader.ends_here(at_ns):
            self._end(at_ns)
        else:
            self.lose(at_ns)

    _STEPS: ClassVar = {
        _HEAD: _head,
        _SIZED: _sized,
        _CHUNK_SIZE: _chunks,
        _CHUNK: _chunk,
        _CHUNK_END: _chunk_end,
        _TRAILER: _trailer,
        _OPEN_END: _open_end,
    }
