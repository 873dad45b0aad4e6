"""Measures of text: right, independent of the pieces, and bounded."""

from __future__ import annotations

import math
import pickle
from collections import Counter

import pytest
from hypothesis import given, settings, strategies as st

from probes.http.text import MEASURED_CHARACTERS, TextMeter


def meter(*pieces: str) -> TextMeter:
    one = TextMeter()
    for piece in pieces:
        one.add(piece)
    return one


@given(
    st.text(max_size=300).flatmap(lambda text: st.integers(1, 12).map(lambda times: text * times)),
    st.lists(st.integers(1, 700), min_size=1, max_size=6),
)
@settings(max_examples=150)
def test_does_not_depend_on_the_pieces(text: str, sizes: list[int]) -> None:
    """A text is its characters, however they came."""
    pieces, at, turn = [], 0, 0
    while at < len(text):
        size = sizes[turn % len(sizes)]
        pieces.append(text[at : at + size])
        at, turn = at + size, turn + 1
    in_pieces, at_once = meter(*pieces), meter(text)
    assert in_pieces.measure() == at_once.measure()
    assert in_pieces.marks == at_once.marks


@given(st.text(min_size=1, max_size=900))
@settings(max_examples=150)
def test_counts_what_can_be_counted_exactly(text: str) -> None:
    """Characters, runs, blanks and entropy."""
    measure = meter(text).measure()
    assert measure is not None
    counts = Counter(text)
    longest = run = 0
    for before, one in zip([None, *text], text, strict=False):
        run = run + 1 if one == before else 1
        longest = max(longest, run)
    assert measure.characters == len(text)
    assert measure.longest_run == longest
    assert measure.whitespace == pytest.approx(sum(one.isspace() for one in text) / len(text))
    assert measure.distinct == pytest.approx(len(counts) / len(text))
    entropy = -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values())
    assert measure.entropy_bits == pytest.approx(entropy, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        (" ".join(f"word{n}" for n in range(2000)), 0.0, 0.02),
        ("I am sorry, I cannot do that right now. " * 200, 0.95, 1.0),
        ("!" * 5000, 0.98, 1.0),
        ("重复的话" * 500, 0.98, 1.0),
        ("".join(chr(0x4E00 + n * 7919 % 20000) for n in range(4000)), 0.0, 0.02),
        (" ".join(f"w{n}" for n in range(300)) + " " + " ".join(f"w{n}" for n in range(300)), 0.45, 0.55),
    ],
    ids=["prose", "loop", "exclamation", "loop without words", "characters", "said twice"],
)
def test_repetition_is_the_share_of_n_grams_seen_before(text: str, low: float, high: float) -> None:
    """Of words, or of characters where there are no words."""
    measure = meter(text).measure()
    assert measure is not None
    assert low <= measure.repeated <= high


@pytest.mark.parametrize("mark", ["<think>", "</think>", "<|channel|>", "<|start|>"])
@pytest.mark.parametrize("at", [0, 505, 511, 512, 900])
def test_reasoning_marks_are_seen_also_across_blocks(mark: str, at: int) -> None:
    """A literal mark means that no parser took it out."""
    one = meter("x" * at + mark + "y" * 700)
    one.measure()
    assert one.marks
    other = meter("x" * at + "<thinking " + "y" * 700)
    other.measure()
    assert not other.marks


def test_control_and_replacement_characters_are_undecodable() -> None:
    """Tabs and line ends are not."""
    measure = meter("a\ufffd\x00\x07\t\n\r ").measure()
    assert measure is not None
    assert measure.undecodable == pytest.approx(3 / 8)
    assert meter("").measure() is None


def test_looks_at_the_beginning_and_counts_the_rest() -> None:
    """A long text costs no more than its beginning."""
    measure = meter("a b " * (MEASURED_CHARACTERS // 4), "!" * 50_000).measure()
    assert measure is not None
    assert measure.characters == MEASURED_CHARACTERS + 50_000
    assert measure.longest_run == 1


def test_memory_is_bounded_and_holds_no_text() -> None:
    """Whatever comes: a few KiB; and after the measure nothing of the text is left."""
    one = TextMeter()
    for n in range(2000):
        one.add(f"canary{n} " + chr(0x3400 + n % 20000) * 10)
        assert one.held_bytes < 1200
    one.measure()
    assert one.held_bytes == 0
    state = pickle.dumps([getattr(one, name) for name in TextMeter.__slots__])
    assert b"canary" not in state
    assert len(state) < 32_000
