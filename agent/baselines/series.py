"""One measure of one route, bucket by bucket: what it is now, what is usual, and whether it has left that.

A bucket (`agent.baselines.bucket`) is *off* where three things agree: it lies beyond the usual by a practical
effect, not by a statistical one; the baseline finds it rare; and (for shares) chance does not explain it.
Several in a row make a case; a bucket that is neither off nor back does not end the row. Shares of few
exchanges jump, so a row of them must be too unlikely as a whole (`_CERTAIN`), or a route that always fails a
little would open a case every few days.

Long prompts are slow by right. So the median size of a bucket's requests is learnt beside the median time to
the first token, and a bucket of larger requests than usual may take longer in proportion. Nothing is divided
by the size: with a prefix cache a large prompt takes no longer than a small one, and where both kinds are
mixed such a quotient jumps with the mix.

What is off is not learnt, so a fault does not become the norm while it lasts. What then was no case is learnt
afterwards, and of a slow time that was one its last buckets are: a route that is slow now and then is not
rarely so. And no baseline may be wrong for ever: at the end of each hour the level of that hour moves by
`hour_share` of the way to what was not learnt. A new level that stays, and one that returns every day at its
hour, so stop being news after two to five days of their kind (working days, weekends). A share of failures
that made a case is never learnt.
"""

from __future__ import annotations

import enum
import struct
from collections import deque
from dataclasses import dataclass
from math import log
from statistics import median
from typing import Annotated, Final

from msgspec import Meta

from agent.baselines.baseline import SAVED_BYTES as BASELINE_BYTES, Baseline, UnreadableBaseline
from agent.baselines.bucket import Bucket, Filling
from agent.detector import DetectorConfig
from agent.routes.window import share_at_least
from probes.observation import Instant

_MEDIANS: Final = 15
"""Buckets that were off of which the values are kept, for the evidence and to be learnt afterwards."""

_CERTAIN: Final = 14.0
"""A row of shares must be so unlikely: minus the natural log of its chance (Chernoff), one in a million."""

_LEAST_SHARE: Final = 0.01
"""A route that never failed is taken to fail this often: nothing is impossible after an hour of watching."""

_ANSWER_TOKENS: Final = 256
_BACK: Final = 1.5
_BYTES_WEIGHT: Final = 2.0 / 401.0
_LARGEST_BYTES: Final = 1e15
_LAYOUT: Final = struct.Struct("<Bdd")
_VERSION: Final = 1


class Measure(enum.Enum):
    """What is followed. Tokens are counted by the server, chunks by us: they are not compared."""

    FAILURES = "failures"
    FIRST_TOKEN = "first_token"  # noqa: S105  # a token of a model
    TOKEN_PACE = "token_pace"  # noqa: S105  # the same
    CHUNK_PACE = "chunk_pace"


PACES: Final = frozenset({Measure.TOKEN_PACE, Measure.CHUNK_PACE})
"""Measures of which less is worse."""


