"""Hostile text is inert, and what it was can still be told."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given, strategies as st

from escalation.inert import guarded, harmless, shown

ANY_TEXT = st.text(st.characters(codec=None, categories=None))

_ESCAPE = re.compile(r"\\(\\|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")


def _read_back(text: str) -> str:
    return _ESCAPE.sub(lambda found: "\\" if found[1] == "\\" else chr(int(found[1][1:], 16)), text)


@given(ANY_TEXT)
def test_never_lets_an_active_or_invisible_character_through(text: str) -> None:
    """No output holds a control, format, bidirectional, unassigned or combining character."""
    for result in (shown(text), shown(text, limit=5), guarded(text)):
        assert result.isprintable()
        for char in result:
            assert unicodedata.category(char)[0] not in {"C", "M"}
            assert unicodedata.bidirectional(char) not in {"R", "AL", "AN", "RLO", "LRO", "RLE", "LRE", "PDF"}


@given(ANY_TEXT)
def test_what_was_escaped_can_be_read_back(text: str) -> None:
    """Escapes are unambiguous: reading them back gives the original."""
    assert _read_back(shown(text)) == text


@given(ANY_TEXT)
def test_guarding_twice_changes_nothing(text: str) -> None:
    """Text that was made inert before passes the guard as it is."""
    assert guarded(shown(text)) == shown(text)
    assert harmless(guarded(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vllm-qwen", "vllm-qwen"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("a\nb\r\tc", "a\\x0ab\\x0d\\x09c"),
        ("user\u202egnp.exe", "user\\u202egnp.exe"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("dev-disk-by\\x2duuid", "dev-disk-by\\\\x2duuid"),
        ("Müller \u05d0", "Müller \\u05d0"),
        ("Z\u0335\u0321", "Z\\u0335\\u0321"),
        ("\U000e0041tag", "\\U000e0041tag"),
        ("\udcff", "\\udcff"),
        ("\u3164", "\\u3164"),
    ],
)
def test_escapes_by_name(text: str, expected: str) -> None:
    """Known tricks come out as their escapes; ordinary names as they are."""
    assert shown(text) == expected


def test_a_label_says_how_much_was_cut() -> None:
    """A label that is too long is cut in the original, never within an escape, and says so."""
    assert shown("\x1b" * 9, limit=2) == "\\x1b\\x1b… (7 more)"
