"""The audit chain shows every change that is made to it afterwards."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from escalation.server import audit
from escalation.server.desk import AuditEntry

_TEXT = st.text(max_size=20)


def _chain(texts: list[tuple[str, str]]) -> list[AuditEntry]:
    entries: list[AuditEntry] = []
    for number, (actor, detail) in enumerate(texts):
        entries.append(
            audit.follow(
                entries[-1] if entries else None,
                at_ns=number,
                actor=actor,
                verb="recommendation.approved",
                object_id="id",
                detail=detail,
            )
        )
    return entries


@given(st.lists(st.tuples(_TEXT, _TEXT), max_size=8))
def test_a_chain_that_was_left_alone_is_whole(texts: list[tuple[str, str]]) -> None:
    """Whatever it says, in whatever script."""
    entries = _chain(texts)
    assert audit.verify(entries) is None
    for cut in range(1, len(entries)):
        assert audit.verify(entries[cut:], start=entries[cut - 1]) is None


@pytest.mark.parametrize(
    "change",
    [
        {"actor": "eve"},
        {"detail": "other"},
        {"at_ns": 7},
        {"verb": "x"},
        {"object_id": "x"},
        {"digest": "0" * 64},
    ],
    ids="-".join,
)
def test_shows_a_changed_entry(change: dict[str, object]) -> None:
    """Each field is covered by the digest."""
    entries = _chain([("ada", "one"), ("ada", "two"), ("ada", "three")])
    entries[1] = replace(entries[1], **change)  # type: ignore[arg-type]
    found = audit.verify(entries)
    assert found is not None
    assert found.number == 2


def test_shows_removed_swapped_and_resealed_entries() -> None:
    """An entry that is gone, two that changed places, and one that was sealed again."""
    entries = _chain([("ada", "one"), ("ada", "two"), ("ada", "three")])
    resealed = audit.follow(
        entries[0], at_ns=1, actor="eve", verb="recommendation.approved", object_id="id", detail="two"
    )
    for broken in (
        [entries[0], entries[2]],
        [entries[1], entries[0], entries[2]],
        [entries[0], resealed, entries[2]],
        entries[1:],
    ):
        assert audit.verify(broken) is not None


def test_moving_text_between_fields_is_a_change() -> None:
    """The fields are kept apart in what is hashed."""
    one = audit.follow(None, at_ns=1, actor="a", verb="b c", object_id="d", detail="e")
    other = audit.follow(None, at_ns=1, actor="a b", verb="c", object_id="d", detail="e")
    assert one.digest != other.digest
