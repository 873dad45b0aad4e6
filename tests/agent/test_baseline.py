"""The baseline: what it learns, what it finds unusual, what it refuses, and what it costs."""

from __future__ import annotations

import math
import random
import struct

import pytest
from hypothesis import given, settings, strategies as st

from agent.baselines.baseline import (
    LARGEST,
    SAVED_BYTES,
    Baseline,
    BaselineError,
    NotANumber,
    UnreadableBaseline,
)

MINUTE = 60.0
HOUR = 3600.0
DAY = 86400.0
MONDAY = 4 * DAY
"""The first Monday of Unix time."""

REPORTED = 1.0
"""A surprise from here on is worth a look: rarer than one in ten of its own past."""


def noise(seed: int, count: int, *, level: float = 100.0, spread: float = 5.0) -> list[float]:
    """Return `count` numbers around `level`."""
    source = random.Random(seed)
    return [source.gauss(level, spread) for _ in range(count)]


def taught(values: list[float], *, start_s: float = MONDAY, step_s: float = MINUTE) -> Baseline:
    """Return a baseline that has learnt `values`, one every `step_s`."""
    baseline = Baseline()
    for place, value in enumerate(values):
        baseline.observe(start_s + place * step_s, value)
    return baseline


def test_learns_level_and_spread() -> None:
    """The level is the mean, and the spread the mean distance from it."""
    baseline = taught(noise(1, 2000))
    assert baseline.count == 2000
    assert baseline.level == pytest.approx(100.0, abs=1.5)
    assert baseline.spread == pytest.approx(5.0 * math.sqrt(2 / math.pi), rel=0.15)


def test_learns_the_hour_of_the_day_apart_from_the_weekend() -> None:
    """A working day's noon and a weekend's noon have levels of their own; an hour never seen has none."""
    baseline = Baseline()
    for minute in range(7 * 24 * 60):
        at_s = MONDAY + minute * MINUTE
        hour, weekend = minute // 60 % 24, minute // 1440 >= 5
        if hour != 3:
            baseline.observe(at_s, 10.0 + hour + (100.0 if weekend else 0.0))
    assert baseline.season(MONDAY + 12 * HOUR) == pytest.approx(22.0)
    assert baseline.season(MONDAY + 5 * DAY + 12 * HOUR) == pytest.approx(122.0)
    assert baseline.season(MONDAY + 3 * HOUR) is None


def test_an_hour_not_yet_seen_at_the_weekend_is_taken_for_a_working_days() -> None:
    """The first Saturday is judged by the days before it rather than by nothing."""
    baseline = taught([10.0 + minute // 60 % 24 for minute in range(5 * 1440 - 30)])
    assert baseline.season(MONDAY + 5 * DAY + 9 * HOUR) == pytest.approx(19.0)


@pytest.mark.parametrize("jump", [50.0, -50.0, 1e6])
def test_a_jump_surprises_at_once_and_is_told_once(jump: float) -> None:
    """The first number of a new level passes the envelope; those after it are no news."""
    baseline = taught(noise(2, 1500))
    at_s = MONDAY + 1500 * MINUTE
    first = baseline.observe(at_s, 100.0 + jump)
    after = [baseline.observe(at_s + n * MINUTE, 100.0 + jump) for n in range(1, 4)]
    assert first > 2.0
    assert sum(score > 0.0 for score in after) <= 2
    assert baseline.surprise > 0.0


def test_what_is_usual_does_not_surprise() -> None:
    """Numbers of the same kind pass less than twice in a hundred, and never with a high score."""
    values = noise(3, 6000)
    baseline = taught(values[:3000])
    passed = [baseline.observe(MONDAY + n * MINUTE, values[n]) for n in range(3000, 6000)]
    assert max(passed) < 4.5
    assert sum(score > 0.0 for score in passed) < 60


def test_a_level_shift_is_learnt_within_a_day_of_minutes() -> None:
    """After 460 numbers nine tenths of a new level are learnt; after a day a number at it is ordinary."""
    baseline = taught(noise(4, 3 * 1440))
    shifted = noise(5, 1440, level=200.0)
    for place, value in enumerate(shifted):
        baseline.observe(MONDAY + (3 * 1440 + place) * MINUTE, value)
        if place == 460:
            assert baseline.level == pytest.approx(200.0, abs=12.0)
    baseline.observe(MONDAY + 4 * DAY, 200.0)
    assert baseline.level == pytest.approx(200.0, abs=2.0)
    assert baseline.surprise < REPORTED


def test_what_comes_every_day_surprises_less_than_at_another_hour() -> None:
    """The season knows that nine o'clock is busy; the same number at three in the afternoon is news."""
    baseline = Baseline()
    source = random.Random(6)
    for minute in range(11 * 1440):
        busy = minute // 60 % 24 == 9
        baseline.observe(MONDAY + minute * MINUTE, source.gauss(150.0 if busy else 100.0, 3.0))
    expected, unexpected = baseline.copy(), baseline.copy()
    expected.observe(MONDAY + 11 * DAY + 9 * HOUR, 150.0)
    unexpected.observe(MONDAY + 11 * DAY + 15 * HOUR, 150.0)
    assert expected.surprise + 0.5 < unexpected.surprise


def test_a_constant_series_surprises_only_when_it_moves() -> None:
    """No spread is no division by nothing: the same number is never news, another one always is."""
    baseline = Baseline()
    quiet = [baseline.observe(MONDAY + n * MINUTE, 0.25) for n in range(2000)]
    assert quiet == [0.0] * 2000
    assert baseline.observe(MONDAY + 2000 * MINUTE, 0.26) > 2.0


def test_zeros_are_numbers() -> None:
    """A series of nothing, such as a share of failures, is learnt like any other."""
    baseline = taught([0.0] * 500)
    assert (baseline.level, baseline.spread) == (0.0, 0.0)
    assert baseline.observe(MONDAY + 500 * MINUTE, 0.1) > 2.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2 * LARGEST])
