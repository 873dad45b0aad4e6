"""Undoes the content coding of an answer as it comes; what it makes of it is bounded."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

_STEP: Final = 16 * 1024
OUTPUT_MAX: Final = 64 * 1024 * 1024


class Opaque(Exception):
    """This content cannot be looked into."""


class Inflater:
    """gzip and deflate (RFC 9110, 8.4.1). Give it every byte in order."""

    __slots__ = ("_first", "_made", "_stream")

    def __init__(self, coding: str) -> None:
        if coding not in ("gzip", "x-gzip", "deflate"):
            raise Opaque(coding)
        self._first = b""
        self._stream = None if coding == "deflate" else zlib.decompressobj(31)
        self._made = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what these bytes hold; raises Opaque when they are broken, or hold more than is sane."""
        stream = self._stream
        if stream is None:
            data = self._first + data
            if len(data) < 2:
                self._first = data
                return
            # Some servers leave out the zlib header (RFC 1950, 2.2) that deflate wants.
            headed = data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
            stream = self._stream = zlib.decompressobj(15 if headed else -15)
        more = True
        while more and not stream.eof:
            try:
                piece = stream.decompress(data, _STEP)
            except zlib.error as error:
                raise Opaque("broken") from error
            data = stream.unconsumed_tail
            self._made += len(piece)
            if self._made > OUTPUT_MAX:
                raise Opaque("too much")
            if piece:
                yield piece
            more = bool(data) or len(piece) == _STEP
