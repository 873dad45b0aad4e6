"""Splits an answer into events: Server-Sent Events (WHATWG HTML, 9.2.6), or one JSON text a line.

What is carried between two segments is bounded: an event that outgrows `EVENT_BYTES` is walked as it comes.
"""

from __future__ import annotations

from typing import Final, Protocol

from probes.http.json_walk import JsonWalk

EVENT_BYTES: Final = 4096
_PREFIX: Final = b"data:"


class EventTaker(Protocol):
    """Takes the events of one answer."""

    def event(self, payload: bytes, at_ns: int) -> None:
        """One event's data."""

    def begin_large(self) -> JsonWalk:
        """An event too large to be carried begins."""

    def finish_large(self, walk: JsonWalk, at_ns: int) -> None:
        """It is over."""


class EventSplitter:
    """One stream of events. `lines` tells JSON lines from Server-Sent Events."""

    __slots__ = ("_carry", "_end", "_had_data", "_in_data", "_line_begins", "_lines", "_taker", "_walk")

    def __init__(self, taker: EventTaker, *, lines: bool) -> None:
        self._taker = taker
        self._lines = lines
        self._end = b"\n" if lines else b"\n\n"
        self._carry = b""
        self._walk: JsonWalk | None = None
        self._line_begins = True
        self._in_data = False
        self._had_data = False

    @property
    def held_bytes(self) -> int:
        """Bytes of the event under way."""
        return len(self._carry) + (self._walk.held_bytes if self._walk is not None else 0)

    def feed(self, data: bytes, at_ns: int) -> None:
        """Take the next bytes; events are given as soon as they are whole."""
        if self._carry:
            data = self._carry + data
            self._carry = b""
        held = b""
        if b"\r" in data:
            if data[-1] == 0x0D:  # a line feed may follow
                data, held = data[:-1], b"\r"
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if self._walk is not None:
            rest = self._walk_on(data, at_ns)
            if rest is None:
                self._carry += held
                return
            data = rest
        end = data.rfind(self._end)
        if end >= 0:
            for block in data[:end].split(self._end):
                self._block(block, at_ns)
            data = data[end + len(self._end) :]
        data = data.lstrip(b"\n")
        if len(data) > EVENT_BYTES:
            self._begin_walk()
            self._walk_on(data, at_ns)
            self._carry += held
        else:
            self._carry = data + held

    def finish(self, at_ns: int) -> None:
        """The answer is over: an event that lacks only its end counts."""
        rest, self._carry = self._carry.strip(b"\r\n"), b""
        if self._walk is not None:
            self._walk_on(rest + b"\n\n", at_ns)
        elif rest:
            self._block(rest, at_ns)

    def _block(self, block: bytes, at_ns: int) -> None:
        if block[:1] == b"\n":
            block = block.lstrip(b"\n")
        if len(block) > EVENT_BYTES:
            self._begin_walk()
            self._walk_on(block + self._end, at_ns)
        elif self._lines:
            if block and not block.isspace():
                self._taker.event(block, at_ns)
        elif block[:6] == b"data: " and b"\n" not in block:
            self._taker.event(block[6:], at_ns)
        else:
            self._block_of_lines(block, at_ns)

    def _block_of_lines(self, block: bytes, at_ns: int) -> None:
        data = [line[5:].removeprefix(b" ") for line in block.split(b"\n") if line.startswith(_PREFIX)]
        if data:
            self._taker.event(data[0] if len(data) == 1 else b"\n".join(data), at_ns)

    def _begin_walk(self) -> None:
        self._walk = self._taker.begin_large()
        self._line_begins, self._in_data, self._had_data = True, False, False

    def _walk_on(self, data: bytes, at_ns: int) -> bytes | None:
        """Walk on in a large event; return what follows its end, None while it goes on."""
        walk = self._walk
        assert walk is not None
        while data:
            if self._line_begins and not self._lines:
                if data[0] == 0x0A:
                    return self._end_walk(walk, data[1:], at_ns)
                if len(data) <= len(_PREFIX) and b"\n" not in data:
                    self._carry = data
                    return None
                self._in_data = data.startswith(_PREFIX)
                self._had_data = self._had_data or self._in_data
                data = data[len(_PREFIX) :] if self._in_data else data
                self._line_begins = False
            line, newline, data = data.partition(b"\n")
            if self._lines or self._in_data:
                walk.feed(line)
            if newline and self._lines:
                return self._end_walk(walk, data, at_ns)
            self._line_begins = bool(newline)
        return None

    def _end_walk(self, walk: JsonWalk, rest: bytes, at_ns: int) -> bytes:
        self._walk = None
        if self._had_data or self._lines:
            self._taker.finish_large(walk, at_ns)
        return rest