def test_what_is_no_number_is_refused_by_name_and_teaches_nothing(value: float) -> None:
    """The refusal names the value; the baseline is as before."""
    baseline = taught(noise(7, 50))
    before = baseline.to_bytes()
    with pytest.raises(NotANumber, match="value"):
        baseline.observe(MONDAY, value)
    with pytest.raises(NotANumber, match="time"):
        baseline.observe(value, 1.0)
    assert baseline.to_bytes() == before


def test_gaps_and_clocks_that_jump_change_only_the_hour() -> None:
    """Time that passes unseen, or backwards, is nothing to be surprised at."""
    values = noise(8, 3000)
    baseline = taught(values[:1500])
    times = [MONDAY + 400 * DAY + n * MINUTE for n in range(500)]
    times += [MONDAY - 300 * DAY + n * MINUTE for n in range(500)]
    times += [MONDAY + n * MINUTE for n in range(500)]
    passed = [baseline.observe(at_s, value) for at_s, value in zip(times, values[1500:], strict=True)]
    assert max(passed) < 4.5
    assert baseline.level == pytest.approx(100.0, abs=1.5)


def test_a_copy_may_be_asked_without_teaching_the_original() -> None:
    """What the copy learns stays in the copy."""
    baseline = taught(noise(9, 300))
    before = baseline.to_bytes()
    copy = baseline.copy()
    assert copy.to_bytes() == before
    assert copy.observe(MONDAY, 900.0) > 1.0
    assert baseline.to_bytes() == before


def test_nudge_moves_the_level_of_one_hour_only() -> None:
    """An hour that was hardly seen starts from the level."""
    baseline = taught(noise(10, 120, spread=0.0))
    baseline.nudge(MONDAY, 200.0, 0.3)
    baseline.nudge(MONDAY + 20 * HOUR, 200.0, 0.3)
    assert baseline.season(MONDAY) == pytest.approx(130.0)
    assert baseline.season(MONDAY + HOUR) == pytest.approx(100.0)
    assert baseline.season(MONDAY + 20 * HOUR) == pytest.approx(130.0)
    assert baseline.level == pytest.approx(100.0)


def test_goes_on_after_a_restart_as_if_there_had_been_none() -> None:
    """What is written and read again finds the same in the numbers that follow, long rescaled pasts too."""
    values = noise(11, 90_000)
    baseline = taught(values[:88_000], step_s=HOUR)
    again = Baseline.from_bytes(baseline.to_bytes())
    assert again.to_bytes() == baseline.to_bytes()
    for place in range(88_000, 90_000):
        at_s = MONDAY + place * HOUR
        assert again.observe(at_s, values[place]) == baseline.observe(at_s, values[place])


def test_size_does_not_grow() -> None:
    """A series takes as many bytes on disk after a hundred thousand numbers as after none."""
    assert len(Baseline().to_bytes()) == len(taught(noise(12, 5000)).to_bytes()) == SAVED_BYTES
    assert SAVED_BYTES <= 2048


def test_foreign_bytes_are_refused() -> None:
    """Another length, another version, and numbers that no baseline has, each with its reason."""
    raw = taught(noise(13, 100)).to_bytes()
    with pytest.raises(UnreadableBaseline, match="bytes"):
        Baseline.from_bytes(raw[:-1])
    with pytest.raises(UnreadableBaseline, match="version"):
        Baseline.from_bytes(b"\xff" + raw[1:])
    for number in (math.nan, math.inf, -1.0):
        with pytest.raises(UnreadableBaseline):
            Baseline.from_bytes(raw[: 9 + 4 * 8] + struct.pack("<d", number) + raw[9 + 5 * 8 :])
    with pytest.raises(UnreadableBaseline, match="past"):
        Baseline.from_bytes(raw[:-1] + b"\xff")


@settings(max_examples=200)
@given(st.binary(min_size=SAVED_BYTES - 1, max_size=SAVED_BYTES - 1))
def test_hostile_bytes_are_refused_or_harmless(body: bytes) -> None:
    """Whatever was put where a baseline was kept: it is refused, or what it makes can be used."""
    try:
        baseline = Baseline.from_bytes(b"\x01" + body)
    except BaselineError:
        return
    assert math.isfinite(baseline.observe(MONDAY, 1.0))


@settings(max_examples=100)
@given(st.integers(0, SAVED_BYTES - 1), st.integers(1, 255))
def test_a_flipped_byte_is_refused_or_harmless(place: int, flip: int) -> None:
    """A baseline that was damaged on disk never brings the agent down."""
    raw = bytearray(taught(noise(14, 300)).to_bytes())
    raw[place] ^= flip
    try:
        baseline = Baseline.from_bytes(bytes(raw))
    except BaselineError:
        return
    for minute in range(5):
        assert math.isfinite(baseline.observe(MONDAY + minute * MINUTE, 100.0))


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.floats(-1e10, 1e10),
            st.one_of(st.floats(-LARGEST, LARGEST), st.sampled_from([0.0, 5e-324, 1e-300, LARGEST])),
        ),
        max_size=80,
    )
)
def test_any_finite_series_is_learnt(points: list[tuple[float, float]]) -> None:
    """Whatever the numbers are, the score is one, and the baseline can be kept and read again."""
    baseline = Baseline()
    for at_s, value in points:
        assert 0.0 <= baseline.observe(at_s, value) < 100.0
    assert Baseline.from_bytes(baseline.to_bytes()).to_bytes() == baseline.to_bytes()
