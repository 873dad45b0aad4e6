"""JSON in pieces: held against the standard library's parser."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, AnyStr

import pytest
from hypothesis import given, settings, strategies as st

from probes.http.document import SMALL_BYTES, Document
from probes.http.json_check import JsonCheck
from probes.http.json_walk import STREAMED, JsonWalk, Passage, Watch, members_at_the_end
from probes.http.passage import PassageDecoder

_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
)
_KEYS = st.one_of(st.sampled_from(["a", "b", "text"]), st.text(max_size=5))
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_KEYS, inner, max_size=4)),
    max_leaves=20,
)
_SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=5)
_DAMAGE = st.lists(st.tuples(st.integers(0, 10_000), st.sampled_from('{}[]",:\\ 0-.et\n')), max_size=2)


def cut(whole: AnyStr, sizes: Sequence[int]) -> list[AnyStr]:
    pieces: list[AnyStr] = []
    at = turn = 0
    while at < len(whole):
        size = sizes[turn % len(sizes)]
        pieces.append(whole[at : at + size])
        at, turn = at + size, turn + 1
    return pieces


def is_json(text: str) -> bool:
    def refuse(name: str) -> None:
        raise ValueError(name)  # NaN and Infinity are Python's own

    try:
        json.loads(text, parse_constant=refuse)
    except ValueError:
        return False
    return True


@given(_VALUES, st.booleans(), _DAMAGE, _SIZES)
@settings(max_examples=300)
def test_the_check_agrees_with_the_parser(
    value: Any, ascii_only: bool, damage: list[tuple[int, str]], sizes: list[int]
) -> None:
    """Whole and damaged texts, in any pieces; none at all is valid too."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    for where, one in damage:
        at = where % len(text)
        text = text[:at] + one + text[at + 1 :]
    check = JsonCheck()
    for piece in cut(text, sizes):
        check.feed(piece)
    assert check.valid == (is_json(text) or not text.strip())


def test_the_check_holds_open_brackets_alone() -> None:
    """A megabyte of text inside a string leaves nothing behind; too deep is not valid."""
    check = JsonCheck()
    check.feed('{"a": ["')
    for _ in range(100):
        check.feed("canary " * 1000)
    assert check.held_bytes == 2
    assert not check.valid
    deep = JsonCheck()
    deep.feed("[" * 100_000 + "]" * 100_000)
    assert not deep.valid
    assert deep.held_bytes <= 256


class Passages:
    """Joins what is passed on."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, str]] = []
        self._decoder = PassageDecoder()

    def begin(self, passage: Passage, key: str, path: Sequence[Any]) -> None:
        assert passage is Passage.CONTENT
        self.texts.append((key, ""))
        self._decoder = PassageDecoder()

    def piece(self, raw: bytes) -> None:
        key, text = self.texts[-1]
        self.texts[-1] = (key, text + self._decoder.feed(raw))

    def finish_passage(self) -> None:
        key, text = self.texts[-1]
        self.texts[-1] = (key, text + self._decoder.finish())


LEAF = Watch()
WATCH = Watch(members={"a": LEAF, "b": Watch(members={"a": LEAF}, elements=Watch(members={"a": LEAF}))})


def pruned(value: Any, watch: Watch) -> Any:
    """What the walk of a value should give."""
    if isinstance(value, dict):
        return {k: pruned(v, watch.members[k]) for k, v in value.items() if k in watch.members}
    if isinstance(value, list):
        return [pruned(one, watch.elements) for one in value] if watch.elements else []
    return value


@given(_VALUES, st.booleans(), _SIZES)
@settings(max_examples=300)
def test_the_walk_gives_the_parsed_value_pruned(value: Any, ascii_only: bool, sizes: list[int]) -> None:
    """In any pieces, any encoding, at any depth."""
    whole = {"x": value, "b": value, "a": 1, "c": value}
    data = json.dumps(whole, ensure_ascii=ascii_only, indent=len(sizes) - 1 or None).encode(
        "utf-8", "replace"
    )
    walk = JsonWalk(WATCH)
    for piece in cut(data, sizes):
        walk.feed(piece)
    assert walk.whole
    assert walk.value == pruned(json.loads(data), WATCH)


@given(st.text(max_size=80), st.booleans(), _SIZES)
@settings(max_examples=300)
def test_strings_that_are_passed_on_arrive_as_they_were(
    text: str, ascii_only: bool, sizes: list[int]
) -> None:
    """Escapes and characters may be cut anywhere."""
    data = json.dumps({"n": 1, "text": text, "z": [text]}, ensure_ascii=ascii_only).encode("utf-8", "replace")
    passages = Passages()
    walk = JsonWalk(Watch(members={"text": Watch(Passage.CONTENT), "n": LEAF}), passages)
    for piece in cut(data, sizes):
        walk.feed(piece)
    assert passages.texts == [("text", json.loads(data)["text"])]
    assert walk.value == {"n": 1, "text": STREAMED}


@given(st.dictionaries(_KEYS, _VALUES, min_size=1, max_size=5), st.integers(0, 10_000))
@settings(max_examples=300)
def test_members_at_the_end_are_members_of_the_object(value: dict[str, Any], at: int) -> None:
    """Wherever the tail begins, what is found is there at the top, with that value."""
    data = json.dumps(value).encode()
    found: Mapping[str, Any] = members_at_the_end(data[at % len(data) :])
    assert all(value[key] == found[key] for key in found)


@pytest.mark.parametrize("size", [SMALL_BYTES - 20, SMALL_BYTES + 1, 200_000])
def test_a_document_of_any_size_is_read_in_bounded_memory(size: int) -> None:
    """Parsed whole when small, walked when not, with the same members."""
    data = json.dumps({"c": "x" * size, "a": "kept"}).encode()
    document = Document(WATCH)
    for piece in cut(data, [700]):
        document.feed(piece)
        assert document.held_bytes <= SMALL_BYTES
    assert document.finish()["a"] == "kept"


@pytest.mark.parametrize(
    "data", [b"", b"[", b"{", b'{"a":', b"nonsense", b"[" * 5000, b"\xff\xfe", b'{"a":1}' * 900]
)
def test_what_is_no_document_raises_nothing(data: bytes) -> None:
    """It is no value, or the first of several."""
    document = Document(WATCH)
    document.feed(data)
    assert document.finish() in (None, {"a": 1})
