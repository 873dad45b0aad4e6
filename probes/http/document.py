"""One JSON document: read whole when it is small, walked when it is not, so that memory stays bounded."""

from __future__ import annotations

import json
from typing import Any, Final

from probes.http.json_walk import JsonWalk, PassageTaker, Watch

SMALL_BYTES: Final = 4096
_DECODER: Final = json.JSONDecoder(strict=False)


class Document:
    """Takes the bytes of one document; which way it is read depends on its size alone, not on the pieces."""

    __slots__ = ("_parts", "_size", "_taker", "_walk", "_watch")

    def __init__(self, watch: Watch, taker: PassageTaker | None = None) -> None:
        self._watch = watch
        self._taker = taker
        self._parts: list[bytes] = []
        self._size = 0
        self._walk: JsonWalk | None = None

    @property
    def held_bytes(self) -> int:
        """Bytes that wait for the end."""
        return self._size if self._walk is None else self._walk.held_bytes

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        if self._walk is not None:
            self._walk.feed(data)
            return
        self._parts.append(data)
        self._size += len(data)
        if self._size > SMALL_BYTES:
            self.walk()

    def walk(self) -> None:
        """Read what has come, as nothing after it can be read."""
        if self._walk is None:
            self._walk = JsonWalk(self._watch, self._taker)
            self._walk.feed(b"".join(self._parts))
            self._parts, self._size = [], 0

    def so_far(self) -> Any:
        """Return what is known while it comes."""
        return None if self._walk is None else self._walk.value

    def finish(self) -> Any:
        """Return the value, pruned if it was walked; None if it is no JSON or not whole."""
        if self._walk is not None:
            return self._walk.value if self._walk.whole else None
        raw, self._parts, self._size = b"".join(self._parts), [], 0
        return loads(raw)


def loads(raw: bytes) -> Any:
    """Parse JSON as leniently as can be told; None for what is none."""
    try:
        return _DECODER.decode(raw.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