class ShiftConfig(DetectorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a route has left what is usual for it, and when it is back."""

    bucket_s: Annotated[float, Meta(ge=10, le=3600)] = 60.0
    bucket_longest_s: Annotated[float, Meta(ge=10, le=86400)] = 900.0
    exchanges_min: Annotated[int, Meta(ge=3)] = 10
    warm_up_buckets: Annotated[int, Meta(ge=1)] = 30
    warm_up_s: Annotated[float, Meta(ge=0)] = 3600.0
    failing_in_a_row: Annotated[int, Meta(ge=1)] = 3
    slow_in_a_row: Annotated[int, Meta(ge=1)] = 8
    surprise_min: Annotated[float, Meta(ge=0)] = 1.5
    errors_rise: Annotated[float, Meta(gt=0, le=1)] = 0.1
    failures_min: Annotated[int, Meta(ge=1)] = 5
    slower_factor: Annotated[float, Meta(ge=1.6)] = 2.0
    slower_s: Annotated[float, Meta(gt=0)] = 0.5
    answer_slower_s: Annotated[float, Meta(gt=0)] = 2.0
    hour_share: Annotated[float, Meta(ge=0, le=1)] = 0.3
    back_in_a_row: Annotated[int, Meta(ge=1)] = 5
    clear_hold_s: Annotated[float, Meta(ge=0)] = 300.0
    gone_clear_after_s: Annotated[float, Meta(gt=0)] = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """Buckets in a row that were off: how many exchanges, how many of them affected, and how far from usual.

    `fresh` is how many affected exchanges were not told before. `usual` is for requests of the usual size,
    `limit` for those of the last bucket.
    """

    window_s: float
    exchanges: int
    affected: int
    affected_streamed: int
    fresh: int
    measured: float
    usual: float
    limit: float


class _Row:
    """Buckets in a row that were off, summed up."""

    __slots__ = ("affected", "began_ns", "buckets", "exchanges", "streamed", "told", "values")

    def __init__(self, began_ns: int) -> None:
        self.began_ns = began_ns
        self.buckets = self.exchanges = self.affected = self.streamed = self.told = 0
        self.values: deque[float] = deque(maxlen=_MEDIANS)


class Series:
    """One measure of one route."""

    __slots__ = (
        "_aside",
        "_back",
        "_baseline",
        "_bytes",
        "_config",
        "_hour",
        "_hour_count",
        "_hour_s",
        "_hour_sum",
        "_learning_s",
        "_learnt_ns",
        "_row",
        "filling",
        "measure",
    )

    def __init__(self, measure: Measure, config: ShiftConfig) -> None:
        self.measure = measure
        self.filling = Filling()
        self._config = config
        self._baseline = Baseline()
        self._bytes = 0.0
        self._learning_s = 0.0
        self._learnt_ns: int | None = None
        self._row: _Row | None = None
        self._back = 0
        self._hour = 0
        self._hour_count = 0
        self._hour_sum = self._hour_s = 0.0
        self._aside: deque[tuple[float, float]] = deque(maxlen=_MEDIANS)

    def __repr__(self) -> str:
        row = self._row.buckets if self._row else 0
        return f"Series({self.measure.value}, {self._baseline!r}, off={row}, back={self._back})"

    @property
    def warm(self) -> bool:
        """Whether enough was learnt to judge by."""
        config = self._config
        return self._baseline.count >= config.warm_up_buckets and self._learning_s >= config.warm_up_s

    @property
    def off(self) -> bool:
        """Whether the last bucket was off."""
        return self._row is not None

    @property
    def back(self) -> int:
        """How many buckets in a row were back at the usual while a case was open."""
        return self._back

    def drop(self) -> None:
        """Forget the bucket that is under way, and what was in a row: not everything was seen."""
        self._row = None
        self._back = 0
        self._aside.clear()
        self.filling.drop()

    def usual(self, unix_s: float) -> float | None:
        """Return what is usual at that time of the day; None before enough was learnt.

        Where the last hours and the hour of the day differ, the worse of them is usual.
        """
        if not self.warm:
            return None
        season = self._baseline.season(unix_s)
        return self._baseline.level if season is None else self._worse(season, self._baseline.level)

    def judge(self, now: Instant, *, was_usual: float | None) -> Shift | None:
        """Judge the bucket under way if it is full: return the shift where it makes or goes on with a case.

        `was_usual` is what an open case about this measure says was usual, None without one: such a case is
        followed whether or not the baseline was forgotten since.
        """
        config = self._config
        bucket = self.filling.take(
            now.boot_ns,
            least=config.exchanges_min,
            shortest_s=config.bucket_s,
            longest_s=config.bucket_longest_s,
        )
        if bucket is None:
            return None
        unix_s = now.unix_ns / 1e9
        usual = self.usual(unix_s)
        if usual is None or was_usual is None:
            usual = was_usual if usual is None else usual
        else:
            usual = self._worse(usual, was_usual)
        if usual is None:
            self._learn(bucket, now)
            return None
        expected = usual * self._growth(bucket)
        opened = was_usual is not None
        if self._is_off(bucket, expected) and (opened or self._rare(bucket, unix_s)):
            self._back = 0
            return self._went_off(bucket, usual, now, opened=opened)
        back = self._is_back(bucket, expected)
        if self._row is not None and not back and not opened:
            self._count(self._row, bucket, expected)
            self._aside.append((unix_s, bucket.value))
            return None
        self._row = None
        if opened and not back:
            self._back = 0
            self._put_aside(bucket, now)
            return None
        self._back = self._back + 1 if opened else 0
        if not opened:
            self._learn_aside()
        if self.warm or not opened:
            self._learn(bucket, now)
        return None

    def to_bytes(self) -> bytes:
        """Return what `recall` needs to go on after a restart."""
        head = _LAYOUT.pack(_VERSION, self._learning_s, self._bytes)
        return head + self._baseline.to_bytes()

    def recall(self, raw: bytes) -> None:
        """Take up what `to_bytes` wrote; raise UnreadableBaseline, changing nothing, where it is not that."""
        if len(raw) != _LAYOUT.size + BASELINE_BYTES:
            raise UnreadableBaseline(f"a series has {_LAYOUT.size + BASELINE_BYTES} bytes, not {len(raw)}")
        version, learning_s, request_bytes = _LAYOUT.unpack_from(raw)
        if version != _VERSION or not 0.0 <= learning_s <= 1e12 or not 0.0 <= request_bytes <= _LARGEST_BYTES:
            raise UnreadableBaseline("a series of another version, or with times or sizes out of range")
        self._baseline = Baseline.from_bytes(raw[_LAYOUT.size :])
        self._learning_s, self._bytes = learning_s, request_bytes

    def _growth(self, bucket: Bucket) -> float:
        """Return how many times longer than usual the first token may take, the requests being larger."""
        if self.measure is not Measure.FIRST_TOKEN or self._bytes <= 0.0:
            return 1.0
        return max(1.0, bucket.request_bytes / self._bytes)

    def _worse(self, one: float, other: float) -> float:
        return min(one, other) if self.measure in PACES else max(one, other)

    def _is_off(self, bucket: Bucket, expected: float) -> bool:
        config, value = self._config, bucket.value
        if self.measure is Measure.FAILURES:
            certain = share_at_least(bucket.failed, bucket.exchanges)
            return value >= expected + config.errors_rise and certain > expected
        return self._is_slow(value, expected)

    def _is_slow(self, value: float, expected: float) -> bool:
        config = self._config
        if self.measure is Measure.FIRST_TOKEN:
            return value >= config.slower_factor * expected and value >= expected + config.slower_s
        if value <= 0.0 or expected <= 0.0:
            return False
        later_s = _ANSWER_TOKENS * (1.0 / value - 1.0 / expected)
        return value * config.slower_factor <= expected and later_s >= config.answer_slower_s

    def _is_back(self, bucket: Bucket, expected: float) -> bool:
        config, value = self._config, bucket.value
        if self.measure is Measure.FAILURES:
            return value <= expected + config.errors_rise / 2
        if self.measure is Measure.FIRST_TOKEN:
            return value <= _BACK * expected or value <= expected + config.slower_s / 2
        return value * _BACK >= expected

    def _rare(self, bucket: Bucket, unix_s: float) -> bool:
        """Whether the baseline finds the bucket rare, asked of a copy, so that it learns nothing by it."""
        asked = self._baseline.copy()
        asked.observe(unix_s, bucket.value)
        return asked.surprise >= self._config.surprise_min

    def _limit(self, expected: float) -> float:
        config = self._config
        if self.measure is Measure.FAILURES:
            return expected + config.errors_rise
        if self.measure is Measure.FIRST_TOKEN:
            return max(config.slower_factor * expected, expected + config.slower_s)
        return expected / config.slower_factor

    def _went_off(self, bucket: Bucket, usual: float, now: Instant, *, opened: bool) -> Shift | None:
        unix_s = now.unix_ns / 1e9
        expected = usual * self._growth(bucket)
        row = self._row
        if row is None:
            row = self._row = _Row(bucket.began_ns)
        self._count(row, bucket, expected)
        row.buckets += 1
        row.values.append(bucket.value)
        self._aside.append((unix_s, bucket.value))
        if opened and self.measure is not Measure.FAILURES:
            self._put_aside(bucket, now)
        if not opened and not self._makes_a_case(row, expected):
            return None
        if self.measure is Measure.FAILURES:
            self._aside.clear()
        fresh, row.told = row.affected - row.told, row.affected
        share = row.affected / row.exchanges
        return Shift(
            window_s=(now.boot_ns - row.began_ns) / 1e9,
            exchanges=row.exchanges,
            affected=row.affected,
            affected_streamed=row.streamed,
            fresh=max(1, fresh),
            measured=share if self.measure is Measure.FAILURES else median(row.values),
            usual=usual,
            limit=self._limit(expected),
        )

    def _count(self, row: _Row, bucket: Bucket, expected: float) -> None:
        """Add the exchanges of `bucket` to the row."""
        slow = sum(self._is_slow(value, expected) for value in bucket.values)
        row.exchanges += bucket.exchanges
        row.affected += slow if bucket.values else bucket.failed
        row.streamed += slow if bucket.values else bucket.failed_streamed

    def _makes_a_case(self, row: _Row, expected: float) -> bool:
        """Whether the buckets in a row are enough, and for shares too unlikely to be a whim."""
        config = self._config
        if self.measure is not Measure.FAILURES:
            return row.buckets >= config.slow_in_a_row
        share = row.affected / row.exchanges
        return (
            row.buckets >= config.failing_in_a_row
            and row.affected >= config.failures_min
            and share >= expected + config.errors_rise
            and row.exchanges * _unlikeliness(share, max(expected, _LEAST_SHARE)) >= _CERTAIN
        )

    def _learn_aside(self) -> None:
        """Learn what was set aside and is no open case any more."""
        for unix_s, value in self._aside:
            self._baseline.observe(unix_s, value)
        self._aside.clear()

    def _learn(self, bucket: Bucket, now: Instant) -> None:
        self._baseline.observe(now.unix_ns / 1e9, bucket.value)
        if self._learnt_ns is not None:
            self._learning_s += max(
                0.0, min((now.boot_ns - self._learnt_ns) / 1e9, self._config.bucket_longest_s)
            )
        self._learnt_ns = now.boot_ns
        weight = max(_BYTES_WEIGHT, 1.0 / self._baseline.count)
        self._bytes += weight * (bucket.request_bytes - self._bytes)

    def _put_aside(self, bucket: Bucket, now: Instant) -> None:
        """Keep what is not learnt; when its hour is over, the level of that hour moves a part of the way.

        A quarter of an hour moves it by a quarter of that.
        """
        hour = int(now.unix_ns / 1e9 // 3600.0)
        if hour != self._hour:
            if self._hour_count and self.warm:
                mean = self._hour_sum / self._hour_count
                share = self._config.hour_share * min(1.0, self._hour_s / 3600.0)
                self._baseline.nudge(self._hour * 3600.0, mean, share)
            self._hour, self._hour_sum, self._hour_count, self._hour_s = hour, 0.0, 0, 0.0
        self._hour_sum += bucket.value / self._growth(bucket)
        self._hour_count += 1
        self._hour_s += (now.boot_ns - bucket.began_ns) / 1e9


def _unlikeliness(share: float, usual: float) -> float:
    """Return how unlikely each exchange makes `share` where `usual` holds: relative entropy, in nats."""
    if not usual < share:
        return 0.0
    if usual >= 1.0 or share >= 1.0:
        return -log(usual)
    return share * log(share / usual) + (1.0 - share) * log((1.0 - share) / (1.0 - usual))
