"""Buckets: when they are full, what they say, and when they are given up."""

from __future__ import annotations

import pytest

from agent.baselines.bucket import Bucket, Filling

SECOND = 1_000_000_000


def take(filling: Filling, seconds: float) -> Bucket | None:
    """Ask for the bucket at that moment."""
    return filling.take(int(seconds * SECOND), least=3, shortest_s=60.0, longest_s=900.0)


def test_a_full_minute_is_a_share_of_failures() -> None:
    """Streamed failures are counted apart as well."""
    filling = Filling()
    for second, (failed, streamed) in enumerate([(True, True), (True, False), (False, True), (False, False)]):
        filling.outcome((10 + second) * SECOND, failed=failed, streamed=streamed)
    assert take(filling, 69.9) is None
    assert take(filling, 70) == Bucket(
        began_ns=10 * SECOND, value=0.5, exchanges=4, failed=2, failed_streamed=1
    )
    assert take(filling, 1000) is None


def test_medians_of_values_and_sizes() -> None:
    """One extreme request moves neither."""
    filling = Filling()
    for value, size in ((1.0, 10.0), (2.0, 20.0), (900.0, 1e9)):
        filling.sample(0, value, size)
    bucket = take(filling, 60)
    assert bucket is not None
    assert (bucket.value, bucket.request_bytes, bucket.values) == (2.0, 20.0, (1.0, 2.0, 900.0))


@pytest.mark.parametrize(("asked_s", "third_s", "exchanges"), [(899.0, 899.5, 3), (900.0, 901.0, None)])
def test_a_bucket_waits_for_enough_and_is_given_up(
    asked_s: float, third_s: float, exchanges: int | None
) -> None:
    """What fills within the longest time is one bucket; after that it begins anew."""
    filling = Filling()
    for _ in range(2):
        filling.outcome(0, failed=False, streamed=False)
    assert take(filling, asked_s) is None
    filling.outcome(int(third_s * SECOND), failed=False, streamed=False)
    bucket = take(filling, third_s)
    assert (bucket.exchanges if bucket else None) == exchanges


def test_a_busy_minute_keeps_the_latest_values_only() -> None:
    """Ten thousand exchanges take as much memory as 64, and all of them are counted."""
    filling = Filling()
    for number in range(10_000):
        filling.sample(0, float(number), 1.0)
    bucket = take(filling, 60)
    assert bucket is not None
    assert (bucket.exchanges, len(bucket.values)) == (10_000, 64)
    assert min(bucket.values) >= 10_000 - 64 - 1
