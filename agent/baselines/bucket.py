"""Exchanges gathered into buckets: a share of failures, or a median of what each of them took.

A bucket is a minute, or as much longer as it takes to hold enough exchanges. One that fills too slowly is
given up: so few exchanges, so far apart, say nothing together.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from statistics import median
from typing import Final

_SAMPLES: Final = 64
"""Values of one bucket that are kept for its median; of more, the latest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """What a measure was for a while: a share of `exchanges`, or a median of `values`."""

    began_ns: int
    value: float
    exchanges: int
    failed: int = 0
    failed_streamed: int = 0
    request_bytes: float = 0.0
    values: tuple[float, ...] = ()


class Filling:
    """The bucket that is under way."""

    __slots__ = ("_began_ns", "_count", "_failed", "_failed_streamed", "_sizes", "_values")

    def __init__(self) -> None:
        self._values = array("f")
        self._sizes = array("f")
        self.drop()

    def __repr__(self) -> str:
        return f"Filling({self._count})"

    def drop(self) -> None:
        """Begin anew."""
        self._began_ns: int | None = None
        self._count = self._failed = self._failed_streamed = 0
        del self._values[:]
        del self._sizes[:]

    def outcome(self, now_ns: int, *, failed: bool, streamed: bool) -> None:
        """Count one exchange that failed or did not."""
        self._begin(now_ns)
        self._failed += failed
        self._failed_streamed += failed and streamed

    def sample(self, now_ns: int, value: float, request_bytes: float) -> None:
        """Take one exchange's value."""
        self._begin(now_ns)
        if len(self._values) < _SAMPLES:
            self._values.append(value)
            self._sizes.append(request_bytes)
        else:
            self._values[self._count % _SAMPLES] = value
            self._sizes[self._count % _SAMPLES] = request_bytes

    def take(self, now_ns: int, *, least: int, shortest_s: float, longest_s: float) -> Bucket | None:
        """Return the bucket that is done, and begin another; None while it is not."""
        if self._began_ns is None or now_ns - self._began_ns < shortest_s * 1e9:
            return None
        if self._count < least:
            if now_ns - self._began_ns >= longest_s * 1e9:
                self.drop()
            return None
        values = tuple(self._values)
        bucket = Bucket(
            began_ns=self._began_ns,
            value=median(values) if values else self._failed / self._count,
            exchanges=self._count,
            failed=self._failed,
            failed_streamed=self._failed_streamed,
            request_bytes=median(self._sizes) if values else 0.0,
            values=values,
        )
        self.drop()
        return bucket

    def _begin(self, now_ns: int) -> None:
        if self._began_ns is None:
            self._began_ns = now_ns
        self._count += 1
